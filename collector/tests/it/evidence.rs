//! Health rests on evidence: what arrived, what is stored, and when. Each test runs the program and asks `collector health`.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::http::{Server, ok};
use crate::support::{Ended, Home, fixture};

fn elements() -> Vec<Value> {
    serde_json::from_slice(&fs::read(fixture("response.json")).unwrap()).unwrap()
}

fn iso(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, false)
}

/// A response in which the first `invalid` elements have no offset in their `datetime`.
fn response_with(home: &Home, invalid: usize) -> PathBuf {
    let mut elements = elements();
    for element in &mut elements[..invalid] {
        let text = element["datetime"].as_str().unwrap();
        element["datetime"] = Value::from(&text[..text.len() - 7]);
    }
    home.write("partly.json", serde_json::to_vec(&elements).unwrap())
}

/// Puts a member of the health file into the past, or into the future.
fn shift(home: &Home, members: &[&str], by: TimeDelta) {
    let mut health = home.health();
    for member in members {
        let time: DateTime<Utc> = health[member].as_str().unwrap().parse().unwrap();
        health[member] = Value::from(iso(time + by));
    }
    home.write("health.json", health.to_string());
}

#[track_caller]
fn assert_unhealthy(home: &Home, words: &[&str]) -> Ended {
    let ended = home.collector(&["health"]).with(1);
    assert!(!ended.stdout.contains("OK:"), "{}", ended.stdout);
    for word in words.iter().chain(&["HINT: "]) {
        assert!(ended.stdout.contains(word), "`{word}` is missing: {}", ended.stdout);
    }
    ended
}

#[track_caller]
fn assert_healthy(home: &Home) {
    let ended = home.collector(&["health"]).with(0);
    assert!(ended.stdout.starts_with("OK: Collector is healthy\n"), "{}", ended.stdout);
}

#[test]
fn last_run_in_the_future_is_unhealthy() {
    let home = Home::new();
    home.write("health.json", r#"{"last_run":"2100-01-01T00:00:00+00:00","status":"success"}"#);
    let today = Utc::now().format("%Y-").to_string();
    assert_unhealthy(
        &home,
        &["Last run is dated 2100-01-01T00:00:00+00:00, but the clock of this machine shows", &today],
    );
    let soon = |seconds| iso(Utc::now() + TimeDelta::seconds(seconds));
    home.write("health.json", json!({"last_run": soon(100), "status": "success"}).to_string());
    assert_healthy(&home);
    home.write("health.json", json!({"last_run": soon(200), "status": "success"}).to_string());
    assert_unhealthy(&home, &["dated"]);
}

#[test]
fn each_fact_in_the_future_or_too_old_is_named() {
    let facts = [
        ("last_valid_response", "Last valid response"),
        ("last_response_with_events", "Last response with events"),
        ("last_settled", "Last settled response"),
    ];
    for (member, words) in facts {
        let home = Home::new();
        home.run(fixture("response.json")).with(0);
        assert_healthy(&home);
        shift(&home, &[member], TimeDelta::minutes(10));
        assert_unhealthy(&home, &[words, "is dated", "the clock of this machine shows"]);
        shift(&home, &[member], TimeDelta::minutes(-57));
        assert_unhealthy(&home, &[words, "was 47 minutes ago, at 20", "(threshold: 45 minutes)"]);
        home.collector(&["health", "--max-age-minutes", "48"]).with(0);
        // The next good run with the right clock corrects it.
        home.run(fixture("response.json")).with(0);
        assert_healthy(&home);
    }
}

#[test]
fn maximum_age_of_nothing_is_a_whole_minute() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    home.collector(&["health", "--max-age-minutes", "0"]).with(0);
    shift(&home, &["last_settled"], TimeDelta::minutes(-1));
    home.collector(&["health", "--max-age-minutes", "0"]).with(1);
}

