//! The schema of records, held against what runs write.

use std::fs;
use std::path::Path;

use chrono::DateTime;
use serde_json::Value;

use crate::http::{Server, ok, status};
use crate::support::{Home, fixture};

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn records(folder: &Path) -> Vec<Value> {
    fs::read_dir(folder).unwrap().map(|entry| json(&entry.unwrap().path())).collect()
}

/// What of JSON Schema the file uses: types, members, items, enumerations, least values. Adds what is wrong, and where.
fn check(value: &Value, schema: &Value, place: &str, wrong: &mut Vec<String>) {
    const UNDERSTOOD: [&str; 11] = [
        "$schema",
        "title",
        "description",
        "format",
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "minimum",
    ];
    let keywords = schema.as_object().unwrap();
    assert!(keywords.keys().all(|keyword| UNDERSTOOD.contains(&keyword.as_str())), "{keywords:?}");
    let is_of = |kind: &Value| match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        Value::Null => Vec::new(),
        kind => vec![kind.clone()],
    };
    if !kinds.is_empty() && !kinds.iter().any(is_of) {
        wrong.push(format!("{place} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        wrong.push(format!("{place} is none of {}", schema["enum"]));
    }
    if schema["minimum"].as_f64().zip(value.as_f64()).is_some_and(|(least, value)| value < least) {
        wrong.push(format!("{place} is less than {}", schema["minimum"]));
    }
    if schema["format"] == "date-time"
        && value.as_str().is_some_and(|it| DateTime::parse_from_rfc3339(it).is_err())
    {
        wrong.push(format!("{place} is no time"));
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        check(item, &schema["items"], &format!("{place}/{number}"), wrong);
    }
    let Some(members) = value.as_object() else { return };
    for (name, member) in members {
        match schema["properties"].get(name) {
            Some(schema) => check(member, schema, &format!("{place}/{name}"), wrong),
            None => wrong.push(format!("{place}/{name} is not described")),
        }
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    wrong.extend(
        required.filter(|name| !members.contains_key(*name)).map(|name| format!("{place}/{name} is missing")),
    );
}

/// How a record differs from its schema.
pub(crate) fn differences(record: &Value) -> Vec<String> {
    let schema = json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/run-record.schema.json"));
    let mut wrong = Vec::new();
    check(record, &schema, "", &mut wrong);
    wrong
}

#[test]
fn every_record_is_as_its_schema_says() {
    let wrong = differences;
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    home.run(fixture("response-next.json")).with(0);
    home.run(fixture("response-sparse.json"));
    home.run(fixture("broken-elements.json"));
    home.run(fixture("broken/html.json")).with(1);
    home.run("nowhere.json").with(1);
    Server::new([status(503), ok()]).run(&home, &[]).with(0);
    Server::new([status(403)]).run(&home, &[]).with(1);

    let own = records(&home.path("metrics"));
    assert!(own.len() >= 7, "{}", own.len());
    // One of the documented ones was cut short, to see what reports make of it.
    let documented: Vec<Value> = records(&fixture("metrics"));
    let documented = documented.iter().filter(|record| record.get("counts").is_some());
    for record in own.iter().chain(documented) {
        assert_eq!(wrong(record), [""; 0], "{record:#}");
    }

    let mut strange = own[0].clone();
    strange["weather"] = Value::from("mild");
    assert_eq!(wrong(&strange), ["/weather is not described"]);
    strange = own[0].clone();
    strange["total_time"] = Value::from("long");
    assert_eq!(wrong(&strange), ["/total_time is no \"number\""]);
}
