//! Looks events up in the partitions of their days.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use futures_util::FutureExt as _;
use futures_util::stream::TryStreamExt as _;
use rustc_hash::{FxHashMap, FxHashSet};
use tracing::warn;

use super::compare::tally_of;
use super::layout::{Kind, Place};
use super::{Archive, ArchiveError};
use crate::concurrency::buffered;
use crate::event::{self, EventId, Response};
use crate::ledger::{Doubt, Doubtful, News, Tallies, Verdict};
use crate::store::Key;

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
    /// Lets the archive judge what the ledger alone cannot. Returns what it listed for that.
    pub(crate) async fn settle(
        &self,
        response: &Response<'_>,
        news: &mut News,
    ) -> Result<LookedUp, ArchiveError> {
        if news.doubtful.is_empty() {
            return Ok(LookedUp::default());
        }
        let mut versions = self.look_up(wanted(response, &news.doubtful)).await?;
        self.settle_by(&mut versions, response, news);
        Ok(versions.looked_up)
    }

    /// Judges the doubtful elements by the stored versions of their events.
    pub(super) fn settle_by(&self, versions: &mut Versions, response: &Response<'_>, news: &mut News) {
        for item in std::mem::take(&mut news.doubtful) {
            let verdict = versions.judge(response, &item);
            let skipped = verdict == Verdict::Revised && !self.options.revisions;
            news.settle(item, if skipped { Verdict::Stored } else { verdict });
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
        Ok(self.look_up(wanted).await?.contents.into_keys().collect())
    }

    /// Every stored version of the wanted events, from the days they are wanted of.
    async fn look_up(&self, wanted: Wanted) -> Result<Versions, ArchiveError> {
        let mut versions = Versions::default();
        let days = wanted.iter().map(|(&day, ids)| (day, Some(ids))).collect();
        versions.looked_up.tallies = self
            .read_versions_of(days, |_, id, line| {
                _ = versions.contents.entry(id).or_default().insert(event::content(line));
            })
            .await?;
        versions.looked_up.days = wanted.len();
        Ok(versions)
    }

    /// Reads what is stored of days, of all events or of some. What the listings showed.
    pub(super) async fn read_versions_of(
        &self,
        days: Vec<(NaiveDate, Option<&FxHashSet<EventId>>)>,
        mut take: impl FnMut(NaiveDate, EventId, &[u8]) + Send,
    ) -> Result<Tallies, ArchiveError> {
        let listings = days.into_iter().flat_map(|(day, ids)| {
            [Kind::Events, Kind::Revisions].map(|kind| {
                async move {
                    let prefix = kind.day_prefix(day);
                    let listed = self.store.list(&prefix).await?;
                    Ok::<_, ArchiveError>((prefix, listed, day, ids))
                }
                .boxed()
            })
        });
        let listings: Vec<_> = buffered(self.parallel(), listings).try_collect().await?;
        let tallies =
            listings.iter().map(|(prefix, listed, ..)| (prefix.clone(), tally_of(listed))).collect();
        let objects = listings
            .into_iter()
            .flat_map(|(_, listed, day, ids)| listed.into_iter().map(move |it| (it, day, ids)));
        let own = objects.filter(|(listed, ..)| Place::of(listed.key.as_str()).is_some());
        let reads = own.map(|(listed, day, ids)| {
            async move {
                let object = self.read_listed(&listed).await?;
                Ok::<_, ArchiveError>((day, lines_of(&listed.key, &object.bytes, ids)))
            }
            .boxed()
        });
        let mut reads = buffered(self.parallel(), reads);
        while let Some((day, found)) = reads.try_next().await? {
            for (id, line) in found {
                take(day, id, &line);
            }
        }
        Ok(tallies)
    }
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

fn lines_of(key: &Key, bytes: &[u8], ids: Option<&FxHashSet<EventId>>) -> Vec<(EventId, Vec<u8>)> {
    let mut found = Vec::new();
    for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match event::parse_line(line) {
            Ok(event) if ids.is_none_or(|ids| ids.contains(&event.id)) => {
                found.push((event.id, line.to_vec()));
            }
            Ok(_) => {}
            Err(error) => {
                warn!(%key, %error, "a line of the archive cannot be read; `collector verify` tells more");
            }
        }
    }
    found
}

impl Versions {
    /// Judges one element. A version judged to be stored or about to be counts for those that follow.
    fn judge(&mut self, response: &Response<'_>, item: &Doubtful) -> Verdict {
        let content_at = |position: usize| event::content(&response.line(&response.elements()[position]));
        let known = self.contents.entry(item.event.id).or_default();
        if let Doubt::Repeated { first } = item.doubt {
            known.insert(content_at(first));
        }
        let is_first = known.is_empty();
        let is_new = known.insert(content_at(item.position));
        match (is_new, is_first && item.doubt == Doubt::Late) {
            (_, true) => Verdict::New,
            (true, false) => Verdict::Revised,
            (false, false) => Verdict::Stored,
        }
    }
}
