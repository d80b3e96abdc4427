//! The real program, killed at any moment, several at once, on a disk that is full.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use fixtures::{Feed, FeedConfig};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

use crate::support::{Ended, Home, fixture};

/// Number of kills, unless the variable `KILLS` is set. Each comes at another moment of the program's work.
const KILLS: u32 = 60;
/// How often several are started at once, unless the variable `RACES` is set.
const RACES: u32 = 50;

pub(crate) fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Recorded responses of a feed that misbehaves, in a folder of the home.
fn record(home: &Home, responses: u32) -> BTreeMap<i64, usize> {
    let mut feed = Feed::new(FeedConfig {
        seed: 5,
        buffer: 60,
        corrections: 0.1,
        withdrawals: 0.05,
        returns: 0.5,
        sparse: 0.1,
        log: false,
        ..FeedConfig::default()
    });
    let mut seen = BTreeMap::new();
    for _ in 0..responses {
        feed.advance_by(chrono::Duration::minutes(47));
        let response = feed.response();
        for event in response.events() {
            *seen.entry(i64::try_from(event.id()).unwrap()).or_default() += 1;
        }
        home.write(&format!("polls/{}.json", feed.now().timestamp()), response.compact());
    }
    seen
}

fn all_ids(home: &Home) -> Vec<i64> {
    let mut ids: Vec<i64> =
        home.lines("events").iter().map(|line| line.json()["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

/// The archive without the names that say when it was written: kind, day and line.
fn contents(home: &Home) -> Vec<(&'static str, String, String)> {
    let mut contents = Vec::new();
    for kind in ["events", "revisions", "rejected"] {
        contents.extend(home.lines(kind).into_iter().map(|line| (kind, line.day, line.text)));
    }
    contents.sort();
    contents
}

/// Kills a program after a time, unless it ended before. Its exit code if it did.
pub(crate) fn kill_after(mut child: Child, time: Duration) -> Option<i32> {
    let mut log = child.stderr.take().unwrap();
    let (ended, end) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        let _ = log.read_to_string(&mut text);
        let _ = ended.send(());
    });
    let killed = end.recv_timeout(time).is_err();
    if killed {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    reader.join().unwrap();
    status.code()
}

#[test]
fn killed_at_any_moment_and_started_again_it_comes_to_the_same_archive() {
    let undisturbed = Home::new();
    let seen = record(&undisturbed, 120);
    let polls = undisturbed.path("polls");
    let polls = polls.to_str().unwrap();
    let since = Instant::now();
    undisturbed.collector(&["import", "polls"]).with(0);
    let whole = since.elapsed();
    assert_eq!(all_ids(&undisturbed), seen.keys().copied().collect::<Vec<_>>());

    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let wanted = number("KILLS", KILLS);
    let mut kills = 0;
    while kills < wanted {
        let home = Home::new();
        loop {
            let mut command = home.command(&["import", polls]);
            let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            // Up to a quarter of the whole, so that one archive meets several deaths.
            let code =
                kill_after(child, whole.mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX) / 4.0));
            home.assert_sound("data");
            if code == Some(0) {
                break;
            }
            assert_eq!(code, None, "it failed instead of being killed");
            kills += 1;
            if kills % 10 == 0 {
                // A process that is not killed continues where the killed ones stopped.
                home.collector(&["import", polls]).with(0);
                break;
            }
        }
        home.collector(&["verify", "--json"]).with(0);
        assert_eq!(contents(&home), contents(&undisturbed));
    }
}

#[test]
fn a_repair_killed_at_any_moment_and_started_again_loses_no_line() {
    let mut rng = Pcg64Mcg::seed_from_u64(2);
    for _ in 0..8 {
        let home = Home::new();
        home.run_json(fixture("response.json"));
        for (key, bytes) in home.store() {
            if let Some(stem) = key.strip_prefix("events/").and_then(|key| key.strip_suffix(".jsonl")) {
                home.write(&format!("data/events/{stem}-again.jsonl"), bytes);
            }
        }
        let lines = |kinds: &[&str]| {
            let mut lines: Vec<_> =
                kinds.iter().flat_map(|kind| home.lines(kind)).map(|line| line.text).collect();
            lines.sort();
            lines
        };
        let before = lines(&["events"]);
        assert_eq!(before.len(), 1_000);
        for _ in 0..10 {
            let child =
                home.command(&["repair"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            kill_after(child, Duration::from_micros(u64::from(rng.next_u32() % 60_000)));
        }
        home.collector(&["repair"]).with(0);
        let findings = home.collector(&["verify", "--json"]).with(0).json();
        assert_eq!(findings["events"], 500);
        let mut after = lines(&["events", "repaired/events"]);
        assert!(after.len() >= before.len(), "a line is lost");
        after.dedup();
        assert_eq!(after, lines(&["events"]));
    }
}

#[test]
fn several_at_once_store_everything_once_and_none_fails_for_the_others() {
    for race in 0..number("RACES", RACES) {
        let home = Home::new();
        let start = || {
            let mut command =
                home.command(&["run", "--json", "--feed", fixture("response.json").to_str().unwrap()]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<Child> = (0..4).map(|_| start()).collect();
        let mut stored = 0;
        for child in children {
            let ended = Ended::from(child.wait_with_output().unwrap()).with(0);
            let report = ended.json();
            stored += report["counts"]["new_events_count"].as_u64().unwrap_or(0);
            if !report["left_to"].is_null() {
                assert!(ended.stderr.contains("another run is at work"), "race {race}: {}", ended.stderr);
            }
        }
        assert_eq!(stored, 500, "race {race}");
        assert_eq!(home.collector(&["verify", "--json"]).with(0).json()["events"], 500, "race {race}");
        assert_eq!(home.records().len(), 4);
    }
}

#[test]
fn several_imports_at_once_come_to_the_same_archive() {
    let alone = Home::new();
    record(&alone, 40);
    alone.collector(&["import", "polls"]).with(0);
    let home = Home::new();
    record(&home, 40);
    let start =
        || home.command(&["import", "polls"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<Child> = (0..4).map(|_| start()).collect();
    for child in children {
        Ended::from(child.wait_with_output().unwrap()).with(0);
    }
    home.collector(&["verify", "--json"]).with(0);
    assert_eq!(contents(&home), contents(&alone));
}

#[test]
fn a_full_disk_fails_the_run_and_changes_nothing() {
    // No file of this process may grow beyond a limit: the kernel answers as a full disk does, at every write.
    let home = Home::new();
    home.run_json(fixture("response.json"));
    let before = home.objects();
    for limit_kib in [0, 1, 4, 16] {
        let program = env!("CARGO_BIN_EXE_collector");
        let feed = fixture("response-next.json");
        let script = format!(
            "trap '' XFSZ; ulimit -f {limit_kib}; exec {program} run --feed {} --metrics-dir /dev/null/none",
            feed.display()
        );
        let ended = Ended::from(home.program("sh").args(["-c", &script]).output().unwrap()).with(1);
        assert!(ended.error_line().contains("data/"), "{}", ended.stderr);
        assert_eq!(home.objects(), before, "limit {limit_kib} KiB");
        home.collector(&["verify", "--json"]).with(0);
    }
    assert!(home.run_json(fixture("response-next.json"))["counts"]["new_events_count"].as_u64().unwrap() > 0);
    home.collector(&["verify", "--json"]).with(0);
    assert!(fs::read_dir(home.path("data/.staging")).unwrap().next().is_none(), "nothing is left staged");
}
