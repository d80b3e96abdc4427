//! Old records, packed into one compressed file of JSON Lines a month.
//!
//! A month's file appears whole before the records it holds are removed. Whoever is interrupted in between leaves records in
//! both places: readers count them once, and packing again does not double them.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::files::{lock_folder, read_regular};
use crate::record::RunRecord;
use crate::record::history::{MAX_RECORD_BYTES, Skipped, one_line, record_files};

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

/// Maximum size of a month's records: a record every minute, each of 6 kB.
const MAX_MONTH_BYTES: u64 = 256 << 20;

/// Maximum time to wait for another program that packs the same folder.
const LOCK_WAIT: Duration = Duration::from_mins(1);

/// Packs the records of a folder that began before `before`.
///
/// # Errors
/// If the folder cannot be read or a file cannot be written; records are removed only after that.
pub fn pack(folder: &Path, before: DateTime<Utc>, now: DateTime<Utc>) -> io::Result<Packed> {
    // Two programs that pack at once would write the same month's file, each without the records of the other.
    let _lock = lock_folder(folder, LOCK_WAIT)?;
    let mut packed = Packed::default();
    let mut months: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    for path in record_files(folder, |_| true)? {
        let text = match read_regular(&path, MAX_RECORD_BYTES) {
            Ok(text) => text,
            Err(error) => {
                packed.left.push(Skipped { place: path.display().to_string(), reason: error.to_string() });
                continue;
            }
        };
        match RunRecord::parse(&text, now) {
            Ok(run) if run.start < before => {
                let month = run.start.format("metrics_%Y-%m.jsonl.gz").to_string();
                months.entry(month).or_default().push((path, one_line(&text)));
            }
            Ok(_) => {}
            Err(reason) => packed.left.push(Skipped { place: path.display().to_string(), reason }),
        }
    }
    for (name, records) in months {
        let path = folder.join(name);
        append(&path, records.iter().map(|(_, line)| line.as_str()))?;
        for (record, _) in &records {
            fs::remove_file(record)?;
        }
        packed.records += records.len();
        packed.files.push(path);
    }
    Ok(packed)
}

/// Puts lines behind those that a file has; such as it has already are not put there twice.
fn append<'a>(path: &Path, lines: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let mut text = String::new();
    match fs::File::open(path) {
        Ok(file) => {
            MultiGzDecoder::new(file).take(MAX_MONTH_BYTES + 1).read_to_string(&mut text)?;
            if text.len() as u64 > MAX_MONTH_BYTES {
                let reason = format!("{} unpacks to more than {MAX_MONTH_BYTES} bytes", path.display());
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let known: HashSet<&str> = text.lines().collect();
    let new: Vec<&str> = lines.filter(|line| !known.contains(line)).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    for line in new {
        encoder.write_all(line.as_bytes())?;
        encoder.write_all(b"\n")?;
    }
    let staged = crate::record::stage(path, &encoder.finish()?)?;
    staged.as_file().sync_all()?;
    staged.persist(path).map_err(|error| error.error)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
