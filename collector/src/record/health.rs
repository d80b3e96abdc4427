//! The health file: how the last run went.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::{RunRecord, Status, stage};

#[derive(Serialize)]
struct Health<'a> {
    last_run: &'a str,
    status: Status,
    events_processed: usize,
    execution_time: f64,
    error: Option<&'a str>,
    possible_gap: bool,
}

/// Replaces the health file by what a finished record says.
///
/// # Errors
/// If the file cannot be written; the old one is still whole then.
pub fn write(path: &Path, record: &RunRecord) -> io::Result<()> {
    let health = Health {
        last_run: &record.end_timestamp,
        status: record.status,
        events_processed: record.counts.deposit.map_or(0, |counts| counts.new_events_count),
        execution_time: record.total_time,
        error: record.errors.last().map(|error| error.message.as_str()),
        possible_gap: record.possible_gap,
    };
    let mut text = serde_json::to_vec_pretty(&health)?;
    text.push(b'\n');
    stage(path, &text)?.persist(path).map_err(|error| error.error)?;
    Ok(())
}
