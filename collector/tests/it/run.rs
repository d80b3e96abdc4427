//! `collector run` on files and standard input.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::{Home, Line, fixture};

fn elements(name: &str) -> Vec<Value> {
    serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap()
}

#[test]
fn events_are_stored_each_in_its_own_day_and_only_once() {
    let home = Home::new();
    let first = home.run_json(fixture("response.json"));
    assert_eq!(first["counts"]["new_events_count"], 500);

    let lines = home.lines("events");
    for line in &lines {
        let stated = line.json()["datetime"].as_str().unwrap()[..10].replace('-', "/");
        assert_eq!(stated, line.day);
    }
    let stored: BTreeSet<String> = lines.iter().map(|line| line.json().to_string()).collect();
    let sent: BTreeSet<String> = elements("response.json").iter().map(ToString::to_string).collect();
    assert_eq!(stored, sent);
    assert_eq!(lines.len(), 500);

    let before = home.store();
    let second = home.run_json(fixture("response.json"));
    assert_eq!(second["counts"]["new_events_count"], 0);
    assert_eq!(second["counts"]["buffer_overlap"], 500);
    assert_eq!(home.lines("events"), lines);
    assert_eq!(before.len(), home.store().len());
}

#[test]
fn the_bytes_that_were_sent_are_stored() {
    let home = Home::new();
    home.run_json(fixture("response-bom.json"));
    let sent = fs::read_to_string(fixture("response-bom.json")).unwrap();
    for Line { text, .. } in home.lines("events") {
        assert!(sent.contains(&text), "{text}");
    }
}

#[test]
fn an_indented_response_brings_the_same_events() {
    let home = Home::new();
    let indented = home.run_json(fixture("response-indented-60.json"));
    assert_eq!(indented["counts"]["new_events_count"], 60);
    let compact = home.run_json(fixture("response.json"));
    assert_eq!(compact["counts"]["new_events_count"], 440);
    assert_eq!(compact["counts"]["revisions_count"], 0, "another spelling is no other content");
}

#[test]
fn only_what_is_new_or_changed_is_stored() {
    let home = Home::new();
    home.run_json(fixture("response.json"));
    let next = home.run_json(fixture("response-next.json"));
    let known: BTreeSet<i64> =
        elements("response.json").iter().map(|event| event["id"].as_i64().unwrap()).collect();
    let new = elements("response-next.json")
        .iter()
        .filter(|event| !known.contains(&event["id"].as_i64().unwrap()))
        .count();
    assert_eq!(next["counts"]["new_events_count"], new);
    assert_eq!(next["counts"]["buffer_overlap"], 500 - new);
    assert_eq!(next["counts"]["revisions_count"], 1);
    assert_eq!(next["counts"]["withdrawn_count"], 1);
    assert_eq!(home.lines("revisions").len(), 1);
    assert_eq!(home.lines("withdrawn").len(), 1);
    let again = home.run_json(fixture("response-next.json"));
    assert_eq!(again["objects"], serde_json::json!([]));
}

#[test]
fn an_element_that_is_no_event_is_kept_apart_with_the_reason() {
    let home = Home::new();
    let report = home.run_json(fixture("broken-elements.json"));
    assert_eq!(report["status"], "success");
    let rejected: BTreeSet<String> =
        home.lines("rejected").iter().map(|line| line.text.split_once("\",").unwrap().0.to_owned()).collect();
    let expected = [
        "no id",
        "the id is not an integer of 64 bits",
        "no datetime",
        "the datetime is not a date and time with an offset",
        "not an object",
        "id or datetime is given twice",
        "a string holds half a surrogate pair",
    ];
    assert_eq!(rejected, expected.map(|reason| format!("{{\"reason\":\"{reason}")).into());
    assert_eq!(home.lines("rejected").len(), 18);
    assert_eq!(home.lines("events").len(), 8);
    // The same elements again are not stored again.
    let again = home.run_json(fixture("broken-elements.json"));
    assert_eq!(
        (&again["counts"]["rejected_in_response"], &again["counts"]["rejected_count"]),
        (&18.into(), &0.into())
    );
    assert_eq!(home.lines("rejected").len(), 18);
}

