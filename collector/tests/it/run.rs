//! `collector run` on files and standard input.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::{Home, fixture};

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
