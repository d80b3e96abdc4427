//! Reads the text of a value, and writes a default as text.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use bytesize::ByteSize;
use chrono::NaiveDate;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use tracing::level_filters::LevelFilter;
use url::Url;

use super::folders;
use crate::archive::InvalidCursor;
use crate::files::check_folder;
use crate::publish::Beginning;
use crate::store::SignerKind;

/// A day, such as 2026-01-31.
pub(crate) fn day(text: &str) -> Result<NaiveDate, &'static str> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| "not a day such as 2026-01-31")
}

/// Refuses a period whose first day is after its last.
pub(crate) fn check_period(from: Option<NaiveDate>, to: Option<NaiveDate>) -> anyhow::Result<()> {
    match (from, to) {
        (Some(from), Some(to)) if from > to => bail!("--from {from} is after --to {to}"),
        _ => Ok(()),
    }
}

/// The address of a service. It is shown and logged.
pub(super) fn service_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a valid address: {error}"))?;
    if url.username().is_empty() && url.password().is_none() {
        Ok(url)
    } else {
        Err("a user name or password would end up in logs".to_owned())
    }
}

/// The address that the service listens on, if any.
pub(crate) type Listener = Option<SocketAddr>;

pub(super) fn time(text: &str) -> Result<Duration, &'static str> {
    let plain_seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    plain_seconds
        .map_or_else(|| humantime::parse_duration(text), Ok)
        .map_err(|_| "not a time such as 30s or 10m")
}

/// Writes a time as [`time`] reads it.
pub(super) fn time_text(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

pub(crate) fn positive_time(text: &str) -> Result<Duration, &'static str> {
    time(text).and_then(|time| if time.is_zero() { Err("must be more than nothing") } else { Ok(time) })
}

pub(super) fn interval(text: &str) -> Result<Duration, &'static str> {
    let allowed = Duration::from_secs(10)..=Duration::from_hours(24);
    time(text)
        .and_then(|time| if allowed.contains(&time) { Ok(time) } else { Err("must be from 10s to 24h") })
}

/// The maximum age of the last run in minutes, where none is set: one poll may be missed, and a run may take its time.
pub(super) fn max_age_minutes(interval: Duration) -> i64 {
    let minutes = interval.as_secs().div_ceil(60);
    i64::try_from(minutes + (minutes / 2).max(15)).unwrap_or(i64::MAX)
}

pub(super) fn count<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "not a whole number, or too large")
}

pub(super) fn positive_count(text: &str) -> Result<usize, &'static str> {
    count(text).and_then(|count| if count == 0 { Err("must be at least 1") } else { Ok(count) })
}

pub(super) fn minutes(text: &str) -> Result<i64, &'static str> {
    count(text).and_then(|minutes| if minutes < 0 { Err("must not be negative") } else { Ok(minutes) })
}

pub(super) fn share(text: &str) -> Result<f64, &'static str> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |percent| (percent.trim_end(), 100.0));
    let share = number.parse::<f64>().map(|number| number / unit);
    share.ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("not a share such as 20% or 0.2")
}

/// Writes a share as [`share`] reads it.
pub(super) fn share_text(share: f64) -> String {
    format!("{}%", share * 100.0)
}

pub(crate) fn size(text: &str) -> Result<u64, &'static str> {
    let size = text.parse::<ByteSize>().ok().map(|size| size.as_u64());
    size.filter(|&size| size > 0).ok_or("not a size such as 32MB")
}

pub(super) fn header_text(text: &str) -> Result<String, &'static str> {
    let is_printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if is_printable { Ok(text.to_owned()) } else { Err("not allowed in an HTTP header") }
}

pub(super) fn beginning(text: &str) -> Result<Beginning, String> {
    if text == "start" {
        return Ok(Beginning::Start);
    }
    text.parse()
        .map(Beginning::After)
        .map_err(|error: InvalidCursor| format!("neither `start` nor a cursor: {error}"))
}

pub(super) fn ocid(text: &str) -> Result<String, &'static str> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if is_plain { Ok(text.to_owned()) } else { Err("not an OCID") }
}

pub(super) fn listener(text: &str) -> Result<Listener, &'static str> {
    match text {
        "off" => Ok(None),
        address => address.parse().map(Some).map_err(|_| "not an address such as 127.0.0.1:9464, or off"),
    }
}

/// The folder for state; that of the environment where none is named.
pub(super) fn state_folder(text: &str) -> Result<PathBuf, String> {
    folder_or(text, folders::state)
}

/// The folder for the cache; that of the environment where none is named.
pub(super) fn cache_folder(text: &str) -> Result<PathBuf, String> {
    folder_or(text, folders::cache)
}

/// A folder that exists, or can be made.
fn folder_or(text: &str, default: fn() -> anyhow::Result<PathBuf>) -> Result<PathBuf, String> {
    if text.is_empty() {
        return default().map_err(|error| error.to_string());
    }
    check_folder(Path::new(text)).map(|()| PathBuf::from(text)).map_err(|error| error.to_string())
}

pub(super) fn log_level() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"])
        .try_map(|level| level.parse::<LevelFilter>())
}

/// Values and the names of each.
pub(crate) type Names<T> = &'static [(&'static [&'static str], T)];

/// A parser of names, each list of which stands for a value. The first name of a list is shown.
pub(crate) fn names<T: Clone + Send + Sync + 'static>(known: Names<T>) -> impl TypedValueParser<Value = T> {
    let shown = known.iter().filter_map(|(names, _)| {
        let (first, others) = names.split_first()?;
        Some(PossibleValue::new(*first).aliases(others))
    });
    PossibleValuesParser::new(shown).try_map(move |text| {
        let found = known.iter().find(|(names, _)| names.contains(&text.as_str()));
        found.map(|(_, value)| value.clone()).ok_or("not a known name")
    })
}

pub(super) fn signer() -> impl TypedValueParser<Value = SignerKind> {
    PossibleValuesParser::new(["built-in", "oci-rust-sdk"]).try_map(|name| match name.as_str() {
        "built-in" => Ok(SignerKind::BuiltIn),
        #[cfg(feature = "oci-rust-sdk")]
        _ => Ok::<_, &str>(SignerKind::OciRustSdk),
        #[cfg(not(feature = "oci-rust-sdk"))]
        _ => Err("this program was built without the feature oci-rust-sdk"),
    })
}
