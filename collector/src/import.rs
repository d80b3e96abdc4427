//! Collects from responses that were recorded earlier, each as one run at the time it was recorded.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use thiserror::Error;
use tracing::{info, warn};

use crate::archive::{Archive, ArchiveError, Deposit, Outcome, Snapshot};
use crate::clock::{CLOCK_TOLERANCE, SharedClock};
use crate::event::Response;
use crate::feed::BODY_LIMIT_BYTES;
use crate::files::{self, FileKind};
use crate::quantity::{Quantity, seconds};

/// How long to wait before looking again whether another run is done.
const WAIT_FOR_ANOTHER: Duration = Duration::from_millis(500);

/// A recording is not older: 2000-01-01. The feed is younger by many years.
const EARLIEST_S: i64 = 946_684_800;

/// A recorded response.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recording {
    /// When it was recorded.
    pub time: DateTime<Utc>,
    /// Where it is.
    pub path: PathBuf,
}

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ImportSummary {
    /// Responses looked at.
    pub responses: usize,
    /// Those that are no responses; nothing of them is stored.
    pub failed: usize,
    /// New events.
    pub events_new: usize,
    /// New versions of known events.
    pub revisions: usize,
    /// Elements that are no events.
    pub rejected: usize,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
}

/// Why an import cannot begin or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// When a response was recorded is not known.
    #[error("the name of {} does not say at which second it was recorded, such as 1767225600.json", .0.display())]
    NoTime(PathBuf),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Finds the recordings in files and folders, in the order of their seconds. Links are followed, but each folder is read once.
///
/// In a folder, whatever is not a `.json` file with a second in its name is passed over.
///
/// # Errors
/// [`ImportError`] if something cannot be read, or a file that was named is not a regular one or does not state when.
pub fn find_recordings(paths: &[PathBuf]) -> Result<Vec<Recording>, ImportError> {
    let mut found = Vec::new();
    let (mut folders, mut visited) = (Vec::new(), HashSet::new());
    for path in paths {
        let metadata =
            fs::metadata(path).map_err(|source| ImportError::Read { path: path.clone(), source })?;
        if metadata.is_dir() {
            folders.push(path.clone());
        } else {
            let time = recorded_at(path).ok_or_else(|| ImportError::NoTime(path.clone()))?;
            if !metadata.is_file() {
                let source = io::Error::new(io::ErrorKind::InvalidInput, FileKind::of(&metadata).describe());
                return Err(ImportError::Read { path: path.clone(), source });
            }
            found.push(Recording { time, path: path.clone() });
        }
    }
    while let Some(folder) = folders.pop() {
        let read = find_in(&folder, &mut visited, &mut folders, &mut found);
        read.map_err(|source| ImportError::Read { path: folder, source })?;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn find_in(
    folder: &Path,
    visited: &mut HashSet<(u64, u64)>,
    folders: &mut Vec<PathBuf>,
    found: &mut Vec<Recording>,
) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    if !visited.insert((metadata.dev(), metadata.ino())) {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_named_so = path.extension().is_some_and(|extension| extension == "json");
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => folders.push(path),
            _ if !is_named_so => {}
            Ok(metadata) if !metadata.is_file() => {
                warn!(path = %path.display(), kind = FileKind::of(&metadata).describe(), "passed over");
            }
            Ok(_) => match recorded_at(&path) {
                Some(time) => found.push(Recording { time, path }),
                None => {
                    info!(path = %path.display(), "passed over: its name does not state when it was recorded");
                }
            },
            Err(error) => warn!(path = %path.display(), %error, "passed over"),
        }
    }
    Ok(())
}

/// The second in a file's name: its last run of nine to eleven digits.
pub(crate) fn recorded_at(path: &Path) -> Option<DateTime<Utc>> {
    let name = path.file_stem()?.to_str()?;
    let digits = name.rsplit(|it: char| !it.is_ascii_digit()).find(|run| (9..=11).contains(&run.len()))?;
    DateTime::from_timestamp(digits.parse().ok()?, 0)
}

/// Whether a response can have been recorded then. A run of the future would make each later one look like the past, and a name
/// such as `2026010112.json` (year, month, day, hour) reads as a second in 2034.
fn plausible(recorded: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), &'static str> {
    if recorded > now + CLOCK_TOLERANCE {
        return Err(
            "its name states a second in the future; names are seconds since 1970, such as 1767225600.json",
        );
    }
    if recorded.timestamp() < EARLIEST_S {
        return Err(
            "its name states a second before the year 2000; names are seconds since 1970, such as 1767225600.json",
        );
    }
    Ok(())
}

/// Imports recordings one after the other; `progress` is called after each.
///
/// # Errors
/// [`ImportError`] if the archive fails or a file cannot be read. What was imported before is stored, and
/// the import may be started again.
pub async fn import(
    archive: &Archive,
    clock: &SharedClock,
    recordings: &[Recording],
    mut progress: impl FnMut(&ImportSummary),
) -> Result<ImportSummary, ImportError> {
    let began = clock.elapsed();
    let mut summary = ImportSummary::default();
    let mut snapshot = archive.open().await?;
    for recording in recordings {
        summary.responses += 1;
        if let Err(reason) = plausible(recording.time, clock.now()) {
            warn!(path = %recording.path.display(), recorded = %recording.time, reason, "not imported");
            summary.failed += 1;
            continue;
        }
        let body = files::read_regular(&recording.path, BODY_LIMIT_BYTES)
            .map_err(|source| ImportError::Read { path: recording.path.clone(), source })?;
        match Response::parse(&body) {
            Ok(response) => {
                let (deposit, after) = deposit(archive, clock, &response, snapshot, recording.time).await?;
                snapshot = after;
                summary.events_new += deposit.count(Quantity::NewEventsCount);
                summary.revisions += deposit.count(Quantity::RevisionsCount);
                summary.rejected += deposit.count(Quantity::RejectedCount);
            }
            Err(error) => {
                warn!(path = %recording.path.display(), %error, "not imported");
                summary.failed += 1;
            }
        }
        summary.elapsed_s = seconds(clock.since(began));
        progress(&summary);
    }
    Ok(summary)
}

/// Deposits, waiting for another run that is at work.
async fn deposit(
    archive: &Archive,
    clock: &SharedClock,
    response: &Response<'_>,
    mut snapshot: Snapshot,
    time: DateTime<Utc>,
) -> Result<(Deposit, Snapshot), ArchiveError> {
    loop {
        let (deposit, after) = archive.deposit(response, snapshot, time).await?;
        if deposit.outcome == Outcome::Stored {
            return Ok((deposit, after));
        }
        clock.sleep(WAIT_FOR_ANOTHER).await;
        snapshot = archive.open().await?;
    }
}
