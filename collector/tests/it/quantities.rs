//! Records, their schema, the docs, Prometheus and reports agree with the definitions of a run's quantities.
//!
//! With `UPDATE_DOCS=1` the test writes what it otherwise compares: `docs/run-record.schema.json` and `docs/run-record.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use collector::quantity::{Metric, Quantity, Section, Unit};
use collector::record::{HttpUse, Limits, RunRecord};
use collector::watch::status::Status;
use serde_json::{Value, json};

use crate::record_schema::differences;
use crate::support::{Ended, Home};

const TABLE_BEGINS: &str = "<!-- quantities: written by a test -->\n";
const TABLE_ENDS: &str = "<!-- end -->\n";

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

fn updates_docs() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}

/// Compares a file with what it should hold, or writes it.
#[track_caller]
fn assert_file(name: &str, expected: &str) {
    if updates_docs() {
        fs::write(docs(name), expected).unwrap();
    }
    let found = fs::read_to_string(docs(name)).unwrap();
    assert!(found == expected, "docs/{name} differs; `UPDATE_DOCS=1 cargo test quantities::` writes it");
}

fn path_in_record(quantity: Quantity) -> Vec<&'static str> {
    let section = match quantity.definition().section {
        Section::Record => None,
        Section::Timings => Some("timings"),
        Section::Counts => Some("counts"),
        Section::Process => Some("process"),
        Section::Http => Some("http"),
        Section::Derived => return Vec::new(),
    };
    section.into_iter().chain([quantity.key()]).collect()
}

/// How the schema describes a quantity.
fn property(quantity: Quantity) -> Value {
    let description = quantity.definition().description;
    match quantity.unit() {
        Unit::Seconds => {
            json!({"description": format!("{description}, in seconds"), "type": "number", "minimum": 0})
        }
        Unit::SignedSeconds => {
            json!({"description": format!("{description}, in seconds"), "type": "integer"})
        }
        Unit::Bytes => {
            json!({"description": format!("{description}, in bytes"), "type": "integer", "minimum": 0})
        }
        Unit::Kibibytes => {
            json!({"description": format!("{description}, in KiB"), "type": "number", "minimum": 0})
        }
        Unit::Count => json!({"description": description, "type": "integer", "minimum": 0}),
        Unit::Share => json!({"description": description, "type": "boolean"}),
    }
}

#[test]
fn schema_describes_every_quantity() {
    let mut schema: Value =
        serde_json::from_str(&fs::read_to_string(docs("run-record.schema.json")).unwrap()).unwrap();
    for section in ["timings", "counts", "process"] {
        schema["properties"][section]["properties"] = json!({});
    }
    for quantity in Quantity::ALL {
        let mut place = &mut schema;
        for member in path_in_record(quantity) {
            place = &mut place["properties"][member];
        }
        if quantity.definition().section != Section::Derived {
            *place = property(quantity);
        }
    }
    assert_file("run-record.schema.json", &format!("{schema:#}\n"));
}

/// The name of the metric in Prometheus, with its label.
fn metric_name(quantity: Quantity) -> Option<String> {
    Some(match quantity.definition().metric? {
        Metric::Counter(name) | Metric::Gauge(name) => format!("polisen_collector_{name}"),
        Metric::EventsOfKind(kind) => format!("polisen_collector_events_total{{kind=\"{kind}\"}}"),
        Metric::StepDuration => {
            format!("polisen_collector_step_duration_seconds{{step=\"{}\"}}", quantity.key())
        }
    })
}

#[test]
fn docs_list_every_quantity() {
    let mut table =
        "| Member of the record | Unit | Meaning | Metric | In reports |\n|---|---|---|---|---|\n".to_owned();
    for quantity in Quantity::ALL {
        let definition = quantity.definition();
        let member = match path_in_record(quantity).join(".") {
            none if none.is_empty() => "–".to_owned(),
            path => format!("`{path}`"),
        };
        let unit = match definition.unit {
            Unit::Seconds | Unit::SignedSeconds => "s",
            Unit::Bytes => "bytes",
            Unit::Kibibytes => "KiB",
            Unit::Count => "number",
            Unit::Share => "true or false",
        };
        let metric = metric_name(quantity).map_or_else(|| "–".to_owned(), |name| format!("`{name}`"));
        let reported =
            if definition.is_reported { format!("`{}`", definition.key) } else { "–".to_owned() };
        writeln!(table, "| {member} | {unit} | {} | {metric} | {reported} |", definition.description)
            .unwrap();
    }
    let page = fs::read_to_string(docs("run-record.md")).unwrap();
    let (before, rest) = page.split_once(TABLE_BEGINS).unwrap();
    let (_, after) = rest.split_once(TABLE_ENDS).unwrap();
    assert_file("run-record.md", &format!("{before}{TABLE_BEGINS}{table}{TABLE_ENDS}{after}"));
}

/// A record with another value for every quantity.
fn full_record(start: DateTime<Utc>) -> RunRecord {
    let mut record = RunRecord::new(start);
    for (number, quantity) in (1_u32..).zip(Quantity::ALL) {
        match quantity.unit() {
            Unit::Share => record.quantities.set(quantity, true),
            _ => record.quantities.set(quantity, f64::from(number)),
        }
    }
    record.quantities.set(Quantity::ClockOffset, -7.0);
    record
        .quantities
        .set(Quantity::CpuTime, f64::from(Quantity::CpuUser as u32 + Quantity::CpuSystem as u32 + 2));
    record.note_error("store", "the store is full", start);
    record.quantities.set(Quantity::Errors, 1_usize);
    record.http = Some(HttpUse::default());
    record
}

