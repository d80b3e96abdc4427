//! Copies one object: by its content, never by its size or time, and never over another content.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::session::Session;
use super::{Interruption, MirrorError};
use crate::archive::content_digest;
use crate::archive::journal::journal_key;
use crate::archive::ledger_file::TRIES;
use crate::ledger::{CommitRecord, CommittedObject};
use crate::store::{Key, Object, SharedStore, StoreError, Write};

/// What became of an object.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was written, with this number of bytes.
    Written(u64),
    /// It was there with the same content.
    Present,
    /// The journal of the source states that it is lost.
    Gone,
    /// It is not what it has to be.
    Conflict(String),
}

/// Objects that were replaced by commits which the replica does not cover: all their digests, the last one last.
#[derive(Debug, Default)]
pub(super) struct Latest(BTreeMap<String, Vec<String>>);

impl Latest {
    fn of(records: &[CommitRecord]) -> Self {
        let mut latest = Self::default();
        for object in records.iter().flat_map(|record| &record.objects) {
            let Some(replaces) = &object.replaces else { continue };
            let digests = latest.0.entry(object.key.clone()).or_default();
            digests.extend([replaces.clone(), object.digest.clone()]);
        }
        latest
    }

    /// The digest of the last content; empty if the object is lost.
    fn last(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.last().map(String::as_str)
    }

    fn includes(&self, key: &str, digest: &str) -> bool {
        self.0.get(key).is_some_and(|digests| digests.iter().any(|it| it == digest))
    }
}

