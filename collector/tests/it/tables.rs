//! The Parquet files of the archive: whatever happened before, they hold what the objects hold.

mod interrupted;
mod processes;
mod queries;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{Archive, ArchiveOptions, content_digest};
use collector::clock::{SharedClock, VirtualClock};
use collector::event::{Response, content};
use collector::store::{Key, MemoryStore, SharedStore};
use collector::tables::{Months, Tables, TablesOptions, TablesReport};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::cost::CountingStore;

/// Number of events in a response: enough that one in the middle that is absent was withdrawn.
const WINDOW: i64 = 60;

/// What happens between two polls.
#[derive(Debug, Clone)]
struct Step {
    new_events: i64,
    /// Which event of the response, and its version.
    edits: Vec<(usize, u8)>,
    absent: Vec<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let edits = prop::collection::vec((0..60_usize, 0..7_u8), 0..4);
    let absent = prop::collection::vec(0..20_usize, 0..3);
    (0..4_i64, edits, absent).prop_map(|(new_events, edits, absent)| Step { new_events, edits, absent })
}

fn start() -> DateTime<Utc> {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

/// The event with this id in one of its versions. Events follow each other by an hour, over the end of a month.
fn event(id: i64, version: u8) -> Value {
    let days = if version == 3 { 20 } else { 0 };
    let at = start() - TimeDelta::hours(WINDOW) + TimeDelta::hours(id) + TimeDelta::days(days);
    let mut event = json!({"id": id, "datetime": at.format("%Y-%m-%d %-H:%M:%S +01:00").to_string(),
        "name": format!("{id}, Brand"), "summary": format!("version {version} Å"), "url": "/aktuellt",
        "type": (if id % 2 == 0 { "Brand" } else { "Rån" }), "location": {"name": "Falun", "gps": "60.6,15.6"}});
    match version {
        2 => event["name"] = json!(5),
        4 => event["location"] = json!({"name": "Falun"}),
        5 => event["more"] = json!({"unknown": [1, null]}),
        6 => event["location"] = json!({"name": "", "gps": "nowhere"}),
        _ => {}
    }
    event
}

/// An archive that is collected step by step.
struct History {
    store: SharedStore,
    archive: Archive,
    clock: Arc<VirtualClock>,
    last_id: i64,
    versions: BTreeMap<i64, u8>,
}

impl History {
    fn new() -> Self {
        Self::collected_into(Arc::new(MemoryStore::default()))
    }

    fn collected_into(store: SharedStore) -> Self {
        let clock = Arc::new(VirtualClock::at(start()));
        let shared: SharedClock = clock.clone();
        let archive = Archive::new(store.clone(), shared, ArchiveOptions::default());
        Self { store, archive, clock, last_id: WINDOW, versions: BTreeMap::new() }
    }

    fn tables(&self, store: &SharedStore) -> Tables {
        Tables::new(self.archive.clone(), store.clone())
    }

    async fn poll(&mut self, step: &Step) {
        self.last_id += step.new_events;
        let ids: Vec<i64> = (self.last_id - WINDOW + 1..=self.last_id).rev().collect();
        for (index, version) in &step.edits {
            self.versions.insert(ids[*index], *version);
        }
        let absent: BTreeSet<i64> = step.absent.iter().map(|index| ids[*index]).collect();
        let present = ids.iter().filter(|id| !absent.contains(id));
        let events = present.map(|&id| event(id, self.versions.get(&id).copied().unwrap_or_default()));
        let body = events.collect::<Value>().to_string();
        let response = Response::parse(body.as_bytes()).unwrap();
        let snapshot = self.archive.open().await.unwrap();
        self.archive.deposit(&response, snapshot, now(&self.clock)).await.unwrap();
        self.clock.set(now(&self.clock) + TimeDelta::minutes(30));
    }
}

fn now(clock: &VirtualClock) -> DateTime<Utc> {
    use collector::clock::Clock as _;
    clock.now()
}

fn empty() -> SharedStore {
    Arc::new(MemoryStore::default())
}

async fn update(tables: &Tables, options: &TablesOptions) -> TablesReport {
    tables.update(options).await.unwrap()
}

/// Every object of the tables and its bytes.
async fn files(store: &SharedStore) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for listed in store.list("tables/").await.unwrap() {
        let bytes = store.get(&listed.key).await.unwrap().unwrap().bytes;
        files.insert(listed.key.to_string(), bytes);
    }
    files
}

