//! The records of runs, of the documented collector and of this one, read for analysis.
//!
//! Only a record's time is required; what else it does not say is missing. What is no record is skipped and named.

use std::fs;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::thread;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::quantity::{OPERATIONS, Quantity};
use crate::files::read_regular;

/// A record is at most as long; a folder of strangers' files shall not fill the memory.
pub(super) const MOST_RECORD_BYTES: u64 = 1 << 20;

/// A run, as its record tells of it.
#[derive(Debug, Clone)]
pub struct Run {
    /// When it began.
    pub start: DateTime<Utc>,
    /// Whether it failed.
    pub failed: bool,
    /// Whether events may have been missed before it.
    pub possible_gap: bool,
    /// The kinds of its errors.
    pub errors: Box<[Box<str>]>,
    /// In seconds.
    pub(super) total_time: Option<f64>,
    /// In seconds, in the order of [`OPERATIONS`].
    pub(super) timings: [Option<f64>; OPERATIONS.len()],
    pub(super) counts: Counts,
    pub(super) memory_bytes: Option<f64>,
    pub(super) cpu_s: Option<f64>,
    pub(super) wire_bytes: Option<f64>,
    pub(super) attempts: Option<f64>,
}

/// What is counted in a record.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    pub(super) api_events_total: Option<f64>,
    pub(super) api_response_bytes: Option<f64>,
    pub(super) api_response_kb: Option<f64>,
    pub(super) new_events_count: Option<f64>,
    pub(super) buffer_overlap: Option<f64>,
    pub(super) revisions_count: Option<f64>,
    pub(super) objects_written: Option<f64>,
    pub(super) bytes_written: Option<f64>,
}

impl Counts {
    /// The documented collector may say it in KiB only.
    pub(super) fn response_bytes(&self) -> Option<f64> {
        self.api_response_bytes.or(self.api_response_kb.map(|kib| kib * 1024.0))
    }
}

impl Run {
    /// What a quantity was in this run, if the record says so.
    #[must_use]
    pub fn get(&self, quantity: Quantity) -> Option<f64> {
        quantity.of(self)
    }

    /// Starts are told to the microsecond.
    fn is_same(&self, other: &Self) -> bool {
        (self.start, self.total_time, self.failed) == (other.start, other.total_time, other.failed)
    }

    pub(crate) fn parse(text: &[u8], now: DateTime<Utc>) -> Result<Self, String> {
        let record: Record = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let start = record.start()?;
        if start.timestamp() < EARLIEST || start > now + TimeDelta::days(1) {
            return Err(format!("its clock was wrong: {}", start.format("%Y-%m-%d %H:%M")));
        }
        let errors: Box<[Box<str>]> =
            record.errors.into_iter().map(|error| error.kind.unwrap_or_else(|| "unknown".into())).collect();
        let process = record.process.unwrap_or_default();
        let http = record.http.unwrap_or_default();
        Ok(Self {
            start,
            // The documented collector does not say; with an error it has failed.
            failed: record.status.map_or(!errors.is_empty(), |status| status != "success"),
            possible_gap: record.possible_gap,
            errors,
            total_time: record.total_time,
            timings: OPERATIONS.map(|(name, ..)| record.timings.get(name)),
            counts: record.counts,
            memory_bytes: process.peak_memory_bytes,
            cpu_s: process.cpu_user_s.zip(process.cpu_system_s).map(|(user, system)| user + system),
            wire_bytes: http.wire_bytes,
            attempts: http.attempts,
        })
    }
}

/// 2000-01-01: a machine without a clock of its own starts in 1970.
const EARLIEST: i64 = 946_684_800;

/// What is read of a record.
#[derive(Deserialize)]
struct Record {
    start_time: Option<f64>,
    timestamp: Option<String>,
    status: Option<String>,
    total_time: Option<f64>,
    #[serde(default)]
    possible_gap: bool,
    #[serde(default)]
    timings: Timings,
    #[serde(default)]
    counts: Counts,
    #[serde(default)]
    errors: Vec<Error>,
    process: Option<Process>,
    http: Option<Http>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(rename = "type")]
    kind: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
struct Process {
    peak_memory_bytes: Option<f64>,
    cpu_user_s: Option<f64>,
    cpu_system_s: Option<f64>,
}

#[derive(Default, Deserialize)]
struct Http {
    attempts: Option<f64>,
    wire_bytes: Option<f64>,
}

/// Times by the names of the operations; few, so that a list is fast enough.
#[derive(Default)]
struct Timings(Vec<(String, Option<f64>)>);

impl Timings {
    fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).and_then(|(_, time)| *time)
    }
}

impl<'de> Deserialize<'de> for Timings {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Timings;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("times by the names of operations")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Timings, A::Error> {
                let mut timings = Vec::new();
                while let Some(member) = map.next_entry()? {
                    timings.push(member);
                }
                Ok(Timings(timings))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Record {
    /// By its timestamp: the documented collector's `start_time` counts from when its machine was started.
    fn start(&self) -> Result<DateTime<Utc>, String> {
        let Some(text) = self.timestamp.as_deref() else {
            let seconds = self.start_time.ok_or("it does not say when the run was")?;
            let start = DateTime::from_timestamp_micros((seconds * 1e6) as i64);
            return start.ok_or_else(|| format!("its start_time is {seconds}"));
        };
        let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        let local = || text.parse::<NaiveDateTime>().map(|time| time.and_utc());
        zoned.or_else(|_| local()).map_err(|_| format!("its timestamp is `{text}`"))
    }
}

/// Something that is no record, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file, and the line if it has many.
    pub place: String,
    /// Why.
    pub reason: String,
}

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A folder, of which every `metrics_*.json`, `*.jsonl` and `*.jsonl.gz` is read; or such a file.
    Path(PathBuf),
    /// JSON Lines on standard input.
    Stdin,
}