#[test]
fn response_without_a_valid_event_is_unhealthy() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    let settled = home.health()["last_settled"].clone();
    let feed = response_with(&home, 500);
    let ended = home.run(&feed).with(0);
    assert!(ended.stderr.contains("no valid event among 500 elements"), "{}", ended.stderr);
    assert_unhealthy(
        &home,
        &["Last response held no valid event among 500 elements; the last events came at"],
    );
    let health = home.health();
    assert_eq!((&health["status"], &health["rejected_share"]), (&"success".into(), &1.0.into()));
    assert_eq!(health["last_settled"], settled, "nothing of the feed was settled");
    assert_eq!(home.records().last().unwrap()["counts"]["api_events_valid"], 0);
    home.run(fixture("response.json")).with(0);
    assert_healthy(&home);
}

#[test]
fn share_of_rejected_elements_above_the_limit_is_unhealthy_and_the_others_are_stored() {
    let home = Home::new();
    let at_limit = response_with(&home, 100);
    home.run(&at_limit).with(0);
    assert_healthy(&home);
    assert_eq!(home.lines("events").len(), 400);
    let home = Home::new();
    let above = response_with(&home, 101);
    home.run(&above).with(0);
    assert_eq!((home.lines("events").len(), home.lines("rejected").len()), (399, 101));
    assert_unhealthy(&home, &["Last response held 101 invalid elements of 500 (limit: 20 %)"]);
    home.collector(&["health", "--max-rejected-share", "0.21"]).with(0);
    home.collector(&["health", "--max-rejected-share", "21 %"]).with(0);
    for wrong in ["-1", "1.1", "NaN", "101%", "much", ""] {
        home.collector(&["health", &format!("--max-rejected-share={wrong}")]).with(2);
    }
}

#[test]
fn empty_response_is_unhealthy() {
    let home = Home::new();
    let empty = home.write("empty.json", "[]");
    home.run(&empty).with(0);
    assert_unhealthy(&home, &["Last response was empty\n", "There was no settled response"]);
    home.run(fixture("response.json")).with(0);
    assert_healthy(&home);
    home.run(&empty).with(0);
    assert_unhealthy(&home, &["Last response was empty; the last events came at 20"]);
}

#[test]
fn run_that_leaves_the_archive_to_another_settles_nothing() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    let mut ledger = home.ledger();
    let until = (Utc::now() + TimeDelta::minutes(5)).timestamp();
    ledger["claim"] = json!({"run": "x", "owner": "other-host 1\u{1b}[31m", "until": until, "objects": []});
    home.write("data/metadata/last_seen.json", ledger.to_string());
    let settled = home.health()["last_settled"].clone();
    let feed = fixture("response-next.json");
    let next: Vec<Value> = serde_json::from_slice(&fs::read(&feed).unwrap()).unwrap();
    let known = elements();
    let new = next.iter().filter(|event| known.iter().all(|it| it["id"] != event["id"])).count();
    let first = home.run_json(&feed);
    assert!(first["left_to"].is_string(), "{first}");
    let health = home.health();
    assert_eq!((&health["status"], &health["last_settled"]), (&"success".into(), &settled));
    assert!(health["last_valid_response"] != settled);
    assert_eq!(health["unsettled_events"].as_array().unwrap().len(), new, "those that the ledger lacks");
    assert_healthy(&home);

    shift(&home, &["last_settled", "unresolved_claim_since", "unsettled_since"], TimeDelta::minutes(-50));
    home.run(&feed).with(0);
    let said = assert_unhealthy(
        &home,
        &[
            "Last settled response (every event stored) was 50 minutes ago",
            "Another run (other-host 1\\u{1b}[31m) has held the archive since",
            "for 50 minutes",
            &format!("Events not stored: {new} seen 50 minutes ago"),
        ],
    );
    assert!(!said.stdout.contains('\u{1b}'), "{}", said.stdout);
    assert!(!said.stdout.contains("Last valid response"), "{}", said.stdout);

    ledger["claim"] = Value::Null;
    ledger.as_object_mut().unwrap().remove("claim");
    home.write("data/metadata/last_seen.json", ledger.to_string());
    home.run(&feed).with(0);
    assert_healthy(&home);
    assert_eq!(home.health()["unresolved_claim_since"], Value::Null);
}

