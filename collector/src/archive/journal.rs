//! The journal of commits: which objects were added or replaced, in the order of their commits.
//!
//! A record is written once under its sequence number and never changed. The last commit stands in the ledger; its
//! record is written to the journal together with the claim of the next one, so that a run with news writes one small
//! object more, and the journal never names what was not committed.

use std::ops::Range;

use aws_lc_rs::digest::{SHA256, digest as hash};
use futures_util::FutureExt as _;
use futures_util::stream::TryStreamExt as _;
use rustc_hash::FxHashSet;
use tracing::warn;

use super::ledger_file::TRIES;
use super::{Archive, ArchiveError};
use crate::concurrency::buffered;
use crate::ledger::{CommitKind, CommitRecord, CommittedObject, Lineage};
use crate::store::{Key, Listed, Write};

/// Maximum number of objects in a record that lists what an archive held before it had a journal.
const OBJECTS_PER_RECORD: usize = 1_000;
/// Number of absent records in a row beyond which the journal is taken to have ended.
pub(super) const ABSENT_RECORDS: usize = 64;

/// The name of a record.
pub(crate) fn journal_key(sequence: u64) -> Key {
    Key::of_parts(format!("metadata/journal/{:06}/{:03}.json", sequence / 1_000, sequence % 1_000))
}

/// The number of a record, by its name.
pub(crate) fn sequence_of(key: &Key) -> Option<u64> {
    let (thousands, rest) = key.as_str().strip_prefix("metadata/journal/")?.split_once('/')?;
    let sequence = thousands.parse::<u64>().ok()?.checked_mul(1_000)?;
    let sequence = sequence.checked_add(rest.strip_suffix(".json")?.parse().ok()?)?;
    (journal_key(sequence) == *key).then_some(sequence)
}

/// The SHA-256 digest of a content, in lower-case hexadecimal.
#[must_use]
pub fn content_digest(bytes: &[u8]) -> String {
    hexadecimal(&digest_of(bytes))
}

/// The SHA-256 digest of a content.
pub(super) fn digest_of(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(hash(&SHA256, bytes).as_ref());
    digest
}

