//! Answers from tables: equal to those from objects, whatever state the tables are in.

use chrono::TimeDelta;
use collector::archive::Archive;
use collector::query::{Filter, Found, Query, Revisions, TablesUse};
use collector::store::Key;
use collector::tables::{Months, TablesOptions};
use proptest::prelude::*;
use serde_json::Value;

use super::{History, Step, collected, files, overwrite, step, update};

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

async fn answer(archive: &Archive, query: &Query) -> (Vec<Found>, TablesUse) {
    let mut answer = archive.query(query);
    let mut found = Vec::new();
    while let Some(event) = answer.next().await {
        found.push(event.unwrap());
    }
    (found, answer.tables())
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
            let months = Months { from: from.map(|month| month.parse().unwrap()), to: None };
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
    overwrite(&store, manifest, b"{").await;
    expect(&history, "damaged").await;
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
        overwrite(&store, manifest, written.replace(&cursor, &other).as_bytes()).await;
        expect(&history, why).await;
    }
    overwrite(&store, manifest, written.as_bytes()).await;
    history.poll(&Step { new_events: 2, edits: vec![(3, 1)], absent: vec![] }).await;
    let (found, used) = answer(&reading, &Query::default()).await;
    assert_eq!((i64::try_from(found.len()).unwrap(), used.not_used.len()), (history.last_id - 3, 0));
}
