//! Ledger and objects that stem from different moments, from outside and through the library.

mod disturbed;

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{
    Archive, ArchiveError, ArchiveOptions, ChangesError, Cursor, Deposit, Memory as _, ProcessMemory,
};
use collector::clock::VirtualClock;
use collector::event::Response;
use collector::quantity::Quantity;
use collector::store::{Key, MemoryStore, Store};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use self::disturbed::{Disturbed, Moment};
use crate::support::{Home, fixture};

const LEDGER: &str = "metadata/last_seen.json";

/// An archive in memory, on a machine that remembers.
struct Site {
    store: Arc<MemoryStore>,
    memory: Arc<ProcessMemory>,
    now: DateTime<Utc>,
    options: ArchiveOptions,
    runtime: Runtime,
}

impl Site {
    fn new() -> Self {
        Self {
            store: Arc::default(),
            memory: Arc::default(),
            now: DateTime::from_timestamp(1_767_366_000, 0).unwrap(),
            options: ArchiveOptions::default(),
            runtime: Builder::new_current_thread().build().unwrap(),
        }
    }

    fn archive(&self) -> Archive {
        let clock = Arc::new(VirtualClock::at(self.now));
        Archive::new(self.store.clone(), clock, self.options.clone()).with_memory(self.memory.clone())
    }

    fn run(&mut self, body: &[u8]) -> Result<Deposit, ArchiveError> {
        self.now += TimeDelta::minutes(30);
        let archive = self.archive();
        let response = Response::parse(body).unwrap();
        self.runtime.block_on(async {
            let snapshot = archive.open().await?;
            Ok(archive.deposit(&response, snapshot, self.now).await?.0)
        })
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let object = self.runtime.block_on(self.store.get(&Key::new(key).unwrap())).unwrap();
        object.map(|object| object.bytes)
    }

    fn set(&self, key: &str, bytes: Option<&[u8]>) {
        let key = Key::new(key).unwrap();
        self.runtime.block_on(async {
            self.store.delete(&key).await.unwrap();
            if let Some(bytes) = bytes {
                let _ = self.store.create(&key, bytes).await.unwrap();
            }
        });
    }

    fn objects(&self) -> Vec<String> {
        let listed = self.runtime.block_on(self.store.list("events/")).unwrap();
        listed.into_iter().map(|object| object.key.to_string()).collect()
    }

    fn assert_sound(&self, events: usize) {
        let audit = self.runtime.block_on(self.archive().audit(|_, _| {})).unwrap();
        assert_eq!((audit.findings.unique_ids, audit.findings.duplicates), (events, 0));
        assert!(audit.findings.is_sound(), "{:?}", audit.findings.problems);
    }
}

fn event(id: i64, day: i64) -> Value {
    json!({"id": id, "datetime": format!("2026-01-{day:02} 12:{:02}:00 +01:00", id % 40), "type": "Brand"})
}

fn body(ids: impl IntoIterator<Item = i64>) -> Vec<u8> {
    let events = ids.into_iter().map(|id| event(id, 1 + (id / 40) % 2));
    serde_json::to_vec(&events.collect::<Vec<_>>()).unwrap()
}

/// Events that fill more days than a ledger of 60 events remembers, the first day last.
fn four_days() -> Vec<Value> {
    (0..120).map(|id| event(id, 4 - id / 40)).collect()
}

