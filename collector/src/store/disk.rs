//! What a local store asks of a file system, so that one can be simulated that loses what was not synced.

use std::fmt::Debug;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use crate::files::{self, FileKind, descriptors, owner};

/// A staged file this old belongs to no living write.
const STALE: Duration = Duration::from_hours(24);
/// Number of files that are synced at a time. Measured on ext4: 45 files take 2.5 ms with 8, 3.2 ms with 4, 120 ms one by one.
const SYNCED_AT_ONCE: usize = 8;

/// Maximum size of an object that is read. The largest one that a run writes holds the rejected elements of a response of
/// 64 MiB, with a reason for each.
const OBJECT_LIMIT_BYTES: u64 = 1024 * 1024 * 1024;

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name; what is not UTF-8 in it is replaced.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file, or a symbolic link to one.
    File {
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// A folder.
    Folder,
    /// A symbolic link to a folder.
    LinkToFolder,
    /// Nothing that can hold an object, and why.
    Other(&'static str),
}

/// Of a link whose target does not exist.
pub(super) const LEADS_NOWHERE: &str = "a symbolic link that leads nowhere";

/// A file system. What was written or named is only certain to outlast a power failure once it was synced.
pub trait Disk: Debug + Send + Sync + 'static {
    /// A file that has no final name yet. Dropped, it is gone.
    type Staged: Staged;
    /// Excludes other processes as long as it lives, and no longer than its process.
    type Lock;

    /// Reads a regular file of at most 1 GiB, without ever waiting for another process.
    ///
    /// # Errors
    /// [`io::Error`], of the kind `NotFound` or `NotADirectory` if there is none.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The entries of a folder, in no order.
    ///
    /// # Errors
    /// [`io::Error`], of the kind `NotFound` or `NotADirectory` if there is none.
    fn entries(&self, folder: &Path) -> io::Result<Vec<Entry>>;

    /// Whether there is a folder.
    fn is_folder(&self, path: &Path) -> bool;

    /// The absolute path of a folder, without symbolic links.
    ///
    /// # Errors
    /// [`io::Error`] if it does not exist or cannot be reached.
    fn resolve(&self, folder: &Path) -> io::Result<PathBuf>;

    /// Makes a folder, where none of that name is. Its mode follows the umask.
    ///
    /// # Errors
    /// [`io::Error`] if there is something else, or none can be made.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Writes a file that has no final name yet. Its mode follows the umask.
    ///
    /// # Errors
    /// [`io::Error`] if not all of it could be written.
    fn stage(&self, folder: &Path, bytes: &[u8]) -> io::Result<Self::Staged>;

    /// Makes the names in a folder last.
    ///
    /// # Errors
    /// [`io::Error`] if that is not certain.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Maximum number of files that are staged at a time.
    fn most_staged(&self) -> usize {
        usize::MAX
    }

    /// Makes the contents of several files last, each as [`Staged::sync`] does.
    fn sync_staged(&self, staged: Vec<&Self::Staged>) -> Vec<io::Result<()>> {
        staged.into_iter().map(Staged::sync).collect()
    }

    /// Makes the names in several folders last, each as [`Disk::sync_folder`] does.
    fn sync_folders(&self, folders: &[PathBuf]) -> Vec<io::Result<()>> {
        folders.iter().map(|folder| self.sync_folder(folder)).collect()
    }

    /// Waits until no other process holds the lock, but no longer than `wait`.
    ///
    /// # Errors
    /// [`io::Error`] if there can be no lock, or somebody else holds it still; then it says who, and since when.
    fn lock(&self, path: &Path, wait: Duration) -> io::Result<Self::Lock>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`io::Error`], of the kind `NotFound` or `NotADirectory` if there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes what dead processes left staged long ago, as far as possible: it only takes room.
    fn clear_stale(&self, folder: &Path);
}

/// A file that has no final name yet.
pub trait Staged {
    /// Makes its content last.
    ///
    /// # Errors
    /// [`io::Error`] if that is not certain.
    fn sync(&self) -> io::Result<()>;

    /// Names it, if nothing has that name. Whether that was so.
    ///
    /// # Errors
    /// [`io::Error`] if it could not be named.
    fn name_new(self, path: &Path) -> io::Result<bool>;

