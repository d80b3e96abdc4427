//! `collector doctor` says what a run would miss.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{Ended, Home, fixture};

/// The verdict on each thing that was tried.
fn verdicts(ended: &Ended) -> BTreeMap<String, String> {
    let report = ended.json();
    let checks = report["checks"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    checks.map(|check| (text(&check["name"]), text(&check["verdict"]))).collect()
}

fn doctor(home: &Home, more: &[&str]) -> Ended {
    doctor_of(home, &fixture("response.json"), more)
}

fn doctor_of(home: &Home, feed: &Path, more: &[&str]) -> Ended {
    home.collector(&[&["doctor", "--json", "--feed", feed.to_str().unwrap()], more].concat())
}

#[test]
fn where_a_run_works_nothing_is_wrong() {
    let home = Home::new();
    let ended = doctor(&home, &[]).with(0);
    let verdicts = verdicts(&ended);
    for name in [
        "ledger",
        "listing",
        "exclusive",
        "visibility",
        "rename",
        "file_clock",
        "conditions",
        "archive",
        "feed",
        "records",
        "health",
        "state",
    ] {
        assert_eq!(verdicts[name], "ok", "{}", ended.stdout);
    }
    assert_eq!(fs::read_dir(home.path("")).unwrap().count(), 0, "nothing is left of the trials");
    assert_eq!(ended.json()["ok"], true);
    assert_eq!(home.record_files(), [""; 0]);
    let ended = home.collector(&["doctor", "--offline"]).with(0);
    assert!(ended.stdout.ends_with("A run will work. Failed: 0, warnings: 1.\n"), "{}", ended.stdout);
    assert!(ended.stdout.contains("name an address or a page with --contact"), "{}", ended.stdout);
}

#[test]
fn what_a_run_would_miss_is_named() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    let broken = home.write("broken.json", "{}");
    let ended = doctor_of(&home, &broken, &[]);
    assert_eq!(verdicts(&ended.with(1))["feed"], "failed");

    home.write("file", "");
    let ended = doctor(&home, &["--metrics-dir", "/proc/none", "--store", "file"]).with(1);
    let found = verdicts(&ended);
    assert_eq!(
        (found["records"].as_str(), found["store"].as_str()),
        ("failed", "failed"),
        "{}",
        ended.stdout
    );

    let folders =
        ["--health-file", ".", "--metrics-dir", "file/x", "--mirror-to", "file/x", "--epoch-store", "file/y"];
    let found = verdicts(&doctor(&home, &folders).with(1));
    for name in ["health", "records", "replica", "epoch store"] {
        assert_eq!(found[name], "failed", "{name}");
    }
    home.collector(&["mirror", "--to", "replica"]).with(0);
    assert_eq!(verdicts(&doctor(&home, &["--mirror-to", "replica"]))["replica"], "ok");

    let ledger = home.path("data/metadata/last_seen.json");
    fs::write(&ledger, "not a ledger").unwrap();
    let ended = doctor(&home, &[]).with(1);
    assert_eq!(verdicts(&ended)["archive"], "failed");
    assert!(ended.stdout.contains("collector repair"), "{}", ended.stdout);
}

#[test]
fn without_credentials_it_says_where_they_are_looked_for() {
    let home = Home::new();
    let ended = doctor(&home, &["--store", "oci://namespace/bucket"]).with(1);
    assert_eq!(verdicts(&ended)["credentials"], "failed");
    assert!(ended.stdout.contains("OCI_CONFIG_FILE"), "{}", ended.stdout);
    let half = ["--store", "oci://namespace/bucket", "--secret-user", "ocid1.x"];
    assert!(home.collector(&[&["verify"], &half[..]].concat()).with(2).error_line().contains("four secrets"));
}

#[test]
fn a_key_that_others_may_read_is_warned_about() {
    let home = Home::new();
    let config = home.write("config", "[DEFAULT]\nuser=u\n");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = home.command(&["verify", "--store", "oci://namespace/bucket"]);
    let ended = Ended::from(command.env("OCI_CONFIG_FILE", &config).output().unwrap()).with(2);
    assert!(ended.stderr.contains("others may read this file"), "{}", ended.stderr);
    assert!(ended.error_line().contains("lacks `tenancy`"), "{}", ended.stderr);
}

#[test]
fn what_a_python_collector_left_is_examined_and_nothing_is_changed() {
    let home = Home::new();
    let event = |id: u32| format!(r#"{{"id": {id}, "datetime": "2026-01-02 9:38:09 +01:00", "name": "x"}}"#);
    // The original collector writes no line feed at the end.
    home.write("data/events/2026/01/02/events-1767362400.jsonl", format!("{}\n{}", event(1), event(2)));
    home.write("data/events/2026/01/02/events-1767364200.jsonl", event(2));
    home.write(
        "data/metadata/last_seen.json",
        r#"{"seen_ids": [2, 1], "last_updated": "2026-01-02T14:30:00", "total_tracked": 2}"#,
    );
    home.write(
        "metrics/metrics_20260102_113004.json",
        fs::read(fixture("metrics/metrics_20260102_113004.json")).unwrap(),
    );
    home.write(".env", "OCI_BUCKET_NAME=events\nUSE_VAULT=true\nLOG_DIR=./logs\nOCI_COMPARTMENT_ID=ocid1.compartment.oc1..x\n");
    let before = home.store();
    let ended = doctor(&home, &["--from-python", "--env-file", ".env", "--store", "data"]).with(0);
    assert_eq!(home.store(), before);
    let report = ended.json();
    let details = |name: &str| -> Vec<String> {
        let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["name"] == name);
        checks.map(|check| check["detail"].as_str().unwrap().to_owned()).collect()
    };
    let takeover = &details("takeover")[0];
    assert!(takeover.starts_with("3 events in 2 objects of data: 2 distinct, 1 duplicates,"), "{takeover}");
    assert!(details("past runs")[0].starts_with("1 records in ./metrics can be read"), "{report}");
    let variables = details("variable");
    for (name, meaning) in [
        ("OCI_BUCKET_NAME", "understood"),
        ("USE_VAULT", "understood"),
        ("LOG_DIR", "no effect"),
        ("OCI_COMPARTMENT_ID", "not needed"),
    ] {
        let found = variables.iter().any(|detail| detail.starts_with(&format!("{name}: {meaning}")));
        assert!(found, "{name} in {variables:?}");
    }
}
