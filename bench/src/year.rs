//! A year of events as an archive holds it that was polled every half hour, and a store that is far away.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, Datelike as _, NaiveDate, NaiveTime, TimeDelta, Utc};
use collector::archive::Kind;
use collector::event::EventId;
use collector::store::{Key, Listed, MemoryStore, Object, SharedStore, Store, StoreError, Version, Write};
use fixtures::{Feed, FeedConfig, What};

/// The year.
pub const YEAR: i32 = 2025;
/// The approximate number of events.
pub const EVENTS: f64 = 90_000.0;
const POLLS_A_YEAR: i64 = 365 * 48;

/// The first moment of a year in Stockholm.
#[must_use]
pub fn first_moment(year: i32) -> DateTime<Utc> {
    let midnight = NaiveDate::from_ymd_opt(year, 1, 1).unwrap_or_default().and_time(NaiveTime::MIN);
    midnight.and_utc() - TimeDelta::hours(1)
}

/// Objects of an archive.
#[derive(Debug)]
pub struct Year {
    /// By name.
    pub objects: BTreeMap<Key, Vec<u8>>,
    /// The events' numbers, in the order in which they were published.
    pub ids: Vec<EventId>,
}

impl Year {
    /// The same one each time; made once in a process.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Year> = OnceLock::new();
        SHARED.get_or_init(|| Self::make(1))
    }

    /// The same number of events over some years, of which the last one is [`YEAR`].
    #[must_use]
    pub fn make(years: u16) -> Self {
        let (first, years) = (YEAR + 1 - i32::from(years), i64::from(years));
        let (start, polls) = (first_moment(first), years * POLLS_A_YEAR);
        let events_per_hour = EVENTS / (polls as f64 / 2.0);
        let mut feed = Feed::new(FeedConfig { start, events_per_hour, ..FeedConfig::default() });
        feed.drain_log();
        let (mut objects, mut ids) = (BTreeMap::<Key, Vec<u8>>::new(), Vec::new());
        for _ in 0..polls {
            feed.advance_by(TimeDelta::minutes(30));
            for change in feed.drain_log() {
                let kind = match change.what {
                    What::Published => Kind::Events,
                    What::Corrected => Kind::Revisions,
                    _ => continue,
                };
                let day = change.event.local_date();
                let Some(key) =
                    name_of(kind, day, feed.now()).filter(|_| (first..=YEAR).contains(&day.year()))
                else {
                    continue;
                };
                if kind == Kind::Events {
                    ids.push(change.event.id().cast_signed());
                }
                let lines = objects.entry(key).or_default();
                lines.extend_from_slice(change.event.bytes());
                lines.push(b'\n');
            }
        }
        Self { objects, ids }
    }

    /// A store in memory that holds it.
    pub async fn in_memory(&self) -> SharedStore {
        let store = MemoryStore::default();
        for (key, bytes) in &self.objects {
            // The names differ, and memory does not fail.
            let _ = store.create(key, bytes).await;
        }
        Arc::new(store)
    }

    /// Writes it as an archive in a folder, for other programs to read.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        for (key, bytes) in &self.objects {
            let path = folder.join(key.as_str());
            fs::create_dir_all(path.parent().unwrap_or(folder))?;
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// As a run names its objects.
fn name_of(kind: Kind, day: NaiveDate, run: DateTime<Utc>) -> Option<Key> {
    Key::new(format!("{}{kind}-{}.jsonl", kind.day_prefix(day), run.timestamp())).ok()
}

/// A store each of whose answers takes its time.
#[derive(Debug)]
pub struct Distant {
    inner: SharedStore,
    latency: Duration,
}

impl Distant {
    /// `inner`, so far away.
    #[must_use]
    pub fn new(inner: SharedStore, latency: Duration) -> Self {
        Self { inner, latency }
    }

    async fn travel(&self) {
        tokio::time::sleep(self.latency).await;
    }
}

#[async_trait]
impl Store for Distant {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.travel().await;
        self.inner.get(key).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        self.travel().await;
        self.inner.create(key, bytes).await
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        self.travel().await;
        self.inner.replace(key, bytes, expected).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.travel().await;
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.travel().await;
        self.inner.delete(key).await
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn is_sound_by_construction(&self) -> bool {
        self.inner.is_sound_by_construction()
    }
}
