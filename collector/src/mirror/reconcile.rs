//! Brings together what two archives stored while both accepted runs, and makes the older one a replica of the other.
//!
//! What only the older one has is stored into the primary as a run stores it: each event once, versions kept. Then the older
//! one follows the history of the primary. Its own objects that differ, and its own records of the journal, are kept under
//! `repaired/`. Each step may be broken off and repeated; how far it came stands in the ledger of the older one.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tracing::info;

use super::adopt::fence;
use super::copy::{Created, create};
use super::{ATTEMPTS, Mirror, MirrorError, MirrorReport};
use crate::archive::deposit::Absorbed;
use crate::archive::journal::journal_key;
use crate::archive::ledger_file::{Snapshot, Swap};
use crate::archive::partition::rejected_elements;
use crate::archive::takeover::withdrawn_in;
use crate::archive::{Archive, ArchiveError, Kind, Outcome, Place};
use crate::event::Response;
use crate::ledger::{CommitRecord, Ledger, Lineage, Rejoining, Replica};
use crate::quantity::Quantity;
use crate::store::{Key, Object, Write};

/// How long to wait before looking again whether another run is done.
const WAIT_FOR_ANOTHER: Duration = Duration::from_secs(1);

/// What a reconciliation did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Reconciliation {
    /// Commits that only the older archive had.
    pub commits: u64,
    /// Events that only the older archive had.
    pub events: usize,
    /// Versions of events that only the older archive had.
    pub revisions: usize,
    /// Rejected elements that only the older archive had.
    pub rejected: usize,
    /// Withdrawals that only the older archive had.
    pub withdrawn: usize,
    /// Objects of the older archive that were kept under `repaired/`.
    pub moved: usize,
    /// How the older archive was brought up to date.
    #[serde(flatten)]
    pub mirror: MirrorReport,
}

impl Mirror {
    /// Makes the target a replica of the source, whose epoch is later, after both have stored something.
    ///
    /// # Errors
    /// [`MirrorError`] if the source is not the primary of a later epoch, or a store fails. Nothing is lost then, and it may be
    /// started again.
    pub async fn reconcile(
        &self,
        progress: impl FnMut(usize) + Send + Sync,
    ) -> Result<Reconciliation, MirrorError> {
        if self.source.store().identity() == self.target.store().identity() {
            return Err(MirrorError::SameStore(self.source.store().location()));
        }
        let mut primary = self.read_source().await?;
        let mut result = Reconciliation::default();
        if let Some(found) = self.target.stored_snapshot().await? {
            let Ledger { lineage, replica, .. } = &found.ledger;
            let is_of_archive = lineage.archive == primary.lineage.archive;
            if is_of_archive && replica.is_none() && lineage.epoch == primary.lineage.epoch {
                primary = self.raise_epoch(lineage.epoch).await?;
            }
            let (archive, epoch) = (&primary.lineage.archive, primary.lineage.epoch);
            let held = fence(&self.target, archive, epoch, &self.source.store().identity()).await?;
            let found = held.ledger.lineage.epoch;
            if found > epoch {
                // A promotion of the target has begun, and has to be finished: its epoch may be known elsewhere.
                let location = self.target.store().location();
                return Err(MirrorError::LaterEpoch { location, found, epoch });
            }
            if let Some((held, rejoining)) = self.find_split(held, &primary).await? {
                Box::pin(self.rejoin(held, rejoining, epoch, &mut result)).await?;
            }
        }
        let mirror = Self { rejoins: true, ..self.clone() };
        result.mirror = mirror.update(progress).await?;
        Ok(result)
    }

    /// Gives the source a later epoch, where promotions that could not reach each other gave both the same one.
    async fn raise_epoch(&self, than: u64) -> Result<Ledger, MirrorError> {
        for _ in 0..ATTEMPTS {
            let Some(found) = self.source.stored_snapshot().await? else { break };
            if found.ledger.replica.is_some() || found.ledger.lineage.epoch > than {
                return self.read_source().await;
            }
            let mut ledger = found.ledger.clone();
            ledger.lineage.epoch = than + 1;
            if let Swap::Done(raised) = self.source.swap(&found, ledger).await? {
                return Ok(raised.ledger);
            }
        }
        Err(MirrorError::Interrupted)
    }

