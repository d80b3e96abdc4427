//! The reports beyond the documented one, from outside: over records whose values are known.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::process::Stdio;

use chrono::{DateTime, TimeDelta, Utc};
use flate2::read::MultiGzDecoder;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::{PROGRAM, analyze, sample_records};
use crate::support::{Ended, Home, fixture};

const REPORTS: [&str; 4] = ["trends", "bottlenecks", "scalability", "scorecard"];

/// A number of runs, half an hour apart since 2026-01-01; fetching takes longer from `slower_since` on.
fn runs(count: usize, slower_since: usize) -> Vec<Value> {
    let begin: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    let mut about = |middle: f64| middle * (0.9 + 0.2 * f64::from(rng.next_u32()) / f64::from(u32::MAX));
    let run = |number: usize| {
        let start = begin + TimeDelta::minutes(30) * i32::try_from(number).unwrap();
        let fetch = about(if number < slower_since { 0.4 } else { 0.6 });
        let (save, new) = (about(0.1), number * 7 % 4);
        json!({
            "start_time": start.timestamp(), "timestamp": start.to_rfc3339(), "status": "success",
            "timings": {"api_fetch": fetch, "save_events": save, "deduplication": 1e-6, "parse": 6e-5},
            "counts": {"api_events_total": 500, "api_response_bytes": 172_000, "new_events_count": new,
                       "buffer_overlap": 500 - new, "objects_written": new.min(1), "bytes_written": new * 400},
            "errors": [], "total_time": fetch + save, "end_timestamp": start.to_rfc3339(),
            "process": {"peak_memory_bytes": 7_500_000, "cpu_user_s": 0.006, "cpu_system_s": 0.002},
            "http": {"attempts": 1, "status": 200, "encoding": "gzip", "wire_bytes": 26_000},
        })
    };
    (0..count).map(run).collect()
}