#[test]
fn failed_run_carries_older_facts_over() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    shift(
        &home,
        &["last_settled", "last_valid_response", "last_response_with_events"],
        TimeDelta::minutes(-50),
    );
    let before = home.health();
    for failures in 1..=3 {
        home.run("absent.json").with(1);
        let health = home.health();
        for member in ["last_settled", "last_valid_response", "last_response_with_events"] {
            assert_eq!(health[member], before[member]);
        }
        assert_eq!(health["consecutive_failures"], failures);
    }
    let said = assert_unhealthy(
        &home,
        &["Last valid response was 50 minutes ago", "Last settled response (every event stored) was 50"],
    );
    assert!(
        said.stdout.starts_with("ERROR: Last run failed with status: failed\nERROR: "),
        "{}",
        said.stdout
    );
    home.run(fixture("response.json")).with(0);
    assert_healthy(&home);
    assert_eq!(home.health()["consecutive_failures"], 0);
}

/// An event that was fetched, could not be stored, and is gone from the feed when runs succeed again.
#[test]
fn event_that_was_seen_and_never_stored_is_unhealthy() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    let mut with_one_more = elements();
    let mut event = with_one_more[0].clone();
    event["id"] = Value::from(9_999_999);
    with_one_more.insert(0, event);
    let with_one_more = home.write("more.json", serde_json::to_vec(&with_one_more).unwrap());
    home.write("blocked/metadata", "");
    home.collector(&["run", "--feed", with_one_more.to_str().unwrap(), "--store", "blocked"]).with(1);
    assert_eq!(home.health()["unsettled_events"].as_array().unwrap().len(), 501);
    shift(&home, &["unsettled_since"], TimeDelta::minutes(-50));

    home.run(fixture("response.json")).with(0);
    assert_eq!(home.health()["unsettled_events"].as_array().unwrap().len(), 1, "the others are stored");
    assert_unhealthy(
        &home,
        &["Events not stored: 1 seen 50 minutes ago", "id 9999999\n", "collector import"],
    );
    home.run(&with_one_more).with(0);
    assert_healthy(&home);
    assert_eq!(home.health()["unsettled_since"], Value::Null);
}

#[test]
fn record_that_cannot_be_written_is_unhealthy() {
    let home = Home::new();
    home.write("metrics", "a file");
    home.run(fixture("response.json")).with(0);
    assert_eq!(home.lines("events").len(), 500);
    assert_unhealthy(&home, &["The record of the run could not be written to ./metrics"]);
    fs::remove_file(home.path("metrics")).unwrap();
    home.run(fixture("response.json")).with(0);
    assert_healthy(&home);
}

#[test]
fn health_file_that_cannot_be_written_fails_the_command() {
    let home = Home::new();
    home.write("file", "");
    fs::create_dir(home.path("folder")).unwrap();
    let feed = fixture("response.json");
    for place in ["file/health.json", "folder", "/proc/none/health.json"] {
        let arguments = ["run", "--health-file", place, "--feed", feed.to_str().unwrap()];
        let ended = home.collector(&arguments).with(1);
        assert!(ended.error_line().contains(place), "{}", ended.stderr);
        home.collector(&["health", "--health-file", place]).with(1);
    }
    assert_eq!(home.lines("events").len(), 500, "the events are stored all the same");
    let prometheus = ["run", "--prometheus-file", "file/x.prom", "--feed", feed.to_str().unwrap()];
    assert!(home.collector(&prometheus).with(1).error_line().contains("file/x.prom"));
}

/// A limit of nothing on the size of files, which is what a full disk looks like.
#[test]
fn health_file_of_an_earlier_run_does_not_vouch_on_a_full_disk() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    assert_healthy(&home);
    let program = env!("CARGO_BIN_EXE_collector");
    let script = format!(
        "trap '' XFSZ; ulimit -f 0; exec {program} run --feed '{}'",
        fixture("response.json").display()
    );
    let mut command = home.program("/bin/sh");
    let ended = Ended::from(command.args(["-c", &script]).stdin(Stdio::null()).output().unwrap()).with(1);
    assert!(ended.error_line().contains("health.json"), "{}", ended.stderr);
    assert_unhealthy(&home, &["Health file not found"]);
    home.run(fixture("response.json")).with(0);
    assert_healthy(&home);
}

