//! Looks events up in the partitions of their days.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use futures_util::FutureExt as _;
use futures_util::stream::TryStreamExt as _;
use rustc_hash::{FxHashMap, FxHashSet};
use tracing::warn;

use super::compare::tally_of;
use super::day_index::DayIndex;
use super::layout::{Kind, Place};
use super::{Archive, ArchiveError};
use crate::concurrency::buffered;
use crate::event::{self, EventId, Response};
use crate::ledger::{Classification, Comparison, Doubt, Doubtful, Lineage, Tallies};
use crate::store::{Key, Listed};

/// What was listed to look events up.
#[derive(Debug, Default)]
pub(crate) struct LookedUp {
    /// Number of days.
    pub(crate) days: usize,
    /// What their listings showed.
    pub(crate) tallies: Tallies,
}

/// Stored versions of events.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    pub(super) contents: FxHashMap<EventId, FxHashSet<Vec<u8>>>,
    looked_up: LookedUp,
}

impl Archive {
    /// Lets the archive judge what the ledger alone cannot. Returns what it listed for that. `lineage` is the history of the
    /// ledger.
    pub(crate) async fn settle(
        &self,
        response: &Response<'_>,
        classified: &mut Classification,
        lineage: &Lineage,
    ) -> Result<LookedUp, ArchiveError> {
        if classified.doubtful.is_empty() {
            return Ok(LookedUp::default());
        }
        let mut versions = self.look_up(wanted(response, &classified.doubtful), Some(lineage)).await?;
        self.settle_by(&mut versions, response, classified);
        Ok(versions.looked_up)
    }

    /// Judges the doubtful elements by the stored versions of their events.
    pub(super) fn settle_by(
        &self,
        versions: &mut Versions,
        response: &Response<'_>,
        classified: &mut Classification,
    ) {
        for item in std::mem::take(&mut classified.doubtful) {
            let comparison = versions.judge(response, &item);
            let skipped = comparison == Comparison::Revised && !self.options.revisions;
            classified.settle(item, if skipped { Comparison::Stored } else { comparison });
        }
    }

    /// Which of these events are stored in their days.
    ///
    /// # Errors
    /// [`ArchiveError`] if the archive cannot be read.
    pub async fn stored_among(
        &self,
        events: &[(EventId, NaiveDate)],
    ) -> Result<BTreeSet<EventId>, ArchiveError> {
        let mut wanted = Wanted::new();
        for &(id, day) in events {
            wanted.entry(day).or_default().insert(id);
        }
        Ok(self.look_up(wanted, None).await?.contents.into_keys().collect())
    }

    /// Every stored version of the wanted events, from the days they are wanted of. With a lineage, the objects of busy days are
    /// indexed, and those that an index excludes are not read.
    async fn look_up(&self, wanted: Wanted, lineage: Option<&Lineage>) -> Result<Versions, ArchiveError> {
        let lineage = lineage.filter(|lineage| lineage.is_known());
        let mut versions = Versions::default();
        versions.looked_up.days = wanted.len();
        let listings = self.listings_of(wanted.keys().copied().collect()).await?;
        for listing in &listings {
            versions.looked_up.tallies.insert(listing.prefix.clone(), tally_of(&listing.objects));
        }
        let mut reads = Vec::new();
        let mut indexes = Vec::new();
        for (position, DayListing { day, prefix, objects }) in listings.iter().enumerate() {
            let ids = &wanted[day];
            let is_busy = objects.len() > self.options.unindexed_objects;
            let index = match lineage.filter(|_| is_busy) {
                Some(lineage) => self.read_day_index(prefix, lineage).await,
                None => DayIndex::default(),
            };
            for listed in own(objects).filter(|listed| !index.excludes(listed, ids)) {
                let is_covered = index.covers(listed);
                let read = async move {
                    let object = self.read_listed(listed).await?;
                    Ok::<_, ArchiveError>((position, ObjectRead::new(listed, &object.bytes, ids, is_covered)))
                };
                reads.push(read.boxed());
            }
            indexes.push((index, Vec::new()));
        }
        let mut reads = buffered(self.parallel(), reads);
        while let Some((position, ObjectRead { found, unindexed })) = reads.try_next().await? {
            indexes[position].1.extend(unindexed);
            for (id, content) in found {
                versions.contents.entry(id).or_default().insert(content);
            }
        }
        for (DayListing { prefix, objects, .. }, (index, unindexed)) in listings.iter().zip(indexes) {
            if let Some(lineage) = lineage.filter(|_| unindexed.len() > self.options.unindexed_objects) {
                self.write_day_index(prefix, lineage, index.with(objects, unindexed)).await;
            }
        }
        Ok(versions)
    }

