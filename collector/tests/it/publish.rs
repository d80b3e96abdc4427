//! Publishing an archive: what is sent, in which order, and what is refused. The broker is a list in memory;
//! `tests/simulation/publishing.rs` and `scripts/e2e 68-publish` are about what brokers do wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use collector::archive::{Archive, ArchiveOptions, ChangesError, Cursor, Kind};
use collector::clock::{Clock, VirtualClock};
use collector::event::Response;
use collector::publish::{
    Beginning, Broker, BrokerError, Message, MessageKind, Opened, PublishError, PublishOptions,
    PublishReport, Published, Publisher,
};
use collector::store::{Key, MemoryStore, Store, Write};
use serde_json::{Value, json};

use crate::support::Home;

/// A broker that keeps what it is sent.
#[derive(Debug, Default)]
struct Kept {
    messages: Vec<Message>,
    /// Until when it is away.
    away_until: Option<DateTime<Utc>>,
    limit_bytes: Option<usize>,
    /// Stores this number of messages and fails then.
    stores: Option<usize>,
}

#[derive(Debug, Clone)]
struct MemoryBroker {
    kept: Arc<Mutex<Kept>>,
    clock: Arc<VirtualClock>,
}

impl MemoryBroker {
    fn values(&self) -> Vec<(MessageKind, i64)> {
        self.kept.lock().unwrap().messages.iter().map(|message| (message.kind, message.id)).collect()
    }

    fn forget(&self) {
        self.kept.lock().unwrap().messages.clear();
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn open(&mut self) -> Result<Opened, BrokerError> {
        let kept = self.kept.lock().unwrap();
        if kept.away_until.is_some_and(|until| self.clock.now() < until) {
            return Err(BrokerError::Temporary("it is away".to_owned()));
        }
        let last = kept.messages.last().map(|message| message.position.clone());
        Ok(Opened {
            published: last.map_or(Published::Nothing, Published::UpTo),
            max_message_bytes: kept.limit_bytes,
            warnings: Vec::new(),
        })
    }

    async fn publish(&mut self, messages: &[Message]) -> Result<(), BrokerError> {
        let mut kept = self.kept.lock().unwrap();
        let stores = kept.stores.unwrap_or(messages.len()).min(messages.len());
        kept.messages.extend_from_slice(&messages[..stores]);
        if stores < messages.len() {
            return Err(BrokerError::Permanent { message: "the disk is full".to_owned(), hint: None });
        }
        Ok(())
    }

    fn target(&self) -> String {
        "memory".to_owned()
    }
}

struct Trial {
    runtime: tokio::runtime::Runtime,
    store: Arc<MemoryStore>,
    clock: Arc<VirtualClock>,
    archive: Archive,
    broker: MemoryBroker,
}

impl Trial {
    fn new() -> Self {
        Self::at("2026-01-02T12:00:00Z")
    }

    fn at(time: &str) -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(VirtualClock::at(time.parse().unwrap()));
        let archive = Archive::new(store.clone(), clock.clone(), ArchiveOptions::default());
        let broker = MemoryBroker { kept: Arc::default(), clock: clock.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { runtime, store, clock, archive, broker }
    }

    /// Stores a response.
    fn collect(&self, events: &[Value]) {
        let body = serde_json::to_vec(events).unwrap();
        self.runtime.block_on(async {
            self.clock.sleep(Duration::from_mins(30)).await;
            let snapshot = self.archive.open().await.unwrap();
            let response = Response::parse(&body).unwrap();
            self.archive.deposit(&response, snapshot, self.clock.now()).await.unwrap();
        });
    }

    fn publish(&self, options: PublishOptions) -> Result<PublishReport, PublishError> {
        let mut publisher = Publisher::new(&self.archive, self.broker.clone(), self.clock.clone(), options);
        self.runtime.block_on(publisher.catch_up())?;
        Ok(publisher.report().clone())
    }

    /// Publishes everything that is new.
    fn publish_all(&self) -> Vec<(MessageKind, i64)> {
        let before = self.broker.values().len();
        self.publish(from_start()).unwrap();
        self.broker.values().split_off(before)
    }

    fn repair(&self) {
        self.runtime.block_on(self.archive.repair(false, |_, _| {})).unwrap();
    }

    fn create(&self, key: &str, text: &str) {
        let written =
            self.runtime.block_on(self.store.create(&Key::new(key).unwrap(), text.as_bytes())).unwrap();
        assert!(matches!(written, Write::Done(_)));
    }

    fn objects(&self, kind: Kind) -> Vec<Key> {
        let listed = self.runtime.block_on(self.store.list(&format!("{kind}/"))).unwrap();
        listed.into_iter().map(|listed| listed.key).collect()
    }

