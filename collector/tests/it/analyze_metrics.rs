//! `analyze-metrics` from outside. The expected reports are what the documented script prints for the same files.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::support::{Ended, Home, fixture};

mod analysis;
mod baselines;
mod reports;

use reports::{BROKEN_FILES, FIVE_RUNS, ODD_NUMBERS, ONE_RUN, SPARSE_RECORDS};

const PROGRAM: &str = env!("CARGO_BIN_EXE_analyze-metrics");

fn analyze(home: &Home, arguments: &[&str]) -> Ended {
    home.program(PROGRAM).args(arguments).output().unwrap().into()
}

/// The report over records in the default folder.
#[track_caller]
fn report(home: &Home) -> String {
    let ended = analyze(home, &[]).with(0);
    assert_eq!(ended.stderr, "");
    ended.stdout
}

fn home_with(records: &[(&str, &str)]) -> Home {
    let home = Home::new();
    for (name, text) in records {
        home.write(&format!("metrics/{name}"), text);
    }
    home
}

fn sample_records() -> Home {
    let home = Home::new();
    for entry in fs::read_dir(fixture("metrics")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        home.write(&format!("metrics/{name}"), fs::read(&path).unwrap());
    }
    home
}

#[test]
fn reports_trends_over_all_records() {
    assert_eq!(report(&sample_records()), FIVE_RUNS);
}

#[test]
fn one_record_has_no_deviation() {
    let home = Home::new();
    let name = "metrics_20260102_113004.json";
    home.write(&format!("metrics/{name}"), fs::read(fixture("metrics").join(name)).unwrap());
    assert_eq!(report(&home), ONE_RUN);
}

#[test]
fn no_records_are_said_to_be_none() {
    const NONE: &str = "No metrics data found\n";
    let home = Home::new();
    assert_eq!(report(&home), NONE);
    home.write("metrics/other.json", "{}");
    home.write("metrics/metrics_1.json.tmp", "{}");
    home.write("metrics/Metrics_1.json", "{}");
    assert_eq!(report(&home), NONE);
    assert_eq!(analyze(&home, &["--metrics-dir", "metrics/other.json"]).with(0).stdout, NONE);
}

