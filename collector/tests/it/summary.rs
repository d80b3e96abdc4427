//! The PERFORMANCE SUMMARY that ends the log of a run, and `--timings`.

use serde_json::Value;

use crate::support::{Home, fixture};

fn feed() -> String {
    fixture("response.json").display().to_string()
}

/// The messages of the log, without time and level.
fn messages(stderr: &str) -> Vec<&str> {
    stderr.lines().filter_map(|line| line.split_once("INFO ").map(|(_, message)| message)).collect()
}

#[test]
fn log_of_a_run_ends_with_the_documented_summary() {
    let home = Home::new();
    let ended = home.run(feed()).with(0);
    let messages = messages(&ended.stderr);
    let begin = messages.iter().position(|line| *line == "PERFORMANCE SUMMARY").unwrap();
    let rule = "=".repeat(60);
    assert_eq!([messages[begin - 1], messages[begin + 1]], [rule.as_str(); 2]);
    let record = &home.records()[0];
    let total = record["total_time"].as_f64().unwrap();
    assert_eq!(messages[begin + 2], format!("Total execution time: {total:.4}s"));
    assert_eq!(messages[begin + 3], "Timing breakdown:");
    for step in ["api_fetch", "metadata_fetch", "deduplication", "save_events", "metadata_update"] {
        let seconds = record["timings"][step].as_f64().unwrap();
        let expected = format!("  {step}: {seconds:.4}s ({:.1}%)", seconds / total * 100.0);
        assert!(messages.contains(&expected.as_str()), "{expected} is not in {messages:#?}");
    }
    for count in ["  api_events_total: 500", "  new_events_count: 500"] {
        assert!(messages.contains(&count), "{count} is not in {messages:#?}");
    }
    assert_eq!(*messages.last().unwrap(), rule);
    assert!(ended.stderr.trim_end().ends_with(&rule));
}

#[test]
fn failed_run_counts_its_errors_as_a_warning() {
    let home = Home::new();
    let feed = home.write("feed.json", "{}");
    let ended = home.run(feed).with(1);
    assert!(ended.stderr.contains("WARN Errors encountered: 1\n"), "{}", ended.stderr);
}

#[test]
fn summary_is_a_matter_of_the_level() {
    let home = Home::new();
    let ended = home.collector(&["run", "--feed", &feed(), "--log-level", "warn"]).with(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn json_log_has_the_summary_as_fields() {
    let home = Home::new();
    let ended = home.collector(&["run", "--feed", &feed(), "--log-format", "json"]).with(0);
    let lines: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary: Vec<_> = lines.iter().filter(|line| line["message"] == "PERFORMANCE SUMMARY").collect();
    let record = &home.records()[0];
    let step = summary.iter().find(|line| line["step"] == "save_events").unwrap();
    assert_eq!(step["seconds"], record["timings"]["save_events"]);
    assert!(step["percent"].is_f64());
    let count = summary.iter().find(|line| line["count"] == "new_events_count").unwrap();
    assert_eq!(count["value"].as_f64(), Some(500.0));
    let last = lines.last().unwrap();
    assert_eq!((&last["total_time"], &last["errors"]), (&record["total_time"], &0.into()));
}

#[test]
fn timings_show_each_step_and_its_share() {
    let home = Home::new();
    let ended = home.collector(&["run", "--feed", &feed(), "--timings"]).with(0);
    for row in ["fetch", "ledger", "parse", "compare", "save", "commit", "total"] {
        let line = ended.stdout.lines().find(|line| line.split_whitespace().next() == Some(row));
        let line = line.unwrap_or_else(|| panic!("no row {row}: {}", ended.stdout));
        assert!(line.ends_with(" %"), "{line}");
    }
}