/// The rows of a table by month.
async fn rows(store: &SharedStore, table: &str) -> Vec<(String, BTreeMap<String, Field>)> {
    let mut found = Vec::new();
    for (key, bytes) in
        files(store).await.into_iter().filter(|(key, _)| key.ends_with(&format!("/{table}.parquet")))
    {
        let month = key.split("month=").nth(1).unwrap()[..7].to_owned();
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        for row in reader.get_row_iter(None).unwrap() {
            let columns = row.unwrap().into_columns().into_iter().collect();
            found.push((month.clone(), columns));
        }
    }
    found
}

/// A line of the archive: when it was seen, whether it is a revision, its month and its text.
type Seen = (i64, bool, String, String);

/// The lines of the archive by event, in the order in which they were seen.
async fn lines(store: &SharedStore) -> BTreeMap<i64, Vec<Seen>> {
    let mut found: BTreeMap<i64, Vec<Seen>> = BTreeMap::new();
    for kind in ["events/", "revisions/"] {
        for listed in store.list(kind).await.unwrap() {
            let key = listed.key.as_str();
            let parts: Vec<&str> = key.split(['/', '-', '.']).collect();
            let (month, second) = (format!("{}-{}", parts[1], parts[2]), parts[5].parse().unwrap());
            let bytes = store.get(&listed.key).await.unwrap().unwrap().bytes;
            for line in String::from_utf8(bytes).unwrap().lines() {
                let id = serde_json::from_str::<Value>(line).unwrap()["id"].as_i64().unwrap();
                let seen = (second, kind == "revisions/", month.clone(), line.to_owned());
                found.entry(id).or_default().push(seen);
            }
        }
    }
    for lines in found.values_mut() {
        lines.sort();
    }
    found
}

/// Ids that were reported as withdrawn and not as returned since, with the second of the run.
async fn withdrawn(store: &SharedStore) -> BTreeMap<i64, i64> {
    let mut found = BTreeMap::new();
    for listed in store.list("withdrawn/").await.unwrap() {
        let second: i64 = listed.key.as_str().split(['-', '.']).nth(1).unwrap().parse().unwrap();
        let bytes = store.get(&listed.key).await.unwrap().unwrap().bytes;
        for line in String::from_utf8(bytes).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let id = line["id"].as_i64().unwrap();
            if line.get("returned").is_some() {
                found.remove(&id)
            } else {
                found.insert(id, second)
            };
        }
    }
    found
}

fn text(row: &BTreeMap<String, Field>, column: &str) -> Option<String> {
    match &row[column] {
        Field::Str(text) => Some(text.clone()),
        Field::Null => None,
        other => panic!("{column}: {other}"),
    }
}

fn micros(row: &BTreeMap<String, Field>, column: &str) -> Option<i64> {
    match &row[column] {
        Field::TimestampMicros(micros) | Field::Long(micros) => Some(*micros),
        Field::Int(number) => Some(i64::from(*number)),
        Field::Null => None,
        other => panic!("{column}: {other:?}"),
    }
}

