//! Reads the archive: which events, of which days, in the order of the days.
//!
//! Only the partitions of the days that are asked for are listed and read, several at a time, and what is found is handed on
//! as it comes, so that the memory needed does not grow with the answer. Changes nothing, and may run beside a collector: what
//! a run has stored before the query begins is found.

mod cover;
mod cursor;
mod filter;
mod scan;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{NaiveDate, TimeDelta};
use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use thiserror::Error;

pub use cursor::{Cursor, InvalidCursor};
pub use filter::{Fields, Filter};

use crate::archive::{Archive, ArchiveError, Kind, Place};
use crate::event::EventId;
use crate::store::{Key, Listed, StoreError};
use scan::Scan;

/// Which versions of an event are told.
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
    /// Where an object stands among those that are read: by day, and of a day the later versions first where only the last
    /// one counts.
    fn rank(&self, place: Place, key: &Key) -> (NaiveDate, bool, Key) {
        let revisions_first = self.revisions == Revisions::Latest;
        (place.day, (place.kind == Kind::Events) == revisions_first, key.clone())
    }

    /// Whether an object can hold anything behind a cursor.
    fn is_wanted(&self, after: &Cursor, place: Place, key: &Key) -> bool {
        let tells_versions = self.revisions == Revisions::Latest && place.kind == Kind::Revisions;
        let is_of_that_day = place.day == after.place().day;
        (tells_versions && is_of_that_day) || self.rank(place, key) >= self.rank(after.place(), after.key())
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
    /// Where to go on after it.
    pub cursor: Cursor,
}

/// An object, or a line of one, that could not be read. The rest is told all the same.
#[derive(Debug, Error)]
#[error("{place}: {reason}")]
pub struct Unreadable {
    place: String,
    reason: Box<dyn std::error::Error + Send + Sync>,
}

/// What a query cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Listings that were asked for.
    pub listings: usize,
    /// Objects that they named.
    pub objects_listed: usize,
    /// Objects that lie outside of the days, or before the cursor.
    pub objects_skipped: usize,
    /// Objects that were read.
    pub objects_read: usize,
    /// Their size.
    pub bytes_read: u64,
    /// Lines in them.
    pub lines: usize,
    /// Events that were asked for.
    pub found: usize,
    /// Objects and lines that could not be read.
    pub unreadable: usize,
}

/// What is found, as it comes.
pub struct Answer<'a> {
    stream: Pin<Box<dyn Stream<Item = Result<Found, Unreadable>> + Send + 'a>>,
    cost: Arc<Mutex<Cost>>,
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answer").field("cost", &self.cost()).finish_non_exhaustive()
    }
}

impl Answer<'_> {
    /// The next event, or what could not be read in its place.
    pub async fn next(&mut self) -> Option<Result<Found, Unreadable>> {
        self.stream.next().await
    }

    /// What it has cost so far.
    #[must_use]
    pub fn cost(&self) -> Cost {
        *self.cost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Archive {
    /// Begins to look for events.
    ///
    /// # Errors
    /// [`ArchiveError`] if the store cannot be listed. What cannot be read later is told in its place.
    pub async fn query(&self, query: &Query) -> Result<Answer<'_>, ArchiveError> {
        let cost = Arc::new(Mutex::new(Cost::default()));
        let objects = self.objects_of(query, &cost).await?;
        let reads = stream::iter(objects).map(move |(place, key)| async move {
            let object = self.store().get(&key).await;
            (place, key, object)
        });
        let mut scan = Scan::new(query.clone(), Arc::clone(&cost));
        let found = reads
            .buffered(self.parallel())
            .flat_map(move |(place, key, object)| stream::iter(scan.take(place, &key, object)));
        Ok(Answer { stream: Box::pin(found), cost })
    }

    /// The objects to be read, in their order: day by day, later versions first where only the last one counts.
    async fn objects_of(&self, query: &Query, cost: &Mutex<Cost>) -> Result<Vec<(Place, Key)>, ArchiveError> {
        let kinds: &[Kind] = if query.revisions == Revisions::None {
            &[Kind::Events]
        } else {
            &[Kind::Events, Kind::Revisions]
        };
        // From some day on, listings end a little after today; of all days no clock has to be believed.
        let soon = || (self.now() + TimeDelta::days(2)).date_naive();
        let to = query.to.or_else(|| query.from.map(|_| soon())).unwrap_or(NaiveDate::MAX);
        let prefixes: Vec<String> =
            kinds.iter().flat_map(|&kind| cover::prefixes(kind, query.from, to)).collect();
        let count = prefixes.len();
        let listings = prefixes.into_iter().map(|prefix| async move { self.store().list(&prefix).await });
        let listed: Vec<Listed> = stream::iter(listings)
            .buffer_unordered(self.parallel())
            .map_ok(|listed| stream::iter(listed.into_iter().map(Ok::<_, StoreError>)))
            .try_flatten()
            .try_collect()
            .await?;
        let objects_listed = listed.len();
        let mut objects: Vec<(Place, Key)> = listed
            .into_iter()
            .filter_map(|listed| Some((Place::of(listed.key.as_str())?, listed.key)))
            .filter(|(place, _)| query.from.is_none_or(|from| place.day >= from) && place.day <= to)
            .filter(|(place, key)| {
                query.after.as_ref().is_none_or(|after| query.is_wanted(after, *place, key))
            })
            .collect();
        objects.sort_by_cached_key(|(place, key)| query.rank(*place, key));
        let mut cost = cost.lock().unwrap_or_else(PoisonError::into_inner);
        cost.listings = count;
        cost.objects_listed = objects_listed;
        cost.objects_skipped = objects_listed - objects.len();
        Ok(objects)
    }
}
