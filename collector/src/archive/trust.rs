//! Proves that a store honours its conditions before they are relied on.
//!
//! Servers that take the conditional headers and ignore them, or lose races, look like any other until two
//! collectors meet. So a store that is not sound by construction has to refuse a second create and a stale
//! replace once; the ledger remembers that it did, so that an ordinary run asks for nothing more.

use tracing::{debug, warn};

use super::{Archive, ArchiveError};
use crate::ledger::Ledger;
use crate::store::{Key, StoreError, Write};

impl Archive {
    /// Proves the conditions, unless that was done or nobody else writes.
    pub(super) async fn trust_store(&self, ledger: &mut Ledger) -> Result<(), ArchiveError> {
        let location = self.store.location();
        if self.store.is_sound_by_construction() || ledger.conditions.as_ref() == Some(&location) {
            return Ok(());
        }
        if self.options.single_writer {
            debug!("the store's conditions are not proven; it is said that nobody else writes");
            return Ok(());
        }
        self.prove_conditions().await?;
        ledger.conditions = Some(location);
        Ok(())
    }

    /// Creates an object twice and replaces it by a stale version, and removes it again.
    ///
    /// # Errors
    /// [`ArchiveError::Untrusted`] if the store does what it has to refuse; another if it cannot be reached.
    pub async fn prove_conditions(&self) -> Result<(), ArchiveError> {
        let nanos = self.clock.now().timestamp_nanos_opt().unwrap_or_default();
        let key = Key::of_parts(format!("metadata/trial-{nanos}-{}", std::process::id()));
        let verdict = self.try_conditions(&key).await;
        if let Err(error) = self.store.delete(&key).await {
            warn!(%key, %error, "the object that the store was tried with is left behind");
        }
        let untrusted = |what| ArchiveError::Untrusted { location: self.store.location(), what };
        verdict?.map_or(Ok(()), |what| Err(untrusted(what)))
    }

    /// What the store does wrong, if anything.
    async fn try_conditions(&self, key: &Key) -> Result<Option<&'static str>, StoreError> {
        let Write::Done(first) = self.store.create(key, b"1").await? else {
            return Ok(Some("it refuses to create an object that is not there"));
        };
        if self.store.create(key, b"2").await? != Write::Refused {
            return Ok(Some("it creates an object that is there already"));
        }
        let Write::Done(_) = self.store.replace(key, b"3", &first).await? else {
            return Ok(Some("it refuses to replace the version that was read"));
        };
        if self.store.replace(key, b"4", &first).await? != Write::Refused {
            return Ok(Some("it replaces a version that is not there any more"));
        }
        let found = self.store.get(key).await?.map(|object| object.bytes);
        Ok((found.as_deref() != Some(b"3".as_slice()))
            .then_some("what it holds is not what was written last"))
    }
}
