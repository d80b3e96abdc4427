//! Stores objects: claims their names in the ledger, writes them, takes the claim back if none was written.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use rustc_hash::FxHashSet;
use tracing::{Instrument as _, debug_span, warn};

use super::compare::tally_of;
use super::journal::committed;
use super::layout::Kind;
use super::ledger_file::{Snapshot, Swap, TRIES};
use super::owner::ActiveRun;
use super::partition::Draft;
use super::{Archive, ArchiveError};
use crate::concurrency::buffered;
use crate::event::EventId;
use crate::ledger::{Claim, ClaimedObject, CommitKind, Ledger, SIZE_LIMIT_BYTES, Tallies};
use crate::store::{Key, StoreError, Write};

/// Room that stays free in a ledger's document.
const SPARE_BYTES: usize = 2 * 1024;
/// Maximum size of what a claim, and later the commit, says of its objects.
const COMMIT_BYTES: usize = 8 * 1024;
/// Size of what a commit says of one object: name, size, digest.
const COMMITTED_OBJECT_BYTES: usize = 180;

/// Stores objects for one run.
pub(super) struct Committer<'a> {
    pub(super) archive: &'a Archive,
    pub(super) active: ActiveRun,
}

/// How a claim ended.
pub(super) enum Begun {
    /// The ledger with the claim, and what was there before.
    Claimed(Box<Snapshot>, Before),
    /// Somebody else changed the ledger.
    Lost,
    /// The store does not hold what the ledger says. The claim was taken back.
    Contradicted,
}

/// What the days that are written to held before.
pub(super) struct Before {
    /// How many objects.
    pub(super) tallies: Tallies,
    /// Those that were to be created now. An interrupted import wrote them; they are counted already.
    taken: BTreeSet<Key>,
}

impl Before {
    /// Those of a batch that were not there.
    pub(super) fn without_taken<'d>(&self, batch: &'d [Draft]) -> Vec<&'d Draft> {
        batch.iter().filter(|draft| !self.taken.contains(&draft.key)).collect()
    }
}

pub(super) struct WriteFailure {
    error: StoreError,
    /// No object of the claim exists or can come to exist.
    traceless: bool,
}

impl Committer<'_> {
    /// Claims a batch, while the days it goes to are listed and the journal gets the commit before it. Nothing is
    /// written before all three have answered. `known` are listings of days since the ledger was read.
    pub(super) async fn begin(
        &self,
        batch: &[Draft],
        held: &Snapshot,
        known: &Tallies,
    ) -> Result<Begun, ArchiveError> {
        let archive = self.archive;
        let claim = held.ledger.with_claim(self.claim_of(batch));
        let (claimed, listed, flushed) = tokio::join!(
            archive.swap(held, claim).instrument(debug_span!("claim")),
            archive.list_days(batch, &held.ledger, known),
            archive.flush_journal(&held.ledger.lineage)
        );
        let Swap::Done(claimed) = claimed? else { return Ok(Begun::Lost) };
        let found = match (listed, flushed) {
            (Ok(Some(before)), Ok(true)) => return Ok(Begun::Claimed(claimed, before)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(_), Ok(_)) => Ok(()),
        };
        // Nothing was written, so the claim can be taken back.
        if let Err(error) = archive.swap(&claimed, held.ledger.clone()).await {
            warn!(%error, "the claim could not be taken back; the next run will finish it");
        }
        found?;
        Ok(Begun::Contradicted)
    }

    /// The size that a claim on objects, or the commit of them, can have beside a ledger.
    pub(super) fn room_beside(&self, ledger: &Ledger) -> usize {
        let without_objects = ledger.with_claim(self.claim_of(&[])).to_document();
        (SIZE_LIMIT_BYTES - SPARE_BYTES).saturating_sub(without_objects.len()).min(COMMIT_BYTES)
    }

    pub(super) fn claim_of(&self, batch: &[Draft]) -> Claim {
        self.claim_on(batch.iter().map(Draft::claimed).collect())
    }

    pub(super) fn claim_on(&self, objects: Vec<ClaimedObject>) -> Claim {
        self.archive.claim_of_run(&self.active, objects)
    }

    /// Creates the objects, several at a time. Whether all of them are there and ours; each that is counts.
    pub(super) async fn write(
        &self,
        batch: &[Draft],
        mut count: impl FnMut(&Draft) + Send,
    ) -> Result<bool, WriteFailure> {
        let archive = self.archive;
        let results =
            archive.create_in_order(batch).instrument(debug_span!("save", objects = batch.len())).await;
        let traceless =
            results.iter().all(|result| result.as_ref().is_err_and(|error| !error.outcome_unknown));
        let mut ours = true;
        for result in results {
            match result.map_err(|error| WriteFailure { error, traceless })? {
                Some(draft) => count(draft),
                None => ours = false,
            }
        }
        Ok(ours)
    }

    /// Commits the objects of a claim: `after` is the ledger that remembers them.
    pub(super) async fn commit(
        &self,
        claimed: &Snapshot,
        mut after: Ledger,
        batch: &[&Draft],
        started_at: i64,
        publish: bool,
    ) -> Result<Swap, ArchiveError> {
        let archive = self.archive;
        let objects: Vec<_> = batch.iter().map(|draft| committed(&draft.key, &draft.bytes)).collect();
        after.commit(CommitKind::Run, self.active.name(), started_at, objects);
        let span = debug_span!("commit");
        let swap = if publish {
            archive.swap(claimed, after).instrument(span).await?
        } else {
            archive.swap_unpublished(claimed, after).instrument(span).await?.0
        };
        Ok(swap)
    }

    /// A write failed for good. If it left no trace, the claim is taken back; otherwise the next run
    /// finishes it.
    pub(super) async fn give_up(
        &self,
        failure: WriteFailure,
        claimed: &Snapshot,
        before: Ledger,
    ) -> ArchiveError {
        if failure.traceless
            && let Err(error) = self.archive.swap(claimed, before).await
        {
            warn!(%error, "the claim could not be taken back; the next run will finish it");
        }
        failure.error.into()
    }
}

