//! What people ask for: times, filters, conditions.

use chrono::NaiveDate;
use collector::analysis::condition::Condition;
use collector::event::Fields;
use collector::feed::{Selection, When};
use collector::query::Filter;
use collector::record::compact::CompactRuns;
use icu_normalizer::ComposingNormalizerBorrowed;

use super::{ensure, kind_of_result, text};
use crate::{Bound, Meter, Target};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "when",
        run: when,
        bound: Bound { per_byte: 2, constant: 256 },
        tokens: &["2026-01", "-02", " 21", "T09", "24", "+", "02-29"],
        short_run: 50_000,
    },
    Target {
        name: "filter",
        run: filter,
        bound: Bound { per_byte: 32, constant: 4 << 10 },
        tokens: &["Å", "ß", "İ", "ǅ", "ﬁ", "å", "a\u{30a}", "|", "|||", "Brand", "Ω", "Σας"],
        short_run: 10_000,
    },
    Target {
        name: "condition",
        run: condition,
        bound: Bound { per_byte: 16, constant: 4 << 10 },
        tokens: &[
            "p95",
            "p99.9",
            "p100",
            "mean",
            "min",
            "max",
            "sum",
            "last",
            "(",
            ")",
            ">",
            ">=",
            "<",
            "<=",
            "api_fetch",
            "failed",
            "peak_memory_bytes",
            "total_time",
            "errors",
            "s",
            "ms",
            "µs",
            "min",
            "%",
            "MB",
            "nan",
            "inf",
            "-",
            "+",
            ".",
        ],
        short_run: 50_000,
    },
];

fn when(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let text = text(input);
    let when = meter.measure(|| text.parse::<When>());
    if let Ok(when) = when {
        let again = when.to_string().parse();
        ensure(again == Ok(when), || format!("{when:?} is read again as {again:?}"))?;
    }
    Ok(kind_of_result(&when, |when| match when {
        When::Month(_) => 1,
        When::Day(_) => 2,
        When::Hour(..) => 3,
    }))
}

/// An input is `WANTED|NAME|TYPE|LOCATION`.
fn filter(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let text = text(input);
    let mut parts = text.splitn(4, '|');
    let mut next = || parts.next().unwrap_or_default();
    let (wanted, name, kind, location) = (next(), next(), next(), next());
    let event =
        Fields { name: name.into(), kind: kind.into(), location: location.into(), ..Fields::default() };
    let composed = |text: &str| ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned();
    let lower = |text: &str| composed(text).chars().flat_map(char::to_lowercase).collect::<String>();
    let has = |text: &str| lower(text).contains(&lower(wanted));
    let containing = Filter { text: Some(wanted.to_owned()), ..Filter::default() };
    let found = meter.measure(|| containing.accepts(&event));
    // A letter that becomes several in lower case may be found in part by the simple way.
    ensure(!found || has(name) || has(kind) || has(location), || {
        format!("`{wanted}` is found in {event:?}")
    })?;
    let of_type = Filter { types: vec![wanted.to_owned()], ..Filter::default() };
    let is_type = meter.measure(|| of_type.accepts(&event));
    ensure(is_type == (lower(wanted) == lower(kind)), || format!("`{wanted}` is `{kind}`: {is_type}"))?;
    let selection =
        Selection { types: vec![wanted.to_owned()], locations: vec![location.to_owned()], when: None };
    meter.measure(|| selection.accepts(NaiveDate::MIN, &event));
    let feed = "https://example.org/events".parse().map_err(|error| format!("{error}"))?;
    let address = selection.address(&feed);
    let sent: Vec<String> = address.query_pairs().map(|(_, value)| value.into_owned()).collect();
    ensure(sent.last() == Some(&composed(wanted)), || format!("`{wanted}` is sent as {address}"))?;
    Ok(u64::from(found) | u64::from(is_type) << 1)
}

fn condition(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let text = text(input);
    let condition = meter.measure(|| text.parse::<Condition>());
    if let Ok(condition) = &condition {
        ensure(condition.judge(CompactRuns::default().all()).is_err(), || {
            format!("{condition:?} is judged without a run")
        })?;
    }
    Ok(kind_of_result(&condition, |_| 1))
}