    /// Changes an object by hand.
    fn change(&self, key: &Key, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        self.runtime.block_on(async {
            let object = self.store.get(key).await.unwrap().unwrap();
            let bytes = change(object.bytes);
            let written = self.store.replace(key, &bytes, &object.version).await.unwrap();
            assert!(matches!(written, Write::Done(_)));
        });
    }
}

fn from_start() -> PublishOptions {
    PublishOptions { from: Beginning::Start, ..PublishOptions::default() }
}

fn event(id: i64, day: u32, name: &str) -> Value {
    json!({"id": id, "datetime": format!("2026-01-{day:02} 10:00:00 +01:00"), "name": name})
}

const EVENT: MessageKind = MessageKind::Event;
const REVISION: MessageKind = MessageKind::Revision;

#[test]
fn what_is_new_is_published_in_order() {
    let trial = Trial::new();
    trial.collect(&[event(2, 2, "two"), event(1, 1, "one")]);
    assert_eq!(trial.publish_all(), [(EVENT, 1), (EVENT, 2)]);
    trial.collect(&[event(3, 2, "three"), event(2, 2, "two, corrected"), event(1, 1, "one")]);
    assert_eq!(trial.publish_all(), [(EVENT, 3), (REVISION, 2)]);
    assert_eq!(trial.publish_all(), []);
    let kept = trial.broker.kept.lock().unwrap();
    let headers: BTreeMap<_, _> = kept.messages[3].headers().into();
    assert_eq!((headers["key"].as_str(), headers["kind"].as_str()), ("2", "revision"));
    assert_eq!(headers["ce_id"], kept.messages[3].position.to_string());
    assert_eq!(kept.messages[3].value, event(2, 2, "two, corrected").to_string());
}

#[test]
fn an_object_is_continued_after_the_line_that_was_stored() {
    let trial = Trial::new();
    trial.collect(&[event(3, 2, "three"), event(2, 2, "two"), event(1, 2, "one")]);
    for stores in [1, 1] {
        trial.broker.kept.lock().unwrap().stores = Some(stores);
        assert!(matches!(trial.publish(from_start()), Err(PublishError::Broker(_))));
    }
    trial.broker.kept.lock().unwrap().stores = None;
    trial.publish(from_start()).unwrap();
    let mut ids: Vec<i64> = trial.broker.values().into_iter().map(|(_, id)| id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn without_a_beginning_nothing_is_published() {
    let trial = Trial::new();
    trial.collect(&[event(1, 1, "one")]);
    let refused = trial.publish(PublishOptions::default()).unwrap_err();
    assert!(matches!(refused, PublishError::NoStart { .. }) && refused.hint().is_some(), "{refused}");
    assert_eq!(trial.broker.values(), []);
}

/// A position of another archive, or of commits that a restore took away, is not continued.
#[test]
fn a_foreign_position_is_refused() {
    let (trial, other) = (Trial::new(), Trial::at("2026-01-01T12:00:00Z"));
    trial.collect(&[event(1, 1, "one")]);
    other.collect(&[event(2, 1, "two")]);
    other.collect(&[event(3, 1, "three")]);
    other.publish_all();
    trial.broker.kept.lock().unwrap().messages.clone_from(&other.broker.kept.lock().unwrap().messages);
    let refused = trial.publish(from_start()).unwrap_err();
    assert!(matches!(refused, PublishError::Changes(ChangesError::OtherArchive { .. })), "{refused}");
    assert!(refused.hint().unwrap().contains("nothing was published"));
    let archive = "0123456789abcdef";
    for cursor in [format!("{archive}:0:"), format!("{archive}:7:{archive}")] {
        trial.broker.forget();
        let from = Beginning::After(cursor.parse::<Cursor>().unwrap());
        let refused = trial.publish(PublishOptions { from, ..PublishOptions::default() }).unwrap_err();
        assert!(matches!(refused, PublishError::Changes(_)), "{refused}");
        assert_eq!(trial.broker.values(), []);
    }
}

#[test]
fn a_cursor_begins_after_its_commit() {
    let trial = Trial::new();
    trial.collect(&[event(1, 1, "one")]);
    let cursor = trial.runtime.block_on(trial.archive.changes(None, 1)).unwrap().cursor;
    trial.collect(&[event(2, 1, "two"), event(1, 1, "one")]);
    trial.publish(PublishOptions { from: Beginning::After(cursor), ..PublishOptions::default() }).unwrap();
    assert_eq!(trial.broker.values(), [(EVENT, 2)]);
}

/// A week without a broker: publishing waits, and catches up.
#[test]
fn a_broker_may_be_away_for_a_week() {
    let trial = Trial::new();
    trial.collect(&[event(1, 1, "one")]);
    let back = trial.clock.now() + Duration::from_hours(24 * 7);
    trial.broker.kept.lock().unwrap().away_until = Some(back);
    let report = trial.publish(PublishOptions { failures: None, ..from_start() }).unwrap();
    // Not more often than every 15 s, and not later than 30 s after it is back.
    assert!((20_160..=40_400).contains(&report.retries), "{}", report.retries);
    assert!(trial.clock.now() - back < chrono::TimeDelta::seconds(31));
    assert_eq!(trial.broker.values(), [(EVENT, 1)]);
}

#[test]
fn attempts_are_limited() {
    let trial = Trial::new();
    trial.collect(&[event(1, 1, "one")]);
    trial.broker.kept.lock().unwrap().away_until = Some(DateTime::<Utc>::MAX_UTC);
    let begun = trial.clock.elapsed();
    let ended = trial.publish(PublishOptions { failures: Some(6), ..from_start() }).unwrap_err();
    assert!(matches!(ended, PublishError::Broker(BrokerError::Temporary(_))), "{ended}");
    let took = trial.clock.since(begun);
    assert!((Duration::from_secs(3)..Duration::from_secs(7)).contains(&took), "{took:?}");
}

#[test]
fn large_messages_are_named_and_passed_over() {
    let trial = Trial::new();
    trial.collect(&[event(3, 2, "three"), event(2, 2, &"x".repeat(5_000)), event(1, 2, "one")]);
    trial.broker.kept.lock().unwrap().limit_bytes = Some(4_000);
    let report = trial.publish(from_start()).unwrap();
    assert_eq!((report.events, report.skipped_total, report.skipped[0].id), (2, 1, 2));
    assert!(report.skipped[0].size_bytes > 5_000);
    let report = trial.publish(from_start()).unwrap();
    assert_eq!((report.events, report.revisions), (0, 0));
}

#[test]
fn kinds_are_selected() {
    let trial = Trial::new();
    trial.collect(&[event(2, 2, "two"), event(1, 2, "one")]);
    trial.collect(&[event(3, 2, "three"), event(2, 2, "two, corrected"), event(1, 2, "one")]);
    let options = || PublishOptions { kinds: vec![REVISION], ..from_start() };
    trial.publish(options()).unwrap();
    trial.publish(options()).unwrap();
    assert_eq!(trial.broker.values(), [(REVISION, 2)]);
}

/// A repair moves what was published, and stores nothing new but revisions.
#[test]
fn a_repair_publishes_nothing_again() {
    for is_published_before in [true, false] {
        let trial = Trial::new();
        // As an older collector left it: an object of the first day also holds an event of the second one.
        let (key, lines) =
            ("events/2026/01/01/events-1767225600.jsonl", [event(1, 1, "one"), event(2, 2, "two")]);
        let lines = lines.map(|line| format!("{line}\n")).concat();
        let ledger = json!({"seen_ids": [2, 1], "last_updated": "2026-01-01T00:00:00Z", "total_tracked": 2});
        trial.create(key, &lines);
        trial.create("metadata/last_seen.json", &ledger.to_string());
        trial.collect(&[event(4, 1, "four"), event(2, 2, "two"), event(1, 1, "one")]);
        if is_published_before {
            assert_eq!(trial.publish_all(), [(EVENT, 1), (EVENT, 2), (EVENT, 4)]);
        }
        trial.repair();
        assert_eq!(trial.objects(Kind::Events).len(), 3, "it was not moved");
        trial.publish_all();
        trial.collect(&[event(3, 2, "three"), event(2, 2, "two"), event(1, 1, "one")]);
        trial.publish_all();
        let published = [(EVENT, 1), (EVENT, 2), (EVENT, 4), (EVENT, 3)];
        assert_eq!(trial.broker.values(), published, "published before the repair: {is_published_before}");
    }
}

#[test]
fn an_object_that_changed_half_way_is_refused() {
    let trial = Trial::new();
    trial.collect(&[event(3, 2, "three"), event(2, 2, "two"), event(1, 2, "one")]);
    trial.broker.kept.lock().unwrap().stores = Some(1);
    trial.publish(from_start()).unwrap_err();
    trial.broker.kept.lock().unwrap().stores = None;
    let object = &trial.objects(Kind::Events)[0];
    trial.change(object, |bytes| {
        bytes.split_inclusive(|&byte| byte == b'\n').rev().flatten().copied().collect()
    });
    let refused = trial.publish(from_start()).unwrap_err();
    assert!(matches!(refused, PublishError::Altered(_)), "{refused}");
    assert_eq!(trial.broker.values().len(), 1);
}

#[test]
fn a_target_is_required_and_checked() {
    let home = Home::new();
    let ended = home.collector(&["publish"]).with(2);
    assert!(ended.error_line().contains("--to is required"), "{}", ended.stderr);
    for target in
        ["http://h/x", "nats://h", "nats://h/a.>", "nats://user:hunter2@h/x", "kafka://user:hunter2@h/x"]
    {
        let ended = home.collector(&["publish", "--to", target]).with(2);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
}