/// A time of which reports tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// Runs that began then or later.
    pub since: Option<DateTime<Utc>>,
    /// Runs that began earlier than that.
    pub until: Option<DateTime<Utc>>,
    /// Runs that began at most so long before the last one.
    pub last: Option<TimeDelta>,
}

/// Runs in the order of their starts, and what was skipped.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// In the order of their starts.
    pub runs: Vec<Run>,
    /// In the order of reading.
    pub skipped: Vec<Skipped>,
}

impl History {
    /// Reads records. `now` tells which clocks were wrong.
    ///
    /// # Errors
    /// If an input does not exist or cannot be read; a record that cannot be read is skipped and named.
    pub fn read(inputs: &[Input], now: DateTime<Utc>) -> io::Result<Self> {
        let mut history = Self::default();
        for input in inputs {
            match input {
                Input::Stdin => history.read_lines(io::stdin().lock(), "standard input", now)?,
                Input::Path(path) => history.read_path(path, now)?,
            }
        }
        history.runs.sort_by_key(|run| run.start);
        // One that was packed and not removed yet.
        history.runs.dedup_by(|one, other| one.is_same(other));
        Ok(history)
    }

    /// Leaves out the runs of other times.
    pub fn keep(&mut self, period: &Period) {
        let Period { since, until, last } = *period;
        self.runs.retain(|run| {
            since.is_none_or(|since| run.start >= since) && until.is_none_or(|until| run.start < until)
        });
        if let Some((last, newest)) = last.zip(self.runs.last().map(|run| run.start)) {
            self.runs.retain(|run| newest - run.start <= last);
        }
    }

    fn read_path(&mut self, path: &Path, now: DateTime<Utc>) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if !fs::metadata(path).map_err(named)?.is_dir() {
            return if is_packed(path) {
                self.read_packed(path, now).map_err(named)
            } else {
                self.read_records(&[path.to_owned()], now)
            };
        }
        let (records, packed) = (record_files(path).map_err(named)?, packed_files(path).map_err(named)?);
        for path in packed {
            // Within a folder, one that cannot be read is skipped like a record.
            if let Err(error) = self.read_packed(&path, now) {
                self.skipped.push(Skipped { place: path.display().to_string(), reason: error.to_string() });
            }
        }
        self.read_records(&records, now)
    }

    /// Reads files of one record each, on all processors.
    fn read_records(&mut self, paths: &[PathBuf], now: DateTime<Utc>) -> io::Result<()> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = paths.len().div_ceil(threads).max(1);
        let read = |paths: &[PathBuf]| {
            let mut part = Self::default();
            for path in paths {
                match read_record(path, now) {
                    Ok(run) => part.runs.push(run),
                    Err(reason) => part.skipped.push(Skipped { place: path.display().to_string(), reason }),
                }
            }
            part
        };
        let parts: Vec<thread::Result<Self>> = thread::scope(|scope| {
            let readers: Vec<_> = paths.chunks(share).map(|paths| scope.spawn(move || read(paths))).collect();
            readers.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for part in parts {
            let part = part.map_err(|_| io::Error::other("a reader broke off"))?;
            self.runs.extend(part.runs);
            self.skipped.extend(part.skipped);
        }
        Ok(())
    }

    fn read_packed(&mut self, path: &Path, now: DateTime<Utc>) -> io::Result<()> {
        let file = fs::File::open(path)?;
        let place = path.display().to_string();
        if path.extension().is_some_and(|extension| extension == "gz") {
            self.read_lines(BufReader::new(MultiGzDecoder::new(file)), &place, now)
        } else {
            self.read_lines(BufReader::new(file), &place, now)
        }
    }

    pub(crate) fn read_lines(
        &mut self,
        mut lines: impl BufRead,
        place: &str,
        now: DateTime<Utc>,
    ) -> io::Result<()> {
        let mut line = Vec::new();
        for number in 1_usize.. {
            line.clear();
            // What is longer is not a record, and nothing behind it can be trusted: a packed file of a few bytes may
            // unpack to any length.
            if lines.by_ref().take(MOST_RECORD_BYTES + 1).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if line.len() as u64 > MOST_RECORD_BYTES {
                let reason = "the line is too large for a record".to_owned();
                self.skipped.push(Skipped { place: format!("{place}, line {number}"), reason });
                break;
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match Run::parse(&line, now) {
                Ok(run) => self.runs.push(run),
                Err(reason) => {
                    self.skipped.push(Skipped { place: format!("{place}, line {number}"), reason });
                }
            }
        }
        Ok(())
    }
}

/// The files of one record each in a folder, by name.
pub(super) fn record_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    files(folder, is_record)
}

fn packed_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    files(folder, is_packed)
}

fn files(folder: &Path, wanted: fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if wanted(&path) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn read_record(path: &Path, now: DateTime<Utc>) -> Result<Run, String> {
    let text = read_regular(path, MOST_RECORD_BYTES).map_err(|error| error.to_string())?;
    Run::parse(&text, now)
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn is_packed(path: &Path) -> bool {
    let name = name_of(path);
    name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".jsonl").is_some()
}

fn is_record(path: &Path) -> bool {
    name_of(path).strip_prefix("metrics_").is_some_and(|rest| rest.strip_suffix(".json").is_some())
}
