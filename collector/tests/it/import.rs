//! Imports store what single runs would have stored, whatever is stored together.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use collector::archive::{Archive, ArchiveOptions, Bulk, Outcome};
use collector::clock::VirtualClock;
use collector::event::Response;
use collector::store::{MemoryStore, SharedStore};
use fixtures::{Feed, FeedConfig};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{Home, fixture};

/// Elements that are not valid events.
const INVALID: [&str; 4] = [r#"{"id":"x"}"#, "7", r#"{"id":1}"#, r#"{"id":8,"datetime":"soon"}"#];

type Recorded = Vec<(DateTime<Utc>, Vec<u8>)>;

/// Responses of a feed that misbehaves, with what the real one has shown as well: several in one second, invalid elements.
fn record(seed: u64, count: u32, minutes: i64, in_one_second: bool) -> Recorded {
    let mut feed = Feed::new(FeedConfig {
        seed,
        buffer: 40,
        corrections: 0.2,
        withdrawals: 0.05,
        returns: 0.5,
        touches: 0.1,
        sparse: 0.1,
        log: false,
        ..FeedConfig::default()
    });
    let mut recorded = Vec::new();
    for number in 0..count {
        if number % 9 != 8 || !in_one_second {
            feed.advance_by(Duration::minutes(minutes));
        }
        let mut body = feed.response().compact();
        if number % 5 == 4 {
            let invalid = INVALID[usize::try_from(number).unwrap() / 5 % INVALID.len()];
            body.truncate(body.len() - 1);
            let comma = if body.len() > 1 { "," } else { "" };
            body.extend(format!("{comma}{invalid}]").into_bytes());
        }
        recorded.push((feed.now(), body));
    }
    recorded
}

fn archive(store: &SharedStore, capacity: usize, now: DateTime<Utc>) -> Archive {
    let options = ArchiveOptions { buffer: 40, capacity, ..ArchiveOptions::default() };
    Archive::new(Arc::clone(store), Arc::new(VirtualClock::at(now)), options)
}

/// The objects of an archive but for `metadata/`, and what its ledger remembers.
async fn contents(store: &SharedStore) -> (BTreeMap<String, String>, BTreeMap<String, Value>) {
    let (mut objects, mut ledger) = (BTreeMap::new(), BTreeMap::new());
    for listed in store.list("").await.unwrap() {
        let object = store.get(&listed.key).await.unwrap().unwrap();
        if listed.key.as_str() == "metadata/last_seen.json" {
            ledger = serde_json::from_slice(&object.bytes).unwrap();
        } else if !listed.key.as_str().starts_with("metadata/") {
            objects.insert(listed.key.to_string(), String::from_utf8(object.bytes).unwrap());
        }
    }
    for changes_with_commits in ["writes", "lineage"] {
        ledger.remove(changes_with_commits);
    }
    (objects, ledger)
}

async fn one_by_one(recorded: &Recorded, capacity: usize, now: DateTime<Utc>) -> SharedStore {
    let store: SharedStore = Arc::new(MemoryStore::default());
    let archive = archive(&store, capacity, now);
    let mut snapshot = archive.open().await.unwrap();
    for (time, body) in recorded {
        let response = Response::parse(body).unwrap();
        let (deposit, after) = archive.deposit(&response, snapshot, *time).await.unwrap();
        assert_eq!(deposit.outcome, Outcome::Stored);
        snapshot = after;
    }
    store
}

/// Imports in parts that end before the positions in `ends`.
async fn in_parts(recorded: &Recorded, capacity: usize, now: DateTime<Utc>, ends: &[usize]) -> SharedStore {
    let store: SharedStore = Arc::new(MemoryStore::default());
    let archive = archive(&store, capacity, now);
    let mut bulk = Bulk::new(&archive);
    for (position, (time, body)) in recorded.iter().enumerate() {
        if ends.contains(&position) {
            assert!(bulk.finish().await.unwrap().responses <= position);
            bulk = Bulk::new(&archive);
        }
        bulk.add(Response::parse(body).unwrap(), *time).await.unwrap();
    }
    bulk.finish().await.unwrap();
    store
}

#[test]
fn json_lines_are_imported_as_files_are() {
    let recorded = record(3, 30, 47, false);
    let (files, lines) = (Home::new(), Home::new());
    let mut text = String::new();
    for (number, (time, body)) in recorded.iter().enumerate().rev() {
        files.write(&format!("polls/{}.json", time.timestamp()), body);
        let body = std::str::from_utf8(body).unwrap();
        let time =
            if number % 2 == 0 { format!("\"{}\"", time.to_rfc3339()) } else { time.timestamp().to_string() };
        writeln!(text, "{{\"body\": {body}, \"time\": {time}}}\n").unwrap();
    }
    lines.write("polls.jsonl", &text);
    files.collector(&["import", "polls"]).with(0);
    let summary = lines.collector(&["import", "--json", "polls.jsonl"]).with(0).json();
    assert_eq!(summary["responses"], 30);
    let objects = |home: &Home| {
        let mut objects = home.store();
        objects.retain(|key, _| !key.starts_with(['.', 'm']));
        objects
    };
    assert_eq!(objects(&lines), objects(&files));
    lines.write("broken.jsonl", "\n{\"time\": 1767362400}\n");
    let ended = lines.collector(&["import", "broken.jsonl"]).with(2);
    assert!(ended.error_line().contains("broken.jsonl: line 2: missing field `body`"), "{}", ended.stderr);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn import_stores_what_single_runs_store(
        seed in any::<u64>(),
        in_one_second in any::<bool>(),
        count in 2_u32..60,
        minutes in prop::sample::select(vec![7_i64, 47, 400]),
        capacity in prop::sample::select(vec![40_usize, 80, 1_000]),
        ends in prop::collection::vec(0_usize..60, 0..6),
    ) {
        let recorded = record(seed, count, minutes, in_one_second);
        let now = recorded[recorded.len() - 1].0 + Duration::hours(1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (expected, found) = runtime.block_on(async {
            let single = one_by_one(&recorded, capacity, now).await;
            let together = in_parts(&recorded, capacity, now, &ends).await;
            (contents(&single).await, contents(&together).await)
        });
        prop_assert_eq!(&found.0, &expected.0);
        for (member, value) in &expected.1 {
            prop_assert_eq!(found.1.get(member), Some(value), "{}", member);
        }
    }
}

#[test]
fn name_that_is_not_unicode_states_the_time_as_well() {
    let home = Home::new();
    let body = std::fs::read(fixture("response.json")).unwrap();
    home.write("polls/1767700003.json", &body);
    let name = OsStr::from_bytes(b"h\xe4ndelser-1767700002.json");
    std::fs::write(home.path("polls").join(name), &body).unwrap();
    assert_eq!(home.collector(&["import", "--json", "polls"]).with(0).json()["responses"], 2);
}
