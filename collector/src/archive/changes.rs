//! What was committed after a cursor, in the order of the commits.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::{Archive, ArchiveError};
use crate::ledger::{CommitKind, CommitRecord, Descent, Lineage, Mark, is_id};

/// A position in the journal of an archive, after which changes are asked for.
///
/// It is written as `ARCHIVE:SEQUENCE:COMMIT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Mark);

impl Cursor {
    /// The position of a commit.
    pub(crate) fn of_commit(archive: &str, sequence: u64, commit: &str) -> Self {
        Self(Mark { archive: archive.to_owned(), sequence, commit: commit.to_owned() })
    }

    /// The id of the archive.
    #[must_use]
    pub fn archive(&self) -> &str {
        &self.0.archive
    }

    /// The sequence number of the commit; 0 before the first one.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.0.sequence
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mark { archive, sequence, commit } = &self.0;
        write!(formatter, "{archive}:{sequence}:{commit}")
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is not a [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a cursor, which reads ARCHIVE:SEQUENCE:COMMIT")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().ok_or(InvalidCursor);
        let (archive, sequence, commit) = (next()?, next()?, next()?);
        let sequence: u64 = sequence.parse().map_err(|_| InvalidCursor)?;
        let commit_fits = if sequence == 0 { commit.is_empty() } else { is_id(commit) };
        if !is_id(archive) || !commit_fits {
            return Err(InvalidCursor);
        }
        Ok(Self(Mark { archive: archive.to_owned(), sequence, commit: commit.to_owned() }))
    }
}

/// An object that was added or replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The sequence number of its commit.
    pub sequence: u64,
    /// The id of its commit.
    #[serde(skip)]
    pub commit: String,
    /// The epoch of the archive at that time.
    pub epoch: u64,
    /// When the run began that committed it.
    pub committed_at: DateTime<Utc>,
    /// Why the commit was made.
    pub kind: CommitKind,
    /// The name of the object.
    pub key: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The SHA-256 digest of its content in hexadecimal; absent where only its name was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The digest of the content that it replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// Changes after a cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// The id of the archive.
    pub archive: String,
    /// The changes, whole commits in their order.
    pub changes: Vec<Change>,
    /// Where to continue.
    pub cursor: Cursor,
    /// Whether these are all there are now.
    pub complete: bool,
}

/// Why there are no changes to be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChangesError {
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Nothing was ever collected.
    #[error("there is no archive in {0}")]
    NoArchive(String),
    /// The archive was last written by a version without a journal.
    #[error("the archive in {0} has no journal yet; the next run of `collector run` begins it")]
    NoJournal(String),
    /// The cursor belongs to another archive.
    #[error("the cursor is of archive {cursor}, this is archive {archive}")]
    OtherArchive {
        /// The archive that the cursor names.
        cursor: String,
        /// The archive that is there.
        archive: String,
    },
    /// The cursor lies beyond the last commit, as after a restore.
    #[error("the cursor lies at commit {cursor}, beyond the last one, {last}; was the archive restored?")]
    BeyondEnd {
        /// The sequence number of the cursor.
        cursor: u64,
        /// The sequence number of the last commit.
        last: u64,
    },
    /// The commit of the cursor is not part of the archive's history.
    #[error("commit {0} of the cursor is not part of this archive's history; was the archive restored?")]
    Diverged(u64),
}

impl Archive {
    /// The position of the last commit, and the objects that a run has claimed and not committed.
    ///
    /// # Errors
    /// [`ChangesError`] if the archive cannot be read or has no journal.
    #[cfg(feature = "tables")]
    pub(crate) async fn head_of_journal(&self) -> Result<(Cursor, Vec<crate::store::Key>), ChangesError> {
        let location = || self.store.location();
        let (ledger, _) = self.peek_ledger().await?.ok_or_else(|| ChangesError::NoArchive(location()))?;
        if !ledger.lineage.is_known() {
            return Err(ChangesError::NoJournal(location()));
        }
        let claimed = ledger.claim.iter().flat_map(|claim| &claim.objects);
        let claimed = claimed.filter_map(|object| crate::store::Key::new(object.key.as_str()).ok()).collect();
        Ok((Cursor(ledger.lineage.mark()), claimed))
    }

