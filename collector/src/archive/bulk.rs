//! Stores many responses at the cost of few claims.
//!
//! What each response brings is decided against the ledger as the response before it leaves it, in memory. The objects of many
//! responses are then claimed, written and committed together. They are the same objects under the same names as if each response
//! had been stored by a run of its own. Nothing counts as stored before the commit.
//!
//! That is the ordinary case. Whatever else happens (another collector, an interrupted claim, a ledger that does not agree with
//! the objects, a response that needs several claims) is left to [`Archive::deposit`], one response at a time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tracing::{Instrument as _, debug, debug_span};

use super::commit::{Begun, agrees, size_in_claim};
use super::compare::tally_of;
use super::deposit::{Deposit, Outcome};
use super::layout::Kind;
use super::ledger_file::{Agreement, Snapshot, Swap};
use super::lookup::wanted;
use super::partition::{Draft, Names, drafts};
use super::window::Window;
use super::{Archive, ArchiveError};
use crate::clock::iso;
use crate::event::Response;
use crate::ledger::{Classification, Ledger, Tally, prefix_of};
use crate::quantity::Quantity;

/// Maximum number of responses that are stored together.
const MAX_RESPONSES: usize = 256;
/// Maximum size of the bodies of responses that are stored together, so that memory is bounded.
const MAX_BODIES_BYTES: usize = 12 * 1024 * 1024;
/// How long to wait before looking again whether another run is done.
const WAIT_FOR_ANOTHER: Duration = Duration::from_millis(500);

/// What was stored, durably.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Responses of which everything is stored.
    pub responses: usize,
    /// New events.
    pub events: usize,
    /// New versions of known events.
    pub revisions: usize,
    /// Elements that are not valid events.
    pub rejected: usize,
}

/// Stores responses in the order in which they are added, many at a time.
#[derive(Debug)]
pub struct Bulk<'a> {
    archive: &'a Archive,
    /// The ledger as it was written last; nothing if it has to be read.
    held: Option<Snapshot>,
    /// The ledger once everything is stored that was added.
    planned: Ledger,
    waiting: Vec<(Response<'a>, DateTime<Utc>)>,
    drafts: Vec<Draft>,
    /// What a claim can still take.
    room_bytes: usize,
    bodies_bytes: usize,
    window: Window,
    stored: Stored,
    is_published: bool,
    /// The second of the response that was added last.
    last_second: Option<i64>,
}

/// What a response brings.
struct Plan {
    goal: Ledger,
    drafts: Vec<Draft>,
    size_bytes: usize,
}

impl<'a> Bulk<'a> {
    /// Stores into an archive.
    #[must_use]
    pub fn new(archive: &'a Archive) -> Self {
        Self {
            archive,
            held: None,
            planned: Ledger::default(),
            waiting: Vec::new(),
            drafts: Vec::new(),
            room_bytes: 0,
            bodies_bytes: 0,
            window: Window::default(),
            stored: Stored::default(),
            is_published: true,
            last_second: None,
        }
    }

