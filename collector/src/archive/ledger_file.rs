//! Reads the ledger, rebuilds it where there is none of ours, and swaps it.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tracing::{info, warn};

use super::layout::{Place, ledger_key};
use super::{Archive, ArchiveError};
use crate::event::{self, Event};
use crate::ledger::{Ledger, LedgerDocument};
use crate::store::{Key, Listed, Object, Version, Write};

/// The ledger as it was read or written, and which state of it that is.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The ledger.
    pub ledger: Ledger,
    /// Its version in the store; nothing while there is no such object.
    pub(super) version: Option<Version>,
}

/// What became of a swap.
#[derive(Debug)]
pub(super) enum Swap {
    /// The ledger is the new one.
    Done(Box<Snapshot>),
    /// Somebody else wrote it, or it cannot be told whether we did: read again and start over.
    Lost,
}

impl Swap {
    fn done(ledger: Ledger, version: Version) -> Self {
        Self::Done(Box::new(Snapshot { ledger, version: Some(version) }))
    }
}

/// How often an operation with an unknown outcome is tried before the run gives up.
pub(super) const TRIES: usize = 5;

impl Archive {
    /// Reads the ledger. One small read in an ordinary run.
    ///
    /// # Errors
    /// [`ArchiveError`] if it cannot be read or trusted.
    pub async fn open(&self) -> Result<Snapshot, ArchiveError> {
        let key = ledger_key();
        let Some(Object { bytes, version }) = self.store.get(&key).await? else {
            let mut ledger = self.rebuild_if_any().await?;
            self.trust_store(&mut ledger).await?;
            return Ok(Snapshot { ledger, version: None });
        };
        let document = LedgerDocument::parse(&bytes).map_err(|source| ArchiveError::Ledger {
            location: format!("{key} in {}", self.store.location()),
            source,
        })?;
        let mut ledger = match document {
            LedgerDocument::Own(ledger) => ledger.limited_to(self.options.capacity),
            LedgerDocument::Foreign { ids, last_updated } => {
                info!(ids = ids.len(), "taking over the ledger of the documented collector");
                let mut ledger = self.rebuild().await?;
                for id in ids {
                    ledger.trust(id);
                }
                ledger.last_updated = last_updated;
                ledger
            }
        };
        self.trust_store(&mut ledger).await?;
        Ok(Snapshot { ledger, version: Some(version) })
    }

    async fn rebuild_if_any(&self) -> Result<Ledger, ArchiveError> {
        let ledger = self.rebuild().await?;
        if !ledger.is_empty() {
            warn!("the archive has events but no ledger; it was rebuilt from the archive");
        }
        Ok(ledger)
    }

    /// Makes a ledger from the archive's newest days, as many as it can remember whole.
    ///
    /// # Errors
    /// [`ArchiveError`] if the archive cannot be read.
    pub async fn rebuild(&self) -> Result<Ledger, ArchiveError> {
        let mut days: BTreeMap<NaiveDate, Vec<Listed>> = BTreeMap::new();
        for listed in self.store.list("events/").await? {
            if let Some(place) = Place::of(listed.key.as_str()) {
                days.entry(place.day).or_default().push(listed);
            }
        }
        let mut events: Vec<Event> = Vec::new();
        for (&day, objects) in days.iter().rev() {
            let of_day = self.events_in(objects).await?;
            if events.len() + of_day.len() > self.options.capacity {
                return Ok(self.ledger_of(events, day));
            }
            events.extend(of_day);
        }
        Ok(self.ledger_of(events, NaiveDate::MIN))
    }

    fn ledger_of(&self, events: Vec<Event>, complete_after: NaiveDate) -> Ledger {
        let mut ledger = Ledger::complete_after(complete_after).limited_to(self.options.capacity);
        for event in events {
            ledger.remember(event);
        }
        ledger
    }

    async fn events_in(&self, objects: &[Listed]) -> Result<Vec<Event>, ArchiveError> {
        let reads = objects.iter().map(|listed| async move {
            let object = self.read_listed(listed).await?;
            Ok::<_, ArchiveError>(events_of(&listed.key, &object.bytes))
        });
        stream::iter(reads).buffered(self.options.parallel).try_concat().await
    }

    /// Puts a new ledger in the place of the one that was read, if nobody else has.
    ///
    /// An answer that was lost is settled by reading: no two writes are alike, since they are counted and a
    /// claim names its run. So is a conflict, which a store that repeats requests by itself can have with
    /// its own first try. If ours is found it is written once more, because what can be read need not be
    /// durable yet.
    pub(super) async fn swap(&self, from: &Snapshot, mut to: Ledger) -> Result<Swap, ArchiveError> {
        to.writes = from.ledger.writes + 1;
        let (key, bytes) = (ledger_key(), to.to_document());
        let mut expected = from.version.clone();
        for tries_left in (0..TRIES).rev() {
            let written = match &expected {
                Some(version) => self.store.replace(&key, &bytes, version).await,
                None => self.store.create(&key, &bytes).await,
            };
            let is_in_doubt = written.is_err();
            match written {
                Ok(Write::Done(version)) => return Ok(Swap::done(to, version)),
                Ok(Write::Refused) => {}
                Err(error) if error.outcome_unknown && tries_left > 0 => {
                    warn!(%error, "the answer to a write was lost; reading the ledger to settle it");
                }
                Err(error) => return Err(error.into()),
            }
            let found = self.store.get(&key).await?;
            match found {
                Some(found) if found.bytes == bytes => expected = Some(found.version),
                // Nobody has written: the same write may succeed, and if none does, its error is the reason.
                found if is_in_doubt && found.as_ref().map(|found| &found.version) == expected.as_ref() => {}
                _ => break,
            }
        }
        Ok(Swap::Lost)
    }
}

/// The events of an object of the archive; lines that are none are named in the log.
pub(super) fn events_of(key: &Key, bytes: &[u8]) -> Vec<Event> {
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let read = lines.map(event::parse_line).inspect(|line| {
        if let Err(error) = line {
            warn!(%key, %error, "a line of the archive cannot be read; `collector verify` tells more");
        }
    });
    read.flatten().collect()
}
