//! Old records, packed into one compressed file of JSON Lines a month.
//!
//! A month's file appears whole before the records it holds are removed. A process that is interrupted in between leaves records in
//! both places: readers count them once, and packing again does not double them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;
use twox_hash::XxHash3_128;

use crate::files::{lock_folder, read_regular};
use crate::record::history::{
    MAX_RECORD_BYTES, Skipped, each_line, on_all_processors, one_line, open_packed, parsed, record_files,
};

/// What packing did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// Records that are in their month's file now.
    pub records: usize,
    /// The files that were written.
    pub files: Vec<PathBuf>,
    /// Records that cannot be read, and stay where they are.
    pub left: Vec<Skipped>,
}

/// The lines that a file has already.
type Known = HashSet<u128>;

/// Maximum time to wait for another program that packs the same folder.
const LOCK_WAIT: Duration = Duration::from_mins(1);

/// What a thread made of some records.
#[derive(Default)]
struct Share {
    /// By the name of the month's file: compressed lines, and the positions of the records they come from.
    months: BTreeMap<String, (GzEncoder<Vec<u8>>, Vec<usize>)>,
    left: Vec<Skipped>,
}

/// A month's file as it will be.
struct Month {
    staged: NamedTempFile,
    /// Positions of records that it holds.
    records: Vec<usize>,
}

/// Packs the records of a folder that began before `before`. Lines are compressed on all processors, each share of them as a
/// member of its own, and written behind those that the file of the month has.
///
/// # Errors
/// If the folder cannot be read or a file cannot be written; records are removed only after that.
pub fn pack(folder: &Path, before: DateTime<Utc>, now: DateTime<Utc>) -> io::Result<Packed> {
    // Two programs that pack at once would write the same month's file, each without the records of the other.
    let _lock = lock_folder(folder, LOCK_WAIT)?;
    let mut packed = Packed::default();
    let paths = record_files(folder, |_| true)?;
    let known = KnownLines { folder, files: Mutex::default() };
    let mut months: BTreeMap<String, Month> = BTreeMap::new();
    let compress = |first, paths: &[PathBuf]| Share::new(first, paths, &known, [before, now]);
    on_all_processors(&paths, compress, |share| {
        let share = share?;
        packed.left.extend(share.left);
        for (name, (lines, records)) in share.months {
            let month = match months.entry(name) {
                Entry::Occupied(month) => month.into_mut(),
                Entry::Vacant(vacant) => {
                    let staged = staged_copy(&folder.join(vacant.key()))?;
                    vacant.insert(Month { staged, records: Vec::new() })
                }
            };
            month.staged.write_all(&lines.finish()?)?;
            month.records.extend(records);
        }
        Ok(())
    })?;
    for (name, Month { staged, records }) in months {
        let path = folder.join(name);
        staged.as_file().sync_all()?;
        staged.persist(&path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()?;
        for &record in &records {
            fs::remove_file(&paths[record])?;
        }
        packed.records += records.len();
        packed.files.push(path);
    }
    Ok(packed)
}

/// The lines that files of months have already. A file is read once a record of its month comes.
struct KnownLines<'a> {
    folder: &'a Path,
    files: Mutex<BTreeMap<String, Arc<Known>>>,
}

impl KnownLines<'_> {
    fn of(&self, name: &str) -> io::Result<Arc<Known>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = files.get(name) {
            return Ok(Arc::clone(known));
        }
        let known = Arc::new(lines_in(&self.folder.join(name))?);
        files.insert(name.to_owned(), Arc::clone(&known));
        Ok(known)
    }
}

fn lines_in(path: &Path) -> io::Result<Known> {
    let mut known = Known::new();
    let lines = match open_packed(path) {
        Ok(lines) => lines,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(known),
        Err(error) => return Err(error),
    };
    let mut invalid = None;
    each_line(lines, |number, line| {
        match line {
            Ok(line) => _ = known.insert(digest(one_line(line).as_bytes())),
            Err(reason) => invalid = Some(format!("{}, line {number}: {reason}", path.display())),
        }
        Ok(())
    })?;
    match invalid {
        Some(reason) => Err(io::Error::new(io::ErrorKind::FileTooLarge, reason)),
        None => Ok(known),
    }
}

fn digest(line: &[u8]) -> u128 {
    XxHash3_128::oneshot(line)
}

impl Share {
    fn new(
        first: usize,
        paths: &[PathBuf],
        known: &KnownLines<'_>,
        [before, now]: [DateTime<Utc>; 2],
    ) -> io::Result<Self> {
        let mut share = Self::default();
        for (position, path) in (first..).zip(paths) {
            let text = read_regular(path, MAX_RECORD_BYTES).map_err(|error| error.to_string());
            let read = text.and_then(|text| Ok((parsed(&text, now)?, text)));
            match read {
                Ok((run, text)) if run.start < before => {
                    let name = run.start.format("metrics_%Y-%m.jsonl.gz").to_string();
                    let mut line = one_line(&text);
                    let is_known = known.of(&name)?.contains(&digest(line.as_bytes()));
                    let new = || (GzEncoder::new(Vec::new(), Compression::default()), Vec::new());
                    let (lines, records) = share.months.entry(name).or_insert_with(new);
                    if !is_known {
                        line.push('\n');
                        lines.write_all(line.as_bytes())?;
                    }
                    records.push(position);
                }
                Ok(_) => {}
                Err(reason) => share.left.push(Skipped { place: path.display().to_string(), reason }),
            }
        }
        Ok(share)
    }
}

/// A file that will take the place of another one, with its content.
fn staged_copy(path: &Path) -> io::Result<NamedTempFile> {
    let mut staged = crate::record::stage(path, b"")?;
    match File::open(path) {
        Ok(mut file) => _ = io::copy(&mut file, &mut staged)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(staged)
}
