//! `loadtest` as its users run it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(arguments).output().unwrap()
}

#[test]
fn a_run_tells_what_was_lost_in_a_table_as_json_and_on_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("run.json"), folder.path().join("run.html"));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let common = ["run", "--rates", "1,300", "--days", "0.2", "--traffic", "flat"];
    let ended = loadtest(&[&common[..], &files].concat());
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let table = String::from_utf8(ended.stdout).unwrap();
    assert!(table.starts_with("rate") && table.contains("300x"), "{table}");

    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let scenarios = report["scenarios"].as_array().unwrap();
    let number = |scenario: &Value, name: &str| scenario[name].as_u64().unwrap_or_else(|| panic!("{name}"));
    for scenario in scenarios {
        assert_eq!(
            number(scenario, "lost"),
            number(scenario, "published") - number(scenario, "stored"),
            "{scenario}"
        );
        assert_eq!(number(scenario, "duplicates"), 0);
        for name in [
            "interval_s",
            "seed",
            "polls",
            "failed_polls",
            "max_new_per_poll",
            "min_overlap",
            "peak_rss_bytes",
        ] {
            number(scenario, name);
        }
        for percentile in ["p50", "p95", "p99"] {
            assert!(scenario["timings"]["api_fetch"][percentile].as_f64().unwrap() > 0.0);
        }
    }
    assert!(number(&scenarios[1], "lost") > 0);

    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<svg role=\"img\"") && page.contains("Loss by rate"));
    let without_names = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!without_names.contains("http://") && !without_names.contains("https://"), "it needs no network");

    let ended = loadtest(&[&common[..], &["--expect-no-loss"]].concat());
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("none was expected"));
    let one = ["run", "--rates", "1", "--days", "0.2", "--expect-no-loss", "--json", "-"];
    let ended = loadtest(&one);
    assert!(ended.status.success());
    assert!(serde_json::from_slice::<Value>(&ended.stdout).is_ok(), "nothing but JSON");
}

#[test]
fn nonsense_is_refused_in_a_sentence() {
    for (nonsense, said) in [
        (&["run", "--rates", "0"][..], "from 0.001"),
        (&["run", "--rates", "x"], "not a number"),
        (&["run", "--days", "-1"], "from 0.001"),
        (&["run", "--interval", "1s"], "from 10s"),
        (&["run", "--fault-rate", "2"], "from 0 to 1"),
        (&["run", "--faults", "flood"], "`flood` is not a fault"),
        (&["run", "--rates", "1e-300"], "from 0.001"),
        (&["run", "--outage", "6h"], "6h@day3"),
        (&["run", "--days", "2", "--outage", "6h@day4"], "begins on day 4, but 2 days are simulated"),
        (&["run", "--miss-polls", "2000"], "longer than the day"),
        (&["run", "--json", "/nonexistent/run.json"], "No such file or directory"),
        (&["service", "--json", "/nonexistent/run.json"], "No such file or directory"),
        (&["capacity", "--html", "/"], "it is a folder"),
        (&["capacity", "--days", "1", "--intervals", "60m", "--miss-polls", "24"], "does not fit into"),
        (&["capacity", "--intervals", "60m", "--miss-polls", "4294967295"], "does not fit into"),
        (&["stress", "--runs-per-second", "1e-300"], "from 0.001"),
        (&["run", "--traffic", "wild"], "flat, daily, history DIR"),
        (&["run", "--store", "tape"], "possible values: memory, local, oci"),
        (&["capacity", "--intervals", "7m"], "multiple of 5m"),
        (&["reliability", "--runs", "0"], "10.."),
        (&["stress", "--duration", "0s"], "from 1s"),
        (&["serve", "--speed", "-1"], "from 0.001"),
        (&["service", "--interval", "1s"], "from 10s"),
        (&[], "Usage"),
    ] {
        let ended = loadtest(nonsense);
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{nonsense:?}: {stderr}");
        assert!(stderr.contains(said), "{nonsense:?}: {stderr}");
    }
}

#[test]
fn many_collectors_at_once_are_measured_from_the_instant_they_are_due() {
    let ended = loadtest(&[
        "stress",
        "--collectors",
        "4",
        "--runs-per-second",
        "20",
        "--duration",
        "1s",
        "--store",
        "oci",
        "--json",
        "-",
    ]);
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((report["failed"].as_u64(), report["unfinished"].as_u64()), (Some(0), Some(0)), "{report}");
    assert_eq!(report["succeeded"], report["due"]);
    for percentile in ["p50", "p95", "p99"] {
        assert!(
            report["latency_s"][percentile].as_f64() >= report["service_s"][percentile].as_f64(),
            "{report}"
        );
    }
    assert!(report["limit"].as_str().is_some_and(|limit| !limit.is_empty()));
}

#[test]
fn queries_beside_the_runs_are_measured_and_mostly_come_from_the_cache() {
    let stress = |more: &[&str]| -> Value {
        let load =
            ["stress", "--collectors", "3", "--runs-per-second", "10", "--duration", "1s", "--json", "-"];
        let ended = loadtest(&[&load[..], &["--queries-per-second", "60"], more].concat());
        serde_json::from_slice(&ended.stdout).unwrap()
    };
    let (cached, plain) = (stress(&[]), stress(&["--no-cache"]));
    for report in [&cached, &plain] {
        let queries = &report["queries"];
        assert_eq!(
            (queries["failed"].as_u64(), queries["unfinished"].as_u64()),
            (Some(0), Some(0)),
            "{report}"
        );
        assert_eq!(queries["succeeded"], queries["due"]);
        assert!(queries["latency_s"]["p99"].as_f64() >= queries["latency_s"]["p50"].as_f64());
    }
    assert!(cached["queries"]["hit_rate"].as_f64().is_some_and(|rate| rate > 0.7), "{cached}");
    assert!(plain["queries"]["hit_rate"].is_null(), "{plain}");
    let requests = |report: &Value| report["store_requests"].as_u64().unwrap();
    assert!(10 * requests(&cached) < 7 * requests(&plain), "{cached} {plain}");
    assert!(stress(&["--store", "memory"])["store_requests"].is_null());
}