    /// The commits that are not part of the history of the primary, noted in the ledger; nothing if there are none.
    async fn find_split(
        &self,
        held: Snapshot,
        primary: &Ledger,
    ) -> Result<Option<(Snapshot, Rejoining)>, MirrorError> {
        let replica = held.ledger.replica.clone();
        if let Some(rejoining) = replica.as_ref().and_then(|replica| replica.rejoining.clone()) {
            return Ok(Some((held, rejoining)));
        }
        let held = self.with_journal(held).await?;
        let mark = held.ledger.lineage.mark();
        let (mut common, mut differs) = (0, mark.sequence.min(primary.lineage.sequence()) + 1);
        while common + 1 < differs {
            let middle = common.midpoint(differs);
            if self.is_common(middle, primary).await? { common = middle } else { differs = middle }
        }
        if common == mark.sequence {
            return Ok(None);
        }
        let rejoining = Rejoining { common, last: mark.sequence, commit: mark.commit, absorbed: false };
        let mut ledger = held.ledger.clone();
        ledger.replica = replica.map(|it| Replica { rejoining: Some(rejoining.clone()), ..it });
        Ok(Some((change(&self.target, &held, ledger).await?, rejoining)))
    }

    /// The target, once its journal holds every commit of its ledger.
    ///
    /// A run or a promotion that ended between the two may have left a record there with the number of the last commit: then the
    /// ledger follows the journal.
    async fn with_journal(&self, held: Snapshot) -> Result<Snapshot, MirrorError> {
        if self.target.flush_journal(&held.ledger.lineage).await? {
            return Ok(held);
        }
        let followed = self.target.reconciled(held.ledger.clone()).await?;
        change(&self.target, &held, followed).await
    }

    async fn is_common(&self, sequence: u64, primary: &Ledger) -> Result<bool, MirrorError> {
        let last = primary.lineage.last.as_ref().filter(|last| last.sequence == sequence);
        let ours = match last {
            Some(last) => Some(last.commit.clone()),
            None => self.source.record_at(sequence).await?.map(|record| record.commit),
        };
        let theirs = self.target.record_at(sequence).await?.map(|record| record.commit);
        Ok(ours.is_some() && ours == theirs)
    }

    async fn rejoin(
        &self,
        held: Snapshot,
        mut rejoining: Rejoining,
        epoch: u64,
        result: &mut Reconciliation,
    ) -> Result<(), MirrorError> {
        result.commits = rejoining.last - rejoining.common;
        if !rejoining.absorbed {
            for sequence in rejoining.common + 1..=rejoining.last {
                let record = self.saved_record(&rejoining, sequence).await?;
                self.absorb(&record, result).await?;
            }
            rejoining.absorbed = true;
            self.follow_common(&held, &rejoining, epoch).await?;
        }
        let mut keys = BTreeSet::new();
        for sequence in rejoining.common + 1..=rejoining.last {
            let record = self.saved_record(&rejoining, sequence).await?;
            keys.extend(record.objects.into_iter().map(|object| object.key));
        }
        for key in keys.iter().filter_map(|key| Key::new(key.as_str()).ok()) {
            result.moved += usize::from(self.move_aside(&key).await?);
        }
        for sequence in (rejoining.common + 1..=rejoining.last).rev() {
            let saved = self.saved_record(&rejoining, sequence).await?;
            if self.target.record_at(sequence).await?.as_ref() == Some(&saved) {
                self.target.store().delete(&journal_key(sequence)).await?;
            }
        }
        Ok(())
    }

    /// A record that only the target has. It is kept under `repaired/`, since its number is that of another one.
    async fn saved_record(&self, rejoining: &Rejoining, sequence: u64) -> Result<CommitRecord, MirrorError> {
        let store = self.target.store();
        let journal = journal_key(sequence);
        let name = journal.as_str().trim_start_matches("metadata/");
        let key = Key::of_parts(format!("repaired/split-{}/{name}", rejoining.commit));
        if let Some(object) = store.get(&key).await? {
            let unusable = |reason| ArchiveError::Journal { key: key.clone(), reason };
            return Ok(CommitRecord::parse(&object.bytes).map_err(|error| unusable(error.to_string()))?);
        }
        let Some(record) = self.target.record_at(sequence).await? else {
            let reason = "it is missing; `collector repair` cannot be used on a replica".to_owned();
            return Err(ArchiveError::Journal { key: journal, reason }.into());
        };
        match create(store, &key, &record.to_document()).await? {
            Created::Written | Created::Present => Ok(record),
            Created::Differs(_) => Err(ArchiveError::Interrupted.into()),
        }
    }

