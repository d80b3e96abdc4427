//! Holds what is stored against what was committed: name, size and digest of each object.
//!
//! The ledger is read before the objects and once more after them, since a collector may commit meanwhile. What was
//! committed before must be stored; what is stored must be committed or claimed afterwards.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;
use rustc_hash::{FxHashMap, FxHashSet};

use super::audit::{Audit, LedgerState};
use super::journal::{ABSENT_RECORDS, digest_of, hexadecimal, journal_key};
use super::layout::Place;
use super::names::{Names, Packed};
use super::{Archive, ArchiveError};
use crate::concurrency::buffered;
use crate::ledger::{CommitRecord, CommittedObject, Ledger};
use crate::store::Key;

/// Number of records beyond the ledger of a replica that are looked at for objects which were replaced.
const LATER_RECORDS: u64 = 1_000;

/// What the ledger of a replica covers: the objects that its journal names.
#[derive(Debug, Default)]
pub(super) struct Covered {
    names: Names,
    packed: FxHashSet<Packed>,
}

impl Covered {
    /// Whether an object of the archive is one that the ledger does not cover yet.
    pub(super) fn is_ahead(&self, key: &Key) -> bool {
        let is_covered = || self.names.pack(key).is_some_and(|packed| self.packed.contains(&packed));
        Place::of(key.as_str()).is_some() && !is_covered()
    }

    fn take_record(&mut self, record: &CommitRecord) {
        for key in record.objects.iter().filter_map(|object| Key::new(object.key.as_str()).ok()) {
            let packed = self.names.intern(&key);
            self.packed.insert(packed);
        }
    }
}

/// The objects of an archive in the order in which they were read, and what the journal says of them.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    names: Names,
    stored: Vec<Stored>,
    /// The positions of the objects by their packed names.
    by_name: Vec<u32>,
    /// Objects that are not as the last commit that names them says, and what it says.
    differing: FxHashMap<u32, CommittedObject>,
    /// Objects that are not stored, with the last commit that names them.
    absent: FxHashMap<String, (u64, CommittedObject)>,
}

/// What was read of an object.
#[derive(Debug, Clone, Copy)]
struct Stored {
    size_bytes: u64,
    digest: [u8; 32],
    /// The last commit that names it; 0 if none does.
    named_at: u64,
    /// Whether the store found it.
    is_found: bool,
}

impl Inventory {
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn key(&self, position: usize) -> Option<Key> {
        self.names.get(position)
    }

    pub(super) fn push(&mut self, key: &Key, bytes: Option<&[u8]>) {
        self.names.push(key);
        self.stored.push(Stored {
            size_bytes: bytes.map_or(0, |bytes| bytes.len() as u64),
            digest: bytes.map(digest_of).unwrap_or_default(),
            named_at: 0,
            is_found: bytes.is_some(),
        });
    }

    /// Prepares for being searched. All objects were added.
    pub(super) fn index(&mut self) {
        self.by_name = (0..u32::try_from(self.len()).unwrap_or(u32::MAX)).collect();
        let names = &self.names;
        self.by_name.sort_unstable_by_key(|&position| names.packed(position as usize));
    }

    fn position(&self, key: &str) -> Option<u32> {
        let wanted = self.names.pack(&Key::new(key).ok()?)?;
        let name = |&position: &u32| self.names.packed(position as usize);
        let at = self.by_name.binary_search_by_key(&Some(wanted), name).ok()?;
        let position = *self.by_name.get(at)?;
        self.stored.get(position as usize).filter(|stored| stored.is_found)?;
        Some(position)
    }

    fn take_record(&mut self, record: &CommitRecord) {
        for object in &record.objects {
            let Some(position) = self.position(&object.key) else {
                self.absent.insert(object.key.clone(), (record.sequence, object.clone()));
                continue;
            };
            let stored = &mut self.stored[position as usize];
            stored.named_at = record.sequence;
            if stored.is_as_named(object) {
                self.differing.remove(&position);
            } else {
                self.differing.insert(position, object.clone());
            }
        }
    }
}

