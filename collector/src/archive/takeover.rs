//! Finishes what a dead run claimed, and does nothing else.
//!
//! Each name it claimed is created empty if it is not there yet. After that the dead run can write it no
//! more, should it wake up, and what is there counts as stored. What was not there is new again for the
//! run that follows.

use tracing::{info, warn};

use super::layout::{Kind, Place};
use super::ledger_file::{Snapshot, Swap, TRIES, events_of};
use super::owner::ActiveRun;
use super::partition::{WithdrawnLine, rejected_in};
use super::{Archive, ArchiveError};
use crate::ledger::{Claim, ClaimedObject, Ledger};
use crate::store::{Key, Write};

impl Archive {
    /// Whether a claim may be finished by us: its time is over, its process is gone, or it is our own,
    /// left behind by an answer that was lost.
    pub(super) fn may_take_over(&self, claim: &Claim, own: &ActiveRun) -> bool {
        let left_behind = claim.owner == self.liveness.name() && !own.is_another(&claim.run);
        left_behind || claim.is_over(self.clock.now()) || self.liveness.is_gone(&claim.owner)
    }

    /// A claim of this process that begins now.
    pub(super) fn claim_of_run(&self, run: &ActiveRun, objects: Vec<ClaimedObject>) -> Claim {
        let until = (self.clock.now() + self.options.lease).timestamp();
        Claim { run: run.name().to_owned(), owner: self.liveness.name(), until, objects }
    }

    /// Finishes a claim. The snapshot that comes back has none, or was written by somebody else.
    ///
    /// `ours` names the same objects as the claim that was found, but us as the owner.
    pub(super) async fn finish(&self, from: &Snapshot, ours: Claim) -> Result<Snapshot, ArchiveError> {
        info!(objects = ours.objects.len(), "finishing what a run left behind");
        let Swap::Done(held) = self.swap(from, from.ledger.with_claim(ours)).await? else {
            return self.open().await;
        };
        let mut ledger = held.ledger.clone();
        for object in held.ledger.claim.iter().flat_map(|claim| &claim.objects) {
            self.settle_object(object, &mut ledger).await?;
        }
        ledger.claim = None;
        ledger.forget_oldest_outside_window();
        match self.swap(&held, ledger).await? {
            Swap::Done(free) => Ok(*free),
            Swap::Lost => self.open().await,
        }
    }

    async fn settle_object(&self, object: &ClaimedObject, ledger: &mut Ledger) -> Result<(), ArchiveError> {
        let (Ok(key), Some(place)) = (Key::new(object.key.as_str()), Place::of(&object.key)) else {
            warn!(key = %object.key, "a claim names an object that no archive has; it is passed over");
            return Ok(());
        };
        let Some(bytes) = self.fence(&key).await? else { return Ok(()) };
        match place.kind {
            Kind::Events => {
                for event in events_of(&key, &bytes) {
                    ledger.remember(event);
                }
            }
            // What the object holds counts, not what the claim announced: another run may have taken the name before.
            Kind::Rejected => ledger.extend_rejected(rejected_in(&bytes)),
            // A stored revision is recognised when its event is looked at again.
            Kind::Revisions => {}
            Kind::Withdrawn => {
                let (gone, back) = withdrawn_in(&bytes);
                ledger.note_withdrawn(&gone, &back);
            }
        }
        Ok(())
    }

    /// Sees to it that an object exists and so can be created by nobody any more. Its content, if it had
    /// been written before.
    async fn fence(&self, key: &Key) -> Result<Option<Vec<u8>>, ArchiveError> {
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

fn withdrawn_in(bytes: &[u8]) -> (Vec<i64>, Vec<i64>) {
    let lines = bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let (back, gone): (Vec<WithdrawnLine>, Vec<WithdrawnLine>) =
        lines.partition(|line: &WithdrawnLine| line.returned.is_some());
    let ids = |lines: Vec<WithdrawnLine>| lines.into_iter().map(|line| line.id).collect();
    (ids(gone), ids(back))
}