    /// Stores into the primary what a commit of the target stored, as far as the primary does not have it.
    async fn absorb(&self, record: &CommitRecord, result: &mut Reconciliation) -> Result<(), MirrorError> {
        let (mut elements, mut absorbed) = (Vec::<u8>::new(), Absorbed::default());
        let mut start = record.committed_at;
        let mut push = |element: &[u8]| {
            elements.extend_from_slice(if elements.is_empty() { b"[" } else { b",\n" });
            elements.extend_from_slice(element);
        };
        // The events of a record come before its revisions.
        let mut objects = record.objects.clone();
        objects.sort_by_key(|object| Place::of(&object.key));
        for object in objects {
            let (Ok(key), Some(place)) = (Key::new(object.key.as_str()), Place::of(&object.key)) else {
                continue;
            };
            let Some(Object { bytes, .. }) = self.target.store().get(&key).await? else { continue };
            start = key.run().0;
            let lines = || bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            match place.kind {
                Kind::Events | Kind::Revisions => lines().for_each(&mut push),
                Kind::Rejected => {
                    for element in rejected_elements(&bytes) {
                        push(element.as_bytes());
                    }
                }
                Kind::Withdrawn => {
                    let (gone, back) = withdrawn_in(&bytes);
                    absorbed.withdrawn.extend(gone);
                    absorbed.returned.extend(back);
                }
            }
        }
        if elements.is_empty() {
            elements.push(b'[');
        }
        elements.push(b']');
        let is_over = || false;
        let limits = crate::event::ParseLimits { max_elements: usize::MAX, is_over: &is_over };
        let unusable = |reason| ArchiveError::Journal { key: journal_key(record.sequence), reason };
        let response =
            Response::parse_within(&elements, &limits).map_err(|error| unusable(error.to_string()))?;
        absorbed.last_seen =
            DateTime::from_timestamp(record.committed_at, 0).map_or_else(String::new, crate::clock::iso);
        let start = DateTime::from_timestamp(start, 0).unwrap_or_default();
        self.deposit(&response, &absorbed, start, result).await
    }

    async fn deposit(
        &self,
        response: &Response<'_>,
        absorbed: &Absorbed,
        start: DateTime<Utc>,
        result: &mut Reconciliation,
    ) -> Result<(), MirrorError> {
        let waits = self.source.lease().as_secs() / WAIT_FOR_ANOTHER.as_secs() + 1;
        for _ in 0..=waits {
            let snapshot = self.source.open().await?;
            let (deposit, _) = self.source.absorb(response, absorbed, snapshot, start).await?;
            if deposit.outcome != Outcome::Stored {
                self.source.clock().sleep(WAIT_FOR_ANOTHER).await;
                continue;
            }
            result.events += deposit.count(Quantity::NewEventsCount);
            result.revisions += deposit.count(Quantity::RevisionsCount);
            result.rejected += deposit.count(Quantity::RejectedCount);
            result.withdrawn +=
                deposit.count(Quantity::WithdrawnCount) + deposit.count(Quantity::ReturnedCount);
            return Ok(());
        }
        Err(ArchiveError::Interrupted.into())
    }

    /// Lets the ledger of the target vouch for nothing but the common history. What it stored on its own is ahead of it then.
    async fn follow_common(
        &self,
        held: &Snapshot,
        rejoining: &Rejoining,
        epoch: u64,
    ) -> Result<(), MirrorError> {
        let Ledger { lineage, replica, conditions, .. } = &held.ledger;
        let record = match rejoining.common {
            0 => None,
            common => self.target.record_at(common).await?,
        };
        let mut ledger = Ledger::vouching_for_nothing();
        ledger.conditions.clone_from(conditions);
        ledger.lineage = Lineage::up_to(lineage.archive.clone(), epoch, record);
        ledger.replica =
            replica.clone().map(|it| Replica { complete: false, rejoining: Some(rejoining.clone()), ..it });
        info!(commits = rejoining.last - rejoining.common, "the primary holds what both have stored");
        change(&self.target, held, ledger).await?;
        Ok(())
    }

    /// Makes an object of the target equal to that of the primary; its content is kept under `repaired/`. Whether it differed.
    async fn move_aside(&self, key: &Key) -> Result<bool, MirrorError> {
        let (primary, store) = (self.source.store(), self.target.store());
        for _ in 0..ATTEMPTS {
            let Some(Object { bytes, version }) = store.get(key).await? else { return Ok(false) };
            let wanted = primary.get(key).await?.map(|object| object.bytes).unwrap_or_default();
            if bytes == wanted {
                return Ok(false);
            }
            self.target.keep_aside(key, &bytes).await?;
            if let Write::Done(_) = store.replace(key, &wanted, &version).await? {
                return Ok(true);
            }
        }
        Err(ArchiveError::Interrupted.into())
    }
}

async fn change(archive: &Archive, held: &Snapshot, ledger: Ledger) -> Result<Snapshot, MirrorError> {
    match archive.swap(held, ledger).await? {
        Swap::Done(held) => Ok(*held),
        Swap::Lost => Err(ArchiveError::Interrupted.into()),
    }
}
