//! Finishes what a dead run claimed, and does nothing else.
//!
//! Each name it claimed is created empty if it is not there yet. After that the dead run can write it no
//! more, should it wake up, and what is there counts as stored. What was not there is new again for the
//! run that follows.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use rustc_hash::FxHashSet;
use tracing::{info, warn};

use super::compare::tally_of;
use super::journal::committed;
use super::layout::{Kind, Place};
use super::ledger_file::{Snapshot, Swap, TRIES, events_of};
use super::owner::ActiveRun;
use super::partition::{WithdrawnLine, rejected_in};
use super::{Archive, ArchiveError};
use crate::clock::CLOCK_TOLERANCE;
use crate::event::EventId;
use crate::ledger::{Claim, ClaimedObject, CommitKind, CommittedObject, Ledger, prefix_of};
use crate::store::{Key, Listed, Write};

impl Archive {
    /// Whether a claim may be finished by us: its time is over, its process is gone, or it is our own,
    /// left behind by an answer that was lost.
    pub(crate) fn may_take_over(&self, claim: &Claim, own: &ActiveRun) -> bool {
        let left_behind = claim.owner == self.liveness.name() && !own.is_another(&claim.run);
        left_behind || self.is_over(claim) || self.liveness.is_gone(&claim.owner)
    }

    /// Whether a claim's lease has run out. One that is longer than any lease stems from a wrong clock.
    fn is_over(&self, claim: &Claim) -> bool {
        let now = self.clock.now();
        let longest = TimeDelta::from_std(self.options.lease).unwrap_or(TimeDelta::MAX);
        let latest = now.checked_add_signed(longest).and_then(|end| end.checked_add_signed(CLOCK_TOLERANCE));
        let is_longer = latest.is_some_and(|latest| claim.end() > latest);
        if is_longer {
            warn!(until = %claim.end(), clock = %now, owner = claim.owner, "a claim ends later than any lease; it is not honoured");
        }
        is_longer || claim.is_over(now)
    }

    /// A claim of this process that begins now.
    pub(crate) fn claim_of_run(&self, run: &ActiveRun, objects: Vec<ClaimedObject>) -> Claim {
        let until = (self.clock.now() + self.options.lease).timestamp();
        Claim { run: run.name().to_owned(), owner: self.liveness.name(), until, objects }
    }

    /// Finishes a claim. The snapshot that comes back has none, or was written by somebody else.
    ///
    /// `ours` names the same objects as the claim that was found, but us as the owner.
    pub(crate) async fn finish(&self, from: &Snapshot, ours: Claim) -> Result<Snapshot, ArchiveError> {
        if from.ledger.claim.as_ref().is_some_and(|claim| claim.owner != ours.owner) {
            info!(objects = ours.objects.len(), "finishing what a run left behind");
        }
        let Swap::Done(held) = self.swap(from, from.ledger.with_claim(ours)).await? else {
            return Box::pin(self.open()).await;
        };
        let mut ledger = held.ledger.clone();
        let mut found = Vec::new();
        for object in held.ledger.claim.iter().flat_map(|claim| &claim.objects) {
            found.extend(self.settle_object(object, &mut ledger).await?);
        }
        self.count_claimed(held.ledger.claim.as_ref(), &mut ledger).await?;
        ledger.claim = None;
        ledger.forget_oldest_outside_window();
        let stale = match ledger.lineage.unwritten().cloned() {
            // Another record has its number, so what it names goes into the next one.
            Some(last) if !found.is_empty() && !self.flush_journal(&ledger.lineage).await? => last.objects,
            _ => Vec::new(),
        };
        found.extend(stale);
        ledger.commit(CommitKind::Run, &self.liveness.name(), self.now().timestamp(), found);
        match self.swap(&held, ledger).await? {
            Swap::Done(free) => Ok(*free),
            Swap::Lost => Box::pin(self.open()).await,
        }
    }

