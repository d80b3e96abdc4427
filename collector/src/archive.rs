//! Fourth step of a run: stores what is new, each event exactly once.
//!
//! New lines are partitioned by day and put as objects that are never changed. What keeps "never lost,
//! never twice" across crashes and rivals is the protocol in [`mod@deposit`]: claim, write, commit.

mod audit;
mod bulk;
mod changes;
mod commit;
pub(crate) mod compare;
mod day_index;
pub mod deposit;
pub(crate) mod generations;
mod inventory;
pub(crate) mod journal;
mod layout;
pub(crate) mod ledger_file;
mod lookup;
pub(crate) mod memory;
mod names;
pub(crate) mod owner;
pub(crate) mod partition;
pub(crate) mod reading;
mod repair;
pub(crate) mod takeover;
pub(crate) mod trust;
mod window;

use std::time::Duration;

use chrono::{DateTime, Utc};
use thiserror::Error;

pub use audit::{Audit, Fault, Findings, LineAt, MOST_PROBLEMS, Problem};
pub use bulk::{Bulk, Stored};
pub use changes::{Change, Changes, ChangesError, Cursor, InvalidCursor};
pub use deposit::{Deposit, Outcome};
pub use journal::content_digest;
#[cfg(feature = "tables")]
pub(crate) use journal::hexadecimal;
pub use layout::{Kind, Place, ledger_key};
pub use ledger_file::Snapshot;
pub use memory::{Memory, ProcessMemory, Remembered, StateFolder};
pub(crate) use names::{Names, Packed};
pub use owner::{Liveness, ThisProcess};
pub use partition::{Draft, objects_of};
pub use repair::Repair;

use crate::cache::Cache;
use crate::clock::SharedClock;
use crate::event::MAX_ELEMENTS;
use crate::files::descriptors;
use crate::ledger::{CAPACITY, Claim, LedgerError};
use crate::store::{CachedStore, Key, Listed, Object, Operation, SharedStore, StoreError};
use std::sync::Arc;

/// The archive could not do what was asked. What is in it is as sound as before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The store refused or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger cannot be trusted; to start from nothing would store every event again.
    #[error(
        "the ledger {location} cannot be used: {source}; `collector repair` rebuilds it from the archive"
    )]
    Ledger {
        /// Where it is.
        location: String,
        /// What is wrong with it.
        #[source]
        source: LedgerError,
    },
    /// The run's time was over before everything was stored. The next run takes it up.
    #[error("the run's time of {} s was over before everything was stored", .0.as_secs())]
    Deadline(Duration),
    /// A collector is at work.
    #[error("a collector ({owner}) is at work on the archive until {until} at the latest; try again then")]
    Busy {
        /// Who, as its claim says.
        owner: String,
        /// When its claim ends.
        until: DateTime<Utc>,
    },
    /// The store does not do what keeps events from being stored twice.
    #[error(
        "{location} cannot be trusted with several collectors: {what}; with --single-writer it can be used by one"
    )]
    Untrusted {
        /// The store.
        location: String,
        /// What it does wrong.
        what: String,
    },
    /// Nothing in the store looks like an archive.
    #[error("there is no archive in {0}")]
    Missing(String),
    /// Objects are missing that the ledger vouches for. A replica that lags may still deliver them.
    #[error(
        "{location} is incomplete: {what}; nothing was stored. If it was restored or is a copy that lags, complete it; \
         `collector repair` makes the ledger agree with what is there"
    )]
    Incomplete {
        /// The store.
        location: String,
        /// Which objects or events, with an example.
        what: String,
    },
    /// A ledger of one archive beside the objects or the journal of another one.
    #[error(
        "{location} holds archive {expected}, but its ledger is that of archive {found}; put the right one back, or let \
         `collector repair` make one from the archive"
    )]
    AnotherArchive {
        /// The store.
        location: String,
        /// The archive that is there.
        expected: String,
        /// The archive that the ledger names.
        found: String,
    },
    /// The store is empty where this machine has seen an archive.
    #[error("{location} is empty, but this machine has collected archive {archive} there")]
    Vanished {
        /// The store.
        location: String,
        /// The archive that was there.
        archive: String,
    },
    /// A record of the journal cannot be read.
    #[error("the record {key} of the journal cannot be used: {reason}")]
    Journal {
        /// The name of the record.
        key: Key,
        /// What is wrong with it.
        reason: String,
    },
    /// The archive follows another one.
    #[error(
        "{location} follows {primary} and accepts no runs; `collector adopt --store {location}` makes it the archive that does"
    )]
    Replica {
        /// The store.
        location: String,
        /// The location of the archive that it follows.
        primary: String,
    },
    /// Another store has taken over since.
    #[error("{location} was taken over by {primary} (epoch {epoch}); nothing was stored")]
    TakenOver {
        /// The store.
        location: String,
        /// The location of the archive that accepts runs now.
        primary: String,
        /// The epoch of that archive.
        epoch: u64,
    },
    /// Somebody else changed the archive in spite of the claim on it.
    #[error("the archive was changed by somebody else meanwhile; nothing is lost, start again")]
    Interrupted,
}

