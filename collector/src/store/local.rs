//! A store in a local folder, safe between processes and against power failure.
//!
//! An object is a file. It is staged in a hidden folder, synced, published under its name in one step, and
//! the folder that names it is synced: whoever sees the name sees the whole content, and a write that
//! returned survives a power failure. Creating relies on the file system's own "only if absent"; replacing
//! compares and renames under a lock that the operating system releases when its holder dies. Folders and
//! files are private to their owner.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tempfile::NamedTempFile;
use twox_hash::XxHash3_64;

use super::{Key, Listed, Object, Operation, Store, StoreError, Version, Write};

const STAGING: &str = ".staging";
const LOCK: &str = ".lock";
/// A staged file this old belongs to no living write.
const STALE: Duration = Duration::from_hours(24);

/// Objects as files below a folder.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: Arc<Path>,
}

impl LocalStore {
    /// A store below `root`, which is made by the first write.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into().into() }
    }

    /// Runs blocking file operations on a thread that may block.
    async fn blocking<T, F>(&self, operation: Operation, target: &str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Folder) -> io::Result<T> + Send + 'static,
    {
        let folder = Folder { root: Arc::clone(&self.root) };
        match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(StoreError::certain(operation, self.shown(target), error)),
            Err(error) => Err(StoreError::certain(operation, self.shown(target), error)),
        }
    }

    fn shown(&self, target: &str) -> String {
        self.root.join(target).display().to_string()
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let wanted = key.clone();
        self.blocking(Operation::Get, key.as_str(), move |folder| folder.read(&wanted)).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        let (wanted, bytes) = (key.clone(), bytes.to_vec());
        self.blocking(Operation::Create, key.as_str(), move |folder| folder.create(&wanted, &bytes)).await
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        let (wanted, bytes, expected) = (key.clone(), bytes.to_vec(), expected.clone());
        self.blocking(Operation::Replace, key.as_str(), move |folder| {
            folder.replace(&wanted, &bytes, &expected)
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let wanted = prefix.to_owned();
        self.blocking(Operation::List, prefix, move |folder| folder.list(&wanted)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let wanted = key.clone();
        self.blocking(Operation::Delete, key.as_str(), move |folder| folder.delete(&wanted)).await
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }
}

/// The blocking half.
struct Folder {
    root: Arc<Path>,
}

impl Folder {
    fn read(&self, key: &Key) -> io::Result<Option<Object>> {
        match fs::read(self.path(key)) {
            Ok(bytes) => Ok(Some(Object { version: version_of(&bytes), bytes })),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> io::Result<Write> {
        let (path, parent) = self.prepare(key)?;
        let outcome = match self.stage(bytes)?.persist_noclobber(&path) {
            Ok(_) => Write::Done(version_of(bytes)),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Write::Refused,
            Err(error) => return Err(error.error),
        };
        // Also when refused: the name may stem from a process that was killed before it synced the folder,
        // and the caller is about to rely on it.
        sync_folder(&parent)?;
        Ok(outcome)
    }

    fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> io::Result<Write> {
        let (path, parent) = self.prepare(key)?;
        let staged = self.stage(bytes)?;
        let _lock = self.lock()?;
        if self.read(key)?.is_none_or(|object| object.version != *expected) {
            return Ok(Write::Refused);
        }
        staged.persist(&path).map_err(|error| error.error)?;
        sync_folder(&parent)?;
        Ok(Write::Done(version_of(bytes)))
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        // Only the folder that the prefix names can hold matches, and what is below it.
        let deepest = prefix.rfind('/').map_or("", |end| &prefix[..end]);
        let mut found = Vec::new();
        self.walk(deepest, &mut |key, size_bytes| {
            if key.as_str().starts_with(prefix) {
                found.push(Listed { key, size_bytes });
            }
        })?;
        found.sort();
        Ok(found)
    }

    fn walk(&self, folder: &str, visit: &mut impl FnMut(Key, u64)) -> io::Result<()> {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let Ok(key) = Key::new(path) else { continue };
            let meta = match fs::metadata(entry.path()) {
                Ok(meta) => meta,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(error),
            };
            if meta.is_dir() {
                self.walk(key.as_str(), visit)?;
            } else {
                visit(key, meta.len());
            }
        }
        Ok(())
    }

    fn delete(&self, key: &Key) -> io::Result<()> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => path.parent().map_or(Ok(()), sync_folder),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Makes the folder an object goes to and sees to it that it lies below the root, links followed.
    fn prepare(&self, key: &Key) -> io::Result<(PathBuf, PathBuf)> {
        let path = self.path(key);
        let parent = path.parent().unwrap_or(&self.root).to_path_buf();
        make_folder(&parent)?;
        if !parent.canonicalize()?.starts_with(self.root.canonicalize()?) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "a link leads out of the store's folder",
            ));
        }
        Ok((path, parent))
    }

    /// Writes the content to a private file beside the objects, synced.
    fn stage(&self, bytes: &[u8]) -> io::Result<NamedTempFile> {
        let folder = self.root.join(STAGING);
        make_folder(&folder)?;
        let mut staged = tempfile::Builder::new().prefix("staged-").tempfile_in(&folder)?;
        staged.write_all(bytes)?;
        staged.as_file().sync_all()?;
        Ok(staged)
    }

    /// Waits for the lock under which objects are replaced. Who held it and died left no work half done.
    fn lock(&self) -> io::Result<File> {
        let lock = File::options().create(true).truncate(false).write(true).open(self.root.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {
                self.clear_stale();
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => lock.lock().map(|()| lock),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Removes what a killed process staged long ago. Best effort: it only takes room.
    fn clear_stale(&self) {
        let Ok(entries) = fs::read_dir(self.root.join(STAGING)) else { return };
        for entry in entries.flatten() {
            let modified = entry.metadata().and_then(|meta| meta.modified());
            let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if age.is_some_and(|age| age > STALE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The content names the state: whoever writes the same bytes again changes nothing.
fn version_of(bytes: &[u8]) -> Version {
    Version(format!("{:016x}-{}", XxHash3_64::oneshot(bytes), bytes.len()))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Makes a folder, private and durable, with all above it that do not exist.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    make_folder(parent)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => sync_folder(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
