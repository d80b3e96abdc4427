//! How the ledger is read and replaced on any store.
//!
//! A store that compares and replaces in one step keeps it under its documented name. A file system cannot do that: a
//! writer that was stopped between comparing and renaming would put an old ledger over a new one, and locks are ignored
//! by some file systems. So there each state of the ledger is an object of its own, `metadata/ledger/N`, made by
//! exclusive creation from state N-1. The highest N is the ledger; `metadata/last_seen.json` is a copy for other programs.
//!
//! Old states are removed. A writer that was stopped for long may then create a number that was used before; it sees
//! higher ones and knows that it came too late.

use tracing::{debug, warn};

use super::layout::ledger_key;
use super::ledger_file::TRIES;
use super::{Archive, ArchiveError};
use crate::ledger::{Ledger, LedgerDocument};
use crate::store::{Key, Object, StoreError, Version, Write};

/// Number of states that are kept.
const KEPT: u64 = 16;
const FOLDER: &str = "metadata/ledger/";

/// Which state of the ledger was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LedgerVersion {
    /// There is none.
    Absent,
    /// The object under the documented name.
    Object(Version),
    /// The state of that number; 0 before the first one.
    Generation(u64),
}

/// The ledger as it is stored.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The document; nothing if there is none.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) version: LedgerVersion,
    /// Our own ledger, where another collector has replaced the document.
    pub(super) replaced: Option<Box<Ledger>>,
    /// Whether the copy for other programs is older.
    pub(super) copy_differs: bool,
    /// Whether somebody else put the document there.
    pub(super) is_replaced: bool,
}

impl Stored {
    fn new(bytes: Option<Vec<u8>>, version: LedgerVersion) -> Self {
        Self { bytes, version, replaced: None, copy_differs: false, is_replaced: false }
    }
}

pub(crate) fn generation_key(number: u64) -> Key {
    Key::of_parts(format!("{FOLDER}{number:012}.json"))
}

pub(crate) fn number_of(key: &Key) -> Option<u64> {
    let name = key.as_str().strip_prefix(FOLDER)?.strip_suffix(".json")?;
    // A sign would be part of a number as well.
    (name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok())?
}

impl Archive {
    /// Reads the ledger's document.
    pub(crate) async fn read_stored(&self) -> Result<Stored, ArchiveError> {
        if self.store.replaces_atomically() {
            return Ok(match self.store.get(&ledger_key()).await? {
                Some(object) => Stored::new(Some(object.bytes), LedgerVersion::Object(object.version)),
                None => Stored::new(None, LedgerVersion::Absent),
            });
        }
        let (newest, published) = tokio::try_join!(self.newest_generation(), async {
            Ok::<_, ArchiveError>(self.store.get(&ledger_key()).await?.map(|object| object.bytes))
        })?;
        let Some((number, bytes)) = newest else {
            return Ok(Stored::new(published, LedgerVersion::Generation(0)));
        };
        self.choose(number, bytes, published)
    }

    /// Which state of the ledger is there, whatever it holds.
    pub(super) async fn read_version(&self) -> Result<LedgerVersion, ArchiveError> {
        if !self.store.replaces_atomically() {
            return Ok(LedgerVersion::Generation(
                self.generations().await?.last().copied().unwrap_or_default(),
            ));
        }
        let found = self.store.get(&ledger_key()).await?;
        Ok(found.map_or(LedgerVersion::Absent, |object| LedgerVersion::Object(object.version)))
    }

    async fn newest_generation(&self) -> Result<Option<(u64, Vec<u8>)>, ArchiveError> {
        for _ in 0..TRIES {
            let Some(&number) = self.generations().await?.last() else { return Ok(None) };
            if let Some(Object { bytes, .. }) = self.store.get(&generation_key(number)).await? {
                return Ok(Some((number, bytes)));
            }
            debug!(number, "the state of the ledger was removed meanwhile; looking again");
        }
        Err(ArchiveError::Interrupted)
    }

