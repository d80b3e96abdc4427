//! Keeps a replica of an archive in another store, and changes which of them accepts runs.
//!
//! [`Mirror::update`] copies what the journal of the source names: objects first, then the records that name them, then the ledger that
//! covers them. It works under a claim in the ledger of the replica, as a run does, so that whoever promotes the replica can fence
//! what is on its way. [`adopt`](adopt::adopt) promotes, [`Mirror::reconcile`] brings together what both have stored
//! after a split. Must not: interpret events, know the command line, overwrite an object that it does not understand.
//! Why this is enough: `docs/decisions/0016-second-region.md`.

pub mod adopt;
mod copy;
mod rate;
pub mod reconcile;
pub mod role;
mod session;
pub mod state;
mod verification;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use thiserror::Error;

use self::adopt::{fence, is_of_update};
use self::role::{Duty, Role};
use self::session::{Ended, Session};
use crate::archive::ledger_file::{Snapshot, Swap};
use crate::archive::owner::ActiveRun;
use crate::archive::{Archive, ArchiveError};
use crate::ledger::{Descent, Ledger, Lineage, Replica};
use crate::store::{PageStart, StoreError};
use crate::text::printable;

/// How often an update starts over because the archives changed meanwhile.
const ATTEMPTS: usize = 8;
/// Maximum number of conflicts that are reported one by one.
const MOST_CONFLICTS: usize = 1_000;

/// How a replica is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MirrorOptions {
    /// Maximum number of bytes that are copied in a second.
    pub max_rate: Option<u64>,
    /// Whether all objects are compared, also those that were copied before.
    pub verify: bool,
}

/// An object that is not what it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The name of the object.
    pub object: String,
    /// What is wrong.
    pub problem: String,
}

/// What an update did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MirrorReport {
    /// The location of the archive that was copied.
    pub source: String,
    /// The location of the replica.
    pub target: String,
    /// The id of the archive.
    pub archive: String,
    /// The epoch of the archive.
    pub epoch: u64,
    /// The last commit of the source.
    pub source_sequence: u64,
    /// The last commit that the replica covers now.
    pub sequence: u64,
    /// When that was committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<DateTime<Utc>>,
    /// Objects that were written.
    pub objects: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// Objects that were there already, with the content of the source.
    pub present: usize,
    /// Objects that were replaced, as the journal of the source states.
    pub replaced: usize,
    /// Objects that were compared because that was asked for.
    pub verified: usize,
    /// Objects of commits that the replica does not cover.
    pub behind_objects: usize,
    /// Who is at work on the replica, if it was left to that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_to: Option<String>,
    /// Number of objects that are not what they have to be.
    pub conflicts_total: usize,
    /// These objects, at most 1,000 of them.
    pub conflicts: Vec<Conflict>,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
}

impl MirrorReport {
    /// Whether the replica holds all that the source had committed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.conflicts_total == 0 && self.left_to.is_none()
    }

    fn blame(&mut self, object: &str, problem: impl Into<String>) {
        self.conflicts_total += 1;
        if self.conflicts.len() < MOST_CONFLICTS {
            self.conflicts.push(Conflict { object: object.to_owned(), problem: problem.into() });
        }
    }
}

