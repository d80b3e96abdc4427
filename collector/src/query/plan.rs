//! Which objects are read, and in which order.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;

use super::{Account, Cursor, Query, Revisions, Unreadable, cover};
use crate::archive::{Archive, Kind, Place};
use crate::concurrency::buffered;
use crate::store::{Key, Listed};

/// The days that are read.
#[derive(Debug, Clone)]
pub(super) enum Days {
    /// From the first one, or the beginning, to the last one.
    Between(Option<NaiveDate>, NaiveDate),
    These(BTreeSet<NaiveDate>),
}

impl Days {
    /// From some day on, listings end a little after today; of all days no clock has to be believed.
    pub(super) fn between(from: Option<NaiveDate>, to: Option<NaiveDate>, now: DateTime<Utc>) -> Self {
        let soon = || (now + TimeDelta::days(2)).date_naive();
        Self::Between(from, to.or_else(|| from.map(|_| soon())).unwrap_or(NaiveDate::MAX))
    }

    fn contain(&self, day: NaiveDate) -> bool {
        match self {
            Self::Between(from, to) => from.is_none_or(|from| day >= from) && day <= *to,
            Self::These(days) => days.contains(&day),
        }
    }

    fn prefixes(&self, kind: Kind) -> Vec<String> {
        match self {
            Self::Between(from, to) => cover::prefixes(kind, *from, *to),
            Self::These(days) => cover::prefixes_of(kind, days),
        }
    }
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

impl Archive {
    /// The objects to be read, in their order: day by day, later versions first where only the last one counts. And the
    /// listings that could not be had.
    pub(super) async fn objects_of(
        &self,
        days: &Days,
        query: &Query,
        account: &Account,
    ) -> (Vec<(Place, Listed)>, Vec<Unreadable>) {
        let kinds: &[Kind] = if query.revisions == Revisions::None {
            &[Kind::Events]
        } else {
            &[Kind::Events, Kind::Revisions]
        };
        let prefixes = kinds.iter().flat_map(|&kind| days.prefixes(kind)).collect();
        let (listed, unreadable) = self.list_all(prefixes, account).await;
        let count = listed.len();
        let mut objects: Vec<(Place, Listed)> = listed
            .into_iter()
            .filter(|(place, listed)| {
                let is_behind = |after| query.is_wanted(after, *place, &listed.key);
                days.contain(place.day) && query.after.as_ref().is_none_or(is_behind)
            })
            .collect();
        objects.sort_by_cached_key(|(place, listed)| query.rank(*place, &listed.key));
        account.change(|cost| cost.objects_skipped += count - objects.len());
        (objects, unreadable)
    }

    /// The objects of partitions whose names begin so, in no order.
    pub(super) async fn list_all(
        &self,
        prefixes: Vec<String>,
        account: &Account,
    ) -> (Vec<(Place, Listed)>, Vec<Unreadable>) {
        let listings = prefixes.into_iter().map(|prefix| async move { self.listing(&prefix).await }.boxed());
        let mut listings = buffered(self.parallel(), listings);
        let (mut objects, mut unreadable) = (Vec::new(), Vec::new());
        while let Some(listing) = listings.next().await {
            match listing {
                Ok((listed, origin)) => {
                    account.note_listing(origin, listed.len());
                    let placed = |listed: Listed| Some((Place::of(listed.key.as_str())?, listed));
                    objects.extend(listed.into_iter().filter_map(placed));
                }
                Err(error) => unreadable.push(Unreadable::of_store(error)),
            }
        }
        (objects, unreadable)
    }
}
