//! Backups of an archive, and what becomes of it when parts of one are put back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use collector::ledger::{Ledger, LedgerDocument, Tally, prefix_of};
use collector::store::{Key, Listed};

use crate::disk::SimulatedDisk;

/// What is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The ledger alone.
    Ledger,
    /// The ledger with the journal.
    Metadata,
    /// Everything but the ledger and the journal.
    Objects,
}

impl Part {
    fn contains(self, path: &Path) -> bool {
        let path = path.strip_prefix("s").unwrap();
        match self {
            Self::Ledger => {
                path.starts_with("metadata/ledger") || path == Path::new("metadata/last_seen.json")
            }
            Self::Metadata => path.starts_with("metadata"),
            Self::Objects => !path.starts_with("metadata") && !path.starts_with(".staging"),
        }
    }
}

/// The last backup, and what a restore took away.
#[derive(Debug, Default)]
pub(crate) struct Backups {
    last: Option<BTreeMap<PathBuf, Vec<u8>>>,
    missing: BTreeMap<PathBuf, Vec<u8>>,
    took_claim: bool,
    went_back: bool,
    is_forgotten: bool,
}

impl Backups {
    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Whether objects are missing that the ledger vouches for.
    pub(crate) fn is_incomplete(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Whether a restore took a claim away, so that what was written under it is part of no commit. `repair` journals it.
    pub(crate) fn took_claim(&self) -> bool {
        self.took_claim
    }

    /// A machine has lost its memory.
    pub(crate) fn note_forgotten(&mut self) {
        self.is_forgotten = true;
    }

    /// Whether the ledger was put back to an earlier moment while no machine may remember a later one.
    pub(crate) fn may_be_forgotten(&self) -> bool {
        self.went_back && self.is_forgotten
    }

    pub(crate) fn take(&mut self, disk: &SimulatedDisk) {
        self.last = Some(disk.files().into_iter().collect());
    }

    /// Puts a part of the archive back as it was.
    pub(crate) fn restore(&mut self, disk: &SimulatedDisk, part: Part) {
        let Some(backup) = self.last.take() else { return };
        self.went_back |= part != Part::Objects;
        let claim = ledger(disk).filter(|_| part != Part::Objects).and_then(|ledger| ledger.claim);
        self.took_claim |= claim.is_some_and(|claim| !claim.objects.is_empty());
        let now: BTreeMap<PathBuf, Vec<u8>> = disk.files().into_iter().collect();
        for (path, bytes) in now.iter().filter(|(path, _)| part.contains(path)) {
            let before = backup.get(path);
            disk.put_back(path, before.map(Vec::as_slice));
            if before.is_none() && part == Part::Objects {
                self.missing.insert(path.clone(), bytes.clone());
            }
        }
        for (path, bytes) in backup.iter().filter(|(path, _)| part.contains(path) && !now.contains_key(*path))
        {
            disk.put_back(path, Some(bytes));
        }
    }

    /// Puts back what a restore took away, as a replica does that lagged. A name that was fenced meanwhile stays as it is.
    pub(crate) fn complete(&mut self, disk: &SimulatedDisk) {
        let taken: BTreeSet<PathBuf> = disk.files().into_iter().map(|(path, _)| path).collect();
        for (path, bytes) in std::mem::take(&mut self.missing) {
            if !taken.contains(&path) {
                disk.put_back(&path, Some(&bytes));
            }
        }
    }
}

/// The objects of a listing that lie in days of which the ledger knows exactly what they hold.
pub(crate) fn vouched_for(disk: &SimulatedDisk, listed: &[Listed]) -> Vec<Key> {
    let Some(ledger) = ledger(disk) else { return Vec::new() };
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for object in listed {
        tallies
            .entry(prefix_of(object.key.as_str()))
            .or_default()
            .add(object.key.as_str(), object.size_bytes);
    }
    let is_exact = |object: &&Listed| {
        let prefix = prefix_of(object.key.as_str());
        ledger.expected(prefix) == tallies.get(prefix).copied()
    };
    listed.iter().filter(is_exact).map(|object| object.key.clone()).collect()
}

/// The ledger as it is now.
pub(crate) fn ledger(disk: &SimulatedDisk) -> Option<Ledger> {
    let files: BTreeMap<PathBuf, Vec<u8>> = disk.files().into_iter().collect();
    let generations = files
        .range(PathBuf::from("s/metadata/ledger/")..)
        .take_while(|(path, _)| path.starts_with("s/metadata/ledger"));
    let published = files.get(Path::new("s/metadata/last_seen.json"));
    match LedgerDocument::parse(generations.last().map(|(_, bytes)| bytes).or(published)?) {
        Ok(LedgerDocument::Own(ledger)) => Some(*ledger),
        _ => None,
    }
}
