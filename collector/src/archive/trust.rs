//! Proves that a store honours its conditions before they are relied on.
//!
//! Servers that take the conditional headers and ignore them, file systems on which exclusive create does not exclude, and
//! stores whose listings lag look like any other until two collectors meet. So a store has to refuse a second create and a
//! stale replace once, and to list what was created. The ledger remembers for which service and which version of this program
//! that was shown, so that an ordinary run asks for nothing more.
//!
//! The trial writes under `metadata/`, where the ledger is. It cannot write under `events/`: what is written there is never
//! deleted. Where permissions differ between these prefixes, the first claimed object shows it.

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{debug, info, warn};
use twox_hash::XxHash3_64;

use super::{Archive, ArchiveError};
use crate::ledger::Ledger;
use crate::store::{Key, StoreError, Version, Write};

/// How the names of trial objects begin.
const TRIAL: &str = "metadata/trial-";
/// A trial object of this age was left behind by a program that was killed.
const LEFT_BEHIND: TimeDelta = TimeDelta::days(1);
/// Maximum number of proofs that a ledger remembers: machines may reach one store in several ways.
const MAX_PROOFS: usize = 4;
/// Maximum number of characters of a fingerprint that are remembered as they are.
const MAX_FINGERPRINT_LENGTH: usize = 300;
/// Maximum number of characters of a proof: a fingerprint, its digest and a version.
const MAX_PROOF_LENGTH: usize = MAX_FINGERPRINT_LENGTH + 100;

impl Archive {
    /// Proves the conditions, unless that was done or no other process writes.
    pub(crate) async fn trust_store(&self, ledger: &mut Ledger) -> Result<(), ArchiveError> {
        if self.store.is_sound_by_construction() || is_proven(ledger, &self.proof()) {
            return Ok(());
        }
        if self.options.single_writer {
            debug!("the store's conditions are not proven: with --single-writer no other process writes");
            return Ok(());
        }
        self.prove_conditions().await?;
        // Only now is it certain that the store has answered and can be distinguished from others.
        remember(ledger, &self.proof());
        Ok(())
    }

    /// What is proven by a trial: that this service keeps its conditions towards this version of the program.
    fn proof(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let mut fingerprint = self.store.fingerprint().replace('\n', " ");
        if fingerprint.chars().count() > MAX_FINGERPRINT_LENGTH {
            let digest = XxHash3_64::oneshot(fingerprint.as_bytes());
            fingerprint = format!("{fingerprint:.MAX_FINGERPRINT_LENGTH$}… {digest:016x}");
        }
        format!("{fingerprint}, collector {version}")
    }

    /// Creates an object twice, lists it, replaces it by a stale version, and removes it again.
    ///
    /// # Errors
    /// [`ArchiveError::Untrusted`] if the store does what it has to refuse; another if it cannot be reached.
    pub async fn prove_conditions(&self) -> Result<(), ArchiveError> {
        let nanos = self.clock.now().timestamp_nanos_opt().unwrap_or_default();
        let key = Key::of_parts(format!("{TRIAL}{nanos}-{}", std::process::id()));
        let verdict = self.try_conditions(&key).await;
        if let Err(error) = self.store.delete(&key).await {
            warn!(%key, %error, "a trial object cannot be deleted; a later trial deletes it");
        }
        let wrong = match verdict? {
            Some(wrong) => Some(wrong.to_owned()),
            None => self.store.probe().await?,
        };
        let untrusted = |what| ArchiveError::Untrusted { location: self.store.location(), what };
        wrong.map_or(Ok(()), |what| Err(untrusted(what)))
    }

