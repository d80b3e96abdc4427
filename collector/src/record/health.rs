//! The health file: how the last run went, and the evidence of all runs so far.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::{Evidence, RunRecord, Status};
use crate::clock::iso;
use crate::files::{self, output};
use crate::json::from_object;
use crate::quantity::Quantity;

/// Maximum size of a health file that is read.
pub(super) const MAX_BYTES: u64 = 1 << 20;

#[derive(Serialize)]
struct Health<'a> {
    last_run: String,
    status: Status,
    events_processed: usize,
    execution_time: f64,
    error: Option<&'a str>,
    possible_gap: bool,
    /// Of the last valid response; follows from the evidence, for those who read the file.
    rejected_share: f64,
    #[serde(flatten)]
    evidence: &'a Evidence,
}

/// Replaces the health file by what a finished record and the evidence show. A file that cannot be replaced is removed,
/// if that is possible: it must not vouch for runs that came after it.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, record: &RunRecord, evidence: &Evidence) -> io::Result<()> {
    let health = Health {
        last_run: iso(record.end),
        status: record.status,
        events_processed: record.quantities.count(Quantity::NewEventsCount).unwrap_or(0),
        execution_time: record.get(Quantity::TotalTime).unwrap_or(0.0),
        error: record.errors.last().map(|error| error.message.as_str()),
        possible_gap: record.quantities.is_set(Quantity::PossibleGap),
        rejected_share: evidence.rejected_share(),
        evidence,
    };
    let mut text = serde_json::to_vec_pretty(&health)?;
    text.push(b'\n');
    let written = output::write(path, &text);
    if written.is_err() && fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        let _ = fs::remove_file(path);
    }
    written
}

/// The evidence in a health file: nothing where there is no regular file that can be read. What is missing or malformed in it
/// counts as never proven.
#[must_use]
pub fn read_evidence(path: &Path) -> Evidence {
    let text = files::read_regular(path, MAX_BYTES);
    text.ok().map(|text| evidence_in(&text)).unwrap_or_default()
}

/// The evidence in the content of a health file. Evidence that is malformed proves nothing.
pub(crate) fn evidence_in(text: &[u8]) -> Evidence {
    from_object(text).unwrap_or_default()
}
