//! Collects from responses that were recorded earlier, each as one run at the time it was recorded.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use thiserror::Error;
use tracing::{info, warn};

use crate::archive::{Archive, ArchiveError, Deposit, Outcome, Snapshot};
use crate::clock::SharedClock;
use crate::event::Response;
use crate::feed::BODY_LIMIT_BYTES;

/// How long to wait before looking again whether another run is done.
const WAIT_FOR_ANOTHER: Duration = Duration::from_millis(500);

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

/// Finds the recordings in files and folders, in the order of their seconds.
///
/// In a folder, whatever is no `.json` file with a second in its name is passed over.
///
/// # Errors
/// [`ImportError`] if something cannot be read, or a file that was named does not say when.
pub fn find_recordings(paths: &[PathBuf]) -> Result<Vec<Recording>, ImportError> {
    let mut found = Vec::new();
    for path in paths {
        let unreadable = |source| ImportError::Read { path: path.clone(), source };
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            find_in(path, &mut found).map_err(unreadable)?;
        } else {
            let time = recorded_at(path).ok_or_else(|| ImportError::NoTime(path.clone()))?;
            found.push(Recording { time, path: path.clone() });
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn find_in(folder: &Path, found: &mut Vec<Recording>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find_in(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "json") {
            match recorded_at(&path) {
                Some(time) => found.push(Recording { time, path }),
                None => {
                    info!(path = %path.display(), "passed over: its name does not say when it was recorded");
                }
            }
        }
    }
    Ok(())
}

/// The second in a file's name: its last run of nine to eleven digits.
fn recorded_at(path: &Path) -> Option<DateTime<Utc>> {
    let name = path.file_stem()?.to_str()?;
    let digits = name.rsplit(|it: char| !it.is_ascii_digit()).find(|run| (9..=11).contains(&run.len()))?;
    DateTime::from_timestamp(digits.parse().ok()?, 0)
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
        let body = read_body(&recording.path)
            .map_err(|source| ImportError::Read { path: recording.path.clone(), source })?;
        summary.responses += 1;
        match Response::parse(&body) {
            Ok(response) => {
                let (deposit, after) = deposit(archive, clock, &response, snapshot, recording.time).await?;
                snapshot = after;
                summary.events_new += deposit.events;
                summary.revisions += deposit.revisions;
                summary.rejected += deposit.rejected;
            }
            Err(error) => {
                warn!(path = %recording.path.display(), %error, "not imported");
                summary.failed += 1;
            }
        }
        summary.elapsed_s = crate::record::seconds(clock.since(began));
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

/// Reads a body. One that is too large is cut where it is certain to be refused.
fn read_body(path: &Path) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let read = fs::File::open(path)?.take(BODY_LIMIT_BYTES + 1).read_to_end(&mut body)?;
    if read as u64 > BODY_LIMIT_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 64 MiB"));
    }
    Ok(body)
}
