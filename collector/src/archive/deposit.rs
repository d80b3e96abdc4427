//! Claim, write, commit: how what is new in a response gets into the archive exactly once.
//!
//! 1. *Claim*: swap the ledger, only if it is still the one that was read, for one that also names the run
//!    and the objects it is about to write. A living claim of another run: leave.
//! 2. *Write*: create each object, only if there is none of its name.
//! 3. *Commit*: swap again, with the events remembered and without the claim.
//!
//! Whoever meets a conflict, or an answer that cannot be settled, reads the ledger and starts over; what was
//! stored is found. Why this is enough: `docs/decisions/0003-claim-write-commit.md`.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustc_hash::FxHashSet;
use tracing::{Instrument as _, debug, debug_span, info};

use super::commit::{Before, Begun, Committer, size_in_claim};
use super::layout::Kind;
use super::ledger_file::{Agreement, Snapshot, Swap};
use super::owner::ActiveRun;
use super::partition::{Draft, Names, drafts};
use super::{Archive, ArchiveError};
use crate::clock::iso;
use crate::event::{EventId, Response};
use crate::ledger::{Claim, Classification, Ledger, Tallies};
use crate::quantity::{Quantities, Quantity};
use crate::store::Key;

/// How often a run compares ledger and objects because a listing contradicts the ledger.
const CONTRADICTIONS: u32 = 3;

/// How a deposit ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Everything new is stored, durably.
    #[default]
    Stored,
    /// Another run is at work. The feed's buffer holds the events until the next run.
    LeftToAnother {
        /// Who, as its claim says.
        owner: String,
        /// When its claim ends.
        until: DateTime<Utc>,
    },
}

/// What a deposit did.
#[derive(Debug, Clone, Default)]
pub struct Deposit {
    /// How it ended.
    pub outcome: Outcome,
    /// What was measured and counted.
    pub quantities: Quantities,
    /// The objects written: name, size in bytes.
    pub objects: Vec<(Key, usize)>,
}

/// What another archive has stored of a response, beside its elements.
#[derive(Debug, Default)]
pub(crate) struct Absorbed {
    /// Events that vanished from the feed.
    pub(crate) withdrawn: Vec<EventId>,
    /// Events that were back.
    pub(crate) returned: Vec<EventId>,
    /// When the feed was looked at before.
    pub(crate) last_seen: String,
}

/// One deposit under way.
struct Run<'a> {
    /// What else is stored, if the response is what another archive has stored, and not an image of the feed.
    absorbed: Option<&'a Absorbed>,
    archive: &'a Archive,
    response: &'a Response<'a>,
    start: DateTime<Utc>,
    began: Duration,
    committer: Committer<'a>,
    names: Names,
    report: Deposit,
    planned: bool,
    /// Whether a listing or the journal contradicts the ledger.
    contradicted: bool,
    contradictions: u32,
    /// What the days held that were listed to look events up, since the ledger was read.
    listed: Tallies,
}

impl Archive {
    /// Stores what is new in `response`, beginning with a ledger that was read before.
    ///
    /// Returns what it did and the ledger as it left it.
    ///
    /// # Errors
    /// [`ArchiveError`] if not everything new is known to be stored. Nothing is stored twice all the same,
    /// and the next run takes up what is missing.
    pub async fn deposit(
        &self,
        response: &Response<'_>,
        snapshot: Snapshot,
        start: DateTime<Utc>,
    ) -> Result<(Deposit, Snapshot), ArchiveError> {
        self.begin_run(response, start, &snapshot, None).carry_out(snapshot).await
    }

    /// Stores what another archive has stored, as far as it is new here. The response says nothing about the feed.
    pub(crate) async fn absorb(
        &self,
        response: &Response<'_>,
        absorbed: &Absorbed,
        snapshot: Snapshot,
        start: DateTime<Utc>,
    ) -> Result<(Deposit, Snapshot), ArchiveError> {
        self.begin_run(response, start, &snapshot, Some(absorbed)).carry_out(snapshot).await
    }