/// Holds the tables against the lines of the archive, read in another way.
async fn check(archive: &SharedStore, tables: &SharedStore) {
    let (lines, withdrawn) = (lines(archive).await, withdrawn(archive).await);
    let events = rows(tables, "events").await;
    assert_eq!(events.len(), lines.len(), "an event is missing or stands twice");
    for (month, row) in &events {
        let id = micros(row, "id").unwrap();
        let mut seen = lines[&id].clone();
        let mut known = BTreeSet::new();
        seen.retain(|line| known.insert(content(line.3.as_bytes())));
        let (_, _, month_of_latest, latest) = seen.last().unwrap();
        assert_eq!((month, text(row, "raw").as_ref()), (month_of_latest, Some(latest)));
        assert_eq!(micros(row, "versions"), i64::try_from(seen.len()).ok());
        assert_eq!(micros(row, "first_seen"), Some(seen[0].0 * 1_000_000));
        assert_eq!(micros(row, "withdrawn"), withdrawn.get(&id).map(|second| second * 1_000_000), "{id}");
        let event: Value = serde_json::from_str(latest).unwrap();
        for (column, pointer) in [
            ("name", "/name"),
            ("summary", "/summary"),
            ("type", "/type"),
            ("location_name", "/location/name"),
        ] {
            let expected = event.pointer(pointer).and_then(Value::as_str);
            assert_eq!(text(row, column).as_deref(), expected, "{column} of {latest}");
        }
        let gps = event.pointer("/location/gps").and_then(Value::as_str);
        assert_eq!(row["lat"] == Field::Null, gps.is_none_or(|gps| gps == "nowhere"));
        let local = event["datetime"].as_str().unwrap().strip_suffix(" +01:00").unwrap();
        let local = chrono::NaiveDateTime::parse_from_str(local, "%Y-%m-%d %H:%M:%S").unwrap().and_utc();
        assert_eq!(micros(row, "local_datetime"), Some(local.timestamp_micros()));
        assert_eq!(micros(row, "datetime"), Some(local.timestamp_micros() - 3_600_000_000));
        assert_eq!(micros(row, "utc_offset_minutes"), Some(60));
    }
    let order: Vec<_> =
        events.iter().map(|(month, row)| (month, micros(row, "datetime"), micros(row, "id"))).collect();
    assert!(order.is_sorted(), "the rows of a month are sorted by time, then id");
    let mut revisions: Vec<_> =
        rows(tables, "revisions").await.iter().map(|(_, row)| text(row, "raw").unwrap()).collect();
    let mut expected: Vec<_> = lines.into_values().flatten().map(|(.., line)| line).collect();
    revisions.sort();
    expected.sort();
    assert_eq!(revisions, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// After each poll, or after several, the tables are brought up to date; in the end they are made anew elsewhere.
    #[test]
    fn incremental_tables_equal_tables_from_scratch(
        steps in prop::collection::vec((step(), any::<bool>()), 1..14),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut history = History::new();
            let incremental = empty();
            for (step, is_updated) in &steps {
                history.poll(step).await;
                if *is_updated {
                    update(&history.tables(&incremental), &TablesOptions::default()).await;
                    let scratch = empty();
                    update(&history.tables(&scratch), &TablesOptions::default()).await;
                    assert_eq!(files(&incremental).await, files(&scratch).await);
                    check(&history.store, &incremental).await;
                }
            }
            update(&history.tables(&incremental), &TablesOptions::default()).await;
            check(&history.store, &incremental).await;
            let again = update(&history.tables(&incremental), &TablesOptions::default()).await;
            assert_eq!((again.replaced, again.objects_read), (vec![], 0));
            let full = TablesOptions { full: true, ..TablesOptions::default() };
            assert_eq!(update(&history.tables(&incremental), &full).await.replaced, [""; 0]);
        });
    }
}

/// The line that moves the event back is added to another month than the one whose table names it.
#[tokio::test]
async fn event_that_moves_to_the_next_month_and_back_stands_once() {
    let mut history = History::new();
    let tables = empty();
    for version in [0, 3, 1] {
        history.poll(&Step { new_events: 0, edits: vec![(49, version)], absent: vec![] }).await;
        update(&history.tables(&tables), &TablesOptions::default()).await;
        check(&history.store, &tables).await;
    }
}

/// A history over two months of all events but the first three, with tables beside the archive.
async fn collected() -> History {
    let mut history = History::new();
    let quiet = Step { new_events: 3, edits: vec![], absent: vec![] };
    for _ in 0..6 {
        history.poll(&quiet).await;
    }
    update(&history.tables(&history.store.clone()), &TablesOptions::default()).await;
    history
}

/// A manifest with the digest of its other members, as if the program had written it.
fn sealed(manifest: &str) -> String {
    let (members, _) = manifest.rsplit_once(",\"digest\":\"").unwrap();
    format!("{members},\"digest\":\"{}\"}}\n", content_digest(members.as_bytes()))
}

async fn overwrite(store: &SharedStore, key: &str, bytes: &[u8]) {
    let key = Key::new(key).unwrap();
    store.delete(&key).await.unwrap();
    let _ = store.create(&key, bytes).await.unwrap();
}

