//! Which objects are read, and in which order.

use std::collections::BTreeSet;
use std::pin::Pin;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use futures_util::{FutureExt as _, future};

use super::{Account, Cursor, Query, Revisions, Unreadable, prefixes};
use crate::archive::{Archive, Kind, Place};
use crate::concurrency::buffered;
use crate::store::{Key, Listed, PageStart};

/// Number of listings whose first pages are asked for at a time.
const LISTINGS_AHEAD: usize = 4;

/// The days that are read.
#[derive(Debug, Clone)]
pub(super) enum Days {
    /// From the first one, or the beginning, to the last one.
    Between(Option<NaiveDate>, NaiveDate),
    These(BTreeSet<NaiveDate>),
}

impl Days {
    /// From some day on, listings end a little after today; with all days, no clock matters.
    pub(super) fn between(from: Option<NaiveDate>, to: Option<NaiveDate>, now: DateTime<Utc>) -> Self {
        let soon = || (now + TimeDelta::days(2)).date_naive();
        Self::Between(from, to.or_else(|| from.map(|_| soon())).unwrap_or(NaiveDate::MAX))
    }

    pub(super) fn contain(&self, day: NaiveDate) -> bool {
        match self {
            Self::Between(from, to) => from.is_none_or(|from| day >= from) && day <= *to,
            Self::These(days) => days.contains(&day),
        }
    }

    /// Those of them from one to another; nothing for no limit.
    #[cfg(feature = "tables")]
    pub(super) fn within(&self, first: Option<NaiveDate>, last: Option<NaiveDate>) -> Self {
        match self {
            Self::Between(from, to) => {
                Self::Between((*from).max(first), last.map_or(*to, |last| last.min(*to)))
            }
            Self::These(days) => {
                let is_within = |day: &&NaiveDate| {
                    first.is_none_or(|first| first <= **day) && last.is_none_or(|last| **day <= last)
                };
                Self::These(days.iter().filter(is_within).copied().collect())
            }
        }
    }

    /// The listings of these days, from the day of a cursor on.
    fn listings(&self, kind: Kind, after: Option<&Cursor>) -> Vec<Listing> {
        let begin = after.map(|after| kind.day_prefix(after.place().day)).unwrap_or_default();
        let prefixes = match self {
            Self::Between(from, to) => prefixes::of_period(kind, *from, *to),
            Self::These(days) => prefixes::of_days(kind, days),
        };
        let behind = prefixes.into_iter().filter(|prefix| *prefix >= begin || begin.starts_with(prefix));
        behind
            .map(|prefix| {
                let is_inside = begin.len() > prefix.len() && begin.starts_with(&prefix);
                let start = if is_inside { PageStart::After(begin.clone()) } else { PageStart::First };
                (prefix, start)
            })
            .collect()
    }
}

impl Query {
    /// Where an object stands among those that are read: by day, and of a day the later versions first where only the last
    /// one counts.
    pub(super) fn rank<'k>(&self, place: Place, key: &'k Key) -> (NaiveDate, bool, &'k Key) {
        let revisions_first = self.revisions == Revisions::Latest;
        (place.day, (place.kind == Kind::Events) == revisions_first, key)
    }

    /// Whether an object can hold anything behind a cursor.
    pub(super) fn is_wanted(&self, after: &Cursor, place: Place, key: &Key) -> bool {
        let tells_versions = self.revisions == Revisions::Latest && place.kind == Kind::Revisions;
        let is_of_that_day = place.day == after.place().day;
        (tells_versions && is_of_that_day) || self.rank(place, key) >= self.rank(after.place(), after.key())
    }
}

/// What is read next: an object, or what stands for a listing that could not be had.
pub(super) type Step = Result<(Place, Listed), Unreadable>;

/// A listing: how the names begin, and where.
pub(super) type Listing = (String, PageStart);

impl Archive {
    /// The objects to be read, in their order: day by day, later versions first where only the last one counts. Pages of
    /// listings are asked for as the objects are.
    pub(super) fn objects_of(&self, days: &Days, query: &Query, account: &Account) -> BoxStream<'_, Step> {
        let events = self.wanted(Kind::Events, days, query, account);
        if query.revisions == Revisions::None {
            return events;
        }
        let both = (events.peekable(), self.wanted(Kind::Revisions, days, query, account).peekable());
        let query = query.clone();
        stream::unfold(both, move |(mut events, mut revisions)| {
            let query = query.clone();
            async move {
                let is_first = {
                    let event = Pin::new(&mut events).peek().await;
                    let revision = Pin::new(&mut revisions).peek().await;
                    match (event, revision) {
                        (Some(Ok((place, one))), Some(Ok((other_place, other)))) => {
                            query.rank(*place, &one.key) <= query.rank(*other_place, &other.key)
                        }
                        (Some(Err(_)), _) | (Some(Ok(_)), None) => true,
                        (_, Some(_)) | (None, None) => false,
                    }
                };
                let next = if is_first { events.next().await } else { revisions.next().await };
                Some((next?, (events, revisions)))
            }
            .boxed()
        })
        .boxed()
    }

    /// The objects of a kind that may hold what is asked for.
    fn wanted(&self, kind: Kind, days: &Days, query: &Query, account: &Account) -> BoxStream<'_, Step> {
        let listings = days.listings(kind, query.after.as_ref());
        let (days, query, skipped) = (days.clone(), query.clone(), account.clone());
        let is_wanted = move |step: &Step| {
            let (place, listed) = match step {
                Ok(step) => step,
                Err(unreadable) => return unreadable.day.is_none_or(|day| days.contain(day)),
            };
            let is_behind = |after| query.is_wanted(after, *place, &listed.key);
            let is_wanted = days.contain(place.day) && query.after.as_ref().is_none_or(is_behind);
            skipped.change(|cost| cost.objects_skipped += usize::from(!is_wanted));
            is_wanted
        };
        self.listed(listings, account).filter(move |step| future::ready(is_wanted(step))).boxed()
    }

    /// The objects of partitions that listings name, in their order. The first pages of a few listings are asked for ahead.
    pub(super) fn listed(&self, listings: Vec<Listing>, account: &Account) -> BoxStream<'_, Step> {
        let begun = listings.into_iter().map(move |(prefix, start)| {
            async move {
                let mut pages = self.pages(self.cached(), prefix, start);
                let first = pages.next().await;
                stream::iter(first).chain(pages)
            }
            .boxed()
        });
        let (account, location) = (account.clone(), self.store().location());
        buffered(self.parallel().min(LISTINGS_AHEAD), begun)
            .flatten()
            .flat_map(move |page| {
                stream::iter(match page {
                    Ok((page, origin)) => {
                        account.note_listing(origin, page.objects.len());
                        let placed = |listed: Listed| Some(Ok((Place::of(listed.key.as_str())?, listed)));
                        let lost = page.unreadable.into_iter().map(|folder| {
                            let day = Place::of_prefix(&format!("{}/", folder.name)).map(|place| place.day);
                            Err(Unreadable { day, ..Unreadable::of_store(folder.into_error(&location)) })
                        });
                        page.objects.into_iter().filter_map(placed).chain(lost).collect::<Vec<Step>>()
                    }
                    Err(error) => vec![Err(Unreadable::of_store(error))],
                })
            })
            .boxed()
    }
}