/// Creates an object unless it is there; settles answers that were lost. What is there instead, if it has another content.
pub(super) async fn create(store: &SharedStore, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
    for tries_left in (0..TRIES).rev() {
        match store.create(key, bytes).await {
            Ok(Write::Done(_)) if store.proves_content() => return Ok(Created::Written),
            Ok(Write::Done(_)) => {
                let found = store.get(key).await?;
                return Ok(match found {
                    Some(found) if found.bytes == bytes => Created::Written,
                    found => Created::Differs(found.map(|found| found.bytes).unwrap_or_default()),
                });
            }
            Ok(Write::Refused) => match store.get(key).await? {
                Some(found) if found.bytes == bytes => return Ok(Created::Present),
                Some(found) => return Ok(Created::Differs(found.bytes)),
                None => {}
            },
            Err(error) if error.outcome_unknown && tries_left > 0 => {
                warn!(%error, "the answer to a write was lost; asking again");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Created::Differs(Vec::new()))
}

/// How a creation ended.
#[derive(Debug)]
pub(super) enum Created {
    Written,
    Present,
    Differs(Vec<u8>),
}

impl<P: FnMut(usize) + Send + Sync> Session<'_, P> {
    /// Copies an object that a commit of the source named.
    pub(super) async fn copy_object(&self, named: &CommittedObject) -> Result<Outcome, MirrorError> {
        let Ok(key) = Key::new(named.key.as_str()) else {
            return Ok(Outcome::Conflict("it is not a valid name of an object".to_owned()));
        };
        let Some(object) = self.mirror.source.store().get(&key).await? else {
            let is_gone = self.latest().await?.last(&named.key) == Some("");
            let lost =
                || Outcome::Conflict("the source named it in a commit and does not hold it".to_owned());
            return Ok(if is_gone { Outcome::Gone } else { lost() });
        };
        if !named.digest.is_empty() {
            let digest = content_digest(&object.bytes);
            if digest != named.digest && self.latest().await?.last(&named.key) != Some(&digest) {
                let problem = "its content in the source is not that of its commit".to_owned();
                return Ok(Outcome::Conflict(problem));
            }
        }
        self.rate.take(object.bytes.len(), self.mirror.target.clock().as_ref()).await;
        Ok(match create(self.mirror.target.store(), &key, &object.bytes).await? {
            Created::Written => Outcome::Written(object.bytes.len() as u64),
            Created::Present => Outcome::Present,
            // An update before the repair copied it as it was; it is replaced once everything else is there.
            Created::Differs(found) if self.latest().await?.includes(&named.key, &content_digest(&found)) => {
                Outcome::Present
            }
            // Before the split a promotion fenced the name, and what was on its way was stored in the source.
            Created::Differs(found) if found.is_empty() && self.mirror.rejoins => {
                self.fill(&key, &object.bytes).await?
            }
            Created::Differs(_) => Outcome::Conflict("the replica holds another content".to_owned()),
        })
    }

    /// Writes the content of an object that was created empty in the replica, to fence its name.
    async fn fill(&self, key: &Key, bytes: &[u8]) -> Result<Outcome, MirrorError> {
        let store = self.mirror.target.store();
        if let Some(found) = store.get(key).await?
            && found.bytes.is_empty()
            && let Write::Done(_) = store.replace(key, bytes, &found.version).await?
        {
            return Ok(Outcome::Written(bytes.len() as u64));
        }
        Ok(Outcome::Conflict("the replica holds another content".to_owned()))
    }

    async fn latest(&self) -> Result<&Latest, MirrorError> {
        let read = || async { Ok(Latest::of(&self.later_records().await?)) };
        self.latest.get_or_try_init(read).await
    }

    /// Replaces an object as `repair` did in the source, if the replica holds the content that was replaced.
    pub(super) async fn replace(&mut self, named: &CommittedObject) -> Result<(), Interruption> {
        let Ok(key) = Key::new(named.key.as_str()) else { return Ok(()) };
        let (source, target) = (self.mirror.source.store(), self.mirror.target.store());
        let latest = self.latest().await?;
        let wanted = latest.last(&named.key).unwrap_or_default().to_owned();
        let problem = match target.get(&key).await? {
            Some(found) if content_digest(&found.bytes) == wanted => return Ok(()),
            None if wanted.is_empty() => return Ok(()),
            Some(_) if wanted.is_empty() => "the source has lost it, and the replica holds it",
            None => "the source replaced it, and the replica does not hold it",
            Some(found) if !latest.includes(&named.key, &content_digest(&found.bytes)) => {
                "the source replaced it, and the replica holds another content than was replaced"
            }
            Some(Object { bytes, version }) => match source.get(&key).await? {
                Some(object) if content_digest(&object.bytes) == wanted => {
                    // `repair` also notes what others changed. Then this is the last copy of what was there before.
                    let lost = lines_without(&bytes, &object.bytes);
                    if !lost.is_empty() {
                        self.mirror.target.keep_aside(&key, &lost).await?;
                    }
                    self.rate.take(object.bytes.len(), self.mirror.target.clock().as_ref()).await;
                    return match target.replace(&key, &object.bytes, &version).await? {
                        Write::Done(_) => {
                            self.report.replaced += 1;
                            Ok(())
                        }
                        Write::Refused => Err(Interruption::Changed),
                    };
                }
                _ => "its content in the source is not that of its commit",
            },
        };
        self.report.blame(&named.key, problem);
        Ok(())
    }

    /// Copies what `repair` moved aside.
    pub(super) async fn copy_repaired(&mut self) -> Result<(), Interruption> {
        let (source, target) = (self.mirror.source.store(), self.mirror.target.store());
        let (of_source, of_target) = tokio::try_join!(source.list("repaired/"), target.list("repaired/"))?;
        for listed in of_source {
            if of_target.binary_search_by(|it| it.key.cmp(&listed.key)).is_ok() {
                continue;
            }
            let Some(object) = source.get(&listed.key).await? else { continue };
            self.rate.take(object.bytes.len(), self.mirror.target.clock().as_ref()).await;
            match create(target, &listed.key, &object.bytes).await? {
                Created::Written => self.report.objects += 1,
                Created::Present => {}
                Created::Differs(_) => {
                    self.report.blame(listed.key.as_str(), "the replica holds another content");
                }
            }
        }
        Ok(())
    }

    /// Writes a record into the journal of the replica. Whether it is there now.
    pub(super) async fn write_record(&self, record: &CommitRecord) -> Result<bool, MirrorError> {
        let target = &self.mirror.target;
        if target.write_record(record).await? {
            return Ok(true);
        }
        if !self.mirror.rejoins {
            return Ok(false);
        }
        // A promotion that was broken off took the number. No ledger covers what it wrote there.
        let key = journal_key(record.sequence);
        let Some(found) = target.store().get(&key).await? else { return Ok(false) };
        target.keep_aside(&key, &found.bytes).await?;
        let replaced = target.store().replace(&key, &record.to_document(), &found.version).await?;
        Ok(matches!(replaced, Write::Done(_)))
    }
}

/// The lines of a content that another one does not have.
fn lines_without(bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let is_end = |byte: &u8| *byte == b'\n';
    let kept: BTreeSet<&[u8]> = other.split_inclusive(is_end).collect();
    bytes.split_inclusive(is_end).filter(|line| !kept.contains(line)).collect::<Vec<_>>().concat()
}