    /// The objects with events and with versions of each day.
    async fn listings_of(&self, days: Vec<NaiveDate>) -> Result<Vec<DayListing>, ArchiveError> {
        let listings = days.into_iter().flat_map(|day| {
            [Kind::Events, Kind::Revisions].map(|kind| {
                async move {
                    let prefix = kind.day_prefix(day);
                    let objects = self.store.list(&prefix).await?;
                    Ok::<_, ArchiveError>(DayListing { day, prefix, objects })
                }
                .boxed()
            })
        });
        buffered(self.parallel(), listings).try_collect().await
    }

    /// Reads all that is stored of days. What the listings showed.
    pub(super) async fn read_whole_days(
        &self,
        days: Vec<NaiveDate>,
        mut take: impl FnMut(NaiveDate, EventId, &[u8]) + Send,
    ) -> Result<Tallies, ArchiveError> {
        let listings = self.listings_of(days).await?;
        let tallies = listings.iter().map(|it| (it.prefix.clone(), tally_of(&it.objects))).collect();
        let objects = listings.iter().flat_map(|it| own(&it.objects).map(move |listed| (it.day, listed)));
        let reads: Vec<_> = objects
            .map(|(day, listed)| {
                async move { Ok::<_, ArchiveError>((day, listed, self.read_listed(listed).await?)) }.boxed()
            })
            .collect();
        let mut reads = buffered(self.parallel(), reads);
        while let Some((day, listed, object)) = reads.try_next().await? {
            for (id, line) in events_of(&listed.key, &object.bytes) {
                take(day, id, line);
            }
        }
        Ok(tallies)
    }
}

/// The objects of one kind and day.
struct DayListing {
    day: NaiveDate,
    prefix: String,
    objects: Vec<Listed>,
}

/// What an object answers.
struct ObjectRead {
    /// The content of each wanted event that it holds.
    found: Vec<(EventId, Vec<u8>)>,
    /// The ids of all its events, unless an index has them.
    unindexed: Option<(Listed, Vec<EventId>)>,
}

impl ObjectRead {
    fn new(listed: &Listed, bytes: &[u8], wanted: &FxHashSet<EventId>, is_indexed: bool) -> Self {
        let (mut found, mut ids) = (Vec::new(), Vec::new());
        for (id, line) in events_of(&listed.key, bytes) {
            ids.push(id);
            if wanted.contains(&id) {
                found.push((id, event::content(line)));
            }
        }
        Self { found, unindexed: (!is_indexed).then(|| (listed.clone(), ids)) }
    }
}

/// The objects of a listing that belong to an archive.
fn own(listed: &[Listed]) -> impl Iterator<Item = &Listed> {
    listed.iter().filter(|listed| Place::of(listed.key.as_str()).is_some())
}

pub(super) type Wanted = BTreeMap<NaiveDate, FxHashSet<EventId>>;

/// Which events to look for in which days: an event's own, and the one it was remembered with.
pub(super) fn wanted(response: &Response<'_>, doubtful: &[Doubtful]) -> Wanted {
    let mut wanted = Wanted::new();
    for item in doubtful {
        let elsewhere = match item.doubt {
            Doubt::Late => None,
            Doubt::Changed { home } => home,
            Doubt::Repeated { first } => response.elements()[first].event.ok().map(|event| event.day),
        };
        for day in elsewhere.into_iter().chain([item.event.day]) {
            wanted.entry(day).or_default().insert(item.event.id);
        }
    }
    wanted
}

/// The events of an object, with their lines.
fn events_of<'a>(key: &'a Key, bytes: &'a [u8]) -> impl Iterator<Item = (EventId, &'a [u8])> {
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.filter_map(move |line| match event::parse_line(line) {
        Ok(event) => Some((event.id, line)),
        Err(error) => {
            warn!(%key, %error, "a line of the archive cannot be read; `collector verify` shows more");
            None
        }
    })
}

impl Versions {
    /// Judges one element. A version judged to be stored or about to be counts for those that follow.
    fn judge(&mut self, response: &Response<'_>, item: &Doubtful) -> Comparison {
        let content_at = |position: usize| event::content(&response.line(&response.elements()[position]));
        let known = self.contents.entry(item.event.id).or_default();
        if let Doubt::Repeated { first } = item.doubt {
            known.insert(content_at(first));
        }
        let is_first = known.is_empty();
        let is_new = known.insert(content_at(item.position));
        match (is_new, is_first && item.doubt == Doubt::Late) {
            (_, true) => Comparison::New,
            (true, false) => Comparison::Revised,
            (false, false) => Comparison::Stored,
        }
    }
}