/// A writer that is stopped until the state after the one that it read was written and removed again, so that its number
/// is free.
#[test]
fn writer_that_was_stopped_for_many_commits_does_not_take_a_removed_number() {
    let site = Site::new();
    let store = |meanwhile| {
        Arc::new(Disturbed {
            store: site.store.clone(),
            replaces_atomically: false,
            meanwhile: Mutex::new(meanwhile),
            moment: Moment::BeforeCreate("metadata/ledger/"),
            now: site.now,
            memory: Arc::default(),
        })
    };
    let archive = |store: Arc<Disturbed>| {
        Archive::new(store, Arc::new(VirtualClock::at(site.now)), ArchiveOptions::default())
    };
    let commits: Vec<_> = (1..=40).map(|count| body(0..count)).collect();
    let response = body(0..60);
    site.runtime.block_on(async {
        let archive = archive(store(commits));
        let snapshot = archive.open().await.unwrap();
        archive.deposit(&Response::parse(&response).unwrap(), snapshot, site.now).await.unwrap();
    });
    let audit = site.runtime.block_on(archive(store(Vec::new())).audit(|_, _| {})).unwrap();
    assert_eq!((audit.findings.unique_ids, audit.findings.duplicates), (60, 0));
    assert!(audit.findings.is_sound(), "{:?}", audit.findings.problems);
}

#[test]
fn archive_that_another_run_begins_meanwhile_is_joined() {
    let site = Site::new();
    // The second commit writes the record of the first one.
    let commits = vec![body(0..20), body(0..30)];
    let store = Disturbed::new(&site, Moment::AfterGet("metadata/journal/000000/001.json"), commits);
    let archive = Archive::new(store, Arc::new(VirtualClock::at(site.now)), ArchiveOptions::default());
    let later = body(20..60);
    let deposit = site.runtime.block_on(async {
        let response = Response::parse(&later).unwrap();
        let snapshot = archive.open().await.unwrap();
        archive.deposit(&response, snapshot, site.now + TimeDelta::minutes(1)).await.unwrap().0
    });
    assert_eq!(deposit.count(Quantity::NewEventsCount), 30);
    site.assert_sound(60);
}

/// An event is changed back to its first version, which is in an object that the listing for the look-up lacks.
#[test]
fn version_whose_object_a_listing_lacks_is_not_stored_again() {
    let mut site = Site::new();
    let response = |kind: &str| {
        let mut event = event(1, 1);
        event["type"] = json!(kind);
        serde_json::to_vec(&[event]).unwrap()
    };
    site.run(&response("Brand")).unwrap();
    site.run(&response("Rån")).unwrap();
    let store = Disturbed::new(&site, Moment::HiddenOnce, vec![Vec::new()]);
    let clock = Arc::new(VirtualClock::at(site.now));
    let archive = Archive::new(store, clock, ArchiveOptions::default()).with_memory(site.memory.clone());
    let first = response("Brand");
    let deposit = site.runtime.block_on(async {
        let response = Response::parse(&first).unwrap();
        let snapshot = archive.open().await.unwrap();
        archive.deposit(&response, snapshot, site.now + TimeDelta::minutes(30)).await.unwrap().0
    });
    assert_eq!(deposit.count(Quantity::RevisionsCount), 0);
    site.assert_sound(1);
}

#[test]
fn older_ledger_is_healed_also_when_nothing_is_new() {
    let mut site = Site::new();
    site.run(&body(0..30)).unwrap();
    let older = site.get(LEDGER);
    site.run(&body(20..60)).unwrap();
    site.set(LEDGER, older.as_deref());
    // Everything in this response is known to the older ledger, too. Only the memory shows that it is older.
    let deposit = site.run(&body(0..30)).unwrap();
    assert!(deposit.count(Quantity::LedgerHealed) == 1);
    assert_eq!(site.run(&body(20..60)).unwrap().count(Quantity::NewEventsCount), 0);
    site.assert_sound(60);
}

