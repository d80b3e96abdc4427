//! A replica in another store: copied, kept up to date, promoted, and brought together after a split.

mod broken_off;
mod processes;
mod program;
mod reconciled;
mod refusals;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{Archive, ArchiveError, ArchiveOptions, Deposit};
use collector::clock::VirtualClock;
use collector::event::Response;
use collector::mirror::adopt::{Adoption, OldPrimary, adopt};
use collector::mirror::{Mirror, MirrorError, MirrorOptions, MirrorReport};
use collector::store::{
    Head, Key, Listed, MemoryStore, Object, Operation, SharedStore, Store, StoreError, Version, Write,
};
use tokio::runtime::Runtime;

/// A store in memory that counts requests, and behind which the process dies after a number of them.
#[derive(Debug, Default)]
struct Region {
    name: &'static str,
    inner: Arc<MemoryStore>,
    asked: Mutex<BTreeMap<&'static str, usize>>,
    /// Number of requests that are still answered.
    left: AtomicUsize,
    /// Number of writes that are still accepted.
    writes_left: AtomicUsize,
}

impl Region {
    fn new(name: &'static str) -> Self {
        let all = || AtomicUsize::new(usize::MAX);
        Self { name, left: all(), writes_left: all(), ..Self::default() }
    }

    /// The same objects, as another process reaches them.
    fn reached_again(&self, left: usize) -> Self {
        let inner = Arc::clone(&self.inner);
        Self { inner, left: AtomicUsize::new(left), ..Self::new(self.name) }
    }

    fn requests(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().unwrap()).values().sum()
    }

    fn ask(&self, operation: Operation, what: &'static str) -> Result<(), StoreError> {
        *self.asked.lock().unwrap().entry(what).or_default() += 1;
        let take = |left: &AtomicUsize| {
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        };
        let is_write = !matches!(operation, Operation::Get | Operation::List);
        let source = if is_write && !take(&self.writes_left) {
            "the quota is reached"
        } else if !take(&self.left) {
            "no answer"
        } else {
            return Ok(());
        };
        let target = self.name.to_owned();
        Err(StoreError { operation, target, outcome_unknown: false, source: source.into() })
    }

    fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        block_on(async {
            let mut all = BTreeMap::new();
            for listed in self.inner.list("").await.unwrap() {
                let object = self.inner.get(&listed.key).await.unwrap().unwrap();
                all.insert(listed.key.to_string(), object.bytes);
            }
            all
        })
    }
}

#[async_trait]
impl Store for Region {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.ask(Operation::Get, "get")?;
        self.inner.get(key).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>, StoreError> {
        self.ask(Operation::Get, "head")?;
        self.inner.head(key).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        self.ask(Operation::Create, "create")?;
        self.inner.create(key, bytes).await
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        self.ask(Operation::Replace, "replace")?;
        self.inner.replace(key, bytes, expected).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.ask(Operation::List, "list")?;
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.ask(Operation::Delete, "delete")?;
        self.inner.delete(key).await
    }

    fn location(&self) -> String {
        self.name.to_owned()
    }

