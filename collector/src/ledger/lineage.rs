//! Where a ledger stands in the history of its archive: the id of the archive, its last commits, and what the
//! last commit wrote.
//!
//! A counter of commits alone cannot distinguish a ledger that was restored and then continued from the one it replaced:
//! both reach the same number. So each commit has an id of its own, and the ledger carries the last few.

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::json::from_object;
use crate::text::ParseError;

/// Number of commit ids that a ledger carries.
const COMMITS_KEPT: usize = 16;
/// Maximum of what is counted in a history: the largest integer that every JSON reader keeps.
pub(super) const MAX_NUMBER: u64 = (1 << 53) - 1;
/// Number of objects that it names of a last commit that is in the journal.
const OBJECTS_KEPT: usize = 4;

/// An object that a commit added or replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedObject {
    /// The name of the object.
    pub key: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The SHA-256 digest of its content, in lower-case hexadecimal. Empty if the content was not read, or if the object
    /// is lost; then its size is 0.
    pub digest: String,
    /// The digest of the content that was replaced, if the object existed before (only `repair` does that).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// Why a commit was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommitKind {
    /// A run or an import stored something.
    #[default]
    Run,
    /// Objects were found that the ledger did not know.
    Heal,
    /// `repair` moved or replaced something.
    Repair,
    /// Objects that were there before the archive had a journal.
    Base,
    /// A replica became the archive that accepts runs. The epoch is a new one.
    Adopt,
}

/// A record of the journal: one commit. Immutable once it is part of a committed ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Position in the journal, from 1 without gaps.
    pub sequence: u64,
    /// The epoch of the archive.
    pub epoch: u64,
    /// The id of the archive.
    pub archive: String,
    /// The id of this commit.
    pub commit: String,
    /// When the run began that made it, in seconds since 1970 (UTC).
    pub committed_at: i64,
    /// Why it was made.
    #[serde(default)]
    pub kind: CommitKind,
    /// What it added or replaced.
    pub objects: Vec<CommittedObject>,
}

/// Whether a text is the id of an archive or a commit: 16 hexadecimal digits.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl CommitRecord {
    /// Reads a record of the journal.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let record: Self = from_object(bytes).map_err(|error| error.to_string())?;
        if record.sequence == 0 || record.sequence.max(record.epoch) > MAX_NUMBER {
            return Err("the sequence number or the epoch is not valid".into());
        }
        if !is_id(&record.archive) || !is_id(&record.commit) {
            return Err("the id of the archive or the commit is not 16 hexadecimal digits".into());
        }
        Ok(record)
    }

    /// An id made of everything else in the record.
    fn derived_id(&self) -> String {
        format!("{:016x}", XxHash3_64::oneshot(&self.to_document()))
    }

    /// The record as the journal stores it: compact JSON with a line break at its end.
    #[must_use]
    pub fn to_document(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// A position in the journal, with the id of the commit that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The id of the archive.
    pub archive: String,
    /// The sequence number of the commit; 0 before the first one.
    pub sequence: u64,
    /// The id of the commit; empty before the first one.
    pub commit: String,
}

/// How a ledger relates to a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descent {
    /// The marked commit is part of its history.
    Descends,
    /// The marked commit is not part of its history.
    Diverged,
    /// The marked commit is older than those it carries: the journal decides.
    Unknown,
}

/// The history of a ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The id of the archive; empty in a ledger that was written before there was one.
    pub archive: String,
    /// The epoch of the archive; it grows when another store takes over.
    pub epoch: u64,
    commits: Vec<(u64, String)>,
    /// The last commit. The journal gets it before the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<CommitRecord>,
    /// Whether the journal has the last commit already; then only its first objects are named here.
    #[serde(default)]
    in_journal: bool,
}

impl Lineage {
    /// The history of an archive that begins.
    #[must_use]
    pub fn new(archive: String) -> Self {
        Self { archive, epoch: 1, commits: Vec::new(), last: None, in_journal: false }
    }

