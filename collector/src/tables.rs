//! Derives Parquet files from the archive, one of each table for each month, for tools that read tables.
//!
//! `tables/events/month=2026-01/events.parquet` holds each event once, in its latest version;
//! `tables/revisions/month=2026-01/revisions.parquet` holds every line of `events/` and `revisions/`, in the order of the archive.
//! The tables stand behind the archive in the data flow: they may be deleted and made again at any time, and nothing that stores
//! events reads them. Only [`crate::query`] does, where `tables/manifest.json` says that they hold what the objects hold.

pub(crate) mod answer;
mod build;
pub(crate) mod file;
mod line;
pub(crate) mod manifest;
pub(crate) mod month;
pub(crate) mod source;
mod update;
mod verify;

use std::collections::BTreeSet;
use std::time::Duration;

use parquet::errors::ParquetError;
use serde::Serialize;
use thiserror::Error;

pub use month::{InvalidMonth, Month, Months};
pub use verify::TablesFindings;

use crate::archive::{Archive, ArchiveError, ChangesError};
use crate::store::{SharedStore, StoreError, Version};
use manifest::{Found, Manifest};

/// Why the tables could not be made. The archive and what was made before are as sound as before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TablesError {
    /// The archive cannot be read, or has no journal.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// A store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be encoded.
    #[error("cannot encode a table: {0}")]
    Encoding(#[from] ParquetError),
    /// The tables were made by a later version of this program.
    #[error(
        "the tables in {location} have format {format}, and this program writes format {}",
        manifest::FORMAT
    )]
    Future {
        /// Where they are.
        location: String,
        /// Their format.
        format: u32,
    },
    /// Other processes made the tables at the same time, again and again.
    #[error("other processes replaced the tables meanwhile; nothing is lost, start again")]
    Contended,
}

impl From<ArchiveError> for TablesError {
    fn from(error: ArchiveError) -> Self {
        Self::Changes(error.into())
    }
}

impl TablesError {
    /// What to do about it, where that helps.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Future { .. } => Some("update this program, or make the tables anew with --full"),
            Self::Changes(ChangesError::NoJournal(_)) => {
                Some("the next `collector run` begins the journal that the tables rely on")
            }
            _ => None,
        }
    }
}

/// Which tables are made, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TablesOptions {
    /// Which months; the tables come to cover these and what lies between them and those that they covered before.
    pub months: Months,
    /// Whether every file is made anew from the objects.
    pub full: bool,
    /// Whether nothing is written.
    pub dry_run: bool,
}

impl TablesOptions {
    /// Tables of these months.
    #[must_use]
    pub fn new(months: Months, full: bool, dry_run: bool) -> Self {
        Self { months, full, dry_run }
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TablesReport {
    /// Months whose rows were made.
    pub months: Vec<Month>,
    /// Files that were created or replaced, or would be.
    pub replaced: Vec<String>,
    /// Files that were removed, or would be, because their month holds nothing any more.
    pub removed: Vec<String>,
    /// Objects of the archive that were read.
    pub objects_read: usize,
    /// Rows of all tables of events.
    pub events: u64,
    /// Rows of all tables of revisions.
    pub revisions: u64,
    /// Size of all files in bytes.
    pub size_bytes: u64,
    /// Values of another type than expected: null in their column, kept in `raw`.
    pub odd_values: u64,
    /// Lines that are not events. They are in no table.
    pub unreadable: u64,
    /// Whether nothing was written.
    pub dry_run: bool,
}

/// The tables of an archive.
#[derive(Debug, Clone)]
pub struct Tables {
    archive: Archive,
    store: SharedStore,
}

impl Tables {
    /// The tables of `archive` that are kept below `tables/` in a store, which may be that of the archive.
    #[must_use]
    pub fn new(archive: Archive, store: SharedStore) -> Self {
        Self { archive, store }
    }

    /// Where they are, for people.
    #[must_use]
    pub fn location(&self) -> String {
        self.store.location()
    }

    /// Makes the tables, or brings them up to date: reads the objects that were committed since the last time, and replaces the
    /// files whose rows changed. Every file is replaced as a whole, and the manifest last.
    ///
    /// # Errors
    /// [`TablesError`] if something cannot be read or written.
    pub async fn update(&self, options: &TablesOptions) -> Result<TablesReport, TablesError> {
        /// How often it starts over because another process was faster.
        const TRIES: u32 = 10;
        let mut attempts = Attempts::default();
        for _ in 0..TRIES {
            let stored = self.give_way(&attempts).await?;
            match update::Update::begin(self, options, false, &mut attempts, stored).await?.carry_out().await
            {
                Err(TablesError::Contended) => {}
                ended => return ended,
            }
        }
        Err(TablesError::Contended)
    }

    /// Waits while another process makes the tables, unless it has ended before it was done.
    async fn give_way(&self, attempts: &Attempts) -> Result<manifest::Stored, TablesError> {
        const PAUSE: Duration = Duration::from_millis(100);
        /// Beyond this number of pauses it is taken for dead, if that cannot be known.
        const PAUSES_UNCHANGED: u32 = 600;
        let (mut last, mut unchanged) = (None, 0);
        loop {
            let stored = Manifest::read(&*self.store).await?;
            let Found::Usable(manifest) = &stored.found else { return Ok(stored) };
            let is_ours = stored.version == attempts.announced;
            unchanged = if last == stored.version { unchanged + 1 } else { 0 };
            let is_over = is_ours || unchanged > PAUSES_UNCHANGED;
            if is_over || manifest.owner.is_empty() || self.archive.is_gone(&manifest.owner) {
                return Ok(stored);
            }
            last = stored.version;
            self.archive.pause(PAUSE).await;
        }
    }
}

/// What the attempts before have left.
#[derive(Debug, Default)]
struct Attempts {
    /// Months whose files were replaced by this process, and perhaps not as the manifest says.
    dirty: BTreeSet<Month>,
    /// The manifest that this process wrote last.
    announced: Option<Version>,
}
