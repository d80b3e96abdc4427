//! What an ordinary run does, counted: nothing of it depends on the machine or on the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;
use collector::archive::{Archive, ArchiveOptions, Liveness, objects_of};
use collector::clock::VirtualClock;
use collector::event::Response;
use collector::ledger::Classification;
use collector::store::{Key, Listed, MemoryStore, Object, Store, StoreError, Version, Write};

use serde::{Deserialize, Serialize};

use crate::Case;

/// What some work did to the heap. All zero in a program whose allocator is not dhat's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Heap {
    /// Blocks allocated.
    pub blocks: u64,
    /// Bytes allocated.
    pub bytes: u64,
    /// The most bytes that were held at a time.
    pub peak: u64,
    /// Bytes that its result holds.
    pub held: u64,
}

impl Heap {
    /// Carries out some work and says what it did to the heap. No other profiler may run.
    pub fn of<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let profiler = dhat::Profiler::builder().testing().build();
        let result = work();
        let stats = dhat::HeapStats::get();
        drop(profiler);
        let heap = Self {
            blocks: stats.total_blocks,
            bytes: stats.total_bytes,
            peak: stats.max_bytes as u64,
            held: stats.curr_bytes as u64,
        };
        (result, heap)
    }
}

/// A step of a run, with the number of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub name: &'static str,
    /// Elements of the response.
    pub events: usize,
    /// What it did to the heap.
    #[serde(flatten)]
    pub heap: Heap,
}

/// The feed's buffer, ten and a hundred times as large.
pub const SIZES: [usize; 3] = [500, 5_000, 50_000];

/// What each step of a run does to the heap when two events are new, and the steps together when none, two and all are.
///
/// # Errors
/// If a response cannot be read.
pub fn of_steps() -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for events in SIZES {
        let mut note = |name, heap| steps.push(Step { name, events, heap });
        let Case { body, ledger, at } = Case::new(events, 2);
        let (response, heap) = Heap::of(|| Response::parse(&body));
        let response = response?;
        note("parse", heap);
        let (classified, heap) = Heap::of(|| Classification::find(&response, &ledger, at));
        note("find", heap);
        note("write", Heap::of(|| objects_of(&response, &classified, at, "")).1);
        let (next, heap) = Heap::of(|| classified.apply(&response, &ledger, at));
        note("apply", heap);
        note("ledger document", Heap::of(|| next.to_document()).1);
        for (name, new) in [("all_seen", 0), ("two_new", 2), ("all_new", events)] {
            let case = Case::new(events, new);
            note(name, Heap::of(|| case.objects()).1);
        }
    }
    Ok(steps)
}

/// Counts by name, in their order.
pub type Counts = BTreeMap<String, u64>;

/// A count that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountChange {
    /// What is counted.
    pub name: String,
    /// Before; nothing where it was not counted.
    pub from: Option<u64>,
    /// Now; nothing where it is not counted any more.
    pub to: Option<u64>,
}

impl CountChange {
    /// Whether it is a regression: more, or not counted any more.
    #[must_use]
    pub fn is_regression(&self) -> bool {
        match (self.from, self.to) {
            (Some(from), Some(to)) => to > from,
            (from, _) => from.is_some(),
        }
    }
}

/// Counts that are not what they were, by name.
#[must_use]
pub fn changes(before: &Counts, after: &Counts) -> Vec<CountChange> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |name: &String| CountChange {
        name: name.clone(),
        from: before.get(name).copied(),
        to: after.get(name).copied(),
    };
    names.into_iter().map(change).filter(|change| change.from != change.to).collect()
}

/// Counts what the steps of a run do to the heap, and what runs over 500 events ask of a store when all are new, two, and
/// none. In a program whose allocator is dhat's, and while no profiler runs.
///
/// # Errors
/// If a run fails.
pub fn of_an_ordinary_run() -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for Step { name, events, heap } in of_steps()? {
        counts.insert(format!("heap/{name}/{events}: blocks allocated"), heap.blocks);
        counts.insert(format!("heap/{name}/{events}: bytes allocated"), heap.bytes);
        counts.insert(format!("heap/{name}/{events}: bytes at the peak"), heap.peak);
    }
    for events in SIZES {
        let body = Case::new(events, events).body;
        let (response, heap) = Heap::of(|| Response::parse(&body));
        response?;
        counts.insert(format!("held/response of {events}: bytes"), heap.held + body.len() as u64);
    }
    let (ledger, heap) = Heap::of(crate::full_ledger);
    counts.insert("held/ledger of 1000: bytes".to_owned(), heap.held);
    counts.insert("held/ledger document of 1000: bytes".to_owned(), ledger.to_document().len() as u64);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(count_requests(&mut counts))?;
    Ok(counts)
}

async fn count_requests(counts: &mut Counts) -> anyhow::Result<()> {
    let store = Arc::new(CountingStore::default());
    let (first, second) = (Case::new(500, 500), Case::new(500, 2));
    let clock = Arc::new(VirtualClock::at(first.at));
    let archive = Archive::new(store.clone(), clock.clone(), ArchiveOptions::default());
    let archive = archive.with_liveness(Arc::new(AllAlive));
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
struct AllAlive;

impl Liveness for AllAlive {
    fn name(&self) -> String {
        "bench".to_owned()
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
