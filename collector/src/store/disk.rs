//! What a local store asks of a file system, so that one can be simulated that loses what was not synced.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

/// A staged file this old belongs to no living write.
const STALE: Duration = Duration::from_hours(24);

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its size in bytes; nothing for a folder.
    pub size_bytes: Option<u64>,
}

/// A file system. What was written or named is only certain to outlast a power failure once it was synced.
pub trait Disk: Debug + Send + Sync + 'static {
    /// A file that has no final name yet. Dropped, it is gone.
    type Staged: Staged;
    /// Excludes other processes as long as it lives, and no longer than its process.
    type Lock;

    /// Reads a file.
    ///
    /// # Errors
    /// [`io::Error`], of the kind `NotFound` or `NotADirectory` if there is none.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The entries of a folder, in no order, links followed.
    ///
    /// # Errors
    /// [`io::Error`], of the kind `NotFound` or `NotADirectory` if there is none.
    fn entries(&self, folder: &Path) -> io::Result<Vec<Entry>>;

    /// Whether there is a folder.
    fn is_folder(&self, path: &Path) -> bool;

    /// Whether a folder lies in another one, links followed.
    ///
    /// # Errors
    /// [`io::Error`] if that cannot be told.
    fn is_inside(&self, folder: &Path, root: &Path) -> io::Result<bool>;

    /// Makes a private folder, where none of that name is.
    ///
    /// # Errors
    /// [`io::Error`] if there is something else, or none can be made.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Writes a private file that has no final name yet.
    ///
    /// # Errors
    /// [`io::Error`] if not all of it could be written.
    fn stage(&self, folder: &Path, bytes: &[u8]) -> io::Result<Self::Staged>;

    /// Makes the names in a folder last.
    ///
    /// # Errors
    /// [`io::Error`] if that is not certain.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Waits until nobody else holds the lock.
    ///
    /// # Errors
    /// [`io::Error`] if there can be no lock.
    fn lock(&self, path: &Path) -> io::Result<Self::Lock>;

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
        fs::read(path)
    }

    fn entries(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match fs::metadata(entry.path()) {
                Ok(meta) => found.push(Entry { name, size_bytes: (!meta.is_dir()).then_some(meta.len()) }),
                // Renamed away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn is_inside(&self, folder: &Path, root: &Path) -> io::Result<bool> {
        Ok(folder.canonicalize()?.starts_with(root.canonicalize()?))
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        }
    }

    fn stage(&self, folder: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
        let mut staged = tempfile::Builder::new().prefix("staged-").tempfile_in(folder)?;
        staged.write_all(bytes)?;
        Ok(staged)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<File> {
        let lock = File::options().create(true).truncate(false).write(true).open(path)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => lock.lock().map(|()| lock),
            Err(TryLockError::Error(error)) => Err(error),
        }
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
