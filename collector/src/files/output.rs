//! Writes a file that other programs read. A regular file is replaced in one step; a FIFO, a device or a standard stream is
//! written to; a symbolic link stays, and is followed only if its owner is trusted.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;
use tempfile::NamedTempFile;

use super::{FileKind, owner, patient};

/// Most symbolic links on the way to a file, as in the kernel.
const MOST_LINKS: usize = 40;
/// Write permission for everybody, and the bit that lets only owners rename and delete.
pub(super) const WRITABLE_BY_ALL: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Writes a file in a folder that is made if need be; it has no final name yet.
pub(crate) fn stage(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let folder = owner::folder_of(path);
    owner::create_folders(folder, 0o777)?;
    // Monitors run as other users: as readable as the user's mask allows.
    let mut staged = tempfile::Builder::new()
        .prefix(".staged-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    owner::hand_over_in_place_of(staged.as_file(), path, folder)?;
    staged.write_all(bytes)?;
    Ok(staged)
}

/// Writes `bytes` to where `path` leads.
///
/// # Errors
/// If it cannot be written, or leads to a place that is not to be trusted. A file that was there is still whole then.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match resolve(path)? {
        Target::File(path) => stage(&path, bytes)?.persist(&path).map(drop).map_err(|error| error.error),
        Target::Special(path) => write_to(patient(File::options().write(true)).open(path), bytes),
        Target::Descriptor(1) => write_to(Ok(io::stdout()), bytes),
        Target::Descriptor(2) => write_to(Ok(io::stderr()), bytes),
        // Opened anew, since a number alone cannot be written to. At the end of a file, as `>>` would.
        Target::Descriptor(number) => {
            let path = format!("/proc/self/fd/{number}");
            write_to(patient(File::options().append(true)).open(path), bytes)
        }
    }
}

fn write_to(opened: io::Result<impl io::Write>, bytes: &[u8]) -> io::Result<()> {
    let written = opened.and_then(|mut out| {
        out.write_all(bytes)?;
        out.flush()
    });
    written.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENXIO) => io::Error::new(error.kind(), "no process reads the FIFO"),
        Some(Errno::EAGAIN) => io::Error::new(error.kind(), "the process that reads the FIFO is too slow"),
        _ => error,
    })
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// A regular file, or a name that is free.
    File(PathBuf),
    /// A FIFO or a device.
    Special(PathBuf),
    /// An open file of this process.
    Descriptor(u32),
}

/// Follows a path link by link.
fn resolve(path: &Path) -> io::Result<Target> {
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut current = PathBuf::new();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if let Some(number) = descriptor(&current, &part).filter(|_| rest.is_empty()) {
            return Ok(Target::Descriptor(number));
        }
        let next = current.join(&part);
        let metadata = match fs::symlink_metadata(&next) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Target::File(rest.into_iter().fold(next, |path, part| path.join(part))));
            }
            Err(error) => return Err(error),
        };
        if metadata.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::ELOOP.into());
            }
            require_trusted(&next, &metadata, &current)?;
            for part in parts(&fs::read_link(&next)?).collect::<Vec<_>>().into_iter().rev() {
                rest.push_front(part);
            }
            continue;
        }
        current = next;
        if rest.is_empty() {
            return target(current, &metadata);
        }
    }
    Err(refused(path, "it is a folder"))
}

fn target(path: PathBuf, metadata: &Metadata) -> io::Result<Target> {
    match FileKind::of(metadata) {
        FileKind::Regular => Ok(Target::File(path)),
        kind @ (FileKind::Folder | FileKind::Socket) => {
            Err(refused(&path, &format!("it is {}", kind.describe())))
        }
        FileKind::Fifo | FileKind::Device => {
            if fs::metadata(owner::folder_of(&path))?.mode() & WRITABLE_BY_ALL != 0 {
                require_trusted_owner(&path, metadata)?;
            }
            Ok(Target::Special(path))
        }
    }
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter(|part| *part != Component::CurDir).map(|part| part.as_os_str().to_owned())
}

/// The number of an open file, where a name in `/proc` stands for it.
fn descriptor(folder: &Path, name: &OsStr) -> Option<u32> {
    let own = [PathBuf::from("/proc/self/fd"), format!("/proc/{}/fd", std::process::id()).into()];
    own.iter().any(|own| own == folder).then(|| name.to_str()?.parse().ok())?
}

fn require_trusted(link: &Path, metadata: &Metadata, folder: &Path) -> io::Result<()> {
    require_trusted_owner(link, metadata)?;
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    let folder = fs::metadata(folder)?;
    let is_shared = folder.mode() & (WRITABLE_BY_ALL | STICKY) == WRITABLE_BY_ALL | STICKY;
    if is_shared && !is_trusted(folder.uid()) {
        return Err(refused(link, "it is a link in a shared folder of another user"));
    }
    Ok(())
}

fn require_trusted_owner(path: &Path, metadata: &Metadata) -> io::Result<()> {
    if is_trusted(metadata.uid()) {
        return Ok(());
    }
    Err(refused(path, &format!("it belongs to another user (uid {})", metadata.uid())))
}

/// Whether what a user owns is to be trusted: this one, and root.
pub(super) fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw()
}

fn refused(path: &Path, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{}: {reason}", path.display()))
}
