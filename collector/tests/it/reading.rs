//! The archive read by a program: through a cache, by numbers, while others write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use collector::archive::{Archive, ArchiveOptions, Kind};
use collector::cache::{Cache, CacheOptions, DiskOptions};
use collector::clock::{Clock as _, VirtualClock};
use collector::event::{EventId, Response};
use collector::query::{Filter, Query, blocking};
use collector::store::{
    Key, Listed, MemoryStore, Object, Operation, SharedStore, Store, StoreError, Version, Write,
};
use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::sync::Semaphore;

/// A store in memory that counts reads, and fails or waits on request.
#[derive(Debug)]
struct Watched {
    inner: MemoryStore,
    lists: AtomicUsize,
    gets: AtomicUsize,
    broken: Mutex<BTreeSet<String>>,
    /// Each reading takes one of these.
    gate: Semaphore,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            inner: MemoryStore::default(),
            lists: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            broken: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }
}

impl Watched {
    fn requests(&self) -> usize {
        self.lists.load(Ordering::Relaxed) + self.gets.load(Ordering::Relaxed)
    }

    fn check(&self, operation: Operation, name: &str) -> Result<(), StoreError> {
        if self.broken.lock().unwrap().contains(name) {
            let (target, source) = (name.to_owned(), "a disk is broken".into());
            return Err(StoreError { operation, target, outcome_unknown: false, source });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Watched {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        let _passed = self.gate.acquire().await;
        self.check(Operation::Get, key.as_str())?;
        self.inner.get(key).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        self.inner.create(key, bytes).await
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        self.inner.replace(key, bytes, expected).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let _passed = self.gate.acquire().await;
        self.check(Operation::List, prefix)?;
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn is_sound_by_construction(&self) -> bool {
        true
    }
}

fn event(id: EventId, day: NaiveDate) -> String {
    format!(
        r#"{{"id":{id},"datetime":"{day} 9:38:09 +01:00","name":"n","summary":"s","url":"/u","type":"Brand","location":{{"name":"Falun","gps":"1,2"}}}}"#
    )
}

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_362_400, 0).unwrap()
}

struct Setup {
    store: Arc<Watched>,
    clock: Arc<VirtualClock>,
}

impl Setup {
    fn new() -> Self {
        Self { store: Arc::default(), clock: Arc::new(VirtualClock::at(start())) }
    }

    fn archive(&self) -> Archive {
        let store: SharedStore = self.store.clone();
        Archive::new(store, self.clock.clone(), ArchiveOptions::default())
    }

    fn cache(&self, disk: Option<DiskOptions>) -> Arc<Cache> {
        Arc::new(Cache::new(CacheOptions { disk, ..CacheOptions::default() }, self.clock.clone()))
    }

    /// Three objects a day with two events each; numbers grow with time but for some.
    async fn fill(
        &self,
        days: u64,
        ids_of_day: impl Fn(u64) -> Vec<EventId>,
    ) -> BTreeMap<EventId, NaiveDate> {
        let first: NaiveDate = "2025-01-01".parse().unwrap();
        let mut all = BTreeMap::new();
        for (number, day) in (0..days).zip(first.iter_days()) {
            for (object, ids) in ids_of_day(number).chunks(2).enumerate() {
                let key = format!("{}events-{}.jsonl", Kind::Events.day_prefix(day), object + 1);
                let lines: String = ids.iter().map(|&id| event(id, day) + "\n").collect();
                let _ = self.store.create(&Key::new(key).unwrap(), lines.as_bytes()).await.unwrap();
                all.extend(ids.iter().map(|&id| (id, day)));
            }
        }
        all
    }

