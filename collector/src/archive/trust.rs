//! Proves that a store honours its conditions before they are relied on.
//!
//! Servers that take the conditional headers and ignore them, or lose races, look like any other until two
//! collectors meet. So a store that is not sound by construction has to refuse a second create and a stale
//! replace once; the ledger remembers that it did, so that an ordinary run asks for nothing more.

use tracing::{debug, warn};

use super::{Archive, ArchiveError};
use crate::ledger::Ledger;
use crate::store::{Key, StoreError, Version, Write};

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
        let created = self.store.create(key, b"1").await;
        let Some(first) = self.settled(key, b"1", created).await? else {
            return Ok(Some("it refuses to create an object that is not there"));
        };
        let created = self.store.create(key, b"2").await;
        if self.settled(key, b"2", created).await?.is_some() {
            return Ok(Some("it creates an object that is there already"));
        }
        let replaced = self.store.replace(key, b"3", &first).await;
        if self.settled(key, b"3", replaced).await?.is_none() {
            return Ok(Some("it refuses to replace the version that was read"));
        }
        let replaced = self.store.replace(key, b"4", &first).await;
        if self.settled(key, b"4", replaced).await?.is_some() {
            return Ok(Some("it replaces a version that is not there any more"));
        }
        let found = self.store.get(key).await?.map(|object| object.bytes);
        Ok((found.as_deref() != Some(b"3".as_slice()))
            .then_some("what it holds is not what was written last"))
    }

    /// The version that was written, if it was. A lost answer, or a conflict that a repeated request has
    /// with itself, is settled by reading: nobody else writes this object, nor these bytes.
    async fn settled(
        &self,
        key: &Key,
        bytes: &[u8],
        written: Result<Write, StoreError>,
    ) -> Result<Option<Version>, StoreError> {
        match written {
            Ok(Write::Done(version)) => return Ok(Some(version)),
            Ok(Write::Refused) => {}
            Err(error) if error.outcome_unknown => debug!(%error, "the answer to a trial was lost"),
            Err(error) => return Err(error),
        }
        let found = self.store.get(key).await?;
        Ok(found.filter(|object| object.bytes == bytes).map(|object| object.version))
    }
}
