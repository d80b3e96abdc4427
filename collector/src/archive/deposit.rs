//! Claim, write, commit: how what is new in a response gets into the archive exactly once.
//!
//! 1. *Claim*: swap the ledger, only if it is still the one that was read, for one that also names the run
//!    and the objects it is about to write. A living claim of another run: leave.
//! 2. *Write*: create each object, only if there is none of its name.
//! 3. *Commit*: swap again, with the events remembered and without the claim.
//!
//! Whoever meets a conflict, or an answer that cannot be settled, reads the ledger and starts over; what was
//! stored is found. Why this is enough: `docs/decisions/0003-claim-write-commit.md`.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use rustc_hash::FxHashSet;
use tracing::{Instrument as _, debug, debug_span, info, warn};

use super::compare::tally_of;
use super::journal::committed;
use super::layout::Kind;
use super::ledger_file::{Agreement, Snapshot, Swap, TRIES};
use super::owner::ActiveRun;
use super::partition::{Draft, Names, drafts};
use super::{Archive, ArchiveError};
use crate::clock::iso;
use crate::concurrency::buffered;
use crate::event::Response;
use crate::ledger::{Claim, ClaimedObject, CommitKind, Ledger, News, SIZE_LIMIT_BYTES, Tallies};
use crate::quantity::{Quantities, Quantity};
use crate::store::{Key, StoreError, Write};

/// Room that stays free in a ledger's document.
const SPARE_BYTES: usize = 2 * 1024;
/// Maximum size of what a claim, and later the commit, says of its objects.
const COMMIT_BYTES: usize = 8 * 1024;
/// Size of what a commit says of one object: name, size, digest.
const COMMITTED_OBJECT_BYTES: usize = 180;
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

/// One deposit under way.
struct Run<'a> {
    archive: &'a Archive,
    response: &'a Response<'a>,
    start: DateTime<Utc>,
    began: Duration,
    active: ActiveRun,
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
        let run = Run {
            archive: self,
            response,
            start,
            began: self.clock.elapsed(),
            active: ActiveRun::begin(start),
            names: Names::of_run(start),
            report: Deposit::new(&snapshot.ledger),
            planned: false,
            contradicted: false,
            contradictions: 0,
            listed: Tallies::new(),
        };
        run.carry_out(snapshot).await
    }
}