#[test]
fn health_file_without_evidence_or_with_garbage_proves_nothing() {
    let good = |home: &Home| home.run(fixture("response.json")).with(0);
    // A member of ours that is missing or malformed counts as never proven.
    for (member, value) in [
        ("last_settled", None),
        ("last_settled", Some(json!("yesterday"))),
        ("last_valid_response", Some(json!(3))),
        ("last_response_with_events", Some(Value::Null)),
    ] {
        let home = Home::new();
        good(&home);
        let mut health = home.health();
        match value {
            Some(value) => health[member] = value,
            None => _ = health.as_object_mut().unwrap().remove(member),
        }
        home.write("health.json", health.to_string());
        assert_unhealthy(&home, &["There was no "]);
        good(&home);
        assert_healthy(&home);
        let mut health = home.health();
        health.as_object_mut().unwrap().remove("events_in_last_response");
        home.write("health.json", health.to_string());
        assert_unhealthy(&home, &["Last response"]);
        good(&home);
        assert_healthy(&home);
    }
    // What else may stand there: neither read for ever nor into memory, and replaced by the next run.
    let home = Home::new();
    for garbage in ["", "not JSON", "[]", "{\"last_settled\":", &"[".repeat(300_000), &" ".repeat(2 << 20)] {
        home.write("health.json", garbage);
        home.collector(&["health"]).with(1);
        good(&home);
        assert_healthy(&home);
    }
    fs::remove_file(home.path("health.json")).unwrap();
    nix::unistd::mkfifo(&home.path("health.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ended = home.collector(&["health"]).with(1);
    assert!(ended.stdout.contains("not a regular file: 'health.json'"), "{}", ended.stdout);
}

/// The clock is a day ahead at one run and right at the next.
#[test]
fn clock_that_is_set_back_is_reported_until_the_next_settled_response() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    let all = ["last_run", "last_settled", "last_valid_response", "last_response_with_events"];
    shift(&home, &all, TimeDelta::days(1));
    assert_unhealthy(&home, &["Last run is dated", "Last settled response (every event stored) is dated"]);
    home.run("absent.json").with(1);
    assert_unhealthy(&home, &["Last settled response (every event stored) is dated"]);
    home.run(fixture("response.json")).with(0);
    assert_healthy(&home);
}

#[test]
fn clock_that_differs_from_the_feeds_is_a_warning_in_a_run_and_an_error_in_doctor() {
    let run = |offset: i64, age: Option<&str>| {
        let home = Home::new();
        let date = (Utc::now() - TimeDelta::seconds(offset)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let answer = ok().insert_header("Date", date.as_str());
        let answer = match age {
            Some(age) => answer.insert_header("Age", age),
            None => answer,
        };
        let server = Server::new([answer]);
        let ended = server.run(&home, &[]).with(0);
        let recorded = home.records()[0]["http"]["clock_offset_s"].as_i64().unwrap();
        let doctor = home.collector(&["doctor", "--feed", &server.url()]);
        (ended.stderr.contains("the clock of this machine differs"), recorded, doctor)
    };
    for offset in [-3600, 3600] {
        let (is_warned, recorded, doctor) = run(offset, None);
        assert!(is_warned && (recorded - offset).abs() <= 2, "{recorded}");
        let said = doctor.with(1).stdout;
        let line = said.lines().find(|line| line.contains("feed clock")).unwrap();
        assert!(line.starts_with("FAILED") && line.contains("this machine shows 20"), "{line}");
        assert!(line.contains("the feed shows 20"), "{line}");
    }
    let (is_warned, recorded, doctor) = run(60, None);
    assert!(!is_warned && (58..=62).contains(&recorded), "{recorded}");
    assert!(doctor.with(0).stdout.contains("warning  feed clock"));
    // An answer from a cache is older than the clock of the server.
    let (is_warned, recorded, doctor) = run(3600, Some("3600"));
    assert!(!is_warned && recorded.abs() <= 2, "{recorded}");
    assert!(doctor.with(0).stdout.contains("ok       feed clock"));
}
