//! What a run asks of its store: counted, since counts are not noisy.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{Archive, ArchiveOptions, Deposit};
use collector::clock::VirtualClock;
use collector::event::Response;
use collector::quantity::Quantity;
use collector::store::{Head, Key, Listed, MemoryStore, Object, Store, StoreError, Version, Write};

use serde_json::value::RawValue;

use crate::support::fixture;

/// What a run asks for that finds nothing new.
const IDLE: [(&str, usize); 2] = [("get", 1), ("head", 1)];

/// A store in memory that counts what it is asked.
#[derive(Debug, Default)]
pub(crate) struct CountingStore {
    pub(crate) inner: MemoryStore,
    pub(crate) asked: Mutex<BTreeMap<&'static str, usize>>,
}

impl CountingStore {
    fn count(&self, operation: &'static str) {
        *self.asked.lock().unwrap().entry(operation).or_default() += 1;
    }
}

#[async_trait]
impl Store for CountingStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.count("get");
        self.inner.get(key).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>, StoreError> {
        self.count("head");
        self.inner.head(key).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        self.count("create");
        self.inner.create(key, bytes).await
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        self.count("replace");
        self.inner.replace(key, bytes, expected).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.count("list");
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.count("delete");
        self.inner.delete(key).await
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

struct Collector {
    store: Arc<CountingStore>,
    archive: Archive,
    now: DateTime<Utc>,
}

impl Collector {
    fn new(options: ArchiveOptions) -> Self {
        let now = DateTime::from_timestamp(1_767_366_000, 0).unwrap();
        let store = Arc::new(CountingStore::default());
        let archive = Archive::new(store.clone(), Arc::new(VirtualClock::at(now)), options);
        Self { store, archive, now }
    }

    /// One run on a response, half an hour after the one before; what it did, and what it asked for.
    fn run(&mut self, body: &[u8]) -> (Deposit, BTreeMap<&'static str, usize>) {
        self.now += TimeDelta::minutes(30);
        self.store.asked.lock().unwrap().clear();
        let response = Response::parse(body).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let deposit = runtime.block_on(async {
            let snapshot = self.archive.open().await.unwrap();
            self.archive.deposit(&response, snapshot, self.now).await.unwrap().0
        });
        (deposit, self.store.asked.lock().unwrap().clone())
    }
}

fn response(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap()
}

/// The response, but for some of its elements.
fn without(name: &str, left_out: impl Fn(usize) -> bool) -> Vec<u8> {
    let elements: Vec<Box<RawValue>> = serde_json::from_slice(&response(name)).unwrap();
    let kept = elements.into_iter().enumerate().filter(|(position, _)| !left_out(*position));
    serde_json::to_vec(&kept.map(|(_, element)| element).collect::<Vec<_>>()).unwrap()
}

#[test]
fn run_without_news_reads_the_ledger_and_looks_at_the_last_object() {
    let mut collector = Collector::new(ArchiveOptions::default());
    collector.run(&response("response.json"));
    let (deposit, asked) = collector.run(&response("response.json"));
    assert_eq!(deposit.count(Quantity::BufferOverlap), 500);
    assert_eq!(asked, IDLE.into());
}

#[test]
fn protocol_costs_two_small_writes_and_a_listing() {
    // Without it: one object, and the ledger once. The claim and the record of the journal come to that.
    let mut collector = Collector::new(ArchiveOptions::default());
    collector.run(&without("response.json", |position| position < 2));
    let (deposit, asked) = collector.run(&response("response.json"));
    assert_eq!((deposit.count(Quantity::NewEventsCount), deposit.objects.len()), (2, 1));
    assert_eq!(asked, [("create", 2), ("get", 1), ("head", 1), ("list", 1), ("replace", 2)].into());
}

#[test]
fn only_what_the_ledger_cannot_tell_is_looked_up() {
    let mut collector = Collector::new(ArchiveOptions { capacity: 500, ..ArchiveOptions::default() });
    collector.run(&response("response.json"));
    let (deposit, asked) = collector.run(&response("response-next.json"));
    assert_eq!((deposit.count(Quantity::NewEventsCount), deposit.count(Quantity::RevisionsCount)), (14, 1));
    assert!(
        asked["list"] <= 2 + deposit.objects.len(),
        "the day of the revised event, and those written: {asked:?}"
    );
    let (deposit, asked) = collector.run(&response("response-sparse.json"));
    assert!(asked["list"] <= deposit.count(Quantity::DaysLookedUp) * 2 + 1);
    assert!(deposit.count(Quantity::DaysLookedUp) > 30);
    let (again, asked) = collector.run(&response("response-sparse.json"));
    assert_eq!(
        (again.count(Quantity::NewEventsCount), again.count(Quantity::RevisionsCount), again.objects.len()),
        (0, 0, 0)
    );
    assert_eq!(asked["list"], again.count(Quantity::DaysLookedUp) * 2);
}

#[test]
fn conflict_with_another_run_is_counted() {
    let mut collector = Collector::new(ArchiveOptions::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read_before = runtime.block_on(collector.archive.open()).unwrap();
    let (other, _) = collector.run(&without("response.json", |position| position < 2));
    assert_eq!(other.count(Quantity::LedgerConflicts), 0);
    let (body, now) = (response("response.json"), collector.now + TimeDelta::seconds(1));
    let response = Response::parse(&body).unwrap();
    let (deposit, _) = runtime.block_on(collector.archive.deposit(&response, read_before, now)).unwrap();
    assert_eq!(deposit.count(Quantity::LedgerConflicts), 1);
    assert_eq!(deposit.count(Quantity::NewEventsCount), 2);
}

#[test]
fn members_in_another_order_are_the_same_content() {
    let mut collector = Collector::new(ArchiveOptions::default());
    collector.run(&response("response.json"));
    let values: Vec<serde_json::Value> = serde_json::from_slice(&response("response.json")).unwrap();
    let reordered = serde_json::to_vec(&values).unwrap();
    let (deposit, asked) = collector.run(&reordered);
    assert_eq!(
        (
            deposit.count(Quantity::NewEventsCount),
            deposit.count(Quantity::RevisionsCount),
            deposit.count(Quantity::BufferOverlap)
        ),
        (0, 0, 500)
    );
    assert_eq!(asked, IDLE.into());
}

#[test]
fn revisions_are_left_out_if_nobody_wants_them() {
    let mut collector = Collector::new(ArchiveOptions { revisions: false, ..ArchiveOptions::default() });
    collector.run(&response("response.json"));
    let (deposit, _) = collector.run(&response("response-next.json"));
    assert_eq!((deposit.count(Quantity::NewEventsCount), deposit.count(Quantity::RevisionsCount)), (14, 0));
    let (_, asked) = collector.run(&response("response-next.json"));
    assert_eq!(asked, IDLE.into(), "the change is remembered all the same");
}

#[test]
fn a_withdrawn_event_is_noted_once_and_taken_back_when_it_returns() {
    let mut collector = Collector::new(ArchiveOptions::default());
    collector.run(&response("response.json"));
    let gone = without("response.json", |position| position == 200);
    let (deposit, _) = collector.run(&gone);
    assert_eq!((deposit.count(Quantity::WithdrawnCount), deposit.count(Quantity::ReturnedCount)), (1, 0));
    let (deposit, asked) = collector.run(&gone);
    assert_eq!(
        (deposit.count(Quantity::WithdrawnCount), deposit.count(Quantity::ReturnedCount), asked),
        (0, 0, IDLE.into())
    );
    let (deposit, _) = collector.run(&response("response.json"));
    assert_eq!(
        (
            deposit.count(Quantity::WithdrawnCount),
            deposit.count(Quantity::ReturnedCount),
            deposit.count(Quantity::NewEventsCount)
        ),
        (0, 1, 0)
    );
    // The end of the window jitters; what is gone there has only grown old.
    let (deposit, _) = collector.run(&without("response.json", |position| position == 490));
    assert_eq!((deposit.count(Quantity::WithdrawnCount), deposit.count(Quantity::ReturnedCount)), (0, 0));
}

#[test]
fn an_empty_response_says_nothing_about_what_is_gone() {
    let mut collector = Collector::new(ArchiveOptions::default());
    collector.run(&response("response.json"));
    let (deposit, _) = collector.run(b"[]");
    assert_eq!(
        (
            deposit.count(Quantity::WithdrawnCount),
            deposit.quantities.is_set(Quantity::PossibleGap),
            deposit.quantities.is_set(Quantity::SparseResponse)
        ),
        (0, false, false)
    );
    let (deposit, _) = collector.run(&response("response.json"));
    assert_eq!(
        (
            deposit.count(Quantity::NewEventsCount),
            deposit.count(Quantity::BufferOverlap),
            deposit.quantities.is_set(Quantity::PossibleGap)
        ),
        (0, 500, false)
    );
}