/// Why a replica was not updated, or a role not changed. Nothing was changed then, except for objects that are as they have to be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// An archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A store refused or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Both addresses are one.
    #[error("the source and the target are the same store: {0}")]
    SameStore(String),
    /// There is nothing to copy.
    #[error("there is no archive in {0}")]
    NoArchive(String),
    /// The source was last written by a version without a journal.
    #[error("the archive in {0} has no journal yet; the next run of `collector run` begins it")]
    NoJournal(String),
    /// The source follows another archive.
    #[error("{location} is not the primary: it follows {primary}")]
    SourceFollows {
        /// The source.
        location: String,
        /// What it follows.
        primary: String,
    },
    /// The target holds something else.
    #[error("{location} is not empty and not a replica: it holds {object}")]
    NotEmpty {
        /// The target.
        location: String,
        /// An object that it holds.
        object: String,
    },
    /// The target holds another archive.
    #[error("{location} holds archive {found}, and the source is archive {expected}")]
    OtherArchive {
        /// The target.
        location: String,
        /// The archive that it holds.
        found: String,
        /// The archive of the source.
        expected: String,
    },
    /// The target accepts runs.
    #[error("{location} is not a replica: it accepts runs itself (epoch {epoch}, commit {sequence})")]
    TargetIsPrimary {
        /// The target.
        location: String,
        /// Its epoch.
        epoch: u64,
        /// Its last commit.
        sequence: u64,
    },
    /// The target has a later epoch.
    #[error("{location} is of epoch {found}, and the source of epoch {epoch}: the source was taken over")]
    LaterEpoch {
        /// The target.
        location: String,
        /// Its epoch.
        found: u64,
        /// The epoch of the source.
        epoch: u64,
    },
    /// The target holds commits that the source does not have.
    #[error("{location} is at commit {found}, and the source at commit {last}: was the source restored?")]
    SourceIsBehind {
        /// The target.
        location: String,
        /// Its last commit.
        found: u64,
        /// The last commit of the source.
        last: u64,
    },
    /// Both have commits that the other does not have.
    #[error("commit {sequence} of {location} is not part of the history of the source")]
    Diverged {
        /// The target.
        location: String,
        /// The last commit of the target.
        sequence: u64,
    },
    /// The source has objects that its journal does not name, or lacks some that its ledger vouches for.
    #[error(
        "the ledger of {location} does not agree with its objects in {day}; nothing was published to the replica"
    )]
    SourceDisagrees {
        /// The source.
        location: String,
        /// The folder of a day.
        day: String,
    },
    /// The target is being brought together with its primary.
    #[error("{0} is being reconciled; `collector mirror --reconcile` finishes that")]
    Rejoining(String),
    /// What is to be promoted is not a copy of a whole archive.
    #[error("{0} was never copied completely")]
    IncompleteCopy(String),
    /// The target is not a replica.
    #[error("{0} is not a replica: there is nothing to adopt")]
    NotAReplica(String),
    /// Both archives changed again and again.
    #[error("the archives changed again and again meanwhile; start again")]
    Interrupted,
}

impl MirrorError {
    /// What to do about it, where that helps.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::SourceFollows { .. } | Self::TargetIsPrimary { .. } => {
                "are --store and --to exchanged? After a fail-over, use --reconcile"
            }
            Self::LaterEpoch { .. } => {
                "if a promotion was broken off, finish it with `collector adopt`; then stop the collector of the source, and copy in the other direction with `collector mirror --reconcile`"
            }
            Self::Diverged { .. } => "after a split, `collector mirror --reconcile` brings both together",
            Self::NotEmpty { .. } | Self::OtherArchive { .. } => "name an empty folder or prefix",
            Self::SourceDisagrees { .. } => {
                "the next run of the source may make it agree; otherwise `collector verify`, then `collector repair`"
            }
            Self::IncompleteCopy(_) => {
                "complete it with `collector mirror`, or with `--reconcile` if that was broken off; with --force, what is there is used"
            }
            Self::Archive(ArchiveError::Incomplete { .. }) => {
                "in a replica, `collector mirror --verify` copies lost objects again; `adopt --force` uses what is there"
            }
            Self::SourceIsBehind { .. } => {
                "after a split, `collector mirror --reconcile` brings both together; otherwise `collector verify` on both shows which one is complete"
            }
            _ => return None,
        })
    }
}

/// A replica of an archive, and the archive that it follows.
#[derive(Debug, Clone)]
pub struct Mirror {
    source: Archive,
    target: Archive,
    options: MirrorOptions,
    /// The epoch with which the source was just fenced, so that the target can be promoted.
    fenced_with: Option<u64>,
    /// Whether the target is brought together with the source after a split.
    rejoins: bool,
}

/// Why an attempt did not come to an end.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// The ledger of an archive changed.
    Changed,
    Failed(MirrorError),
}

impl<E: Into<MirrorError>> From<E> for Interruption {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Mirror {
    /// A replica of `source` in the store of `target`.
    #[must_use]
    pub fn new(source: Archive, target: Archive, options: MirrorOptions) -> Self {
        Self { source, target, options, fenced_with: None, rejoins: false }
    }

    /// The archive that is copied.
    #[must_use]
    pub fn source(&self) -> &Archive {
        &self.source
    }