impl ArchiveError {
    /// What to do about it, where that helps.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing(_) => Some(
                "check --store and whether the file system is mounted; `collector run` starts an archive",
            ),
            Self::Vanished { .. } => Some(
                "mount the disk or correct --store; if the archive was removed on purpose, --new-archive starts another one",
            ),
            Self::Replica { .. } => Some("collect into the archive that it follows, or promote this one"),
            Self::TakenOver { .. } => Some(
                "collect into the other one; `collector mirror --reconcile` brings what both have stored together",
            ),
            _ => None,
        }
    }

    fn busy(claim: &Claim) -> Self {
        Self::Busy { owner: claim.owner.clone(), until: claim.end() }
    }
}

/// How an archive is kept.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// How many events a full response holds.
    pub buffer: usize,
    /// How many events the ledger remembers, at most [`CAPACITY`].
    pub capacity: usize,
    /// Maximum number of objects of a day and kind that a look-up reads without an index; with more, it writes one.
    pub unindexed_objects: usize,
    /// Whether no other process writes, so that the store's conditions need not be proven.
    pub single_writer: bool,
    /// Whether changed content of known events is stored.
    pub revisions: bool,
    /// How long others leave a run's claim alone, unless they know that its process has ended.
    pub lease: Duration,
    /// Maximum time of a run.
    pub deadline: Duration,
    /// How many requests it makes at a time.
    pub parallel: usize,
    /// Maximum number of elements of a response.
    pub max_elements: usize,
    /// Whether an empty store is a new archive, although this machine has seen one there.
    pub new_archive: bool,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self {
            buffer: 500,
            capacity: CAPACITY,
            unindexed_objects: 12,
            single_writer: false,
            revisions: true,
            lease: Duration::from_mins(10),
            deadline: Duration::from_mins(5),
            parallel: 16,
            max_elements: MAX_ELEMENTS,
            new_archive: false,
        }
    }
}

/// An archive in a store.
#[derive(Debug, Clone)]
pub struct Archive {
    store: SharedStore,
    clock: SharedClock,
    liveness: Arc<dyn Liveness>,
    memory: Arc<dyn Memory>,
    options: ArchiveOptions,
    /// The same store, for those who only read.
    cached: Option<CachedStore>,
    /// Where the tables are that queries may be answered from.
    #[cfg(feature = "tables")]
    pub(crate) tables: Option<SharedStore>,
    /// Where a later epoch of the archive is looked for before anything is stored.
    epoch_store: Option<SharedStore>,
}

impl Archive {
    /// The archive in `store`.
    #[must_use]
    pub fn new(store: SharedStore, clock: SharedClock, options: ArchiveOptions) -> Self {
        let (liveness, memory) = (ThisProcess::shared(), Arc::new(ProcessMemory::default()));
        Self {
            store,
            clock,
            liveness,
            memory,
            options,
            cached: None,
            epoch_store: None,
            #[cfg(feature = "tables")]
            tables: None,
        }
    }

