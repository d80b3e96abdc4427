//! Indexes of busy days: which events each object of a day holds, so that a look-up reads only the objects that can answer it.
//!
//! An index is an immutable object under `metadata/index/`, derived from the objects that it names. It only ever says that an
//! object does *not* hold an event; what it says is held is read from the object. It is used for an object only if
//!
//! - the index is whole (it begins with a checksum of the rest) and of this archive,
//! - the commit at which it was made is part of the history of the ledger, so that it does not stem from before a restore,
//! - the object is listed with the size that the index names: objects never change, but that a repair makes one smaller.
//!
//! Every other object of the day is read. An index can be removed at any time. Decision: `docs/decisions/0014-day-index.md`.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};
use twox_hash::XxHash3_64;

use super::{Archive, ArchiveError};
use crate::event::EventId;
use crate::ledger::{Descent, Lineage, Mark};
use crate::store::{Key, Listed, StoreError, Write};

/// How the names of all indexes begin.
const FOLDER: &str = "metadata/index/";

/// What an index says of the objects of a day.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DayIndex(FxHashMap<String, Indexed>);

/// An object of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Indexed {
    size_bytes: u64,
    ids: Vec<EventId>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    archive: String,
    sequence: u64,
    commit: String,
    objects: FxHashMap<String, Indexed>,
}

impl DayIndex {
    /// Whether the index covers an object as it is listed.
    pub(super) fn covers(&self, listed: &Listed) -> bool {
        self.get(listed).is_some()
    }

    /// Whether an object is known to hold none of these events.
    pub(super) fn excludes(&self, listed: &Listed, ids: &FxHashSet<EventId>) -> bool {
        self.get(listed).is_some_and(|indexed| indexed.ids.iter().all(|id| !ids.contains(id)))
    }

    fn get(&self, listed: &Listed) -> Option<&Indexed> {
        self.0.get(listed.key.as_str()).filter(|indexed| indexed.size_bytes == listed.size_bytes)
    }

    /// The same with more objects, and without those that are not listed any more.
    pub(super) fn with(mut self, listed: &[Listed], read: Vec<(Listed, Vec<EventId>)>) -> Self {
        let sizes: FxHashMap<&str, u64> = listed.iter().map(|it| (it.key.as_str(), it.size_bytes)).collect();
        self.0.retain(|key, indexed| sizes.get(key.as_str()) == Some(&indexed.size_bytes));
        self.0.extend(
            read.into_iter()
                .map(|(Listed { key, size_bytes }, ids)| (key.to_string(), Indexed { size_bytes, ids })),
        );
        self
    }

    fn into_document(self, mark: Mark) -> Vec<u8> {
        let Mark { archive, sequence, commit } = mark;
        let document = Document { archive, sequence, commit, objects: self.0 };
        let json = serde_json::to_vec(&document).unwrap_or_default();
        [checksum(&json).as_bytes(), b"\n", &json].concat()
    }

    /// The index in a document; nothing unless it is whole and was made at this commit.
    fn parse(bytes: &[u8], mark: &Mark) -> Option<Self> {
        let end = bytes.iter().position(|&byte| byte == b'\n')?;
        let json = &bytes[end + 1..];
        if bytes[..end] != *checksum(json).as_bytes() {
            return None;
        }
        let Document { archive, sequence, commit, objects } = serde_json::from_slice(json).ok()?;
        (Mark { archive, sequence, commit } == *mark).then_some(Self(objects))
    }
}

fn checksum(json: &[u8]) -> String {
    format!("{:016x}", XxHash3_64::oneshot(json))
}

/// How the names of the indexes of a day begin.
fn folder(day_prefix: &str) -> String {
    format!("{FOLDER}{day_prefix}")
}

/// The name of an index. The sequence number of its commit is padded, so that names are in the order of their commits.
fn key_of(day_prefix: &str, mark: &Mark) -> Key {
    Key::of_parts(format!("{}{:016}-{}.json", folder(day_prefix), mark.sequence, mark.commit))
}

/// The commit at which an index was made, by its name.
fn mark_of(key: &Key, archive: &str) -> Option<Mark> {
    let name = key.as_str().rsplit('/').next()?.strip_suffix(".json")?;
    let (sequence, commit) = name.split_once('-')?;
    Some(Mark { archive: archive.to_owned(), sequence: sequence.parse().ok()?, commit: commit.to_owned() })
}

impl Archive {
    /// The latest index of a day that belongs to this history; an empty one if there is none. What cannot be read is not used.
    pub(super) async fn read_day_index(&self, day_prefix: &str, lineage: &Lineage) -> DayIndex {
        match self.find_day_index(day_prefix, lineage).await {
            Ok(found) => found.unwrap_or_default(),
            Err(error) => {
                warn!(day = day_prefix, %error, "the index of a day cannot be read; its objects are read instead");
                DayIndex::default()
            }
        }
    }

    async fn find_day_index(
        &self,
        day_prefix: &str,
        lineage: &Lineage,
    ) -> Result<Option<DayIndex>, ArchiveError> {
        for listed in self.store.list(&folder(day_prefix)).await?.iter().rev() {
            let Some(mark) = mark_of(&listed.key, &lineage.archive) else { continue };
            let is_ours = match lineage.descends_from(&mark) {
                Descent::Descends => true,
                Descent::Diverged => false,
                Descent::Unknown => {
                    let record = self.record_at(mark.sequence).await?;
                    record.is_some_and(|it| it.archive == mark.archive && it.commit == mark.commit)
                }
            };
            if !is_ours {
                continue;
            }
            let object = self.store.get(&listed.key).await?;
            let index = object.and_then(|object| DayIndex::parse(&object.bytes, &mark));
            if index.is_some() {
                return Ok(index);
            }
            warn!(key = %listed.key, "the index is damaged; the objects of the day are read instead");
        }
        Ok(None)
    }

    /// Stores an index of a day and removes those before it. A failure costs time later, and nothing else.
    pub(super) async fn write_day_index(&self, day_prefix: &str, lineage: &Lineage, index: DayIndex) {
        let mark = lineage.mark();
        if mark.sequence == 0 {
            return;
        }
        let key = key_of(day_prefix, &mark);
        let written = async {
            let before = self.store.list(&folder(day_prefix)).await?;
            let Write::Done(_) = self.store.create(&key, &index.into_document(mark)).await? else {
                return Ok(());
            };
            for listed in before.iter().filter(|listed| listed.key != key) {
                self.store.delete(&listed.key).await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = written.await {
            debug!(%key, %error, "the index of a day was not written");
        }
    }

    /// Removes all indexes: after a repair, a name may come to stand for another content.
    pub(super) async fn remove_day_indexes(&self) -> Result<(), ArchiveError> {
        for listed in self.store.list(FOLDER).await? {
            self.store.delete(&listed.key).await?;
        }
        Ok(())
    }
}
