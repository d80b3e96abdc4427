//! Makes a replica the archive that accepts runs.
//!
//! The order matters: first the replica is held against its ledger; then the old primary is fenced, where it can be reached; then
//! what it still had is copied; then the claim in the ledger of the replica is taken, after which no update can begin; then what
//! was on its way is fenced; and only the last step removes the role that makes runs refuse. Whatever moment it stops at, it may
//! be started again.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use tracing::{info, warn};

use super::role::{Duty, Role, role_key};
use super::{ATTEMPTS, Mirror, MirrorError, MirrorOptions};
use crate::archive::journal::sequence_of;
use crate::archive::ledger_file::{Snapshot, Swap};
use crate::archive::owner::ActiveRun;
use crate::archive::{Archive, ArchiveError, Place};
use crate::event::EventId;
use crate::ledger::{Claim, CommitKind, Ledger, Replica};
use crate::store::{Key, SharedStore};
use crate::text::printable;

/// What became of the old primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
pub enum OldPrimary {
    /// It accepts no runs any more.
    Fenced,
    /// It could not be fenced. If it is at work, both archives collect until it reaches this one, or until they are reconciled.
    NotFenced(String),
    /// Its location is not known, or it was not looked for.
    NotSought,
}

/// What a promotion did, and from which moment the archive continues.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Adoption {
    /// The location of the archive that accepts runs now.
    pub store: String,
    /// The id of the archive.
    pub archive: String,
    /// Its epoch.
    pub epoch: u64,
    /// Whether it accepted runs before.
    pub was_primary: bool,
    /// The location of the old primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_primary: Option<String>,
    /// What became of it.
    pub fence: OldPrimary,
    /// Objects that were copied from it now.
    pub copied: usize,
    /// Objects of the old primary that were not copied, because others have their names here.
    pub conflicts: usize,
    /// The last commit of the archive.
    pub sequence: u64,
    /// The recovery point: when the last commit before the promotion was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<DateTime<Utc>>,
    /// When the replica was last found to hold everything that the old primary had committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirrored_at: Option<DateTime<Utc>>,
    /// The last event that it knows, by day and id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event: Option<(NaiveDate, EventId)>,
}

/// Promotes the replica in `target`. `source` is its old primary, if that can be opened; `force` accepts a copy that is not complete.
///
/// # Errors
/// [`MirrorError`] if the target is not a replica, or its store fails. It is still a replica then, and may be promoted again.
pub async fn adopt(
    target: &Archive,
    source: Option<&Archive>,
    epoch_store: Option<&SharedStore>,
    force: bool,
) -> Result<Adoption, MirrorError> {
    let role = Role::read(target.store()).await?;
    let Some(found) = target.stored_snapshot().await? else {
        let location = target.store().location();
        return Err(match role {
            Some(_) => MirrorError::IncompleteCopy(location),
            None => MirrorError::NotAReplica(location),
        });
    };
    let primary = target.store().identity();
    let mirrored_at = role.as_ref().filter(|role| role.role == Duty::Replica).map(|role| role.at);
    let mut adoption = Adoption {
        store: target.store().location(),
        archive: found.ledger.lineage.archive.clone(),
        epoch: found.ledger.lineage.epoch,
        was_primary: found.ledger.replica.is_none(),
        old_primary: role.and_then(|role| role.source),
        fence: OldPrimary::NotSought,
        copied: 0,
        conflicts: 0,
        sequence: 0,
        committed_at: None,
        mirrored_at,
        last_event: None,
    };
    let Some(replica) = &found.ledger.replica else {
        if adoption.old_primary.is_none() {
            return Err(MirrorError::NotAReplica(adoption.store));
        }
        if let Some(source) = source {
            adoption.fence = try_fence(source, &found.ledger, found.ledger.lineage.epoch, &primary).await?;
        }
        return finish(target, &found.ledger, adoption, epoch_store).await;
    };
    if !force && (!replica.complete || replica.rejoining.is_some()) {
        return Err(MirrorError::IncompleteCopy(adoption.store));
    }
    let mut epoch = found.ledger.lineage.epoch.max(replica.epoch) + 1;
    adoption.old_primary = Some(replica.primary.clone());
    // The old primary is not fenced for a replica that lacks something, or cannot be written.
    if !force {
        target.compare(&found.ledger.without_claim(), false).await?;
    }
    target.swap(&found, found.ledger.clone()).await?;
    if let Some(source) = source {
        epoch = epoch.max(epoch_of(source).await + 1);
        adoption.fence = try_fence(source, &found.ledger, epoch, &primary).await?;
        if adoption.fence == OldPrimary::Fenced {
            (adoption.copied, adoption.conflicts) = catch_up(source, target, epoch).await;
        }
    }
    let (ledger, covered_at) = promote(target, epoch, force).await?;
    adoption.committed_at = covered_at;
    finish(target, &ledger, adoption, epoch_store).await
}