/// A digest in lower-case hexadecimal.
pub(crate) fn hexadecimal(digest: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = digest.iter().flat_map(|&byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// An object as a commit names it.
pub(crate) fn committed(key: &Key, bytes: &[u8]) -> CommittedObject {
    CommittedObject {
        key: key.as_str().to_owned(),
        size_bytes: bytes.len() as u64,
        digest: content_digest(bytes),
        replaces: None,
    }
}

impl Archive {
    /// Writes the record of the last commit. Whether the journal agrees with the ledger.
    pub(crate) async fn flush_journal(&self, lineage: &Lineage) -> Result<bool, ArchiveError> {
        match lineage.unwritten() {
            Some(record) => self.write_record(record).await,
            None => Ok(true),
        }
    }

    /// Writes a record. Whether it is there now; if not, another one has its number.
    pub(crate) async fn write_record(&self, record: &CommitRecord) -> Result<bool, ArchiveError> {
        let (key, bytes) = (journal_key(record.sequence), record.to_document());
        for tries_left in (0..TRIES).rev() {
            match self.store.create(&key, &bytes).await {
                Ok(Write::Done(_)) => return Ok(true),
                Ok(Write::Refused) => break,
                Err(error) if error.outcome_unknown && tries_left > 0 => {
                    warn!(%error, "the answer to a write was lost; asking again");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.store.get(&key).await?.is_some_and(|object| object.bytes == bytes))
    }

    /// A record of the journal; nothing if there is none of that number.
    pub(crate) async fn record_at(&self, sequence: u64) -> Result<Option<CommitRecord>, ArchiveError> {
        let key = journal_key(sequence);
        let Some(object) = self.store.get(&key).await? else { return Ok(None) };
        let record = CommitRecord::parse(&object.bytes)
            .map_err(|error| ArchiveError::Journal { key: key.clone(), reason: error.to_string() })?;
        if record.sequence != sequence {
            let reason = format!("it holds the record of number {}", record.sequence);
            return Err(ArchiveError::Journal { key, reason });
        }
        Ok(Some(record))
    }

    /// Records with the numbers of a range, in order, up to the first that is absent.
    pub(crate) async fn records(&self, range: Range<u64>) -> Result<Vec<CommitRecord>, ArchiveError> {
        let reads = range.map(|sequence| self.record_at(sequence).boxed());
        let mut reads = buffered(self.parallel(), reads);
        let mut found = Vec::new();
        while let Some(Some(record)) = reads.try_next().await? {
            found.push(record);
        }
        Ok(found)
    }

    /// Appends those of the objects that no record names. The caller holds a claim.
    pub(super) async fn append_unjournaled(
        &self,
        lineage: &mut Lineage,
        objects: Vec<CommittedObject>,
    ) -> Result<(), ArchiveError> {
        let unnamed = self.unjournaled(lineage, objects).await?;
        let kind = if lineage.sequence() == 0 { CommitKind::Base } else { CommitKind::Heal };
        self.append_to_journal(lineage, kind, &unnamed).await
    }

    /// Writes a record without objects in the place of each that is absent, so that readers pass it. What the absent
    /// records named is appended as what no record names.
    pub(crate) async fn fill_gaps(&self, lineage: &Lineage, gaps: &[u64]) -> Result<(), ArchiveError> {
        for &sequence in gaps {
            self.write_record(&lineage.placeholder(sequence, self.now().timestamp())).await?;
        }
        Ok(())
    }

    /// Appends commits of the objects. The caller holds a claim.
    pub(crate) async fn append_to_journal(
        &self,
        lineage: &mut Lineage,
        kind: CommitKind,
        objects: &[CommittedObject],
    ) -> Result<(), ArchiveError> {
        for chunk in objects.chunks(OBJECTS_PER_RECORD) {
            self.flush_or_interrupt(lineage).await?;
            lineage.append(kind, &self.liveness.name(), self.now().timestamp(), chunk.to_vec());
        }
        if !objects.is_empty() {
            // It may be too much for the ledger, so the journal has it at once.
            self.flush_or_interrupt(lineage).await?;
            lineage.note_written();
        }
        Ok(())
    }

    async fn flush_or_interrupt(&self, lineage: &Lineage) -> Result<(), ArchiveError> {
        if self.flush_journal(lineage).await? { Ok(()) } else { Err(ArchiveError::Interrupted) }
    }

    /// Takes over the records from the last commit on. What the last commit named, if another one has its place.
    pub(super) async fn adopt_records(
        &self,
        lineage: &mut Lineage,
    ) -> Result<Vec<CommittedObject>, ArchiveError> {
        let mut displaced = Vec::new();
        let (mut next, mut ahead) = (lineage.sequence().max(1), 2);
        loop {
            let batch = self.records(next..next + ahead).await?;
            ahead = (ahead * 2).min(64);
            let Some(last) = batch.last() else { return Ok(displaced) };
            next = last.sequence + 1;
            for record in batch {
                if lineage.is_known() && record.archive != lineage.archive {
                    return Err(ArchiveError::AnotherArchive {
                        location: self.store.location(),
                        expected: record.archive,
                        found: lineage.archive.clone(),
                    });
                }
                let is_last = lineage.last.as_ref().is_some_and(|last| last.commit == record.commit);
                if !is_last {
                    lineage.archive.clone_from(&record.archive);
                    lineage.epoch = lineage.epoch.max(record.epoch);
                    let last = lineage.unwritten().filter(|last| last.sequence == record.sequence);
                    displaced.extend(last.iter().flat_map(|last| last.objects.clone()));
                    lineage.follow(record);
                }
            }
        }
    }

    /// Those of the objects that no record names. It reads the journal backwards to where it ends, or to where more
    /// records are absent than a lost answer explains: then the number in the ledger is wrong.
    pub(super) async fn unjournaled(
        &self,
        lineage: &Lineage,
        objects: Vec<CommittedObject>,
    ) -> Result<Vec<CommittedObject>, ArchiveError> {
        let mut unnamed: FxHashSet<String> = objects.iter().map(|object| object.key.clone()).collect();
        let last = lineage.unwritten().into_iter().flat_map(|record| &record.objects);
        last.for_each(|object| _ = unnamed.remove(&object.key));
        let numbers = (1..=lineage.sequence()).rev();
        let reads = numbers.map(|sequence| self.record_at(sequence).boxed());
        let mut reads = buffered(self.parallel(), reads);
        let mut absent_in_a_row = 0;
        while !unnamed.is_empty()
            && absent_in_a_row < ABSENT_RECORDS
            && let Some(record) = reads.try_next().await?
        {
            absent_in_a_row = if record.is_some() { 0 } else { absent_in_a_row + 1 };
            for object in record.iter().flat_map(|record| &record.objects) {
                unnamed.remove(&object.key);
            }
        }
        drop(reads);
        Ok(objects.into_iter().filter(|object| unnamed.remove(&object.key)).collect())
    }
}

/// Objects of which only names and sizes are known, without those that hold nothing.
pub(super) fn unread(listed: &[Listed]) -> Vec<CommittedObject> {
    let held = listed.iter().filter(|object| object.size_bytes > 0);
    held.map(|object| CommittedObject {
        key: object.key.as_str().to_owned(),
        size_bytes: object.size_bytes,
        digest: String::new(),
        replaces: None,
    })
    .collect()
}
