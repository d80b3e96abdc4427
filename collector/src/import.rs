//! Collects from responses that were recorded earlier, as if each had been collected by a run at the time it was recorded.

mod git;
mod json_lines;
mod recordings;
mod tar;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

#[cfg(feature = "fuzzing")]
pub(crate) use self::recordings::recorded_at;
pub use self::recordings::{Recording, find_recordings};
use crate::archive::{Archive, ArchiveError, Bulk, Stored};
use crate::clock::{CLOCK_TOLERANCE, SharedClock};
use crate::concurrency::buffered;
use crate::event::Response;
use crate::quantity::seconds;

/// Number of recordings that are read and parsed before their turn.
const READ_AHEAD: usize = 32;
/// Maximum size of the recordings that are read before their turn, unless a single one is larger.
const WINDOW_KIB: usize = 8 * 1024;

/// A recording is not older: 2000-01-01. The feed is younger by many years.
const EARLIEST_S: i64 = 946_684_800;

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ImportSummary {
    /// Responses looked at.
    pub responses: usize,
    /// Those that are not valid responses; nothing of them is stored.
    pub failed: usize,
    /// New events.
    pub events_new: usize,
    /// New versions of known events.
    pub revisions: usize,
    /// Elements that are not valid events.
    pub rejected: usize,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
}

/// Why an import cannot begin or continue.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file, folder, member of an archive or version in a repository cannot be read.
    #[error("cannot read {name}: {source}")]
    Read {
        /// Its path or name.
        name: String,
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
            Ok(response) => bulk.add(response, recording.time()).await?,
            Err(reason) => {
                warn!(recording = %recording, recorded = %recording.time(), reason, "not imported");
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
    let size_kib = usize::try_from(recording.size_bytes() / 1024).unwrap_or(WINDOW_KIB).clamp(1, WINDOW_KIB);
    let room = window.acquire_many_owned(u32::try_from(size_kib).unwrap_or(u32::MAX)).await;
    let room = room.map_err(|error| recording.unreadable(io::Error::other(error)))?;
    if let Err(reason) = plausible(recording.time(), clock.now()) {
        return Ok(Recorded { recording, response: Err(reason.to_owned()), _room: room });
    }
    let source = recording.clone();
    let parsed = tokio::task::spawn_blocking(move || {
        let body = source.read()?;
        Ok(Response::parse_owned(body, max_elements).map_err(|error| error.to_string()))
    });
    match parsed.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(response) => Ok(Recorded { recording, response, _room: room }),
        Err(source) => Err(recording.unreadable(source)),
    }
}
