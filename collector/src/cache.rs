//! Keeps what was read, so that it need not be read again: in memory, and on disk for the next process.
//!
//! What is kept is bytes under a name. Some names stand for the same bytes for ever, others grow old after a time, and
//! every name can be forgotten at once: what was being read under it at that moment is forgotten too, so that whoever asks
//! after [`Cache::forget`] is never answered with what was there before. Equal requests at the same time become one.
//! A cache never fails a request: what it cannot keep is read again.

mod counters;
pub(crate) mod disk;
mod generations;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use moka::future::Cache as Memory;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;

pub use counters::{CacheMetrics, KeptOnDisk};

use crate::clock::SharedClock;
use counters::Counters;
use disk::Disk;
use generations::{Generation, Generations};

/// What an entry needs beside its content, about, in bytes.
const OVERHEAD_BYTES: usize = 160;
/// So often is read again what was forgotten while it was read; after that it is answered without being kept.
const TRIES: usize = 3;

/// Bytes that several share.
pub type Content = Arc<Vec<u8>>;

/// How much is kept, where, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// Most bytes in memory. With none, equal requests at the same time still become one.
    pub memory_bytes: u64,
    /// How long an entry that may change is fresh.
    pub ttl: Duration,
    /// What is kept between processes.
    pub disk: Option<DiskOptions>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { memory_bytes: 32 * 1024 * 1024, ttl: Duration::from_secs(30), disk: None }
    }
}

/// What is kept between processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// A folder of the cache's own.
    pub folder: PathBuf,
    /// Most bytes in it, give or take those of one process.
    pub limit_bytes: u64,
    /// Whose answers these are; entries that another owner wrote are ignored.
    pub owner: String,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was asked for.
    Source,
    /// It was in memory.
    Memory,
    /// It was on disk.
    Disk,
    /// Somebody else asked for it at the same time.
    Shared,
}

impl Origin {
    /// Whether it came from the cache.
    #[must_use]
    pub fn is_cache(self) -> bool {
        self != Self::Source
    }
}

/// How long an answer is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// For ever: the name stands for this content and no other.
    Forever,
    /// For the time that [`CacheOptions::ttl`] says.
    Brief,
}

#[derive(Debug, Clone)]
struct Entry {
    content: Content,
    /// How long it is good, by [`crate::clock::Clock::elapsed`].
    good_until: Duration,
    /// What had been forgotten when the reading began.
    generation: Generation,
}

/// Why a name has no entry.
#[derive(Debug)]
enum NoEntry<E> {
    Nothing,
    Failed(Arc<E>),
}

/// What was read of one source.
pub struct Cache {
    memory: Memory<Arc<str>, Entry>,
    disk: Option<Disk>,
    generations: Generations,
    counters: Arc<Counters>,
    options: CacheOptions,
    clock: SharedClock,
}

