//! `collector query` from outside: what is stored is found, and nothing else is read.

use std::collections::BTreeMap;
use std::fs;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Row;
use serde_json::{Value, json};

use crate::support::{Ended, Home, fixture};

fn collected() -> Home {
    let home = Home::new();
    home.run_json(fixture("response.json"));
    home.run_json(fixture("response-next.json"));
    home
}

fn query(home: &Home, arguments: &[&str]) -> Ended {
    home.collector(&[&["query"], arguments].concat())
}

/// The lines of an answer.
#[track_caller]
fn lines(home: &Home, arguments: &[&str]) -> Vec<String> {
    let ended = query(home, &[&["--format", "jsonl"], arguments].concat()).with(0);
    ended.stdout.lines().map(str::to_owned).collect()
}

/// Every line under `events/`, in the order of the objects' names.
fn stored(home: &Home) -> Vec<String> {
    let events = home.store().into_iter().filter(|(key, _)| key.starts_with("events/"));
    events
        .flat_map(|(_, bytes)| {
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

fn event(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn text<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn everything_is_found_as_it_was_sent_day_by_day() {
    let home = collected();
    let all = stored(&home);
    assert!(all.len() > 490, "{}", all.len());
    assert_eq!(lines(&home, &[]), all);
}

#[test]
fn an_event_dated_in_the_far_future_is_found_too() {
    let home = Home::new();
    let event = json!([{"id": 1, "datetime": "2199-01-02 9:38:09 +01:00", "name": "n", "summary": "s", "url": "/u",
                        "type": "Brand", "location": {"name": "Falun", "gps": "1,2"}}]);
    home.run_json(home.write("feed.json", event.to_string()));
    assert_eq!(lines(&home, &[]).len(), 1);
    assert_eq!(lines(&home, &["--from", "2199-01-01", "--to", "2199-12-31"]).len(), 1);
}

#[test]
fn filters_find_what_a_look_at_every_line_finds() {
    let home = collected();
    let all = stored(&home);
    let sample = event(&all[all.len() / 2]);
    let (kind, place) = (text(&sample, "/type").to_owned(), text(&sample, "/location/name").to_owned());
    let by_hand = |wanted: &dyn Fn(&Value) -> bool| -> Vec<String> {
        all.iter().filter(|line| wanted(&event(line))).cloned().collect()
    };
    assert_eq!(lines(&home, &["--type", &kind.to_uppercase()]), by_hand(&|it| text(it, "/type") == kind));
    assert_eq!(
        lines(&home, &["--type", &kind, "--type", "Brand"]),
        by_hand(&|it| text(it, "/type") == kind || text(it, "/type") == "Brand")
    );
    assert_eq!(lines(&home, &["--location", &place]), by_hand(&|it| text(it, "/location/name") == place));
    assert_eq!(lines(&home, &["--id", &sample["id"].to_string()]), by_hand(&|it| it["id"] == sample["id"]));
    let wanted = ["/name", "/summary", "/type", "/location/name"];
    assert_eq!(
        lines(&home, &["--text", "VÄG"]),
        by_hand(&|it| wanted.iter().any(|field| text(it, field).to_lowercase().contains("väg")))
    );
    let day = |it: &Value| text(it, "/datetime")[..10].to_owned();
    assert_eq!(
        lines(&home, &["--from", "2025-12-30", "--to", "2025-12-31"]),
        by_hand(&|it| ("2025-12-30".."2026-01-01").contains(&day(it).as_str()))
    );
    // More than a few days of a month are listed as the month.
    assert_eq!(
        lines(&home, &["--from", "2025-12-24", "--to", "2025-12-29"]),
        by_hand(&|it| ("2025-12-24".."2025-12-30").contains(&day(it).as_str()))
    );
    assert_eq!(lines(&home, &["--id", "1"]), [""; 0]);
}

#[test]
fn only_the_days_that_are_asked_for_are_read() {
    let home = collected();
    let keys: Vec<String> = home.store().into_keys().filter(|key| key.starts_with("events/")).collect();
    let of_day = keys.iter().filter(|key| key.starts_with("events/2025/12/30/")).count();
    let explain = |arguments: &[&str]| {
        let ended = query(&home, &[&["--explain"], arguments].concat()).with(0);
        let line = ended.stderr.lines().find(|line| line.contains("explain")).unwrap().to_owned();
        event(&line)["explain"].clone()
    };
    let day = explain(&["--from", "2025-12-30", "--to", "2025-12-30"]);
    assert_eq!(
        (&day["objects_read"], &day["objects_listed"], &day["listings"]),
        (&json!(of_day), &json!(of_day), &json!(1))
    );
    let all = explain(&[]);
    assert_eq!((&all["objects_read"], &all["lines"]), (&json!(keys.len()), &json!(stored(&home).len())));
    let month = explain(&["--from", "2025-12-01", "--to", "2025-12-31"]);
    assert_eq!(month["listings"], 1);
    assert!(month["objects_read"].as_u64() < all["objects_read"].as_u64());
}

#[test]
fn pages_are_the_whole() {
    let home = collected();
    for revisions in ["none", "latest", "all"] {
        let all = lines(&home, &["--revisions", revisions]);
        let (mut pages, mut after) = (Vec::new(), Vec::new());
        loop {
            let arguments =
                [&["--limit", "97", "--format", "json", "--revisions", revisions][..], &after].concat();
            let ended = query(&home, &arguments).with(0);
            let page = ended.json();
            pages.extend(page["events"].as_array().unwrap().clone());
            let Some(next) = page["next"].as_str() else { break };
            assert!(ended.stderr.contains(next), "{}", ended.stderr);
            after = vec!["--after", next.to_owned().leak()];
        }
        assert_eq!(pages, all.iter().map(|line| event(line)).collect::<Vec<_>>(), "{revisions}");
    }
}

#[test]
fn versions_are_told_as_asked() {
    let home = Home::new();
    let version = |summary: &str| {
        json!([{"id": 1, "datetime": "2026-01-02 9:38:09 +01:00", "name": "n", "summary": summary, "url": "/u",
                "type": "Brand", "location": {"name": "Falun", "gps": "1,2"}},
               {"id": 2, "datetime": "2026-01-02 9:40:09 +01:00", "name": "other", "summary": "s", "url": "/u",
                "type": "Brand", "location": {"name": "Falun", "gps": "1,2"}}])
    };
    for summary in ["first", "second", "third"] {
        let path = home.write("feed.json", version(summary).to_string());
        home.run_json(path);
    }
    let printed = |revisions: &str| -> Vec<(i64, String)> {
        let lines = lines(&home, &["--revisions", revisions]);
        lines
            .iter()
            .map(|line| event(line))
            .map(|it| (it["id"].as_i64().unwrap(), text(&it, "/summary").to_owned()))
            .collect()
    };
    let mut first = printed("none");
    first.sort();
    assert_eq!(first, [(1, "first".to_owned()), (2, "s".to_owned())]);
    let mut latest = printed("latest");
    latest.sort();
    assert_eq!(latest, [(1, "third".to_owned()), (2, "s".to_owned())]);
    let mut all = printed("all");
    all.sort();
    let expected = [(1, "first"), (1, "second"), (1, "third"), (2, "s")];
    assert_eq!(all, expected.map(|(id, summary)| (id, summary.to_owned())));
    // Filters apply to the version that is printed.
    assert_eq!(lines(&home, &["--text", "third"]).len(), 0);
    assert_eq!(lines(&home, &["--text", "third", "--revisions", "latest"]).len(), 1);
    assert_eq!(lines(&home, &["--text", "first", "--revisions", "latest"]).len(), 0);
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_told() {
    let home = collected();
    let all = stored(&home);
    let key = home.store().into_keys().find(|key| key.starts_with("events/2025/12/30/")).unwrap();
    let path = home.path("data").join(&key);
    let whole = fs::read(&path).unwrap();
    let lost = String::from_utf8(whole.clone()).unwrap().lines().count() - 1;
    let end_of_first = whole.iter().position(|&byte| byte == b'\n').unwrap();
    // The first line stays, the second is cut in the middle, and what follows is no text.
    fs::write(&path, [&whole[..end_of_first + 20], b"\n\xff\xfe\n"].concat()).unwrap();
    let ended = query(&home, &["--format", "jsonl"]).with(1);
    assert_eq!(ended.stdout.lines().count(), all.len() - lost);
    let errors: Vec<&str> =
        ended.stderr.lines().filter(|line| line.starts_with("error: cannot be read")).collect();
    assert_eq!(errors.len(), 2, "{}", ended.stderr);
    assert!(errors[0].contains(&format!("{key}, line 2")) && errors[1].contains("line 3"), "{errors:?}");

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let ended = query(&home, &["--format", "jsonl"]);
    assert!(ended.code == Some(0) || ended.stderr.contains(&key), "{}", ended.stderr);
    assert_eq!(ended.stdout.lines().count(), all.len() - lost - 1);
}

#[test]
fn each_form_says_the_same() {
    let home = collected();
    let day = ["--from", "2025-12-30", "--to", "2025-12-30"];
    let form = |arguments: &[&str]| query(&home, &[&day, arguments].concat()).with(0).stdout;
    let events: Vec<Value> = lines(&home, &day).iter().map(|line| event(line)).collect();
    let fields = form(&["--format", "jsonl", "--fields", "id,type,day"]);
    for (line, whole) in fields.lines().zip(&events) {
        assert_eq!(event(line), json!({"id": whole["id"], "type": whole["type"], "day": "2025-12-30"}));
    }
    let table = form(&[]);
    assert_eq!(table.lines().count(), events.len());
    for (line, whole) in table.lines().zip(&events) {
        assert!(line.contains(text(whole, "/name")) && line.starts_with(&whole["id"].to_string()), "{line}");
    }
    let csv = form(&["--format", "csv", "--fields", "id,name"]);
    let expected =
        events.iter().map(|it| format!("{},\"{}\"", it["id"], text(it, "/name").replace('"', "\"\"")));
    assert_eq!(csv.lines().next(), Some("id,name"));
    assert_eq!(csv.lines().skip(1).collect::<Vec<_>>(), expected.collect::<Vec<_>>());

    let mut by_type: BTreeMap<&str, u64> = BTreeMap::new();
    for it in &events {
        *by_type.entry(text(it, "/type")).or_default() += 1;
    }
    let counts: Value = serde_json::from_str(&form(&["--count-by", "type", "--format", "json"])).unwrap();
    let counted: BTreeMap<&str, u64> = counts
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (text(row, "/type"), row["count"].as_u64().unwrap()))
        .collect();
    assert_eq!(counted, by_type);
    let most = by_type.values().max().unwrap();
    assert_eq!(counts[0]["count"], *most);
    let hours: u64 = form(&["--count-by", "hour", "--format", "csv"])
        .lines()
        .skip(1)
        .map(|line| line.rsplit(',').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(hours, events.len() as u64);
}

/// The rows of a Parquet file, by the line that they stand for.
fn rows(bytes: Vec<u8>) -> BTreeMap<(String, String), Row> {
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
    let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap);
    let cell = |row: &Row, column: &str| {
        row.get_column_iter().find(|(name, _)| *name == column).unwrap().1.to_string()
    };
    rows.map(|row| ((cell(&row, "object"), cell(&row, "line")), row)).collect()
}

fn query_parquet(home: &Home, arguments: &[&str]) -> (Option<i32>, BTreeMap<(String, String), Row>) {
    let output = home.command(&[&["query", "--format", "parquet"], arguments].concat()).output().unwrap();
    (output.status.code(), rows(output.stdout))
}

#[test]
fn parquet_has_the_rows_of_the_table_of_revisions() {
    let home = collected();
    home.collector(&["tables"]).with(0);
    let files = home.store().into_iter().filter(|(key, _)| key.ends_with("/revisions.parquet"));
    let table: BTreeMap<_, _> = files.flat_map(|(_, bytes)| rows(bytes)).collect();
    for source in [&[][..], &["--no-tables"]] {
        for filter in [
            &["--revisions", "all"][..],
            &["--revisions", "latest"],
            &["--type", "trafikolycka", "--revisions", "all"],
            &["--type", "none such"],
        ] {
            let arguments = [source, filter].concat();
            let (code, found) = query_parquet(&home, &arguments);
            assert_eq!(code, Some(0));
            let mut printed: Vec<String> = lines(&home, &arguments);
            let sent = |row: &Row| row.get_column_iter().find(|it| it.0 == "raw").unwrap().1.to_string();
            let mut written: Vec<String> =
                found.values().map(|row| sent(row).trim_matches('"').to_owned()).collect();
            printed.sort();
            written.sort();
            assert_eq!(written, printed, "{arguments:?}");
            assert!(found.iter().all(|(line, row)| table[line] == *row), "{arguments:?}");
            assert_eq!(found.len() == table.len(), filter == ["--revisions", "all"]);
        }
    }
    let limited = query_parquet(&home, &["--limit", "7"]).1;
    assert_eq!(limited.len(), 7);
}

/// A row cannot lack its time: such a line is counted, and the file holds the others.
#[test]
fn parquet_without_an_event_fails_and_holds_the_others() {
    let home = Home::new();
    let good = r#"{"id": 2, "datetime": "2026-01-02 9:38:09 +01:00"}"#;
    home.write("data/events/2026/01/02/events-1767362400.jsonl", format!("{{\"id\":1}}\n{good}\n"));
    let (code, found) = query_parquet(&home, &[]);
    assert_eq!((code, found.len()), (Some(1), 1));
    let arguments = ["query", "--format", "parquet"];
    let output = home.command(&arguments).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("1 events have no valid datetime"), "{error}");
    home.collector(&["fetch", "--feed", "no.json", "--format", "parquet"]).with(2).error_line();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = collected();
    for wrong in [
        &["--from", "yesterday"][..],
        &["--from", "2026-02-30"],
        &["--from", "2026-01-02", "--to", "2026-01-01"],
        &["--fields", "id,weather"],
        &["--after", "here"],
        &["--after", "events/2026/01/02/events-1.jsonl"],
        &["--after", "events/../../etc/passwd:1"],
        &["--after", "events/2026/13/02/events-1.jsonl:1"],
        &["--limit", "0"],
        &["--limit", "many"],
        &["--revisions", "some"],
        &["--count-by", "weather"],
        &["--count-by", "day", "--limit", "5"],
        &["--id", "x"],
        &["--format", "xml"],
        &["--format", "parquet", "--fields", "id"],
        &["--format", "parquet", "--count-by", "day"],
    ] {
        let ended = query(&home, wrong).with(2);
        assert_eq!(ended.stdout, "");
        ended.error_line();
    }
    let nowhere = Home::new();
    assert_eq!(
        query(&nowhere, &["--format", "json"]).with(1).error_line(),
        "error: there is no archive in ./data"
    );
}

#[test]
fn closed_pipe_is_no_error() {
    let home = Home::new();
    home.run_json(fixture("response.json"));
    for format in ["table", "jsonl", "csv", "json", "parquet"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = home.command(&["query", "--format", format]).stdout(writer).output().unwrap();
        assert_eq!(
            (ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()),
            (Some(0), ""),
            "{format}"
        );
    }
}

#[test]
fn named_format_beats_the_variable() {
    let home = Home::new();
    home.run_json(fixture("response.json"));
    let printed = |arguments: &[&str]| {
        let mut command = home.command(&[&["query", "--limit", "1"], arguments].concat());
        String::from_utf8(command.env("COLLECTOR_JSON", "true").output().unwrap().stdout).unwrap()
    };
    assert!(printed(&["--format", "csv"]).starts_with("id,") && printed(&[]).starts_with('{'));
}