    fn begin_run<'a>(
        &'a self,
        response: &'a Response<'a>,
        start: DateTime<Utc>,
        snapshot: &Snapshot,
        absorbed: Option<&'a Absorbed>,
    ) -> Run<'a> {
        Run {
            absorbed,
            archive: self,
            response,
            start,
            began: self.clock.elapsed(),
            committer: self.committer(start),
            names: Names::of_run(start),
            report: Deposit::new(&snapshot.ledger),
            planned: false,
            contradicted: false,
            contradictions: 0,
            listed: Tallies::new(),
        }
    }

    /// What a run that begins stores its objects with.
    pub(super) fn committer(&self, start: DateTime<Utc>) -> Committer<'_> {
        Committer { archive: self, active: ActiveRun::begin(start) }
    }
}

impl Run<'_> {
    async fn carry_out(mut self, mut snapshot: Snapshot) -> Result<(Deposit, Snapshot), ArchiveError> {
        loop {
            self.check_deadline()?;
            if let Some(claim) = snapshot.ledger.claim.clone() {
                if !self.archive.may_take_over(&claim, &self.committer.active) {
                    return Ok((self.left_to(&claim), snapshot));
                }
                let since = self.archive.clock.elapsed();
                let finished =
                    Box::pin(self.archive.finish(&snapshot, self.committer.claim_on(claim.objects.clone())));
                snapshot = finished.instrument(debug_span!("take_over")).await?;
                self.add_time(Quantity::Takeover, since);
                continue;
            }
            self.compare(&mut snapshot).await?;
            if snapshot.has_gone_back {
                self.report.quantities.set(Quantity::LedgerHealed, 1_usize);
            }
            if let Some(healing) = snapshot.healing.take() {
                if snapshot.ledger.lineage.is_known() {
                    self.report.quantities.set(Quantity::LedgerHealed, 1_usize);
                }
                let healed = Box::pin(self.archive.heal(snapshot, *healing, &self.committer.active)).await?;
                snapshot = match healed {
                    Some(healed) => healed,
                    None => Box::pin(self.archive.open()).await?,
                };
                continue;
            }
            let classified = self.classify(&snapshot.ledger).await?;
            let goal = classified.apply(self.response, &snapshot.ledger, self.start);
            if classified.is_empty() && goal.remembers_the_same(&snapshot.ledger) {
                return Ok(self.settled(snapshot));
            }
            let stored = Box::pin(self.store(&classified, goal, snapshot)).await?;
            match stored {
                Swap::Done(done) => return Ok(self.settled(*done)),
                Swap::Lost => {
                    debug!("the ledger changed meanwhile; starting over");
                    self.report.quantities.add(Quantity::LedgerConflicts, 1_usize);
                    snapshot = Box::pin(self.archive.open()).await?;
                }
            }
        }
    }

    fn add_time(&mut self, step: Quantity, since: Duration) {
        self.report.quantities.add(step, self.archive.clock.since(since));
    }

    fn settled(self, snapshot: Snapshot) -> (Deposit, Snapshot) {
        self.archive.note_agreement(&snapshot);
        (self.report, Snapshot { agreement: Agreement::Recent, ..snapshot })
    }

    /// Compares ledger and objects, where that is due or something contradicts the ledger.
    async fn compare(&mut self, snapshot: &mut Snapshot) -> Result<(), ArchiveError> {
        if std::mem::take(&mut self.contradicted) {
            return self.archive.compare_now(snapshot).await;
        }
        self.archive.compare_if_due(snapshot).await
    }

    fn check_deadline(&self) -> Result<(), ArchiveError> {
        if self.archive.deadline_from(self.began)() {
            return Err(ArchiveError::Deadline(self.archive.options.deadline));
        }
        Ok(())
    }

    fn left_to(mut self, claim: &Claim) -> Deposit {
        let until = claim.end();
        info!(owner = %claim.owner, %until, "another run is at work on this archive; leaving it to that one");
        self.report.outcome = Outcome::LeftToAnother { owner: claim.owner.clone(), until };
        self.report
    }

    async fn classify(&mut self, ledger: &Ledger) -> Result<Classification, ArchiveError> {
        let clock = &self.archive.clock;
        let since = clock.elapsed();
        let mut classified =
            debug_span!("deduplicate").in_scope(|| Classification::find(self.response, ledger, self.start));
        if let Some(absorbed) = self.absorbed {
            classified.window = ledger.absorbed_window(&absorbed.withdrawn, &absorbed.returned);
        }
        self.add_time(Quantity::Deduplication, since);
        let since = clock.elapsed();
        let settled = self.archive.settle(self.response, &mut classified, &ledger.lineage);
        let looked_up = settled.instrument(debug_span!("look_up")).await?;
        self.listed = looked_up.tallies;
        if looked_up.days > 0 {
            self.add_time(Quantity::ArchiveLookup, since);
        }
        if !self.planned {
            // What a later round finds known may be what this run stored itself.
            self.planned = true;
            let possible_gap = classified.possible_gap(self.response, ledger, self.archive.options.buffer);
            let quantities = &mut self.report.quantities;
            quantities.set(Quantity::DaysLookedUp, looked_up.days);
            quantities.set(Quantity::BufferOverlap, classified.known);
            quantities.set(Quantity::RejectedInResponse, classified.rejected_total);
            quantities.set(Quantity::SparseResponse, classified.window.sparse);
            quantities.set(Quantity::PossibleGap, possible_gap);
        }
        Ok(classified)
    }

    /// Stores all that is new and makes `goal` the ledger, in as many claims as their size asks for.
    async fn store(
        &mut self,
        classified: &Classification,
        goal: Ledger,
        mut held: Snapshot,
    ) -> Result<Swap, ArchiveError> {
        let last_seen = match self.absorbed {
            Some(absorbed) => absorbed.last_seen.clone(),
            None => held.ledger.last_updated.map_or_else(String::new, iso),
        };
        let mut names = std::mem::replace(&mut self.names, Names::of_run(self.start));
        let check = || self.check_deadline();
        let drafts = drafts(self.response, classified, &mut names, self.start, &last_seen, check);
        self.names = names;
        let mut waiting: VecDeque<Draft> = drafts?.into();
        while !waiting.is_empty() {
            self.check_deadline()?;
            let batch = self.next_batch(&mut waiting, &held.ledger);
            let Some((claimed, before)) = self.begin(&batch, &held).await? else {
                return Ok(Swap::Lost);
            };
            let (report, since) = (&mut self.report, self.archive.clock.elapsed());
            let written = self.committer.write(&batch, |draft| report.note_object(draft, classified)).await;
            self.add_time(Quantity::SaveEvents, since);
            match written {
                Ok(true) => {}
                Ok(false) => return Ok(Swap::Lost),
                Err(failure) => return Err(self.committer.give_up(failure, &claimed, held.ledger).await),
            }
            let mut after = if waiting.is_empty() { goal.clone() } else { remembering(&held.ledger, &batch) };
            let new = before.without_taken(&batch);
            (after.lineage, after.tallies) = (held.ledger.lineage.clone(), before.tallies);
            for draft in &new {
                after.count_object(draft.key.as_str(), draft.bytes.len() as u64);
            }
            let (started_at, since) = (self.start.timestamp(), self.archive.clock.elapsed());
            let swap = self.committer.commit(&claimed, after, &new, started_at, true).await?;
            self.add_time(Quantity::MetadataUpdate, since);
            let Swap::Done(committed) = swap else { return Ok(Swap::Lost) };
            if waiting.is_empty() {
                return Ok(Swap::Done(committed));
            }
            held = *committed;
        }
        self.archive.swap(&held, goal).await
    }

    /// Claims a batch. The claimed ledger, and what was there before; nothing if the run has to start over.
    async fn begin(
        &mut self,
        batch: &[Draft],
        held: &Snapshot,
    ) -> Result<Option<(Snapshot, Before)>, ArchiveError> {
        let since = self.archive.clock.elapsed();
        let begun = self.committer.begin(batch, held, &self.listed).await?;
        self.add_time(Quantity::Claim, since);
        // Once something is written to a day, its listing is another one.
        let is_written =
            |prefix: &str| batch.iter().any(|draft| draft.place.kind.day_prefix(draft.place.day) == prefix);
        self.listed.retain(|prefix, _| !is_written(prefix));
        match begun {
            Begun::Claimed(claimed, before) => return Ok(Some((*claimed, before))),
            Begun::Lost => return Ok(None),
            Begun::Contradicted => {}
        }
        self.contradictions += 1;
        if self.contradictions > CONTRADICTIONS {
            return Err(ArchiveError::Interrupted);
        }
        debug!("the store holds what the ledger does not know; comparing them");
        self.contradicted = true;
        Ok(None)
    }

    /// As many drafts as fit into one claim beside the ledger; at least one.
    fn next_batch(&self, waiting: &mut VecDeque<Draft>, ledger: &Ledger) -> Vec<Draft> {
        let mut room = self.committer.room_beside(ledger);
        let mut batch = Vec::new();
        while let Some(draft) = waiting.front() {
            let size = size_in_claim(draft);
            if size > room && !batch.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            batch.extend(waiting.pop_front());
        }
        batch
    }
}