/// States the role and the epoch where others look for them.
async fn finish(
    target: &Archive,
    ledger: &Ledger,
    mut adoption: Adoption,
    epoch_store: Option<&SharedStore>,
) -> Result<Adoption, MirrorError> {
    let lineage = &ledger.lineage;
    (adoption.epoch, adoption.sequence) = (lineage.epoch, lineage.sequence());
    let last_commit_at = ledger.last_commit_at();
    adoption.committed_at = adoption.committed_at.or(last_commit_at);
    adoption.last_event = ledger.iter().filter_map(|(id, seen)| Some((seen.day?, id))).max();
    let role = Role {
        role: Duty::Primary,
        archive: lineage.archive.clone(),
        epoch: lineage.epoch,
        primary: target.store().identity(),
        source: adoption.old_primary.clone(),
        at: target.now(),
        sequence: lineage.sequence(),
        committed_at: last_commit_at,
    };
    role.publish(target.store()).await?;
    if let Some(store) = epoch_store {
        role.publish(store).await?;
    }
    Ok(adoption)
}

/// The latest epoch that a store knows of; 0 if it cannot be read.
async fn epoch_of(archive: &Archive) -> u64 {
    let Ok(Some(found)) = archive.stored_snapshot().await else { return 0 };
    let followed = found.ledger.replica.map_or(0, |replica| replica.epoch);
    found.ledger.lineage.epoch.max(followed)
}

/// Fences the old primary, if it can be reached and no later promotion is under way.
async fn try_fence(
    source: &Archive,
    ledger: &Ledger,
    epoch: u64,
    primary: &str,
) -> Result<OldPrimary, MirrorError> {
    match fence(source, &ledger.lineage.archive, epoch, primary).await {
        Ok(_) => Ok(OldPrimary::Fenced),
        Err(error @ MirrorError::LaterEpoch { .. }) => Err(error),
        Err(error) => {
            warn!(%error, "the old primary could not be fenced");
            Ok(OldPrimary::NotFenced(printable(error.to_string()).to_string()))
        }
    }
}