impl Inventory {
    /// Takes an object that a later commit replaced for what it was before.
    fn accept_replaced(&mut self, record: &CommitRecord) {
        for object in record.objects.iter().filter(|object| object.replaces.is_some()) {
            let Some(position) = self.position(&object.key) else { continue };
            if self.stored[position as usize].is_as_named(object) {
                self.differing.remove(&position);
            }
        }
    }
}

impl Stored {
    /// Whether a commit names this content. One that named an object without reading it knows only the size.
    fn is_as_named(&self, named: &CommittedObject) -> bool {
        named.size_bytes == self.size_bytes
            && (named.digest.is_empty() || named.digest == hexadecimal(&self.digest))
    }
}

/// An object as it is gone: committed once, and not stored.
fn gone(object: &CommittedObject) -> CommittedObject {
    CommittedObject {
        key: object.key.clone(),
        size_bytes: 0,
        digest: String::new(),
        replaces: Some(object.digest.clone()),
    }
}

/// Whether a commit notes the loss of an object.
pub(super) fn is_gone(object: &CommittedObject) -> bool {
    object.size_bytes == 0 && object.digest.is_empty()
}

impl Audit {
    /// Holds the objects against the journal, up to the last commit of the ledger.
    pub(super) async fn hold_commits(
        &mut self,
        archive: &Archive,
        (before, after): (&LedgerState, &LedgerState),
        progress: impl FnMut(u64),
    ) -> Result<(), ArchiveError> {
        let (LedgerState::Own(before), LedgerState::Own(after)) = (before, after) else { return Ok(()) };
        if !after.lineage.is_known() || before.lineage.archive != after.lineage.archive {
            return Ok(());
        }
        self.read_journal(archive, after, progress).await?;
        if after.replica.is_some() {
            // An update replaces objects before the ledger covers that, and after the journal names it.
            let next = after.lineage.sequence() + 1;
            for record in archive.records(next..next + LATER_RECORDS).await? {
                self.inventory.accept_replaced(&record);
            }
        }
        self.hold_named(archive, before.lineage.sequence()).await?;
        self.hold_stored(after);
        Ok(())
    }

    /// The journal up to the last commit of the ledger. A record that is absent or cannot be read is a problem.
    async fn read_journal(
        &mut self,
        archive: &Archive,
        ledger: &Ledger,
        mut progress: impl FnMut(u64),
    ) -> Result<(), ArchiveError> {
        let lineage = &ledger.lineage;
        let last = lineage.unwritten();
        let written = lineage.sequence() - u64::from(last.is_some());
        let reads = (1..=written).map(|sequence| archive.record_at(sequence).boxed());
        let mut reads = buffered(archive.parallel(), reads);
        let mut absent_in_a_row = 0;
        for sequence in 1..=written {
            progress(sequence);
            if absent_in_a_row == ABSENT_RECORDS {
                let problem =
                    format!("the journal ends here, and the ledger is at commit {}", lineage.sequence());
                self.findings.blame(&journal_key(sequence), None, problem);
                self.ledger_is_wrong = true;
                self.journal_gaps.truncate(self.journal_gaps.len() - ABSENT_RECORDS);
                break;
            }
            let problem = match reads.next().await {
                Some(Ok(Some(record))) if record.archive == lineage.archive => {
                    self.inventory.take_record(&record);
                    absent_in_a_row = 0;
                    continue;
                }
                Some(Ok(Some(record))) => format!("it is a record of archive {}", record.archive),
                Some(Ok(None)) | None => {
                    absent_in_a_row += 1;
                    self.journal_gaps.push(sequence);
                    "this record of the journal is absent".to_owned()
                }
                Some(Err(ArchiveError::Journal { reason, .. })) => reason,
                Some(Err(error)) => return Err(error),
            };
            self.findings.blame(&journal_key(sequence), None, problem);
            self.journal_is_broken = true;
        }
        if let Some(record) = last {
            self.inventory.take_record(record);
        }
        Ok(())
    }

