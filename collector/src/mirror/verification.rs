//! `--verify`: holds every object of a replica against the journal of its source, or against its source where the journal does
//! not state a digest. What the replica has lost is copied again.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;

use super::copy::{Created, create};
use super::{Mirror, MirrorError, MirrorReport};
use crate::archive::content_digest;
use crate::archive::journal::journal_key;
use crate::concurrency::buffered;
use crate::ledger::{CommitRecord, CommittedObject};
use crate::store::Key;

/// Number of records that are read together.
const RECORDS: u64 = 64;

impl Mirror {
    /// Compares every object that the replica covers with what the journal states.
    pub(super) async fn verify(
        &self,
        report: &mut MirrorReport,
        progress: &mut (impl FnMut(usize) + Send + Sync),
    ) -> Result<(), MirrorError> {
        let mut replaced = BTreeMap::new();
        for is_first in [true, false] {
            let mut next = 1;
            while next <= report.sequence {
                let end = (next + RECORDS).min(report.sequence + 1);
                let records = self.target.records(next..end).await?;
                if (records.len() as u64) < end - next {
                    let key = journal_key(next + records.len() as u64);
                    report.blame(key.as_str(), "the replica does not hold this record");
                }
                next = end;
                if is_first {
                    note_replaced(&records, &mut replaced);
                    continue;
                }
                self.verify_objects(&records, &replaced, report).await?;
                progress(report.verified);
            }
        }
        Ok(())
    }

    async fn verify_objects(
        &self,
        records: &[CommitRecord],
        replaced: &BTreeMap<String, String>,
        report: &mut MirrorReport,
    ) -> Result<(), MirrorError> {
        let added = records.iter().flat_map(|record| &record.objects).filter(|it| it.replaces.is_none());
        let added: Vec<&CommittedObject> = added.collect();
        let checks: Vec<_> = added
            .iter()
            .map(|object| {
                let digest = replaced.get(&object.key).unwrap_or(&object.digest);
                self.verify_object(&object.key, digest, replaced.contains_key(&object.key)).boxed()
            })
            .collect();
        let mut checks = buffered(self.target.parallel(), checks);
        let mut position = 0;
        while let Some(check) = checks.next().await {
            match check? {
                Check::Right => {}
                Check::Copied(bytes) => {
                    report.objects += 1;
                    report.bytes += bytes;
                }
                Check::Wrong(problem) => report.blame(&added[position].key, problem),
            }
            (position, report.verified) = (position + 1, report.verified + 1);
        }
        Ok(())
    }

    /// Whether an object is right. One that the replica has lost is copied again.
    async fn verify_object(&self, key: &str, digest: &str, is_replaced: bool) -> Result<Check, MirrorError> {
        let Ok(key) = Key::new(key) else { return Ok(Check::Right) };
        let Some(found) = self.target.store().get(&key).await? else {
            if is_replaced && digest.is_empty() {
                return Ok(Check::Right);
            }
            return self.copy_again(&key, digest).await;
        };
        let is_right = if digest.is_empty() && !is_replaced {
            self.source.store().get(&key).await?.is_some_and(|object| object.bytes == found.bytes)
        } else {
            content_digest(&found.bytes) == digest
        };
        Ok(if is_right { Check::Right } else { Check::Wrong("the replica holds another content") })
    }

    async fn copy_again(&self, key: &Key, digest: &str) -> Result<Check, MirrorError> {
        let Some(object) = self.source.store().get(key).await? else {
            return Ok(Check::Wrong("neither the replica nor the source holds it"));
        };
        if !digest.is_empty() && content_digest(&object.bytes) != digest {
            return Ok(Check::Wrong("the replica does not hold it, and the source holds another content"));
        }
        Ok(match create(self.target.store(), key, &object.bytes).await? {
            Created::Written => Check::Copied(object.bytes.len() as u64),
            Created::Present => Check::Right,
            Created::Differs(_) => Check::Wrong("the replica holds another content"),
        })
    }
}

/// What `--verify` found of an object.
enum Check {
    Right,
    /// The replica had lost it. Number of bytes.
    Copied(u64),
    Wrong(&'static str),
}

fn note_replaced(records: &[CommitRecord], replaced: &mut BTreeMap<String, String>) {
    let objects = records.iter().flat_map(|record| &record.objects);
    for object in objects.filter(|object| object.replaces.is_some()) {
        replaced.insert(object.key.clone(), object.digest.clone());
    }
}
