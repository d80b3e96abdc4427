//! Reading the archive: through the cache, and over a store that is 200 ms away. Time passes virtually there, so what is
//! measured is what it costs this machine; how long it takes one who waits: `--bin bench-reading`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use collector::archive::{Archive, ArchiveOptions};
use collector::cache::{Cache, CacheOptions, Freshness};
use collector::clock::SystemClock;
use collector::query::Query;
use collector::store::SharedStore;
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};

use super::{Entry, Throughput, Work, entries};
use crate::year::{Distant, YEAR, Year};

/// How far the store is.
pub const LATENCY: Duration = Duration::from_millis(200);
/// Requests at a time where they are not made one after the other.
pub const PARALLEL: usize = 16;

pub(super) const ENTRIES: &[Entry] = entries![
    "cache"/"hit"/"1", Elements(1), hit();
    "cache"/"miss"/"1", Elements(1), miss();
    "cache"/"coalesced"/"100", Elements(100), coalesced();
    "query"/"sequential"/"day", Elements(1), query(Span::Day, 1);
    "query"/"concurrent"/"day", Elements(1), query(Span::Day, PARALLEL);
    "query"/"sequential"/"week", Elements(7), query(Span::Week, 1);
    "query"/"concurrent"/"week", Elements(7), query(Span::Week, PARALLEL);
    "query"/"sequential"/"month", Elements(31), query(Span::Month, 1);
    "query"/"concurrent"/"month", Elements(31), query(Span::Month, PARALLEL);
    "query"/"sequential"/"year", Elements(365), query(Span::Year, 1);
    "query"/"concurrent"/"year", Elements(365), query(Span::Year, PARALLEL);
    "query"/"cached"/"month", Elements(31), cached_month();
];

/// Some days of the year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// One.
    Day,
    /// Seven.
    Week,
    /// 31.
    Month,
    /// 365.
    Year,
}

impl Span {
    /// Each.
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Year];

    /// The query for its events.
    #[must_use]
    pub fn query(self) -> Query {
        let day = |month, day| NaiveDate::from_ymd_opt(YEAR, month, day);
        let (from, to) = match self {
            Self::Day => (day(3, 12), day(3, 12)),
            Self::Week => (day(3, 10), day(3, 16)),
            Self::Month => (day(3, 1), day(3, 31)),
            Self::Year => (day(1, 1), day(12, 31)),
        };
        Query { from, to, ..Query::default() }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

/// A runtime whose time passes at once when everybody waits.
///
/// # Errors
/// If the system gives none.
pub fn virtual_time() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_time().start_paused(true).build()
}

fn cache_of(memory_bytes: u64) -> Cache {
    Cache::new(CacheOptions { memory_bytes, ..CacheOptions::default() }, Arc::new(SystemClock::default()))
}

async fn ask(cache: &Cache, name: &str) {
    let read = || async { Ok::<_, std::convert::Infallible>(Some(vec![b'x'; 1_700])) };
    let _ = black_box(cache.get(name, Freshness::Forever, read).await);
}

fn in_runtime(mut work: impl AsyncFnMut() + 'static) -> Work {
    match virtual_time() {
        Ok(runtime) => Box::new(move || runtime.block_on(work())),
        Err(_) => Box::new(|| ()),
    }
}

fn hit() -> Work {
    let cache = cache_of(1 << 20);
    in_runtime(async move || ask(&cache, "object 1700 events/2025/03/12/events-1741737600.jsonl").await)
}

fn miss() -> Work {
    let (cache, mut number) = (cache_of(1 << 20), 0_u64);
    in_runtime(async move || {
        number += 1;
        ask(&cache, &format!("object 1700 events/2025/03/12/events-{number}.jsonl")).await;
    })
}

/// A hundred that ask for the same at the same time, and one that answers.
fn coalesced() -> Work {
    let (cache, mut number) = (cache_of(1 << 20), 0_u64);
    in_runtime(async move || {
        number += 1;
        let name = format!("object 1700 events/2025/03/12/events-{number}.jsonl");
        let read = || async {
            tokio::task::yield_now().await;
            Ok::<_, std::convert::Infallible>(Some(vec![b'x'; 1_700]))
        };
        let asked = (0..100).map(|_| cache.get(&name, Freshness::Forever, read));
        black_box(join_all(asked).await.len());
    })
}

/// The archive of a year, so far away.
pub async fn distant(latency: Duration, parallel: usize) -> Archive {
    archive_in(Arc::new(Distant::new(Year::shared().in_memory().await, latency)), parallel)
}

/// The archive in a store, with a maximum number of concurrent requests.
#[must_use]
pub fn archive_in(store: SharedStore, parallel: usize) -> Archive {
    let options = ArchiveOptions { parallel, ..ArchiveOptions::default() };
    Archive::new(store, Arc::new(SystemClock::default()), options)
}

/// The number of events that are found.
pub async fn count(archive: &Archive, query: &Query) -> usize {
    let (mut answer, mut found) = (archive.query(query), 0);
    while let Some(event) = answer.next().await {
        found += usize::from(event.is_ok());
    }
    found
}

fn query(span: Span, parallel: usize) -> Work {
    let mut archive = None;
    in_runtime(async move || {
        let archive = match &mut archive {
            Some(archive) => archive,
            none => none.insert(distant(LATENCY, parallel).await),
        };
        black_box(count(archive, &span.query()).await);
    })
}

fn cached_month() -> Work {
    let mut archive = None;
    in_runtime(async move || {
        let archive = match &mut archive {
            Some(archive) => archive,
            none => none.insert(distant(LATENCY, PARALLEL).await.with_cache(Arc::new(cache_of(32 << 20)))),
        };
        black_box(count(archive, &Span::Month.query()).await);
    })
}
