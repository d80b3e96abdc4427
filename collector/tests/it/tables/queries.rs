//! Answers from tables: equal to those from objects, whatever state the tables are in.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use collector::archive::Archive;
use collector::event::Fields;
use collector::query::{CountBy, Filter, Found, Query, Revisions, TablesUse};
use collector::store::Key;
use collector::tables::{Months, TablesOptions};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use proptest::prelude::*;
use serde_json::Value;

use super::{History, Step, WINDOW, collected, files, overwrite, sealed, step, update};

/// What is asked.
fn queries() -> impl Strategy<Value = Query> {
    let day = || {
        prop::option::of((25..45_u32).prop_map(|day| {
            chrono::NaiveDate::from_ymd_opt(2026, 1, 1).unwrap() + TimeDelta::days(i64::from(day))
        }))
    };
    let choose = |texts: &'static [&'static str]| {
        prop::collection::vec(prop::sample::select(texts).prop_map(str::to_owned), 0..2)
    };
    let ids = prop::collection::btree_set(1..120_i64, 0..3);
    let text = prop::option::of(prop::sample::select(vec!["3", "å", "RÅN", "Falun", "version 1", "nowhere"]));
    let revisions = prop::sample::select(vec![Revisions::None, Revisions::Latest, Revisions::All]);
    (day(), day(), choose(&["brand", "Rån"]), choose(&["falun", ""]), ids, text, revisions).prop_map(
        |(from, to, types, locations, ids, text, revisions)| {
            let text = text.map(str::to_owned);
            Query { from, to, filter: Filter { types, locations, ids, text }, revisions, after: None }
        },
    )
}

pub(super) async fn answer(archive: &Archive, query: &Query) -> (Vec<Found>, TablesUse) {
    let mut answer = archive.query(query);
    let mut found = Vec::new();
    while let Some(event) = answer.next().await {
        found.push(event.unwrap());
    }
    (found, answer.tables())
}

async fn counts(archive: &Archive, query: &Query, by: CountBy) -> BTreeMap<String, u64> {
    let mut answer = archive.count(query, by);
    assert!(answer.next().await.is_none());
    assert_eq!(answer.cost().found as u64, answer.counts().values().sum::<u64>());
    answer.counts()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Tables of some moment, or of some months, and what was collected since.
    #[test]
    fn answers_are_equal_with_and_without_tables(
        before in prop::collection::vec(step(), 1..8),
        since in prop::collection::vec(step(), 0..4),
        asked in prop::collection::vec(queries(), 8),
        from in prop::option::of(prop::sample::select(vec!["2026-01", "2026-02"])),
        pages in any::<prop::sample::Index>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut history = History::new();
            for step in &before {
                history.poll(step).await;
            }
            let months = Months::new(from.map(|month| month.parse().unwrap()), None).unwrap();
            let made = update(&history.tables(&history.store), &TablesOptions::new(months, false, false)).await;
            for step in &since {
                history.poll(step).await;
            }
            let reading = history.archive.clone().with_tables(history.store.clone());
            for query in &asked {
                let (expected, _) = answer(&history.archive, query).await;
                let (found, used) = answer(&reading, query).await;
                assert_eq!(found, expected, "{query:?} {used:?}");
                assert_eq!(used.not_used, [""; 0]);
                for by in [CountBy::Type, CountBy::Location, CountBy::Day, CountBy::Hour] {
                    let mut counted = BTreeMap::<String, u64>::new();
                    for event in &expected {
                        let value = by.value(&Fields::of(&event.json).unwrap(), event.day);
                        *counted.entry(value).or_default() += 1;
                    }
                    assert_eq!(counts(&reading, query, by).await, counted, "{query:?}");
                    assert_eq!(counts(&history.archive, query, by).await, counted, "{query:?}");
                }
                if let Some(last) = expected.get(pages.index(expected.len().max(1))) {
                    let query = Query { after: Some(last.cursor.clone()), ..query.clone() };
                    assert_eq!(answer(&reading, &query).await.0, answer(&history.archive, &query).await.0);
                }
            }
            let (_, used) = answer(&reading, &Query::default()).await;
            assert_eq!(used.months.is_empty(), made.months.is_empty(), "{used:?}");
        });
    }
}