#[test]
fn a_body_that_is_no_array_changes_nothing() {
    let home = Home::new();
    home.run_json(fixture("response.json"));
    let before = home.store();
    let mut bodies: Vec<_> =
        fs::read_dir(fixture("broken")).unwrap().map(|entry| entry.unwrap().path()).collect();
    bodies.sort();
    assert!(bodies.len() >= 10, "{bodies:?}");
    for (number, body) in bodies.iter().enumerate() {
        let ended = home.run(body).with(1);
        assert!(ended.error_line().starts_with("error: the response is "), "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
        assert_eq!(home.store(), before, "{}", body.display());
        assert_eq!(home.health()["status"], "failed");
        let records = home.records();
        assert_eq!(records.len(), number + 2);
        assert!(records.iter().any(|record| {
            record["errors"][0]["message"] == home.health()["error"]
                && record["errors"][0]["type"] == "response"
        }));
    }
}

#[test]
fn a_response_is_taken_from_standard_input() {
    let home = Home::new();
    let mut command = home.command(&["run", "--feed", "-", "--json"]);
    command.stdin(fs::File::open(fixture("response.json")).unwrap());
    let ended = crate::support::Ended::from(command.output().unwrap()).with(0);
    assert_eq!(ended.json()["counts"]["new_events_count"], 500);
}

#[test]
fn the_record_and_the_health_file_tell_what_was_done() {
    let home = Home::new();
    let printed = home.run_json(fixture("response.json"));
    let records = home.records();
    let record = &records[0];
    for step in ["api_fetch", "metadata_fetch", "deduplication", "save_events", "metadata_update"] {
        assert!(record["timings"][step].as_f64().unwrap() >= 0.0, "{step}");
    }
    for field in ["start_time", "total_time"] {
        assert!(record[field].is_number(), "{field}");
    }
    for field in ["timestamp", "end_timestamp"] {
        assert!(chrono::DateTime::parse_from_rfc3339(record[field].as_str().unwrap()).is_ok(), "{field}");
    }
    let bytes = fs::metadata(fixture("response.json")).unwrap().len();
    assert_eq!(record["counts"]["api_response_bytes"], bytes);
    assert_eq!(record["counts"]["api_events_total"], 500);
    assert_eq!(record["counts"]["seen_ids_count"], 0);
    assert_eq!(record["possible_gap"], false);
    assert!(record["process"]["peak_memory_bytes"].as_u64().unwrap() > 1_000_000);
    assert_eq!(printed["record_file"], home.record_files()[0]);

    let health = home.health();
    assert_eq!((&health["status"], &health["events_processed"]), (&"success".into(), &500.into()));
    assert_eq!(health["error"], Value::Null);
    assert_eq!(home.collector(&["health"]).with(0).stdout.lines().next(), Some("OK: Collector is healthy"));
}

#[test]
fn records_of_one_second_get_names_of_their_own() {
    let home = Home::new();
    for _ in 0..5 {
        home.run_json(fixture("response-bom.json"));
    }
    assert_eq!(home.records().len(), 5);
}

#[test]
fn a_ledger_of_the_documented_collector_is_continued_without_a_duplicate() {
    let home = Home::new();
    home.write("data/metadata/last_seen.json", fs::read(fixture("last_seen.json")).unwrap());
    let report = home.run_json(fixture("response.json"));
    assert_eq!(report["counts"]["new_events_count"], 2, "the ledger lacks the two newest");
    assert_eq!(home.lines("events").len(), 2);
    let ledger = home.ledger();
    let ids: Vec<i64> = serde_json::from_value(ledger["seen_ids"].clone()).unwrap();
    assert!(ids.is_sorted_by(|one, other| one > other) && ids.len() <= 1_000);
    assert_eq!(ledger["total_tracked"], ids.len());
}

#[test]
fn a_ledger_that_was_lost_is_made_again_from_the_archive() {
    let home = Home::new();
    home.run_json(fixture("response.json"));
    fs::remove_file(home.path("data/metadata/last_seen.json")).unwrap();
    assert_eq!(home.run_json(fixture("response.json"))["counts"]["new_events_count"], 0);
    home.collector(&["verify"]).with(0);
}

#[test]
fn gaps_are_told_from_sparse_responses_and_first_runs() {
    let home = Home::new();
    let gap = |report: &Value| (report["possible_gap"].clone(), report["sparse_response"].clone());
    let first = home.run_json(fixture("response.json"));
    assert_eq!(gap(&first), (false.into(), false.into()), "nothing can be missed before a first run");
    assert_eq!(gap(&home.run_json(home.write("empty.json", "[]"))), (false.into(), false.into()));
    assert_eq!(gap(&home.run_json(fixture("response-sparse.json"))), (false.into(), true.into()));
    // A full response of which nothing is known.
    let later: Vec<Value> = elements("response.json")
        .into_iter()
        .map(|mut event| {
            event["id"] = (event["id"].as_i64().unwrap() + 1_000_000).into();
            event
        })
        .collect();
    let body = serde_json::to_vec(&later).unwrap();
    assert_eq!(gap(&home.run_json(home.write("gap.json", &body))), (true.into(), false.into()));
    assert_eq!(home.health()["possible_gap"], true);
    assert_eq!(gap(&home.run_json(home.write("gap.json", body))), (false.into(), false.into()));
}

/// Events with these ids, newest first, all of one day.
fn response_of(ids: impl Iterator<Item = i64>) -> Vec<u8> {
    let mut event = elements("response.json").remove(0);
    let events: Vec<Value> = ids
        .map(|id| {
            event["id"] = id.into();
            event.clone()
        })
        .collect();
    serde_json::to_vec(&events).unwrap()
}

#[test]
fn edited_events_do_not_hide_a_gap_and_one_in_its_place_shows_there_is_none() {
    let next = |name: &str, ids: Vec<i64>| {
        let home = Home::new();
        home.run_json(home.write("first.json", response_of((1_000..1_500).rev())));
        let report = home.run_json(home.write(name, response_of(ids.into_iter())));
        (report["possible_gap"].as_bool().unwrap(), report["counts"]["buffer_overlap"].as_u64().unwrap())
    };
    let all_new: Vec<i64> = (2_000..2_500).rev().collect();
    let mut edited = all_new.clone();
    for (place, id) in [(3, 1_490), (250, 1_100), (480, 1_250), (499, 1_003)] {
        edited[place] = id;
    }
    assert_eq!(next("edited.json", edited), (true, 4), "they stand beside the new ones");

    let reaching_back: Vec<i64> = (2_000..2_499).rev().chain([1_499]).collect();
    assert_eq!(next("one.json", reaching_back.clone()), (false, 1), "the newest one known is the last");
    let oldest_first: Vec<i64> = reaching_back.into_iter().rev().collect();
    assert_eq!(next("other-order.json", oldest_first), (true, 1), "another order shows no overlap");
    let some = (2_000..2_460).rev().chain((1_460..1_500).rev()).filter(|id| id % 10 != 5).chain(3_000..3_050);
    let mut some: Vec<i64> = some.collect();
    some[..].sort_by_key(|id| std::cmp::Reverse((*id >= 3_000, *id)));
    some.truncate(500);
    let (gap, overlap) = next("withdrawn.json", some);
    assert!(!gap && overlap > 10, "a few were withdrawn: {gap} {overlap}");
}
