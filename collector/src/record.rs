//! Last step of a run: says what it did, for people, monitors and reports.
//!
//! A run's record is a file of its own that is never overwritten; the health file describes the last run and carries the
//! evidence of all runs so far. Both appear whole or not at all. A record that cannot be written makes the health check fail;
//! a health file that cannot be written makes the command fail. Neither changes what is stored.

pub mod check;
pub mod compact;
mod evidence;
pub mod health;
pub mod history;
mod parse;
mod process;
mod run_record;

use std::path::PathBuf;

pub(crate) use crate::files::output::stage;
pub(crate) use evidence::events_in;
pub use evidence::{Evidence, Fact, FeedGone, Limits, MAX_UNSETTLED, Reason, is_in_the_future};
pub use process::{ProcessUse, resident_bytes};
pub use run_record::{ErrorEntry, HttpUse, RunRecord, Status};

/// Where the last step of a run writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPaths {
    /// The folder of run records.
    pub metrics_dir: PathBuf,
    /// The health file.
    pub health_file: PathBuf,
}