#[test]
fn missing_fields_are_left_out() {
    let home = home_with(&[
        ("metrics_1.json", "{}"),
        ("metrics_2.json", r#"{"timings": {"api_fetch": 1.5}}"#),
        ("metrics_3.json", r#"{"counts": {}}"#),
        ("metrics_4.json", r#"{"total_time": 2, "errors": [{}]}"#),
        ("metrics_5.json", r#"{"total_time": 3, "counts": {"new_events_count": 7}, "timings": []}"#),
    ]);
    assert_eq!(report(&home), SPARSE_RECORDS);
}

#[test]
fn odd_numbers_are_printed_as_documented() {
    let home = home_with(&[
        (
            "metrics_1.json",
            r#"{"total_time": 0.00005, "timings": {"api_fetch": true}, "counts": {"new_events_count": true}}"#,
        ),
        (
            "metrics_2.json",
            r#"{"total_time": 123456789012345678901234567890, "timings": {"api_fetch": Infinity}, "counts": {"new_events_count": 1.0}}"#,
        ),
        (
            "metrics_3.json",
            r#"{"total_time": 0.1, "timings": {"api_fetch": -0.0}, "counts": {"new_events_count": 36893488147419103232}}"#,
        ),
    ]);
    assert_eq!(report(&home), ODD_NUMBERS);
}

#[test]
fn files_that_cannot_be_read_are_named_in_order() {
    let home = Home::new();
    let files: [(&str, &[u8]); 20] = [
        ("metrics_.json", b"{\"a\" 1}"),
        ("metrics_01.json", b""),
        ("metrics_02.json", b"{\"total_time\": 1.5"),
        ("metrics_03.json", b"{\"total_time\": 1.5,\r\n\"x\": tru}"),
        ("metrics_04.json", b"{'total_time': 1}"),
        ("metrics_05.json", b"[]"),
        ("metrics_06.json", b"\"text\""),
        ("metrics_07.json", b"7"),
        ("metrics_08.json", b"\xef\xbb\xbf{}"),
        ("metrics_09.json", b"{\"\xe5\": 1}"),
        ("metrics_10.json", b"{} {}"),
        ("metrics_11.json", b"null"),
        ("metrics_14.json", b"{\"total_time\": 1.5}"),
        ("metrics_15.json", b"{\"a\": \"\\q\"}"),
        ("metrics_16.json", b"{\"a\": \"\t\"}"),
        ("metrics_17.json", b"{\"a\": \"b"),
        ("metrics_18.json", b"[1 2]"),
        ("metrics_20.json", b"{\"a\": 1,}"),
        ("metrics_21.json", b"{\"\xc3\xa5\xf0\x9f\x98\x80\": \"\\u12\"}"),
        ("metrics_it's.json", b"\xf0\x9f\x98"),
    ];
    for (name, bytes) in files {
        home.write(&format!("metrics/{name}"), bytes);
    }
    fs::create_dir(home.path("metrics/metrics_12.json")).unwrap();
    symlink("nowhere", home.path("metrics/metrics_13.json")).unwrap();
    home.write("metrics/metrics_19.json", "[".repeat(2000));
    assert_eq!(report(&home), BROKEN_FILES);
}

/// The documented script would end without a report.
#[test]
fn records_that_say_nothing_sensible_are_named_and_the_rest_is_reported() {
    let home = sample_records();
    let records = [
        (r#"{"total_time": "3.4"}"#, "total_time is not a number"),
        (r#"{"total_time": null}"#, "total_time is not a number"),
        (r#"{"total_time": NaN}"#, "total_time is not finite"),
        (r#"{"total_time": 1e999}"#, "total_time is not finite"),
        (r#"{"timings": null}"#, "timings is not an object"),
        (r#"{"timings": ["api_fetch"]}"#, "timings is not an object"),
        (r#"{"timings": "api_fetch"}"#, "timings is not an object"),
        (r#"{"timings": {"api_fetch": []}}"#, "api_fetch is not a number"),
        (r#"{"counts": []}"#, "counts is not an object"),
        (r#"{"counts": {"new_events_count": {}}}"#, "new_events_count is not a number"),
        (r#"{"errors": 1}"#, "errors is not a list"),
    ];
    let mut expected = String::new();
    for (index, (record, reason)) in records.into_iter().enumerate() {
        let path = format!("metrics/metrics_{index:02}.json");
        home.write(&path, record);
        writeln!(expected, "Error loading {path}: {reason}").unwrap();
    }
    home.write("metrics/metrics_big.json", format!("{{\"total_time\": 1{}}}", "0".repeat(400)));
    expected.push_str("Error loading metrics/metrics_big.json: total_time is too large\n");
    assert_eq!(report(&home), format!("{expected}{FIVE_RUNS}"));
}

#[test]
fn paths_are_spelled_as_pathlib_spells_them() {
    let home = home_with(&[("metrics_1.json", "")]);
    let reason = "Expecting value: line 1 column 1 (char 0)\nNo metrics data found\n";
    for folder in ["metrics", "./metrics", "./metrics/", "metrics//.", ".//metrics/./"] {
        let ended = analyze(&home, &["--metrics-dir", folder]).with(0);
        assert_eq!(ended.stdout, format!("Error loading metrics/metrics_1.json: {reason}"), "{folder}");
    }
    let ended = analyze(&home, &["--metrics-dir", "metrics/../metrics"]).with(0);
    assert_eq!(ended.stdout, format!("Error loading metrics/../metrics/metrics_1.json: {reason}"));
    let inside =
        home.program(PROGRAM).current_dir(home.path("metrics")).args(["--metrics-dir", "."]).output();
    let inside = Ended::from(inside.unwrap()).with(0);
    assert_eq!(inside.stdout, format!("Error loading metrics_1.json: {reason}"));
}

#[test]
fn an_option_beats_the_variable_and_the_variable_the_default() {
    let home = home_with(&[("metrics_1.json", "")]);
    home.write("elsewhere/metrics_2.json", "");
    home.write("chosen/metrics_3.json", "");
    let named = |command: &mut Command| {
        let ended = Ended::from(command.output().unwrap()).with(0);
        ended.stdout.split(": ").next().unwrap().to_owned()
    };
    let mut by_variable = home.program(PROGRAM);
    by_variable.env("COLLECTOR_METRICS_DIR", "elsewhere");
    assert_eq!(named(&mut by_variable), "Error loading elsewhere/metrics_2.json");
    by_variable.args(["--metrics-dir", "chosen"]);
    assert_eq!(named(&mut by_variable), "Error loading chosen/metrics_3.json");
    let mut without = home.program(PROGRAM);
    without.env("COLLECTOR_METRICS_DIR", "");
    assert_eq!(named(&mut without), "Error loading metrics/metrics_1.json");
}

#[test]
fn help_and_version_are_answered_and_wrong_usage_is_refused() {
    let home = Home::new();
    let help = analyze(&home, &["--help"]).with(0);
    assert!(help.stdout.contains("--metrics-dir <DIR>") && help.stdout.contains("COLLECTOR_METRICS_DIR"));
    let version = analyze(&home, &["-V"]).with(0);
    assert_eq!(version.stdout, format!("analyze-metrics {}\n", env!("CARGO_PKG_VERSION")));
    for wrong in [&["--metrics"][..], &["metrics"], &["--metrics-dir"], &["--metrics-dir", ""]] {
        let ended = analyze(&home, wrong).with(2);
        assert_eq!(ended.stdout, "");
        ended.error_line();
    }
}

#[test]
fn a_folder_that_cannot_be_listed_is_an_error() {
    let ended = analyze(&Home::new(), &["--metrics-dir", &"x".repeat(300)]).with(1);
    assert_eq!(ended.stdout, "");
    assert!(ended.error_line().starts_with("error: cannot read xxx"));
}

#[test]
fn a_reader_who_has_gone_is_no_error() {
    let home = sample_records();
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let ended = home.program(PROGRAM).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(Ended::from(ended).with(0).stderr, "");
}

#[test]
fn records_of_the_collector_are_understood() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    home.run(fixture("broken/html.json")).with(1);
    let said = report(&home);
    assert!(!said.contains("Error loading"), "{said}");
    assert!(said.contains("Total runs analyzed: 2\n"), "{said}");
    assert!(said.contains("  Max:    500\n"), "{said}");
    assert!(said.ends_with("Errors: 1 errors across 2 runs\n  Error rate: 50.00%\n\n"), "{said}");
}
