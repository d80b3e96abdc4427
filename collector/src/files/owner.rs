//! Who owns new files and folders. A command that root runs on the files of another user must leave nothing that this user cannot
//! read or replace: what it makes belongs to the owner of the folder it is in.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, fchown};
use std::path::Path;

use nix::unistd::geteuid;
use tracing::debug;

use super::open_folder_itself;

/// The folder that a path is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// Gives a file or folder that root has just made to the owner of the folder `parent`; does nothing for other users.
pub(crate) fn hand_over(made: &File, parent: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    hand_over_to(made, &fs::metadata(parent)?)
}

/// Gives a file that root has just made to the owner of the file that it will replace, or of the folder `parent`.
pub(crate) fn hand_over_in_place_of(made: &File, replaced: &Path, parent: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    match fs::metadata(replaced) {
        Ok(before) if before.uid() != 0 => hand_over_to(made, &before),
        _ => hand_over(made, parent),
    }
}

fn hand_over_to(made: &File, model: &Metadata) -> io::Result<()> {
    // What is in a folder of root has the group that the kernel gave it.
    if model.uid() == 0 || made.metadata()?.uid() == model.uid() {
        return Ok(());
    }
    match fchown(made, Some(model.uid()), Some(model.gid())) {
        // A file system without owners, or a root without the right to change them.
        Err(error)
            if [io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported].contains(&error.kind()) =>
        {
            debug!(%error, uid = model.uid(), "a new file stays with root");
            Ok(())
        }
        result => result,
    }
}

/// Makes a folder of this mode, as far as the umask allows. `AlreadyExists` is an error.
pub(crate) fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    if geteuid().is_root() { hand_over(&open_folder_itself(path)?, folder_of(path)) } else { Ok(()) }
}

/// Makes a folder with all above it that do not exist.
pub(crate) fn create_folders(path: &Path, mode: u32) -> io::Result<()> {
    if path == Path::new("") || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_folders(parent, mode)?;
    }
    match create_folder(path, mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}
