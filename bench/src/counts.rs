//! What an ordinary run does, counted: nothing of it depends on the machine or on the moment.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;
use collector::archive::{Archive, ArchiveOptions, Liveness};
use collector::clock::VirtualClock;
use collector::event::Response;
use collector::store::{Key, Listed, MemoryStore, Object, Store, StoreError, Version, Write};

use crate::Case;

/// How the heap was used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heap {
    /// Blocks allocated.
    pub blocks: u64,
    /// Bytes allocated.
    pub bytes: u64,
    /// Bytes that are held now.
    pub held: u64,
}

/// Counts by name, in their order.
pub type Counts = BTreeMap<String, u64>;

/// Counts what runs of 500 events do of which all are known, two are new, or all are new. `heap` tells blocks and bytes
/// allocated so far.
///
/// # Errors
/// If a run fails.
pub fn of_an_ordinary_run(heap: impl Fn() -> Heap) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for (name, new) in [("all_seen", 0), ("two_new", 2), ("all_new", 500)] {
        let case = Case::new(500, new);
        // What is made once and kept is not counted.
        black_box(case.objects());
        let before = heap();
        black_box(case.objects());
        let after = heap();
        counts.insert(format!("pipeline/{name}/500: blocks allocated"), after.blocks - before.blocks);
        counts.insert(format!("pipeline/{name}/500: bytes allocated"), after.bytes - before.bytes);
    }
    for events in [500, 5_000, 50_000] {
        let body = Case::new(events, events).body;
        let before = heap();
        let response = Response::parse(&body)?;
        let held = heap().held - before.held + body.len() as u64;
        counts.insert(format!("held/response of {events}: bytes"), held);
        drop(response);
    }
    let before = heap();
    let ledger = crate::full_ledger();
    counts.insert("held/ledger of 1000: bytes".to_owned(), heap().held - before.held);
    let document = ledger.to_document().len() as u64;
    counts.insert("held/ledger document of 1000: bytes".to_owned(), document);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(count_requests(&mut counts))?;
    Ok(counts)
}

async fn count_requests(counts: &mut Counts) -> anyhow::Result<()> {
    let store = Arc::new(CountingStore::default());
    let (first, second) = (Case::new(500, 500), Case::new(500, 2));
    let clock = Arc::new(VirtualClock::at(first.at));
    let archive = Archive::new(store.clone(), clock.clone(), ArchiveOptions::default());
    let archive = archive.with_liveness(Arc::new(Nobody));
    for (name, case, seconds) in
        [("all_new", &first, 0), ("two_new", &second, 60), ("all_seen", &second, 120)]
    {
        let at = case.at + chrono::TimeDelta::seconds(seconds);
        clock.set(at);
        let response = Response::parse(&case.body)?;
        store.forget();
        let snapshot = archive.open().await?;
        archive.deposit(&response, snapshot, at).await.context(name)?;
        for (what, count) in store.counted() {
            counts.insert(format!("run/{name}/500: {what}"), count);
        }
    }
    Ok(())
}

/// So that no claim names this process, whose number has as many digits as it happens to have.
#[derive(Debug)]
struct Nobody;

impl Liveness for Nobody {
    fn name(&self) -> String {
        "nobody".to_owned()
    }

    fn is_gone(&self, _: &str) -> bool {
        false
    }
}

/// A store in memory that counts what is asked of it.
#[derive(Debug, Default)]
struct CountingStore {
    inner: MemoryStore,
    requests: Mutex<BTreeMap<&'static str, u64>>,
    written: AtomicU64,
}

impl CountingStore {
    fn note(&self, what: &'static str, bytes: usize) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn forget(&self) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.written.store(0, Ordering::Relaxed);
    }

    fn counted(&self) -> Vec<(&'static str, u64)> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |what: &str| requests.get(what).copied().unwrap_or(0);
        let puts = count("create") + count("replace");
        vec![
            ("requests", requests.values().sum()),
            ("puts", puts),
            ("bytes written", self.written.load(Ordering::Relaxed)),
        ]
    }
}

#[async_trait]
impl Store for CountingStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.note("get", 0);
        self.inner.get(key).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        self.note("create", bytes.len());
        self.inner.create(key, bytes).await
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        self.note("replace", bytes.len());
        self.inner.replace(key, bytes, expected).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.note("list", 0);
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.note("delete", 0);
        self.inner.delete(key).await
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn is_sound_by_construction(&self) -> bool {
        self.inner.is_sound_by_construction()
    }
}