impl Run<'_> {
    async fn carry_out(mut self, mut snapshot: Snapshot) -> Result<(Deposit, Snapshot), ArchiveError> {
        loop {
            self.check_deadline()?;
            if let Some(claim) = snapshot.ledger.claim.clone() {
                if !self.archive.may_take_over(&claim, &self.active) {
                    return Ok((self.left_to(&claim), snapshot));
                }
                let since = self.archive.clock.elapsed();
                let finished = Box::pin(self.archive.finish(&snapshot, self.claim_on(claim.objects.clone())));
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
                let healed = Box::pin(self.archive.heal(snapshot, *healing, &self.active)).await?;
                snapshot = match healed {
                    Some(healed) => healed,
                    None => Box::pin(self.archive.open()).await?,
                };
                continue;
            }
            let news = self.find_news(&snapshot.ledger).await?;
            let goal = news.apply(self.response, &snapshot.ledger, self.start);
            if news.is_empty() && goal.remembers_the_same(&snapshot.ledger) {
                return Ok(self.settled(snapshot));
            }
            let stored = Box::pin(self.store(&news, goal, snapshot)).await?;
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
        let deadline = self.archive.options.deadline;
        if self.archive.clock.since(self.began) > deadline {
            return Err(ArchiveError::Deadline(deadline));
        }
        Ok(())
    }

    fn left_to(mut self, claim: &Claim) -> Deposit {
        let until = claim.end();
        info!(owner = %claim.owner, %until, "another run is at work on this archive; leaving it to that one");
        self.report.outcome = Outcome::LeftToAnother { owner: claim.owner.clone(), until };
        self.report
    }

    async fn find_news(&mut self, ledger: &Ledger) -> Result<News, ArchiveError> {
        let clock = &self.archive.clock;
        let since = clock.elapsed();
        let mut news = debug_span!("deduplicate").in_scope(|| News::find(self.response, ledger, self.start));
        self.add_time(Quantity::Deduplication, since);
        let since = clock.elapsed();
        let settled = self.archive.settle(self.response, &mut news);
        let looked_up = settled.instrument(debug_span!("look_up")).await?;
        self.listed = looked_up.tallies;
        if looked_up.days > 0 {
            self.add_time(Quantity::ArchiveLookup, since);
        }
        if !self.planned {
            // What a later round finds known may be what this run stored itself.
            self.planned = true;
            let possible_gap = news.possible_gap(self.response, ledger, self.archive.options.buffer);
            let quantities = &mut self.report.quantities;
            quantities.set(Quantity::DaysLookedUp, looked_up.days);
            quantities.set(Quantity::BufferOverlap, news.known);
            quantities.set(Quantity::RejectedInResponse, news.rejected_total);
            quantities.set(Quantity::SparseResponse, news.window.sparse);
            quantities.set(Quantity::PossibleGap, possible_gap);
        }
        Ok(news)
    }

    /// Stores all that is new and makes `goal` the ledger, in as many claims as their size asks for.
    async fn store(&mut self, news: &News, goal: Ledger, mut held: Snapshot) -> Result<Swap, ArchiveError> {
        let last_seen = held.ledger.last_updated.map_or_else(String::new, iso);
        let mut waiting: VecDeque<Draft> =
            drafts(self.response, news, &mut self.names, self.start, &last_seen).into();
        while !waiting.is_empty() {
            let batch = self.next_batch(&mut waiting, &held.ledger);
            let Some((claimed, tallies)) = self.begin(&batch, &mut held).await? else {
                return Ok(Swap::Lost);
            };
            match self.write(&batch, news).await {
                Ok(true) => {}
                Ok(false) => return Ok(Swap::Lost),
                Err(failure) => return Err(self.give_up(failure, &claimed, held.ledger).await),
            }
            let mut after = if waiting.is_empty() { goal.clone() } else { remembering(&held.ledger, &batch) };
            (after.lineage, after.tallies) = (held.ledger.lineage.clone(), tallies);
            let objects: Vec<_> = batch.iter().map(|draft| committed(&draft.key, &draft.bytes)).collect();
            for object in &objects {
                after.count_object(&object.key, object.size_bytes);
            }
            after.commit(CommitKind::Run, self.active.name(), self.start.timestamp(), objects);
            let since = self.archive.clock.elapsed();
            let swap = self.archive.swap(&claimed, after).instrument(debug_span!("commit")).await?;
            self.add_time(Quantity::MetadataUpdate, since);
            let Swap::Done(committed) = swap else { return Ok(Swap::Lost) };
            if waiting.is_empty() {
                return Ok(Swap::Done(committed));
            }
            held = *committed;
        }
        self.archive.swap(&held, goal).await
    }

    /// Claims a batch, while the days it goes to are listed and the journal gets the commit before it. Nothing is
    /// written before all three have answered. The claimed ledger, and the tallies of what was there before; nothing if
    /// the run has to start over.
    async fn begin(
        &mut self,
        batch: &[Draft],
        held: &mut Snapshot,
    ) -> Result<Option<(Snapshot, Tallies)>, ArchiveError> {
        let archive = self.archive;
        let claim = held.ledger.with_claim(self.claim_of(batch));
        let known = std::mem::take(&mut self.listed);
        let since = archive.clock.elapsed();
        let (claimed, listed, flushed) = tokio::join!(
            archive.swap(held, claim).instrument(debug_span!("claim")),
            self.list_days(batch, &held.ledger, &known),
            archive.flush_journal(&held.ledger.lineage)
        );
        self.add_time(Quantity::Claim, since);
        // Once something is written to a day, its listing is another one.
        let is_written =
            |prefix: &str| batch.iter().any(|draft| draft.place.kind.day_prefix(draft.place.day) == prefix);
        self.listed = known;
        self.listed.retain(|prefix, _| !is_written(prefix));
        let Swap::Done(claimed) = claimed? else { return Ok(None) };
        let found = match (listed, flushed) {
            (Ok(Some(tallies)), Ok(true)) => return Ok(Some((*claimed, tallies))),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(_), Ok(_)) => Ok(()),
        };
        // Nothing was written, so the claim can be taken back.
        if let Err(error) = archive.swap(&claimed, held.ledger.clone()).await {
            warn!(%error, "the claim could not be taken back; the next run will finish it");
        }
        found?;
        self.contradictions += 1;
        if self.contradictions > CONTRADICTIONS {
            return Err(ArchiveError::Interrupted);
        }
        debug!("the store holds what the ledger does not know; comparing them");
        self.contradicted = true;
        Ok(None)
    }

    /// Lists the days that a batch goes to, unless they were listed since the ledger was read. The tallies before it;
    /// nothing if they are not those that the ledger expects.
    async fn list_days(
        &self,
        batch: &[Draft],
        ledger: &Ledger,
        known: &Tallies,
    ) -> Result<Option<Tallies>, ArchiveError> {
        let prefixes: BTreeSet<String> =
            batch.iter().map(|draft| draft.place.kind.day_prefix(draft.place.day)).collect();
        let listings = prefixes.into_iter().map(|prefix| {
            async move {
                let tally = match known.get(&prefix) {
                    Some(&tally) => tally,
                    None => tally_of(&self.archive.store.list(&prefix).await?),
                };
                Ok::<_, ArchiveError>((prefix, tally))
            }
            .boxed()
        });
        let mut listings = buffered(self.archive.parallel(), listings);
        let mut tallies = ledger.tallies.clone();
        while let Some((prefix, found)) = listings.try_next().await? {
            if ledger.expected(&prefix).is_some_and(|expected| expected != found) {
                return Ok(None);
            }
            tallies.insert(prefix, found);
        }
        Ok(Some(tallies))
    }

    /// As many drafts as fit into one claim beside the ledger; at least one.
    fn next_batch(&self, waiting: &mut VecDeque<Draft>, ledger: &Ledger) -> Vec<Draft> {
        let without_objects = ledger.with_claim(self.claim_of(&[])).to_document();
        let room = (SIZE_LIMIT_BYTES - SPARE_BYTES).saturating_sub(without_objects.len());
        let mut room = room.min(COMMIT_BYTES);
        let mut batch = Vec::new();
        while let Some(draft) = waiting.front() {
            // The claim names it, or later the commit.
            let named = serde_json::to_vec(&draft.claimed()).map_or(0, |named| named.len() + 1);
            let size = named.max(COMMITTED_OBJECT_BYTES);
            if size > room && !batch.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            batch.extend(waiting.pop_front());
        }
        batch
    }

    fn claim_of(&self, batch: &[Draft]) -> Claim {
        self.claim_on(batch.iter().map(Draft::claimed).collect())
    }

    fn claim_on(&self, objects: Vec<ClaimedObject>) -> Claim {
        self.archive.claim_of_run(&self.active, objects)
    }

    /// Creates the objects, several at a time. Whether all of them are there and ours.
    async fn write(&mut self, batch: &[Draft], news: &News) -> Result<bool, WriteFailure> {
        let since = self.archive.clock.elapsed();
        let writes = batch.iter().map(|draft| self.archive.create_once(draft).boxed());
        let writes = buffered(self.archive.parallel(), writes).collect();
        let results: Vec<_> = writes.instrument(debug_span!("save", objects = batch.len())).await;
        self.add_time(Quantity::SaveEvents, since);
        let traceless =
            results.iter().all(|result| result.as_ref().is_err_and(|error| !error.outcome_unknown));
        let mut ours = true;
        for result in results {
            match result.map_err(|error| WriteFailure { error, traceless })? {
                Some(draft) => self.report.note_object(draft, news),
                None => ours = false,
            }
        }
        Ok(ours)
    }

    /// A write failed for good. If it left no trace, the claim is taken back; otherwise the next run
    /// finishes it.
    async fn give_up(&self, failure: WriteFailure, claimed: &Snapshot, before: Ledger) -> ArchiveError {
        if failure.traceless
            && let Err(error) = self.archive.swap(claimed, before).await
        {
            warn!(%error, "the claim could not be taken back; the next run will finish it");
        }
        failure.error.into()
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

    fn note_object(&mut self, draft: &Draft, news: &News) {
        self.objects.push((draft.key.clone(), draft.bytes.len()));
        let quantities = &mut self.quantities;
        quantities.add(Quantity::ObjectsWritten, 1_usize);
        quantities.add(Quantity::BytesWritten, draft.bytes.len());
        match draft.place.kind {
            Kind::Events => quantities.add(Quantity::NewEventsCount, draft.events.len()),
            Kind::Revisions => quantities.add(Quantity::RevisionsCount, draft.events.len()),
            Kind::Rejected => quantities.add(Quantity::RejectedCount, draft.fingerprints.len()),
            Kind::Withdrawn => {
                let back = draft.ids.iter().filter(|id| news.window.returned.contains(id)).count();
                quantities.add(Quantity::ReturnedCount, back);
                quantities.add(Quantity::WithdrawnCount, draft.ids.len() - back);
            }
        }
    }
}

