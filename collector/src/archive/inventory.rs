//! Holds what is stored against what was committed: name, size and digest of each object.
//!
//! The ledger is read before the objects and once more after them, since a collector may commit meanwhile. What was
//! committed before must be stored; what is stored must be committed or claimed afterwards.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;
use rustc_hash::{FxHashMap, FxHashSet};

use super::audit::{Audit, LedgerState};
use super::journal::{ABSENT_RECORDS, journal_key};
use super::layout::Place;
use super::{Archive, ArchiveError};
use crate::concurrency::buffered;
use crate::ledger::{CommitRecord, CommittedObject, Ledger};
use crate::store::Key;

/// The objects of an archive by name, as a commit would name them.
pub(super) type Inventory = BTreeMap<String, CommittedObject>;

/// What the journal says of an object: the last commit that names it, and how.
type Named = FxHashMap<String, (u64, CommittedObject)>;

/// An object as it is gone: committed once, and not stored.
fn gone(object: &CommittedObject) -> CommittedObject {
    CommittedObject {
        key: object.key.clone(),
        size_bytes: 0,
        digest: String::new(),
        replaces: Some(object.digest.clone()),
    }
}

fn is_gone(object: &CommittedObject) -> bool {
    object.size_bytes == 0 && object.digest.is_empty()
}

/// Whether a commit names this content. One that named an object without reading it knows only the size.
fn is_same(named: &CommittedObject, stored: &CommittedObject) -> bool {
    named.size_bytes == stored.size_bytes && (named.digest.is_empty() || named.digest == stored.digest)
}

impl Audit {
    /// Holds the objects against the journal, up to the last commit of the ledger.
    pub(super) async fn hold_commits(
        &mut self,
        archive: &Archive,
        (before, after): (&LedgerState, &LedgerState),
        inventory: &Inventory,
        progress: impl FnMut(u64),
    ) -> Result<(), ArchiveError> {
        let (LedgerState::Own(before), LedgerState::Own(after)) = (before, after) else { return Ok(()) };
        if !after.lineage.is_known() || before.lineage.archive != after.lineage.archive {
            return Ok(());
        }
        let named = self.read_journal(archive, after, progress).await?;
        self.hold_named(archive, before.lineage.sequence(), &named, inventory).await?;
        self.hold_stored(after, &named, inventory);
        Ok(())
    }

    /// The journal up to the last commit of the ledger. A record that is absent or cannot be read is a problem.
    async fn read_journal(
        &mut self,
        archive: &Archive,
        ledger: &Ledger,
        mut progress: impl FnMut(u64),
    ) -> Result<Named, ArchiveError> {
        let lineage = &ledger.lineage;
        let last = lineage.unwritten();
        let written = lineage.sequence() - u64::from(last.is_some());
        let reads = (1..=written).map(|sequence| archive.record_at(sequence).boxed());
        let mut reads = buffered(archive.parallel(), reads);
        let mut named = Named::default();
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
                    take_record(&mut named, &record);
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
            take_record(&mut named, record);
        }
        Ok(named)
    }

    /// What was committed before the objects were read must be stored as it was committed.
    async fn hold_named(
        &mut self,
        archive: &Archive,
        committed_before: u64,
        named: &Named,
        inventory: &Inventory,
    ) -> Result<(), ArchiveError> {
        let mut named: Vec<_> = named.values().filter(|(at, _)| *at <= committed_before).collect();
        named.sort_by_key(|(_, object)| &object.key);
        for (at, object) in named {
            match inventory.get(&object.key) {
                None if is_gone(object) => {}
                Some(stored) if is_same(object, stored) => {}
                Some(stored) => {
                    self.blame_commit(&object.key, &format!("its content is not that of commit {at}"));
                    let replaces = Some(object.digest.clone());
                    self.altered.push(CommittedObject { replaces, ..stored.clone() });
                }
                // A listing may lack what is there.
                None if archive.is_stored(&object.key).await? => {
                    self.blame_commit(&object.key, "the store finds it and does not list it");
                }
                None => {
                    self.blame_commit(&object.key, &format!("commit {at} added it, and it is not stored"));
                    self.altered.push(gone(object));
                }
            }
        }
        Ok(())
    }

    /// What is stored must be committed or claimed. An object without content only keeps its name from being used.
    fn hold_stored(&mut self, ledger: &Ledger, named: &Named, inventory: &Inventory) {
        if self.journal_is_broken {
            return;
        }
        let claim = ledger.claim.iter().flat_map(|claim| &claim.objects);
        let claimed: FxHashSet<&str> = claim.map(|object| object.key.as_str()).collect();
        let unnamed = inventory.values().filter(|object| {
            object.size_bytes > 0
                && !named.contains_key(&object.key)
                && !claimed.contains(object.key.as_str())
                && Place::of(&object.key).is_some()
        });
        for object in unnamed {
            self.blame_commit(&object.key, "no commit names it");
        }
    }

    fn blame_commit(&mut self, key: &str, problem: &str) {
        self.ledger_is_wrong = true;
        self.findings.disagreements += 1;
        self.findings.blame(key, None, problem);
    }
}

impl Archive {
    async fn is_stored(&self, key: &str) -> Result<bool, ArchiveError> {
        let Ok(key) = Key::new(key) else { return Ok(false) };
        Ok(self.store.head(&key).await?.is_some())
    }
}

fn take_record(named: &mut Named, record: &CommitRecord) {
    for object in &record.objects {
        named.insert(object.key.clone(), (record.sequence, object.clone()));
    }
}
