//! Reads the ledger, rebuilds it where there is none of ours, and swaps it.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use futures_util::FutureExt as _;
use futures_util::stream::TryStreamExt as _;
use tracing::{info, warn};

use super::compare::Healing;
use super::generations::{LedgerVersion, Stored};
use super::layout::{Place, ledger_key};
use super::{Archive, ArchiveError};
use crate::clock::CLOCK_TOLERANCE;
use crate::concurrency::buffered;
use crate::event::{self, Event};
use crate::ledger::{Ledger, LedgerDocument, LedgerError, Lineage, Mark};
use crate::mirror::role::Role;
use crate::store::{Key, Listed};

/// The ledger as it was read or written, and which state of it that is.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The ledger.
    pub ledger: Ledger,
    /// Which state of it was read.
    pub(super) version: LedgerVersion,
    pub(super) agreement: Agreement,
    /// Whether no ledger was found.
    pub(super) is_made_up: bool,
    /// What is to be done before anything else, where the ledger does not agree with the objects.
    pub(super) healing: Option<Box<Healing>>,
    /// Whether it is an earlier state than the one that this machine saw last.
    pub(super) has_gone_back: bool,
    /// What this machine remembered when ledger and objects were last held to agree.
    pub(super) remembered: Option<Mark>,
}

impl Snapshot {
    pub(crate) fn new(ledger: Ledger, version: LedgerVersion, agreement: Agreement) -> Self {
        Self {
            ledger,
            version,
            agreement,
            is_made_up: false,
            healing: None,
            has_gone_back: false,
            remembered: None,
        }
    }
}

/// Whether the objects are known to agree with a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// They were compared within the last day, and all commits since are known.
    Recent,
    /// They have just been compared.
    Compared,
    /// They have to be compared first, unless the machine remembers that they agree.
    Open,
    /// They have to be compared first, whatever the machine remembers.
    Doubtful,
}

/// What became of a swap.
#[derive(Debug)]
pub(crate) enum Swap {
    /// The ledger is the new one.
    Done(Box<Snapshot>),
    /// Somebody else wrote it, or it is not known whether this run did: read again and start over.
    Lost,
}

/// How often an operation with an unknown outcome is tried before the run gives up.
pub(crate) const TRIES: usize = 5;

impl Archive {
    /// Reads the ledger. In an ordinary run that is one small read, and a look at the object that was committed last.
    ///
    /// # Errors
    /// [`ArchiveError`] if it cannot be read or trusted, or if objects are missing that it vouches for.
    pub async fn open(&self) -> Result<Snapshot, ArchiveError> {
        loop {
            let mut snapshot = self.read_snapshot().await?;
            self.refuse_later_epoch(&snapshot.ledger.lineage).await?;
            self.trust_store(&mut snapshot.ledger).await?;
            self.distrust_future(&mut snapshot.ledger);
            if snapshot.ledger.claim.is_some() {
                return Ok(snapshot);
            }
            self.compare_if_due(&mut snapshot).await?;
            let Some(archive) = self.vanished(&snapshot) else { return Ok(snapshot) };
            // Another run may just have stored the first events.
            if self.read_stored().await?.bytes.is_none() {
                return Err(ArchiveError::Vanished { location: self.store.location(), archive });
            }
        }
    }

    /// The ledger as it is written, and the size of its document in bytes, for those who only read.
    pub(crate) async fn peek_ledger(&self) -> Result<Option<(Ledger, u64)>, ArchiveError> {
        let Some(bytes) = self.read_stored().await?.bytes else { return Ok(None) };
        Ok(match LedgerDocument::parse(&bytes) {
            Ok(LedgerDocument::Own(ledger)) => Some((*ledger, bytes.len() as u64)),
            _ => None,
        })
    }

    pub(super) async fn read_snapshot(&self) -> Result<Snapshot, ArchiveError> {
        let Stored { bytes, version, replaced, copy_differs, is_replaced } = self.read_stored().await?;
        if let Some(newest) = bytes.as_ref().filter(|_| copy_differs) {
            self.publish(newest).await;
        }
        let Some(bytes) = bytes else {
            if let Some(role) = Role::read(self.store()).await? {
                return Err(self.follows(role.primary));
            }
            let ledger = self.rebuild().await?;
            if !ledger.is_empty() {
                warn!("the archive has events but no ledger; it is rebuilt from the archive");
            }
            return Ok(Snapshot { is_made_up: true, ..Snapshot::new(ledger, version, Agreement::Open) });
        };
        let document = LedgerDocument::parse(&bytes).map_err(|source| ArchiveError::Ledger {
            location: format!("{} in {}", ledger_key(), self.store.location()),
            source,
        })?;
        Ok(match document {
            LedgerDocument::Own(ledger) if ledger.replica.is_some() => {
                return Err(self.follows(ledger.replica.map(|it| it.primary).unwrap_or_default()));
            }
            LedgerDocument::Own(ledger) => Snapshot::new(
                ledger.limited_to(self.options.capacity),
                version,
                if is_replaced { Agreement::Doubtful } else { Agreement::Open },
            ),
            LedgerDocument::Foreign { ids, last_updated } => {
                info!(ids = ids.len(), "taking over the ledger of the documented collector");
                let mut ledger = self.rebuild().await?;
                if let Some(own) = replaced {
                    ledger.inherit(&own);
                }
                for id in ids {
                    ledger.trust(id);
                }
                ledger.last_updated = last_updated;
                Snapshot::new(ledger, version, Agreement::Open)
            }
        })
    }

