//! Clients that query the archives while collectors write them.

use std::sync::Arc;

use chrono::NaiveDate;
use collector::archive::Archive;
use collector::cache::{Cache, CacheMetrics};
use collector::event::EventId;
use collector::query::{Filter, Query};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;

use super::open_loop::Tally;
use super::{Load, ReadLoad};
use crate::latency::{self, Percentiles};

/// What came of the queries.
#[derive(Debug, Serialize)]
pub struct Readings {
    /// Clients.
    pub clients: usize,
    /// Queries that were due in a second.
    pub offered_per_s: f64,
    /// Queries that were answered in a second.
    pub achieved_per_s: f64,
    /// Queries that were due.
    pub due: u64,
    /// Queries that were answered whole.
    pub succeeded: u64,
    /// Queries of which something could not be read.
    pub failed: u64,
    /// Queries that were not answered in the end.
    pub unfinished: u64,
    /// From the instant at which a query was due to its last event, in seconds.
    pub latency_s: Percentiles,
    /// From the instant at which a query began to its last event, in seconds.
    pub service_s: Percentiles,
    /// The share of what was read that came from the cache; none without one.
    pub hit_rate: Option<f64>,
    /// How the caches were used; none without one.
    pub cache: Option<CacheMetrics>,
}

impl Readings {
    pub(super) async fn of(tally: &Tally, reading: &ReadLoad, load: &Load, caches: &[Arc<Cache>]) -> Self {
        let mut cache: Option<CacheMetrics> = None;
        for each in caches {
            let metrics = each.metrics().await;
            cache = Some(cache.map_or(metrics, |all| all.plus(metrics)));
        }
        Self {
            clients: reading.clients,
            offered_per_s: reading.per_s,
            achieved_per_s: tally.achieved_per_s(load.duration),
            due: tally.due,
            succeeded: tally.succeeded,
            failed: tally.failed,
            unfinished: tally.due.saturating_sub(tally.done()),
            latency_s: latency::percentiles(&tally.latencies),
            service_s: latency::percentiles(&tally.services),
            hit_rate: cache.and_then(|cache| cache.hit_rate()),
            cache,
        }
    }
}

/// One that asks now for this and now for that.
pub(super) struct Reader {
    archive: Archive,
    rng: Pcg64Mcg,
    days: Vec<NaiveDate>,
    ids: Vec<EventId>,
}

impl Reader {
    /// A reader of an archive, who has seen it once.
    pub(super) async fn new(archive: Archive, number: u64) -> Self {
        let (mut days, mut ids) = (Vec::new(), Vec::new());
        let mut answer = archive.query(&Query::default());
        while let Some(event) = answer.next().await {
            if let Ok(event) = event {
                ids.push(event.id);
                if days.last() != Some(&event.day) {
                    days.push(event.day);
                }
            }
        }
        drop(answer);
        Self { archive, rng: Pcg64Mcg::seed_from_u64(number), days, ids }
    }

    /// Six in ten ask for a day, two for the last week by type, one for a text in everything, one for an event by its number.
    fn next_query(&mut self) -> Query {
        let rng = usize::try_from(self.rng.next_u64() >> 1).unwrap_or(0);
        let pick = |count: usize| rng / 10 % count.max(1);
        match rng % 10 {
            0..=5 => {
                let day = self.days.get(pick(self.days.len())).copied();
                Query { from: day, to: day, ..Query::default() }
            }
            6 | 7 => {
                let filter = Filter { types: vec!["Trafikolycka".to_owned()], ..Filter::default() };
                let from = self.days.get(self.days.len().saturating_sub(7)).copied();
                Query { from, filter, ..Query::default() }
            }
            8 => Query {
                filter: Filter { text: Some("brand".to_owned()), ..Filter::default() },
                ..Query::default()
            },
            _ => {
                let ids = self.ids.get(pick(self.ids.len())).copied().into_iter().collect();
                Query { filter: Filter { ids, ..Filter::default() }, ..Query::default() }
            }
        }
    }

    /// Asks once. Whether all that was asked for could be read.
    pub(super) async fn ask(&mut self) -> bool {
        let query = self.next_query();
        let mut answer = self.archive.query(&query);
        while let Some(event) = answer.next().await {
            if event.is_err() {
                return false;
            }
        }
        true
    }
}
