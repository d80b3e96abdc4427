//! Reads many records: folders of files, packed files, standard input.
//!
//! What is not a record is skipped and named. Each record is read by [`RunRecord::parse`].

use std::fs;
use std::io::{self, BufRead, BufReader, Read as _};
use std::mem;
use std::path::{Path, PathBuf};
use std::thread;

use chrono::{DateTime, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use flate2::read::MultiGzDecoder;

use super::compact::{CompactRun, CompactRuns};
use super::run_record::RunRecord;
use crate::files::{descriptors, read_regular};
use crate::quantity::Quantity;

/// Maximum size of a record; a folder of foreign files must not fill the memory.
pub(crate) const MAX_RECORD_BYTES: u64 = 1 << 20;

/// Number of records that a thread works on at a time.
const SHARE: usize = 512;
/// Number of lines, and of bytes in them, that are read before they are parsed, on several threads.
const LINES: usize = 8 * SHARE;
const LINES_BYTES: usize = 16 << 20;

/// The number of a line and its text, or why it cannot be a record.
type NumberedLine = (usize, Result<Vec<u8>, String>);
/// Maximum difference between the start of a run and the time in the name of its record: the documented collector names its
/// records by local time.
const NAME_TOLERANCE: TimeDelta = TimeDelta::hours(26);

/// A file or line that is not a valid record, and why.
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

/// The period that a report covers.
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
    pub runs: CompactRuns,
    /// In the order of reading.
    pub skipped: Vec<Skipped>,
}

impl History {
    /// Reads records. Records later than `now` were made with a wrong clock.
    ///
    /// # Errors
    /// If an input does not exist or cannot be read; a record that cannot be read is skipped and named.
    pub fn read(inputs: &[Input], now: DateTime<Utc>) -> io::Result<Self> {
        Self::read_named(inputs, now, &NamedPeriod::default())
    }

    /// Reads the records of a period. Of a folder only the files are read whose names allow that they belong to it.
    ///
    /// # Errors
    /// As for [`History::read`].
    pub fn read_period(inputs: &[Input], now: DateTime<Utc>, period: &Period) -> io::Result<Self> {
        let names = NamedPeriod::new(inputs, now, period);
        let mut history = Self::read_named(inputs, now, &names)?;
        if period.last.is_some() && !names.covers_last(period, history.runs.all().last()) {
            // The file with the latest name does not hold the last run.
            history = Self::read(inputs, now)?;
        }
        history.keep(period);
        Ok(history)
    }

    fn read_named(inputs: &[Input], now: DateTime<Utc>, names: &NamedPeriod) -> io::Result<Self> {
        let mut history = Self::default();
        for input in inputs {
            match input {
                Input::Stdin => history.read_lines(io::stdin().lock(), "standard input", now)?,
                Input::Path(path) => history.read_path(path, now, names)?,
            }
        }
        history.runs.sort();
        // One that was packed and not removed yet.
        history.runs.dedup_by(is_same);
        Ok(history)
    }

    /// Leaves out the runs of other times.
    pub fn keep(&mut self, period: &Period) {
        let Period { since, until, last } = *period;
        self.runs.retain(|start| {
            since.is_none_or(|since| start >= since) && until.is_none_or(|until| start < until)
        });
        if let Some((last, newest)) = last.zip(self.runs.all().last()) {
            self.runs.retain(|start| newest.start - start <= last);
        }
    }

