//! Opens files that others may have put there: a FIFO, a device or a link in the place of a file must neither block a command
//! nor lead it astray.

pub(crate) mod descriptors;
pub(crate) mod output;
pub(crate) mod owner;
pub(crate) mod private;

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Utc;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Pause between two attempts to take a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Checks that a path is that of a folder, or can become one.
///
/// # Errors
/// What is there instead.
pub fn check_folder(path: &Path) -> io::Result<()> {
    let error = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(metadata) if metadata.is_file() => return Err(io::Error::other("it is a file, not a folder")),
        Ok(_) => return Err(io::Error::other("it is a FIFO, socket or device, not a folder")),
        Err(error) => error,
    };
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    match error.kind() {
        io::ErrorKind::NotFound if is_link => {
            Err(io::Error::other("it is a symbolic link that leads nowhere"))
        }
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Ok(()),
        _ => Err(error),
    }
}

/// Checks that a file can be written at a path, before long work whose result goes there. Leaves nothing behind.
///
/// # Errors
/// Why it cannot.
pub fn writable(path: PathBuf) -> io::Result<PathBuf> {
    let checked = match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Err(io::Error::other("it is a folder, not a file")),
        Ok(metadata) if metadata.is_file() => OpenOptions::new().append(true).open(&path).map(drop),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            tempfile::tempfile_in(folder.unwrap_or(Path::new("."))).map(drop)
        }
        Err(error) => Err(error),
    };
    checked.map(|()| path)
}

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
///
/// # Errors
/// [`io::Error`] if it cannot be read, is too large, or not a regular file.
pub fn read_regular(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    read_bounded(&open_regular(path)?, limit_bytes)
}

/// Reads a text from a file, FIFO or device to its end, which must not be beyond `limit_bytes` and must come within `patience`.
///
/// # Errors
/// [`io::Error`] if it cannot be read, is too large, too slow, or not UTF-8.
pub fn read_text(path: &Path, limit_bytes: u64, patience: Duration) -> io::Result<String> {
    let bytes = read_stream(path, limit_bytes, patience)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Reads an open file to its end, which must not be beyond `limit_bytes`.
pub(crate) fn read_bounded(file: &File, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    if size > limit_bytes {
        return Err(too_large(limit_bytes));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes { Err(too_large(limit_bytes)) } else { Ok(bytes) }
}

pub(crate) fn too_large(limit_bytes: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit_bytes} bytes"))
}

/// Opens a folder, to sync it.
pub(crate) fn open_folder(path: &Path) -> io::Result<File> {
    flagged(File::options().read(true), OFlag::O_DIRECTORY).open(path)
}

/// Opens a folder, but not one that a symbolic link leads to.
fn open_folder_itself(path: &Path) -> io::Result<File> {
    flagged(File::options().read(true), OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).open(path)
}

/// Opens a lock file, which is made if need be. A link is not followed: it could name a file of somebody else.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).read(true);
    let file = require_regular(flagged(&mut options, OFlag::O_NOFOLLOW).open(path)?)?;
    owner::hand_over(&file, owner::folder_of(path))?;
    Ok(file)
}

/// Locks a file, which is made if need be, until the returned file is closed. The error names the program that holds it.
pub(crate) fn lock(path: &Path, wait: Duration) -> io::Result<File> {
    let mut lock = open_lock(path)?;
    if !wait_for_lock(&lock, wait)? {
        let mut holder = String::new();
        let _ = (&lock).take(200).read_to_string(&mut holder);
        let path = path.display();
        return Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!("the lock {path} is held by another program ({})", holder.escape_debug()),
        ));
    }
    lock.set_len(0)?;
    write!(lock, "process {} since {}", std::process::id(), Utc::now().to_rfc3339())?;
    Ok(lock)
}

/// Locks a folder until the returned file is closed.
pub(crate) fn lock_folder(path: &Path, wait: Duration) -> io::Result<File> {
    let folder = open_folder(path)?;
    if wait_for_lock(&folder, wait)? {
        return Ok(folder);
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, format!("{} is locked by another program", path.display())))
}

/// Takes the lock on a file, for which it waits no longer than `wait`. Whether it could.
fn wait_for_lock(file: &File, wait: Duration) -> io::Result<bool> {
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if begin.elapsed() < wait => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Reads a file, FIFO or device to its end, which must not be beyond `limit_bytes` and must come within `patience`.
pub(crate) fn read_stream(path: &Path, limit_bytes: u64, patience: Duration) -> io::Result<Vec<u8>> {
    let mut file = patient(File::options().read(true)).open(path)?;
    match FileKind::of(&file.metadata()?) {
        FileKind::Regular => return read_bounded(&file, limit_bytes),
        kind @ (FileKind::Folder | FileKind::Socket) => return Err(not_regular(kind)),
        FileKind::Fifo | FileKind::Device => {}
    }
    let began = Instant::now();
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    while bytes.len() as u64 <= limit_bytes {
        let rest = patience.saturating_sub(began.elapsed());
        let mut wanted = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        if poll(&mut wanted, PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX))? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did not end within {} s", patience.as_secs_f64()),
            ));
        }
        match file.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(too_large(limit_bytes))
}
