//! How a cache was used.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) memory_hits: AtomicU64,
    pub(super) disk_hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) coalesced: AtomicU64,
    pub(super) evictions: AtomicU64,
}

/// How a cache was used by this process, and what it holds in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheMetrics {
    /// Answered from memory.
    pub memory_hits: u64,
    /// Answered from disk.
    pub disk_hits: u64,
    /// Asked for.
    pub misses: u64,
    /// Answered with what somebody else asked for at the same time.
    pub coalesced: u64,
    /// Let go of because there was no room.
    pub evictions: u64,
    /// Entries in memory.
    pub entries: u64,
    /// Their size.
    pub bytes: u64,
    /// Most bytes in memory.
    pub limit_bytes: u64,
}

impl CacheMetrics {
    /// The share of requests that were answered from memory or disk, 0 to 1; none without requests.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share of fewer than 2^52 requests")]
    pub fn hit_rate(&self) -> Option<f64> {
        let hits = self.memory_hits.saturating_add(self.disk_hits);
        let all = hits.saturating_add(self.misses).saturating_add(self.coalesced);
        (all > 0).then(|| hits as f64 / all as f64)
    }

    /// What two caches, or two processes, did; what they hold is that of the first.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            memory_hits: self.memory_hits.saturating_add(other.memory_hits),
            disk_hits: self.disk_hits.saturating_add(other.disk_hits),
            misses: self.misses.saturating_add(other.misses),
            coalesced: self.coalesced.saturating_add(other.coalesced),
            evictions: self.evictions.saturating_add(other.evictions),
            ..self
        }
    }
}

/// What a cache keeps on disk, and how all processes used it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct KeptOnDisk {
    /// Entries.
    pub entries: u64,
    /// Their size.
    pub bytes: u64,
    /// Most bytes that are kept.
    pub limit_bytes: u64,
    /// How all processes used it since it was cleared.
    pub used: CacheMetrics,
}

impl Counters {
    pub(super) fn read(&self, entries: u64, bytes: u64, limit_bytes: u64) -> CacheMetrics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheMetrics {
            memory_hits: of(&self.memory_hits),
            disk_hits: of(&self.disk_hits),
            misses: of(&self.misses),
            coalesced: of(&self.coalesced),
            // With no room at all nothing is let go of that had been kept.
            evictions: if limit_bytes > 0 { of(&self.evictions) } else { 0 },
            entries,
            bytes,
            limit_bytes,
        }
    }
}