    /// What was committed after a cursor, or from the beginning. Whole commits, until there are at least `limit`
    /// changes. Costs one small read a commit.
    ///
    /// # Errors
    /// [`ChangesError`] if the cursor does not fit, or the archive cannot be read.
    pub async fn changes(&self, since: Option<&Cursor>, limit: usize) -> Result<Changes, ChangesError> {
        let location = || self.store.location();
        let (ledger, _) = self.peek_ledger().await?.ok_or_else(|| ChangesError::NoArchive(location()))?;
        let lineage = ledger.lineage;
        if !lineage.is_known() {
            return Err(ChangesError::NoJournal(location()));
        }
        let mut mark = Mark { archive: lineage.archive.clone(), sequence: 0, commit: String::new() };
        if let Some(Cursor(wanted)) = since {
            self.require_part_of(&lineage, wanted).await?;
            mark = wanted.clone();
        }
        let mut changes = Vec::new();
        while mark.sequence < lineage.sequence() && changes.len() < limit {
            let next = mark.sequence + 1;
            let last = lineage.unwritten().filter(|last| last.sequence == next).cloned();
            let records = match last {
                Some(last) => vec![last],
                None => self.records(next..lineage.sequence().min(next + 64) + 1).await?,
            };
            if records.is_empty() {
                let key = super::journal::journal_key(next);
                let reason =
                    "it is missing; `collector repair` puts a record without objects in its place".to_owned();
                return Err(ArchiveError::Journal { key, reason }.into());
            }
            for record in records {
                if changes.len() >= limit {
                    break;
                }
                mark = Mark { sequence: record.sequence, commit: record.commit.clone(), ..mark };
                changes.extend(changes_of(record));
            }
        }
        let complete = mark.sequence == lineage.sequence();
        Ok(Changes { archive: lineage.archive, changes, cursor: Cursor(mark), complete })
    }
    /// What the commit at a cursor added or replaced.
    ///
    /// # Errors
    /// [`ChangesError`] if the cursor does not fit, or the archive cannot be read.
    pub(crate) async fn changes_at(&self, at: &Cursor) -> Result<Vec<Change>, ChangesError> {
        let Cursor(wanted) = at;
        let location = || self.store.location();
        let (ledger, _) = self.peek_ledger().await?.ok_or_else(|| ChangesError::NoArchive(location()))?;
        self.require_part_of(&ledger.lineage, wanted).await?;
        let last = ledger.lineage.unwritten().filter(|last| last.sequence == wanted.sequence).cloned();
        let record = match last {
            None if wanted.sequence > 0 => self.record_at(wanted.sequence).await?,
            last => last,
        };
        // A record that was put in the place of a lost one has another id.
        let record = record.filter(|record| record.commit == wanted.commit);
        Ok(record.into_iter().flat_map(changes_of).collect())
    }

    /// Fails unless a position is part of a history.
    async fn require_part_of(&self, lineage: &Lineage, wanted: &Mark) -> Result<(), ChangesError> {
        if !lineage.is_known() {
            return Err(ChangesError::NoJournal(self.store.location()));
        }
        if wanted.archive != lineage.archive {
            let (cursor, archive) = (wanted.archive.clone(), lineage.archive.clone());
            return Err(ChangesError::OtherArchive { cursor, archive });
        }
        if wanted.sequence > lineage.sequence() {
            return Err(ChangesError::BeyondEnd { cursor: wanted.sequence, last: lineage.sequence() });
        }
        let is_part = match lineage.descends_from(wanted) {
            Descent::Descends => true,
            Descent::Diverged => false,
            Descent::Unknown => {
                let record = self.record_at(wanted.sequence).await?;
                record.is_some_and(|record| record.commit == wanted.commit)
            }
        };
        if is_part { Ok(()) } else { Err(ChangesError::Diverged(wanted.sequence)) }
    }
}

fn changes_of(record: CommitRecord) -> impl Iterator<Item = Change> {
    let committed_at = DateTime::from_timestamp(record.committed_at, 0).unwrap_or_default();
    record.objects.into_iter().map(move |object| Change {
        sequence: record.sequence,
        commit: record.commit.clone(),
        epoch: record.epoch,
        committed_at,
        kind: record.kind,
        key: object.key,
        size_bytes: object.size_bytes,
        digest: Some(object.digest).filter(|digest| !digest.is_empty()),
        replaces: object.replaces,
    })
}
