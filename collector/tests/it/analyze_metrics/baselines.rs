//! Comparisons with a quarter, and with runs that were kept under a name.

use std::fs;

use serde_json::{Value, json};

use super::analyze;
use crate::support::Home;

/// A record of a run on a day, which took a number of seconds.
fn record(day: &str, seconds: f64) -> Value {
    json!({
        "timestamp": format!("{day}T12:00:00+00:00"), "total_time": seconds,
        "timings": {"api_fetch": seconds / 2.0}, "counts": {"new_events_count": 1}, "errors": [],
    })
}

/// Runs of two quarters: 3.12 s each in the first one, 2.82 s in the second one.
fn two_quarters() -> Home {
    let home = Home::new();
    for (month, seconds) in [("02", 3.12), ("03", 3.12), ("04", 2.82), ("06", 2.82)] {
        for day in 10..20 {
            let text = record(&format!("2026-{month}-{day}"), seconds).to_string();
            home.write(&format!("metrics/metrics_2026{month}{day}_120000.json"), text);
        }
    }
    home
}

/// The row of the documents' table.
fn row(comparison: &Value, metric: &str) -> Value {
    let rows = comparison["expected_results"]["metrics"].as_array().unwrap();
    rows.iter().find(|row| row["metric"] == metric).unwrap().clone()
}

#[test]
fn quarters_are_compared() {
    let home = two_quarters();
    let ended = analyze(&home, &["--compare", "2026Q1..2026Q2", "--format", "json"]);
    let row = row(&ended.with(0).json(), "Execution Time");
    assert_eq!((row["before"].as_f64(), row["after"].as_f64()), (Some(3.12), Some(2.82)));
    let error = analyze(&home, &["--compare", "2026Q1..2026Q5"]).with(2).stderr;
    assert!(error.contains("2026Q5"), "{error}");
}

#[test]
fn runs_are_compared_with_a_baseline_after_their_records_are_gone() {
    let home = two_quarters();
    let saved = analyze(&home, &["--save-baseline", "before-compression", "--until", "2026-03-31"]).with(0);
    assert_eq!(saved.stdout, "20 runs are kept in ./metrics/baselines/before-compression.jsonl.gz\n");
    for name in home
        .record_files()
        .iter()
        .filter(|name| ("./metrics/m".."./metrics/metrics_20260401").contains(&name.as_str()))
    {
        fs::remove_file(home.path(name)).unwrap();
    }
    let ended = analyze(&home, &["--baseline", "before-compression", "--format", "json"]).with(0);
    let row = row(&ended.json(), "Execution Time");
    assert_eq!((row["before"].as_f64(), row["after"].as_f64()), (Some(3.12), Some(2.82)));
    // The documented report is over the records themselves.
    let report = analyze(&home, &[]).with(0).stdout;
    assert!(report.contains("Total runs analyzed: 20\n"), "{report}");
}

#[test]
fn baseline_that_is_not_there_is_an_error_that_names_those_that_are() {
    let home = two_quarters();
    analyze(&home, &["--save-baseline", "one"]).with(0);
    let error = analyze(&home, &["--baseline", "two"]).with(1).error_line().to_owned();
    assert!(error.contains("no baseline `two`") && error.contains("saved are: one"), "{error}");
    for name in ["", "../one", ".one", "a b"] {
        let error = analyze(&home, &["--save-baseline", name]).with(2).stderr;
        assert!(error.contains("not a name for a baseline"), "{error}");
    }
}
