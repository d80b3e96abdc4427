//! The documented trend report over the records that runs leave.
//!
//! `record::history` finds the records, packed ones included. This module reads them as Python's `json` does and prints them as
//! the documented script prints them: [`Runs::load`] keeps of each record only the numbers that the report needs, and
//! [`Report`] writes it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use crate::python::{Dict, Exception, Number, Value, normalise, parse, read};
use crate::record::history::{
    MAX_RECORD_BYTES, Skipped, each_line, on_all_processors, one_line, open_packed, packed_files,
    record_files,
};

mod report;

pub use report::Report;

/// The steps of a run that the report names.
const OPERATIONS: [&str; 5] =
    ["api_fetch", "metadata_fetch", "deduplication", "save_events", "metadata_update"];

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
    total_time: Option<Compact>,
    /// In seconds, in the order of [`OPERATIONS`].
    timings: [Option<Compact>; OPERATIONS.len()],
    /// None if the record has no counts at all.
    new_events: Option<Compact>,
    errors: usize,
}

/// A number in 16 bytes.
#[derive(Debug)]
enum Compact {
    Float(f64),
    Int(i64),
    /// What is rare.
    Other(Box<Number>),
}

impl From<Number> for Compact {
    fn from(number: Number) -> Self {
        match number {
            Number::Float(value) => Self::Float(value),
            Number::Int(ref value) => {
                i64::try_from(value).map_or_else(|_| Self::Other(Box::new(number.clone())), Self::Int)
            }
            Number::Bool(_) => Self::Other(Box::new(number)),
        }
    }
}

impl From<&Compact> for Number {
    fn from(compact: &Compact) -> Self {
        match compact {
            Compact::Float(value) => Self::Float(*value),
            Compact::Int(value) => Self::Int((*value).into()),
            Compact::Other(number) => (**number).clone(),
        }
    }
}

impl Runs {
    /// Reads every `metrics_*.json` of a folder, and what was packed of them. A folder that does not exist has none.
    ///
    /// # Errors
    /// If the folder cannot be listed. A file that cannot be read is skipped and named in the report.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let folder = normalise(folder);
        let (paths, packed) = match record_files(&folder, |_| true) {
            Ok(paths) => (paths, packed_files(&folder)?),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error),
        };
        let mut runs = Self::default();
        // Packing that was interrupted leaves a record in both places.
        let mut known = HashSet::new();
        for path in packed.into_iter().filter(|path| is_of_packing(path)) {
            runs.read_packed(&path, &mut known);
        }
        let read_share = |_, paths: &[PathBuf]| {
            let mut part = Self::default();
            for path in paths.iter().map(|path| normalise(path)) {
                let text = check_size(&path).and_then(|()| read(&path, u64::MAX));
                let is_known = || text.as_ref().is_ok_and(|text| known.contains(&digest(text)));
                if known.is_empty() || !is_known() {
                    part.take(|| path.display().to_string(), text.as_deref().map_err(Clone::clone));
                }
            }
            part
        };
        on_all_processors(&paths, read_share, |part| {
            runs.samples.extend(part.samples);
            runs.skipped.extend(part.skipped);
            Ok(())
        })?;
        Ok(runs)
    }

    fn read_packed(&mut self, path: &Path, known: &mut HashSet<u64>) {
        let place = path.display().to_string();
        let read = open_packed(path).and_then(|lines| {
            each_line(lines, |number, line| {
                known.extend(line.as_ref().map(|line| digest(line)));
                self.take(|| format!("{place}, line {number}"), line.map_err(Exception::value));
                Ok(())
            })
        });
        if let Err(error) = read {
            self.skipped.push(Skipped { place, reason: error.to_string() });
        }
    }

    fn take(&mut self, place: impl FnOnce() -> String, text: Result<&[u8], Exception>) {
        match text.and_then(parse).and_then(|record| Sample::new(&record)) {
            Ok(sample) => self.samples.push(sample),
            Err(error) => self.skipped.push(Skipped { place: place(), reason: error.message }),
        }
    }
}

/// Whether packing wrote a file; the documented script knows no other files than records.
fn is_of_packing(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    name.starts_with("metrics_") && name.ends_with(".jsonl.gz")
}

/// Separates records, wherever their lines break.
fn digest(text: &[u8]) -> u64 {
    XxHash3_64::oneshot(one_line(text).as_bytes())
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

impl Sample {
    pub(crate) fn new(record: &Value) -> Result<Self, Exception> {
        let Value::Dict(record) = record else { return Err(record.not_assignable()) };
        let total_time = record.get("total_time").map(|value| number("total_time", value)).transpose()?;
        if total_time.as_ref().is_some_and(|seconds| !seconds.to_f64().is_finite()) {
            return Err(refusal("total_time", "not finite"));
        }
        Ok(Self {
            total_time: total_time.map(Compact::from),
            timings: timings(record)?.map(|time| time.map(Compact::from)),
            new_events: record.get("counts").map(new_events).transpose()?.map(Compact::from),
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
