//! Folders and files that belong to this program alone: state and cache. What another user has put there, or can change, is not
//! used.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::output::is_trusted;
use super::{flagged, read_bounded, require_regular};

/// Write permission for the group and all others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Makes a folder with all above it, private to this user, if there is none. One that exists must belong to this user or root.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for metadata in [fs::symlink_metadata(folder)?, fs::metadata(folder)?] {
        require_trusted(&metadata).map_err(|error| {
            io::Error::new(error.kind(), format!("the folder {}: {error}", folder.display()))
        })?;
    }
    Ok(())
}

/// Opens a private file for reading and writing, which is made if there is none.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let file = require_regular(flagged(&mut options, OFlag::O_NOFOLLOW).open(path)?)?;
    let metadata = file.metadata()?;
    require_trusted(&metadata)?;
    if metadata.nlink() > 1 {
        return Err(denied("it has a second name (hard link)"));
    }
    // Earlier versions left it to the user's mask.
    if metadata.uid() == geteuid().as_raw() && metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
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