/// Tables that are absent, damaged, of a later version or of another moment than the archive.
#[tokio::test]
async fn unusable_tables_are_reported_and_objects_are_read() {
    let mut history = collected().await;
    let (store, reading) =
        (history.store.clone(), history.archive.clone().with_tables(history.store.clone()));
    let good = files(&store).await;
    let expect = async |history: &History, why: &str| {
        let (found, used) = answer(&reading, &Query::default()).await;
        assert_eq!(found, answer(&history.archive, &Query::default()).await.0, "{why}");
        assert!(used.not_used.iter().any(|reason| reason.contains(why)), "{why}: {used:?}");
    };
    let february = "tables/revisions/month=2026-02/revisions.parquet";
    store.delete(&Key::new(february).unwrap()).await.unwrap();
    expect(&history, "does not exist").await;
    let mut bytes = good[february].clone();
    *bytes.iter_mut().nth_back(500).unwrap() ^= 1;
    overwrite(&store, february, &bytes).await;
    expect(&history, "not the file that the manifest names").await;
    let manifest = "tables/manifest.json";
    let written = String::from_utf8(good[manifest].clone()).unwrap();
    for damaged in ["{".to_owned(), written.replacen("\"first_id\":", "\"first_id\":9", 1)] {
        overwrite(&store, manifest, damaged.as_bytes()).await;
        expect(&history, "damaged").await;
        assert!(!history.tables(&store).verify().await.unwrap().is_sound(), "{damaged}");
    }
    overwrite(&store, manifest, written.replace("\"format\":1", "\"format\":7").as_bytes()).await;
    expect(&history, "later version").await;
    store.delete(&Key::new(manifest).unwrap()).await.unwrap();
    expect(&history, "there are none").await;
    // The tables are restored from a later moment than the archive, or from that of another one.
    overwrite(&store, february, &good[february]).await;
    let cursor = serde_json::from_str::<Value>(&written).unwrap()["cursor"].as_str().unwrap().to_owned();
    let (archive, rest) = cursor.split_once(':').unwrap();
    let (sequence, commit) = rest.split_once(':').unwrap();
    for (other, why) in [
        (format!("{archive}:{}:{commit}", sequence.parse::<u64>().unwrap() + 5), "beyond the last one"),
        (format!("{archive}:{sequence}:0123456789abcdef"), "not part of this archive's history"),
        (format!("0123456789abcdef:{rest}"), "is of archive"),
    ] {
        overwrite(&store, manifest, sealed(&written.replace(&cursor, &other)).as_bytes()).await;
        expect(&history, why).await;
    }
    overwrite(&store, manifest, written.as_bytes()).await;
    history.poll(&Step { new_events: 2, edits: vec![(3, 1)], absent: vec![] }).await;
    let (found, used) = answer(&reading, &Query::default()).await;
    assert_eq!((i64::try_from(found.len()).unwrap(), used.not_used.len()), (history.last_id - 3, 0));
}

/// The file's filter says that it does not hold an id between those that it holds.
#[tokio::test]
async fn rows_are_not_read_for_an_absent_id() {
    let mut history = History::new();
    history.poll(&Step { new_events: 0, edits: vec![], absent: vec![5] }).await;
    update(&history.tables(&history.store), &TablesOptions::default()).await;
    let reading = history.archive.clone().with_tables(history.store.clone());
    for revisions in [Revisions::None, Revisions::All] {
        for (id, count) in [(WINDOW - 5, 0), (WINDOW - 6, 1)] {
            let filter = Filter { ids: BTreeSet::from([id]), ..Filter::default() };
            let from = "2026-01-01".parse().ok();
            let mut answer = reading.query(&Query { filter, from, revisions, ..Query::default() });
            let mut found = 0;
            while let Some(event) = answer.next().await {
                assert_eq!(event.unwrap().id, id);
                found += 1;
            }
            assert_eq!((found, answer.cost().lines > 0), (count, count > 0));
            assert_eq!(answer.tables().months, ["2026-01"]);
        }
    }
}

/// The file is the one that the manifest names, and its columns cannot be decoded.
#[tokio::test]
async fn table_that_cannot_be_decoded_is_reported_and_objects_are_read() {
    let history = collected().await;
    let store = &history.store;
    let reading = history.archive.clone().with_tables(store.clone());
    let good = files(store).await;
    let (key, manifest) = ("tables/revisions/month=2026-02/revisions.parquet", "tables/manifest.json");
    let mut bytes = good[key].clone();
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes.clone())).unwrap();
    let columns = reader.metadata().row_group(0).columns();
    let column = columns.iter().find(|column| column.column_path().string() == "object").unwrap();
    let (begin, length) = column.byte_range();
    bytes[usize::try_from(begin).unwrap()..][..usize::try_from(length).unwrap()].fill(0xff);
    let digest = collector::archive::content_digest;
    let written = String::from_utf8(good[manifest].clone()).unwrap();
    assert!(written.contains(&digest(&good[key])), "{written}");
    let changed = sealed(&written.replace(&digest(&good[key]), &digest(&bytes)));
    overwrite(store, manifest, changed.as_bytes()).await;
    overwrite(store, key, &bytes).await;
    let (found, used) = answer(&reading, &Query::default()).await;
    assert_eq!(found, answer(&history.archive, &Query::default()).await.0);
    assert_eq!((used.months.as_slice(), used.not_used.len()), (&["2026-01".to_owned()][..], 1), "{used:?}");
}

/// What a repair changed is in the table as it was before.
#[tokio::test]
async fn month_that_was_repaired_is_read_from_objects() {
    let history = collected().await;
    let store = &history.store;
    let listed = store.list("events/2026/02/").await.unwrap();
    let bytes = store.get(&listed[0].key).await.unwrap().unwrap().bytes;
    let duplicate = Key::new("events/2026/02/01/events-1800000000.jsonl").unwrap();
    let _ = store.create(&duplicate, &bytes).await.unwrap();
    update(&history.tables(store), &TablesOptions::new(Months::default(), true, false)).await;
    history.archive.repair(false, |_, _| ()).await.unwrap();
    let reading = history.archive.clone().with_tables(store.clone());
    let expected = answer(&history.archive, &Query::default()).await.0;
    let (found, used) = answer(&reading, &Query::default()).await;
    assert_eq!(found, expected);
    assert_eq!(
        (used.months, used.not_used),
        (vec!["2026-01".to_owned()], vec!["2026-02 has to be made again".to_owned()])
    );
    update(&history.tables(store), &TablesOptions::default()).await;
    let (found, used) = answer(&reading, &Query::default()).await;
    assert_eq!((found, used.not_used.len(), used.months.len()), (expected, 0, 2));
}