    fn read_path(&mut self, path: &Path, now: DateTime<Utc>, wanted: &NamedPeriod) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if !fs::metadata(path).map_err(named)?.is_dir() {
            let name = path.file_name().and_then(|name| name.to_str());
            return if name.is_some_and(is_packed) {
                self.read_packed(path, now).map_err(named)
            } else {
                self.read_records(&[path.to_owned()], now)
            };
        }
        let records = record_files(path, |name| wanted.allows(name)).map_err(named)?;
        let packed = files(path, |name| is_packed(name) && wanted.allows(name)).map_err(named)?;
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
        let read = |_, paths: &[PathBuf]| -> Vec<Result<RunRecord, Skipped>> {
            let skipped = |path: &Path, reason| Skipped { place: path.display().to_string(), reason };
            paths.iter().map(|path| read_record(path, now).map_err(|reason| skipped(path, reason))).collect()
        };
        on_all_processors(paths, read, |part| {
            for read in part {
                self.take(read);
            }
            Ok(())
        })
    }

    fn read_packed(&mut self, path: &Path, now: DateTime<Utc>) -> io::Result<()> {
        let place = path.display().to_string();
        self.read_lines(open_packed(path)?, &place, now)
    }

    pub(crate) fn read_lines(
        &mut self,
        lines: impl BufRead,
        place: &str,
        now: DateTime<Utc>,
    ) -> io::Result<()> {
        let (mut waiting, mut waiting_bytes) = (Vec::new(), 0);
        let read = each_line(lines, |number, line| {
            waiting_bytes += line.as_ref().map_or(0, |line| line.len());
            waiting.push((number, line.map(<[u8]>::to_vec)));
            if waiting.len() < LINES && waiting_bytes < LINES_BYTES {
                return Ok(());
            }
            waiting_bytes = 0;
            self.parse_lines(&mem::take(&mut waiting), place, now)
        });
        // What stands before the place from which on a file cannot be read counts as well.
        self.parse_lines(&waiting, place, now)?;
        read
    }

    /// Parses lines on all processors.
    fn parse_lines(&mut self, lines: &[NumberedLine], place: &str, now: DateTime<Utc>) -> io::Result<()> {
        let skipped = |number, reason| Skipped { place: format!("{place}, line {number}"), reason };
        let read = |_, lines: &[NumberedLine]| -> Vec<Result<RunRecord, Skipped>> {
            let records = lines.iter().map(|(number, line)| {
                let record = line.as_ref().map_err(String::clone).and_then(|line| parsed(line, now));
                record.map_err(|reason| skipped(*number, reason))
            });
            records.collect()
        };
        on_all_processors(lines, read, |part| {
            for read in part {
                self.take(read);
            }
            Ok(())
        })
    }

    fn take(&mut self, read: Result<RunRecord, Skipped>) {
        match read {
            Ok(run) => self.runs.push(run),
            Err(skipped) => self.skipped.push(skipped),
        }
    }
}

/// Selects files of the wanted period by their names.
#[derive(Debug, Clone, Copy, Default)]
struct NamedPeriod {
    from: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

impl NamedPeriod {
    fn new(inputs: &[Input], now: DateTime<Utc>, period: &Period) -> Self {
        let until = period.until.and_then(|until| until.checked_add_signed(NAME_TOLERANCE));
        let last = period.last.filter(|_| !inputs.contains(&Input::Stdin));
        let last = last.and_then(|last| newest_name(inputs, now, period.until)?.checked_sub_signed(last));
        let from = period.since.max(last).and_then(|from| from.checked_sub_signed(NAME_TOLERANCE));
        Self { from, until }
    }

    fn allows(&self, name: &str) -> bool {
        let Some([first, last]) = time_of_name(name) else { return true };
        self.from.is_none_or(|from| last >= from) && self.until.is_none_or(|until| first <= until)
    }