    /// What the store does wrong, if anything.
    async fn try_conditions(&self, key: &Key) -> Result<Option<&'static str>, StoreError> {
        let created = self.store.create(key, b"1").await;
        let Some(first) = self.settled(key, b"1", created).await? else {
            return Ok(Some("it refuses to create an object that does not exist"));
        };
        let created = self.store.create(key, b"2").await;
        if self.settled(key, b"2", created).await?.is_some() {
            return Ok(Some("it creates an object that exists already"));
        }
        if !self.lists(key).await? {
            return Ok(Some("its listing does not show an object that was just created"));
        }
        if !self.store.replaces_atomically() {
            // Nothing rests on replacing there.
            return Ok(None);
        }
        let replaced = self.store.replace(key, b"3", &first).await;
        if self.settled(key, b"3", replaced).await?.is_none() {
            return Ok(Some("it refuses to replace the version that was read"));
        }
        let replaced = self.store.replace(key, b"4", &first).await;
        if self.settled(key, b"4", replaced).await?.is_some() {
            return Ok(Some("it replaces a version that has been replaced already"));
        }
        let found = self.store.get(key).await?.map(|object| object.bytes);
        Ok((found.as_deref() != Some(b"3".as_slice())).then_some("it does not return what was written last"))
    }

    /// Whether the listing shows a trial object. Those that were left behind are deleted.
    async fn lists(&self, key: &Key) -> Result<bool, StoreError> {
        let listed = self.store.list(TRIAL).await?;
        let now = self.clock.now();
        for old in listed.iter().filter(|listed| listed.key != *key && is_left_behind(&listed.key, now)) {
            info!(key = %old.key, "deleting a trial object that was left behind");
            self.store.delete(&old.key).await?;
        }
        Ok(listed.iter().any(|listed| listed.key == *key))
    }

    /// The version that was written, if it was. A lost answer, or a conflict that a repeated request has
    /// with itself, is settled by reading: no other process writes this object or these bytes.
    async fn settled(
        &self,
        key: &Key,
        bytes: &[u8],
        written: Result<Write, StoreError>,
    ) -> Result<Option<Version>, StoreError> {
        match written {
            // An answer is not enough: what answers for the store may not be the store.
            Ok(Write::Done(_) | Write::Refused) => {}
            Err(error) if error.outcome_unknown => debug!(%error, "the answer to a trial was lost"),
            Err(error) => return Err(error),
        }
        let found = self.store.get(key).await?;
        Ok(found.filter(|object| object.bytes == bytes).map(|object| object.version))
    }
}

/// The proofs are lines of one text, the newest last.
pub(crate) fn is_proven(ledger: &Ledger, proof: &str) -> bool {
    ledger.conditions.as_ref().is_some_and(|proven| proven.lines().any(|line| line == proof))
}

pub(crate) fn remember(ledger: &mut Ledger, proof: &str) {
    let earlier = ledger.conditions.take().unwrap_or_default();
    let is_proof = |line: &&str| line.contains(", collector ") && line.chars().count() <= MAX_PROOF_LENGTH;
    let mut proofs: Vec<&str> = earlier.lines().filter(is_proof).collect();
    proofs.push(proof);
    ledger.conditions = Some(proofs[proofs.len().saturating_sub(MAX_PROOFS)..].join("\n"));
}

/// Whether a trial object is so old that its program does not run any more.
pub(crate) fn is_left_behind(key: &Key, now: DateTime<Utc>) -> bool {
    let nanos = key.as_str().strip_prefix(TRIAL).and_then(|rest| rest.split('-').next()?.parse().ok());
    nanos.is_some_and(|nanos| now - DateTime::from_timestamp_nanos(nanos) > LEFT_BEHIND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_remembers_the_newest_proofs() {
        let mut ledger = Ledger::default();
        ledger.conditions = Some("s3://bucket".to_owned());
        for number in 0..6 {
            remember(&mut ledger, &format!("s3://bucket at host-{number}, collector 1"));
        }
        assert!(is_proven(&ledger, "s3://bucket at host-5, collector 1"));
        assert!(is_proven(&ledger, "s3://bucket at host-2, collector 1"));
        for other in
            ["s3://bucket", "s3://bucket at host-1, collector 1", "s3://bucket at host-5, collector 2", ""]
        {
            assert!(!is_proven(&ledger, other), "{other}");
        }
    }

    #[test]
    fn trial_objects_are_left_behind_after_a_day() {
        let now = DateTime::from_timestamp(1_767_362_400, 0).unwrap();
        let key = |name: &str| Key::new(name).unwrap();
        assert!(is_left_behind(&key("metadata/trial-1767000000000000000-7"), now));
        assert!(!is_left_behind(&key("metadata/trial-1767362300000000000-7"), now));
        assert!(!is_left_behind(&key("metadata/trial-1999999999000000000-7"), now));
        assert!(!is_left_behind(&key("metadata/trial-mine"), now));
    }
}
