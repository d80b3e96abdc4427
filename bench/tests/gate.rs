//! The gate from outside, on prepared results: what it says of a clean set, a slower one, and of what is no result.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Results as criterion writes them: of each bench a hundred samples about `nanoseconds`, scattered by 2 %.
fn results(folder: &Path, benches: &[(&str, f64)]) {
    for (id, nanoseconds) in benches {
        let folder = folder.join("criterion").join(id).join("new");
        fs::create_dir_all(&folder).unwrap();
        let iters: Vec<f64> = (1..=100).map(f64::from).collect();
        let scatter = |sample: f64| 1.0 + 0.02 * ((sample * 12.9898).sin() * 43_758.545).fract();
        let times: Vec<f64> = iters.iter().map(|count| count * nanoseconds * scatter(*count)).collect();
        fs::write(folder.join("benchmark.json"), json!({"full_id": id, "group_id": "g"}).to_string())
            .unwrap();
        let sample = json!({"sampling_mode": "Linear", "iters": iters, "times": times});
        fs::write(folder.join("sample.json"), sample.to_string()).unwrap();
    }
}

fn gate(folder: &Path, arguments: &[&str]) -> Output {
    let (criterion, kept) = (folder.join("criterion"), folder.join("kept"));
    Command::new(env!("CARGO_BIN_EXE_bench-gate"))
        .args(arguments)
        .args(["--criterion", criterion.to_str().unwrap(), "--dir", kept.to_str().unwrap()])
        .output()
        .unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32, said: &str) {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    let all = String::from_utf8_lossy(&all);
    assert_eq!(output.status.code(), Some(code), "{all}");
    assert!(all.contains(said), "{all}");
}

fn recorded(benches: &[(&str, f64)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    results(folder.path(), benches);
    ends(&gate(folder.path(), &["record", "--name", "main"]), 0, "benches are kept");
    folder
}

#[test]
fn a_clean_set_passes_and_a_slower_one_fails() {
    let folder = recorded(&[("a/b/1", 1_000.0), ("a/c/1", 50.0)]);
    let compare = ["compare", "--baseline", "main"];
    ends(&gate(folder.path(), &compare), 0, "no bench of 2 is slower");

    results(folder.path(), &[("a/b/1", 1_200.0)]);
    let comment = folder.path().join("comment.md");
    let printed = gate(folder.path(), &[&compare[..], &["--markdown", comment.to_str().unwrap()]].concat());
    ends(&printed, 3, "SLOWER    a/b/1");
    let comment = fs::read_to_string(comment).unwrap();
    assert!(comment.starts_with("### Benches: 1 of 2 benches are slower"), "{comment}");
    assert!(
        comment.contains("<details><summary>1 unchanged") && comment.contains("To reproduce"),
        "{comment}"
    );

    let json = gate(folder.path(), &[&compare[..], &["--json"]].concat());
    let printed: Value = serde_json::from_slice(&json.stdout).unwrap();
    let ratio = printed["benches"][0]["ratio"]["value"].as_f64().unwrap();
    assert!((ratio - 1.2).abs() < 0.01, "{printed}");

    results(folder.path(), &[("a/b/1", 1_070.0)]);
    ends(&gate(folder.path(), &compare), 0, "SLOWER    a/b/1");
    ends(&gate(folder.path(), &[&compare[..], &["--fail", "6%"]].concat()), 3, "SLOWER    a/b/1");
    results(folder.path(), &[("a/b/1", 700.0)]);
    ends(&gate(folder.path(), &compare), 0, "faster    a/b/1");
}

#[test]
fn a_history_grows_by_a_line_a_bench() {
    let folder = recorded(&[("a/b/1", 1_000.0), ("a/c/1", 50.0)]);
    let history = folder.path().join("history.jsonl");
    for _ in 0..2 {
        let history = history.to_str().unwrap();
        let record = ["record", "--name", "nightly", "--history", history, "--revision", "abc"];
        ends(&gate(folder.path(), &record), 0, "2 benches are kept");
    }
    let text = fs::read_to_string(&history).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[2]["id"], "a/b/1");
    assert_eq!(lines[2]["revision"], "abc");
    let [low, value, high] =
        ["low", "value", "high"].map(|bound| lines[2]["nanoseconds"][bound].as_f64().unwrap());
    assert!(low < value && value < high && (value - 1_000.0).abs() < 20.0, "{low} {value} {high}");
}

#[test]
fn what_is_missing_or_of_another_kind_is_said_plainly() {
    let folder = recorded(&[("a/b/1", 1_000.0), ("a/c/1", 50.0)]);
    ends(&gate(folder.path(), &["compare", "--baseline", "other"]), 1, "there is no baseline");

    fs::remove_dir_all(folder.path().join("criterion/a/c")).unwrap();
    results(folder.path(), &[("a/d/1", 10.0)]);
    let printed = gate(folder.path(), &["compare", "--baseline", "main"]);
    ends(&printed, 3, "vanished  a/c/1");
    ends(&printed, 3, "new       a/d/1");

    let sample = folder.path().join("criterion/a/d/1/new/sample.json");
    fs::write(&sample, json!({"version": 2, "samples": []}).to_string()).unwrap();
    ends(&gate(folder.path(), &["compare", "--baseline", "main"]), 1, "not as criterion 0.8 writes it");
    fs::write(folder.path().join("kept/main.json"), json!({"format": 9, "benches": {}}).to_string()).unwrap();
    ends(&gate(folder.path(), &["compare", "--baseline", "main"]), 1, "is of format 9");
    fs::remove_dir_all(folder.path().join("criterion")).unwrap();
    ends(&gate(folder.path(), &["record", "--name", "x"]), 1, "cannot read");
    ends(
        &gate(folder.path(), &["compare", "--baseline", "main", "--tolerance", "no"]),
        2,
        "not a percentage",
    );
}

#[test]
fn results_file_is_checked_before_the_measurement() {
    for (program, arguments) in [
        (env!("CARGO_BIN_EXE_bench-tables"), &["/nonexistent/tables.md"][..]),
        (env!("CARGO_BIN_EXE_bench-counts"), &["--dhat", "/nonexistent/heap.json"]),
        (env!("CARGO_BIN_EXE_bench-gate"), &["ab", "HEAD", "--markdown", "/nonexistent/comment.md"]),
    ] {
        let ended = Command::new(program).args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("No such file or directory"), "{stderr}");
    }
}
