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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use rustc_hash::FxHashSet;
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
    folder: Arc<Folder>,
}

impl LocalStore {
    /// A store below `root`, which is made by the first write.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { folder: Arc::new(Folder { root: root.into(), durable: Mutex::default() }) }
    }

    /// Runs blocking file operations on a thread that may block.
    async fn blocking<T, F>(&self, operation: Operation, target: &str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Folder) -> Result<T, Failure> + Send + 'static,
    {
        let folder = Arc::clone(&self.folder);
        let done = tokio::task::spawn_blocking(move || work(&folder)).await;
        let failure = match done {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(failure)) => failure,
            Err(error) => Failure { published: true, source: error.into() },
        };
        Err(StoreError {
            operation,
            target: self.folder.root.join(target).display().to_string(),
            outcome_unknown: failure.published,
            source: failure.source.into(),
        })
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
        self.folder.root.display().to_string()
    }
}

/// Why an operation failed.
struct Failure {
    /// Whether what was to be written can be seen, or may be; it is not known to last.
    published: bool,
    source: io::Error,
}

impl From<io::Error> for Failure {
    fn from(source: io::Error) -> Self {
        Self { published: false, source }
    }
}

impl Failure {
    fn after_publishing(source: io::Error) -> Self {
        Self { published: true, source }
    }
}

/// The blocking half.
#[derive(Debug)]
struct Folder {
    root: PathBuf,
    /// Folders whose own names are known to last, with all above them.
    durable: Mutex<FxHashSet<PathBuf>>,
}

impl Folder {
    fn read(&self, key: &Key) -> Result<Option<Object>, Failure> {
        match fs::read(self.path(key)) {
            Ok(bytes) => Ok(Some(Object { version: version_of(&bytes), bytes })),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, Failure> {
        let (path, parent) = self.prepare(key)?;
        let outcome = match self.stage(bytes)?.persist_noclobber(&path) {
            Ok(_) => Write::Done(version_of(bytes)),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Write::Refused,
            Err(error) => return Err(error.error.into()),
        };
        // Also when refused: the name may stem from a process that was killed before it synced the folder,
        // and the caller is about to rely on it.
        sync_folder(&parent).map_err(Failure::after_publishing)?;
        Ok(outcome)
    }

    fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, Failure> {
        let (path, parent) = self.prepare(key)?;
        let staged = self.stage(bytes)?;
        let _lock = self.lock()?;
        if self.read(key)?.is_none_or(|object| object.version != *expected) {
            return Ok(Write::Refused);
        }
        staged.persist(&path).map_err(|error| error.error)?;
        sync_folder(&parent).map_err(Failure::after_publishing)?;
        Ok(Write::Done(version_of(bytes)))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, Failure> {
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

    fn delete(&self, key: &Key) -> Result<(), Failure> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => path.parent().map_or(Ok(()), sync_folder).map_err(Failure::after_publishing),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Makes the folder an object goes to and sees to it that it lies below the root, links followed.
    fn prepare(&self, key: &Key) -> io::Result<(PathBuf, PathBuf)> {
        let path = self.path(key);
        let parent = path.parent().unwrap_or(&self.root).to_path_buf();
        self.make_folder(&parent)?;
        if !parent.canonicalize()?.starts_with(self.root.canonicalize()?) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "a link leads out of the store's folder",
            ));
        }
        Ok((path, parent))
    }

    /// Makes a folder, private and durable, with all above it that do not exist.
    ///
    /// One that exists may have been made by a process that was killed before it synced the folder above: so
    /// that is synced too, once.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if self.is_durable(folder) {
            return Ok(());
        }
        // What is above the root is its owner's business.
        let is_inner = folder != self.root && folder.starts_with(&self.root);
        if is_inner || !folder.is_dir() {
            let parent = folder.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
            self.make_folder(parent)?;
            match DirBuilder::new().mode(0o700).create(folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                Err(error) => return Err(error),
            }
            sync_folder(parent)?;
        }
        self.durable().insert(folder.to_path_buf());
        Ok(())
    }

    fn is_durable(&self, folder: &Path) -> bool {
        self.durable().contains(folder) && folder.is_dir()
    }

    fn durable(&self) -> MutexGuard<'_, FxHashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the content to a private file beside the objects, synced.
    fn stage(&self, bytes: &[u8]) -> io::Result<NamedTempFile> {
        let folder = self.root.join(STAGING);
        self.make_folder(&folder)?;
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

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
