//! A history from outside: kept in a folder and on a branch, chained over references, checked and accepted.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bench::gate::machine::Machine;
use bench::gate::statistics::Interval;
use bench::gate::work_tree::{Commit, Repository};
use bench::history::branch::Branch;
use bench::history::findings::{Kind, findings};
use bench::history::measurement::{FORMAT, Measurement};
use bench::history::series::series;
use bench::history::simulation::{Injected, Noise, simulate};
use bench::history::storage::{History, Storage};
use chrono::{DateTime, TimeDelta};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tempfile::TempDir;

fn commit(number: u64) -> Commit {
    Commit {
        id: format!("{number:040x}"),
        time: DateTime::UNIX_EPOCH + TimeDelta::hours(i64::try_from(number).unwrap()),
        position: number,
        subject: format!("Change {number}"),
    }
}

/// A measurement of a commit against another, with benches that take some ratios.
fn measurement(number: u64, reference: u64, benches: &[(&str, f64)], half_width: f64) -> Measurement {
    let interval = |ratio: f64| Interval {
        value: ratio,
        low: ratio * (-half_width).exp(),
        high: ratio * half_width.exp(),
    };
    Measurement {
        format: FORMAT,
        time: DateTime::UNIX_EPOCH + TimeDelta::hours(1_000 + i64::try_from(number).unwrap()),
        commit: commit(number),
        reference: commit(reference),
        machine: Machine::this(),
        toolchain: "rustc 1.91.0".to_owned(),
        rounds: 28,
        benches: benches.iter().map(|(bench, ratio)| ((*bench).to_owned(), interval(*ratio))).collect(),
        counts: BTreeMap::from([("run: requests".to_owned(), if number < 50 { 2 } else { 3 })]),
        sizes: BTreeMap::new(),
    }
}

/// Between -1 and 1, from a seed.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    move || f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0
}

/// A hundred revisions with a step of 3 % in one bench at the sixtieth, and a count that rises at the fiftieth.
fn with_a_step(storage: &Storage) {
    let mut noise = noise(1);
    for number in 1..=100 {
        let mut level = |from: u64, by: f64| (if number < from { 1.0 } else { by }) * (1.0 + 0.005 * noise());
        let benches = [("a b/c", level(60, 1.03)), ("A b/c", level(0, 1.0))];
        storage.add_measurement(&measurement(number, 1, &benches, 0.01)).unwrap();
    }
}

fn gate(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench-gate")).current_dir(folder).args(arguments).output().unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32, printed: &str) {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    let all = String::from_utf8_lossy(&all);
    assert_eq!(output.status.code(), Some(code), "{all}");
    assert!(all.contains(printed), "{all}");
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with a workspace and a commit.
fn repository() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    git(&path, &["init", "--quiet", "--initial-branch=main"]);
    for (key, value) in [("user.name", "t"), ("user.email", "t@localhost")] {
        git(&path, &["config", key, value]);
    }
    fs::create_dir(path.join("src")).unwrap();
    fs::write(path.join("src/lib.rs"), "").unwrap();
    fs::write(path.join("Cargo.toml"), "[package]\nname = \"x\"\nedition = \"2024\"\n[workspace]\n").unwrap();
    git(&path, &["add", "."]);
    git(&path, &["commit", "--quiet", "-m", "Begin"]);
    (folder, path)
}

#[test]
fn step_is_found_at_its_commit_and_can_be_accepted() {
    let (_folder, path) = repository();
    let storage = Storage::Folder(path.join("history"));
    with_a_step(&storage);
    let place = ["--folder", "history"];
    let check = || gate(&path, &[&["history", "check"], &place[..]].concat());
    ends(&check(), 3, "FAILS   a b/c: a step of +");
    ends(&check(), 3, "FAILS   run: requests: a count, +50.00 % between");
    ends(&check(), 3, "100 measurements, 2 changes, 2 of them fail");

    let page = path.join("report.html");
    ends(&gate(&path, &[&["history", "report", "report.html"], &place[..]].concat()), 0, "");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("<svg") && page.contains("Change 60"));
    for outside in ["https://", "src=\"http", "href=\"http", "<script", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let json = gate(&path, &[&["history", "show", "--format", "json"], &place[..]].concat());
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["summary"]["open"], 2, "{json}");
    assert_eq!(json["changes"]["changes"][0]["bench"], "a b/c");

    // A blessing is of a commit of this repository; the measured ones have the positions 1 to 100.
    for number in 2..=61 {
        let message = format!("Commit {number}");
        git(&path, &["commit", "--quiet", "--allow-empty", "-m", &message]);
    }
    let bless = |revision: &str, bench: &str| {
        let arguments = ["history", "bless", revision, bench, "--reason", "Worth it", "--folder", "history"];
        gate(&path, &arguments)
    };
    ends(&bless("HEAD", "a b/d"), 1, "no bench or count `a b/d` is recorded");
    ends(&bless("HEAD", "a b/c"), 0, "is accepted");
    ends(&check(), 3, "passes  a b/c: a step of +");
    ends(&check(), 3, "1 of them fail");
    ends(&bless("HEAD~11", "run: requests"), 0, "is accepted");
    ends(&check(), 0, "0 of them fail");
}

#[test]
fn blessing_of_another_commit_or_bench_covers_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::Folder(folder.path().to_owned());
    with_a_step(&storage);
    for (number, bench) in [(40, "a b/c"), (60, "A b/c"), (50, "a b/c")] {
        let blessing = bench::history::measurement::Blessing {
            format: FORMAT,
            time: DateTime::UNIX_EPOCH,
            commit: commit(number),
            bench: bench.to_owned(),
            reason: "Another".to_owned(),
        };
        storage.add_blessing(&blessing).unwrap();
    }
    let found = findings(&storage.load().unwrap());
    assert!(found.iter().all(bench::history::findings::Finding::fails), "{found:?}");
}