    fn is_sound_by_construction(&self) -> bool {
        true
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

/// A collector in one region, with the time that passes there.
struct Site {
    region: Arc<Region>,
    archive: Archive,
    now: DateTime<Utc>,
}

impl Site {
    fn new(name: &'static str) -> Self {
        Self::at(Arc::new(Region::new(name)))
    }

    fn at(region: Arc<Region>) -> Self {
        let now = DateTime::from_timestamp(1_767_366_000, 0).unwrap();
        let store: SharedStore = Arc::clone(&region) as SharedStore;
        let archive = Archive::new(store, Arc::new(VirtualClock::at(now)), ArchiveOptions::default());
        Self { region, archive, now }
    }

    /// Another process that reaches the region, and dies after a number of requests.
    fn reached_again(&self, left: usize) -> Self {
        Self { now: self.now, ..Self::at(Arc::new(self.region.reached_again(left))) }
    }

    /// One run on a response, half an hour after the one before.
    fn try_run(&mut self, body: &str) -> Result<Deposit, ArchiveError> {
        self.now += TimeDelta::minutes(30);
        let response = Response::parse(body.as_bytes()).unwrap();
        block_on(async {
            let snapshot = self.archive.open().await?;
            Ok(self.archive.deposit(&response, snapshot, self.now).await?.0)
        })
    }

    #[track_caller]
    fn run(&mut self, body: &str) -> Deposit {
        self.try_run(body).unwrap()
    }

    #[track_caller]
    fn assert_sound(&self) {
        let findings = block_on(self.archive.audit(|_, _| {})).unwrap().findings;
        assert!(findings.is_sound(), "{}: {:#?}", self.region.name, findings.problems);
    }

    /// The ids under `events/`, each as often as it stands there.
    fn ids(&self) -> Vec<i64> {
        let mut ids = Vec::new();
        for (key, bytes) in self.region.objects() {
            if key.starts_with("events/") {
                let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
                ids.extend(lines.map(|line| collector::event::parse_line(line).unwrap().id));
            }
        }
        ids.sort_unstable();
        ids
    }
}

/// A response with the events of a range, the newest first, one every two hours.
fn events(ids: std::ops::Range<i64>) -> String {
    edited(ids, |_| "Brand")
}

fn edited(ids: std::ops::Range<i64>, kind: impl Fn(i64) -> &'static str) -> String {
    let first = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
    let mut body = String::new();
    for id in ids.rev() {
        let at = (first + TimeDelta::hours(2 * id)).format("%Y-%m-%d %H:%M:%S +01:00");
        let separator = if body.is_empty() { "[" } else { "," };
        let _ = write!(body, r#"{separator}{{"id": {id}, "datetime": "{at}", "type": "{}"}}"#, kind(id));
    }
    body + "]"
}

fn try_mirror(from: &Site, to: &Site) -> Result<MirrorReport, MirrorError> {
    mirror_with(from, to, MirrorOptions::default())
}

fn mirror_with(from: &Site, to: &Site, options: MirrorOptions) -> Result<MirrorReport, MirrorError> {
    block_on(Mirror::new(from.archive.clone(), to.archive.clone(), options).update(|_| {}))
}

#[track_caller]
fn mirror(from: &Site, to: &Site) -> MirrorReport {
    let report = try_mirror(from, to).unwrap();
    assert!(report.is_complete(), "{report:#?}");
    report
}

fn promote(to: &Site, from: Option<&Site>) -> Result<Adoption, MirrorError> {
    block_on(adopt(&to.archive, from.map(|from| &from.archive), None, false))
}

/// Every object of the archive and its journal is there as it is in the source; the ledger covers the same commits.
#[track_caller]
fn assert_equal(from: &Site, to: &Site) {
    let belongs = |key: &str| !key.starts_with("metadata/") || key.starts_with("metadata/journal/");
    let kept = |site: &Site| -> BTreeMap<String, Vec<u8>> {
        site.region.objects().into_iter().filter(|(key, _)| belongs(key)).collect()
    };
    let (source, mut target) = (kept(from), kept(to));
    // The last record stands in the ledger of the source only.
    target.retain(|key, _| source.contains_key(key) || !key.starts_with("metadata/journal/"));
    assert_eq!(source.keys().collect::<Vec<_>>(), target.keys().collect::<Vec<_>>());
    assert!(source == target, "an object differs");
    to.assert_sound();
}

#[test]
fn replica_is_equal_and_follows() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    assert_eq!(
        mirror(&a, &b).objects,
        a.region.objects().keys().filter(|it| it.starts_with("events/")).count()
    );
    assert_equal(&a, &b);
    for round in 1..6 {
        a.run(&edited(round * 3..40 + round * 3, |id| if id % 7 == round { "Stöld" } else { "Brand" }));
        mirror(&a, &b);
        assert_equal(&a, &b);
    }
    assert_eq!(mirror(&a, &b).objects, 0);
    let report = mirror_with(&a, &b, MirrorOptions { verify: true, ..MirrorOptions::default() }).unwrap();
    assert!(report.is_complete() && report.verified > 20, "{report:?}");
}

#[test]
fn update_with_two_objects_takes_at_most_ten_requests_a_side() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..400));
    a.run(&events(0..401));
    mirror(&a, &b);
    // One event on each side of midnight: two objects.
    a.run(&events(10..410));
    mirror(&a, &b);
    let deposit = a.run(&events(22..422));
    assert_eq!(deposit.objects.len(), 2, "{:?}", deposit.objects);
    let _ = (a.region.requests(), b.region.requests());
    mirror(&a, &b);
    let (of_a, of_b) = (a.region.requests(), b.region.requests());
    println!("two new objects: {of_a} requests to the source, {of_b} to the replica");
    assert!(of_a <= 10 && of_b <= 10, "{of_a}, {of_b}");
}

#[test]
fn runs_on_a_replica_are_refused_with_the_command_that_promotes_it() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    mirror(&a, &b);
    let before = b.region.objects();
    let refused = b.try_run(&events(1..41)).unwrap_err();
    assert!(refused.to_string().contains("collector adopt --store b"), "{refused}");
    let refused = block_on(b.archive.repair(false, |_, _| {})).unwrap_err();
    assert!(matches!(refused, ArchiveError::Replica { .. }), "{refused}");
    assert_eq!(before, b.region.objects());
}