/// Not its memory, which depends on how it was built: `scripts/e2e 70-loadtest` simulates the documented year.
#[test]
fn the_service_polls_as_often_as_it_should_and_stores_everything_once() {
    for (options, due) in [(["--interval", "30m"], 96), (["--interval", "7m"], 411)] {
        let ended = loadtest(&[&["service", "--days", "2", "--json", "-"][..], &options].concat());
        let life: Value = serde_json::from_slice(&ended.stdout).unwrap();
        let number = |name: &str| life[name].as_u64().unwrap_or_else(|| panic!("{name}: {life}"));
        assert_eq!((number("polls"), number("due"), number("pages")), (due, due, 3 * due));
        assert_eq!((number("duplicates"), number("possible_gaps")), (0, 0));
        assert!(life["drift_s"].as_f64().unwrap() < 1.0, "{life}");
        assert!(number("stored") >= number("published") && number("published") > 0, "{life}");
        assert_eq!(life["rss_by_month_bytes"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn the_served_feed_keeps_the_provider_s_rules_and_shows_how_it_is_used() {
    let program = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["serve", "--rate", "10", "--speed", "1"])
        .stdout(Stdio::piped())
        .spawn();
    let mut program = program.unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let report: Value = serde_json::from_str(&line).unwrap();
    let address = |name: &str| report[name].as_str().unwrap().to_owned();

    let client = reqwest::Client::new();
    let anonymous = client.get(address("feed")).send().await.unwrap();
    assert_eq!(anonymous.status(), 403, "no contact is given");
    let named = || client.get(address("feed")).header("user-agent", "a test");
    let first = named().send().await.unwrap();
    assert_eq!(first.status(), 200);
    let events: Value = serde_json::from_slice(&first.bytes().await.unwrap()).unwrap();
    assert_eq!(events.as_array().unwrap().len(), 500);
    let second = named().send().await.unwrap();
    assert_eq!(second.status(), 429);
    assert!(second.headers().contains_key("retry-after"));

    let status = client.get(address("status")).send().await.unwrap();
    let status: Value = serde_json::from_slice(&status.bytes().await.unwrap()).unwrap();
    assert_eq!((status["calls"].as_u64(), status["responses"].as_u64()), (Some(3), Some(1)), "{status}");
    assert_eq!((status["refusals"].as_u64(), status["buffer"].as_u64()), (Some(2), Some(500)), "{status}");
    let page = client.get(address("page")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("1 without a contact (403), 1 too many calls (429)"), "{page}");
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn result_is_compared_with_a_baseline() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let run = |arguments: &[&str]| {
        let common = ["run", "--rates", "300", "--days", "0.2", "--traffic", "flat"];
        let kept = ["--baseline-dir", folder.to_str().unwrap()];
        loadtest(&[&common[..], &kept, arguments].concat())
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = folder.join("lines.jsonl");
    let saved = run(&["--save-baseline", "day", "--json-lines", lines.to_str().unwrap()]);
    assert!(saved.status.success(), "{}", said(&saved));
    let lines = std::fs::read_to_string(lines).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lost = lines.iter().find(|line| line["metric"] == "scenarios.0.lost").unwrap();
    assert!(lost["type"] == "Point" && lost["data"]["value"].as_f64().unwrap() > 0.0, "{lost}");

    let limit = ["--baseline", "day", "--fail-on", "scenarios.*.lost>0%"];
    let same = run(&limit);
    assert_eq!(same.status.code(), Some(0), "{}", said(&same));
    assert!(said(&same).contains("scenarios.0.lost"), "{}", said(&same));

    // As if fewer had been lost before. Such a result does not become the baseline.
    let path = folder.join("day.json");
    let mut baseline: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    baseline["metrics"]["scenarios.0.lost"] = 1.0.into();
    std::fs::write(&path, baseline.to_string()).unwrap();
    let worse = run(&[&limit[..], &["--save-baseline", "day"]].concat());
    assert_eq!(worse.status.code(), Some(1), "{}", said(&worse));
    assert!(
        said(&worse).contains("worse than the baseline: scenarios.0.lost was 1.0000"),
        "{}",
        said(&worse)
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), baseline.to_string());

    let other = run(&["--baseline", "day", "--seed", "7"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(said(&other).contains("the baseline is of `run --rates 300"), "{}", said(&other));
    for (wrong, code, message) in [
        (&["--baseline", "day", "--fail-on", "speed>1%"][..], 2, "no metric for speed>1%"),
        (&["--fail-on", "lost>1%"], 2, "--baseline"),
        (&["--baseline", "day", "--fail-on", "lost"], 2, "METRIC>10%"),
        (&["--save-baseline", "../day"], 2, "letters, digits"),
        (&["--baseline", "night"], 1, "make one with --save-baseline"),
    ] {
        let ended = run(wrong);
        assert_eq!(ended.status.code(), Some(code), "{wrong:?}: {}", said(&ended));
        assert!(said(&ended).contains(message), "{wrong:?}: {}", said(&ended));
    }
}
