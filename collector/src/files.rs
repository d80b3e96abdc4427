//! Opens files that others may have put there: a FIFO, a device or a link in the place of a file must neither block a command
//! nor lead it astray.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Regular,
    Folder,
    Fifo,
    Socket,
    Device,
}

impl FileKind {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let kind = metadata.file_type();
        if kind.is_file() {
            Self::Regular
        } else if kind.is_dir() {
            Self::Folder
        } else if kind.is_fifo() {
            Self::Fifo
        } else if kind.is_socket() {
            Self::Socket
        } else {
            Self::Device
        }
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Regular => "a regular file",
            Self::Folder => "a folder, not a regular file",
            Self::Fifo => "a FIFO, not a regular file",
            Self::Socket => "a socket, not a regular file",
            Self::Device => "a device, not a regular file",
        }
    }
}

/// Opening a FIFO must not wait for its other end, nor a terminal become the one that controls this process.
pub(crate) fn patient(options: &mut OpenOptions) -> &mut OpenOptions {
    flagged(options, OFlag::empty())
}

fn flagged(options: &mut OpenOptions, flags: OFlag) -> &mut OpenOptions {
    options.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY | flags).bits())
}

/// Opens a regular file for reading.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let open = patient(File::options().read(true)).open(path);
    // A socket cannot be opened at all.
    let file = open.map_err(|error| match fs::metadata(path).map(|metadata| FileKind::of(&metadata)) {
        Ok(FileKind::Socket) => not_regular(FileKind::Socket),
        _ => error,
    })?;
    require_regular(file)
}

fn require_regular(file: File) -> io::Result<File> {
    match FileKind::of(&file.metadata()?) {
        FileKind::Regular => Ok(file),
        other => Err(not_regular(other)),
    }
}

fn not_regular(kind: FileKind) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {}", kind.describe()))
}

/// Reads a regular file of at most `limit_bytes`.
pub(crate) fn read_regular(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    read_bounded(open_regular(path)?, limit_bytes)
}

/// Reads an open file to its end, which must not be beyond `limit_bytes`.
pub(crate) fn read_bounded(file: File, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let too_large =
        || io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit_bytes} bytes"));
    let size = file.metadata()?.len();
    if size > limit_bytes {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes { Err(too_large()) } else { Ok(bytes) }
}

/// Opens a folder, to sync it.
pub(crate) fn open_folder(path: &Path) -> io::Result<File> {
    flagged(File::options().read(true), OFlag::O_DIRECTORY).open(path)
}

/// Opens a lock file, which is made if need be. A link is not followed: it could name a file of somebody else.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).read(true);
    require_regular(flagged(&mut options, OFlag::O_NOFOLLOW).open(path)?)
}