/// A run that read the ledger before another one committed on the same machine, and ends after it, must not make the machine
/// forget that commit.
#[test]
fn slow_run_does_not_hide_a_restore_of_what_another_run_of_the_machine_committed() {
    let mut site = Site::new();
    site.run(&body(0..3)).unwrap();
    let backup = site.get(LEDGER);
    let store = Arc::new(Disturbed {
        store: site.store.clone(),
        replaces_atomically: true,
        meanwhile: Mutex::new(vec![body(0..5)]),
        moment: Moment::AfterGet("events/"),
        now: site.now + TimeDelta::minutes(1),
        memory: site.memory.clone(),
    });
    let clock = Arc::new(VirtualClock::at(site.now + TimeDelta::minutes(2)));
    let slow = Archive::new(store, clock, ArchiveOptions::default()).with_memory(site.memory.clone());
    site.runtime.block_on(async {
        let known = body(0..3);
        let snapshot = slow.open().await.unwrap();
        let at = site.now + TimeDelta::minutes(2);
        slow.deposit(&Response::parse(&known).unwrap(), snapshot, at).await.unwrap();
    });
    site.set(LEDGER, backup.as_deref());
    let report = site.run(&body(0..3)).unwrap();
    assert_eq!(report.count(Quantity::LedgerHealed), 1, "the restore went unnoticed");
    assert_eq!(site.run(&body(0..3)).unwrap().count(Quantity::LedgerHealed), 0, "reported once");
    site.assert_sound(5);
}

#[test]
fn older_ledger_that_was_continued_elsewhere_is_healed_without_a_duplicate() {
    let mut site = Site::new();
    site.run(&body(0..30)).unwrap();
    let older = site.get(LEDGER);
    site.run(&body(20..60)).unwrap();
    site.set(LEDGER, older.as_deref());
    site.memory = Arc::default(); // another machine
    assert!(site.run(&body(50..80)).unwrap().count(Quantity::LedgerHealed) == 1);
    assert_eq!(site.run(&body(0..80)).unwrap().count(Quantity::NewEventsCount), 0);
    site.assert_sound(80);
}

#[test]
fn late_event_of_a_lost_commit_is_journaled_again() {
    let mut site = Site::new();
    site.options.capacity = 60;
    site.run(&serde_json::to_vec(&four_days()).unwrap()).unwrap();
    site.run(&serde_json::to_vec(&[vec![event(200, 4)], four_days()].concat()).unwrap()).unwrap();
    let older = site.get(LEDGER);
    let mut late = [vec![event(200, 4)], four_days()].concat();
    late.push(event(300, 1));
    assert_eq!(site.run(&serde_json::to_vec(&late).unwrap()).unwrap().count(Quantity::NewEventsCount), 1);
    site.set(LEDGER, older.as_deref());
    assert!(site.run(&serde_json::to_vec(&late).unwrap()).unwrap().count(Quantity::LedgerHealed) == 1);
    site.assert_sound(122);
}

#[test]
fn loss_is_journaled_by_one_repair_also_where_ledger_and_journal_differ() {
    let mut site = Site::new();
    site.run(&body(0..30)).unwrap();
    // A run that began the history at the same time and was stopped.
    let ledger: Value = serde_json::from_slice(&site.get(LEDGER).unwrap()).unwrap();
    let mut other = ledger["lineage"]["last"].clone();
    other["kind"] = json!("base");
    other["commit"] = json!("0123456789abcdef");
    site.set("metadata/journal/000000/001.json", Some(&serde_json::to_vec(&other).unwrap()));
    site.set(&site.objects()[0], None);
    site.runtime.block_on(site.archive().repair(false, |_, _| {})).unwrap();
    site.assert_sound(0);
}

#[test]
fn history_that_was_begun_without_a_commit_is_journaled_from_what_is_stored() {
    let mut site = Site::new();
    site.run(&body(0..30)).unwrap();
    // As a repair leaves it that is killed after it has claimed an archive without a ledger.
    let mut ledger: Value = serde_json::from_slice(&site.get(LEDGER).unwrap()).unwrap();
    let lineage = ledger["lineage"].as_object_mut().unwrap();
    lineage.insert("commits".to_owned(), json!([])).unwrap();
    lineage.remove("last").unwrap();
    site.set(LEDGER, Some(&serde_json::to_vec(&ledger).unwrap()));
    site.memory = Arc::default();
    site.run(&body(20..60)).unwrap();
    site.assert_sound(60);
}

