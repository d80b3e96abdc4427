//! A run's intent, written into the ledger before anything is stored.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::event::{EventId, Fingerprint};

/// What a run is about to store. Until it is finished, by its run or by a process that finds it dead, no other process
/// stores anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The run, and which of its claims this is: no two claims are equal.
    pub run: String,
    /// The process, so that one on the same machine can find out whether it still runs.
    pub owner: String,
    /// When others may take it over, in seconds since 1970 (UTC).
    pub until: i64,
    /// The objects about to be written.
    pub objects: Vec<ClaimedObject>,
}

/// An object that a claim names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedObject {
    /// Its name.
    pub key: String,
    /// The events it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<EventId>,
    /// The rejected elements it holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<Fingerprint>,
}

impl Claim {
    /// When others may take it over.
    #[must_use]
    pub fn end(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.until, 0).unwrap_or_default()
    }

    /// Whether its time has run out.
    #[must_use]
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        now.timestamp() >= self.until
    }
}
