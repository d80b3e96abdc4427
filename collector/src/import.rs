//! Collects from responses that were recorded earlier, as if each had been collected by a run at the time it was recorded.

mod json_lines;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use crate::archive::{Archive, ArchiveError, Bulk, Stored};
use crate::clock::{CLOCK_TOLERANCE, SharedClock};
use crate::concurrency::buffered;
use crate::event::Response;
use crate::feed::BODY_LIMIT_BYTES;
use crate::files::{self, FileKind};
use crate::quantity::seconds;

/// Number of recordings that are read and parsed before their turn.
const READ_AHEAD: usize = 32;
/// Maximum size of the recordings that are read before their turn, unless a single one is larger.
const WINDOW_KIB: usize = 8 * 1024;

/// A recording is not older: 2000-01-01. The feed is younger by many years.
const EARLIEST_S: i64 = 946_684_800;

/// A recorded response.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recording {
    /// When it was recorded.
    pub time: DateTime<Utc>,
    /// Where it is.
    pub path: PathBuf,
    /// Where its body begins in the file, if it is not the whole file.
    pub offset: Option<u64>,
    /// Its size in bytes.
    pub size_bytes: u64,
}

impl Recording {
    fn read(&self) -> io::Result<Vec<u8>> {
        let Some(offset) = self.offset else { return files::read_regular(&self.path, BODY_LIMIT_BYTES) };
        let mut body = vec![0; usize::try_from(self.size_bytes).unwrap_or_default()];
        files::open_regular(&self.path)?.read_exact_at(&mut body, offset)?;
        Ok(body)
    }
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
        } else if json_lines::is_named_so(path) {
            let read = json_lines::recordings_in(path);
            found.extend(read.map_err(|source| ImportError::Read { path: path.clone(), source })?);
        } else {
            let time = recorded_at(path).ok_or_else(|| ImportError::NoTime(path.clone()))?;
            if !metadata.is_file() {
                let source = io::Error::new(io::ErrorKind::InvalidInput, FileKind::of(&metadata).describe());
                return Err(ImportError::Read { path: path.clone(), source });
            }
            found.push(Recording { time, path: path.clone(), offset: None, size_bytes: metadata.len() });
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
            Ok(metadata) => match recorded_at(&path) {
                Some(time) => found.push(Recording { time, path, offset: None, size_bytes: metadata.len() }),
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
            "it was recorded in the future by this clock; names are seconds since 1970, such as 1767225600.json",
        );
    }
    if recorded.timestamp() < EARLIEST_S {
        return Err(
            "it was recorded before the year 2000; names are seconds since 1970, such as 1767225600.json",
        );
    }
    Ok(())
}

/// Imports recordings in their order; `progress` is called with what is stored, whenever that is more.
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
    let mut bulk = Bulk::new(archive);
    let mut failed = 0;
    let summary = |stored: Stored, failed| ImportSummary {
        responses: stored.responses + failed,
        failed,
        events_new: stored.events,
        revisions: stored.revisions,
        rejected: stored.rejected,
        elapsed_s: seconds(clock.since(began)),
    };
    let window = Arc::new(Semaphore::new(WINDOW_KIB));
    let reads = recordings.iter().map(|recording| {
        read_ahead(recording.clone(), clock, archive.max_elements(), Arc::clone(&window)).boxed()
    });
    let mut reads = buffered(READ_AHEAD, reads);
    let mut shown = 0;
    while let Some(read) = reads.next().await {
        let Recorded { recording, response, _room } = match read {
            Ok(read) => read,
            Err(error) => {
                bulk.finish().await?;
                return Err(error);
            }
        };
        match response {
            Ok(response) => bulk.add(response, recording.time).await?,
            Err(reason) => {
                warn!(path = %recording.path.display(), recorded = %recording.time, reason, "not imported");
                failed += 1;
            }
        }
        let stored = bulk.stored();
        if stored.responses + failed > shown {
            shown = stored.responses + failed;
            progress(&summary(stored, failed));
        }
    }
    let summary = summary(bulk.finish().await?, failed);
    progress(&summary);
    Ok(summary)
}

/// A recording as it was read.
struct Recorded {
    recording: Recording,
    /// The response, or why it is none.
    response: Result<Response<'static>, String>,
    /// Its share of the memory for what is read ahead.
    _room: OwnedSemaphorePermit,
}

/// Reads and parses a recording on a thread of its own, once there is memory for it.
async fn read_ahead(
    recording: Recording,
    clock: &SharedClock,
    max_elements: usize,
    window: Arc<Semaphore>,
) -> Result<Recorded, ImportError> {
    let size_kib = usize::try_from(recording.size_bytes / 1024).unwrap_or(WINDOW_KIB).clamp(1, WINDOW_KIB);
    let unreadable = |path: &Path, source| ImportError::Read { path: path.to_owned(), source };
    let room = window.acquire_many_owned(u32::try_from(size_kib).unwrap_or(u32::MAX)).await;
    let room = room.map_err(|error| unreadable(&recording.path, io::Error::other(error)))?;
    if let Err(reason) = plausible(recording.time, clock.now()) {
        return Ok(Recorded { recording, response: Err(reason.to_owned()), _room: room });
    }
    let source = recording.clone();
    let parsed = tokio::task::spawn_blocking(move || {
        let body = source.read()?;
        Ok(Response::parse_owned(body, max_elements).map_err(|error| error.to_string()))
    });
    match parsed.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(response) => Ok(Recorded { recording, response, _room: room }),
        Err(source) => Err(unreadable(&recording.path, source)),
    }
}