#[test]
fn listing_before_writing_finds_what_a_memory_does_not() {
    let mut site = Site::new();
    site.run(&body(0..30)).unwrap();
    let (older, memory) = (site.get(LEDGER), Arc::new(ProcessMemory::default()));
    memory.note("memory", site.memory.recall("memory").remove(0));
    site.run(&body(20..60)).unwrap();
    site.set(LEDGER, older.as_deref());
    site.memory = memory; // as of the first run
    assert!(site.run(&body(20..60)).unwrap().count(Quantity::LedgerHealed) == 1);
    site.assert_sound(60);
}

#[test]
fn newer_ledger_fails_the_run_until_the_objects_arrive_or_are_given_up() {
    for gives_up in [false, true] {
        let mut site = Site::new();
        site.run(&body(0..30)).unwrap();
        let before = site.objects();
        site.run(&body(20..60)).unwrap();
        let missing: Vec<_> = site.objects().into_iter().filter(|key| !before.contains(key)).collect();
        let contents: Vec<_> = missing.iter().map(|key| site.get(key)).collect();
        for key in &missing {
            site.set(key, None);
        }
        for _ in 0..2 {
            let error = site.run(&body(20..60)).unwrap_err();
            assert!(matches!(error, ArchiveError::Incomplete { .. }), "{error}");
        }
        if gives_up {
            site.runtime.block_on(site.archive().repair(false, |_, _| {})).unwrap();
            assert_eq!(site.run(&body(20..60)).unwrap().count(Quantity::NewEventsCount), 30);
        } else {
            for (key, bytes) in missing.iter().zip(&contents) {
                site.set(key, bytes.as_deref());
            }
            assert_eq!(site.run(&body(20..60)).unwrap().count(Quantity::NewEventsCount), 0);
        }
        site.assert_sound(60);
    }
}

/// A revision is missing that is neither in the last commit nor asked for by the response: only the count of objects a day
/// shows it, and only the comparison once a day looks.
#[test]
fn missing_revision_is_found_within_a_day() {
    let mut site = Site::new();
    let response = |kind: &str, others: Range<i64>| {
        let mut changed = event(1, 1);
        changed["type"] = json!(kind);
        let others = others.map(|id| event(id, 2));
        serde_json::to_vec(&std::iter::once(changed).chain(others).collect::<Vec<_>>()).unwrap()
    };
    site.run(&response("Brand", 2..3)).unwrap();
    site.run(&response("Rån", 2..3)).unwrap();
    let listed = site.runtime.block_on(site.store.list("revisions/")).unwrap();
    site.run(&response("Rån", 2..40)).unwrap();
    site.set(listed[0].key.as_str(), None);
    site.run(&response("Rån", 2..40)).unwrap();
    site.now += TimeDelta::hours(25);
    let error = site.run(&response("Rån", 2..40)).unwrap_err();
    assert!(matches!(error, ArchiveError::Incomplete { .. }), "{error}");
}

#[test]
fn lost_ledger_keeps_archive_and_journal() {
    let mut site = Site::new();
    site.run(&body(0..30)).unwrap();
    site.run(&body(20..60)).unwrap();
    let before = site.runtime.block_on(site.archive().changes(None, usize::MAX)).unwrap();
    site.set(LEDGER, None);
    assert_eq!(site.run(&body(0..60)).unwrap().count(Quantity::NewEventsCount), 0);
    let after = site.runtime.block_on(site.archive().changes(None, usize::MAX)).unwrap();
    assert_eq!(after.archive, before.archive);
    let keys = |changes: &collector::archive::Changes| {
        let mut keys: Vec<_> = changes.changes.iter().map(|change| change.key.clone()).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&after), keys(&before), "each object once");
    site.assert_sound(60);
}

