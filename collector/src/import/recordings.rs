//! Finds recorded responses and reads them one by one: files, folders, JSON Lines, tar archives, git repositories.

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tracing::{info, warn};

use super::git::Objects;
use super::{ImportError, git, json_lines, tar};
use crate::feed::BODY_LIMIT_BYTES;
use crate::files::{self, FileKind};

/// A recorded response.
#[derive(Debug, Clone)]
pub struct Recording {
    time: DateTime<Utc>,
    name: Arc<str>,
    /// Its position in what it was found in.
    position: u64,
    size_bytes: u64,
    body: Body,
}

/// Where the body of a recording is.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// A file.
    File(Arc<Path>),
    /// A part of a file.
    Span { path: Arc<Path>, offset: u64 },
    /// A part of a temporary file, compressed with zstd.
    Packed { file: Arc<File>, offset: u64, packed_bytes: usize },
    /// An object of a git repository.
    Object { objects: Arc<Objects>, id: Box<str> },
}

impl Recording {
    pub(super) fn new(
        time: DateTime<Utc>,
        name: impl Into<Arc<str>>,
        position: u64,
        size_bytes: u64,
        body: Body,
    ) -> Self {
        Self { time, name: name.into(), position, size_bytes, body }
    }

    /// When it was recorded.
    #[must_use]
    pub fn time(&self) -> DateTime<Utc> {
        self.time
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Reads the body. Blocks.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        if self.size_bytes > BODY_LIMIT_BYTES {
            return Err(files::too_large(BODY_LIMIT_BYTES));
        }
        let size = usize::try_from(self.size_bytes).unwrap_or_default();
        match &self.body {
            Body::File(path) => files::read_regular(path, BODY_LIMIT_BYTES),
            Body::Span { path, offset } => read_span(&files::open_regular(path)?, *offset, size),
            Body::Packed { file, offset, packed_bytes } => {
                zstd::bulk::decompress(&read_span(file, *offset, *packed_bytes)?, size)
            }
            Body::Object { objects, id } => objects.read(id, BODY_LIMIT_BYTES),
        }
    }

    /// The error that this recording cannot be read.
    pub(super) fn unreadable(&self, source: io::Error) -> ImportError {
        ImportError::Read { name: self.to_string(), source }
    }
}

impl Display for Recording {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

fn read_span(file: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Finds recordings and returns them in the order of their times. `progress` is called with the number found so far.
///
/// A path names a response, a folder of responses, JSON Lines (`.jsonl`, `.ndjson`), or a tar archive (`.tar`, also compressed with
/// gzip, xz or zstd). `git:REPOSITORY:FILE` names all versions of a file in a git repository. In folders and archives, files whose
/// name is not a second followed by `.json` are skipped. Links are followed, but each folder is read once.
///
/// # Errors
/// [`ImportError`] if something cannot be read, or a file that was named is not a regular one or does not state when.
pub fn find_recordings(
    paths: &[PathBuf],
    mut progress: impl FnMut(usize),
) -> Result<Vec<Recording>, ImportError> {
    let mut found = Vec::new();
    let (mut folders, mut visited) = (Vec::new(), HashSet::new());
    for path in paths {
        let unreadable = |source| unreadable(path, source);
        if let Some(source) = git::Source::parse(path) {
            source.and_then(|source| source.find(&mut found, &mut progress)).map_err(unreadable)?;
            continue;
        }
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if metadata.is_dir() {
            folders.push(path.clone());
        } else if json_lines::is_named_so(path) {
            json_lines::find(path, &mut found, &mut progress).map_err(unreadable)?;
        } else if let Some(compression) = tar::Compression::of_name(path) {
            tar::find(path, compression, &mut found, &mut progress).map_err(unreadable)?;
        } else {
            let time = recorded_at(path).ok_or_else(|| ImportError::NoTime(path.clone()))?;
            if !metadata.is_file() {
                return Err(unreadable(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    FileKind::of(&metadata).describe(),
                )));
            }
            found.push(in_file(time, path, metadata.len()));
        }
    }
    while let Some(folder) = folders.pop() {
        find_in(&folder, &mut visited, &mut folders, &mut found)
            .map_err(|source| unreadable(&folder, source))?;
        progress(found.len());
    }
    found.sort_by(|one, other| key(one).cmp(&key(other)));
    found.dedup_by(|one, other| key(one) == key(other));
    Ok(found)
}

/// Recordings of one second keep the order in which their source has them.
fn key(recording: &Recording) -> (DateTime<Utc>, u64, &str) {
    (recording.time, recording.position, &recording.name)
}

fn unreadable(path: &Path, source: io::Error) -> ImportError {
    ImportError::Read { name: path.display().to_string(), source }
}

fn in_file(time: DateTime<Utc>, path: &Path, size_bytes: u64) -> Recording {
    Recording::new(time, path.to_string_lossy(), 0, size_bytes, Body::File(path.into()))
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
        let is_json = is_json(&path);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => folders.push(path),
            _ if !is_json => {}
            Ok(metadata) if !metadata.is_file() => {
                warn!(path = %path.display(), kind = FileKind::of(&metadata).describe(), "skipped");
            }
            Ok(metadata) => match recorded_at(&path) {
                Some(time) => found.push(in_file(time, &path, metadata.len())),
                None => {
                    info!(path = %path.display(), "skipped: its name does not state when it was recorded");
                }
            },
            Err(error) => warn!(path = %path.display(), %error, "skipped"),
        }
    }
    Ok(())
}

pub(super) fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// The second in a file's name: its last run of nine to eleven digits.
pub(crate) fn recorded_at(path: &Path) -> Option<DateTime<Utc>> {
    let name = path.file_stem()?.to_string_lossy();
    let digits = name.rsplit(|it: char| !it.is_ascii_digit()).find(|run| (9..=11).contains(&run.len()))?;
    DateTime::from_timestamp(digits.parse().ok()?, 0)
}
