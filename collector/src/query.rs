//! Reads the archive: which events, of which days, in the order of the days.
//!
//! Only the partitions of the days that are asked for are listed and read, several at a time, and what is found is handed on
//! as it comes, so that the memory needed does not grow with the answer. Changes nothing, and may run beside a collector: what
//! a run has stored before the query begins is found; through a cache ([`Archive::with_cache`]) at once if the run shares the
//! cache, and otherwise after its time to live at the latest.

pub mod blocking;
mod cursor;
mod filter;
mod lookup;
mod plan;
mod prefixes;
mod scan;
#[cfg(feature = "tables")]
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use chrono::NaiveDate;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use futures_util::{FutureExt as _, future};
use serde::Serialize;
use thiserror::Error;

pub use cursor::{Cursor, InvalidCursor};
pub use filter::Filter;
pub use lookup::LookUp;

use crate::archive::Archive;
use crate::cache::Origin;
use crate::event::{EventId, Fields};
use crate::store::{Key, StoreError};
use plan::Days;
use scan::Scan;

/// Which versions of an event are returned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Revisions {
    /// The first one, as it was stored when it was new.
    #[default]
    None,
    /// The last one that was stored for the event's day.
    Latest,
    /// All, each as it was stored.
    All,
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The first day; none for the beginning.
    pub from: Option<NaiveDate>,
    /// The last day; none for the last there is, or with a first day for today.
    pub to: Option<NaiveDate>,
    /// Which events of these days.
    pub filter: Filter,
    /// Which versions of them.
    pub revisions: Revisions,
    /// Only what comes after this.
    pub after: Option<Cursor>,
}

impl Query {
    /// Whether nothing but their numbers says where the events are.
    fn knows_only_numbers(&self) -> bool {
        !self.filter.ids.is_empty() && self.from.is_none() && self.to.is_none() && self.after.is_none()
    }

    /// Whether a table's columns say how many events there are of each value, without what was sent.
    #[cfg(feature = "tables")]
    fn is_counted_in_columns(&self, by: CountBy) -> bool {
        // The last id ends the search; the last version is known from all; times can be written in ways with another hour.
        by != CountBy::Hour && self.revisions != Revisions::Latest && self.filter.ids.is_empty()
    }

    /// The ids with which the answer is complete: an id stands in one line under `events/`.
    fn ids_to_find(&self) -> BTreeSet<EventId> {
        if self.revisions == Revisions::None { self.filter.ids.clone() } else { BTreeSet::new() }
    }
}

/// An event that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub id: EventId,
    /// The day of its partition.
    pub day: NaiveDate,
    /// Whether it is a later version.
    pub is_revision: bool,
    /// Its JSON, as the feed sent it.
    pub json: Box<str>,
    /// Where to continue after it.
    pub cursor: Cursor,
    /// Where this version stands, if that is not what the cursor names.
    version: Option<Box<Line>>,
}

/// A line of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    object: Key,
    /// From 1.
    number: usize,
}

impl Found {
    /// The object that holds this version, and the number of its line, from 1.
    #[must_use]
    pub fn line(&self) -> (&Key, usize) {
        let named = (self.cursor.key(), self.cursor.lines());
        self.version.as_ref().map_or(named, |line| (&line.object, line.number))
    }
}

/// A listing, an object, or a line of one, that could not be read. The rest is returned all the same.
#[derive(Debug, Error)]
#[error("{place}: {reason}")]
pub struct Unreadable {
    place: String,
    /// The one day that it concerns, if it is known.
    day: Option<NaiveDate>,
    reason: Box<dyn std::error::Error + Send + Sync>,
}

impl Unreadable {
    fn new(place: String, reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { place, day: None, reason: reason.into() }
    }

    fn of_store(error: StoreError) -> Self {
        Self::new(error.target.clone(), error)
    }
}

/// What a query cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Listings that were looked at.
    pub listings: usize,
    /// Of these, the ones that the store was not asked for.
    pub listings_from_cache: usize,
    /// Objects that they named.
    pub objects_listed: usize,
    /// Objects that lie outside of the days, or before the cursor.
    pub objects_skipped: usize,
    /// Objects that were read.
    pub objects_read: usize,
    /// Of these, the ones that the store was not asked for.
    pub objects_from_cache: usize,
    /// Their size.
    pub bytes_read: u64,
    /// Of this, what the store was not asked for.
    pub bytes_from_cache: u64,
    /// Lines in them.
    pub lines: usize,
    /// Events that were asked for.
    pub found: usize,
    /// Listings, objects and lines that could not be read.
    pub unreadable: usize,
}

