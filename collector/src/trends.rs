//! The documented trend report over the records that runs leave.
//!
//! [`Runs::load`] keeps of each record only the numbers that reports need; [`Report`] writes one.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::python::{Dict, Exception, Number, Value, load, normalise};

mod report;

pub use report::Report;

/// The steps of a run that the report names.
const OPERATIONS: [&str; 5] =
    ["api_fetch", "metadata_fetch", "deduplication", "save_events", "metadata_update"];

/// Maximum size of a record.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// The runs of a folder of records, in the order of the names.
#[derive(Debug, Default)]
pub struct Runs {
    samples: Vec<Sample>,
    skipped: Vec<Skipped>,
}

/// What is kept of a record.
#[derive(Debug)]
pub(crate) struct Sample {
    /// In seconds.
    total_time: Option<Number>,
    /// In seconds, in the order of [`OPERATIONS`].
    timings: [Option<Number>; OPERATIONS.len()],
    /// None if the record has no counts at all.
    new_events: Option<Number>,
    errors: usize,
}

/// A record that says nothing that could be reported, and why.
#[derive(Debug)]
struct Skipped {
    path: PathBuf,
    reason: String,
}

impl Runs {
    /// Reads every `metrics_*.json` of a folder. A folder that does not exist has none.
    ///
    /// # Errors
    /// If the folder cannot be listed. A file that cannot be read is skipped and named in the report.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let mut runs = Self::default();
        for path in record_paths(folder)? {
            match check_size(&path).and_then(|()| load(&path)).and_then(|record| Sample::of(&record)) {
                Ok(sample) => runs.samples.push(sample),
                Err(error) => runs.skipped.push(Skipped { path, reason: error.message }),
            }
        }
        Ok(runs)
    }
}

/// Refuses what would fill the memory, or never end.
fn check_size(path: &Path) -> Result<(), Exception> {
    match fs::metadata(path) {
        Ok(file) if file.is_file() && file.len() > MAX_RECORD_BYTES => {
            Err(Exception::value(format!("the file is larger than {MAX_RECORD_BYTES} bytes")))
        }
        Ok(file) if !file.is_file() && !file.is_dir() => Err(Exception::value("it is not a regular file")),
        _ => Ok(()),
    }
}

fn record_paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = normalise(folder);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let bytes = name.as_bytes();
        if bytes.strip_prefix(b"metrics_").is_some_and(|rest| rest.ends_with(b".json")) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names.into_iter().map(|name| normalise(&folder.join(name))).collect())
}

impl Sample {
    pub(crate) fn of(record: &Value) -> Result<Self, Exception> {
        let Value::Dict(record) = record else { return Err(record.not_assignable()) };
        let total_time = record.get("total_time").map(|value| number("total_time", value)).transpose()?;
        if total_time.as_ref().is_some_and(|seconds| !seconds.to_f64().is_finite()) {
            return Err(refusal("total_time", "not finite"));
        }
        Ok(Self {
            total_time,
            timings: timings(record)?,
            new_events: record.get("counts").map(new_events).transpose()?,
            errors: record.get("errors").map_or(Ok(0), length)?,
        })
    }
}

fn timings(record: &Dict) -> Result<[Option<Number>; OPERATIONS.len()], Exception> {
    let mut times = [const { None }; OPERATIONS.len()];
    let names_a_step = match record.get("timings") {
        None => false,
        Some(Value::Dict(timings)) => {
            for (time, operation) in times.iter_mut().zip(OPERATIONS) {
                *time = timings.get(operation).map(|value| number(operation, value)).transpose()?;
            }
            false
        }
        // Python takes these for objects without a member, unless a step's name is in them.
        Some(Value::List(items)) => {
            items.iter().any(|item| matches!(item, Value::Text(text) if OPERATIONS.contains(&text.as_str())))
        }
        Some(Value::Text(text)) => OPERATIONS.iter().any(|operation| text.contains(operation)),
        Some(_) => true,
    };
    if names_a_step { Err(refusal("timings", "not an object")) } else { Ok(times) }
}

fn new_events(counts: &Value) -> Result<Number, Exception> {
    let Value::Dict(counts) = counts else { return Err(refusal("counts", "not an object")) };
    let none = || Ok(Number::Int(0.into()));
    counts.get("new_events_count").map_or_else(none, |value| number("new_events_count", value))
}

fn length(errors: &Value) -> Result<usize, Exception> {
    match errors {
        Value::List(items) => Ok(items.len()),
        Value::Dict(members) => Ok(members.len()),
        Value::Text(text) => Ok(text.chars().count()),
        _ => Err(refusal("errors", "not a list")),
    }
}

fn number(field: &str, value: &Value) -> Result<Number, Exception> {
    match value {
        Value::Number(number) if number.overflows() => Err(refusal(field, "too large")),
        Value::Number(number) => Ok(number.clone()),
        _ => Err(refusal(field, "not a number")),
    }
}

/// Why a record cannot be reported.
fn refusal(field: &str, what: &str) -> Exception {
    Exception::value(format!("{field} is {what}"))
}