#[tokio::test]
async fn files_that_are_lost_or_damaged_are_made_again() {
    let history = collected().await;
    let store = &history.store;
    let tables = history.tables(store);
    let good = files(store).await;
    assert_eq!(good.len(), 5, "{:?}", good.keys());
    for key in good.keys() {
        store.delete(&Key::new(key.as_str()).unwrap()).await.unwrap();
        update(&tables, &TablesOptions::default()).await;
        assert_eq!(files(store).await, good, "{key} was lost");
        overwrite(store, key, b"PAR1 and nothing else").await;
        update(&tables, &TablesOptions::default()).await;
        assert_eq!(files(store).await, good, "{key} was damaged");
        // Of the same size, so that only reading shows it.
        let mut bytes = good[key].clone();
        *bytes.iter_mut().nth_back(400).unwrap() ^= 1;
        overwrite(store, key, &bytes).await;
        update(&tables, &TablesOptions { full: true, ..TablesOptions::default() }).await;
        assert_eq!(files(store).await, good, "{key} was changed");
    }
}

#[tokio::test]
async fn only_months_that_are_asked_for_are_made() {
    let history = collected().await;
    let store = empty();
    let tables = history.tables(&store);
    let of = |from: Option<&str>, to: Option<&str>| {
        let month = |text: &str| text.parse().unwrap();
        let months = Months::new(from.map(month), to.map(month)).unwrap();
        TablesOptions { months, ..TablesOptions::default() }
    };
    let made = update(&tables, &of(Some("2026-02"), None)).await;
    assert_eq!(made.replaced.len(), 2);
    assert!(made.replaced.iter().all(|key| key.contains("month=2026-02")), "{made:?}");
    assert_eq!(update(&tables, &of(Some("2026-02"), Some("2026-02"))).await.replaced.len(), 0);
    assert_eq!(update(&tables, &TablesOptions::default()).await.replaced.len(), 2);
    check(&history.store, &store).await;
    assert_eq!(update(&tables, &of(Some("2026-01"), Some("2026-01"))).await.replaced.len(), 0);
}

#[tokio::test]
async fn update_after_a_day_costs_a_request_for_each_new_object_and_twelve() {
    let store = Arc::new(CountingStore::default());
    let mut history = History::collected_into(store.clone());
    let day = (0..48).map(|poll| {
        let edits = if poll % 4 == 0 { vec![(5, 1 + poll / 4 % 2)] } else { vec![] };
        let absent = if poll == 40 { vec![3] } else { vec![] };
        Step { new_events: 1, edits, absent }
    });
    for step in day.clone() {
        history.poll(&step).await;
    }
    let tables = history.tables(&history.store.clone());
    update(&tables, &TablesOptions::default()).await;
    let before = history.store.list("").await.unwrap().len();
    for step in day {
        history.poll(&step).await;
    }
    // Events, revisions, withdrawals, and the records of their commits.
    let new = history.store.list("").await.unwrap().len() - before;
    store.asked.lock().unwrap().clear();
    let report = update(&tables, &TablesOptions::default()).await;
    let asked = store.asked.lock().unwrap().clone();
    assert!(report.objects_read > 60, "{report:?}");
    assert!(asked.values().sum::<usize>() <= new + 12, "{asked:?} for {new} new objects");
    check(&history.store, &history.store).await;
}

#[tokio::test]
async fn dry_run_reports_and_writes_nothing() {
    let history = collected().await;
    let store = empty();
    let tables = history.tables(&store);
    let dry = update(&tables, &TablesOptions { dry_run: true, ..TablesOptions::default() }).await;
    assert!(store.list("").await.unwrap().is_empty());
    let mut wet = update(&tables, &TablesOptions::default()).await;
    wet.dry_run = true;
    assert_eq!(dry, wet);
}

#[tokio::test]
async fn tables_of_another_history_are_made_anew() {
    let (one, mut other) = (collected().await, History::new());
    other.poll(&Step { new_events: 0, edits: vec![], absent: vec![] }).await;
    let tables = empty();
    update(&one.tables(&tables), &TablesOptions::default()).await;
    update(&other.tables(&tables), &TablesOptions::default()).await;
    check(&other.store, &tables).await;
}