/// The size of what a claim, or later the commit, says of an object.
pub(super) fn size_in_claim(draft: &Draft) -> usize {
    let named = serde_json::to_vec(&draft.claimed()).map_or(0, |named| named.len() + 1);
    named.max(COMMITTED_OBJECT_BYTES)
}

/// Whether listings show what a ledger expects of their days.
pub(super) fn agrees(ledger: &Ledger, listed: &Tallies) -> bool {
    listed.iter().all(|(prefix, found)| ledger.expected(prefix).is_none_or(|expected| expected == *found))
}

impl Archive {
    /// Lists the days that a batch goes to, unless they were listed since the ledger was read. What is there; nothing if
    /// that, or another listing of `known` from which the batch follows, is not what the ledger expects.
    async fn list_days(
        &self,
        batch: &[Draft],
        ledger: &Ledger,
        known: &Tallies,
    ) -> Result<Option<Before>, ArchiveError> {
        if !agrees(ledger, known) {
            return Ok(None);
        }
        let prefixes: BTreeSet<String> =
            batch.iter().map(|draft| draft.place.kind.day_prefix(draft.place.day)).collect();
        let listings = prefixes.into_iter().map(|prefix| {
            async move {
                let listed = match known.get(&prefix) {
                    Some(_) => Vec::new(),
                    None => self.store.list(&prefix).await?,
                };
                let tally = known.get(&prefix).copied().unwrap_or_else(|| tally_of(&listed));
                Ok::<_, ArchiveError>((prefix, tally, listed))
            }
            .boxed()
        });
        let mut listings = buffered(self.parallel(), listings);
        let (mut tallies, mut taken) = (ledger.tallies.clone(), BTreeSet::new());
        while let Some((prefix, found, listed)) = listings.try_next().await? {
            if ledger.expected(&prefix).is_some_and(|expected| expected != found) {
                return Ok(None);
            }
            tallies.insert(prefix, found);
            let listed: FxHashSet<Key> = listed.into_iter().map(|object| object.key).collect();
            taken.extend(batch.iter().map(|draft| &draft.key).filter(|key| listed.contains(key)).cloned());
        }
        Ok(Some(Before { tallies, taken }))
    }

    /// Creates objects in their order of precedence. Who finds a revision takes its event for stored, so a revision is only
    /// written once the event is durable. Stops at objects that are not ours.
    async fn create_in_order<'d>(&self, batch: &'d [Draft]) -> Vec<Result<Option<&'d Draft>, StoreError>> {
        let of_events = |draft: &&Draft| draft.place.kind == Kind::Events;
        let events: FxHashSet<EventId> =
            batch.iter().filter(of_events).flat_map(|draft| &draft.events).map(|event| event.id).collect();
        let depends = |draft: &&Draft| {
            draft.place.kind == Kind::Revisions && draft.events.iter().any(|event| events.contains(&event.id))
        };
        let (later, first): (Vec<&Draft>, Vec<&Draft>) = batch.iter().partition(depends);
        let mut results = self.create_all(&first).await;
        if results.iter().all(|result| matches!(result, Ok(Some(_)))) && !later.is_empty() {
            results.extend(self.create_all(&later).await);
        }
        results
    }

    /// Creates objects: together if the store can do that at less cost, otherwise several at a time.
    async fn create_all<'d>(&self, batch: &[&'d Draft]) -> Vec<Result<Option<&'d Draft>, StoreError>> {
        let objects: Vec<_> = batch.iter().map(|draft| (&draft.key, draft.bytes.as_slice())).collect();
        let together = if batch.len() > 1 { self.store.create_together(&objects).await } else { None };
        let first: Vec<_> = match together {
            Some(results) => results.into_iter().map(Some).collect(),
            None => batch.iter().map(|_| None).collect(),
        };
        let writes = batch.iter().zip(first).map(|(&draft, first)| self.create_once(draft, first).boxed());
        buffered(self.parallel(), writes).collect().await
    }

    /// Creates an object, unless `first` says how that ended. The draft, if it is there now with this content; an answer that
    /// was lost is settled by asking again and reading.
    ///
    /// An error says that nothing was written only if that holds for every time it was asked.
    async fn create_once<'d>(
        &self,
        draft: &'d Draft,
        mut first: Option<Result<Write, StoreError>>,
    ) -> Result<Option<&'d Draft>, StoreError> {
        let mut asked_in_doubt = 0;
        loop {
            let created = match first.take() {
                Some(created) => created,
                None => self.store.create(&draft.key, &draft.bytes).await,
            };
            match created {
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