    /// The numbers of the states that are kept, in order.
    async fn generations(&self) -> Result<Vec<u64>, StoreError> {
        let mut numbers: Vec<u64> =
            self.store.list(FOLDER).await?.iter().filter_map(|listed| number_of(&listed.key)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Holds the newest state against the published copy. A copy that is older was written late, or restored, and is
    /// replaced. One that is not was put there by somebody else: it counts, and is compared with the objects.
    fn choose(
        &self,
        number: u64,
        newest: Vec<u8>,
        published: Option<Vec<u8>>,
    ) -> Result<Stored, ArchiveError> {
        let version = LedgerVersion::Generation(number);
        let Some(published) = published else {
            return Ok(Stored { copy_differs: true, ..Stored::new(Some(newest), version) });
        };
        if published == newest {
            return Ok(Stored::new(Some(published), version));
        }
        let (Ok(LedgerDocument::Own(ledger)), Ok(copy)) =
            (LedgerDocument::parse(&newest), LedgerDocument::parse(&published))
        else {
            return Ok(Stored { is_replaced: true, ..Stored::new(Some(published), version) });
        };
        let LedgerDocument::Own(copy) = copy else {
            return Ok(Stored {
                is_replaced: true,
                replaced: Some(ledger),
                ..Stored::new(Some(published), version)
            });
        };
        if copy.lineage.is_known() && copy.lineage.archive != ledger.lineage.archive {
            return Err(ArchiveError::AnotherArchive {
                location: self.store.location(),
                expected: ledger.lineage.archive,
                found: copy.lineage.archive,
            });
        }
        if copy.lineage.is_known() && copy.writes >= ledger.writes {
            warn!(
                copy = copy.writes,
                kept = ledger.writes,
                "the ledger was replaced; comparing it with the objects"
            );
            return Ok(Stored { is_replaced: true, ..Stored::new(Some(published), version) });
        }
        Ok(Stored { copy_differs: ledger.claim.is_none(), ..Stored::new(Some(newest), version) })
    }

    /// Puts a ledger in the place of the one that was read. Its version, unless somebody else did first.
    ///
    /// An answer that was lost is settled by reading: no two ledgers are alike, since they are counted and a claim names
    /// its run. So is a conflict, which a store that repeats requests by itself can have with its own first try. If ours
    /// is found it is written once more, because what can be read need not be durable yet.
    pub(super) async fn replace_stored(
        &self,
        from: &LedgerVersion,
        bytes: &[u8],
    ) -> Result<Option<LedgerVersion>, ArchiveError> {
        let mut expected = match from {
            LedgerVersion::Generation(number) => return self.create_generation(number + 1, bytes).await,
            LedgerVersion::Absent => None,
            LedgerVersion::Object(version) => Some(version.clone()),
        };
        let key = ledger_key();
        for tries_left in (0..TRIES).rev() {
            let written = match &expected {
                Some(version) => self.store.replace(&key, bytes, version).await,
                None => self.store.create(&key, bytes).await,
            };
            let is_in_doubt = written.is_err();
            match written {
                Ok(Write::Done(version)) => return Ok(Some(LedgerVersion::Object(version))),
                Ok(Write::Refused) => {}
                Err(error) if error.outcome_unknown && tries_left > 0 => {
                    warn!(%error, "the answer to a write was lost; reading the ledger to settle it");
                }
                Err(error) => return Err(error.into()),
            }
            let found = self.store.get(&key).await?;
            match found {
                Some(found) if found.bytes == bytes => expected = Some(found.version),
                // No process has written: the same write may succeed, and if none does, its error is the reason.
                found if is_in_doubt && found.as_ref().map(|found| &found.version) == expected.as_ref() => {}
                _ => break,
            }
        }
        Ok(None)
    }

    async fn create_generation(
        &self,
        number: u64,
        bytes: &[u8],
    ) -> Result<Option<LedgerVersion>, ArchiveError> {
        let key = generation_key(number);
        for tries_left in (0..TRIES).rev() {
            match self.store.create(&key, bytes).await {
                Ok(Write::Done(_)) => break,
                // Refused by its own first try, whose answer was lost; a refusal proves that it is durable.
                Ok(Write::Refused) => match self.store.get(&key).await? {
                    Some(found) if found.bytes == bytes => break,
                    _ => return Ok(None),
                },
                Err(error) if error.outcome_unknown && tries_left > 0 => {
                    warn!(%error, "the answer to a write was lost; asking again");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let numbers =
            self.generations().await.map_err(|error| StoreError { outcome_unknown: true, ..error })?;
        if numbers.last() != Some(&number) {
            return Ok(None);
        }
        self.remove_old(&numbers).await;
        Ok(Some(LedgerVersion::Generation(number)))
    }

    async fn remove_old(&self, numbers: &[u64]) {
        let newest = numbers.last().copied().unwrap_or_default();
        for &number in numbers.iter().filter(|&&number| number + KEPT <= newest) {
            if let Err(error) = self.store.delete(&generation_key(number)).await {
                debug!(%error, number, "an old state of the ledger could not be removed");
            }
        }
    }

    /// Publishes a ledger under its documented name, where that is only a copy.
    pub(crate) async fn publish(&self, bytes: &[u8]) {
        if self.store.replaces_atomically() {
            return;
        }
        if let Err(error) = self.store.publish(&ledger_key(), bytes).await {
            warn!(%error, "the ledger is safe, but its copy for other programs could not be written");
        }
    }
}
