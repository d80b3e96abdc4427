//! What holds for every input, not only for examples.

use std::fmt::Write as _;
use std::sync::LazyLock;

use chrono::{DateTime, NaiveDate, Utc};
use collector::event::{
    self, Event, Fingerprint, MAX_DEPTH, MAX_ELEMENTS, RejectReason, Response, ResponseError,
};
use collector::ledger::{
    CAPACITY, Claim, ClaimedObject, Classification, Ledger, LedgerDocument, SIZE_LIMIT_BYTES,
};
use fixtures::{Feed, FeedConfig};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use serde_json::value::RawValue;

/// Events as the feed spells them.
static EVENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let feed = Feed::new(FeedConfig { seed: 3, log: false, ..FeedConfig::quiet(3) });
    feed.full_response().events().iter().map(|event| event.json().to_owned()).collect()
});

/// What bytes of JSON get changed into.
const SPLINTERS: [&str; 26] = [
    "",
    " ",
    "\n",
    "\t",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "0",
    "-",
    "1e9",
    "01",
    "ä",
    "\u{a0}",
    "\"id\":7,",
    "\"datetime\":1,",
    "\u{0}",
    "\u{1f600}",
];

fn response() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<Index>(), 0..4).prop_map(|picks| {
        let events: Vec<&str> = picks.iter().map(|pick| pick.get(EVENTS.as_slice()).as_str()).collect();
        format!("[{}]", events.join(","))
    })
}

/// A text with some of its characters changed into something else.
fn damaged(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let wounds =
        prop::collection::vec((any::<Index>(), 0..4_usize, prop::sample::select(&SPLINTERS[..])), 0..4);
    (text, wounds).prop_map(|(text, wounds)| {
        let mut characters: Vec<String> = text.chars().map(String::from).collect();
        for (place, removed, splinter) in wounds {
            let at = place.index(characters.len().max(1)).min(characters.len());
            let end = (at + removed).min(characters.len());
            characters.splice(at..end, [splinter.to_owned()]);
        }
        characters.concat()
    })
}