    /// Counts the objects of a claim, where their days hold nothing else that the ledger does not know. Otherwise the
    /// tally stays as it was, so that the day is compared: an object may have been counted before, if another run of the
    /// same second took its name, or the ledger may be older than the objects.
    async fn count_claimed(&self, claim: Option<&Claim>, ledger: &mut Ledger) -> Result<(), ArchiveError> {
        let keys: BTreeSet<&str> =
            claim.into_iter().flat_map(|claim| &claim.objects).map(|object| object.key.as_str()).collect();
        let own = keys.iter().filter(|key| Place::of(key).is_some());
        for prefix in own.map(|key| prefix_of(key)).collect::<BTreeSet<&str>>() {
            let listed = self.store.list(prefix).await?;
            let (_, others): (Vec<Listed>, Vec<Listed>) =
                listed.iter().cloned().partition(|object| keys.contains(object.key.as_str()));
            if ledger.expected(prefix) == Some(tally_of(&others)) {
                ledger.tallies.insert(prefix.to_owned(), tally_of(&listed));
            }
        }
        Ok(())
    }

    /// Fences an object, and remembers what it holds. How a commit names it, if the run that claimed it wrote it.
    pub(crate) async fn settle_object(
        &self,
        object: &ClaimedObject,
        ledger: &mut Ledger,
    ) -> Result<Option<CommittedObject>, ArchiveError> {
        let (Ok(key), Some(place)) = (Key::new(object.key.as_str()), Place::of(&object.key)) else {
            warn!(key = %object.key, "a claim names an object that no archive has; it is passed over");
            return Ok(None);
        };
        let bytes = self.fence(&key).await?.unwrap_or_default();
        if bytes.is_empty() {
            return Ok(None);
        }
        let ids: BTreeSet<EventId> = match place.kind {
            Kind::Events | Kind::Revisions => events_of(&key, &bytes).iter().map(|event| event.id).collect(),
            Kind::Rejected => BTreeSet::new(),
            Kind::Withdrawn => {
                let (gone, back) = withdrawn_in(&bytes);
                gone.into_iter().chain(back).collect()
            }
        };
        let is_of_claim = (object.ids.is_empty() && object.fingerprints.is_empty())
            || (ids == object.ids.iter().copied().collect()
                && rejected_in(&bytes).collect::<BTreeSet<_>>()
                    == object.fingerprints.iter().copied().collect());
        match place.kind {
            Kind::Events => {
                for event in events_of(&key, &bytes) {
                    ledger.remember(event);
                }
            }
            // What the object holds counts, not what the claim announced: another run may have taken the name before.
            Kind::Rejected => ledger.extend_rejected(rejected_in(&bytes), &FxHashSet::default()),
            // A stored revision is recognised when its event is looked at again.
            Kind::Revisions => {}
            Kind::Withdrawn => {
                let (gone, back) = withdrawn_in(&bytes);
                ledger.note_withdrawn(&gone, &back);
            }
        }
        Ok(is_of_claim.then(|| committed(&key, &bytes)))
    }

    /// Makes sure that an object exists, so that no process can create it any more. Its content, if it had
    /// been written before.
    pub(crate) async fn fence(&self, key: &Key) -> Result<Option<Vec<u8>>, ArchiveError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.store.create(key, b"").await {
                Ok(Write::Done(_)) => return Ok(None),
                Ok(Write::Refused) => break,
                Err(error) if error.outcome_unknown && tries < TRIES => {
                    warn!(%error, "the answer to a write was lost; asking again");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.store.get(key).await?.map(|object| object.bytes))
    }
}

pub(crate) fn withdrawn_in(bytes: &[u8]) -> (Vec<i64>, Vec<i64>) {
    let lines = bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let (back, gone): (Vec<WithdrawnLine>, Vec<WithdrawnLine>) =
        lines.partition(|line: &WithdrawnLine| line.returned.is_some());
    let ids = |lines: Vec<WithdrawnLine>| lines.into_iter().map(|line| line.id).collect();
    (ids(gone), ids(back))
}
