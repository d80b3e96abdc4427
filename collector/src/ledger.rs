//! Third step of a run: the ledger, the short memory that says what is new.
//!
//! It remembers at most [`CAPACITY`] events: id, local day and content of each. That is enough because it
//! also knows the day after which it is complete: an event of a later day that is not on it is new; one of
//! an earlier day has to be looked up in the archive. It lets go of the oldest days first, but never of an
//! event that the last response held. Pure bookkeeping: it reads and writes no store and no clock.

mod claim;
mod classification;
mod document;
mod lineage;
mod replica;
mod tally;
mod window;

use chrono::{DateTime, NaiveDate, Utc};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::event::{Event, EventId, Fingerprint};
pub use claim::{Claim, ClaimedObject};
pub use classification::{Classification, Comparison, Doubt, Doubtful};
pub use document::{LedgerDocument, LedgerError, READ_LIMIT_BYTES, SIZE_LIMIT_BYTES};
pub(crate) use lineage::is_id;
pub use lineage::{CommitKind, CommitRecord, CommittedObject, Descent, Lineage, Mark};
pub use replica::{Rejoining, Replica};
pub use tally::{RUN_DAYS, Tallies, Tally, prefix_of};
pub use window::WindowReport;

/// Most events a ledger remembers.
pub const CAPACITY: usize = 1_000;
/// Most withdrawn events whose return is watched for, the latest ones.
const WITHDRAWN_CAPACITY: usize = 200;
/// Maximum number of rejected elements that are recognised when they come again.
const REJECTED_CAPACITY: usize = 1_000;

/// What is remembered of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The latest local day it ever gave; nothing for an id taken over from another collector.
    pub day: Option<NaiveDate>,
    /// Its content when it was last seen; [`Fingerprint::UNKNOWN`] if it was taken over.
    pub fingerprint: Fingerprint,
}

/// The memory of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    seen: FxHashMap<EventId, Seen>,
    complete_after: NaiveDate,
    window: Vec<EventId>,
    rejected: Vec<Fingerprint>,
    withdrawn: Vec<EventId>,
    /// Most events it remembers.
    capacity: usize,
    /// The time of the last run that changed what it remembers.
    pub last_updated: Option<DateTime<Utc>>,
    /// How often it was written: no two states of it are written alike.
    pub writes: u64,
    /// The store that has proven its conditions.
    pub conditions: Option<String>,
    /// A run's intent that is not finished yet.
    pub claim: Option<Claim>,
    /// The history of the archive up to this state.
    pub lineage: Lineage,
    /// What the days hold that this ledger vouches for.
    pub tallies: Tallies,
    /// That the archive follows another one, and accepts no runs.
    pub replica: Option<Replica>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::complete_since_ever()
    }
}

impl Ledger {
    /// The ledger of an empty archive.
    #[must_use]
    pub fn complete_since_ever() -> Self {
        Self::complete_after(NaiveDate::MIN)
    }

    /// An empty ledger for an archive that has no event after `day`.
    #[must_use]
    pub fn complete_after(day: NaiveDate) -> Self {
        Self {
            seen: FxHashMap::default(),
            complete_after: day,
            window: Vec::new(),
            rejected: Vec::new(),
            withdrawn: Vec::new(),
            capacity: CAPACITY,
            last_updated: None,
            writes: 0,
            conditions: None,
            claim: None,
            lineage: Lineage::default(),
            tallies: Tallies::new(),
            replica: None,
        }
    }

    /// An empty ledger that vouches for no day: what is stored is found by looking it up.
    #[must_use]
    pub fn vouching_for_nothing() -> Self {
        Self::complete_after(NaiveDate::from_ymd_opt(9999, 12, 31).unwrap_or(NaiveDate::MAX))
    }

    /// The same, limited to `capacity` events, at most [`CAPACITY`].
    #[must_use]
    pub fn limited_to(mut self, capacity: usize) -> Self {
        self.capacity = capacity.min(CAPACITY);
        self
    }

