//! `collector tables` as a program: killed at any moment, two at once, with a reader beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use fixtures::{Feed, FeedConfig};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::sealed;
use crate::crash::kill_after;
use crate::support::{Home, fixture};

/// Number of kills and of races, unless the variable `TABLES_ROUNDS` is set.
const ROUNDS: u32 = 12;

fn rounds() -> u32 {
    std::env::var("TABLES_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

/// Responses of a feed whose events are revised and withdrawn, one file for each poll.
fn record(home: &Home, polls: u32) -> Vec<String> {
    let mut feed = Feed::new(FeedConfig {
        seed: 11,
        buffer: 60,
        corrections: 0.1,
        withdrawals: 0.05,
        returns: 0.5,
        log: false,
        ..FeedConfig::default()
    });
    let mut names = Vec::new();
    for _ in 0..polls {
        feed.advance_by(chrono::Duration::hours(9));
        let name = format!("polls/{}.json", feed.now().timestamp());
        home.write(&name, feed.response().compact());
        names.push(name);
    }
    names
}

/// The files of a folder of tables, but for the manifest; each must be whole.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for table in ["events", "revisions"] {
        let Ok(months) = fs::read_dir(root.join("tables").join(table)) else { continue };
        for month in months {
            let folder = month.unwrap().path();
            let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(names.len() <= 1, "a month has several files: {names:?}");
            for path in names {
                let bytes = fs::read(&path).unwrap();
                let reader = SerializedFileReader::new(bytes::Bytes::from(bytes.clone())).unwrap();
                let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap).count();
                assert_eq!(i64::try_from(rows).unwrap(), reader.metadata().file_metadata().num_rows());
                found.insert(path.strip_prefix(root).unwrap().display().to_string(), bytes);
            }
        }
    }
    found
}

#[track_caller]
fn expect_as_from_scratch(home: &Home) {
    let _ = fs::remove_dir_all(home.path("scratch"));
    home.collector(&["tables", "--tables", "scratch"]).with(0);
    let (found, expected) = (files(&home.path("data")), files(&home.path("scratch")));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(found == expected, "the rows differ");
}

#[test]
fn killed_at_any_moment_the_next_run_completes() {
    let home = Home::new();
    let polls = record(&home, rounds() + 20);
    let (first, rest) = polls.split_at(20);
    home.collector(&[&["import"], first.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat())
        .with(0);
    let since = Instant::now();
    home.collector(&["tables", "--tables", "scratch"]).with(0);
    let whole = since.elapsed();
    let mut random = Pcg64Mcg::seed_from_u64(7);
    let mut killed = 0;
    for (round, poll) in rest.iter().enumerate() {
        home.collector(&["import", poll]).with(0);
        let mut command = home.command(&["tables"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let share = f64::from(random.next_u32()) / f64::from(u32::MAX);
        killed += u32::from(kill_after(child, whole.mul_f64(share)).is_none());
        // What a reader finds now is whole, and what remains is completed by the next run.
        files(&home.path("data"));
        if round % 4 == 3 {
            home.collector(&["tables"]).with(0);
            expect_as_from_scratch(&home);
        }
    }
    assert!(killed > 0, "no kill came in time");
    home.collector(&["tables"]).with(0);
    expect_as_from_scratch(&home);
}

/// The tables may hold what the archive has lost.
#[test]
fn tables_of_an_archive_that_lacks_objects_are_not_replaced() {
    let home = Home::new();
    home.run_json(fixture("response.json"));
    home.collector(&["tables"]).with(0);
    let before = files(&home.path("data"));
    fs::remove_dir_all(home.path("data/events/2025/12/30")).unwrap();
    for arguments in [&["tables", "--full"][..], &["tables", "--tables", "elsewhere"]] {
        let refused = home.collector(arguments).with(1);
        assert!(refused.error_line().contains("events/2025/12/30/ holds 0 of"), "{}", refused.stderr);
    }
    assert!(files(&home.path("data")) == before);
}

/// Such tables were once made by a period whose ends were exchanged.
#[test]
fn manifest_with_a_reversed_period_is_not_used() {
    let home = Home::new();
    home.run_json(fixture("response.json"));
    home.collector(&["tables"]).with(0);
    let path = home.path("data/tables/manifest.json");
    let written = fs::read_to_string(&path).unwrap();
    let (before, after) = written.split_once("\"covers\":{").unwrap();
    let rest = after.split_once('}').unwrap().1;
    let reversed = format!(r#"{before}"covers":{{"from":"2026-02","to":"2025-01"}}{rest}"#);
    fs::write(&path, sealed(&reversed)).unwrap();
    assert_eq!(home.collector(&["query", "--format", "jsonl"]).with(0).stdout.lines().count(), 500);
    home.collector(&["tables"]).with(0);
    expect_as_from_scratch(&home);
}

#[test]
fn two_at_once_end_well_and_a_reader_finds_whole_files() {
    let home = Home::new();
    let polls = record(&home, rounds() + 20);
    let (first, rest) = polls.split_at(20);
    home.collector(&[&["import"], first.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat())
        .with(0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut months = 0;
            while !is_over.load(Ordering::Relaxed) {
                let found = files(&home.path("data")).len();
                assert!(found >= months, "a month is missing");
                months = found;
            }
        });
        for poll in rest {
            home.collector(&["import", poll]).with(0);
            let start = || {
                let mut command = home.command(&["tables", "--json"]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            };
            for child in [start(), start()] {
                let ended = child.wait_with_output().unwrap();
                assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            }
        }
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    expect_as_from_scratch(&home);
}

#[test]
fn command_reports_what_it_wrote() {
    let home = Home::new();
    assert!(home.collector(&["tables"]).with(1).error_line().contains("there is no archive"));
    home.run_json(fixture("response.json"));
    let made = home.collector(&["tables", "--json"]).with(0).json();
    assert_eq!(made["events"], made["revisions"]);
    assert!(made["replaced"].as_array().unwrap().len() >= 2, "{made}");
    let again = home.collector(&["tables", "--json"]).with(0).json();
    assert_eq!((&again["replaced"], &again["objects_read"]), (&json!([]), &json!(0)));
    home.collector(&["verify"]).with(0);
}