#[test]
fn promoted_replica_continues_and_the_old_primary_is_fenced() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    mirror(&a, &b);
    a.run(&events(5..45));
    let adopted = promote(&b, Some(&a)).unwrap();
    assert_eq!((adopted.epoch, &adopted.fence, adopted.copied > 0), (2, &OldPrimary::Fenced, true));
    // The recovery point is the last commit of the old primary, and not that of the promotion.
    assert_eq!(adopted.committed_at, Some(a.now));
    let refused = a.try_run(&events(6..46)).unwrap_err();
    assert!(matches!(refused, ArchiveError::Replica { .. }), "{refused}");
    b.run(&events(6..46));
    assert_eq!(b.ids(), (0..46).collect::<Vec<_>>());
    b.assert_sound();
    // The other way round, without a split: the fenced one follows.
    mirror(&b, &a);
    assert_equal(&b, &a);
    assert!(promote(&b, Some(&a)).unwrap().was_primary);
    assert_eq!(promote(&a, Some(&b)).unwrap().epoch, 3);
    a.run(&events(8..48));
    assert_eq!(a.ids(), (0..48).collect::<Vec<_>>());
    a.assert_sound();
}

#[test]
fn old_primary_is_not_fenced_for_a_replica_that_cannot_be_written() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    mirror(&a, &b);
    b.region.writes_left.store(0, Ordering::SeqCst);
    assert!(promote(&b, Some(&a)).is_err());
    a.run(&events(3..43));
    b.region.writes_left.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(promote(&b, Some(&a)).unwrap().fence, OldPrimary::Fenced);
    assert_eq!(b.ids(), (0..43).collect::<Vec<_>>());
}

#[test]
fn first_run_after_an_outage_stores_what_the_replica_lacked() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..400));
    mirror(&a, &b);
    a.run(&events(50..450));
    let adopted = promote(&b, None).unwrap();
    assert_eq!(adopted.fence, OldPrimary::NotSought);
    b.run(&events(60..460));
    assert_eq!(b.ids(), (0..460).collect::<Vec<_>>());
    b.assert_sound();
}

#[test]
fn cursor_of_the_source_is_valid_in_the_replica() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    let cursor = block_on(a.archive.changes(None, 1_000)).unwrap().cursor;
    a.run(&events(5..45));
    mirror(&a, &b);
    let changes = block_on(b.archive.changes(Some(&cursor), 1_000)).unwrap();
    assert_eq!(changes, block_on(a.archive.changes(Some(&cursor), 1_000)).unwrap());
    promote(&b, Some(&a)).unwrap();
    b.run(&events(10..50));
    let later = block_on(b.archive.changes(Some(&changes.cursor), 1_000)).unwrap();
    assert!(!later.changes.is_empty() && later.changes.iter().all(|change| change.epoch == 2), "{later:?}");
}

/// Whatever request an update dies at, the replica is sound, and the next update finishes the copy.
#[test]
fn killed_updates_leave_a_sound_replica() {
    let mut a = Site::new("a");
    a.run(&events(0..100));
    let half = a.reached_again(usize::MAX);
    let half_way = Site::new("b");
    mirror(&half, &half_way);
    a.run(&edited(20..120, |id| if id % 9 == 0 { "Stöld" } else { "Brand" }));
    let mut killed = 0;
    for (begun, from) in [(false, &a), (true, &a)] {
        for left in 0.. {
            let b = Site::new("b");
            if begun {
                mirror(&half, &b);
            }
            let ended = try_mirror(from, &b.reached_again(left));
            b.assert_sound();
            mirror(from, &b);
            assert_equal(from, &b);
            if ended.is_ok() {
                break;
            }
            killed += 1;
        }
    }
    println!("updates killed: {killed}");
    assert!(killed > 40, "{killed}");
}

/// Whatever request a promotion dies at, it is finished by the next one, and nothing is lost or doubled.
#[test]
fn killed_promotions_are_finished_by_the_next_one() {
    let mut killed = 0;
    for updated in [3, 12, usize::MAX] {
        for left in 0.. {
            let (mut a, mut b) = (Site::new("a"), Site::new("b"));
            a.run(&events(0..100));
            mirror(&a, &b);
            a.run(&events(20..120));
            let _ = try_mirror(&a, &b.reached_again(updated));
            let ended = promote(&b.reached_again(left), None);
            b.assert_sound();
            promote(&b, None).unwrap();
            b.run(&events(22..122));
            b.assert_sound();
            assert_eq!(b.ids(), (0..122).collect::<Vec<_>>());
            if ended.is_ok() {
                break;
            }
            killed += 1;
        }
    }
    println!("promotions killed: {killed}");
    assert!(killed > 20, "{killed}");
}