impl fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cache").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Cache {
    /// An empty cache, or what an earlier process left on disk.
    #[must_use]
    pub fn new(options: CacheOptions, clock: SharedClock) -> Self {
        let counters = Arc::new(Counters::default());
        let evictions = Arc::clone(&counters);
        let memory = Memory::builder()
            .max_capacity(options.memory_bytes)
            .weigher(|name: &Arc<str>, entry: &Entry| {
                u32::try_from(entry.content.len() + name.len() + OVERHEAD_BYTES).unwrap_or(u32::MAX)
            })
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evictions.evictions.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build();
        let disk = options.disk.clone().map(Disk::new);
        Self { memory, disk, generations: Generations::default(), counters, options, clock }
    }

    /// What is kept under a name; or else what `read` brings, which is kept. Nothing if there is nothing: that is not kept.
    ///
    /// # Errors
    /// What `read` fails with.
    pub async fn get<E, R>(
        &self,
        name: &str,
        freshness: Freshness,
        mut read: impl FnMut() -> R,
    ) -> Result<(Option<Content>, Origin), Arc<E>>
    where
        E: Send + Sync + 'static,
        R: Future<Output = Result<Option<Vec<u8>>, E>>,
    {
        let name: Arc<str> = name.into();
        for _ in 0..TRIES {
            if let Some(entry) = self.memory.get(&name).await {
                if self.is_good(&name, &entry) {
                    self.counters.memory_hits.fetch_add(1, Ordering::Relaxed);
                    return Ok((Some(entry.content), Origin::Memory));
                }
                self.memory.invalidate(&name).await;
            }
            let asked_since = self.generations.now();
            let mut origin = Origin::Shared;
            let load = self.load(&name, freshness, &mut read, &mut origin);
            let entry = match self.memory.try_get_with(Arc::clone(&name), load).await {
                Ok(entry) => entry,
                Err(reason) => match &*reason {
                    NoEntry::Nothing => {
                        self.note(origin);
                        return Ok((None, origin));
                    }
                    NoEntry::Failed(error) => return Err(Arc::clone(error)),
                },
            };
            // Somebody else may have begun to read it before it was forgotten.
            if entry.generation >= asked_since || self.is_good(&name, &entry) {
                self.note(origin);
                return Ok((Some(entry.content), origin));
            }
            self.memory.invalidate(&name).await;
        }
        self.note(Origin::Source);
        Ok((read().await.map_err(Arc::new)?.map(Content::new), Origin::Source))
    }

    /// From disk, or else from the source.
    async fn load<E, R>(
        &self,
        name: &Arc<str>,
        freshness: Freshness,
        read: &mut impl FnMut() -> R,
        origin: &mut Origin,
    ) -> Result<Entry, NoEntry<E>>
    where
        R: Future<Output = Result<Option<Vec<u8>>, E>>,
    {
        let generation = self.generations.now();
        if let Some(disk) = &self.disk
            && let Some(kept) = disk.get(name).await
            && let Some(age) = self.age_of(kept.written_ms, freshness)
        {
            *origin = Origin::Disk;
            let good_until = self.good_until(freshness, age);
            return Ok(Entry { content: Arc::new(kept.content), good_until, generation });
        }
        *origin = Origin::Source;
        let good_until = self.good_until(freshness, Duration::ZERO);
        let written_ms = self.clock.now().timestamp_millis();
        let content = match read().await {
            Ok(Some(content)) => Arc::new(content),
            Ok(None) => return Err(NoEntry::Nothing),
            Err(error) => return Err(NoEntry::Failed(Arc::new(error))),
        };
        let entry = Entry { content, good_until, generation };
        if let Some(disk) = &self.disk
            && self.generations.is_current(name, entry.generation)
        {
            disk.put(name, written_ms, Arc::clone(&entry.content)).await;
            // It may have been forgotten while it was written.
            if !self.generations.is_current(name, entry.generation) {
                disk.remove(name).await;
            }
        }
        Ok(entry)
    }

    /// The age of an entry that another process wrote, if it is fresh. One from the future is not: a clock was set back.
    fn age_of(&self, written_ms: i64, freshness: Freshness) -> Option<Duration> {
        if freshness == Freshness::Forever {
            return Some(Duration::ZERO);
        }
        let age = self.clock.now().timestamp_millis().checked_sub(written_ms)?;
        let age = u64::try_from(age).ok()?;
        Some(Duration::from_millis(age)).filter(|age| *age < self.options.ttl)
    }

    /// Until when an entry of this age is fresh.
    fn good_until(&self, freshness: Freshness, age: Duration) -> Duration {
        match freshness {
            Freshness::Forever => Duration::MAX,
            Freshness::Brief => self.clock.elapsed() + self.options.ttl.saturating_sub(age),
        }
    }

    fn is_good(&self, name: &str, entry: &Entry) -> bool {
        self.clock.elapsed() < entry.good_until && self.generations.is_current(name, entry.generation)
    }

    fn note(&self, origin: Origin) {
        let counter = match origin {
            Origin::Source => &self.counters.misses,
            Origin::Memory => &self.counters.memory_hits,
            Origin::Disk => &self.counters.disk_hits,
            Origin::Shared => &self.counters.coalesced,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Invalidates a name after a change. Later requests read it again.
    pub async fn forget(&self, name: &str) {
        self.generations.advance(name);
        self.memory.invalidate(name).await;
        if let Some(disk) = &self.disk {
            disk.remove(name).await;
        }
    }

    /// Forgets everything, on disk as well. Returns how many bytes that were there.
    ///
    /// # Errors
    /// If something on disk cannot be removed.
    pub async fn clear(&self) -> std::io::Result<u64> {
        self.generations.advance_all();
        self.memory.invalidate_all();
        match &self.disk {
            Some(disk) => disk.clear().await,
            None => Ok(0),
        }
    }

    /// How it was used by this process.
    pub async fn metrics(&self) -> CacheMetrics {
        self.memory.run_pending_tasks().await;
        self.counters.read(self.memory.entry_count(), self.memory.weighted_size(), self.options.memory_bytes)
    }

    /// What is on disk, and how it was used by all processes.
    pub async fn kept_on_disk(&self) -> Option<KeptOnDisk> {
        match &self.disk {
            Some(disk) => Some(disk.survey().await),
            None => None,
        }
    }

    /// Adds what this process did to what all did, and lets go of what is too much on disk. To be called at the end.
    pub async fn close(&self) {
        if let Some(disk) = &self.disk {
            disk.close(self.metrics().await).await;
        }
    }
}

#[cfg(test)]
mod tests;
