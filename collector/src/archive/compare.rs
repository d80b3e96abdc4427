//! Holds ledger and objects against each other, and makes the ledger agree with what is stored.
//!
//! They can stem from different moments: a ledger was restored, a living archive was copied, a replica lags. An older
//! ledger would store events again; a newer one would take events for stored that are not. So they are compared
//! whenever the ledger does not descend from the last commit that this machine saw, and once a day.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Datelike as _, Days, Months, NaiveDate};
use futures_util::FutureExt as _;
use futures_util::stream::TryStreamExt as _;
use rustc_hash::FxHashSet;
use tracing::{debug, info, warn};
use twox_hash::XxHash3_64;

use super::journal::{committed, unread};
use super::layout::{Kind, Place};
use super::ledger_file::{Agreement, Snapshot, Swap, events_of};
use super::memory::Remembered;
use super::owner::ActiveRun;
use super::partition::rejected_in;
use super::takeover::withdrawn_in;
use super::{Archive, ArchiveError};
use crate::concurrency::buffered;
use crate::event::{Event, EventId};
use crate::ledger::{CommittedObject, Descent, Ledger, Lineage, RUN_DAYS, Tally, prefix_of};
use crate::store::{Key, Listed};

/// Number of months that are listed one by one. Beyond it everything is listed.
const MONTHS: usize = 36;

/// The objects that the ledger has to agree with, by the prefix of their day.
type Survey = BTreeMap<String, Vec<Listed>>;

/// How a ledger is made to agree with the objects.
#[derive(Debug, Clone)]
pub(crate) struct Healing {
    /// The ledger that agrees with them, but for its history.
    ledger: Ledger,
    /// The objects that the journal does not name.
    beyond: Vec<CommittedObject>,
}

impl Archive {
    /// Compares ledger and objects, if that was not done within a day or the ledger is not a later state of the one
    /// that this machine saw last.
    pub(super) async fn compare_if_due(&self, snapshot: &mut Snapshot) -> Result<(), ArchiveError> {
        if !matches!(snapshot.agreement, Agreement::Open | Agreement::Doubtful) {
            return Ok(());
        }
        let known = self.remembered(&snapshot.ledger.lineage);
        snapshot.remembered = known.as_ref().map(|known| known.mark.clone());
        let descent = self.descent_from(known.as_ref(), &snapshot.ledger.lineage).await?;
        let is_recent = snapshot.agreement == Agreement::Open
            && descent == Descent::Descends
            && known.is_some_and(|known| known.is_fresh(self.now()))
            && self.has_last_objects(&snapshot.ledger.lineage).await?;
        if is_recent {
            snapshot.agreement = Agreement::Recent;
            return Ok(());
        }
        self.compare_after(snapshot, descent).await
    }

    /// Refuses an archive that lacks what its ledger vouches for.
    pub(crate) async fn require_complete(&self) -> Result<(), ArchiveError> {
        self.compare_now(&mut self.read_snapshot().await?).await
    }

    /// Compares ledger and objects, whatever is remembered.
    pub(super) async fn compare_now(&self, snapshot: &mut Snapshot) -> Result<(), ArchiveError> {
        let known = self.remembered(&snapshot.ledger.lineage);
        snapshot.remembered = known.as_ref().map(|known| known.mark.clone());
        let descent = self.descent_from(known.as_ref(), &snapshot.ledger.lineage).await?;
        self.compare_after(snapshot, descent).await
    }

    async fn compare_after(&self, snapshot: &mut Snapshot, descent: Descent) -> Result<(), ArchiveError> {
        debug!("comparing ledger and objects");
        snapshot.has_gone_back |= descent == Descent::Diverged;
        let compared = Box::pin(self.compare(&snapshot.ledger, snapshot.has_gone_back)).await?;
        snapshot.healing = compared.map(Box::new);
        snapshot.agreement = Agreement::Compared;
        Ok(())
    }