    /// How many events it remembers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether it remembers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// What it remembers of an event.
    #[must_use]
    pub fn get(&self, id: EventId) -> Option<&Seen> {
        self.seen.get(&id)
    }

    /// All it remembers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (EventId, Seen)> + '_ {
        self.seen.iter().map(|(&id, &seen)| (id, seen))
    }

    /// Every stored event of a day after this one is remembered.
    #[must_use]
    pub fn is_complete_after(&self) -> NaiveDate {
        self.complete_after
    }

    /// Whether an event that is not remembered might be stored all the same.
    #[must_use]
    pub fn is_late(&self, day: NaiveDate) -> bool {
        day <= self.complete_after
    }

    /// Remembers a stored event. Its day never moves back: completeness counts from the latest one.
    pub fn remember(&mut self, event: Event) {
        let day =
            self.seen.get(&event.id).and_then(|seen| seen.day).map_or(event.day, |day| day.max(event.day));
        self.seen.insert(event.id, Seen { day: Some(day), fingerprint: event.fingerprint });
    }

    /// The same, with a run's intent.
    #[must_use]
    pub fn with_claim(&self, claim: Claim) -> Self {
        Self { claim: Some(claim), ..self.clone() }
    }

    /// The same, with nothing under way.
    #[must_use]
    pub fn without_claim(&self) -> Self {
        Self { claim: None, ..self.clone() }
    }

    /// Whether two ledgers remember the same, whenever they were written.
    #[must_use]
    pub fn remembers_the_same(&self, other: &Self) -> bool {
        let Self {
            seen,
            complete_after,
            window,
            rejected,
            withdrawn,
            claim,
            capacity: _,
            conditions: _,
            last_updated: _,
            writes: _,
            lineage: _,
            tallies: _,
            replica: _,
        } = self;
        *seen == other.seen
            && *complete_after == other.complete_after
            && *window == other.window
            && *rejected == other.rejected
            && *withdrawn == other.withdrawn
            && *claim == other.claim
    }

    /// Remembers an id that another collector vouches for.
    pub fn trust(&mut self, id: EventId) {
        self.seen.entry(id).or_insert(Seen { day: None, fingerprint: Fingerprint::UNKNOWN });
    }

    /// Takes from an earlier ledger what cannot be read from an archive: the last response, what was withdrawn or rejected,
    /// and the ids that another collector vouched for.
    pub fn inherit(&mut self, earlier: &Self) {
        let vouched_for = earlier.iter().filter(|(_, seen)| !seen.fingerprint.is_known());
        vouched_for.for_each(|(id, _)| self.trust(id));
        self.window = earlier.window.iter().copied().filter(|id| self.seen.contains_key(id)).collect();
        self.rejected.clone_from(&earlier.rejected);
        self.withdrawn.clone_from(&earlier.withdrawn);
        self.last_updated = earlier.last_updated;
        self.writes = earlier.writes;
        self.conditions.clone_from(&earlier.conditions);
        self.lineage.clone_from(&earlier.lineage);
        self.forget_oldest_outside_window();
    }

    /// Lets go of what exceeds its room, but never of what the last ordinary response held.
    pub fn forget_oldest_outside_window(&mut self) {
        let keep = self.window.iter().copied().collect();
        self.forget_oldest(&keep);
    }

    /// Lets go of what exceeds its room: the oldest days first, never what `keep` holds.
    fn forget_oldest(&mut self, keep: &FxHashSet<EventId>) {
        let excess = self.seen.len().saturating_sub(self.capacity);
        if excess == 0 {
            return;
        }
        let order = |(id, seen): (EventId, Seen)| (keep.contains(&id), seen.day, id);
        let mut candidates: Vec<_> = self.iter().map(order).collect();
        candidates.sort_unstable();
        for &(_, day, id) in &candidates[..excess] {
            self.seen.remove(&id);
            // An id without a day was never part of what the ledger is complete for.
            self.complete_after = day.map_or(self.complete_after, |day| day.max(self.complete_after));
        }
        self.window.retain(|id| self.seen.contains_key(id));
    }
}