impl Cost {
    /// Requests to the store.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.listings - self.listings_from_cache + self.objects_read - self.objects_from_cache
    }
}

/// What was answered from tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TablesUse {
    /// Months whose table was read.
    pub months: Vec<String>,
    /// Objects that were committed since, or are being committed, and that were read beside the tables.
    pub objects_since: usize,
    /// Why objects were read where a table could be expected.
    pub not_used: Vec<String>,
}

/// What events are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountBy {
    /// What happened.
    Type,
    /// The name of the place.
    Location,
    /// The day of the partition, such as `2026-01-31`.
    Day,
    /// The hour of local time, from `00` to `23`; empty if the event states none.
    Hour,
}

impl CountBy {
    /// What an event counts for.
    #[must_use]
    pub fn value(self, event: &Fields<'_>, day: NaiveDate) -> String {
        match self {
            Self::Type => event.kind.to_string(),
            Self::Location => event.location.to_string(),
            Self::Day => day.to_string(),
            Self::Hour => event.hour().map_or_else(String::new, |hour| format!("{hour:02}")),
        }
    }
}

/// What all parts of a query add to.
#[derive(Debug, Default)]
struct Totals {
    cost: Cost,
    tables: TablesUse,
    counts: BTreeMap<String, u64>,
}

/// What a query cost so far, counted by all its parts.
#[derive(Debug, Clone, Default)]
struct Account {
    totals: Arc<Mutex<Totals>>,
    /// What events are counted by instead of being returned.
    by: Option<CountBy>,
}

impl Account {
    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Cost)) {
        change(&mut self.lock().cost);
    }

    fn add_counts(&self, counts: impl IntoIterator<Item = (impl Into<String>, u64)>) {
        let mut totals = self.lock();
        for (value, count) in counts {
            *totals.counts.entry(value.into()).or_default() += count;
            totals.cost.found += usize::try_from(count).unwrap_or(usize::MAX);
        }
    }

    /// Counts an event instead of returning it, if that is asked for.
    fn take(&self, item: Item) -> Option<Item> {
        let (Some(by), Ok(event)) = (self.by, &item) else { return Some(item) };
        match Fields::of(&event.json) {
            Ok(fields) => self.add_counts([(by.value(&fields, event.day), 1)]),
            Err(reason) => {
                return Some(Err(Unreadable::new(event.cursor.to_string(), reason)));
            }
        }
        None
    }

    #[cfg(feature = "tables")]
    fn note_tables(&self, change: impl FnOnce(&mut TablesUse)) {
        change(&mut self.lock().tables);
    }

    fn note_listing(&self, origin: Origin, objects: usize) {
        self.change(|cost| {
            cost.listings += 1;
            cost.listings_from_cache += usize::from(origin.is_cache());
            cost.objects_listed += objects;
        });
    }

    fn note_object(&self, origin: Origin, size_bytes: u64) {
        self.change(|cost| {
            cost.objects_read += 1;
            cost.bytes_read += size_bytes;
            if origin.is_cache() {
                cost.objects_from_cache += 1;
                cost.bytes_from_cache += size_bytes;
            }
        });
    }

    fn read(&self) -> Cost {
        self.lock().cost
    }
}

/// What is returned: an event, or what could not be read in its place.
type Item = Result<Found, Unreadable>;

/// What is found, as it comes. Nothing is asked of the store before it is asked of this.
pub struct Answer<'a> {
    stream: BoxStream<'a, Item>,
    account: Account,
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answer").field("cost", &self.cost()).finish_non_exhaustive()
    }
}

impl Answer<'_> {
    /// The next event, or what could not be read in its place.
    pub async fn next(&mut self) -> Option<Result<Found, Unreadable>> {
        StreamExt::next(self).await
    }

    /// What it has cost so far.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.account.read()
    }

    /// What was answered from tables so far.
    #[must_use]
    pub fn tables(&self) -> TablesUse {
        let mut tables = self.account.lock().tables.clone();
        tables.months.sort_unstable();
        tables
    }

    /// The number of events by what they are counted by, as far as they were read ([`Archive::count`]).
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.account.lock().counts.clone()
    }
}

