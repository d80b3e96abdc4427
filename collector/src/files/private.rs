//! Folders and files that belong to this program alone: state and cache. What another user has put there, or can change, is not
//! used.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use tempfile::NamedTempFile;

use super::output::{WRITABLE_BY_ALL, is_trusted};
use super::owner::{create_folders, folder_of, hand_over};
use super::{flagged, read_bounded, require_regular};

/// Write permission for the group and all others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Makes a folder with all above it, private to its owner, if there is none. One that exists must belong to this user or root.
/// Root also takes one of another user, unless everybody could have put it there.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    create_folders(folder, 0o700)?;
    let above = folder.canonicalize()?;
    let is_anybodys = fs::metadata(folder_of(&above))?.mode() & WRITABLE_BY_ALL != 0;
    for metadata in [fs::symlink_metadata(folder)?, fs::metadata(folder)?] {
        if geteuid().is_root() && !is_anybodys {
            continue;
        }
        require_trusted(&metadata).map_err(|error| {
            io::Error::new(error.kind(), format!("the folder {}: {error}", folder.display()))
        })?;
    }
    Ok(())
}

/// Opens a private file for reading and writing, which is made if there is none. Root makes it for the owner of the folder, and
/// takes one that belongs to that owner.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let file = require_regular(flagged(&mut options, OFlag::O_NOFOLLOW).open(path)?)?;
    let folder = folder_of(path);
    hand_over(&file, folder)?;
    let metadata = file.metadata()?;
    if !(geteuid().is_root() && metadata.uid() == fs::metadata(folder)?.uid()) {
        require_trusted(&metadata)?;
    }
    if metadata.nlink() > 1 {
        return Err(denied("it has a second name (hard link)"));
    }
    // Earlier versions left it to the user's mask.
    if metadata.uid() == geteuid().as_raw() && metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Takes the lock on a private file, for which it waits no longer than `patience`.
pub(crate) fn lock(file: &File, patience: Duration) -> io::Result<()> {
    if super::wait_for_lock(file, patience)? {
        return Ok(());
    }
    let reason = format!("another process has locked it for more than {} s", patience.as_secs_f64());
    Err(io::Error::new(io::ErrorKind::WouldBlock, reason))
}

/// Stages a private file in a folder: it has no final name yet.
pub(crate) fn stage(folder: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut staged = tempfile::Builder::new()
        .prefix(".staged-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    hand_over(staged.as_file(), folder)?;
    staged.write_all(bytes)?;
    Ok(staged)
}

/// Reads a private file of at most `limit_bytes`. One that others can write to is refused.
pub(crate) fn read(path: &Path, limit_bytes: u64) -> io::Result<(Vec<u8>, File)> {
    let file = require_regular(flagged(File::options().read(true), OFlag::O_NOFOLLOW).open(path)?)?;
    let metadata = file.metadata()?;
    require_trusted(&metadata)?;
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(denied("others can write to it"));
    }
    Ok((read_bounded(&file, limit_bytes)?, file))
}

fn require_trusted(metadata: &Metadata) -> io::Result<()> {
    if is_trusted(metadata.uid()) {
        return Ok(());
    }
    Err(denied(&format!("it belongs to another user (uid {})", metadata.uid())))
}

fn denied(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}
