//! `collector verify` and `collector repair`: each promise is broken by hand, named, and mended.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Ended, Home, fixture};

fn collected() -> Home {
    let home = Home::new();
    home.run_json(fixture("response.json"));
    home
}

fn verify(home: &Home) -> Ended {
    home.collector(&["verify", "--json"])
}

#[track_caller]
fn assert_sound(home: &Home) -> Value {
    let findings = verify(home).with(0).json();
    assert_eq!(findings["problems"], json!([]));
    findings
}

#[track_caller]
fn repair(home: &Home) -> Value {
    let before = home.store();
    let planned = home.collector(&["repair", "--dry-run", "--json"]).with(0).json();
    assert_eq!(home.store(), before, "a dry run changed something");
    let mut done = home.collector(&["repair", "--json"]).with(0).json();
    done["dry_run"] = json!(true);
    assert_eq!(done, planned);
    done
}

/// The name and the lines of some object of the archive.
fn some_object(home: &Home) -> (String, Vec<String>) {
    let store = home.store();
    let (key, bytes) = store.iter().find(|(key, _)| key.starts_with("events/2025/12/30/")).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    (format!("data/{key}"), text.lines().map(str::to_owned).collect())
}

/// How often each line stands anywhere in the archive.
fn all_lines(home: &Home) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for (key, bytes) in home.store() {
        if !key.starts_with("metadata/") && !key.starts_with('.') {
            for line in String::from_utf8(bytes).unwrap().lines() {
                *lines.entry(line.to_owned()).or_default() += 1;
            }
        }
    }
    lines
}

#[test]
fn a_collected_archive_is_sound() {
    let home = collected();
    home.run_json(fixture("response-next.json"));
    home.run_json(fixture("response-sparse.json"));
    home.run_json(fixture("broken-elements.json"));
    let findings = assert_sound(&home);
    assert_eq!(findings["events"], home.lines("events").len());
    assert_eq!(findings["unique_ids"], findings["events"]);
    assert_eq!(findings["rejected"], 18);
    assert_eq!(findings["revisions"], 1);
    let report = home.collector(&["verify"]).with(0);
    assert!(report.stdout.ends_with("Sound.\n"));
    assert!(home.collector(&["repair"]).with(0).stdout.contains("nothing to do"));
}