fn anything_like_json() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec!["null", "true", "1", "-0.5e+9", "\"\"", "\"a\\nb\"", "\"å\"", "7"]);
    let value = leaf.prop_map(str::to_owned).prop_recursive(4, 24, 4, |inner| {
        let key = prop::sample::select(vec!["\"id\"", "\"datetime\"", "\"i\\u0064\"", "\"x\"", "\"\""]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((key, inner), 0..4).prop_map(|members| {
                let members: Vec<_> =
                    members.into_iter().map(|(key, value)| format!("{key} :{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    prop::collection::vec(value, 0..4).prop_map(|items| format!(" [{}] ", items.join(",\n")))
}

/// Whether `serde_json` takes a text as an array, without asking what its numbers and escapes stand for.
fn is_array(text: &str) -> Option<Vec<&str>> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

fn depth(text: &str) -> usize {
    text.matches(['[', '{']).count()
}

fn agrees_with_serde_json(text: &str) -> Result<(), TestCaseError> {
    let parsed = Response::parse(text.as_bytes());
    let expected = is_array(text);
    prop_assert!(depth(text) < MAX_DEPTH, "the generators stay flat");
    prop_assert_eq!(parsed.is_ok(), expected.is_some(), "{:?}", parsed);
    let (Ok(response), Some(expected)) = (parsed, expected) else { return Ok(()) };
    let raw: Vec<&str> = response
        .elements()
        .iter()
        .map(|element| std::str::from_utf8(response.raw(element)).unwrap())
        .collect();
    prop_assert_eq!(raw, expected);
    for element in response.elements() {
        let line = response.line(element).into_owned();
        prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
        prop_assert_eq!(value(&line), value(response.raw(element)));
        if let Ok(event) = element.event {
            prop_assert_eq!(event::parse_line(&line), Ok(event));
            let value = value(&line).unwrap();
            prop_assert_eq!(value["id"].as_i64(), Some(event.id));
            prop_assert!(value["datetime"].as_str().unwrap().contains(&event.day.to_string()));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_text_is_a_response_exactly_if_it_is_an_array(text in damaged(response())) {
        agrees_with_serde_json(&text)?;
    }

    #[test]
    fn whatever_the_array_holds(text in damaged(anything_like_json())) {
        agrees_with_serde_json(&text)?;
    }

    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Response::parse(&bytes);
        let _ = event::parse_line(&bytes);
        let _ = LedgerDocument::parse(&bytes);
    }

    /// The shortcut for the feed's own spelling says what the general way says: a space takes it there.
    #[test]
    fn the_shortcut_agrees_with_the_general_way(pick in any::<Index>(), text in Just(()).prop_flat_map(|()| damaged(any::<Index>().prop_map(|pick| pick.get(EVENTS.as_slice()).clone())))) {
        for event in [pick.get(EVENTS.as_slice()), &text] {
            let spaced = event.replacen('{', "{ ", 1);
            let (short, long) = (format!("[{event}]"), format!("[{spaced}]"));
            let read = |text: &str| -> Option<Vec<_>> {
                let response = Response::parse(text.as_bytes()).ok()?;
                Some(response.elements().iter().map(|element| element.event).collect())
            };
            prop_assert_eq!(read(&short), read(&long));
        }
    }

    /// Another spelling is the same content.
    #[test]
    fn spelling_does_not_change_a_fingerprint(pick in any::<Index>(), at in any::<Index>(), space in prop::sample::select(vec![" ", "\n", "\t ", "\r\n"])) {
        let event = pick.get(EVENTS.as_slice());
        let read = |text: &str| event::parse_line(text.as_bytes()).unwrap().fingerprint;
        let original = read(event);
        let breaks: Vec<usize> = event.match_indices("\":").map(|(position, _)| position + 1).collect();
        let mut spaced = event.clone();
        spaced.insert_str(*at.get(&breaks), space);
        prop_assert_eq!(read(&spaced), original);
        let mut escaped = String::new();
        for unit in event.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => escaped.push(char::from(byte)),
                _ => write!(escaped, "\\u{unit:04x}").unwrap(),
            }
        }
        prop_assert_eq!(read(&escaped), original);
        let changed = event.replacen("\"summary\":\"", "\"summary\":\"x", 1);
        prop_assert_ne!(read(&changed), original);
    }

    /// A ledger is read as it was written, and stays small, a claim included.
    #[test]
    fn a_ledger_is_read_as_it_was_written(events in prop::collection::vec((any::<i64>(), 0..4_000_u64, any::<u64>()), 0..1_200), after in 0..4_000_u64) {
        let day = |number: u64| NaiveDate::from_ymd_opt(2020, 1, 1).unwrap() + chrono::Days::new(number);
        let mut ledger = Ledger::complete_after(day(after));
        for (id, number, content) in events {
            let fingerprint = Fingerprint::of_canonical(&content.to_le_bytes());
            ledger.remember(Event { id, day: day(number), fingerprint });
        }
        ledger.forget_oldest_outside_window();
        ledger.last_updated = DateTime::<Utc>::from_timestamp_micros(1_767_362_400_123_456);
        prop_assert!(ledger.len() <= CAPACITY);
        let document = ledger.to_document();
        prop_assert!(document.len() < SIZE_LIMIT_BYTES, "{} bytes", document.len());
        let Ok(LedgerDocument::Own(read)) = LedgerDocument::parse(&document) else {
            return Err(TestCaseError::fail("it is no ledger"));
        };
        prop_assert_eq!(&*read, &ledger);
        let ids: Vec<i64> = serde_json::from_value(serde_json::from_slice::<Value>(&document).unwrap()["seen_ids"].clone()).unwrap();
        prop_assert!(ids.is_sorted_by(|one, other| one > other));
        let object = ClaimedObject { key: "events/2026/01/02/events-1.jsonl".into(), ids: vec![1], fingerprints: vec![] };
        let claimed = ledger.with_claim(Claim { run: "r".into(), owner: "o".into(), until: 1, objects: vec![object] });
        let Ok(LedgerDocument::Own(read)) = LedgerDocument::parse(&claimed.to_document()) else {
            return Err(TestCaseError::fail("with a claim it is no ledger"));
        };
        prop_assert_eq!(*read, claimed);
    }

    /// What the ledger lets go of can be looked up: an event that is not remembered and not late was never seen.
    #[test]
    fn what_is_forgotten_is_late(days in prop::collection::vec(0..60_u64, 1..1_500)) {
        let mut ledger = Ledger::complete_since_ever();
        let first = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
        let events: Vec<Event> = (0_i64..).zip(days).map(|(id, number)| Event {
            id,
            day: first + chrono::Days::new(number),
            fingerprint: Fingerprint::of_canonical(b"{}"),
        }).collect();
        for chunk in events.chunks(100) {
            for &event in chunk {
                ledger.remember(event);
            }
            ledger.forget_oldest_outside_window();
        }
        for event in events {
            prop_assert!(ledger.get(event.id).is_some() || ledger.is_late(event.day));
        }
    }

    /// Nothing in a response is counted twice or passed over.
    #[test]
    fn every_element_is_new_known_or_rejected(text in response()) {
        let response = Response::parse(text.as_bytes()).unwrap();
        let at = DateTime::<Utc>::from_timestamp(1_767_362_400, 0).unwrap();
        let ledger = Ledger::complete_since_ever();
        let classified = Classification::find(&response, &ledger, at);
        let ids: std::collections::BTreeSet<i64> = response.elements().iter().map(|it| it.event.unwrap().id).collect();
        prop_assert_eq!(classified.events.len(), ids.len());
        let after = classified.apply(&response, &ledger, at);
        let again = Classification::find(&response, &after, at + chrono::TimeDelta::minutes(1));
        prop_assert_eq!((again.events.len(), again.known), (0, ids.len()));
    }
}

#[test]
fn element_nested_too_deep_is_rejected() {
    let nested = |depth: usize| format!("[7,{}{}]", "[".repeat(depth), "]".repeat(depth));
    let reason = |depth: usize| {
        let text = nested(depth);
        let response = Response::parse(text.as_bytes()).unwrap();
        assert_eq!(response.elements().len(), 2);
        response.elements()[1].event.unwrap_err()
    };
    assert_eq!(reason(MAX_DEPTH - 1), RejectReason::NotAnObject);
    for depth in [MAX_DEPTH, MAX_DEPTH + 1, 2 * MAX_DEPTH, 2 * MAX_DEPTH + 1, 1_000_000] {
        assert_eq!(reason(depth), RejectReason::TooDeep, "{depth}");
        // Brackets of both kinds, each closed by its own.
        let mixed = format!("[{}0{}]", "{\"a\":[".repeat(depth), "]}".repeat(depth));
        assert!(Response::parse(mixed.as_bytes()).is_ok(), "{depth}");
        let wrong = mixed.replacen("]}", "}]", 1);
        assert!(Response::parse(wrong.as_bytes()).is_err(), "{depth}");
    }
}

#[test]
fn response_with_too_many_elements_is_refused() {
    let body = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    assert_eq!(Response::parse(body(MAX_ELEMENTS).as_bytes()).unwrap().elements().len(), MAX_ELEMENTS);
    let body = body(MAX_ELEMENTS + 1);
    assert_eq!(
        Response::parse(body.as_bytes()).unwrap_err(),
        ResponseError::TooManyElements { limit: MAX_ELEMENTS }
    );
}