#[tokio::test]
async fn tables_of_a_later_version_are_left_alone() {
    let history = collected().await;
    let store = &history.store;
    overwrite(store, "tables/manifest.json", br#"{"format":2,"months":[]}"#).await;
    let tables = history.tables(store);
    let refused = tables.update(&TablesOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("have format 2"), "{refused}");
    assert!(refused.hint().unwrap().contains("--full"));
    update(&tables, &TablesOptions { full: true, ..TablesOptions::default() }).await;
    check(store, store).await;
}

#[tokio::test]
async fn values_of_another_type_are_null_and_counted() {
    let mut history = History::new();
    let edits = vec![(0, 2)];
    history.poll(&Step { new_events: 0, edits, absent: vec![] }).await;
    let report = update(&history.tables(&history.store.clone()), &TablesOptions::default()).await;
    assert_eq!((report.odd_values, report.unreadable, report.events.cast_signed()), (1, 0, WINDOW));
    check(&history.store, &history.store).await;
}

#[tokio::test]
async fn verify_names_the_months_that_are_wrong() {
    let mut history = collected().await;
    let store = history.store.clone();
    let tables = history.tables(&store);
    let sound = tables.verify().await.unwrap();
    assert_eq!((sound.is_sound(), sound.months, sound.events.cast_signed()), (true, 2, history.last_id - 3));
    let good = files(&store).await;
    for (key, bytes) in good.iter().filter(|(key, _)| key.ends_with(".parquet")) {
        let mut changed = bytes.clone();
        *changed.iter_mut().nth_back(500).unwrap() ^= 1;
        overwrite(&store, key, &changed).await;
        let wrong = tables.verify().await.unwrap();
        let month = key.split("month=").nth(1).unwrap()[..7].to_owned();
        assert_eq!(wrong.wrong_months.iter().map(ToString::to_string).collect::<Vec<_>>(), [month], "{key}");
        overwrite(&store, key, bytes).await;
    }
    // The files of another month in its place: whole, and wrong.
    let [january, february] =
        ["01", "02"].map(|month| format!("tables/events/month=2026-{month}/events.parquet"));
    overwrite(&store, &january, &good[&february]).await;
    assert_eq!(tables.verify().await.unwrap().wrong_months.len(), 1);
    overwrite(&store, &january, &good[&january]).await;
    // What was collected since is not a finding, also if it revises what is in the tables.
    history.poll(&Step { new_events: 1, edits: vec![(30, 1), (2, 1)], absent: vec![4] }).await;
    let behind = history.tables(&store).verify().await.unwrap();
    assert!(behind.is_sound() && behind.objects_since > 1, "{behind:?}");
    // A second file of a month, which tools would read as well.
    let beside = january.replace("/events.", "/copy.");
    overwrite(&store, &beside, &good[&january]).await;
    let problems = tables.verify().await.unwrap().problems;
    assert!(problems.len() == 1 && problems[0].starts_with(&beside), "{problems:?}");
    let manifest = String::from_utf8(good["tables/manifest.json"].clone()).unwrap();
    let (before, after) = manifest.split_once("\"cursor\":\"").unwrap();
    let without_cursor = format!("{before}\"cursor\":null{}", after.split_once('"').unwrap().1);
    overwrite(&store, "tables/manifest.json", sealed(&without_cursor).as_bytes()).await;
    assert!(!tables.verify().await.unwrap().is_sound());
    store.delete(&Key::new("tables/manifest.json").unwrap()).await.unwrap();
    assert!(!tables.verify().await.unwrap().is_sound());
}

/// The months that are left out still lack what was committed since, so the cursor stays where it was.
#[tokio::test]
async fn tables_of_which_some_months_were_updated_are_sound() {
    let mut history = collected().await;
    let store = history.store.clone();
    history.poll(&Step { new_events: 2, edits: vec![(1, 1), (50, 1)], absent: vec![] }).await;
    let february = "2026-02".parse().unwrap();
    let months = Months::new(Some(february), Some(february)).unwrap();
    let tables = history.tables(&store);
    let made = update(&tables, &TablesOptions { months, ..TablesOptions::default() }).await;
    assert_eq!(made.months, [february]);
    let findings = tables.verify().await.unwrap();
    assert!(findings.is_sound() && findings.objects_since > 0, "{findings:?}");
    update(&tables, &TablesOptions::default()).await;
    assert_eq!(tables.verify().await.unwrap().objects_since, 0);
    check(&store, &store).await;
}