    /// Makes the ledger agree with the objects, and the journal name them. Nothing if somebody else changed the ledger
    /// meanwhile.
    ///
    /// The journal is written under a claim, or two that heal at once would begin two histories. Who takes the claim over
    /// finds the ledger as it was and heals it again.
    pub(super) async fn heal(
        &self,
        mut from: Snapshot,
        healing: Healing,
        run: &ActiveRun,
    ) -> Result<Option<Snapshot>, ArchiveError> {
        let Healing { mut ledger, beyond } = healing;
        if beyond.is_empty() && ledger.tallies.is_empty() {
            // Nothing is stored yet. The first claim writes the ledger.
            from.ledger = ledger;
            return Ok(Some(from));
        }
        if !beyond.is_empty() {
            let mut held = from.ledger.with_claim(self.claim_of_run(run, Vec::new()));
            if !held.lineage.is_known() {
                held.lineage = Lineage::new(ledger.lineage.archive.clone());
            }
            let Swap::Done(claimed) = self.swap(&from, held).await? else { return Ok(None) };
            from = *claimed;
            self.append_unjournaled(&mut ledger.lineage, beyond).await?;
        }
        Ok(match self.swap(&from, ledger).await? {
            Swap::Done(healed) => Some(*healed),
            Swap::Lost => None,
        })
    }

    /// Gives a ledger the history and the tallies of what is stored, while a claim is held.
    pub(crate) async fn reconciled(&self, ledger: Ledger) -> Result<Ledger, ArchiveError> {
        let Some(Healing { mut ledger, beyond }) = self.compare(&ledger, true).await? else {
            return Ok(ledger);
        };
        self.append_unjournaled(&mut ledger.lineage, beyond).await?;
        Ok(ledger)
    }

    /// What this machine remembers of the archive with this history.
    fn remembered(&self, lineage: &Lineage) -> Option<Remembered> {
        let known = self.memory.recall(&self.store.identity());
        known.into_iter().rev().find(|known| lineage.is_known() && known.mark.archive == lineage.archive)
    }

    /// Whether the ledger is a later state of the one that this machine saw last; unknown if it saw none here.
    async fn descent_from(
        &self,
        known: Option<&Remembered>,
        lineage: &Lineage,
    ) -> Result<Descent, ArchiveError> {
        let Some(known) = known else {
            let others = self.memory.recall(&self.store.identity());
            let Some(other) = others.last() else { return Ok(Descent::Unknown) };
            warn!(
                seen = other.mark.archive,
                found = lineage.archive,
                "another archive is at this location than before"
            );
            return Ok(Descent::Diverged);
        };
        let descent = match lineage.descends_from(&known.mark) {
            Descent::Unknown => {
                let record = self.record_at(known.mark.sequence).await?;
                let is_named = record.is_some_and(|record| record.commit == known.mark.commit);
                if is_named { Descent::Descends } else { Descent::Diverged }
            }
            decided => decided,
        };
        if descent == Descent::Diverged {
            warn!(
                "the ledger is not a later state of the one that was seen last; comparing it with the objects"
            );
        }
        Ok(descent)
    }