#[test]
fn duplicates_are_named_and_moved_without_losing_a_line() {
    let home = collected();
    let (_, lines) = some_object(&home);
    home.write("data/events/2025/12/30/events-1.jsonl", format!("{}\n{}\n", lines[0], lines[3]));
    let before = all_lines(&home);
    let findings = verify(&home).with(1).json();
    assert_eq!((&findings["duplicates"], &findings["unique_ids"]), (&json!(2), &json!(500)));
    let problems = findings["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 3, "two lines, and an object of no commit");
    assert_eq!(problems[2]["problem"], "no commit names it");

    let repaired = repair(&home);
    assert_eq!((&repaired["moved"], &repaired["duplicates"]), (&json!(2), &json!(2)));
    assert_eq!(all_lines(&home), before);
    assert_eq!(assert_sound(&home)["events"], 500);
    assert_eq!(home.run_json(fixture("response.json"))["counts"]["new_events_count"], 0);
}

#[test]
fn another_content_among_duplicates_becomes_a_revision_once() {
    let home = collected();
    let (_, lines) = some_object(&home);
    let changed = lines[0].replacen("\"summary\":\"", "\"summary\":\"Uppdaterad. ", 1);
    assert_ne!(changed, lines[0]);
    home.write(
        "data/events/2025/12/30/events-99999999998.jsonl",
        format!("{changed}\n{changed}\n{}\n", lines[0]),
    );
    home.write("data/events/2025/12/30/events-99999999999.jsonl", format!("{changed}\n"));
    let repaired = repair(&home);
    assert_eq!((&repaired["duplicates"], &repaired["revisions"]), (&json!(4), &json!(1)));
    assert_eq!(assert_sound(&home)["revisions"], 1);
    assert_eq!(home.lines("revisions")[0].text, changed);
    assert_eq!(home.lines("repaired/events").len(), 4);
}

#[test]
fn an_event_in_the_wrong_day_is_moved_into_its_own() {
    let home = collected();
    let (path, lines) = some_object(&home);
    let mut kept = lines.clone();
    let stray = kept.remove(2);
    home.write(&path, kept.join("\n") + "\n");
    home.write("data/events/2025/12/31/events-7.jsonl", format!("{stray}\n"));
    assert_eq!(verify(&home).with(1).json()["misplaced"], 1);
    assert_eq!(repair(&home)["replaced"], 1);
    assert_eq!(assert_sound(&home)["events"], 500);
    assert_eq!(home.run_json(fixture("response.json"))["counts"]["new_events_count"], 0);
}

#[test]
fn a_torn_line_is_named_and_moved_aside() {
    let home = collected();
    let (path, lines) = some_object(&home);
    let torn = &lines[0][..lines[0].len() / 2];
    home.write(&path, format!("{}\n{torn}", lines.join("\n")));
    let findings = verify(&home).with(1).json();
    assert_eq!(findings["unreadable"], 1);
    assert_eq!(repair(&home)["unreadable"], 1);
    assert_sound(&home);
    assert_eq!(home.lines("repaired/events")[0].text, torn);
}

#[test]
fn altered_and_lost_objects_are_named_and_recorded() {
    let home = collected();
    let (path, lines) = some_object(&home);
    home.write(&path, lines.join("\n").replacen("\"summary\":\"", "\"summary\":\"Ändrad. ", 1) + "\n");
    let store = home.store();
    let lost = store.keys().rfind(|key| key.starts_with("events/")).unwrap();
    fs::remove_file(home.path(&format!("data/{lost}"))).unwrap();
    let findings = verify(&home).with(1).json();
    let problem_of = |object: &str| {
        let problems = findings["problems"].as_array().unwrap().clone();
        let of_object = problems.into_iter().find(|it| object.ends_with(it["object"].as_str().unwrap()));
        of_object.unwrap()["problem"].as_str().unwrap().to_owned()
    };
    assert_eq!(problem_of(&path), "its content is not that of commit 1");
    assert_eq!(problem_of(lost), "commit 1 added it, and it is not stored");

    let shown = home.collector(&["repair", "--dry-run"]).with(0).stdout;
    assert!(shown.contains("noted the loss of 1 object in the journal"), "{shown}");
    assert!(shown.contains(lost) && shown.contains("a backup or a replica may have them"), "{shown}");
    let done = repair(&home);
    assert_eq!((&done["absent"], &done["altered"]), (&json!(1), &json!(1)));
    assert_sound(&home);
    let changes = home.collector(&["changes", "--json"]).with(0).stdout;
    assert_eq!(changes.matches("replaces").count(), 2, "{changes}");
}

#[test]
fn records_of_the_journal_that_are_made_anew_are_counted() {
    let home = collected();
    home.run(fixture("response-next.json")).with(0);
    // A run in the second of the one before commits twice.
    let records = home.store().keys().filter(|key| key.starts_with("metadata/journal/")).count();
    fs::remove_dir_all(home.path("data/metadata/journal")).unwrap();
    assert_eq!(repair(&home)["journal_records"], records);
    assert_sound(&home);
    assert!(home.collector(&["repair"]).with(0).stdout.contains("nothing to do"));
}

#[test]
fn a_lost_event_is_named() {
    let home = collected();
    let (path, lines) = some_object(&home);
    home.write(&path, lines[1..].join("\n") + "\n");
    let lost = serde_json::from_str::<Value>(&lines[0]).unwrap()["id"].to_string();
    let findings = verify(&home).with(1).json();
    assert_eq!(findings["disagreements"], 2);
    assert_eq!(findings["problems"][0]["problem"], "its content is not that of commit 1");
    let problem = findings["problems"][1]["problem"].as_str().unwrap();
    assert!(problem.contains(&lost) && problem.contains("not stored"), "{problem}");
    // The ledger forgets it, so that the feed's next response brings it back.
    assert_eq!(repair(&home)["ledger_rebuilt"], true);
    assert_eq!(home.run_json(fixture("response.json"))["counts"]["new_events_count"], 1);
    assert_sound(&home);
}

#[test]
fn an_unreadable_ledger_stops_runs_until_it_is_rebuilt() {
    for broken in ["{\"seen_ids\":[1,2", "[]", "", "{\"seen_ids\":[1],\"format\":99}"] {
        let home = collected();
        home.write("data/metadata/last_seen.json", broken);
        let before = home.store();
        let ended = home.run(fixture("response-next.json")).with(1);
        assert!(ended.error_line().contains("collector repair"), "{}", ended.stderr);
        assert_eq!(home.store(), before);
        assert_eq!(verify(&home).with(1).json()["disagreements"], 1);
        assert_eq!(repair(&home)["ledger_rebuilt"], true);
        assert_sound(&home);
        assert_eq!(home.run_json(fixture("response.json"))["counts"]["new_events_count"], 0);
        assert_sound(&home);
    }
}

#[test]
fn an_archive_of_the_documented_collector_is_taken_over() {
    let home = collected();
    // What it would have left: its own ledger, and an event that it forgot and stored again.
    let (_, lines) = some_object(&home);
    home.write("data/events/2025/12/30/events-1767362400.jsonl", format!("{}\n", lines[5]));
    fs::copy(fixture("last_seen.json"), home.path("data/metadata/last_seen.json")).unwrap();
    assert_eq!(verify(&home).with(1).json()["duplicates"], 1);
    let repaired = repair(&home);
    assert_eq!((&repaired["duplicates"], &repaired["ledger_rebuilt"]), (&json!(1), &json!(true)));
    assert_sound(&home);
    let next = home.run_json(fixture("response-next.json"));
    assert!(next["counts"]["new_events_count"].as_u64().unwrap() < 20);
    assert_sound(&home);
}

#[test]
fn nothing_is_repaired_under_a_living_run() {
    let home = collected();
    let mut ledger = home.ledger();
    let until = (chrono::Utc::now() + chrono::TimeDelta::minutes(9)).timestamp();
    ledger["claim"] = json!({"run": "another", "owner": "elsewhere", "until": until, "objects": []});
    home.write("data/metadata/last_seen.json", ledger.to_string());
    let before = home.store();
    let ended = home.collector(&["repair"]).with(1);
    assert!(ended.error_line().contains("at work"), "{}", ended.stderr);
    assert_eq!(home.store(), before);
}

#[test]
fn what_a_dead_run_claimed_is_finished_by_repair() {
    let home = collected();
    let mut ledger = home.ledger();
    let object = "events/2026/01/03/events-1767441600.jsonl";
    ledger["claim"] =
        json!({"run": "dead", "owner": "elsewhere", "until": 1, "objects": [{"key": object, "ids": [1]}]});
    home.write("data/metadata/last_seen.json", ledger.to_string());
    assert_eq!(verify(&home).with(0).json()["claimed"], 1);
    assert_eq!(repair(&home)["claimed"], 1);
    assert_eq!(home.store()[object], b"", "its name is fenced");
    assert_eq!(home.ledger()["claim"], Value::Null);
    assert_sound(&home);
}

/// The original Python collector joins lines by line feeds and writes none at the end.
#[test]
fn object_without_a_line_feed_at_its_end_is_sound_unless_its_last_line_is_cut() {
    let home = Home::new();
    let event = |id: u32| format!(r#"{{"id": {id}, "datetime": "2026-01-02 9:38:09 +01:00", "name": "x"}}"#);
    let lines = format!("{}\n{}", event(1), event(2));
    let ledger = r#"{"seen_ids": [2, 1], "last_updated": "2026-01-02T14:00:00+00:00", "total_tracked": 2}"#;
    home.write("data/metadata/last_seen.json", ledger);
    home.write("data/events/2026/01/02/events-1767362400.jsonl", &lines);
    let found = home.collector(&["verify", "--json"]).with(0).json();
    assert_eq!((&found["events"], &found["problems"]), (&2.into(), &serde_json::json!([])));
    home.write("data/events/2026/01/02/events-1767362400.jsonl", &lines[..lines.len() - 3]);
    let found = home.collector(&["verify", "--json"]).with(1).json();
    assert_eq!((&found["events"], &found["unreadable"]), (&1.into(), &1.into()));
}
