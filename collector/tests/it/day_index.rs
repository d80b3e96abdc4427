//! Look-ups on days with many more events than the ledger remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{Archive, ArchiveOptions, Deposit};
use collector::clock::VirtualClock;
use collector::event::Response;
use collector::quantity::Quantity;
use collector::store::{Key, Store as _};
use serde_json::{Value, json};
use twox_hash::XxHash3_64;

use crate::cost::CountingStore;

/// Events between two polls: 66,000 a day, polled each minute.
const NEW: i64 = 46;
const BUFFER: i64 = 500;

/// A feed that is polled each minute, from eight in the morning on.
struct Busy {
    store: Arc<CountingStore>,
    archive: Archive,
    start: DateTime<Utc>,
    polls: i64,
}

impl Busy {
    fn new(options: ArchiveOptions) -> Self {
        let start = DateTime::from_timestamp(1_767_340_800, 0).unwrap();
        let store = Arc::new(CountingStore::default());
        let archive = Archive::new(store.clone(), Arc::new(VirtualClock::at(start)), options);
        Self { store, archive, start, polls: 0 }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn event(&self, id: i64, version: u32) -> Value {
        let datetime = self.start + TimeDelta::seconds((id - BUFFER) * 60 / NEW);
        json!({
            "id": id,
            "datetime": datetime.format("%Y-%m-%d %H:%M:%S +00:00").to_string(),
            "name": format!("version {version}"),
        })
    }

    fn latest(&self) -> i64 {
        BUFFER + self.polls * NEW
    }

    /// One poll: the last 500 events, each seventh in a later version once it is 20 minutes old, and `more`.
    fn poll_with(&mut self, more: &[Value]) -> (Deposit, BTreeMap<&'static str, usize>) {
        self.polls += 1;
        let latest = self.latest();
        let version = |id: i64| u32::from(id % 7 == 0 && latest - id > BUFFER / 2);
        let events: Vec<Value> = (latest - BUFFER + 1..=latest)
            .rev()
            .map(|id| self.event(id, version(id)))
            .chain(more.iter().cloned())
            .collect();
        let body = serde_json::to_vec(&events).unwrap();
        self.store.asked.lock().unwrap().clear();
        let at = self.start + TimeDelta::minutes(self.polls);
        let deposit = Self::run(async {
            let snapshot = self.archive.open().await.unwrap();
            self.archive.deposit(&Response::parse(&body).unwrap(), snapshot, at).await.unwrap().0
        });
        (deposit, self.store.asked.lock().unwrap().clone())
    }

    fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let mut objects = BTreeMap::new();
        for listed in Self::run(self.store.inner.list("")).unwrap() {
            let object = Self::run(self.store.inner.get(&listed.key)).unwrap().unwrap();
            objects.insert(listed.key.to_string(), object.bytes);
        }
        objects
    }

    fn indexes(&self) -> Vec<Key> {
        Self::run(self.store.inner.list("metadata/index/")).unwrap().into_iter().map(|it| it.key).collect()
    }

    /// Puts another index in the place of each.
    fn change_indexes(&self, change: impl Fn(&Key, &mut Value) -> Key) {
        for key in self.indexes() {
            let document = Self::run(self.store.inner.get(&key)).unwrap().unwrap().bytes;
            let end = document.iter().position(|&byte| byte == b'\n').unwrap();
            let mut index: Value = serde_json::from_slice(&document[end + 1..]).unwrap();
            let key_after = change(&key, &mut index);
            let json = index.to_string();
            let document = format!("{:016x}\n{json}", XxHash3_64::oneshot(json.as_bytes()));
            Self::run(self.store.inner.delete(&key)).unwrap();
            _ = Self::run(self.store.inner.create(&key_after, document.as_bytes())).unwrap();
        }
    }

    /// Polls a response with an event of this day that is stored and no longer remembered. How many events are new.
    fn new_with_a_forgotten_event(&mut self) -> usize {
        let forgotten = self.event(BUFFER + 3, 0);
        self.poll_with(&[forgotten]).0.count(Quantity::NewEventsCount)
    }
}

fn polled(polls: usize) -> Busy {
    let mut busy = Busy::new(ArchiveOptions::default());
    for _ in 0..polls {
        busy.poll_with(&[]);
    }
    assert!(!busy.indexes().is_empty());
    busy
}