    /// The same, remembering its commits in another way than within this process.
    #[must_use]
    pub fn with_memory(mut self, memory: Arc<dyn Memory>) -> Self {
        self.memory = memory;
        self
    }

    /// The same, with another way to find out which processes run.
    #[must_use]
    pub fn with_liveness(mut self, liveness: Arc<dyn Liveness>) -> Self {
        self.liveness = liveness;
        self
    }

    /// The same, looking for a later epoch in another store before anything is stored.
    #[must_use]
    pub fn with_epoch_store(mut self, store: SharedStore) -> Self {
        self.epoch_store = Some(store);
        self
    }

    /// The same, for queries through a cache that is for this store alone. What this archive writes is found at once by
    /// all who share the cache.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<Cache>) -> Self {
        let cached = CachedStore::new(self.store, cache);
        self.store = Arc::new(cached.clone());
        self.cached = Some(cached);
        self
    }

    /// The same, for queries that may be answered from the tables in a store, where those hold what the objects hold.
    #[cfg(feature = "tables")]
    #[must_use]
    pub fn with_tables(mut self, store: SharedStore) -> Self {
        self.tables = Some(store);
        self
    }

    /// The cache that queries go through, if there is one.
    #[must_use]
    pub fn cache(&self) -> Option<&Arc<Cache>> {
        self.cached.as_ref().map(CachedStore::cache)
    }

    /// Reads an object that a listing names. Objects are never deleted and only `repair` changes their size, so that an answer
    /// of another size is not the object.
    async fn read_listed(&self, listed: &Listed) -> Result<Object, StoreError> {
        let Listed { key, size_bytes } = listed;
        let reason = match self.store.get(key).await? {
            Some(object) if object.bytes.len() as u64 == *size_bytes => return Ok(object),
            Some(object) => {
                format!("it is listed with {size_bytes} bytes and read with {}", object.bytes.len())
            }
            None => "it is listed and does not exist".to_owned(),
        };
        Err(StoreError {
            operation: Operation::Get,
            target: format!("{}/{key}", self.store.location()),
            outcome_unknown: false,
            source: reason.into(),
        })
    }

    /// Fails unless the store holds a ledger or an object of an archive.
    ///
    /// # Errors
    /// [`ArchiveError::Missing`], or another if that cannot be determined.
    pub async fn require_existing(&self) -> Result<(), ArchiveError> {
        if self.store.get(&ledger_key()).await?.is_some() {
            return Ok(());
        }
        for kind in Kind::ALL {
            if !self.store.list(&format!("{kind}/")).await?.is_empty() {
                return Ok(());
            }
        }
        Err(ArchiveError::Missing(self.store.location()))
    }

    /// Maximum number of concurrent requests.
    pub(crate) fn parallel(&self) -> usize {
        self.options.parallel.clamp(1, descriptors::spare())
    }

    /// Maximum number of elements of a response.
    pub(crate) fn max_elements(&self) -> usize {
        self.options.max_elements
    }

    /// Whether the time of a run that began at a moment of its clock is over.
    pub(crate) fn deadline_from(&self, began: Duration) -> impl Fn() -> bool {
        move || self.clock.since(began) > self.options.deadline
    }

    /// How long others leave its claims alone.
    pub(crate) fn lease(&self) -> Duration {
        self.options.lease
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// What time it is for it.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// How this process is called where it says that it is at work.
    #[cfg(feature = "tables")]
    pub(crate) fn owner(&self) -> String {
        self.liveness.name()
    }

    /// Whether the process of that name is known to be gone.
    #[cfg(feature = "tables")]
    pub(crate) fn is_gone(&self, owner: &str) -> bool {
        self.liveness.is_gone(owner)
    }

    /// Waits, by its clock.
    #[cfg(feature = "tables")]
    pub(crate) async fn pause(&self, time: Duration) {
        self.clock.sleep(time).await;
    }

    /// The store it is in.
    #[must_use]
    pub fn store(&self) -> &SharedStore {
        &self.store
    }
}