    /// Whether everything was read that lies within a time before the last run.
    fn covers_last(&self, period: &Period, newest: Option<CompactRun<'_>>) -> bool {
        let Some(from) = self.from else { return true };
        let begin = newest.zip(period.last).map(|(newest, last)| newest.start - last);
        begin.max(period.since).is_some_and(|begin| from <= begin)
    }
}

/// The latest time that the name of a record states, except in the future.
fn newest_name(inputs: &[Input], now: DateTime<Utc>, until: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    let latest = until.map_or(now, |until| until.min(now)) + NAME_TOLERANCE;
    let mut newest = None;
    for input in inputs {
        let Input::Path(path) = input else { continue };
        let entries = fs::read_dir(path).ok();
        for entry in entries.into_iter().flatten().flatten() {
            let times = time_of_name(&entry.file_name().to_string_lossy());
            newest = newest.max(times.map(|[first, _]| first).filter(|first| *first <= latest));
        }
    }
    newest
}

/// From when to when the records of a file may be, by its name: `metrics_20260131_070000.json`, or a month packed
/// (`metrics_2026-01.jsonl.gz`).
fn time_of_name(name: &str) -> Option<[DateTime<Utc>; 2]> {
    let rest = name.strip_prefix("metrics_")?;
    if let Some(stem) = rest.strip_suffix(".json") {
        let time = NaiveDateTime::parse_from_str(stem.get(..15)?, "%Y%m%d_%H%M%S").ok()?.and_utc();
        return Some([time; 2]);
    }
    let month = rest.strip_suffix(".gz").unwrap_or(rest).strip_suffix(".jsonl")?;
    let first = NaiveDate::parse_from_str(&format!("{month}-01"), "%Y-%m-%d").ok()?;
    let begin = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
    Some([begin(first), begin(first.checked_add_months(Months::new(1))?)])
}

/// Works on shares of items on all processors, and takes the results in the order of the items. Only those of a few shares
/// are held at a time. A share comes with the position of its first item.
pub(crate) fn on_all_processors<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(usize, &[T]) -> R + Sync,
    mut take: impl FnMut(R) -> io::Result<()>,
) -> io::Result<()> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(descriptors::spare());
    let shares: Vec<(usize, &[T])> =
        items.chunks(SHARE).enumerate().map(|(number, share)| (number * SHARE, share)).collect();
    for round in shares.chunks(threads) {
        let work = &work;
        let results: Vec<thread::Result<R>> = thread::scope(|scope| {
            let workers: Vec<_> =
                round.iter().map(|&(first, share)| scope.spawn(move || work(first, share))).collect();
            workers.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for result in results {
            take(result.map_err(|_| io::Error::other("a reader broke off"))?)?;
        }
    }
    Ok(())
}

/// The lines of a file of packed records.
pub(crate) fn open_packed(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let file = fs::File::open(path)?;
    Ok(if path.extension().is_some_and(|extension| extension == "gz") {
        Box::new(BufReader::new(MultiGzDecoder::new(file)))
    } else {
        Box::new(BufReader::new(file))
    })
}

/// Hands over each line that is not empty, with its number, or why it cannot be a record.
pub(crate) fn each_line(
    mut lines: impl BufRead,
    mut take: impl FnMut(usize, Result<&[u8], String>) -> io::Result<()>,
) -> io::Result<()> {
    let mut line = Vec::new();
    for number in 1_usize.. {
        line.clear();
        // What is longer is not a record, and nothing behind it can be trusted: a packed file of a few bytes may
        // unpack to any length.
        if lines.by_ref().take(MAX_RECORD_BYTES + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() as u64 > MAX_RECORD_BYTES {
            take(number, Err("the line is too large for a record".to_owned()))?;
            break;
        }
        if !line.iter().all(u8::is_ascii_whitespace) {
            take(number, Ok(&line))?;
        }
    }
    Ok(())
}

/// A record in one line, as packed files have it: strings of JSON never go over the end of a line.
pub(crate) fn one_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().map(str::trim).collect()
}

/// The files of one record each in a folder, in the order of their names.
pub(crate) fn record_files(folder: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    files(folder, |name| is_record(name) && wanted(name))
}

/// The files of packed records in a folder, in the order of their names.
pub(crate) fn packed_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    files(folder, is_packed)
}

fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if wanted(&entry.file_name().to_string_lossy()) {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

pub(crate) fn read_record(path: &Path, now: DateTime<Utc>) -> Result<RunRecord, String> {
    let text = read_regular(path, MAX_RECORD_BYTES).map_err(|error| error.to_string())?;
    parsed(&text, now)
}

pub(crate) fn parsed(text: &[u8], now: DateTime<Utc>) -> Result<RunRecord, String> {
    RunRecord::parse(text, now).map_err(|error| error.to_string())
}

fn is_packed(name: &str) -> bool {
    name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".jsonl").is_some()
}

fn is_record(name: &str) -> bool {
    name.strip_prefix("metrics_").is_some_and(|rest| rest.strip_suffix(".json").is_some())
}

/// Starts are written to the microsecond.
fn is_same(one: CompactRun<'_>, other: CompactRun<'_>) -> bool {
    let facts = |run: CompactRun<'_>| (run.start, run.get(Quantity::TotalTime), run.has_failed());
    facts(one) == facts(other)
}
