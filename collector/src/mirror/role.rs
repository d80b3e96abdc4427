//! `metadata/replica.json`: which role an archive has, for people, for other programs, and for stores without a ledger.
//!
//! Where there is a ledger, that decides ([`crate::ledger::Replica`]): it is replaced by its condition, and this document is
//! written beside it. In a store that holds nothing else it states the epoch: a collector that is pointed at such a store with
//! `--epoch-store` stops once the epoch there is later than its own.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::json::from_object;
use crate::store::{Key, Operation, SharedStore, StoreError, Write};

/// What an archive is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duty {
    /// It accepts runs.
    Primary,
    /// It follows another one.
    Replica,
}

/// The role of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// What it is used for.
    pub role: Duty,
    /// The id of the archive.
    pub archive: String,
    /// The epoch of the primary.
    pub epoch: u64,
    /// The location of the primary.
    pub primary: String,
    /// Where the archive was copied from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When the role was taken, or a replica was last found to hold everything that its source had committed.
    pub at: DateTime<Utc>,
    /// The last commit that it holds.
    pub sequence: u64,
    /// When that was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<DateTime<Utc>>,
}

/// The name of the document.
#[must_use]
pub fn role_key() -> Key {
    Key::of_parts("metadata/replica.json".to_owned())
}

impl Role {
    /// Reads the role; nothing if the store states none.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub async fn read(store: &SharedStore) -> Result<Option<Self>, StoreError> {
        let Some(object) = store.get(&role_key()).await? else { return Ok(None) };
        from_object(&object.bytes).map(Some).map_err(|error| StoreError {
            operation: Operation::Get,
            target: format!("{}/{}", store.location(), role_key()),
            outcome_unknown: false,
            source: error.into(),
        })
    }

    fn to_document(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Writes the role into a store that states none. Whether it did.
    pub(super) async fn create(&self, store: &SharedStore) -> Result<bool, StoreError> {
        Ok(matches!(store.create(&role_key(), &self.to_document()).await?, Write::Done(_)))
    }

    /// Writes the role, whatever the store states.
    pub(super) async fn publish(&self, store: &SharedStore) -> Result<(), StoreError> {
        store.publish(&role_key(), &self.to_document()).await
    }
}