    async fn collect(&self, archive: &Archive, ids: &[EventId]) {
        let day = self.clock.now().date_naive();
        let body: Vec<String> = ids.iter().map(|&id| event(id, day)).collect();
        let body = format!("[{}]", body.join(","));
        let response = Response::parse(body.as_bytes()).unwrap();
        let snapshot = archive.open().await.unwrap();
        archive.deposit(&response, snapshot, self.clock.now()).await.unwrap();
        self.clock.sleep(Duration::from_secs(1)).await;
    }
}

async fn ids(archive: &Archive) -> Vec<EventId> {
    let mut answer = archive.query(&Query::default());
    let mut ids = Vec::new();
    while let Some(event) = answer.next().await {
        ids.push(event.unwrap().id);
    }
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn the_second_query_asks_the_store_for_nothing() {
    let setup = Setup::new();
    let all = setup.fill(40, |day| (0..6).map(|it| 1_000 + 6 * day.cast_signed() + it).collect()).await;
    let archive = setup.archive().with_cache(setup.cache(None));
    let first = ids(&archive).await;
    assert_eq!(first, all.keys().copied().collect::<Vec<_>>());
    let asked = setup.store.requests();
    for _ in 0..9 {
        assert_eq!(ids(&archive).await, first);
    }
    assert_eq!(setup.store.requests(), asked);
    let hit_rate = archive.cache().unwrap().metrics().await.hit_rate().unwrap();
    assert!((0.89..0.91).contains(&hit_rate), "{hit_rate}");
    let mut answer = archive.query(&Query::default());
    while answer.next().await.is_some() {}
    let cost = answer.cost();
    assert_eq!((cost.requests(), cost.objects_from_cache, cost.found), (0, cost.objects_read, all.len()));
    assert_eq!(cost.bytes_from_cache, cost.bytes_read);
}

#[tokio::test]
async fn what_a_run_stores_is_found_at_once_here_and_in_its_time_elsewhere() {
    let (setup, folder) = (Setup::new(), tempfile::tempdir().unwrap());
    let disk = |name: &str| {
        let folder = folder.path().join(name);
        Some(DiskOptions { folder, limit_bytes: 1 << 20, owner: "me".to_owned() })
    };
    let collector = setup.archive().with_cache(setup.cache(disk("here")));
    let reader = setup.archive().with_cache(Arc::clone(collector.cache().unwrap()));
    let elsewhere = setup.archive().with_cache(setup.cache(disk("elsewhere")));
    let mut stored = Vec::new();
    for id in 1..20 {
        setup.collect(&collector, &[id]).await;
        stored.push(id);
        assert_eq!(ids(&reader).await, stored, "the next query in the same process");
        // Another process on this machine, with the same folder.
        let other = setup.archive().with_cache(setup.cache(disk("here")));
        assert_eq!(ids(&other).await, stored, "the next query on the same machine");
    }
    let seen = ids(&elsewhere).await;
    setup.collect(&collector, &[20]).await;
    assert_eq!(ids(&elsewhere).await, seen, "a listing is fresh for a short time");
    setup.clock.sleep(CacheOptions::default().ttl).await;
    stored.push(20);
    assert_eq!(ids(&elsewhere).await, stored, "and no longer");
}

#[tokio::test]
async fn a_repair_is_seen_though_names_stay() {
    let setup = Setup::new();
    let all = setup.fill(3, |day| vec![10 * day.cast_signed(), 10 * day.cast_signed() + 1, 1_000]).await;
    let archive = setup.archive().with_cache(setup.cache(None));
    assert_eq!(ids(&archive).await.iter().filter(|&&id| id == 1_000).count(), 3);
    archive.repair(false, |_, _| ()).await.unwrap();
    assert_eq!(ids(&archive).await, all.keys().copied().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hundred_equal_queries_at_once_ask_the_store_as_one_does() {
    let setup = Setup::new();
    setup.fill(5, |day| vec![2 * day.cast_signed(), 2 * day.cast_signed() + 1]).await;
    let archive = setup.archive().with_cache(setup.cache(None));
    let first_day: NaiveDate = "2025-01-01".parse().unwrap();
    let query = Query { from: Some(first_day), to: Some(first_day), ..Query::default() };
    setup.store.gate.forget_permits(Semaphore::MAX_PERMITS);
    let all = join_all((0..100).map(|_| async {
        let mut answer = archive.query(&query);
        let mut found = 0;
        while let Some(event) = answer.next().await {
            event.unwrap();
            found += 1;
        }
        found
    }));
    let (found, ()) = tokio::join!(all, async {
        tokio::task::yield_now().await;
        setup.store.gate.add_permits(1_000);
    });
    assert_eq!(found, [2; 100]);
    let (lists, gets) = (&setup.store.lists, &setup.store.gets);
    assert_eq!((lists.load(Ordering::Relaxed), gets.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test]
async fn many_events_are_found_by_their_numbers_with_few_reads() {
    let setup = Setup::new();
    let all = setup.fill(365, |day| (0..60).map(|it| 600_000 + 60 * day.cast_signed() + it).collect()).await;
    let objects = 365 * 30;
    let archive = setup.archive();
    for (wanted, most) in [
        (vec![600_000 + 60 * 200 + 7], 30),
        (vec![600_000], 30),
        ((0..20).map(|it| 600_000 + 60 * 100 + it * 3).collect(), 120),
        ((0..50).map(|it| 600_000 + 400 * it).collect::<Vec<_>>(), objects / 3),
    ] {
        let before = setup.store.requests();
        let found = archive.get_many(wanted.iter().copied()).await;
        let days: BTreeMap<EventId, NaiveDate> = found.found.iter().map(|(id, it)| (*id, it.day)).collect();
        let expected: BTreeMap<EventId, NaiveDate> = wanted.iter().map(|id| (*id, all[id])).collect();
        assert_eq!(days, expected);
        let asked = setup.store.requests() - before;
        // The ledger that is not there yet is asked for once more.
        assert!(asked <= most + 1, "{asked} requests for {} events", wanted.len());
    }
    // One that nowhere stands takes reading all, once.
    let found = archive.get_many([1]).await;
    assert_eq!((found.found.len(), found.cost.objects_read), (0, objects));
}

/// Objects that say nothing, and those that the ledger led to, do not lead astray.
#[tokio::test]
async fn an_event_is_found_beside_empty_objects_and_remembered_ones() {
    let setup = Setup::new();
    setup.fill(200, |day| (0..20).map(|it| 1_000 + 20 * day.cast_signed() + it).collect()).await;
    let first: NaiveDate = "2025-01-01".parse().unwrap();
    for day in first.iter_days().take(200) {
        let key = format!("{}events-99.jsonl", Kind::Events.day_prefix(day));
        let _ = setup.store.create(&Key::new(key).unwrap(), b"").await.unwrap();
    }
    let archive = setup.archive();
    setup.collect(&archive, &[90_000, 90_001]).await;
    for wanted in [1_007, 2_500, 4_321, 4_990] {
        let found = archive.get_many([wanted, 90_001]).await;
        assert_eq!(found.found.keys().copied().collect::<Vec<_>>(), [wanted, 90_001]);
        // Of 2,201.
        assert!(found.cost.objects_read <= 40, "{wanted}: {} objects", found.cost.objects_read);
    }
}

#[tokio::test]
async fn what_the_ledger_knows_is_read_from_its_day_alone() {
    let setup = Setup::new();
    setup.fill(100, |day| (0..10).map(|it| 10 * day.cast_signed() + it).collect()).await;
    let archive = setup.archive();
    setup.collect(&archive, &[5_000, 5_001]).await;
    setup.collect(&archive, &[5_002]).await;
    let found = archive.get_many([5_001, 5_002]).await;
    assert_eq!(found.found.len(), 2);
    // The ledger, and the day's listing with its two objects.
    assert_eq!((found.cost.objects_read, found.cost.listings), (3, 1));
    let filter = Filter { ids: BTreeSet::from([5_002]), ..Filter::default() };
    let mut answer = archive.query(&Query { filter, ..Query::default() });
    assert_eq!(answer.next().await.unwrap().unwrap().id, 5_002);
    assert!(answer.next().await.is_none());
    assert_eq!((answer.cost().requests(), answer.cost().found), (4, 1));
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_the_rest_is_told() {
    let setup = Setup::new();
    let all = setup.fill(10, |day| vec![2 * day.cast_signed(), 2 * day.cast_signed() + 1]).await;
    let broken = "events/2025/01/05/events-1.jsonl";
    setup.store.broken.lock().unwrap().insert(broken.to_owned());
    for archive in [setup.archive(), setup.archive().with_cache(setup.cache(None))] {
        let mut answer = archive.query(&Query::default());
        let (mut found, mut errors) = (0, Vec::new());
        while let Some(event) = answer.next().await {
            match event {
                Ok(_) => found += 1,
                Err(error) => errors.push(error.to_string()),
            }
        }
        assert_eq!(found, all.len() - 2);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains(broken) && errors[0].contains("a disk is broken"), "{errors:?}");
        assert_eq!((answer.cost().found, answer.cost().unreadable), (found, 1));
        let looked_up = archive.get_many([8, 12]).await;
        assert_eq!(looked_up.found.keys().copied().collect::<Vec<_>>(), [12]);
        assert_eq!(looked_up.unreadable.len(), 1);
    }
    setup.store.broken.lock().unwrap().insert("events/".to_owned());
    let archive = setup.archive();
    let error = archive.query(&Query::default()).next().await.unwrap().unwrap_err().to_string();
    assert!(error.contains("events/") && error.contains("a disk is broken"), "{error}");
}

#[test]
fn the_blocking_twin_says_the_same() {
    let setup = Setup::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(setup.fill(10, |day| vec![2 * day.cast_signed(), 2 * day.cast_signed() + 1]));
    let expected = runtime.block_on(ids(&setup.archive()));
    let archive = blocking::Archive::new(setup.archive()).unwrap();
    let mut answer = archive.query(&Query::default());
    let mut found: Vec<EventId> = answer.by_ref().map(|event| event.unwrap().id).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(answer.cost().found, expected.len());
    assert_eq!(archive.get_many([3, 4]).found.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order of the numbers: what stands in the archive is found, and nothing else.
    #[test]
    fn numbers_in_any_order_are_found(numbers in proptest::collection::btree_set(0_i64..2_000, 1..120), per_day in 1_usize..8, seed in any::<u64>(), wanted in proptest::collection::btree_set(0_i64..2_000, 1..20)) {
        let mut numbers: Vec<EventId> = numbers.into_iter().collect();
        let mut rng = seed;
        for at in (1..numbers.len()).rev() {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            numbers.swap(at, usize::try_from(rng >> 33).unwrap() % (at + 1));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let setup = Setup::new();
            let days = numbers.len().div_ceil(per_day);
            let chunks: Vec<&[EventId]> = numbers.chunks(per_day).collect();
            let all = setup.fill(days as u64, |day| chunks[usize::try_from(day).unwrap()].to_vec()).await;
            let found = setup.archive().get_many(wanted.iter().copied()).await;
            let expected: Vec<EventId> = wanted.iter().copied().filter(|id| all.contains_key(id)).collect();
            assert_eq!(found.found.keys().copied().collect::<Vec<_>>(), expected);
            assert!(found.found.values().all(|event| all[&event.id] == event.day));
            assert!(found.cost.objects_read <= numbers.len(), "an object was read twice");
        });
    }
}