    /// Names it, in the place of what had that name.
    ///
    /// # Errors
    /// [`io::Error`] if it could not be named.
    fn name_over(self, path: &Path) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileSystem;

impl Disk for FileSystem {
    type Staged = NamedTempFile;
    type Lock = File;

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        files::read_regular(path, OBJECT_LIMIT_BYTES)
    }

    fn entries(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| lost_or_absent(folder, error))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_link = entry.file_type()?.is_symlink();
            let kind = match fs::metadata(entry.path()) {
                Ok(meta) if meta.is_file() && meta.len() > OBJECT_LIMIT_BYTES => {
                    EntryKind::Other("larger than any object, 1 GiB")
                }
                Ok(meta) if meta.is_file() => EntryKind::File { size_bytes: meta.len() },
                Ok(meta) if meta.is_dir() && is_link => EntryKind::LinkToFolder,
                Ok(meta) if meta.is_dir() => EntryKind::Folder,
                Ok(meta) => EntryKind::Other(FileKind::of(&meta).describe()),
                Err(error) if is_link && leads_nowhere(&error) => EntryKind::Other(LEADS_NOWHERE),
                // Renamed away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            found.push(Entry { name, kind });
        }
        Ok(found)
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn resolve(&self, folder: &Path) -> io::Result<PathBuf> {
        folder.canonicalize()
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        match owner::create_folder(path, 0o777) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        }
    }

    fn stage(&self, folder: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
        if !fs::symlink_metadata(folder)?.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "the folder for staged files must not be a link",
            ));
        }
        let mut staged = tempfile::Builder::new()
            .prefix("staged-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        owner::hand_over(staged.as_file(), folder)?;
        staged.write_all(bytes)?;
        Ok(staged)
    }

    /// A staged file is open until it is named.
    fn most_staged(&self) -> usize {
        descriptors::spare()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        files::open_folder(folder)?.sync_all()
    }

    fn sync_staged(&self, staged: Vec<&NamedTempFile>) -> Vec<io::Result<()>> {
        at_once(&staged, |staged| staged.sync())
    }

    fn sync_folders(&self, folders: &[PathBuf]) -> Vec<io::Result<()>> {
        at_once(folders, |folder| self.sync_folder(folder))
    }

    fn lock(&self, path: &Path, wait: Duration) -> io::Result<File> {
        files::lock(path, wait)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn clear_stale(&self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let modified = entry.metadata().and_then(|meta| meta.modified());
            let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if age.is_some_and(|age| age > STALE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Syncs several at a time, so that the file system commits them together. That takes as long as `syncfs`, which would
/// wait for what other programs wrote as well, and may report their errors instead of ours.
fn at_once<T: Sync>(items: &[T], sync: impl Fn(&T) -> io::Result<()> + Sync) -> Vec<io::Result<()>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, sync(item)));
        }
    };
    let done: Vec<_> = thread::scope(|scope| {
        let helpers = items.len().min(SYNCED_AT_ONCE).min(descriptors::spare()).saturating_sub(1);
        let helpers: Vec<_> =
            (0..helpers).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let own = work();
        own.into_iter().chain(helpers.into_iter().filter_map(|it| it.join().ok()).flatten()).collect()
    });
    let mut results: Vec<_> = items.iter().map(|_| Err(io::Error::other("a thread failed"))).collect();
    for (index, result) in done {
        results[index] = result;
    }
    results
}

/// A folder below a link that leads nowhere is not absent.
fn lost_or_absent(folder: &Path, error: io::Error) -> io::Error {
    let existing = folder.ancestors().find(|path| fs::symlink_metadata(path).is_ok());
    let is_lost = existing.is_some_and(|path| fs::metadata(path).is_err());
    if is_lost && leads_nowhere(&error) { io::Error::other(LEADS_NOWHERE) } else { error }
}

/// Whether a link names something that does not exist, or itself.
fn leads_nowhere(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ELOOP)
}

impl Staged for NamedTempFile {
    fn sync(&self) -> io::Result<()> {
        self.as_file().sync_all()
    }

    fn name_new(self, path: &Path) -> io::Result<bool> {
        match self.persist_noclobber(path) {
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    }

    fn name_over(self, path: &Path) -> io::Result<()> {
        self.persist(path).map(drop).map_err(|error| error.error)
    }
}