impl Deposit {
    /// Nothing is stored yet.
    fn new(ledger: &Ledger) -> Self {
        let mut quantities = Quantities::default();
        quantities.set(Quantity::SeenIdsCount, ledger.len());
        for quantity in [
            Quantity::NewEventsCount,
            Quantity::RevisionsCount,
            Quantity::RejectedCount,
            Quantity::WithdrawnCount,
            Quantity::ReturnedCount,
            Quantity::ObjectsWritten,
            Quantity::BytesWritten,
            Quantity::LedgerHealed,
            Quantity::LedgerConflicts,
        ] {
            quantities.set(quantity, 0_usize);
        }
        Self { quantities, ..Self::default() }
    }

    /// A number of things that were counted; 0 if the deposit did not come to that.
    #[must_use]
    pub fn count(&self, quantity: Quantity) -> usize {
        self.quantities.count(quantity).unwrap_or(0)
    }

    fn note_object(&mut self, draft: &Draft, classified: &Classification) {
        self.objects.push((draft.key.clone(), draft.bytes.len()));
        let quantities = &mut self.quantities;
        quantities.add(Quantity::ObjectsWritten, 1_usize);
        quantities.add(Quantity::BytesWritten, draft.bytes.len());
        match draft.place.kind {
            Kind::Events => quantities.add(Quantity::NewEventsCount, draft.events.len()),
            Kind::Revisions => quantities.add(Quantity::RevisionsCount, draft.events.len()),
            Kind::Rejected => quantities.add(Quantity::RejectedCount, draft.fingerprints.len()),
            Kind::Withdrawn => {
                let back = draft.ids.iter().filter(|id| classified.window.returned.contains(id)).count();
                quantities.add(Quantity::ReturnedCount, back);
                quantities.add(Quantity::WithdrawnCount, draft.ids.len() - back);
            }
        }
    }
}

/// The ledger between two claims of one run.
fn remembering(ledger: &Ledger, batch: &[Draft]) -> Ledger {
    let mut next = ledger.clone();
    for draft in batch {
        draft.events.iter().for_each(|&event| next.remember(event));
        next.extend_rejected(draft.fingerprints.iter().copied(), &FxHashSet::default());
    }
    next.forget_oldest_outside_window();
    next
}