    /// What is stored by now. What was added since the last commit is not part of it.
    #[must_use]
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// Adds a response that was recorded at `time`. Stores what was added before if there is enough of it.
    ///
    /// # Errors
    /// [`ArchiveError`] if something cannot be read or stored. The responses that [`Bulk::stored`] counts are stored.
    pub async fn add(&mut self, response: Response<'a>, time: DateTime<Utc>) -> Result<(), ArchiveError> {
        // Objects are named by the second. Those of another run in one second get other names when they are written.
        let is_repeated = self.last_second.replace(time.timestamp()) == Some(time.timestamp());
        if is_repeated {
            self.flush().await?;
        }
        loop {
            if self.held.is_none() || is_repeated {
                return self.deposit_alone(&response, time).await;
            }
            let plan = self.plan(&response, time).await?;
            let size_bytes = plan.as_ref().map_or(0, |plan| plan.size_bytes);
            if size_bytes <= self.room_bytes {
                if let Some(plan) = plan {
                    self.window.add_drafts(&plan.drafts, &self.planned);
                    self.planned = plan.goal;
                    self.drafts.extend(plan.drafts);
                    self.room_bytes -= size_bytes;
                }
                break;
            }
            if self.waiting.is_empty() {
                return self.deposit_alone(&response, time).await;
            }
            self.flush().await?;
        }
        self.bodies_bytes += response.size_bytes();
        self.waiting.push((response, time));
        if self.waiting.len() >= MAX_RESPONSES || self.bodies_bytes >= MAX_BODIES_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Stores everything that was added.
    ///
    /// # Errors
    /// As for [`Bulk::add`].
    pub async fn finish(mut self) -> Result<Stored, ArchiveError> {
        self.flush().await?;
        if let Some(held) = self.held.filter(|_| !self.is_published) {
            self.archive.publish(&held.ledger.to_document()).await;
        }
        Ok(self.stored)
    }

    /// Decides what a response brings; nothing if everything in it is known.
    async fn plan(
        &mut self,
        response: &Response<'_>,
        time: DateTime<Utc>,
    ) -> Result<Option<Plan>, ArchiveError> {
        let ledger = &self.planned;
        let mut classified = Classification::find(response, ledger, time);
        if !classified.doubtful.is_empty() {
            let wanted = wanted(response, &classified.doubtful);
            let mut versions = self.window.versions(self.archive, &wanted).await?;
            self.archive.settle_by(&mut versions, response, &mut classified);
        }
        let mut goal = classified.apply(response, ledger, time);
        if classified.is_empty() && goal.remembers_the_same(ledger) {
            return Ok(None);
        }
        let last_seen = ledger.last_updated.map_or_else(String::new, iso);
        let mut names = Names::of_run(time);
        let drafts =
            drafts(response, &classified, &mut names, time, &last_seen, || Ok::<_, ArchiveError>(()))?;
        for draft in &drafts {
            let (key, size_bytes) = (draft.key.as_str(), draft.bytes.len() as u64);
            let mut tally = match goal.expected(prefix_of(key)) {
                Some(tally) => tally,
                None => self.tally_of_unknown(prefix_of(key)).await?,
            };
            tally.add(key, size_bytes);
            goal.tallies.insert(prefix_of(key).to_owned(), tally);
        }
        goal.prune_tallies();
        let size_bytes = drafts.iter().map(size_in_claim).sum();
        Ok(Some(Plan { goal, drafts, size_bytes }))
    }

    /// What a day holds that the ledger does not vouch for, with what is about to be written.
    async fn tally_of_unknown(&mut self, prefix: &str) -> Result<Tally, ArchiveError> {
        let mut tally = match self.window.listed.get(prefix) {
            Some(&listed) => listed,
            None => tally_of(&self.archive.store.list(prefix).await?),
        };
        self.window.listed.insert(prefix.to_owned(), tally);
        let of_day = self.drafts.iter().filter(|draft| prefix_of(draft.key.as_str()) == prefix);
        of_day.for_each(|draft| tally.add(draft.key.as_str(), draft.bytes.len() as u64));
        Ok(tally)
    }

    /// Stores what was added, together if possible.
    async fn flush(&mut self) -> Result<(), ArchiveError> {
        let waiting = std::mem::take(&mut self.waiting);
        let batch = std::mem::take(&mut self.drafts);
        self.bodies_bytes = 0;
        let Some((_, last)) = waiting.last() else { return Ok(()) };
        let Some(held) = self.held.take() else { return Err(ArchiveError::Interrupted) };
        if let Some(committed) = Box::pin(self.commit(held, &batch, *last)).await? {
            self.stored.responses += waiting.len();
            self.hold(committed);
            return Ok(());
        }
        debug!(responses = waiting.len(), "the archive was changed meanwhile; storing them one by one");
        for (response, time) in &waiting {
            self.deposit_alone(response, *time).await?;
        }
        Ok(())
    }

    /// Claims, writes, commits. The ledger after it; nothing if somebody else has changed the archive.
    async fn commit(
        &mut self,
        held: Snapshot,
        batch: &[Draft],
        last: DateTime<Utc>,
    ) -> Result<Option<Snapshot>, ArchiveError> {
        let archive = self.archive;
        if batch.is_empty() {
            if !agrees(&held.ledger, &self.window.listed) {
                return Ok(None);
            }
            if self.planned == held.ledger {
                return Ok(Some(held));
            }
            self.is_published = false;
            let (swap, _) = archive.swap_unpublished(&held, self.planned.clone()).await?;
            return Ok(swap.done());
        }
        let committer = archive.committer(last);
        let span = debug_span!("store_together", objects = batch.len());
        let begun = committer.begin(batch, &held, &self.window.listed).instrument(span).await?;
        let Begun::Claimed(claimed, before) = begun else { return Ok(None) };
        let new = before.without_taken(batch);
        if new.len() < batch.len() {
            // An interrupted import wrote some of them. What it left is not what the plan assumes.
            archive.swap(&claimed, held.ledger).await?;
            return Ok(None);
        }
        let stored = &mut self.stored;
        match committer.write(batch, |draft| stored.count(draft)).await {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(failure) => return Err(committer.give_up(failure, &claimed, held.ledger).await),
        }
        let mut after = self.planned.clone();
        after.lineage.clone_from(&held.ledger.lineage);
        self.is_published = false;
        let swap = committer.commit(&claimed, after, &new, last.timestamp(), false).await?;
        Ok(swap.done())
    }

    /// Stores one response as a run does, waiting for others.
    async fn deposit_alone(
        &mut self,
        response: &Response<'_>,
        time: DateTime<Utc>,
    ) -> Result<(), ArchiveError> {
        let archive = self.archive;
        loop {
            let snapshot = match self.held.take() {
                Some(held) => held,
                None => archive.open().await?,
            };
            // What others store meanwhile is not part of it.
            self.window = Window::default();
            let (deposit, after) = Box::pin(archive.deposit(response, snapshot, time)).await?;
            if deposit.outcome == Outcome::Stored {
                self.stored.add(&deposit);
                self.is_published = self.is_published || !deposit.objects.is_empty();
                self.hold(after);
                return Ok(());
            }
            archive.clock.sleep(WAIT_FOR_ANOTHER).await;
        }
    }

    /// Continues from a ledger that was just written.
    fn hold(&mut self, mut snapshot: Snapshot) {
        self.archive.note_agreement(&snapshot);
        snapshot.agreement = Agreement::Recent;
        self.planned = snapshot.ledger.clone();
        self.room_bytes = self.archive.committer(DateTime::default()).room_beside(&snapshot.ledger);
        self.held = Some(snapshot);
        self.window.settle();
    }
}

impl Stored {
    fn count(&mut self, draft: &Draft) {
        match draft.place.kind {
            Kind::Events => self.events += draft.events.len(),
            Kind::Revisions => self.revisions += draft.events.len(),
            Kind::Rejected => self.rejected += draft.fingerprints.len(),
            Kind::Withdrawn => {}
        }
    }

    fn add(&mut self, deposit: &Deposit) {
        self.responses += 1;
        self.events += deposit.count(Quantity::NewEventsCount);
        self.revisions += deposit.count(Quantity::RevisionsCount);
        self.rejected += deposit.count(Quantity::RejectedCount);
    }
}

impl Swap {
    fn done(self) -> Option<Snapshot> {
        match self {
            Self::Done(snapshot) => Some(*snapshot),
            Self::Lost => None,
        }
    }
}
