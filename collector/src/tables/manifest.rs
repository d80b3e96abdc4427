//! `tables/manifest.json`: what went into the tables, and what each file holds.
//!
//! It is replaced only if it is still the one that was read. Before a file is replaced, the manifest names its month as pending,
//! so that a process that continues after a kill makes that month again. It ends with the digest of what precedes it, because a
//! manifest that says something else can make an event disappear from answers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Month, Months, TablesError};
use crate::archive::{Cursor, content_digest};
use crate::event::EventId;
use crate::store::{Key, Store, StoreError, Version, Write};

/// Version of the manifest and of the layout of the files that this program writes.
pub(crate) const FORMAT: u32 = 1;

/// What the tables hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    /// The position in the journal up to which everything went in; nothing until the first time is complete.
    pub(crate) cursor: Option<String>,
    /// The months that are covered.
    #[serde(default)]
    pub(crate) covers: Months,
    /// Months whose files may be newer than this manifest.
    #[serde(default)]
    pub(crate) pending: BTreeSet<Month>,
    /// The process that makes them; empty if none does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) owner: String,
    pub(crate) months: BTreeMap<Month, MonthEntry>,
    /// Whether each event that was ever reported as withdrawn is so now.
    #[serde(default)]
    pub(crate) withdrawn: BTreeMap<EventId, Withdrawal>,
}

/// The last report that an event was withdrawn, or was back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Withdrawal {
    /// When the run began that reported it, in seconds since 1970 (UTC).
    pub(crate) at: i64,
    /// Whether it was back.
    pub(crate) returned: bool,
}

/// What is in the files of a month.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MonthEntry {
    /// Number of objects whose lines went in.
    pub(crate) objects: u64,
    /// The lowest id.
    pub(crate) first_id: EventId,
    /// The highest id.
    pub(crate) last_id: EventId,
    /// Ids of versions whose event is stored in another month.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) strays: BTreeSet<EventId>,
    /// Number of members of another type than expected.
    #[serde(default)]
    pub(crate) odd_values: u64,
    /// Number of lines that are not events.
    #[serde(default)]
    pub(crate) unreadable: u64,
    pub(crate) events: FileEntry,
    pub(crate) revisions: FileEntry,
}

impl MonthEntry {
    pub(crate) fn may_hold(&self, id: EventId) -> bool {
        (self.first_id..=self.last_id).contains(&id)
    }
}

/// A file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    pub(crate) rows: u64,
    pub(crate) size_bytes: u64,
    /// The SHA-256 digest of the file.
    pub(crate) digest: String,
    /// The SHA-256 digest of the values, which does not depend on how they are encoded.
    pub(crate) rows_digest: String,
}

/// The name of the manifest.
pub(crate) fn manifest_key() -> Key {
    Key::of_parts("tables/manifest.json".to_owned())
}

/// The part of every version of the manifest.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

/// What stands where the manifest belongs.
#[derive(Debug)]
pub(crate) enum Found {
    Absent,
    Usable(Box<Manifest>),
    /// It was written by a later version of this program.
    Future(u32),
    Damaged(String),
}

/// A manifest, and which state of the object it is.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) found: Found,
    pub(crate) version: Option<Version>,
}

impl Manifest {
    pub(crate) async fn read(store: &dyn Store) -> Result<Stored, StoreError> {
        let Some(object) = store.get(&manifest_key()).await? else {
            return Ok(Stored { found: Found::Absent, version: None });
        };
        let found = match serde_json::from_slice::<AnyFormat>(&object.bytes) {
            Ok(AnyFormat { format }) if format > FORMAT => Found::Future(format),
            _ => match serde_json::from_slice(&object.bytes) {
                Ok(manifest) if is_sealed(&object.bytes) => Found::Usable(Box::new(manifest)),
                Ok(_) => Found::Damaged("its content is not that of its digest".to_owned()),
                Err(error) => Found::Damaged(error.to_string()),
            },
        };
        Ok(Stored { found, version: Some(object.version) })
    }

    /// Puts it in the place of the one that was read; the new version.
    pub(crate) async fn write(
        &self,
        store: &dyn Store,
        version: Option<&Version>,
    ) -> Result<Version, TablesError> {
        let bytes = sealed(serde_json::to_vec(self).unwrap_or_default());
        replace(store, &manifest_key(), &bytes, version).await
    }

    /// The position up to which everything went in.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.cursor.as_ref()?.parse().ok()
    }
}

/// What separates the members of a manifest from their digest, the last member.
const SEAL: &str = ",\"digest\":\"";

fn sealed(mut json: Vec<u8>) -> Vec<u8> {
    // The closing brace.
    json.pop();
    let digest = content_digest(&json);
    json.extend_from_slice(format!("{SEAL}{digest}\"}}\n").as_bytes());
    json
}

fn is_sealed(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let is_of = |members: &str, rest: &str| rest == format!("{}\"}}\n", content_digest(members.as_bytes()));
    text.rsplit_once(SEAL).is_some_and(|(members, rest)| is_of(members, rest))
}

/// Writes an object if it is still in the state that was read. The answer to a write that was lost is settled by reading.
pub(crate) async fn replace(
    store: &dyn Store,
    key: &Key,
    bytes: &[u8],
    version: Option<&Version>,
) -> Result<Version, TablesError> {
    let written = match version {
        Some(version) => store.replace(key, bytes, version).await,
        None => store.create(key, bytes).await,
    };
    let error = match written {
        Ok(Write::Done(version)) => return Ok(version),
        Ok(Write::Refused) => None,
        Err(error) if error.outcome_unknown => Some(error),
        Err(error) => return Err(error.into()),
    };
    match store.get(key).await? {
        Some(found) if found.bytes == bytes => Ok(found.version),
        _ => Err(error.map_or(TablesError::Contended, TablesError::Store)),
    }
}
