//! Finds recordings in tar archives, which may be compressed.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use ::tar::{Archive, Entry, EntryType};
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use tracing::{info, warn};

use super::recordings::{Body, Recording, is_json, recorded_at};
use crate::feed::BODY_LIMIT_BYTES;
use crate::files;

/// Maximum memory of a decompressor, in KiB: 2 GiB. Polls resemble each other, so that archives of them are made with windows
/// (dictionaries) that span many polls, and a reader needs as much memory.
const DECOMPRESSOR_LIMIT_KIB: u32 = 2 * 1024 * 1024;
/// The same for zstd, as the binary logarithm of its window in bytes; it is also the maximum of `zstd --long`.
const ZSTD_WINDOW_LOG: u32 = 31;
/// The level at which bodies are compressed again: the fastest.
const LEVEL: i32 = 1;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

impl Compression {
    /// The compression that the name of an archive states; nothing if it does not name an archive.
    pub(super) fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy();
        let endings: [(&[&str], Self); 4] = [
            (&[".tar"], Self::None),
            (&[".tar.gz", ".tgz"], Self::Gzip),
            (&[".tar.xz", ".txz"], Self::Xz),
            (&[".tar.zst", ".tar.zstd", ".tzst"], Self::Zstd),
        ];
        let found = endings.iter().find(|(endings, _)| endings.iter().any(|ending| name.ends_with(ending)));
        found.map(|(_, compression)| *compression)
    }
}

/// Finds the responses in an archive. Of a compressed one, they are kept in a temporary file, each compressed by itself, since
/// an archive names its members in any order, and responses are imported in the order of their times.
pub(super) fn find(
    path: &Path,
    compression: Compression,
    found: &mut Vec<Recording>,
    progress: &mut impl FnMut(usize),
) -> io::Result<()> {
    let file = files::open_regular(path)?;
    if compression == Compression::None {
        let file_bytes = file.metadata()?.len();
        let mut archive = Archive::new(BufReader::new(file));
        let shared: Arc<Path> = path.into();
        return each_response(archive.entries_with_seek()?, path, found, progress, |entry| {
            let offset = entry.raw_file_position();
            if offset + entry.size() > file_bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Body::Span { path: Arc::clone(&shared), offset })
        });
    }
    let compressed = BufReader::new(file);
    let decompressed: Box<dyn Read> = match compression {
        Compression::Xz => Box::new(XzReader::new_mem_limit(compressed, true, DECOMPRESSOR_LIMIT_KIB)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => Box::new(MultiGzDecoder::new(compressed)),
    };
    let mut archive = Archive::new(decompressed);
    let mut spool = Spool::new()?;
    each_response(archive.entries()?, path, found, progress, |entry| spool.keep(entry))?;
    // The checksum of the compressed file is behind the end of the archive.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

fn each_response<'a, R: Read + 'a>(
    entries: impl Iterator<Item = io::Result<Entry<'a, R>>>,
    path: &Path,
    found: &mut Vec<Recording>,
    progress: &mut impl FnMut(usize),
    mut body_of: impl FnMut(&mut Entry<'a, R>) -> io::Result<Body>,
) -> io::Result<()> {
    for (position, entry) in entries.enumerate() {
        let mut entry = entry?;
        let member = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        if !is_json(&member) || kind == EntryType::Directory {
            continue;
        }
        let name = format!("{}: {}", path.display(), member.display());
        let size_bytes = entry.size();
        let Some(time) = recorded_at(&member) else {
            info!(name, "skipped: its name does not state when it was recorded");
            continue;
        };
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            warn!(name, ?kind, "skipped: it is not a regular file");
            continue;
        }
        if size_bytes > BODY_LIMIT_BYTES {
            let too_large = files::too_large(BODY_LIMIT_BYTES);
            return Err(io::Error::new(too_large.kind(), format!("{}: {too_large}", member.display())));
        }
        let body = body_of(&mut entry)?;
        found.push(Recording::new(time, name, position as u64, size_bytes, body));
        progress(found.len());
    }
    Ok(())
}

/// A temporary file without a name.
struct Spool {
    file: Arc<File>,
    end: u64,
}

impl Spool {
    fn new() -> io::Result<Self> {
        Ok(Self { file: Arc::new(tempfile::tempfile()?), end: 0 })
    }

    fn keep(&mut self, body: &mut impl Read) -> io::Result<Body> {
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        let packed = zstd::bulk::compress(&bytes, LEVEL)?;
        let written =
            (&*self.file).seek(io::SeekFrom::Start(self.end)).and_then(|_| (&*self.file).write_all(&packed));
        written.map_err(|error| {
            io::Error::new(error.kind(), format!("the temporary file in $TMPDIR cannot be written: {error}"))
        })?;
        let offset = self.end;
        self.end += packed.len() as u64;
        Ok(Body::Packed { file: Arc::clone(&self.file), offset, packed_bytes: packed.len() })
    }
}