    /// Whether it can be continued: the commits ascend, and the last one is the one that is named.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let numbers = self.commits.iter().map(|(sequence, _)| *sequence);
        let is_ascending = numbers.clone().is_sorted_by(|before, after| before < after);
        let is_numbered = numbers.clone().all(|sequence| (1..=MAX_NUMBER).contains(&sequence));
        if !is_ascending || !is_numbered || self.epoch > MAX_NUMBER {
            return Err("the commits of `lineage` are not numbered in order");
        }
        let mut ids = self.commits.iter().map(|(_, commit)| commit).chain([&self.archive]);
        if self.is_known() && !ids.all(|id| is_id(id)) {
            return Err("an id in `lineage` is not 16 hexadecimal digits");
        }
        let is_last = |record: &CommitRecord| {
            let mark = Mark {
                archive: record.archive.clone(),
                sequence: record.sequence,
                commit: record.commit.clone(),
            };
            mark == self.mark() && record.epoch <= MAX_NUMBER
        };
        if self.last.as_ref().is_none_or(is_last) {
            Ok(())
        } else {
            Err("`last` of `lineage` is not its last commit")
        }
    }

    /// Whether the archive has an id.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.archive.is_empty()
    }

    /// The sequence number of the last commit; 0 before the first one.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.commits.last().map_or(0, |(sequence, _)| *sequence)
    }

    /// The position of the last commit.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let (sequence, commit) = self.commits.last().cloned().unwrap_or_default();
        Mark { archive: self.archive.clone(), sequence, commit }
    }

    /// Whether the marked commit is part of this history, as far as the ledger alone shows.
    #[must_use]
    pub fn descends_from(&self, mark: &Mark) -> Descent {
        if mark.archive != self.archive || mark.sequence > self.sequence() {
            return Descent::Diverged;
        }
        match self.commits.iter().find(|(sequence, _)| *sequence == mark.sequence) {
            Some((_, commit)) if *commit == mark.commit => Descent::Descends,
            Some(_) => Descent::Diverged,
            None if mark.sequence == 0 => Descent::Descends,
            None => Descent::Unknown,
        }
    }

    /// Appends a commit.
    pub fn append(&mut self, kind: CommitKind, run: &str, committed_at: i64, objects: Vec<CommittedObject>) {
        let mut record = CommitRecord {
            sequence: self.sequence() + 1,
            epoch: self.epoch,
            archive: self.archive.clone(),
            commit: run.to_owned(),
            committed_at,
            kind,
            objects,
        };
        record.commit = record.derived_id();
        self.follow(record.clone());
        (self.last, self.in_journal) = (Some(record), false);
    }

    /// A record without objects for a number whose record is lost. It has the id of that commit, where that is known.
    #[must_use]
    pub fn placeholder(&self, sequence: u64, committed_at: i64) -> CommitRecord {
        let mut record = CommitRecord {
            sequence,
            epoch: self.epoch,
            archive: self.archive.clone(),
            commit: String::new(),
            committed_at,
            kind: CommitKind::Repair,
            objects: Vec::new(),
        };
        let known = self.commits.iter().find(|(number, _)| *number == sequence);
        record.commit = known.map_or_else(|| record.derived_id(), |(_, commit)| commit.clone());
        record
    }

    /// The last commit, if the journal may not have it yet.
    #[must_use]
    pub fn unwritten(&self) -> Option<&CommitRecord> {
        self.last.as_ref().filter(|_| !self.in_journal)
    }

    /// Notes that the journal has the last commit.
    pub fn note_written(&mut self) {
        self.in_journal = true;
        if let Some(last) = &mut self.last {
            last.objects.drain(..last.objects.len().saturating_sub(OBJECTS_KEPT));
        }
    }

    /// The history up to a record of the journal, in an epoch.
    #[must_use]
    pub fn up_to(archive: String, epoch: u64, record: Option<CommitRecord>) -> Self {
        let mut lineage = Self { epoch, ..Self::new(archive) };
        if let Some(record) = record {
            lineage.follow(record);
        }
        lineage
    }

    /// Takes a record of the journal for the last commit.
    pub fn follow(&mut self, record: CommitRecord) {
        self.commits.retain(|&(sequence, _)| sequence < record.sequence);
        self.commits.push((record.sequence, record.commit.clone()));
        let excess = self.commits.len().saturating_sub(COMMITS_KEPT);
        self.commits.drain(..excess);
        self.last = Some(record);
        self.note_written();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(commits: u64) -> Lineage {
        let mut lineage = Lineage::new("a".into());
        (0..commits).for_each(|number| lineage.append(CommitKind::Run, "run", number.cast_signed(), vec![]));
        lineage
    }

    #[test]
    fn continued_ledger_descends_from_its_past() {
        let (before, after) = (lineage(3), lineage(10));
        assert_eq!(after.descends_from(&before.mark()), Descent::Descends);
        assert_eq!(before.descends_from(&after.mark()), Descent::Diverged);
        assert_eq!(lineage(40).descends_from(&before.mark()), Descent::Unknown);
        assert_eq!(after.descends_from(&lineage(0).mark()), Descent::Descends);
    }

    #[test]
    fn damaged_history_is_refused() {
        let mut sound = Lineage::new("0123456789abcdef".into());
        (0..3).for_each(|number| sound.append(CommitKind::Run, "run", number, vec![]));
        assert_eq!(sound.check(), Ok(()));
        assert_eq!(Lineage::default().check(), Ok(()));
        let changes: [fn(&mut Lineage); 6] = [
            |lineage| lineage.commits.reverse(),
            |lineage| lineage.commits.truncate(2),
            |lineage| lineage.commits[0].0 = 0,
            |lineage| lineage.commits[0].1 = "a:b".into(),
            |lineage| lineage.archive = "a".into(),
            |lineage| {
                lineage.last.iter_mut().for_each(|last| last.sequence = u64::MAX);
                lineage.commits[2].0 = u64::MAX;
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut damaged = sound.clone();
            change(&mut damaged);
            assert!(damaged.check().is_err(), "{number}: {damaged:?}");
        }
    }

    #[test]
    fn restored_and_continued_ledger_has_diverged() {
        let mut restored = lineage(3);
        restored.append(CommitKind::Run, "another run", 3, vec![]);
        assert_eq!(restored.descends_from(&lineage(4).mark()), Descent::Diverged);
        let other = Lineage::new("b".into());
        assert_eq!(other.descends_from(&lineage(0).mark()), Descent::Diverged);
    }
}