fn lines(runs: &[Value]) -> String {
    runs.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

fn home_of(runs: &[Value]) -> Home {
    let home = Home::new();
    home.write("runs.jsonl", lines(runs));
    home
}

fn report(home: &Home, arguments: &[&str]) -> Value {
    analyze(home, &[&["runs.jsonl", "--format", "json"], arguments].concat()).with(0).json()
}

fn rows<'a>(table: &'a Value, column: &str, name: &'a str) -> Vec<&'a Value> {
    let column = column.to_owned();
    table.as_array().unwrap().iter().filter(move |row| row[&column] == name).collect()
}

#[test]
fn a_change_is_found_when_it_was_and_told_by_how_much() {
    let home = home_of(&runs(1_440, 1_000));
    let trends = report(&home, &["--report", "trends"]);
    let changes = &trends["changes"]["changes"];
    let [fetch] = rows(changes, "quantity", "api_fetch")[..] else { panic!("{changes}") };
    let (since, by): (DateTime<Utc>, f64) =
        (fetch["time"].as_str().unwrap().parse().unwrap(), fetch["change"].as_f64().unwrap());
    let expected: DateTime<Utc> = "2026-01-21T20:00:00Z".parse().unwrap();
    assert!((since - expected).abs() <= TimeDelta::minutes(60), "{fetch}");
    assert!((by - 0.5).abs() < 0.02, "{fetch}");
    assert_eq!(rows(changes, "quantity", "total_time").len(), 1);
    assert_eq!(changes.as_array().unwrap().len(), 2, "{changes}");

    let recent = &trends["recent"]["quantities"];
    assert_eq!(rows(recent, "quantity", "api_fetch")[0]["verdict"], "more");
    assert_eq!(rows(recent, "quantity", "save_events")[0]["verdict"], "same");
    assert_eq!(trends["overview"]["runs"], 1_440);
    assert_eq!(trends["overview"]["interval_s"], 1_800.0);
    assert_eq!(trends["overview"]["missed_runs"], 0);
}

#[test]
fn outliers_failures_and_missing_runs_are_told_apart() {
    let mut runs = runs(600, 600);
    runs[100]["timings"]["api_fetch"] = json!(9.0);
    runs[200]["errors"] = json!([{"type": "timeout", "message": "m", "timestamp": "t"}]);
    runs[200]["status"] = json!("failed");
    runs.drain(300..305);
    let trends = report(&home_of(&runs), &["--report", "trends"]);
    assert_eq!(trends["changes"]["changes"], json!([]));
    let largest = &trends["outliers"]["largest"][0];
    assert_eq!((&largest["quantity"], &largest["value"]), (&json!("api_fetch"), &json!(9.0)));
    assert_eq!(trends["errors"]["kinds"][0]["kind"], "timeout");
    assert_eq!(trends["overview"]["failed_runs"], 1);
    assert_eq!(trends["missing"]["longest"][0]["missed"], 5);
    let reliability = trends["overview"]["reliability"].as_f64().unwrap();
    assert!((reliability - 594.0 / 595.0).abs() < 1e-12);
}

/// The values of a page, without its marks.
fn values_of_page(page: &str) -> Vec<String> {
    let cells = page.split('<').filter_map(|part| {
        let (tag, text) = part.split_once('>')?;
        let is_cell = tag == "dd" || tag.starts_with("td") || tag.starts_with("th scope=\"row\"");
        is_cell.then(|| text.replace("&lt;", "<").replace("&quot;", "\"").replace("&amp;", "&"))
    });
    cells.collect()
}

#[test]
fn every_form_of_a_report_has_the_same_figures() {
    let home = home_of(&runs(1_500, 1_000));
    for what in REPORTS {
        let [text, page, markdown, csv] = ["text", "html", "markdown", "csv"].map(|format| {
            analyze(&home, &["runs.jsonl", "--report", what, "--format", format]).with(0).stdout
        });
        let values = values_of_page(&page);
        assert!(values.len() > 20, "{what}");
        for value in values {
            assert!(text.contains(&value), "{what}: `{value}` is not in the text");
            let plain = markdown.replace('\\', "").replace("&lt;", "<").replace("&amp;", "&");
            assert!(plain.contains(&value), "{what}: `{value}` is not in the Markdown");
        }
        let figure_of = |column: &str| {
            let end = csv.find(&format!(",{column},")).map(|at| &csv[at + column.len() + 2..]);
            end.and_then(|end| end.lines().next()?.parse::<f64>().ok())
        };
        // The JSON has what the CSV has.
        let report = report(&home, &["--report", what]);
        let mut compared = 0;
        for section in report.as_object().unwrap().values().filter_map(Value::as_object) {
            for (name, value) in section.iter().filter(|(_, value)| value.is_number()) {
                let (value, shown) = (value.as_f64().unwrap(), figure_of(name).unwrap());
                assert!(
                    (value - shown).abs() <= 1e-12 * value.abs(),
                    "{what}: {name} is {value}, in the CSV {shown}"
                );
                compared += 1;
            }
        }
        assert!(compared >= 4, "{what}");
    }
}

#[test]
fn a_page_needs_nothing_else_and_lets_nothing_in() {
    let mut runs = runs(50, 50);
    runs[7]["errors"] =
        json!([{"type": "<script>alert(1)</script>\u{1b}[31m", "message": "", "timestamp": ""}]);
    let home = home_of(&runs);
    for what in REPORTS {
        let page = analyze(&home, &["runs.jsonl", "--report", what, "--format", "html"]).with(0).stdout;
        for outside in ["http:", "https:", "<script", "src=", "@import", "url(", "\u{1b}"] {
            assert!(!page.contains(outside), "{what} has {outside}");
        }
        assert!(page.contains("<html lang=\"en\">") && page.contains("<main>"));
    }
    let text = analyze(&home, &["runs.jsonl", "--report", "trends"]).with(0).stdout;
    assert!(text.contains("<script>alert(1)</script>") && !text.contains('\u{1b}'));
}

#[test]
fn records_of_all_kinds_are_read_or_named() {
    // Five of the documented collector.
    let home = sample_records();
    home.run(fixture("response.json")).with(0);
    home.run(fixture("broken/html.json")).with(1);
    let late = (Utc::now() + TimeDelta::days(400)).to_rfc3339();
    let strange = [
        ("metrics_cut.json", r#"{"timestamp": "2026-01-02T12:00"#.to_owned(), "EOF"),
        ("metrics_empty.json", String::new(), "EOF"),
        ("metrics_list.json", "[]".to_owned(), "invalid"),
        ("metrics_other.json", r#"{"requests": 5}"#.to_owned(), "it does not say when the run was"),
        ("metrics_when.json", r#"{"timestamp": "yesterday"}"#.to_owned(), "its timestamp is `yesterday`"),
        (
            "metrics_1970.json",
            r#"{"timestamp": "1970-01-01T00:00:09+00:00"}"#.to_owned(),
            "its clock was wrong",
        ),
        ("metrics_late.json", format!(r#"{{"timestamp": "{late}"}}"#), "its clock was wrong"),
        (
            "metrics_text.json",
            r#"{"timestamp": "2026-01-02T12:00:00+00:00", "timings": 5}"#.to_owned(),
            "invalid type",
        ),
    ];
    for (name, text, _) in &strange {
        home.write(&format!("metrics/{name}"), text);
    }
    // Two in a second, and a clock that was set back.
    for (name, time) in [
        ("a", "2026-01-02T12:00:05.1+00:00"),
        ("b", "2026-01-02T12:00:05.2+00:00"),
        ("c", "2026-01-02T11:00:00"),
    ] {
        home.write(
            &format!("metrics/metrics_{name}.json"),
            format!(r#"{{"timestamp": "{time}", "total_time": 1}}"#),
        );
    }
    let trends = analyze(&home, &["--report", "trends", "--format", "json"]).with(0).json();
    assert_eq!(trends["overview"]["runs"], 10);
    assert_eq!(trends["overview"]["failed_runs"], 2);
    assert_eq!(trends["overview"]["skipped_records"], strange.len());
    let skipped = trends["skipped"]["records"].as_array().unwrap();
    for (name, _, reason) in &strange {
        let named = skipped.iter().find(|row| row["place"].as_str().unwrap().ends_with(name)).unwrap();
        assert!(named["reason"].as_str().unwrap().contains(reason), "{named}");
    }
    let from = trends["overview"]["from"].as_str().unwrap();
    assert!(from.starts_with("2026-01-02T11:00:00"), "{from}");
}

#[test]
fn runs_are_chosen_by_time_and_read_from_anywhere() {
    let all = runs(480, 480);
    let home = home_of(&all);
    let count = |arguments: &[&str]| {
        report(&home, &[arguments, &["--report", "trends"]].concat())["overview"]["runs"].clone()
    };
    assert_eq!(count(&["--since", "2026-01-03"]), 480 - 96);
    assert_eq!(count(&["--since", "2026-01-03", "--until", "2026-01-03"]), 48);
    assert_eq!(count(&["--until", "2026-01-01T12:00:00+01:00"]), 22);
    assert_eq!(count(&["--last", "1d"]), 49);

    let mut piped = home.program(PROGRAM);
    piped.args(["-", "--report", "trends", "--format", "json"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines(&all[..9]).as_bytes()).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap()).with(0);
    assert_eq!(ended.json()["overview"]["runs"], 9);
}

#[test]
fn conditions_fail_with_the_sentence_that_failed() {
    let home = home_of(&runs(100, 0));
    let ended = analyze(
        &home,
        &["runs.jsonl", "--fail-on", "p95(api_fetch) > 500ms", "--fail-on", "mean(failed) > 5%"],
    );
    let ended = ended.with(1);
    assert!(ended.error_line().starts_with("error: p95(api_fetch) > 500ms: it is 6"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    analyze(&home, &["runs.jsonl", "--fail-on", "p95(api_fetch) > 2s"]).with(0);
    let unknown = analyze(&home, &["runs.jsonl", "--fail-on", "max(claim) > 1s"]).with(1);
    assert!(unknown.error_line().contains("no run states claim"), "{}", unknown.stderr);
}

#[test]
fn two_times_are_compared() {
    let home = home_of(&runs(48 * 40, 48 * 31));
    let comparison = report(&home, &["--compare", "2026-01..2026-02"]);
    assert_eq!(
        (&comparison["sides"]["runs_before"], &comparison["sides"]["runs_after"]),
        (&json!(1_488), &json!(432))
    );
    let [fetch] = rows(&comparison["expected_results"]["metrics"], "metric", "API Fetch Time")[..] else {
        panic!()
    };
    let change = fetch["change"].as_f64().unwrap();
    let bounds = &fetch["change_95"];
    assert!((change - 0.5).abs() < 0.03, "{fetch}");
    assert!(bounds[0].as_f64().unwrap() < change && change < bounds[1].as_f64().unwrap());
    let [saving] = rows(&comparison["quantities"]["quantities"], "quantity", "save_events")[..] else {
        panic!()
    };
    assert_eq!(saving["verdict"], "same");

    home.write("before/metrics_1.json", runs(1, 1)[0].to_string());
    home.write("after/metrics_1.json", runs(1, 0)[0].to_string());
    let places =
        analyze(&home, &["runs.jsonl", "--compare", "./before..after", "--format", "json"]).with(0).json();
    assert_eq!(places["sides"]["runs_before"], 1);
    // Two places need no other records.
    analyze(&home, &["--compare", "before..after", "--metrics-dir", "nowhere"]).with(0);
    analyze(&home, &["runs.jsonl", "--compare", "2026-01..2027-01"]).with(1).error_line();
    for wrong in ["2026-01", "2026-01..", "2026-01..nowhere", "2026Q5..2026Q2"] {
        analyze(&home, &["runs.jsonl", "--compare", wrong]).with(2);
    }
    analyze(&home, &["runs.jsonl", "--save-baseline", "../../x"]).with(2);
}

#[test]
fn names_decide_which_records_of_a_period_are_read() {
    let home = Home::new();
    for run in runs(48 * 40, 0) {
        let start: DateTime<Utc> = run["timestamp"].as_str().unwrap().parse().unwrap();
        home.write(&format!("metrics/{}.json", start.format("metrics_%Y%m%d_%H%M%S")), run.to_string());
    }
    // Whatever is read and is not a record is counted.
    for name in ["metrics_20260103_000500.json", "metrics_20260205_000500.json", "metrics_2025-12.jsonl"] {
        home.write(&format!("metrics/{name}"), "no record\n");
    }
    let overview = |arguments: &[&str]| {
        let report = [&["--report", "trends", "--format", "json"], arguments].concat();
        let report = analyze(&home, &report).with(0).json();
        (report["overview"]["runs"].clone(), report["overview"]["skipped_records"].clone())
    };
    assert_eq!(overview(&[]), (json!(1_920), json!(3)));
    assert_eq!(overview(&["--since", "2026-02-01"]), (json!(432), json!(1)));
    assert_eq!(overview(&["--until", "2026-01-10"]), (json!(480), json!(2)));
    assert_eq!(overview(&["--last", "5d"]), (json!(241), json!(1)));
    // The file with the latest name holds no record: the last run is much earlier.
    home.write("metrics/metrics_20260601_000000.json", "no record");
    assert_eq!(overview(&["--last", "5d"]), (json!(241), json!(4)));
}

#[test]
fn old_records_are_packed_and_still_read() {
    let home = Home::new();
    for (number, run) in runs(48 * 35, 0).iter().enumerate() {
        home.write(&format!("metrics/metrics_{number:05}.json"), format!("{run:#}"));
    }
    home.write("metrics/metrics_cut.json", "{");
    let values = || analyze(&home, &["--report", "trends", "--format", "json"]).with(0).json();
    let before = values();
    let documented = analyze(&home, &[]).with(0).stdout;
    let copy = fs::read(home.path("metrics/metrics_00007.json")).unwrap();

    let packed = analyze(&home, &["--archive-older-than", "1d"]).with(0);
    assert!(packed.stdout.starts_with("1680 records are packed into 2 files\n"), "{}", packed.stdout);
    assert!(packed.stdout.contains("left as it is: ./metrics/metrics_cut.json"), "{}", packed.stdout);
    let names: BTreeSet<String> = fs::read_dir(home.path("metrics"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = ["metrics_2026-01.jsonl.gz", "metrics_2026-02.jsonl.gz", "metrics_cut.json"];
    assert_eq!(names, expected.map(str::to_owned).into());
    assert_eq!(values(), before);
    assert_eq!(analyze(&home, &[]).with(0).stdout, documented);

    // As if it had been killed before it removed a record.
    home.write("metrics/metrics_00007.json", copy);
    assert_eq!(values(), before);
    assert_eq!(analyze(&home, &[]).with(0).stdout, documented);
    analyze(&home, &["--archive-older-than", "1d"]).with(0);
    assert_eq!(values(), before);
    assert!(!home.path("metrics/metrics_00007.json").exists());
    let lines = ["metrics_2026-01.jsonl.gz", "metrics_2026-02.jsonl.gz"].map(|name| {
        let file = fs::File::open(home.path("metrics").join(name)).unwrap();
        io::read_to_string(MultiGzDecoder::new(file)).unwrap().lines().count()
    });
    assert_eq!(lines.iter().sum::<usize>(), 1_680, "a record was packed twice");
}

/// A packed file whose end is missing: what stands before it is reported, and the file is named.
#[test]
fn packed_file_that_is_cut_is_read_to_its_end() {
    let home = Home::new();
    for (number, run) in runs(48 * 20, 0).iter().enumerate() {
        home.write(&format!("metrics/metrics_{number:05}.json"), run.to_string());
    }
    analyze(&home, &["--archive-older-than", "1d"]).with(0);
    let path = home.path("metrics/metrics_2026-01.jsonl.gz");
    let packed = fs::read(&path).unwrap();
    fs::write(&path, &packed[..packed.len() / 2]).unwrap();
    let report = analyze(&home, &["--report", "trends", "--format", "json"]).with(0).json();
    let runs = report["overview"]["runs"].as_u64().unwrap();
    assert!((300..960).contains(&runs), "{runs}");
    assert_eq!(report["overview"]["skipped_records"], 1);
}

/// Records of 2,000 half hours, of which one program packs half and another packs all, at the same time.
#[test]
fn packing_twice_at_once_loses_no_record() {
    let home = Home::new();
    let records = runs(2_000, 0);
    for _ in 0..5 {
        let _ = fs::remove_dir_all(home.path("metrics"));
        for (number, run) in records.iter().enumerate() {
            home.write(&format!("metrics/metrics_{number:05}.json"), run.to_string());
        }
        let middle: DateTime<Utc> = records[1_000]["timestamp"].as_str().unwrap().parse().unwrap();
        let half = format!("{}s", (Utc::now() - middle).num_seconds());
        std::thread::scope(|scope| {
            scope.spawn(|| analyze(&home, &["--archive-older-than", &half]).with(0));
            scope.spawn(|| analyze(&home, &["--archive-older-than", "1d"]).with(0));
        });
        let report = analyze(&home, &["--report", "trends", "--format", "json"]).with(0).json();
        assert_eq!(report["overview"]["runs"], 2_000);
    }
}

#[test]
fn folder_may_be_an_argument_of_the_documented_report() {
    let home = Home::new();
    for (number, run) in runs(48, 0).iter().enumerate() {
        home.write(&format!("metrics/metrics_{number:05}.json"), run.to_string());
    }
    let report = analyze(&home, &["--metrics-dir", "./metrics"]).with(0).stdout;
    assert_eq!(analyze(&home, &["./metrics"]).with(0).stdout, report);
    analyze(&home, &["./metrics", "--archive-older-than", "1d"]).with(0);
    assert_eq!(analyze(&home, &["./metrics"]).with(0).stdout, report);
    let refused = analyze(&home, &["metrics", "metrics"]).with(2);
    let error = refused.error_line();
    assert!(error.contains("all records of one folder"), "{error}");
    let refused = analyze(&home, &["nowhere"]).with(2);
    assert!(refused.error_line().contains("nowhere: no such file or folder"), "{}", refused.stderr);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = home_of(&runs(5, 5));
    for wrong in [
        &["runs.jsonl"][..],
        &["--format", "json"],
        &["--since", "2026-01-01"],
        &["--report", "weather"],
        &["--report", "trends", "--since", "soon"],
        &["--report", "trends", "--last", "much"],
        &["--report", "trends", "--last", "9999999d"],
        &["--report", "trends", "--compare", "2026-01..2026-02"],
        &["runs.jsonl", "--metrics-dir", "metrics"],
        &["--fail-on", "p95(api_fetch) > 2"],
        &["--fail-on", "p95(weather) > 2s"],
    ] {
        analyze(&home, wrong).with(2).error_line();
    }
    let missing = analyze(&home, &["nowhere.jsonl", "--report", "trends"]).with(1);
    assert!(missing.error_line().contains("nowhere.jsonl"), "{}", missing.stderr);
    for what in REPORTS {
        home.write("empty.jsonl", "");
        let nothing = analyze(&home, &["empty.jsonl", "--report", what]).with(0);
        assert!(nothing.stdout.contains("no runs"), "{}", nothing.stdout);
    }
}