#[test]
fn drift_is_not_a_staircase() {
    let mut noise = noise(2);
    let drifting = (1..=100).map(|number| {
        let ratio = 1.001_f64.powi(i32::try_from(number).unwrap()) * (1.0 + 0.005 * noise());
        measurement(number, 1, &[("bench", ratio)], 0.01)
    });
    let mut history = History { measurements: drifting.collect(), ..History::default() };
    history.measurements.iter_mut().for_each(|it| it.counts.clear());
    let found = findings(&history);
    assert_eq!(found.iter().map(|it| it.kind).collect::<Vec<_>>(), [Kind::Drift], "{found:?}");
    let change = found[0].change.unwrap();
    assert!((change - 0.104).abs() < 0.02, "{change}");
}

#[test]
fn vanished_bench_fails_a_check() {
    let mut history = History::default();
    history.measurements.push(measurement(1, 1, &[("a", 1.0), ("b", 1.0)], 0.01));
    history.measurements.push(measurement(2, 1, &[("a", 1.0)], 0.01));
    let found = findings(&history);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].kind == Kind::Vanished && found[0].bench == "b" && found[0].fails());
}

#[test]
fn series_are_chained_over_references() {
    // Against commit 1 until 10, then against 11, which takes 20 % more than 1; no link to 77.
    let mut all: Vec<Measurement> = (1..=10).map(|n| measurement(n, 1, &[("bench", 1.0)], 0.01)).collect();
    all.push(measurement(11, 1, &[("bench", 1.2)], 0.02));
    all.extend((12..=20).map(|n| measurement(n, 11, &[("bench", 1.0)], 0.01)));
    all.push(measurement(21, 77, &[("bench", 1.0)], 0.01));
    let series = series(&all);
    assert_eq!((series.len(), series[0].points.len(), series[0].not_linked), (1, 20, 1));
    let point = |number: usize| &series[0].points[number - 1];
    assert!((point(20).ratio().value - 1.2).abs() < 1e-9);
    let [alone, chained] = [5, 20].map(|number| point(number).error);
    let of_link = point(11).error;
    assert!((chained - alone.hypot(of_link)).abs() < 1e-9, "{chained} {alone} {of_link}");
}

#[test]
fn concurrent_writers_of_a_branch_lose_nothing() {
    let (_origin_folder, origin) = repository();
    let clones: Vec<TempDir> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    for clone in &clones {
        git(clone.path(), &["clone", "--quiet", origin.to_str().unwrap(), "clone"]);
    }
    let open = |clone: &TempDir| {
        let repository = Repository::find(&clone.path().join("clone")).unwrap();
        Storage::Branch(Branch::new(repository, "bench-history", Some("origin".to_owned())).unwrap())
    };
    // Two clones, two writers in each.
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let storage = open(&clones[usize::try_from(writer % 2).unwrap()]);
            scope.spawn(move || {
                for number in 0..5 {
                    let number = 1 + writer * 5 + number;
                    storage.add_measurement(&measurement(number, 1, &[("bench", 1.0)], 0.01)).unwrap();
                }
            });
        }
    });
    for clone in &clones {
        let positions: Vec<u64> =
            open(clone).load().unwrap().measurements.iter().map(|it| it.commit.position).collect();
        assert_eq!(positions, (1..=20).collect::<Vec<_>>());
    }
    // Nothing was forced: each commit of the branch descends from the first.
    let log = git(&origin, &["log", "--format=%H", "--diff-filter=D", "bench-history"]);
    assert_eq!(log, "", "a file was removed");
    assert_eq!(git(&origin, &["rev-parse", "--abbrev-ref", "HEAD"]), "main");
}

#[test]
fn damaged_and_newer_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::Folder(folder.path().to_owned());
    storage.add_measurement(&measurement(1, 1, &[("a", 1.0)], 0.01)).unwrap();
    fs::write(folder.path().join("measurements/x.json"), "{\"format\":1").unwrap();
    let history = storage.load().unwrap();
    assert_eq!((history.measurements.len(), history.unreadable.len()), (1, 1));
    assert!(history.unreadable[0].starts_with("measurements/x.json: "), "{history:?}");
    fs::write(folder.path().join("measurements/y.json"), "{\"format\":2}").unwrap();
    let error = storage.load().unwrap_err().to_string();
    assert!(error.contains("y.json is of format 2") && error.contains("newer bench-gate"), "{error}");
}

/// The noise that was recorded with `bench-gate history noise` on two shared cores while other builds ran.
fn recorded_noise() -> Noise {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/noise.jsonl");
    let mut noise = Noise::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let medians: BTreeMap<String, f64> = serde_json::from_str(line).unwrap();
        for (bench, log) in medians {
            noise.entry(bench).or_default().push(log);
        }
    }
    noise
}

#[test]
fn unchanged_histories_are_quiet_and_changes_are_found_in_recorded_noise() {
    let noise = recorded_noise();
    let run = |injected, histories| simulate(&noise, injected, histories, 100);
    let nothing = run(Injected::Nothing, 200);
    assert!(nothing.false_alarms <= 2, "{nothing:?}");
    let step = run(Injected::Step(0.02), 100);
    assert!(step.near >= 95, "{step:?}");
    let step = run(Injected::Step(0.05), 100);
    assert_eq!(step.near, 100, "{step:?}");
    let drift = run(Injected::Drift(0.001), 100);
    assert!(drift.found >= 90, "{drift:?}");
}
