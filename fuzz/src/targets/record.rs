//! Records of runs, metrics, and the health file with what it takes from Python.

use chrono::DateTime;
use collector::fuzzing::{
    check_health, evidence_in, metric_line, python_age, python_json, read_packed, read_record, read_trend,
};
use collector::quantity::Quantity;
use collector::record::{Evidence, Limits, MAX_UNSETTLED, RunRecord};
use collector::watch::status::Status;
use serde::de::IgnoredAny;

use super::{ensure, kind_of_result, now, size_of};
use crate::{Bound, Meter, Target};

const RECORD_TOKENS: &[&str] = &[
    "\"timestamp\":",
    "\"start_time\":",
    "\"total_time\":",
    "\"timings\":",
    "\"api_fetch\":",
    "\"counts\":",
    "\"errors\":",
    "\"type\":",
    "\"status\":\"success\"",
    "\"process\":",
    "\"http\":",
    "\"possible_gap\":true",
    "\"2026-01-02T12:00:00Z\"",
    "1e308",
    "-1",
    "1e-320",
    "null",
];
const HEALTH_TOKENS: &[&str] = &[
    "\"last_run\":",
    "\"status\":\"success\"",
    "\"events_processed\":",
    "\"execution_time\":",
    "\"error\":",
    "NaN",
    "Infinity",
    "-Infinity",
    "\"2026-01-02T11:30:00.000000+00:00\"",
    "1e999",
];
const EVIDENCE_TOKENS: &[&str] = &[
    "\"last_valid_response\":",
    "\"last_response_with_events\":",
    "\"last_settled\":",
    "\"last_possible_gap\":",
    "\"unresolved_claim_since\":",
    "\"unresolved_claim_owner\":\"a\"",
    "\"unsettled_since\":",
    "\"unsettled_events\":[[7,\"2026-01-02\"]]",
    "\"elements_in_last_response\":",
    "\"events_in_last_response\":",
    "\"consecutive_failures\":4294967295",
    "\"unwritten\":\"b\"",
    "\"2026-01-02T11:30:00Z\"",
    "\"+262142-12-31T23:59:59Z\"",
    "\"-262143-01-01T00:00:00Z\"",
    "\"last_run\":\"2026-01-02T11:30:00.000000+00:00\"",
    "\"status\":\"success\"",
    "null",
];
const DATE_TOKENS: &[&str] = &[
    "2026-01-02",
    "20260102",
    "2026-W01-5",
    "2026W015",
    "W53",
    "T",
    " ",
    "é",
    "😀",
    "Z",
    "+01:00",
    "-23:59:59.999999",
    "12:00",
    "1200",
    ",5",
    ".123456",
    "0000",
    "9999",
];

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "record",
        run: record,
        bound: Bound { per_byte: 64, constant: 4 << 10 },
        tokens: RECORD_TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "recall",
        run: recall,
        bound: Bound { per_byte: 64, constant: 256 << 10 },
        tokens: RECORD_TOKENS,
        short_run: 500,
    },
    Target {
        name: "python_json",
        run: json,
        bound: Bound { per_byte: 384, constant: 16 << 10 },
        tokens: HEALTH_TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "python_date",
        run: date,
        bound: Bound { per_byte: 32, constant: 1 << 10 },
        tokens: DATE_TOKENS,
        short_run: 50_000,
    },
    Target {
        name: "health",
        run: health,
        bound: Bound { per_byte: 384, constant: 16 << 10 },
        tokens: HEALTH_TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "evidence",
        run: evidence,
        bound: Bound { per_byte: 384, constant: 32 << 10 },
        tokens: EVIDENCE_TOKENS,
        short_run: 10_000,
    },
    Target {
        name: "packed_records",
        run: packed,
        bound: Bound { per_byte: 384, constant: 16 << 10 },
        tokens: RECORD_TOKENS,
        short_run: 10_000,
    },
    Target {
        name: "trend_record",
        run: trend,
        bound: Bound { per_byte: 384, constant: 16 << 10 },
        tokens: RECORD_TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "metric_line",
        run: metric,
        bound: Bound { per_byte: 0, constant: 0 },
        tokens: &[
            "polisen_collector_runs_total",
            "{status=\"success\"}",
            " ",
            "# TYPE",
            "NaN",
            "+Inf",
            "1e308",
        ],
        short_run: 50_000,
    },
];

fn record(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let run = meter.measure(|| read_record(input, now()));
    if let Ok(run) = &run {
        for quantity in Quantity::reported() {
            let value = run.get(quantity);
            let is_usual = value.is_none_or(|value| value.is_finite() && value >= 0.0);
            ensure(is_usual, || format!("{} is {value:?}", quantity.key()))?;
        }
    }
    Ok(kind_of_result(&run, |run| size_of(run.errors.len())))
}

