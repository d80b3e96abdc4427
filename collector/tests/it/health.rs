//! `collector health` from outside. The expected words are those of the documented script for the same file.

use std::fs;

use chrono::{SecondsFormat, TimeDelta, Utc};

use crate::support::{Ended, Home, fixture};

/// A run this number of minutes ago, and half a minute more, so that no test waits for a minute to end.
fn minutes_ago(minutes: i64) -> String {
    let time = Utc::now() - TimeDelta::minutes(minutes) - TimeDelta::seconds(30);
    time.to_rfc3339_opts(SecondsFormat::Micros, false)
}

/// Checks a health file in which `AGO(n)` stands for a time n minutes ago.
fn check(text: &str, arguments: &[&str]) -> Ended {
    let home = Home::new();
    let mut parts = text.split("AGO(");
    let mut filled = parts.next().unwrap().to_owned();
    for part in parts {
        let (minutes, rest) = part.split_once(')').unwrap();
        filled += &minutes_ago(minutes.parse().unwrap());
        filled += rest;
    }
    home.write("health.json", filled);
    home.collector(&[&["health"], arguments].concat())
}

/// Pairs of a health file and what is said of it.
#[track_caller]
fn assert_said(code: i32, cases: &[(&str, &str)]) {
    for (text, words) in cases {
        let ended = check(text, &[]).with(code);
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), (*words, ""), "{text}");
    }
}

#[test]
fn a_missing_file_is_unhealthy() {
    let home = Home::new();
    for (arguments, path) in [
        (&["health"][..], "health.json"),
        (&["health", "--health-file", "./no//such/./file.json"], "no/such/file.json"),
    ] {
        let ended = home.collector(arguments).with(1);
        let expected = format!(
            "ERROR: Health file not found at {path}\nHINT: Collector may never have run successfully\n"
        );
        assert_eq!(ended.stdout, expected);
    }
}

#[test]
fn a_good_run_that_is_not_too_old_is_healthy() {
    assert_said(
        0,
        &[
            (
                r#"{"last_run": "AGO(20)", "status": "success", "events_processed": 3, "execution_time": 2.345}"#,
                "OK: Collector is healthy\n  Last run: 20 minutes ago\n  Events processed: 3\n  Execution time: 2.35s\n",
            ),
            (
                r#"{"last_run": "AGO(45)", "status": "success", "events_processed": 0, "execution_time": 0.125, "error": null}"#,
                "OK: Collector is healthy\n  Last run: 45 minutes ago\n  Events processed: 0\n  Execution time: 0.12s\n",
            ),
            (
                r#"{"last_run": "AGO(-2)", "status": "success"}"#,
                "OK: Collector is healthy\n  Last run: -2 minutes ago\n  Events processed: 0\n  Execution time: 0.00s\n",
            ),
            (
                r#"{"last_run": "AGO(0)", "status": "success", "events_processed": "many", "execution_time": 7}"#,
                "OK: Collector is healthy\n  Last run: 0 minutes ago\n  Events processed: many\n  Execution time: 7.00s\n",
            ),
            (
                r#"{"last_run": "AGO(0)", "status": "success", "events_processed": [null, true, 1e16, {"it's": "x"}], "execution_time": true}"#,
                "OK: Collector is healthy\n  Last run: 0 minutes ago\n  Events processed: [None, True, 1e+16, {\"it's\": 'x'}]\n  Execution time: 1.00s\n",
            ),
            (
                r#"{"status": "failed", "last_run": "AGO(0)", "execution_time": NaN, "status": "success"}"#,
                "OK: Collector is healthy\n  Last run: 0 minutes ago\n  Events processed: 0\n  Execution time: nans\n",
            ),
        ],
    );
}

#[test]
fn an_old_run_is_unhealthy_however_it_went() {
    assert_said(
        1,
        &[
            (
                r#"{"last_run": "AGO(46)", "status": "success"}"#,
                "ERROR: Last run was 46 minutes ago (threshold: 45 minutes)\nHINT: Collector may be stuck or not running\n",
            ),
            (
                r#"{"last_run": "AGO(46)", "status": "failed", "error": "timeout"}"#,
                "ERROR: Last run was 46 minutes ago (threshold: 45 minutes)\nHINT: Collector may be stuck or not running\n",
            ),
        ],
    );
}

