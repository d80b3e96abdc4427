//! What earlier processes did, from the records of their runs, so that a restart forgets nothing that is shown or decided by.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::warn;

use super::status::MOST_RUNS;
use crate::record::history::{read_record, record_files};
use crate::record::{RunRecord, is_in_the_future};

/// How far back records are read.
const MONTH: TimeDelta = TimeDelta::days(31);

/// The runs of the last month, the oldest first, read one by one. What is not a record, or is dated in the future, is passed
/// over, and so is what `analyze-metrics --archive-older-than` has packed.
pub fn records(metrics_dir: &Path, now: DateTime<Utc>) -> impl Iterator<Item = RunRecord> {
    // A folder may hold years: only the names of the month are kept.
    let name_at = |time: DateTime<Utc>| time.format("metrics_%Y%m%d").to_string();
    let (earliest, latest) = (name_at(now - MONTH), name_at(now + TimeDelta::days(1)));
    let mut paths = record_files(metrics_dir, |name| name > earliest.as_str()).unwrap_or_default();
    let in_time = paths.partition_point(|path| path.file_name().is_some_and(|name| *name < *latest));
    let dated_later = paths.len() - in_time;
    if dated_later > 0 {
        warn!(records = dated_later, local = %now, "run records are named by a time in the future; they are ignored");
    }
    paths.truncate(in_time);
    let oldest = paths.len().saturating_sub(MOST_RUNS);
    paths.into_iter().skip(oldest).filter_map(move |path| read_record(&path, now).ok()).filter(move |record| {
        let is_late = is_in_the_future(record.start, now);
        if is_late {
            warn!(dated = %record.start, local = %now, "a run's record is dated in the future; it is ignored");
        }
        !is_late
    })
}
