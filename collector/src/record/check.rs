//! The documented health check: its words, and when it is satisfied.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};
use nix::errno::Errno;

use crate::python::{Exception, Kind, Moment, Value, fixed, load, normalise, os_error};
use crate::text::printable;

/// What the health check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the last run went well and is not too old.
    pub healthy: bool,
    /// What is printed: whole lines.
    pub lines: String,
}

/// Checks a health file. A run in the future is not too old.
#[must_use]
pub fn check(path: &Path, now: DateTime<Utc>, max_age_minutes: i64) -> Verdict {
    let path = normalise(path);
    let mut lines = String::new();
    let judged = match fs::metadata(&path) {
        Ok(_) => load(&path).and_then(|health| judge(&health, now, max_age_minutes, &mut lines)),
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
    Verdict { healthy, lines }
}

/// What Python's `Path.exists` takes for "no".
fn is_missing(error: &io::Error) -> bool {
    let missing = [Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP];
    error.raw_os_error().is_some_and(|number| missing.contains(&Errno::from_raw(number)))
}

/// Whether what the file holds is healthy; writes lines until something is wrong with it.
fn judge(
    health: &Value,
    now: DateTime<Utc>,
    max_age_minutes: i64,
    lines: &mut String,
) -> Result<bool, Exception> {
    let Value::Dict(health) = health else { return Err(health.not_subscriptable()) };
    let last_run = match health.get("last_run") {
        None => return Err(Exception::key("last_run")),
        Some(Value::Text(text)) => Moment::parse(text)?,
        Some(_) => return Err(Exception::other("fromisoformat: argument must be str")),
    };
    let age = last_run.minutes_till(now)?;
    if age > max_age_minutes {
        let _ = writeln!(
            lines,
            "ERROR: Last run was {age} minutes ago (threshold: {max_age_minutes} minutes)\n\
             HINT: Collector may be stuck or not running"
        );
        return Ok(false);
    }
    let status = health.get("status").unwrap_or(&Value::None);
    if !matches!(status, Value::Text(text) if text == "success") {
        let _ = writeln!(lines, "ERROR: Last run failed with status: {}", printable(status));
        if let Some(error) = health.get("error") {
            let _ = writeln!(lines, "ERROR: {}", printable(error));
        }
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
