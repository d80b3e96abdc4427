//! Which versions of an event, and which rejected elements, are distinct.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use collector::event::{self, Fingerprint, content};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::Home;

/// A response with one event, with this in place of its last member.
fn response(member: &str) -> String {
    format!("[{}]", event(member))
}

fn event(member: &str) -> String {
    format!(
        r#"{{"id":1,"datetime":"2026-01-02 9:38:09 +01:00","name":"02 januari 09.38, Brand, Malmö","summary":"Brand","url":"/a","type":"Brand","location":{{"name":"Malmö","gps":"55.6,13.0"}},{member}}}"#
    )
}

/// Runs with one response after the other and returns the revisions that are stored.
fn revisions(responses: &[String]) -> Vec<String> {
    let home = Home::new();
    for (number, response) in responses.iter().enumerate() {
        let path = home.write(&format!("feed/{}.json", 1_767_362_400 + number), response);
        home.collector(&["import", path.to_str().unwrap()]).with(0);
    }
    assert_eq!(home.lines("events").len(), 1);
    let verified = home.collector(&["verify", "--json"]).with(0).json();
    assert_eq!(verified["repeated_versions"], 0);
    home.lines("revisions").into_iter().map(|line| line.text).collect()
}

#[test]
fn digits_beyond_a_double_are_versions() {
    let members = [
        r#""n":9007199254740992"#,
        r#""n":9007199254740993"#,
        r#""n":12345678901234567890123"#,
        r#""n":12345678901234567890124"#,
        r#""n":55.604980999999996"#,
        r#""n":55.604980999999999"#,
        r#""n":1e400"#,
        r#""n":1e401"#,
        r#""n":1.0"#,
        r#""n":1.00"#,
        r#""n":-0"#,
        r#""n":0"#,
    ];
    assert_eq!(revisions(&members.map(response)).len(), members.len() - 1);
}

#[test]
fn repeated_members_are_versions() {
    let members = [
        r#""a":1"#,
        r#""a":1,"a":1"#,
        r#""a":1,"a":2"#,
        r#""a":2,"a":1"#,
        r#""a":{"b":1,"b":2}"#,
        r#""a":{"b":2,"b":1}"#,
    ];
    assert_eq!(revisions(&members.map(response)).len(), members.len() - 1);
}

