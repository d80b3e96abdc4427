//! The health check: the documented one in its words, and the evidence beside it.
//!
//! A file with the documented members only is judged as documented, but for a run in the future. A file with any member of
//! [`Evidence`] must also hold evidence that is young enough.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use chrono::{DateTime, Utc};
use nix::errno::Errno;

use super::evidence::future_lines;
use super::health::{MAX_BYTES, evidence_in};
use super::{Evidence, Limits};
use crate::clock::CLOCK_TOLERANCE;
use crate::python::{Dict, Exception, Kind, Moment, Value, fixed, normalise, os_error, parse, read};
use crate::text::printable;

/// The result of the health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Whether the last run succeeded, is not too old, and the evidence shows health.
    pub healthy: bool,
    /// What is printed: whole lines.
    pub lines: String,
}

impl HealthCheck {
    /// Takes over what is wrong beside the health file.
    pub(crate) fn add_fault(&mut self, fault: String) {
        self.lines = if self.healthy { fault } else { fault + &self.lines };
        self.healthy = false;
    }
}

/// Checks a health file.
#[must_use]
pub fn check(path: &Path, now: DateTime<Utc>, limits: &Limits) -> HealthCheck {
    let path = normalise(path);
    let mut lines = String::new();
    let judged = match fs::metadata(&path).map(|metadata| metadata.file_type()) {
        // Reading would wait for a writer.
        Ok(kind) if kind.is_fifo() || kind.is_socket() => {
            Err(Exception::other(format!("not a regular file: '{}'", path.display())))
        }
        Ok(_) => read(&path, MAX_BYTES).and_then(|text| judge(&text, now, limits, &mut lines)),
        Err(error) if is_missing(&error) => {
            lines = format!(
                "ERROR: Health file not found at {}\nHINT: Collector may never have run successfully\n",
                path.display()
            );
            Ok(false)
        }
        Err(error) => Err(os_error(&error, &path)),
    };
    let healthy = judged.unwrap_or_else(|error| {
        let what = match error.kind {
            Kind::Syntax => "Invalid JSON in health file",
            Kind::Key => "Missing required field in health data",
            Kind::Value => "Invalid datetime format",
            Kind::Other => "Unexpected error",
        };
        let _ = writeln!(lines, "ERROR: {what}: {}", printable(error));
        false
    });
    HealthCheck { healthy, lines }
}

/// What Python's `Path.exists` takes for "no".
fn is_missing(error: &io::Error) -> bool {
    let missing = [Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP];
    error.raw_os_error().is_some_and(|number| missing.contains(&Errno::from_raw(number)))
}

/// Whether a file's content shows health; writes lines until something is wrong with it.
pub(crate) fn judge(
    text: &[u8],
    now: DateTime<Utc>,
    limits: &Limits,
    lines: &mut String,
) -> Result<bool, Exception> {
    let health = parse(text)?;
    let Value::Dict(health) = &health else { return Err(health.not_subscriptable()) };
    let (age, is_good) = judge_run(health, now, limits.max_age_minutes, lines)?;
    let reasons = evidence(health, text).map_or_else(Vec::new, |evidence| evidence.judge(now, limits));
    for reason in &reasons {
        let _ = writeln!(lines, "{reason}");
    }
    if !is_good || !reasons.is_empty() {
        return Ok(false);
    }
    let _ = writeln!(lines, "OK: Collector is healthy\n  Last run: {age} minutes ago");
    match health.get("events_processed") {
        Some(events) => {
            let _ = writeln!(lines, "  Events processed: {}", printable(events));
        }
        None => lines.push_str("  Events processed: 0\n"),
    }
    let seconds = health.get("execution_time").map_or(Ok(0.0), seconds)?;
    let _ = writeln!(lines, "  Execution time: {}s", fixed(seconds, 2));
    Ok(true)
}

/// The documented judgement of the last run: its age in minutes, and whether it is good.
fn judge_run(
    health: &Dict,
    now: DateTime<Utc>,
    max_age_minutes: i64,
    lines: &mut String,
) -> Result<(i64, bool), Exception> {
    let (last_run, text) = match health.get("last_run") {
        None => return Err(Exception::key("last_run")),
        Some(Value::Text(text)) => (Moment::parse(text)?, text),
        Some(_) => return Err(Exception::other("fromisoformat: argument must be str")),
    };
    let age = last_run.minutes_till(now)?;
    if age < -CLOCK_TOLERANCE.num_minutes() {
        *lines += &future_lines("Last run", text, now);
        return Ok((age, false));
    }
    if age > max_age_minutes {
        let _ = writeln!(
            lines,
            "ERROR: Last run was {age} minutes ago (threshold: {max_age_minutes} minutes)\n\
             HINT: Collector may be stuck or not running"
        );
        return Ok((age, false));
    }
    let status = health.get("status").unwrap_or(&Value::None);
    let is_good = matches!(status, Value::Text(text) if text == "success");
    if !is_good {
        let _ = writeln!(lines, "ERROR: Last run failed with status: {}", printable(status));
        if let Some(error) = health.get("error") {
            let _ = writeln!(lines, "ERROR: {}", printable(error));
        }
    }
    Ok((age, is_good))
}

/// The evidence in a health file; nothing if it has the documented members only.
fn evidence(health: &Dict, text: &[u8]) -> Option<Evidence> {
    let members = serde_json::to_value(Evidence::default()).ok()?;
    let is_ours = members.as_object()?.keys().any(|name| health.contains_key(name));
    is_ours.then(|| evidence_in(text))
}

fn seconds(value: &Value) -> Result<f64, Exception> {
    match value {
        Value::Number(number) if number.overflows() => {
            Err(Exception::other("int too large to convert to float"))
        }
        Value::Number(number) => Ok(number.to_f64()),
        Value::Text(_) => Err(Exception::value("Unknown format code 'f' for object of type 'str'")),
        _ => Err(Exception::other(format!(
            "unsupported format string passed to {}.__format__",
            value.type_name()
        ))),
    }
}