    /// Whether what was committed last is there as it was written. Where a request costs time, one object a run is looked
    /// at, each in its turn.
    async fn has_last_objects(&self, lineage: &Lineage) -> Result<bool, ArchiveError> {
        let objects = lineage.last.as_ref().map(|last| last.objects.as_slice()).unwrap_or_default();
        let looked_at = if self.store.replaces_atomically() && !objects.is_empty() {
            let turn = self.now().timestamp().unsigned_abs() / 60 % objects.len() as u64;
            &objects[usize::try_from(turn).unwrap_or_default()..][..1]
        } else {
            objects
        };
        for object in looked_at {
            let Ok(key) = Key::new(object.key.as_str()) else { return Ok(false) };
            let head = self.store.head(&key).await?;
            if head.is_none_or(|head| head.size_bytes != object.size_bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Remembers that ledger and objects agree.
    pub(super) fn note_agreement(&self, snapshot: &Snapshot) {
        let (mark, location) = (snapshot.ledger.lineage.mark(), self.store.identity());
        // An archive without a commit may have been written nowhere. Nothing is lost with it.
        if mark.sequence == 0 {
            return;
        }
        let before =
            self.memory.recall(&location).into_iter().rev().find(|it| it.mark.archive == mark.archive);
        // Another run of this machine has seen a later commit meanwhile. Without it a restore would go unnoticed.
        let is_outdated = before.as_ref().is_some_and(|before| {
            before.mark.sequence > mark.sequence && snapshot.remembered.as_ref() != Some(&before.mark)
        });
        if is_outdated {
            return;
        }
        let checked_at = match (snapshot.agreement, before) {
            (Agreement::Recent, Some(before)) => before.checked_at,
            _ => self.now().timestamp(),
        };
        self.memory.note(&location, Remembered { mark, checked_at });
    }

    /// What makes the ledger agree with the objects; nothing if it does. If it has gone back, so is the journal: the
    /// commits that it lost may have written to days that the ledger does not vouch for.
    ///
    /// # Errors
    /// [`ArchiveError::Incomplete`] if objects are missing that the ledger vouches for.
    pub(crate) async fn compare(
        &self,
        ledger: &Ledger,
        has_gone_back: bool,
    ) -> Result<Option<Healing>, ArchiveError> {
        let survey = self.survey(ledger).await?;
        let mut healed = ledger.clone();
        let mut beyond = Vec::new();
        let mut read = Contents::default();
        for (prefix, objects) in &survey {
            let tally = tally_of(objects);
            let expected = ledger.expected(prefix);
            if expected == Some(tally) || (expected.is_none() && ledger.lineage.is_known()) {
                continue;
            }
            if let Some(expected) = expected.filter(|expected| expected.objects > tally.objects) {
                let what = format!("{prefix} holds {} of {} objects", tally.objects, expected.objects);
                return Err(self.missing(what));
            }
            debug!(prefix, %tally, "the ledger does not know these objects");
            healed.tallies.insert(prefix.clone(), tally);
            beyond.extend(self.read_day(prefix, objects, &mut read).await?);
        }
        self.refuse_missing(ledger, &survey, &mut read).await?;
        if ledger.lineage.sequence() == 0 {
            // Also where a run that began the history was killed before it wrote the journal.
            beyond = self.everything().await?;
        }
        beyond.extend(self.adopt_records(&mut healed.lineage).await?);
        if !healed.lineage.is_known() {
            // Only after the journal was looked at: another run may have begun it since the ledger was read.
            healed.lineage = Lineage::new(self.new_id());
        }
        if has_gone_back && ledger.lineage.sequence() > 0 {
            beyond.extend(self.beyond_the_journal(&healed.lineage).await?);
        }
        if beyond.is_empty() && healed.lineage == ledger.lineage && healed.tallies == ledger.tallies {
            return Ok(None);
        }
        let events = healed.take_contents(read);
        if ledger.lineage.is_known() {
            warn!(events, "the ledger did not know all that is stored; healing it from the archive");
        }
        Ok(Some(Healing { ledger: healed, beyond }))
    }

    pub(super) fn missing(&self, what: String) -> ArchiveError {
        ArchiveError::Incomplete { location: self.store.location(), what }
    }

    /// Every id that the ledger vouches for in a day that differs must be stored.
    async fn refuse_missing(
        &self,
        ledger: &Ledger,
        survey: &Survey,
        read: &mut Contents,
    ) -> Result<(), ArchiveError> {
        let lacking = |read: &Contents| -> Vec<EventId> {
            let vouched_for = ledger.iter().filter(|(id, seen)| {
                let day = seen.day.filter(|_| seen.fingerprint.is_known());
                day.is_some_and(|day| read.days.contains(&day)) && !read.ids.contains(id)
            });
            vouched_for.map(|(id, _)| id).collect()
        };
        if lacking(read).is_empty() {
            return Ok(());
        }
        // A day may have moved since an event was stored.
        let days: BTreeSet<NaiveDate> = read.days.clone();
        for (prefix, objects) in survey {
            if Place::of_prefix(prefix)
                .is_some_and(|place| place.kind == Kind::Events && !days.contains(&place.day))
            {
                for object in self.read_objects(objects).await? {
                    read.ids.extend(events_of(&object.0, &object.1).iter().map(|event| event.id));
                }
            }
        }
        let absent = lacking(read);
        match absent.iter().min() {
            None => Ok(()),
            Some(least) => Err(self.missing(format!(
                "{} events that the ledger knows, such as {least}, are not stored",
                absent.len()
            ))),
        }
    }

    /// All objects, for a journal that begins.
    async fn everything(&self) -> Result<Vec<CommittedObject>, ArchiveError> {
        let all = self.list_everything().await?;
        if !all.is_empty() {
            info!(objects = all.len(), "the journal of the archive begins with what it holds");
        }
        Ok(unread(&all))
    }

    /// The objects of all days that no record of the journal names.
    async fn beyond_the_journal(&self, lineage: &Lineage) -> Result<Vec<CommittedObject>, ArchiveError> {
        let mut objects = self.list_everything().await?;
        let unnamed = self.unjournaled(lineage, unread(&objects)).await?;
        let unnamed: FxHashSet<&str> = unnamed.iter().map(|object| object.key.as_str()).collect();
        objects.retain(|object| unnamed.contains(object.key.as_str()));
        let contents = self.read_objects(&objects).await?;
        Ok(contents.iter().map(|(key, bytes)| committed(key, bytes)).collect())
    }

    /// All objects under the names of the archive.
    async fn list_everything(&self) -> Result<Vec<Listed>, ArchiveError> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            all.extend(self.store.list(&format!("{kind}/")).await?);
        }
        all.retain(|object| Place::of(object.key.as_str()).is_some());
        Ok(all)
    }

    /// The history of an archive whose ledger has none: that of its journal, or a new one.
    pub(super) async fn begin_lineage(&self) -> Result<Lineage, ArchiveError> {
        let first = self.record_at(1).await?;
        Ok(Lineage::new(first.map_or_else(|| self.new_id(), |first| first.archive)))
    }

    /// An id that no other archive has.
    fn new_id(&self) -> String {
        let unique = format!("{} {} {}", self.liveness.name(), self.now(), self.store.identity());
        format!("{:016x}", XxHash3_64::oneshot(unique.as_bytes()))
    }

    /// Lists the days that the ledger vouches for.
    async fn survey(&self, ledger: &Ledger) -> Result<Survey, ArchiveError> {
        let listings = self.prefixes_to_list(ledger);
        let listings =
            listings.into_iter().map(|prefix| async move { self.store.list(&prefix).await }.boxed());
        let listed: Vec<Vec<Listed>> = buffered(self.parallel(), listings).try_collect().await?;
        // Days that hold nothing must be compared as well.
        let mut survey: Survey = ledger.tallies.keys().map(|prefix| (prefix.clone(), Vec::new())).collect();
        for object in listed.into_iter().flatten() {
            let Some(place) = Place::of(object.key.as_str()) else { continue };
            let prefix = prefix_of(object.key.as_str());
            if self.is_vouched_for(ledger, prefix, place) {
                survey.entry(prefix.to_owned()).or_default().push(object);
            }
        }
        for objects in survey.values_mut() {
            objects.sort();
            objects.dedup();
        }
        Ok(survey)
    }

    fn is_vouched_for(&self, ledger: &Ledger, prefix: &str, place: Place) -> bool {
        ledger.tallies.contains_key(prefix)
            || match place.kind {
                Kind::Events | Kind::Revisions => !ledger.is_late(place.day),
                Kind::Rejected | Kind::Withdrawn => place.day >= self.first_run_day(),
            }
    }

    fn first_run_day(&self) -> NaiveDate {
        let today = self.now().date_naive();
        today.checked_sub_days(Days::new(RUN_DAYS as u64)).unwrap_or(today)
    }

    /// The prefixes whose listings show all days that the ledger vouches for, none twice.
    fn prefixes_to_list(&self, ledger: &Ledger) -> Vec<String> {
        let known: Vec<Place> = ledger.tallies.keys().filter_map(|prefix| Place::of_prefix(prefix)).collect();
        let last = known.iter().map(|place| place.day).max().unwrap_or_default();
        let last = last.max(self.now().date_naive()).checked_add_days(Days::new(2)).unwrap_or(NaiveDate::MAX);
        let mut prefixes = Vec::new();
        for kind in Kind::ALL {
            let first = match kind {
                Kind::Events | Kind::Revisions => ledger.is_complete_after(),
                Kind::Rejected | Kind::Withdrawn => self.first_run_day(),
            };
            let Some(months) = months(first, last) else {
                prefixes.push(format!("{kind}/"));
                continue;
            };
            let of_month = |month: &NaiveDate| format!("{kind}/{:04}/{:02}/", month.year(), month.month());
            let of_kind = known.iter().filter(|place| place.kind == kind);
            let earlier = of_kind.filter(|place| !months.contains(&first_of_month(place.day)));
            prefixes.extend(earlier.map(|place| kind.day_prefix(place.day)));
            prefixes.extend(months.iter().map(of_month));
        }
        prefixes
    }

    /// Reads the objects of a day. Returns how commits name those that hold something.
    async fn read_day(
        &self,
        prefix: &str,
        objects: &[Listed],
        read: &mut Contents,
    ) -> Result<Vec<CommittedObject>, ArchiveError> {
        let Some(place) = Place::of_prefix(prefix) else { return Ok(Vec::new()) };
        if place.kind == Kind::Events {
            read.days.insert(place.day);
        }
        let contents = self.read_objects(objects).await?;
        for (key, bytes) in &contents {
            read.take(place.kind, key, bytes);
        }
        let held = contents.iter().filter(|(_, bytes)| !bytes.is_empty());
        Ok(held.map(|(key, bytes)| committed(key, bytes)).collect())
    }

    async fn read_objects(&self, objects: &[Listed]) -> Result<Vec<(Key, Vec<u8>)>, ArchiveError> {
        let reads = objects.iter().map(|listed| {
            async move {
                let object = self.read_listed(listed).await?;
                Ok::<_, ArchiveError>((listed.key.clone(), object.bytes))
            }
            .boxed()
        });
        buffered(self.parallel(), reads).try_collect().await
    }
}

/// What was read of the days that differ.
#[derive(Debug, Default)]
struct Contents {
    days: BTreeSet<NaiveDate>,
    ids: FxHashSet<EventId>,
    events: Vec<Event>,
    rejected: Vec<crate::event::Fingerprint>,
    withdrawn: Vec<(Vec<EventId>, Vec<EventId>)>,
}

impl Contents {
    fn take(&mut self, kind: Kind, key: &Key, bytes: &[u8]) {
        match kind {
            Kind::Events => {
                let events = events_of(key, bytes);
                self.ids.extend(events.iter().map(|event| event.id));
                self.events.extend(events);
            }
            Kind::Revisions => {}
            Kind::Rejected => self.rejected.extend(rejected_in(bytes)),
            Kind::Withdrawn => self.withdrawn.push(withdrawn_in(bytes)),
        }
    }
}

impl Ledger {
    /// Remembers what was read. Returns how many events it did not know.
    fn take_contents(&mut self, read: Contents) -> usize {
        let (capacity_before, mut events) = (self.len(), 0);
        for event in read.events {
            if self.get(event.id).is_none() && !self.is_late(event.day) {
                self.remember(event);
                events += 1;
            }
        }
        self.extend_rejected(read.rejected, &FxHashSet::default());
        for (gone, back) in &read.withdrawn {
            let new: Vec<EventId> = gone.iter().copied().filter(|id| !self.is_withdrawn(*id)).collect();
            self.note_withdrawn(&new, back);
        }
        self.forget_oldest_outside_window();
        debug!(capacity_before, events, "the ledger remembers what was read");
        events
    }
}

pub(crate) fn tally_of(objects: &[Listed]) -> Tally {
    let mut tally = Tally::default();
    let own = objects.iter().filter(|object| Place::of(object.key.as_str()).is_some());
    own.for_each(|object| tally.add(object.key.as_str(), object.size_bytes));
    tally
}

fn first_of_month(day: NaiveDate) -> NaiveDate {
    day.with_day(1).unwrap_or(day)
}

/// The first days of the months from one day to another; nothing if they are too many to list one by one.
fn months(first: NaiveDate, last: NaiveDate) -> Option<BTreeSet<NaiveDate>> {
    if first.year() < 1970 {
        return None;
    }
    let months = std::iter::successors(Some(first_of_month(first)), |month| {
        month.checked_add_months(Months::new(1)).filter(|month| *month <= last)
    });
    let months: BTreeSet<NaiveDate> = months.take(MONTHS + 1).collect();
    (months.len() <= MONTHS).then_some(months)
}