#[test]
fn changes_are_continued_by_cursor_and_foreign_cursors_are_refused() {
    let mut site = Site::new();
    site.run(&body(0..30)).unwrap();
    let archive = site.archive();
    let first = site.runtime.block_on(archive.changes(None, 1_000)).unwrap();
    assert!(first.complete && first.changes.iter().all(|change| change.digest.is_some()));
    site.run(&body(20..60)).unwrap();
    let next = site.runtime.block_on(archive.changes(Some(&first.cursor), 1_000)).unwrap();
    let all: Vec<_> = first.changes.iter().chain(&next.changes).map(|change| change.key.clone()).collect();
    assert_eq!(all.len(), site.objects().len());
    let refused = |cursor: &str| {
        let cursor: Cursor = cursor.parse().unwrap();
        site.runtime.block_on(archive.changes(Some(&cursor), 1)).unwrap_err()
    };
    let id = &first.archive;
    assert!(matches!(refused("0123456789abcdef:1:0123456789abcdef"), ChangesError::OtherArchive { .. }));
    assert!(matches!(refused(&format!("{id}:99:0123456789abcdef")), ChangesError::BeyondEnd { .. }));
    assert!(matches!(refused(&format!("{id}:1:0123456789abcdef")), ChangesError::Diverged(1)));
    for text in ["", "x", "a:b:c", "0123456789abcdef:1", "0123456789abcdef:-1:0123456789abcdef"] {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
}

fn collect(home: &Home, name: &str) -> Value {
    home.run_json(fixture(name))
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args(["-r", "-T"]).arg(from).arg(to).status().unwrap().success());
}

#[test]
fn store_without_a_commit_is_not_taken_for_another_archive() {
    let home = Home::new();
    let empty = home.write("empty.json", "[]");
    for _ in 0..3 {
        let ended = home.run(&empty);
        assert!(!ended.stderr.contains("another archive"), "{}", ended.stderr);
    }
    assert_eq!(collect(&home, "response.json")["counts"]["new_events_count"], 500);
}

#[test]
fn archive_that_is_not_mounted_is_not_begun_anew() {
    let home = Home::new();
    collect(&home, "response.json");
    fs::rename(home.path("data"), home.path("unmounted")).unwrap();
    fs::create_dir(home.path("data")).unwrap();
    let ended = home.run(fixture("response-next.json")).with(1);
    assert!(ended.stderr.contains("hint: mount the disk or correct --store"), "{}", ended.stderr);
    assert_eq!(home.store().len(), 0);
    fs::remove_dir_all(home.path("data")).unwrap();
    fs::rename(home.path("unmounted"), home.path("data")).unwrap();
    assert_eq!(collect(&home, "response-next.json")["counts"]["new_events_count"], 14);
}

#[test]
fn copy_of_a_living_archive_is_not_taken_for_complete() {
    let home = Home::new();
    collect(&home, "response.json");
    copy(&home.path("data"), &home.path("copy"));
    collect(&home, "response-next.json");
    // The copy got its metadata last.
    fs::remove_dir_all(home.path("copy/metadata")).unwrap();
    copy(&home.path("data/metadata"), &home.path("copy/metadata"));
    let next = fixture("response-next.json");
    let arguments = ["run", "--json", "--store", "copy", "--feed", next.to_str().unwrap()];
    let ended = home.collector(&arguments).with(1);
    assert!(ended.error_line().contains("incomplete"), "{}", ended.stderr);
    home.collector(&["repair", "--store", "copy"]).with(0);
    assert_eq!(home.collector(&arguments).with(0).json()["counts"]["new_events_count"], 14);
    home.collector(&["verify", "--store", "copy"]).with(0);
}

#[test]
fn ledger_of_another_archive_is_refused() {
    let (home, other) = (Home::new(), Home::new());
    collect(&home, "response.json");
    collect(&other, "response-sparse.json");
    fs::copy(other.path("data").join(LEDGER), home.path("data").join(LEDGER)).unwrap();
    let before = home.store();
    let ended = home.run(fixture("response-next.json")).with(1);
    assert!(ended.error_line().contains("is that of archive"), "{}", ended.stderr);
    assert_eq!(home.store(), before);
    home.collector(&["repair"]).with(0);
    assert_eq!(collect(&home, "response-next.json")["counts"]["new_events_count"], 14);
    home.collector(&["verify"]).with(0);
}