#[test]
fn record_is_read_as_it_was_written() {
    let record = full_record("2026-01-02T12:00:00Z".parse().unwrap());
    let text = serde_json::to_vec(&record).unwrap();
    let read = RunRecord::parse(&text, record.start).unwrap();
    assert_eq!(read.quantities, record.quantities);
    assert_eq!((read.start, &read.errors, read.status), (record.start, &record.errors, record.status));
    if !updates_docs() {
        assert_eq!(differences(&serde_json::from_slice(&text).unwrap()), [""; 0]);
    }
    let places: BTreeSet<_> = Quantity::ALL.into_iter().map(path_in_record).collect();
    let derived = Quantity::ALL.into_iter().filter(|quantity| path_in_record(*quantity).is_empty()).count();
    assert_eq!(places.len(), Quantity::ALL.len() - derived + 1, "two quantities have the same place");
}

#[test]
fn record_of_earlier_versions_is_completed() {
    let parse =
        |text: &str| RunRecord::parse(text.as_bytes(), "2026-01-03T00:00:00Z".parse().unwrap()).unwrap();
    let left = parse(
        r#"{"timestamp": "2026-01-02T12:00:00+00:00", "left_to": "another", "counts": {"buffer_overlap": 0}}"#,
    );
    assert_eq!(left.get(Quantity::BufferOverlap), None, "the run compared nothing");
    let documented = parse(
        r#"{"timestamp": "2026-01-02T12:00:00", "counts": {"api_response_kb": 2, "new_events_count": -1}, "errors": [{}]}"#,
    );
    assert_eq!(documented.get(Quantity::ApiResponseBytes), Some(2_048.0));
    assert_eq!(documented.get(Quantity::NewEventsCount), None, "a negative count is impossible");
    assert!(documented.has_failed(), "it does not state its status, but an error");
}

#[test]
fn metrics_show_every_quantity_that_has_one() {
    let start: DateTime<Utc> = "2026-01-02T12:00:00Z".parse().unwrap();
    let status = Status::new(start, 500, Limits::default()).unwrap();
    let text = status.metrics().to_text();
    // What has not happened yet is 0 and not missing, or the first time would not be seen as an increase.
    for quantity in Quantity::ALL {
        let definition = quantity.definition();
        if let (Some(Metric::Counter(_) | Metric::EventsOfKind(_)), Some(name)) =
            (definition.metric, metric_name(quantity))
        {
            assert!(text.contains(&format!("\n{name} 0\n")), "{name} is missing:\n{text}");
        }
    }
    let record = full_record(start);
    status.note(&record);
    status.note(&record);
    let text = status.metrics().to_text();
    for quantity in Quantity::ALL {
        let definition = quantity.definition();
        let (Some(metric), Some(value)) = (definition.metric, record.get(quantity)) else { continue };
        let line = match metric {
            Metric::Counter(name) => format!("polisen_collector_{name} {}", 2.0 * value),
            Metric::Gauge(name) => format!("polisen_collector_{name} {value}"),
            Metric::EventsOfKind(_) => format!("{} {}", metric_name(quantity).unwrap(), 2.0 * value),
            Metric::StepDuration => {
                let key = quantity.key();
                format!("polisen_collector_step_duration_seconds_sum{{step=\"{key}\"}} {}", 2.0 * value)
            }
        };
        assert!(text.lines().any(|found| found == line), "`{line}` is missing:\n{text}");
        if let Metric::Counter(name) | Metric::Gauge(name) = metric {
            let help = format!("# HELP polisen_collector_{name} {}: ", definition.description);
            assert!(text.contains(&help), "`{help}` is missing");
        }
    }
}

#[test]
fn reports_show_every_reported_quantity() {
    let home = Home::new();
    let start: DateTime<Utc> = "2026-01-02T12:00:00Z".parse().unwrap();
    let lines: Vec<String> = (0..4)
        .map(|number| serde_json::to_string(&full_record(start + TimeDelta::minutes(30 * number))).unwrap())
        .collect();
    home.write("runs.jsonl", lines.join("\n"));
    let analyze = |arguments: &[&str]| -> Ended {
        home.program(env!("CARGO_BIN_EXE_analyze-metrics")).args(arguments).output().unwrap().into()
    };
    let report = analyze(&["runs.jsonl", "--report", "trends", "--format", "json"]).with(0).json();
    let rows = report["quantities"]["quantities"].as_array().unwrap();
    let shown: Vec<&str> = rows.iter().map(|row| row["quantity"].as_str().unwrap()).collect();
    let reported = Quantity::reported().filter(|quantity| quantity.unit() != Unit::Share);
    assert_eq!(shown, reported.map(Quantity::key).collect::<Vec<_>>());
    let costs = analyze(&["runs.jsonl", "--report", "bottlenecks", "--format", "json"]).with(0).json();
    for (quantity, _) in Quantity::steps() {
        let rows = ["operations", "phases"].map(|table| {
            let section = if table == "phases" { "network" } else { "operations" };
            costs[section][table].as_array().unwrap().clone()
        });
        let named = rows.iter().flatten().any(|row| {
            let name = row.get("operation").or(row.get("phase")).unwrap();
            name == quantity.key() && row["what"] == quantity.definition().description
        });
        assert!(named, "{} is missing: {costs:#}", quantity.key());
    }
    for quantity in Quantity::reported() {
        let condition = format!("max({}) >= 0", quantity.key());
        let condition = match quantity.unit() {
            Unit::Seconds => condition + "s",
            Unit::Bytes => condition + "B",
            _ => condition,
        };
        analyze(&["runs.jsonl", "--fail-on", &condition]).with(1);
    }
}