/// The configuration file alone says how often runs happen; the maximum age allows for that unless it is set as well.
#[test]
fn max_age_follows_the_interval() {
    for (configuration, max_age) in [
        ("interval = '10s'", 16),
        ("interval = '5m'", 20),
        ("", 45),
        ("interval = '1h'", 90),
        ("interval = '1day'", 2160),
        ("interval = '1h'\nmax_age_minutes = 45", 45),
    ] {
        let home = Home::new();
        home.write("config.toml", configuration);
        for (age, code) in [(max_age, 0), (max_age + 1, 1)] {
            home.write(
                "health.json",
                format!(r#"{{"last_run": "{}", "status": "success"}}"#, minutes_ago(age)),
            );
            home.collector(&["health", "--config", "config.toml"]).with(code);
        }
        let shown = home.collector(&["config", "--config", "config.toml", "--json"]).with(0).json();
        assert_eq!(shown["max_age_minutes"]["value"], max_age.to_string(), "{configuration}");
        home.collector(&[
            "run",
            "--config",
            "config.toml",
            "--feed",
            "absent.json",
            "--prometheus-file",
            "metrics.prom",
        ])
        .with(1);
        let metrics = fs::read_to_string(home.path("metrics.prom")).unwrap();
        assert!(
            metrics.contains(&format!("polisen_collector_max_age_seconds {}\n", max_age * 60)),
            "{metrics}"
        );
        assert!(metrics.contains("polisen_collector_poll_interval_seconds "), "{metrics}");
    }
}

#[test]
fn a_failed_run_is_unhealthy() {
    assert_said(
        1,
        &[
            (
                r#"{"last_run": "AGO(20)", "status": "failed", "events_processed": 0, "execution_time": 30.1, "error": "Read timed out"}"#,
                "ERROR: Last run failed with status: failed\nERROR: Read timed out\n",
            ),
            (
                r#"{"last_run": "AGO(20)", "status": "failed"}"#,
                "ERROR: Last run failed with status: failed\n",
            ),
            (
                r#"{"last_run": "AGO(20)", "status": "failed", "error": null}"#,
                "ERROR: Last run failed with status: failed\nERROR: None\n",
            ),
            (r#"{"last_run": "AGO(20)"}"#, "ERROR: Last run failed with status: None\n"),
            (
                r#"{"last_run": "AGO(20)", "status": {"code": 1.5}, "error": ["a", 2]}"#,
                "ERROR: Last run failed with status: {'code': 1.5}\nERROR: ['a', 2]\n",
            ),
        ],
    );
}

#[test]
fn a_file_that_is_no_json_is_named_so() {
    assert_said(
        1,
        &[
            ("", "ERROR: Invalid JSON in health file: Expecting value: line 1 column 1 (char 0)\n"),
            (
                r#"{"last_run": "2026-01-02"#,
                "ERROR: Invalid JSON in health file: Unterminated string starting at: line 1 column 14 (char 13)\n",
            ),
            (
                r#"{"last_run""#,
                "ERROR: Invalid JSON in health file: Expecting ':' delimiter: line 1 column 12 (char 11)\n",
            ),
            (
                "{last_run: 1}",
                "ERROR: Invalid JSON in health file: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)\n",
            ),
            ("{} x", "ERROR: Invalid JSON in health file: Extra data: line 1 column 4 (char 3)\n"),
            (
                r#"{"a": "\x"}"#,
                "ERROR: Invalid JSON in health file: Invalid \\escape: line 1 column 8 (char 7)\n",
            ),
            (
                "{\"a\": 1,\n \"b\": }",
                "ERROR: Invalid JSON in health file: Expecting value: line 2 column 7 (char 15)\n",
            ),
            (
                "[1,\n2",
                "ERROR: Invalid JSON in health file: Expecting ',' delimiter: line 2 column 2 (char 5)\n",
            ),
        ],
    );
}

#[test]
fn a_field_that_is_missing_is_named() {
    assert_said(
        1,
        &[
            ("{}", "ERROR: Missing required field in health data: 'last_run'\n"),
            (r#"{"status": "success"}"#, "ERROR: Missing required field in health data: 'last_run'\n"),
        ],
    );
}

#[test]
fn a_date_that_is_none_is_named() {
    assert_said(
        1,
        &[
            (
                r#"{"last_run": "yesterday"}"#,
                "ERROR: Invalid datetime format: Invalid isoformat string: 'yesterday'\n",
            ),
            (r#"{"last_run": ""}"#, "ERROR: Invalid datetime format: Invalid isoformat string: ''\n"),
            (
                r#"{"last_run": "2026-02-30T00:00:00Z"}"#,
                "ERROR: Invalid datetime format: day is out of range for month\n",
            ),
            (r#"{"last_run": "2026-13-01"}"#, "ERROR: Invalid datetime format: month must be in 1..12\n"),
            (
                r#"{"last_run": "2026-01-02T25:00:00Z"}"#,
                "ERROR: Invalid datetime format: hour must be in 0..23\n",
            ),
            (
                r#"{"last_run": "it's late"}"#,
                "ERROR: Invalid datetime format: Invalid isoformat string: \"it's late\"\n",
            ),
            (
                r#"{"last_run": "2026-01-02T00:00:00+24:00"}"#,
                "ERROR: Invalid datetime format: offset must be a timedelta strictly between -timedelta(hours=24) and timedelta(hours=24), not datetime.timedelta(days=1).\n",
            ),
            (
                r#"{"last_run": "0000-01-01T00:00:00Z"}"#,
                "ERROR: Invalid datetime format: year 0 is out of range\n",
            ),
            (
                r#"{"last_run": "AGO(0)", "status": "success", "execution_time": "2"}"#,
                "OK: Collector is healthy\n  Last run: 0 minutes ago\n  Events processed: 0\nERROR: Invalid datetime format: Unknown format code 'f' for object of type 'str'\n",
            ),
        ],
    );
}

#[test]
fn whatever_else_is_wrong_is_unexpected() {
    assert_said(
        1,
        &[
            ("[]", "ERROR: Unexpected error: list indices must be integers or slices, not str\n"),
            (r#""text""#, "ERROR: Unexpected error: string indices must be integers, not 'str'\n"),
            ("3", "ERROR: Unexpected error: 'int' object is not subscriptable\n"),
            ("null", "ERROR: Unexpected error: 'NoneType' object is not subscriptable\n"),
            ("true", "ERROR: Unexpected error: 'bool' object is not subscriptable\n"),
            (r#"{"last_run": 1767355200}"#, "ERROR: Unexpected error: fromisoformat: argument must be str\n"),
            (r#"{"last_run": null}"#, "ERROR: Unexpected error: fromisoformat: argument must be str\n"),
            (
                r#"{"last_run": "2026-01-02T12:00:00"}"#,
                "ERROR: Unexpected error: can't subtract offset-naive and offset-aware datetimes\n",
            ),
            (
                r#"{"last_run": "AGO(0)", "status": "success", "execution_time": null}"#,
                "OK: Collector is healthy\n  Last run: 0 minutes ago\n  Events processed: 0\nERROR: Unexpected error: unsupported format string passed to NoneType.__format__\n",
            ),
            (
                r#"{"last_run": "AGO(0)", "status": "success", "execution_time": [1]}"#,
                "OK: Collector is healthy\n  Last run: 0 minutes ago\n  Events processed: 0\nERROR: Unexpected error: unsupported format string passed to list.__format__\n",
            ),
        ],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let home = Home::new();
    fs::create_dir(home.path("health.json")).unwrap();
    let ended = home.collector(&["health"]).with(1);
    assert_eq!(ended.stdout, "ERROR: Unexpected error: [Errno 21] Is a directory: 'health.json'\n");

    home.write("latin-1.json", b"{\"status\": \"fel p\xe5\"}");
    let ended = home.collector(&["health", "--health-file", "latin-1.json"]).with(1);
    assert_eq!(
        ended.stdout,
        "ERROR: Invalid datetime format: 'utf-8' codec can't decode byte 0xe5 in position 17: \
         invalid continuation byte\n"
    );
}

#[test]
fn the_threshold_can_be_chosen() {
    let good = r#"{"last_run": "AGO(100)", "status": "success"}"#;
    check(good, &["--max-age-minutes", "100"]).with(0);
    let ended = check(good, &["--max-age-minutes", "99"]).with(1);
    assert_eq!(
        ended.stdout,
        "ERROR: Last run was 100 minutes ago (threshold: 99 minutes)\n\
         HINT: Collector may be stuck or not running\n"
    );
}

#[test]
fn the_verdict_is_also_told_as_json() {
    let ended = check(r#"{"last_run": "AGO(3)", "status": "failed", "error": "gone"}"#, &["--json"]).with(1);
    let expected = serde_json::json!({
        "healthy": false,
        "message": ["ERROR: Last run failed with status: failed", "ERROR: gone"],
    });
    assert_eq!(ended.json(), expected);
}

#[test]
fn the_collectors_own_file_is_understood() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    let ended = home.collector(&["health"]).with(0);
    assert!(
        ended.stdout.starts_with("OK: Collector is healthy\n  Last run: 0 minutes ago\n"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("  Events processed: 500\n"), "{}", ended.stdout);

    home.run(fixture("broken/html.json")).with(1);
    let ended = home.collector(&["health"]).with(1);
    assert!(
        ended.stdout.starts_with("ERROR: Last run failed with status: failed\nERROR: "),
        "{}",
        ended.stdout
    );
}
