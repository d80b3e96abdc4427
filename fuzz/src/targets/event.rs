//! The feed's responses, the lines of the archive, and text as it is printed.

use chrono::DateTime;
use collector::event::{Fields, LineError, Response, ResponseError, content, local_day, parse_line};
use collector::fuzzing::{rejected_fingerprints, rejected_line, withdrawn_ids};
use collector::text::{csv_cell, is_printable, json_for_terminal, printable, printable_lines, server_text};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{ensure, kind_of, kind_of_result, size_of, text};
use crate::{Bound, Meter, Target};

const TOKENS: &[&str] = &[
    r#"{"id":1,"datetime":"2026-01-02 9:38:09 +01:00","name":"a","summary":"b","url":"/c","type":"d","location":{"name":"e","gps":"1,2"}}"#,
    "\"id\":",
    "\"datetime\":",
    "\"i\\u0064\":",
    "\"name\":",
    "\"location\":",
    "\"2026-01-02 9:38:09 +01:00\"",
    "-0",
    "1.0",
    "1e0",
    "},{",
    "\\u00e5",
    "\\\"",
    "\\\\",
    "<html>",
];
const DATE_TOKENS: &[&str] =
    &["2026-01-02", "T", " ", "Z", "+01:00", "-0100", ".123", "24", "59", "60", "02-29", "0000", "9999"];

pub(super) const TARGETS: &[Target] = &[
    // An element of two bytes, such as `1,`, takes its place in a list that grows by doubling.
    Target {
        name: "response",
        run: response,
        bound: Bound { per_byte: 160, constant: 16 << 10 },
        tokens: TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "line",
        run: line,
        bound: Bound { per_byte: 16, constant: 4 << 10 },
        tokens: TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "content",
        run: canonical,
        bound: Bound { per_byte: 64, constant: 4 << 10 },
        tokens: TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "run_line",
        run: run_line,
        bound: Bound { per_byte: 64, constant: 4 << 10 },
        tokens: &[
            "\"reason\":",
            "\"element\":",
            "\"id\":7",
            "\"last_seen\":\"2026-01-02T12:00:00Z\"",
            "\"returned\":\"2026-01-02T12:00:00Z\"",
            "\n",
            "\"\\\"\\\\ud800\\\"\"",
            "a string holds half a surrogate pair",
        ],
        short_run: 20_000,
    },
    Target {
        name: "printable",
        run: print,
        bound: Bound { per_byte: 32, constant: 16 << 10 },
        tokens: &[
            "\u{1b}[31m",
            "\u{202e}",
            "\u{200b}",
            "\u{e0041}",
            "\u{9b}",
            "\r",
            "=1+1",
            "@",
            "+",
            "\"",
            ",",
            "…",
        ],
        short_run: 20_000,
    },
    Target {
        name: "event_date",
        run: date,
        bound: Bound { per_byte: 0, constant: 0 },
        tokens: DATE_TOKENS,
        short_run: 100_000,
    },
    Target {
        name: "fields",
        run: fields,
        bound: Bound { per_byte: 256, constant: 8 << 10 },
        tokens: TOKENS,
        short_run: 20_000,
    },
];

fn response(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let parsed = meter.measure(|| Response::parse(input));
    agrees_with_serde(input, &parsed)?;
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return Ok(kind_of(&error.to_string())),
    };
    let mut kind = size_of(parsed.elements().len());
    for element in parsed.elements() {
        let line = meter.measure(|| parsed.line(element));
        ensure(!line.contains(&b'\n') && !line.contains(&b'\r'), || "a line holds a line break".to_owned())?;
        ensure(meter.measure(|| parse_line(&line)) == element.event.map_err(LineError::NoEvent), || {
            format!("read as {:?} in the response, as {:?} from its line", element.event, parse_line(&line))
        })?;
        if let Err(reason) = &element.event {
            let fingerprint = meter.measure(|| parsed.rejected_fingerprint(element));
            let stored = rejected_line(&line, *reason).map_err(|error| error.to_string())?;
            let again = rejected_fingerprints(&stored);
            ensure(again == [fingerprint], || {
                format!("{fingerprint} is {again:?} in {}", String::from_utf8_lossy(&stored))
            })?;
            kind = kind << 4 ^ *reason as u64 ^ 8;
        }
    }
    Ok(kind)
}

/// What is JSON for one is JSON for the other.
fn agrees_with_serde(input: &[u8], parsed: &Result<Response<'_>, ResponseError>) -> Result<(), String> {
    let body = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    let expected =
        std::str::from_utf8(body).ok().and_then(|text| serde_json::from_str::<Vec<IgnoredAny>>(text).ok());
    match (parsed, expected) {
        (Ok(parsed), Some(expected)) => ensure(parsed.elements().len() == expected.len(), || {
            format!("{} elements, for serde_json {}", parsed.elements().len(), expected.len())
        }),
        (Err(_), None) => Ok(()),
        (parsed, expected) => {
            let expected = if expected.is_some() { "accepted" } else { "refused" };
            Err(format!("serde_json {expected} it, this is {:?}", parsed.as_ref().err()))
        }
    }
}