/// What the service takes over from earlier processes, and shows.
fn recall(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let record = meter.measure(|| RunRecord::parse(input, now()));
    if let Ok(record) = &record {
        let shown = meter.measure(|| {
            let status = Status::new(now(), 500, Limits::default()).map_err(|error| error.to_string())?;
            status.recall([record.clone()]);
            serde_json::to_string(&status.view(1)).map_err(|error| error.to_string())?;
            Ok::<_, String>(status.metrics().to_text())
        })?;
        ensure(shown.contains("# TYPE"), || "no metrics are shown".to_owned())?;
        let written = serde_json::to_vec(record).map_err(|error| error.to_string())?;
        let again = RunRecord::parse(&written, now());
        ensure(again.is_ok(), || format!("{record:?} is not read again: {again:?}"))?;
    }
    Ok(kind_of_result(&record, |record| size_of(record.errors.len())))
}

fn json(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(0) };
    let printed = meter.measure(|| python_json(text));
    let has_limits = |error: &String| error.contains("recursion") || error.contains("Exceeds the limit");
    match (&printed, serde_json::from_str::<IgnoredAny>(text)) {
        (Ok(printed), Err(error)) => {
            let has_names = text.contains("NaN") || text.contains("Infinity");
            ensure(has_names, || format!("{printed} is not JSON: {error}"))?;
        }
        (Err(error), Ok(_)) => ensure(has_limits(error), || format!("serde_json reads it; {error}"))?,
        _ => {}
    }
    Ok(kind_of_result(&printed, |printed| size_of(printed.len())))
}

fn date(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(0) };
    let age = meter.measure(|| python_age(text, now()));
    // chrono also takes a small t and z, a leap second, a typographic minus, and the year 0.
    let is_usual =
        text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b':' | b'.' | b'T' | b'Z'))
            && !text.contains(":60")
            && !text.starts_with("0000");
    if let (true, Ok(time)) = (is_usual, DateTime::parse_from_rfc3339(text)) {
        let micros = now().timestamp_micros() - time.timestamp_micros();
        ensure(age == Ok(micros.div_euclid(60_000_000)), || format!("{age:?} min old, chrono reads {time}"))?;
    }
    Ok(kind_of_result(&age, |_| size_of(text.len())))
}

fn health(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let checked = meter.measure(|| check_health(input, now()));
    if let Ok((healthy, lines)) = &checked {
        ensure(lines.starts_with("OK") == *healthy, || format!("healthy: {healthy}, but {lines}"))?;
    }
    Ok(kind_of_result(&checked, |(healthy, _)| u64::from(*healthy)))
}

/// The evidence for health: judged, continued, written and read again.
fn evidence(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let evidence = meter.measure(|| evidence_in(input));
    let reasons = meter.measure(|| evidence.judge(now(), &Limits::default()));
    for reason in &reasons {
        let lines = reason.to_string();
        ensure(lines.starts_with("ERROR: ") && lines.lines().count() == 2, || format!("{lines:?}"))?;
    }
    if let Ok((healthy, lines)) = check_health(input, now()) {
        let is_ours = evidence != Evidence::default();
        ensure(!healthy || !is_ours || reasons.is_empty(), || format!("{lines}, but {reasons:?}"))?;
    }
    let written = serde_json::to_vec(&evidence).map_err(|error| error.to_string())?;
    let again: Evidence = serde_json::from_slice(&written).map_err(|error| error.to_string())?;
    let second = serde_json::to_vec(&again).map_err(|error| error.to_string())?;
    ensure(second == written, || format!("{evidence:?} is read again as {again:?}"))?;
    let mut continued = evidence.clone();
    let events = (0..8).map(|id| (id, now().date_naive()));
    meter.measure(|| {
        continued.note_response(now(), 10, 9);
        continued.note_failure();
        continued.note_left(now(), "another run");
        continued.note_unsettled(now(), events);
    });
    let kept = continued.unsettled_events.len();
    ensure(kept <= MAX_UNSETTLED.max(evidence.unsettled_events.len()), || format!("{kept} events are kept"))?;
    continued.note_settled(now(), |_, _| true);
    let left = continued.judge(now(), &Limits::default());
    let is_settled = left.is_empty() || evidence.unwritten.is_some();
    ensure(is_settled, || format!("a settled response leaves {left:?}"))?;
    let parsed = serde_json::from_slice::<Evidence>(input);
    Ok(kind_of_result(&parsed, |_| 1 << 32 | size_of(kept) << 8 | reasons.len() as u64))
}

fn packed(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let (runs, skipped) = meter
        .measure(|| read_packed(input, now()))
        .map_err(|error| format!("memory cannot be read: {error}"))?;
    let lines = input.split(|&byte| byte == b'\n').count();
    ensure(runs + skipped <= lines, || format!("{runs} runs and {skipped} skipped of {lines} lines"))?;
    Ok(size_of(runs) << 8 | size_of(skipped))
}

fn trend(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let read = meter.measure(|| read_trend(input));
    let is_object = input.trim_ascii_start().starts_with(b"{");
    ensure(read.is_err() || is_object, || "what is not an object is reported".to_owned())?;
    Ok(kind_of_result(&read, |()| 1))
}

fn metric(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let Ok(line) = std::str::from_utf8(input) else { return Ok(0) };
    let Some((name, value)) = meter.measure(|| metric_line(line)) else { return Ok(1) };
    ensure(line.starts_with(name) && !name.starts_with('#'), || format!("{name} is {value} in `{line}`"))?;
    Ok(2 + u64::from(value.is_finite()))
}