impl Stream for Answer<'_> {
    type Item = Result<Found, Unreadable>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.stream.as_mut().poll_next(context);
        if let Poll::Ready(Some(item)) = &next {
            self.account.change(|cost| match item {
                Ok(_) => cost.found += 1,
                Err(_) => cost.unreadable += 1,
            });
        }
        next
    }
}

/// The items up to the last of the events with these ids.
fn until_found(found: BoxStream<'_, Item>, ids: BTreeSet<EventId>) -> BoxStream<'_, Item> {
    let missing = (found, ids);
    stream::unfold(missing, |(mut found, mut missing)| async move {
        if missing.is_empty() {
            return None;
        }
        let item = found.next().await?;
        if let Ok(event) = &item {
            missing.remove(&event.id);
        }
        Some((item, (found, missing)))
    })
    .boxed()
}

impl Archive {
    /// Looks for events. What cannot be read is reported in its place, and the rest is returned all the same.
    ///
    /// Where nothing but numbers is known of them, they are searched as by [`Archive::get_many`].
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use collector::archive::{Archive, ArchiveOptions};
    /// use collector::clock::SystemClock;
    /// use collector::query::{Filter, Query};
    /// use collector::store::MemoryStore;
    ///
    /// # async fn example() {
    /// let store = Arc::new(MemoryStore::default());
    /// let archive = Archive::new(store, Arc::new(SystemClock::default()), ArchiveOptions::default());
    /// let filter = Filter { types: vec!["Brand".to_owned()], ..Filter::default() };
    /// let mut answer = archive.query(&Query { filter, ..Query::default() });
    /// while let Some(Ok(event)) = answer.next().await {
    ///     println!("{}", event.json);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn query(&self, query: &Query) -> Answer<'_> {
        self.answer(query, Account::default())
    }

    /// Counts events instead of returning them: what is returned is only what cannot be read, and [`Answer::counts`] has the numbers
    /// at the end. Where tables hold what is counted, nothing else of the events is read.
    #[must_use]
    pub fn count(&self, query: &Query, by: CountBy) -> Answer<'_> {
        self.answer(query, Account { by: Some(by), ..Account::default() })
    }

    fn answer(&self, query: &Query, account: Account) -> Answer<'_> {
        let taking = account.clone();
        let items = self.begin(query.clone(), account.clone()).flatten_stream();
        let stream = items.filter_map(move |item| future::ready(taking.take(item)));
        Answer { stream: Box::pin(stream), account }
    }

    async fn begin(&self, query: Query, account: Account) -> BoxStream<'_, Item> {
        #[cfg(feature = "tables")]
        if let Some(tables) = self.usable_tables(&account).await {
            return self.answer_from(tables, query, account).await;
        }
        if !query.knows_only_numbers() {
            let days = Days::between(query.from, query.to, self.now());
            return self.read_days(&days, query, account);
        }
        let LookUp { found, unreadable, .. } = self.look_for(&query.filter.ids, &account).await;
        let unreadable = stream::iter(unreadable.into_iter().map(Err));
        if query.revisions == Revisions::None {
            let mut found: Vec<Found> = found.into_values().collect();
            let place = |event: &Found| (event.day, event.cursor.key().clone(), event.cursor.lines());
            found.sort_by_cached_key(place);
            found.retain(|event| query.filter.accepts_json(&event.json));
            return Box::pin(unreadable.chain(stream::iter(found.into_iter().map(Ok))));
        }
        let days = Days::These(found.values().map(|event| event.day).collect());
        Box::pin(unreadable.chain(self.read_days(&days, query, account)))
    }

    fn read_days(&self, days: &Days, query: Query, account: Account) -> BoxStream<'_, Item> {
        let ids = query.ids_to_find();
        let found = self.read_partitions(days, query, account);
        if ids.is_empty() { found } else { until_found(found, ids) }
    }

    fn read_partitions(&self, days: &Days, query: Query, account: Account) -> BoxStream<'_, Item> {
        let objects = self.objects_of(days, &query, &account);
        let reads = self.read_in_order(self.cached(), objects, |step| step.as_ref().ok().map(|(_, it)| it));
        let mut scan = Scan::new(query, account);
        Box::pin(reads.flat_map(move |(step, content)| {
            stream::iter(match (step, content) {
                (Ok((place, listed)), Some(content)) => scan.take(place, &listed.key, content),
                (Ok(_), None) => Vec::new(),
                (Err(error), _) => vec![Err(error)],
            })
        }))
    }
}