    /// The replica.
    #[must_use]
    pub fn target(&self) -> &Archive {
        &self.target
    }

    /// Brings the replica up to the last commit of the source. `progress` receives the number of objects that were dealt with.
    ///
    /// # Errors
    /// [`MirrorError`] if the target is not a replica of the source, or a store fails. The replica is sound all the same, and the
    /// next update continues.
    pub async fn update(
        &self,
        mut progress: impl FnMut(usize) + Send + Sync,
    ) -> Result<MirrorReport, MirrorError> {
        let (source, target) = (self.source.store(), self.target.store());
        if source.identity() == target.identity() {
            return Err(MirrorError::SameStore(source.location()));
        }
        let began = self.target.clock().elapsed();
        let run = ActiveRun::begin(self.target.now());
        let mut report =
            MirrorReport { source: source.location(), target: target.location(), ..MirrorReport::default() };
        for _ in 0..ATTEMPTS {
            match Box::pin(self.attempt(&run, &mut report, &mut progress)).await {
                Ok(()) => {
                    report.elapsed_s = self.target.clock().since(began).as_secs_f64();
                    return Ok(report);
                }
                Err(Interruption::Changed) => {}
                Err(Interruption::Failed(error)) => return Err(error),
            }
        }
        Err(MirrorError::Interrupted)
    }

    async fn attempt(
        &self,
        run: &ActiveRun,
        report: &mut MirrorReport,
        progress: &mut (impl FnMut(usize) + Send + Sync),
    ) -> Result<(), Interruption> {
        let source = self.read_source().await?;
        report.archive.clone_from(&source.lineage.archive);
        (report.epoch, report.source_sequence) = (source.lineage.epoch, source.lineage.sequence());
        let held = self.read_target(&source).await?;
        report.sequence = held.ledger.lineage.sequence();
        if let Some(claim) = held.ledger.claim.as_ref().filter(|claim| !self.target.may_take_over(claim, run))
        {
            report.left_to = Some(printable(&claim.owner).to_string());
            return Ok(());
        }
        report.left_to = None;
        if held.ledger.claim.as_ref().is_some_and(|claim| !is_of_update(claim)) {
            // A run had begun before the target was fenced. What it stored is part of no other history.
            let (archive, epoch) = (&source.lineage.archive, source.lineage.epoch);
            fence(&self.target, archive, epoch, &self.source.store().identity()).await?;
            return Err(Interruption::Changed);
        }
        let mut session = Session::new(self, run, source, held, report, progress);
        if session.copy().await? == Ended::Complete && self.options.verify {
            Box::pin(self.verify(report, progress)).await?;
        }
        Ok(())
    }

    /// The ledger of the source.
    async fn read_source(&self) -> Result<Ledger, MirrorError> {
        let location = || self.source.store().location();
        let Some((ledger, _)) = self.source.peek_ledger().await? else {
            return Err(match self.source.store().get(&crate::archive::ledger_key()).await? {
                Some(_) => MirrorError::NoJournal(location()),
                None => MirrorError::NoArchive(location()),
            });
        };
        if let Some(replica) = ledger.replica.as_ref().filter(|_| self.fenced_with.is_none()) {
            return Err(MirrorError::SourceFollows {
                location: location(),
                primary: replica.primary.clone(),
            });
        }
        if !ledger.lineage.is_known() {
            return Err(MirrorError::NoJournal(location()));
        }
        Ok(ledger)
    }

    /// The ledger of the target, which is a replica of the source; begins one in an empty store.
    async fn read_target(&self, source: &Ledger) -> Result<Snapshot, Interruption> {
        let location = || self.target.store().location();
        let Some(held) = self.target.stored_snapshot().await? else {
            return self.begin_replica(source).await;
        };
        let (lineage, expected) = (&held.ledger.lineage, &source.lineage);
        if lineage.archive != expected.archive {
            let (found, expected) = (lineage.archive.clone(), expected.archive.clone());
            return Err(MirrorError::OtherArchive { location: location(), found, expected }.into());
        }
        let Some(replica) = &held.ledger.replica else {
            let (epoch, sequence) = (lineage.epoch, lineage.sequence());
            return Err(MirrorError::TargetIsPrimary { location: location(), epoch, sequence }.into());
        };
        // Several promotions of the source may have fenced the target, each with a later epoch than the one before.
        let follows_source = replica.primary == self.source.store().identity();
        let found = if follows_source { lineage.epoch } else { lineage.epoch.max(replica.epoch) };
        let is_later = match self.fenced_with {
            Some(epoch) => lineage.epoch.max(replica.epoch) >= epoch,
            None => found > expected.epoch,
        };
        if is_later {
            let (location, epoch) = (location(), self.fenced_with.unwrap_or(expected.epoch));
            return Err(MirrorError::LaterEpoch { location, found, epoch }.into());
        }
        if replica.rejoining.is_some() && !self.rejoins {
            return Err(MirrorError::Rejoining(location()).into());
        }
        self.require_descent(lineage, expected).await?;
        Ok(held)
    }

