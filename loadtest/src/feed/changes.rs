//! What changes in a feed from one response to the next.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

/// What changed in a feed since it was last asked, by the events' ids.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Put into the feed, for the first time or again, and when.
    pub appeared: BTreeMap<u64, DateTime<Utc>>,
    /// Taken out of it, and not put back.
    pub withdrawn: BTreeSet<u64>,
    /// Edited, and so moved to the front; empty for a recording.
    pub moved: BTreeSet<u64>,
}