    /// Fails if the archive has a later epoch elsewhere. A store that cannot be reached proves nothing.
    async fn refuse_later_epoch(&self, lineage: &Lineage) -> Result<(), ArchiveError> {
        let Some(elsewhere) = &self.epoch_store else { return Ok(()) };
        match Role::read(elsewhere).await {
            Ok(Some(role)) if role.archive == lineage.archive && role.epoch > lineage.epoch => {
                let (location, Role { primary, epoch, .. }) = (self.store.location(), role);
                Err(ArchiveError::TakenOver { location, primary, epoch })
            }
            Ok(_) => Ok(()),
            Err(error) => {
                warn!(%error, "it is not known whether another store has taken over");
                Ok(())
            }
        }
    }

    fn follows(&self, primary: String) -> ArchiveError {
        ArchiveError::Replica { location: self.store.location(), primary }
    }

    /// The ledger as it is written, whatever the role of the archive: for those who change roles.
    ///
    /// # Errors
    /// [`ArchiveError::Ledger`] if it is not a ledger of this program.
    pub(crate) async fn stored_snapshot(&self) -> Result<Option<Snapshot>, ArchiveError> {
        let stored = self.read_stored().await?;
        let Some(bytes) = stored.bytes else { return Ok(None) };
        let unusable = |source| ArchiveError::Ledger {
            location: format!("{} in {}", ledger_key(), self.store.location()),
            source,
        };
        match LedgerDocument::parse(&bytes).map_err(unusable)? {
            LedgerDocument::Own(ledger) => Ok(Some(Snapshot::new(*ledger, stored.version, Agreement::Open))),
            LedgerDocument::Foreign { .. } => Err(unusable(LedgerError::Inconsistent("it has no history"))),
        }
    }

    /// The state before a ledger is written into an empty store.
    pub(crate) fn absent_ledger(&self) -> Snapshot {
        let version = if self.store.replaces_atomically() {
            LedgerVersion::Absent
        } else {
            LedgerVersion::Generation(0)
        };
        Snapshot::new(Ledger::vouching_for_nothing(), version, Agreement::Open)
    }

    /// A time that has not come yet says nothing: a ledger of the future switches nothing off.
    fn distrust_future(&self, ledger: &mut Ledger) {
        let now = self.clock.now();
        if let Some(last) = ledger.last_updated.filter(|&last| last > now + CLOCK_TOLERANCE) {
            warn!(ledger = %last, clock = %now, "the ledger was updated in the future; its time is ignored");
            ledger.last_updated = None;
        }
    }

    /// The archive that this machine has seen where the store is empty now: its disk is not mounted, or the store does
    /// not show it.
    fn vanished(&self, snapshot: &Snapshot) -> Option<String> {
        // A ledger that is rebuilt remembers nothing either if the newest day holds more events than it has room for.
        let ledger = &snapshot.ledger;
        let found_nothing =
            snapshot.is_made_up && ledger.is_empty() && ledger.is_complete_after() == NaiveDate::MIN;
        if !found_nothing || self.options.new_archive {
            return None;
        }
        let known = self.memory.recall(&self.store.identity()).pop()?;
        (known.mark.sequence > 0).then_some(known.mark.archive)
    }

    /// The location of the archive that this one follows, if it is a replica.
    pub(crate) async fn primary(&self) -> Result<Option<String>, ArchiveError> {
        let found = self.stored_snapshot().await?;
        Ok(found.and_then(|found| Some(found.ledger.replica?.primary)))
    }

    /// A ledger made from the archive that keeps what only an earlier one knows. The caller holds a claim.
    pub(crate) async fn rebuild_after(&self, earlier: &Ledger) -> Result<Ledger, ArchiveError> {
        let mut ledger = self.rebuild().await?;
        ledger.inherit(earlier);
        let first = self.record_at(1).await?;
        if first.is_some_and(|first| first.archive != ledger.lineage.archive) {
            ledger.lineage = Lineage::default();
        }
        self.reconciled(ledger).await
    }

    /// Makes a ledger from the archive's newest days, as many as it can remember whole. It has no history.
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
        let reads = objects.iter().map(|listed| {
            async move {
                let object = self.read_listed(listed).await?;
                Ok::<_, ArchiveError>(events_of(&listed.key, &object.bytes))
            }
            .boxed()
        });
        buffered(self.parallel(), reads).try_concat().await
    }

    /// Puts a new ledger in the place of the one that was read, if no other process has.
    pub(crate) async fn swap(&self, from: &Snapshot, to: Ledger) -> Result<Swap, ArchiveError> {
        let (swap, bytes) = self.swap_unpublished(from, to).await?;
        if matches!(&swap, Swap::Done(snapshot) if snapshot.ledger.claim.is_none()) {
            self.publish(&bytes).await;
        }
        Ok(swap)
    }

    /// The same without renewing the copy for other programs. Also returns the document.
    pub(super) async fn swap_unpublished(
        &self,
        from: &Snapshot,
        mut to: Ledger,
    ) -> Result<(Swap, Vec<u8>), ArchiveError> {
        to.writes = from.ledger.writes + 1;
        to.prune_tallies();
        let bytes = to.to_document();
        let swap = match self.replace_stored(&from.version, &bytes).await? {
            Some(version) => {
                let remembered = from.remembered.clone();
                Swap::Done(Box::new(Snapshot { remembered, ..Snapshot::new(to, version, from.agreement) }))
            }
            None => Swap::Lost,
        };
        Ok((swap, bytes))
    }
}

/// The events of an object of the archive; lines that are none are named in the log.
pub(super) fn events_of(key: &Key, bytes: &[u8]) -> Vec<Event> {
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let read = lines.map(event::parse_line).inspect(|line| {
        if let Err(error) = line {
            warn!(%key, %error, "a line of the archive cannot be read; `collector verify` shows more");
        }
    });
    read.flatten().collect()
}