#[test]
fn spelling_and_member_order_are_no_versions() {
    let reversed = r#"[{"a":{"\u0063":[1,{"y":2,"x":1}],"b":"\u00f6\/\n"},"location":{"gps":"55.6,13.0","name":"Malm\u00F6"},"type":"Brand","url":"/a","summary":"Brand","name":"02 januari 09.38, Brand, Malmö","datetime":"2026-01-02 9:38:09 +01:00","id":1}]"#;
    let responses = [
        response(r#""a":{"b":"ö/\n","c":[1,{"x":1,"y":2}]}"#),
        reversed.to_owned(),
        reversed.replace("\":", "\" :\n\t"),
        response(r#""a":{"c":[1,{"y":2,"x":1}],"b":"ö\u002f\u000A"}"#),
    ];
    assert_eq!(revisions(&responses), [""; 0]);
}

/// What ledgers hold of ordinary events stays valid.
#[test]
fn fingerprint_of_an_ordinary_event_is_that_of_its_bytes() {
    let line = event(r#""added":1,"later":[]"#);
    let read = |line: &str| event::parse_line(line.as_bytes()).unwrap().fingerprint;
    assert_eq!(read(&line), Fingerprint::of_canonical(line.as_bytes()));
    assert_eq!(read(&line.replace(r#""added":1,"later":[]"#, r#""later":[],"added":1"#)), read(&line));
}

#[test]
fn returned_version_is_stored_once() {
    let [one, two, three] = [r#""a":{"x":1,"y":2}"#, r#""a":2"#, r#""a":{"y":2,"x":1}"#].map(response);
    assert_eq!(revisions(&[one.clone(), two.clone(), three, two, one]).len(), 1);
}

#[test]
fn rejected_elements_of_two_responses_of_one_second_are_stored() {
    let home = Home::new();
    for (folder, name) in [("a", "first"), ("b", "second"), ("c", "first"), ("d", "third")] {
        home.write(&format!("{folder}/1767225600.json"), format!(r#"[{{"id":1,"name":"{name}"}}]"#));
    }
    let imported = home.collector(&["import", "--json", "a", "b", "c", "d"]).with(0).json();
    assert_eq!(imported["rejected"], 3);
    assert_eq!(home.lines("rejected").len(), 3);
    home.collector(&["import", "a", "b", "c", "d"]).with(0);
    assert_eq!(home.lines("rejected").len(), 3);
    home.collector(&["verify"]).with(0);
}

#[test]
fn rejected_element_is_stored_once_in_every_spelling() {
    let home = Home::new();
    let spellings = [
        r#"[{"id":1,"name":"Malmö"},{"name":"Malm\u00f6","id":1},{ "id" : 1 , "name":"Malmö"}, 7, 7 , "\ud800ö"]"#,
        r#"[7,"\uD800\u00f6",{"name":"Malmö", "id":1},7]"#,
    ];
    for (number, response) in spellings.iter().enumerate() {
        let path = home.write(&format!("{}.json", 1_767_362_400 + number), response);
        home.collector(&["import", path.to_str().unwrap()]).with(0);
        assert_eq!(home.lines("rejected").len(), 3);
    }
}

#[test]
fn deeply_nested_element_is_rejected_and_the_rest_is_stored() {
    let home = Home::new();
    let deep = |depth: usize| format!(r#""a":{}1{}"#, r#"{"x":["#.repeat(depth), "]}".repeat(depth));
    let response = format!("[{},{}]", event(&deep(50_000)).replacen(":1,", ":2,", 1), event(&deep(60)));
    for second in [1_767_362_400, 1_767_362_401] {
        let path = home.write(&format!("{second}.json"), &response);
        home.collector(&["import", path.to_str().unwrap()]).with(0);
        assert_eq!((home.lines("events").len(), home.lines("rejected").len()), (1, 1));
    }
    let rejected: Value = home.lines("rejected")[0].json();
    assert_eq!(rejected["reason"], "nested more than 128 levels deep");
    assert!(rejected["element"].as_str().unwrap().starts_with(r#"{"id":2,"#));
    home.collector(&["verify"]).with(0);
    home.collector(&["query"]).with(0);
}

/// A JSON value as its text states it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Json {
    Scalar(&'static str),
    Text(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// What must be equal for two values to have the same content.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'a> {
    Scalar(&'a str),
    Text(&'a str),
    Array(Vec<Self>),
    Object(BTreeMap<&'a str, Vec<Self>>),
}

impl Json {
    fn meaning(&self) -> Meaning<'_> {
        match self {
            Self::Scalar(text) => Meaning::Scalar(text),
            Self::Text(text) => Meaning::Text(text),
            Self::Array(items) => Meaning::Array(items.iter().map(Self::meaning).collect()),
            Self::Object(members) => {
                let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
                for (name, value) in members {
                    found.entry(name.as_str()).or_default().push(value.meaning());
                }
                Meaning::Object(found)
            }
        }
    }

    /// Writes it in one of many spellings.
    fn spell(&self, random: &mut impl FnMut(usize) -> usize, out: &mut String) {
        let space = |random: &mut dyn FnMut(usize) -> usize| ["", "", " ", "\n\t", "\r"][random(5)];
        out.push_str(space(random));
        match self {
            Self::Scalar(text) => out.push_str(text),
            Self::Text(text) => spell_text(text, random, out),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    item.spell(random, out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                let mut left: Vec<_> = members.iter().collect();
                while !left.is_empty() {
                    // The first one of its name, wherever it stands.
                    let name = &left[random(left.len())].0;
                    let at = left.iter().position(|member| member.0 == *name).unwrap();
                    let (name, value) = left.remove(at);
                    out.push_str(space(random));
                    spell_text(name, random, out);
                    out.push_str(space(random));
                    out.push(':');
                    value.spell(random, out);
                    out.push_str(if left.is_empty() { "" } else { "," });
                }
                out.push('}');
            }
        }
        out.push_str(space(random));
    }
}

fn spell_text(text: &str, random: &mut dyn FnMut(usize) -> usize, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\' | '\0'..='\u{1f}') || random(3) == 0 {
            for unit in character.encode_utf16(&mut [0; 2]) {
                if random(2) == 0 { write!(out, "\\u{unit:04x}") } else { write!(out, "\\u{unit:04X}") }
                    .unwrap();
            }
        } else {
            out.push(character);
        }
    }
    out.push('"');
}

fn json() -> impl Strategy<Value = Json> {
    let scalars = ["null", "true", "0", "-0", "1", "1.0", "1e2", "1E2", "9007199254740993"];
    let text = || {
        prop::sample::select(vec![
            "",
            "a",
            "id",
            "datetime",
            "gps",
            "name",
            "ö",
            "\u{8}\n\"\\/",
            "\u{1f600}\u{1f}",
        ])
    };
    let leaf = prop_oneof![
        prop::sample::select(scalars.to_vec()).prop_map(Json::Scalar),
        text().prop_map(|text| Json::Text(text.to_owned())),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let member = (text().prop_map(str::to_owned), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Json::Array),
            prop::collection::vec(member, 0..5).prop_map(Json::Object),
        ]
    })
}

fn spelled(value: &Json, mut seed: u64) -> String {
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let mut text = String::new();
    value.spell(&mut random, &mut text);
    text
}

proptest! {
    /// Every spelling has the same content, which is itself a spelling with the same value.
    #[test]
    fn content_is_independent_of_spelling(value in json(), one: u64, other: u64) {
        let (one, other) = (spelled(&value, one), spelled(&value, other));
        let canonical = content(one.as_bytes());
        prop_assert_eq!(&canonical, &content(other.as_bytes()), "{} {}", one, other);
        prop_assert_eq!(&canonical, &content(&canonical));
        let read = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        prop_assert_eq!(read(&canonical), read(one.as_bytes()));
    }

    #[test]
    fn content_differs_exactly_if_the_meaning_does(one in json(), other in json(), seed: u64) {
        for other in [&other, &one] {
            let equal = content(spelled(&one, seed).as_bytes()) == content(spelled(other, !seed).as_bytes());
            prop_assert_eq!(equal, one.meaning() == other.meaning());
        }
    }

    /// A value and the same with one of its parts replaced.
    #[test]
    fn content_shows_every_change(values in prop::collection::vec(json(), 1..5), at: prop::sample::Index, new in json(), seed: u64) {
        let wrap = |items: &[Json]| Json::Object(items.iter().map(|item| ("a".to_owned(), item.clone())).collect());
        let mut changed = values.clone();
        *at.get_mut(&mut changed) = new;
        let (before, after) = (wrap(&values), wrap(&changed));
        let equal = content(spelled(&before, seed).as_bytes()) == content(spelled(&after, !seed).as_bytes());
        prop_assert_eq!(equal, before.meaning() == after.meaning());
    }
}