    /// Fails unless the last commit of the target is part of the history of the source.
    async fn require_descent(&self, target: &Lineage, source: &Lineage) -> Result<(), MirrorError> {
        let (location, mark) = (self.target.store().location(), target.mark());
        if mark.sequence > source.sequence() {
            let (found, last) = (mark.sequence, source.sequence());
            return Err(MirrorError::SourceIsBehind { location, found, last });
        }
        let is_part = match source.descends_from(&mark) {
            Descent::Descends => true,
            Descent::Diverged => false,
            Descent::Unknown => {
                let record = self.source.record_at(mark.sequence).await?;
                record.is_some_and(|record| record.commit == mark.commit)
            }
        };
        if is_part { Ok(()) } else { Err(MirrorError::Diverged { location, sequence: mark.sequence }) }
    }

    /// Begins a replica in an empty store: first its role, then a ledger that vouches for nothing.
    async fn begin_replica(&self, source: &Ledger) -> Result<Snapshot, Interruption> {
        let store = self.target.store();
        let role = self.role(source, 0);
        // Looked for before the role, which comes first: what another update begins meanwhile is not taken for something else.
        let object = self.first_object().await?;
        let found = match (Role::read(store).await?, object) {
            (Some(found), _) => found,
            (None, Some(object)) => {
                return Err(MirrorError::NotEmpty { location: store.location(), object }.into());
            }
            (None, None) if role.create(store).await? => role.clone(),
            (None, None) => return Err(Interruption::Changed),
        };
        if found.archive != role.archive || found.role != Duty::Replica {
            let (found, expected) = (found.archive, role.archive);
            return Err(MirrorError::OtherArchive { location: store.location(), found, expected }.into());
        }
        let mut ledger = Ledger::vouching_for_nothing();
        ledger.lineage = Lineage::up_to(source.lineage.archive.clone(), source.lineage.epoch, None);
        ledger.replica = Some(self.replica(source.lineage.epoch, false));
        self.target.trust_store(&mut ledger).await?;
        let absent = self.target.absent_ledger();
        match self.target.swap(&absent, ledger).await? {
            Swap::Done(held) => Ok(*held),
            Swap::Lost => Err(Interruption::Changed),
        }
    }

    /// The name of something that the target holds.
    async fn first_object(&self) -> Result<Option<String>, StoreError> {
        let page = self.target.store().list_page("", &PageStart::First).await?;
        let found = page.objects.first().map(|listed| listed.key.to_string());
        Ok(found.or_else(|| page.foreign.first().map(|foreign| foreign.name.clone())))
    }

    fn replica(&self, epoch: u64, complete: bool) -> Replica {
        Replica { primary: self.source.store().identity(), epoch, complete, rejoining: None }
    }

    fn role(&self, source: &Ledger, sequence: u64) -> Role {
        let primary = self.source.store().identity();
        Role {
            role: Duty::Replica,
            archive: source.lineage.archive.clone(),
            epoch: source.lineage.epoch,
            source: Some(primary.clone()),
            primary,
            at: self.target.now(),
            sequence,
            committed_at: source.last_commit_at().filter(|_| sequence == source.lineage.sequence()),
        }
    }
}

impl Ledger {
    /// When the last commit was made.
    pub(crate) fn last_commit_at(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.lineage.last.as_ref()?.committed_at, 0)
    }
}

/// How long a claim may be worked on before it has to be renewed.
fn third(lease: Duration) -> Duration {
    lease / 3
}