/// Makes an archive follow `primary`, so that it accepts no runs. A run that is at work there fails: what it claimed is fenced.
pub(super) async fn fence(
    archive: &Archive,
    expected: &str,
    epoch: u64,
    primary: &str,
) -> Result<Snapshot, MirrorError> {
    let location = || archive.store().location();
    let run = ActiveRun::begin(archive.now());
    for _ in 0..ATTEMPTS {
        let found = archive.stored_snapshot().await?.ok_or_else(|| MirrorError::NoArchive(location()))?;
        let Ledger { lineage, replica, claim, .. } = &found.ledger;
        if lineage.archive != expected {
            let (found, expected) = (lineage.archive.clone(), expected.to_owned());
            return Err(MirrorError::OtherArchive { location: location(), found, expected });
        }
        let fenced_for = replica.as_ref().filter(|it| it.primary == primary).map(|it| it.epoch);
        if fenced_for >= Some(epoch) && claim.as_ref().is_none_or(is_of_update) {
            return Ok(found);
        }
        let found_epoch = replica.as_ref().map_or(lineage.epoch, |it| it.epoch);
        if fenced_for.is_none() && found_epoch >= epoch {
            // Another promotion, which is under way or done, has a later epoch.
            let found = found_epoch;
            return Err(MirrorError::LaterEpoch { location: location(), found, epoch });
        }
        let mut ledger = found.ledger.without_claim();
        let rejoining = replica.as_ref().and_then(|replica| replica.rejoining.clone());
        let complete = replica.as_ref().is_none_or(|replica| replica.complete);
        let epoch = epoch.max(fenced_for.unwrap_or_default());
        ledger.replica = Some(Replica { primary: primary.to_owned(), epoch, complete, rejoining });
        ledger.claim = claim.clone().map(|claim| archive.claim_of_run(&run, claim.objects));
        let Swap::Done(held) = archive.swap(&found, ledger).await? else { continue };
        let Some(claim) = held.ledger.claim.clone().filter(|claim| !is_of_update(claim)) else {
            return Ok(*held);
        };
        // With the role in its ledger no run begins, and with the claim taken none commits.
        let finished = archive.finish(&held, archive.claim_of_run(&run, claim.objects)).await;
        match finished {
            Ok(free) => return Ok(free),
            Err(ArchiveError::Replica { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(MirrorError::Interrupted)
}

/// Whether a claim is that of an update of a replica. Its objects do not belong to a commit of this archive.
pub(super) fn is_of_update(claim: &Claim) -> bool {
    claim.objects.iter().any(|object| object.key == role_key().as_str())
}

/// Copies what the old primary still has. Number of objects, and of those that could not be copied because of a conflict.
async fn catch_up(source: &Archive, target: &Archive, epoch: u64) -> (usize, usize) {
    let options = MirrorOptions::default();
    let mirror = Mirror { fenced_with: Some(epoch), ..Mirror::new(source.clone(), target.clone(), options) };
    match mirror.update(|_| {}).await {
        Ok(report) => {
            if !report.is_complete() {
                warn!(
                    conflicts = report.conflicts_total,
                    "not everything could be copied from the old primary"
                );
            }
            (report.objects, report.conflicts_total)
        }
        Err(error) => {
            warn!(%error, "what the old primary still has could not be copied; reconcile later");
            (0, 0)
        }
    }
}

/// Takes the replica over from its updates, fences what they were writing, and lets runs begin.
///
/// Returns the ledger, and when the last commit before the promotion was made.
async fn promote(
    target: &Archive,
    epoch: u64,
    force: bool,
) -> Result<(Ledger, Option<DateTime<Utc>>), MirrorError> {
    let run = ActiveRun::begin(target.now());
    for _ in 0..ATTEMPTS {
        let Some(found) = target.stored_snapshot().await? else { return Err(MirrorError::Interrupted) };
        let Some(replica) = found.ledger.replica.clone() else {
            return Ok((found.ledger, None));
        };
        if replica.epoch >= epoch {
            // A promotion in the other direction has fenced this archive meanwhile.
            let (location, found) = (target.store().location(), replica.epoch);
            return Err(MirrorError::LaterEpoch { location, found, epoch });
        }
        if found.ledger.lineage.epoch > epoch {
            // A later promotion of this archive has taken over. Its epoch may be known elsewhere.
            return Err(MirrorError::Interrupted);
        }
        if replica.rejoining.is_some() && !force {
            // A reconciliation has begun meanwhile.
            return Err(MirrorError::IncompleteCopy(target.store().location()));
        }
        let objects = found.ledger.claim.iter().flat_map(|claim| claim.objects.clone()).collect();
        let mut ledger = found.ledger.with_claim(target.claim_of_run(&run, objects));
        ledger.lineage.epoch = epoch;
        let Swap::Done(held) = target.swap(&found, ledger).await? else { continue };
        settle(target, &held.ledger).await?;
        let before = held.ledger.without_claim();
        let healed = if replica.complete {
            match target.reconciled(before.clone()).await {
                Err(ArchiveError::Incomplete { .. }) if force => target.rebuild_after(&before).await?,
                healed => healed?,
            }
        } else {
            target.rebuild_after(&before).await?
        };
        let mut ledger = healed;
        let covered_at = ledger.last_commit_at();
        ledger.lineage.epoch = epoch;
        if !target.flush_journal(&ledger.lineage).await? {
            return Err(MirrorError::Interrupted);
        }
        ledger.lineage.append(CommitKind::Adopt, run.name(), target.now().timestamp(), Vec::new());
        ledger.replica = None;
        match target.swap(&held, ledger).await? {
            Swap::Done(free) => {
                info!(epoch, sequence = free.ledger.lineage.sequence(), "this archive accepts runs now");
                return Ok((free.ledger, covered_at));
            }
            Swap::Lost => {}
        }
    }
    Err(MirrorError::Interrupted)
}

/// Makes sure that nothing which an update claimed can arrive any more: each object exists, and each number of the journal is
/// taken.
async fn settle(target: &Archive, ledger: &Ledger) -> Result<(), MirrorError> {
    for object in ledger.claim.iter().flat_map(|claim| &claim.objects) {
        let Ok(key) = Key::new(object.key.as_str()) else { continue };
        if Place::of(&object.key).is_some() {
            target.fence(&key).await?;
        } else if let Some(sequence) = sequence_of(&key) {
            target.fill_gaps(&ledger.lineage, &[sequence]).await?;
        }
    }
    Ok(())
}
