//! What earlier processes did, from the records of their runs, so that a restart forgets nothing that is shown or decided by.

use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};

use tracing::warn;

use super::status::MOST_RUNS;
use crate::record::{RunRecord, is_in_the_future};

/// So far back is looked.
const MONTH: TimeDelta = TimeDelta::days(31);
/// A record is at most as long.
const MOST_RECORD_BYTES: u64 = 1 << 20;

/// The runs of the last month, the oldest first, read one by one. What is no record of this collector, or dated in the
/// future, is passed over, and so is what `analyze-metrics --archive-older-than` has packed.
pub fn records(metrics_dir: &Path, now: DateTime<Utc>) -> impl Iterator<Item = RunRecord> {
    // A folder may hold years: of its names only those of the month are kept.
    let earliest = (now - MONTH).format("metrics_%Y%m%d").to_string();
    let latest = (now + TimeDelta::days(1)).format("metrics_%Y%m%d").to_string();
    let mut dated_later = 0_u32;
    let mut names: Vec<String> = fs::read_dir(metrics_dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            name.starts_with("metrics_") && name.strip_suffix(".json").is_some() && *name > earliest
        })
        .filter(|name| {
            let is_later = *name >= latest;
            dated_later += u32::from(is_later);
            !is_later
        })
        .collect();
    if dated_later > 0 {
        warn!(records = dated_later, local = %now, "run records are named by a time in the future; they are ignored");
    }
    names.sort_unstable();
    let oldest = names.len().saturating_sub(MOST_RUNS);
    let folder = metrics_dir.to_owned();
    names.into_iter().skip(oldest).filter_map(move |name| {
        let mut text = Vec::new();
        let path = folder.join(name);
        // What only looks like a record may be a pipe, which nobody writes to.
        fs::metadata(&path).ok().filter(Metadata::is_file)?;
        File::open(path).ok()?.take(MOST_RECORD_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok().filter(|record| is_of_the_past(record, now))
    })
}

/// Whether a run began before now, as far as clocks agree.
fn is_of_the_past(record: &RunRecord, now: DateTime<Utc>) -> bool {
    let start = record.start();
    let is_in_the_future = is_in_the_future(start, now);
    if is_in_the_future {
        warn!(dated = %start, local = %now, "a run's record is dated in the future; it is ignored");
    }
    !is_in_the_future
}
