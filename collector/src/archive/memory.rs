//! What a machine remembers of the archives it has seen: the last commit, by location and archive.
//!
//! Without it a run could not know that the ledger of an archive was restored from an earlier moment, that another archive
//! lies where this one was, or that the disk with the archive is not mounted.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tracing::warn;
use twox_hash::XxHash3_64;

use crate::files::{self, private};
use crate::json::from_object;
use crate::ledger::Mark;

/// How long ledger and objects are taken to agree after they were compared.
const CHECKED_FOR: TimeDelta = TimeDelta::days(1);
/// Maximum number of archives that are remembered of one location.
const ARCHIVES: usize = 4;
const FILE_LIMIT_BYTES: u64 = 64 * 1024;

/// What is remembered of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The last commit that was seen.
    pub mark: Mark,
    /// When ledger and objects were last compared, in seconds since 1970 (UTC).
    pub checked_at: i64,
}

impl Remembered {
    /// Whether ledger and objects were compared within the last day.
    #[must_use]
    pub fn is_fresh(&self, now: DateTime<Utc>) -> bool {
        let age = DateTime::from_timestamp(self.checked_at, 0).map(|then| now - then);
        age.is_some_and(|age| age >= TimeDelta::zero() && age < CHECKED_FOR)
    }
}

/// Remembers archives between runs.
pub trait Memory: Debug + Send + Sync {
    /// What is remembered of a location, the latest last.
    fn recall(&self, location: &str) -> Vec<Remembered>;

    /// Remembers an archive at a location.
    fn note(&self, location: &str, archive: Remembered);
}

/// Adds what is to be remembered to what was.
pub(crate) fn add(known: &mut Vec<Remembered>, archive: Remembered) {
    known.retain(|other| other.mark.archive != archive.mark.archive);
    known.push(archive);
    let excess = known.len().saturating_sub(ARCHIVES);
    known.drain(..excess);
}

/// Remembers as long as the process lives.
#[derive(Debug, Default)]
pub struct ProcessMemory(Mutex<BTreeMap<String, Vec<Remembered>>>);

impl Memory for ProcessMemory {
    fn recall(&self, location: &str) -> Vec<Remembered> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(location).cloned().unwrap_or_default()
    }

    fn note(&self, location: &str, archive: Remembered) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        add(known.entry(location.to_owned()).or_default(), archive);
    }
}

/// Remembers in a folder that outlives the process. What cannot be read or written there is as good as unknown: then
/// ledger and objects are compared once more.
#[derive(Debug)]
pub struct StateFolder {
    folder: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Document {
    location: String,
    pub(crate) archives: Vec<Remembered>,
}

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        from_object(bytes)
    }
}

impl StateFolder {
    /// Remembers in `folder`, which is made when something is to be remembered.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, location: &str) -> PathBuf {
        self.folder.join(format!("archive-{:016x}.json", XxHash3_64::oneshot(location.as_bytes())))
    }

    fn read(path: &Path) -> io::Result<Document> {
        Ok(Document::parse(&files::read_regular(path, FILE_LIMIT_BYTES)?)?)
    }

    fn write(&self, path: &Path, document: &Document) -> io::Result<()> {
        private::make_folder(&self.folder)?;
        private::stage(&self.folder, &serde_json::to_vec(document)?)?.persist(path)?;
        Ok(())
    }
}

impl Memory for StateFolder {
    fn recall(&self, location: &str) -> Vec<Remembered> {
        let path = self.path(location);
        match Self::read(&path) {
            Ok(document) if document.location == location => document.archives,
            Ok(_) => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot read what is remembered of the archive; comparing ledger and objects");
                Vec::new()
            }
        }
    }

    fn note(&self, location: &str, archive: Remembered) {
        let path = self.path(location);
        let mut archives = Self::read(&path).map(|document| document.archives).unwrap_or_default();
        if archives.last() == Some(&archive) {
            return;
        }
        add(&mut archives, archive);
        if let Err(error) = self.write(&path, &Document { location: location.to_owned(), archives }) {
            warn!(path = %path.display(), %error, "cannot remember the last commit of the archive");
        }
    }
}