#[test]
fn run_with_news_costs_as_much_late_on_a_busy_day() {
    let mut busy = Busy::new(ArchiveOptions::default());
    for poll in 0..400 {
        let (deposit, asked) = busy.poll_with(&[]);
        let new = deposit.count(Quantity::NewEventsCount);
        assert_eq!(new, if poll == 0 { 500 } else { 46 });
        assert!(asked.values().sum::<usize>() <= 40, "{poll}: {asked:?}");
    }
    assert!(busy.indexes().len() <= 4, "{:?}", busy.indexes());
    let findings = Busy::run(busy.archive.audit(|_, _| {})).unwrap().findings;
    assert!(findings.is_sound(), "{findings:?}");
    assert_eq!((findings.events, findings.duplicates), (500 + 399 * 46, 0));
}

#[test]
fn archive_is_the_same_with_and_without_indexes() {
    let stored = |unindexed_objects| {
        let mut busy = Busy::new(ArchiveOptions { unindexed_objects, ..ArchiveOptions::default() });
        for poll in 0..80 {
            let forgotten = busy.event(BUFFER + poll, u32::from(poll % 5 == 0));
            busy.poll_with(&[forgotten]);
        }
        let mut objects = busy.objects();
        objects.retain(|key, _| !key.starts_with("metadata/"));
        (objects, busy.indexes().len())
    };
    let (without, indexes) = stored(usize::MAX);
    assert_eq!(indexes, 0);
    for unindexed_objects in [0, 1, 12] {
        let (with, indexes) = stored(unindexed_objects);
        assert!(indexes > 0);
        assert_eq!(with, without);
    }
}

#[test]
fn index_that_is_not_whole_is_not_used() {
    let mut busy = polled(60);
    for key in busy.indexes() {
        let document = Busy::run(busy.store.inner.get(&key)).unwrap().unwrap().bytes;
        let damaged = String::from_utf8(document).unwrap().replace(&(BUFFER + 3).to_string(), "999999");
        Busy::run(busy.store.inner.delete(&key)).unwrap();
        _ = Busy::run(busy.store.inner.create(&key, damaged.as_bytes())).unwrap();
    }
    assert_eq!(busy.new_with_a_forgotten_event(), 46);
}

fn forget_all_ids(index: &mut Value) {
    for object in index["objects"].as_object_mut().unwrap().values_mut() {
        object["ids"] = json!([]);
    }
}

#[test]
fn index_of_another_history_is_not_used() {
    // The sequence number is of this history, the commit is not: it was restored, and then continued.
    for distance in [0, 30] {
        let mut busy = polled(60);
        busy.change_indexes(|key, index| {
            forget_all_ids(index);
            let sequence = index["sequence"].as_u64().unwrap() - distance;
            (index["sequence"], index["commit"]) = (json!(sequence), json!("0123456789abcdef"));
            let folder = &key.as_str()[..=key.as_str().rfind('/').unwrap()];
            Key::new(format!("{folder}{sequence:016}-0123456789abcdef.json")).unwrap()
        });
        assert_eq!(busy.new_with_a_forgotten_event(), 46);
    }
    // One of another archive, under the name of ours.
    let mut busy = polled(60);
    busy.change_indexes(|key, index| {
        forget_all_ids(index);
        index["archive"] = json!("0123456789abcdef");
        key.clone()
    });
    assert_eq!(busy.new_with_a_forgotten_event(), 46);
}

#[test]
fn object_with_another_size_than_its_index_names_is_read() {
    let mut busy = polled(60);
    busy.change_indexes(|key, index| {
        forget_all_ids(index);
        for object in index["objects"].as_object_mut().unwrap().values_mut() {
            object["size_bytes"] = json!(object["size_bytes"].as_u64().unwrap() + 1);
        }
        key.clone()
    });
    assert_eq!(busy.new_with_a_forgotten_event(), 46);
}

#[test]
fn indexes_can_be_removed_at_any_time_and_a_repair_does() {
    let mut busy = polled(60);
    let ids = |busy: &Busy| busy.indexes().into_iter().collect::<BTreeSet<_>>();
    Busy::run(busy.archive.repair(false, |_, _| {})).unwrap();
    assert!(ids(&busy).is_empty());
    assert_eq!(busy.new_with_a_forgotten_event(), 46);
    assert!(!ids(&busy).is_empty(), "it is made again");
}
