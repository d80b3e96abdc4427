//! How a replica is: kept in a file beside the health file, so that the health check covers it in another process and after a
//! restart.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{MirrorError, MirrorReport};
use crate::files::{output, read_regular};
use crate::text::printable;

/// Maximum size of a file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// How the replica of the archive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorState {
    /// When it last held everything, or when updates began.
    pub last_success: DateTime<Utc>,
    /// Objects that runs stored since, where the runs are known.
    pub lag_objects: usize,
    /// Objects that are not what they have to be.
    pub conflicts: usize,
    /// Why the last update failed, if it did.
    pub error: Option<String>,
}

impl MirrorState {
    /// A replica that held everything then.
    #[must_use]
    pub fn new(last_success: DateTime<Utc>) -> Self {
        Self { last_success, lag_objects: 0, conflicts: 0, error: None }
    }

    /// Takes over an update, after a run that stored a number of objects.
    pub fn note(&mut self, updated: Result<&MirrorReport, &MirrorError>, stored: usize, now: DateTime<Utc>) {
        self.lag_objects += stored;
        match updated {
            Ok(report) if report.is_complete() => *self = Self::new(now),
            Ok(report) => {
                self.conflicts = report.conflicts_total;
                self.error = Some(match &report.left_to {
                    Some(owner) => format!("another update ({owner}) is at work on it"),
                    None => format!("{} objects are not what they have to be", report.conflicts_total),
                });
            }
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    /// What the health check says of a replica that was complete too long ago.
    #[must_use]
    pub fn fault(&self, now: DateTime<Utc>, max_age_minutes: i64) -> Option<String> {
        let age = (now - self.last_success).num_minutes();
        let error = self.error.as_deref().unwrap_or("it was not updated since");
        (age > max_age_minutes).then(|| {
            format!(
                "ERROR: The replica was complete {age} minutes ago (threshold: {max_age_minutes} minutes): {}\n",
                printable(error)
            )
        })
    }

    /// The file beside a health file: `health-replica.json` for `health.json`.
    #[must_use]
    pub fn path(health_file: &Path) -> PathBuf {
        let mut name = health_file.file_stem().map_or_else(OsString::new, OsString::from);
        name.push("-replica.json");
        health_file.with_file_name(name)
    }

    /// Reads the file beside a health file.
    ///
    /// # Errors
    /// If it is not there, or does not hold a state.
    pub fn read(health_file: &Path) -> io::Result<Self> {
        let text = read_regular(&Self::path(health_file), MAX_BYTES)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Writes the file beside a health file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, health_file: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        output::write(&Self::path(health_file), &text)
    }
}