fn line(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let event = meter.measure(|| parse_line(input));
    let array = [b"[".as_slice(), input, b"]"].concat();
    let alone = Response::parse(&array).ok().filter(|response| response.elements().len() == 1);
    let expected = alone.map_or(Err(LineError::Unreadable), |response| {
        response.elements()[0].event.map_err(LineError::NoEvent)
    });
    ensure(event == expected, || format!("{event:?} as a line, {expected:?} in an array"))?;
    if let (Ok(event), Ok(value)) = (event, serde_json::from_slice::<Value>(input)) {
        // `-0` is an integer here, and for serde_json a float.
        ensure(value["id"].as_i64().unwrap_or_default() == event.id, || {
            format!("id {} is {} for serde_json", event.id, value["id"])
        })?;
    }
    Ok(kind_of_result(&event, |event| 1 + size_of(event.id.unsigned_abs())))
}

fn date(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(0) };
    let day = meter.measure(|| local_day(text));
    let strict = DateTime::parse_from_rfc3339(text).map(|time| time.date_naive()).ok();
    let Some(day) = day else {
        // chrono also takes a small t, a typographic minus, and fractions of more than nine digits.
        let fraction =
            text.split_once('.').map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
        let usual = text.is_ascii() && !text.contains('t') && fraction <= 9;
        return ensure(!usual || strict.is_none(), || format!("chrono reads {strict:?}")).map(|()| 1);
    };
    let written = written_out(text);
    let expected = DateTime::parse_from_rfc3339(&written).map(|time| time.date_naive());
    ensure(expected == Ok(day), || format!("{day}, but chrono reads {expected:?} of {written}"))?;
    Ok(2 + text.len() as u64)
}

/// A `datetime` of the feed as RFC 3339 writes it: two digits of hour, no space before the offset, a colon in it.
fn written_out(text: &str) -> String {
    let (day, time) = text.split_at(10);
    let mut time = time[1..].replace(' ', "");
    if time.as_bytes().get(1) == Some(&b':') {
        time.insert(0, '0');
    }
    if let Some(sign) = time.rfind(['+', '-'])
        && time.len() - sign == "+0100".len()
    {
        time.insert(sign + 3, ':');
    }
    format!("{day}T{}", time.replace('z', "Z"))
}

fn fields(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let text = text(input);
    let fields = meter.measure(|| Fields::of(&text));
    let value: Result<Value, _> = serde_json::from_str(&text);
    ensure(fields.is_ok() || !value.as_ref().is_ok_and(Value::is_object), || {
        "serde_json reads it".to_owned()
    })?;
    let Ok(fields) = fields else { return Ok(0) };
    if let Ok(value) = value {
        let id = value["id"].as_i64().unwrap_or_default();
        ensure(fields.id == id, || format!("id {}, for serde_json {id}", fields.id))?;
    }
    Ok(1 + u64::from(fields.hour().is_some()) + u64::from(fields.name.is_empty()) * 2)
}

/// The canonical form is its own canonical form, and as valid as what it was made from.
fn canonical(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let form = meter.measure(|| content(input));
    let value = serde_json::from_slice::<IgnoredAny>(input);
    if value.is_ok() {
        let shown = || String::from_utf8_lossy(&form).into_owned();
        ensure(serde_json::from_slice::<IgnoredAny>(&form).is_ok(), || format!("{} is not JSON", shown()))?;
        let again = content(&form);
        ensure(again == form, || format!("{} becomes {}", shown(), String::from_utf8_lossy(&again)))?;
        let values = (serde_json::from_slice::<Value>(input), serde_json::from_slice::<Value>(&form));
        if let (Ok(value), Ok(of_form)) = values {
            ensure(value == of_form, || format!("{value} becomes {of_form}"))?;
        }
    }
    Ok(kind_of_result(&value, |_| size_of(form.len())))
}

/// Lines of the archive that a run writes about what is not an event.
fn run_line(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let fingerprints = meter.measure(|| rejected_fingerprints(input));
    let (gone, back) = meter.measure(|| withdrawn_ids(input));
    let lines = input.split(|&byte| byte == b'\n').count();
    ensure(fingerprints.len() <= lines && gone.len() + back.len() <= lines, || {
        format!("{fingerprints:?}, {gone:?} and {back:?} in {lines} lines")
    })?;
    Ok(size_of(fingerprints.len()) << 16 | size_of(gone.len()) << 8 | size_of(back.len()))
}

/// Text from outside as it is printed.
fn print(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let text = text(input);
    let line = meter.measure(|| printable(&text).to_string());
    let is_bounded = line.chars().count() <= 2_000 && line.chars().all(is_printable);
    ensure(is_bounded, || format!("{line:?} is printed"))?;
    let lines = meter.measure(|| printable_lines(&text));
    ensure(lines.chars().all(|it| it == '\n' || is_printable(it)), || format!("{lines:?} is printed"))?;
    let answer = meter.measure(|| server_text(&text));
    let is_bounded = answer.chars().count() <= 500 && answer.chars().all(is_printable);
    ensure(is_bounded, || format!("{answer:?} is printed"))?;
    let cell = meter.measure(|| csv_cell(&text));
    let value = cell.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(&cell);
    let is_formula = value.replace("\"\"", "\"").trim_start_matches(' ').starts_with(['=', '+', '-', '@']);
    ensure(!is_formula || value.parse::<f64>().is_ok(), || format!("{cell:?} is a cell"))?;
    if let Ok(value) = serde_json::from_str::<Value>(&text) {
        let json = meter.measure(|| json_for_terminal(&text).into_owned());
        let again = serde_json::from_str::<Value>(&json);
        ensure(again.as_ref().is_ok_and(|again| *again == value), || {
            format!("{value} is printed as {json}")
        })?;
        return Ok(1 << 32 | size_of(json.len()));
    }
    Ok(u64::from(line.len() == text.len()) << 16 | size_of(line.len()))
}