    /// What was committed before the objects were read must be stored as it was committed.
    async fn hold_named(&mut self, archive: &Archive, committed_before: u64) -> Result<(), ArchiveError> {
        let Inventory { names, stored, differing, absent, .. } = &mut self.inventory;
        let differing = std::mem::take(differing).into_iter().filter_map(|(position, named)| {
            let position = position as usize;
            let stored = stored.get(position)?;
            Some((names.get(position)?.to_string(), (stored.named_at, named, Some(*stored))))
        });
        let absent = std::mem::take(absent).into_iter().map(|(key, (at, named))| (key, (at, named, None)));
        let wrong: BTreeMap<_, _> = differing.chain(absent).collect();
        for (key, (at, object, stored)) in wrong {
            if at > committed_before {
                continue;
            }
            match stored {
                None if is_gone(&object) => {}
                Some(stored) => {
                    self.blame_commit(&key, &format!("its content is not that of commit {at}"));
                    let (size_bytes, digest) = (stored.size_bytes, hexadecimal(&stored.digest));
                    let replaces = Some(object.digest);
                    self.altered.push(CommittedObject { key, size_bytes, digest, replaces });
                }
                // A listing may lack what is there.
                None if archive.is_stored(&key).await? => {
                    self.blame_commit(&key, "the store finds it and does not list it");
                }
                None => {
                    self.blame_commit(&key, &format!("commit {at} added it, and it is not stored"));
                    self.altered.push(gone(&object));
                }
            }
        }
        Ok(())
    }

    /// What is stored must be committed or claimed. An object without content only keeps its name from being used.
    fn hold_stored(&mut self, ledger: &Ledger) {
        if self.journal_is_broken {
            return;
        }
        let claim = ledger.claim.iter().flat_map(|claim| &claim.objects);
        let claimed: FxHashSet<&str> = claim.map(|object| object.key.as_str()).collect();
        for position in 0..self.inventory.len() {
            let Some(Stored { is_found: true, named_at: 0, size_bytes: 1.., .. }) =
                self.inventory.stored.get(position)
            else {
                continue;
            };
            let key = self.inventory.key(position).filter(|key| Place::of(key.as_str()).is_some());
            if let Some(key) = key.filter(|key| !claimed.contains(key.as_str())) {
                self.blame_commit(key.as_str(), "no commit names it");
            }
        }
    }

    fn blame_commit(&mut self, key: &str, problem: &str) {
        self.ledger_is_wrong = true;
        self.findings.disagreements += 1;
        self.findings.blame(key, None, problem);
    }
}

impl Archive {
    /// What the ledger covers, if the archive is a replica.
    pub(super) async fn covered_by(&self, ledger: &LedgerState) -> Result<Option<Covered>, ArchiveError> {
        let LedgerState::Own(ledger) = ledger else { return Ok(None) };
        if ledger.replica.is_none() {
            return Ok(None);
        }
        let mut covered = Covered::default();
        let written = ledger.lineage.sequence() - u64::from(ledger.lineage.unwritten().is_some());
        let reads = (1..=written).map(|sequence| self.record_at(sequence).boxed());
        let mut reads = buffered(self.parallel(), reads);
        while let Some(record) = reads.next().await {
            match record {
                Ok(record) => record.iter().for_each(|record| covered.take_record(record)),
                Err(ArchiveError::Journal { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        ledger.lineage.unwritten().into_iter().for_each(|record| covered.take_record(record));
        Ok(Some(covered))
    }

    async fn is_stored(&self, key: &str) -> Result<bool, ArchiveError> {
        let Ok(key) = Key::new(key) else { return Ok(false) };
        Ok(self.store.head(&key).await?.is_some())
    }
}