struct WriteFailure {
    error: StoreError,
    /// No object of the claim exists or can come to exist.
    traceless: bool,
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

impl Archive {
    /// Creates an object. The draft, if it is there now with this content; an answer that was lost is
    /// settled by asking again and reading.
    ///
    /// An error says that nothing was written only if that holds for every time it was asked.
    async fn create_once<'d>(&self, draft: &'d Draft) -> Result<Option<&'d Draft>, StoreError> {
        let mut asked_in_doubt = 0;
        loop {
            match self.store.create(&draft.key, &draft.bytes).await {
                Ok(Write::Done(_)) => return Ok(Some(draft)),
                Ok(Write::Refused) => {
                    let read = self.store.get(&draft.key).await;
                    let found = read.map_err(|error| StoreError { outcome_unknown: true, ..error })?;
                    return Ok(found.filter(|object| object.bytes == draft.bytes).map(|_| draft));
                }
                Err(error) if error.outcome_unknown && asked_in_doubt + 1 < TRIES => {
                    asked_in_doubt += 1;
                    warn!(%error, "the answer to a write was lost; asking again");
                }
                Err(error) => {
                    let outcome_unknown = error.outcome_unknown || asked_in_doubt > 0;
                    return Err(StoreError { outcome_unknown, ..error });
                }
            }
        }
    }
}
