//! A store in a local folder, safe between processes and against power failure.
//!
//! An object is a file. It is staged in a hidden folder, synced, published under its name in one step, and
//! the folder that names it is synced: whoever sees the name sees the whole content, and a write that
//! returned survives a power failure. Creating relies on the file system's own "only if absent", and nothing else keeps
//! collectors apart: the ledger is a sequence of objects that are created. Only `repair` replaces objects, while it
//! holds a claim; that compares and renames under a lock. The modes of folders and files follow the umask.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::statfs::statfs;
use rustc_hash::FxHashSet;
use twox_hash::XxHash3_64;

use super::disk::{Disk, FileSystem, Staged as _};
use super::folders::Walk;
use super::{Key, ListPage, Listed, Object, Operation, PageStart, Store, StoreError, Version, Write, probe};

const STAGING: &str = ".staging";
const LOCK: &str = ".lock";
/// How long to wait for another writer that replaces an object. One that was stopped may hold the lock for ever.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Minimum number of objects in a page of a listing, but for the last page.
const PAGE_OBJECTS: usize = 256;
/// Number of objects that one thread reads at a time: to hand over work to a thread takes as long as to read two small files.
const OBJECTS_TOGETHER: usize = 64;

/// Objects as files below a folder.
#[derive(Debug, Clone)]
pub struct LocalStore {
    folder: Arc<Folder<FileSystem>>,
}

impl LocalStore {
    /// A store below `root`, which is made by the first write.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { folder: Arc::new(Folder::new(FileSystem, root)) }
    }

    /// Runs file operations on a thread that may block.
    async fn blocking<T, F>(&self, operation: Operation, target: &str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Folder<FileSystem>) -> Result<T, FolderError> + Send + 'static,
    {
        let folder = Arc::clone(&self.folder);
        let failure = match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(failure)) => failure,
            Err(error) => FolderError { published: true, source: error.into() },
        };
        Err(self.failure(operation, target, failure))
    }

    fn failure(&self, operation: Operation, target: &str, failure: FolderError) -> StoreError {
        StoreError {
            operation,
            target: self.folder.root.join(target).display().to_string(),
            outcome_unknown: failure.published,
            source: failure.source.into(),
        }
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

    async fn create_together(&self, objects: &[(&Key, &[u8])]) -> Option<Vec<Result<Write, StoreError>>> {
        let owned: Vec<(Key, Vec<u8>)> =
            objects.iter().map(|&(key, bytes)| (key.clone(), bytes.to_vec())).collect();
        let folder = Arc::clone(&self.folder);
        let results = tokio::task::spawn_blocking(move || folder.create_together(&owned)).await;
        let results = results.unwrap_or_else(|error| {
            let failure =
                |_| Err(FolderError { published: true, source: io::Error::other(error.to_string()) });
            objects.iter().map(failure).collect()
        });
        let failed = |key: &Key, failure| self.failure(Operation::Create, key.as_str(), failure);
        let keys = objects.iter().map(|(key, _)| *key);
        Some(keys.zip(results).map(|(key, result)| result.map_err(|it| failed(key, it))).collect())
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

    async fn list_page(&self, prefix: &str, start: &PageStart) -> Result<ListPage, StoreError> {
        let wanted = prefix.to_owned();
        let after = match start {
            PageStart::First => String::new(),
            PageStart::After(name) | PageStart::Token(name) => name.clone(),
        };
        self.blocking(Operation::List, prefix, move |folder| folder.list_page(&wanted, &after, PAGE_OBJECTS))
            .await
    }

    fn objects_together(&self) -> usize {
        OBJECTS_TOGETHER
    }

    async fn get_together(&self, keys: &[Key]) -> Vec<Result<Option<Object>, StoreError>> {
        let (wanted, folder) = (keys.to_vec(), Arc::clone(&self.folder));
        let read = move || wanted.iter().map(|key| folder.read(key)).collect::<Vec<_>>();
        let failed = |key: &Key, failure| self.failure(Operation::Get, key.as_str(), failure);
        match tokio::task::spawn_blocking(read).await {
            Ok(read) => keys.iter().zip(read).map(|(key, it)| it.map_err(|it| failed(key, it))).collect(),
            Err(error) => {
                let reason = error.to_string();
                let failure = |key| failed(key, io::Error::other(reason.as_str()).into());
                keys.iter().map(|key| Err(failure(key))).collect()
            }
        }
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let wanted = key.clone();
        self.blocking(Operation::Delete, key.as_str(), move |folder| folder.delete(&wanted)).await
    }

    async fn publish(&self, key: &Key, bytes: &[u8]) -> Result<(), StoreError> {
        let (wanted, bytes) = (key.clone(), bytes.to_vec());
        self.blocking(Operation::Replace, key.as_str(), move |folder| folder.publish(&wanted, &bytes)).await
    }

    /// POSIX has no such step, and the lock that replaces it is ignored by some file systems.
    fn replaces_atomically(&self) -> bool {
        false
    }

    fn location(&self) -> String {
        self.folder.root.display().to_string()
    }

    fn fingerprint(&self) -> String {
        let root = &self.folder.root;
        let path = root.canonicalize().unwrap_or_else(|_| root.clone());
        let found = statfs(root);
        #[cfg(target_os = "linux")]
        let kind = format!("{:#x}", found.map_or(0, |found| found.filesystem_type().0));
        #[cfg(not(target_os = "linux"))]
        let kind = found.map_or_else(|_| String::new(), |found| found.filesystem_type_name().to_owned());
        format!("{} on a file system of type {kind}", path.display())
    }

    async fn probe(&self) -> Result<Option<String>, StoreError> {
        self.blocking(Operation::Create, "", |folder| {
            let probes = probe::probe(&folder.root)?;
            Ok(probes.into_iter().find_map(|probe| probe.outcome.err()))
        })
        .await
    }

    fn proves_content(&self) -> bool {
        true
    }

    fn identity(&self) -> String {
        let root = &self.folder.root;
        let canonical = root.canonicalize().or_else(|_| std::path::absolute(root));
        canonical.as_ref().unwrap_or(root).display().to_string()
    }
}

/// Why an operation on a folder failed.
#[derive(Debug)]
pub struct FolderError {
    /// Whether what was to be written can be seen, or may be; it is not known to last.
    pub published: bool,
    /// Why.
    pub source: io::Error,
}

impl From<io::Error> for FolderError {
    fn from(source: io::Error) -> Self {
        Self { published: false, source }
    }
}

impl FolderError {
    fn after_publishing(source: io::Error) -> Self {
        Self { published: true, source }
    }
}

/// The operations of a [`Store`] on a file system, blocking.
#[derive(Debug)]
pub struct Folder<D> {
    disk: D,
    root: PathBuf,
    /// Folders whose own names are known to last, with all above them up to the root.
    durable: Mutex<FxHashSet<PathBuf>>,
}

impl<D: Disk> Folder<D> {
    /// The folder `root` of a file system.
    #[must_use]
    pub fn new(disk: D, root: impl Into<PathBuf>) -> Self {
        Self { disk, root: root.into(), durable: Mutex::default() }
    }

    /// [`Store::get`].
    ///
    /// # Errors
    /// [`FolderError`] as the file system says.
    pub fn read(&self, key: &Key) -> Result<Option<Object>, FolderError> {
        match self.disk.read(&self.path(key)) {
            Ok(bytes) => Ok(Some(Object { version: version_of(&bytes), bytes })),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// [`Store::create`].
    ///
    /// # Errors
    /// [`FolderError`] as the file system says.
    pub fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, FolderError> {
        let (path, parent) = self.prepare(key)?;
        let is_new = self.stage(bytes)?.name_new(&path)?;
        // Also if it is not new: the name may stem from a process that was killed before it synced the
        // folder, and the caller is about to rely on it.
        self.disk.sync_folder(&parent).map_err(FolderError::after_publishing)?;
        Ok(if is_new { Write::Done(version_of(bytes)) } else { Write::Refused })
    }

    /// [`Store::create_together`]: of as many objects as may be staged at a time, all contents are synced before the first one
    /// is named, then each folder once.
    pub fn create_together(&self, objects: &[(Key, Vec<u8>)]) -> Vec<Result<Write, FolderError>> {
        let most_staged = self.disk.most_staged().max(1);
        objects.chunks(most_staged).flat_map(|objects| self.create_staged(objects)).collect()
    }

    fn create_staged(&self, objects: &[(Key, Vec<u8>)]) -> Vec<Result<Write, FolderError>> {
        let prepared: Vec<_> = objects.iter().map(|(key, bytes)| self.prepare_staged(key, bytes)).collect();
        let synced = self.disk.sync_staged(prepared.iter().flatten().map(|(_, _, staged)| staged).collect());
        let mut named = Vec::new();
        let mut parents = BTreeSet::new();
        for (prepared, synced) in distribute(prepared, synced) {
            named.push(prepared.and_then(|(path, parent, staged)| {
                synced?;
                let is_new = staged.name_new(&path)?;
                parents.insert(parent.clone());
                Ok((parent, is_new))
            }));
        }
        let parents: Vec<PathBuf> = parents.into_iter().collect();
        let lasting: BTreeMap<&PathBuf, io::Result<()>> =
            parents.iter().zip(self.disk.sync_folders(&parents)).collect();
        let results = named.into_iter().zip(objects).map(|(named, (_, bytes))| {
            let (parent, is_new) = named?;
            if let Some(Err(error)) = lasting.get(&parent) {
                let error = io::Error::new(error.kind(), error.to_string());
                return Err(FolderError::after_publishing(error));
            }
            Ok(if is_new { Write::Done(version_of(bytes)) } else { Write::Refused })
        });
        results.collect()
    }

    fn prepare_staged(&self, key: &Key, bytes: &[u8]) -> io::Result<(PathBuf, PathBuf, D::Staged)> {
        let (path, parent) = self.prepare(key)?;
        Ok((path, parent, self.stage_unsynced(bytes)?))
    }

    /// [`Store::replace`].
    ///
    /// # Errors
    /// [`FolderError`] as the file system says.
    pub fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, FolderError> {
        let (path, parent) = self.prepare(key)?;
        let staged = self.stage(bytes)?;
        let _lock = self.disk.lock(&self.root.join(LOCK), LOCK_WAIT)?;
        if self.read(key)?.is_none_or(|object| object.version != *expected) {
            return Ok(Write::Refused);
        }
        self.disk.clear_stale(&self.root.join(STAGING));
        staged.name_over(&path)?;
        self.disk.sync_folder(&parent).map_err(FolderError::after_publishing)?;
        Ok(Write::Done(version_of(bytes)))
    }

    /// [`Store::publish`].
    ///
    /// # Errors
    /// [`FolderError`] as the file system says.
    pub fn publish(&self, key: &Key, bytes: &[u8]) -> Result<(), FolderError> {
        let (path, _) = self.prepare(key)?;
        Ok(self.stage(bytes)?.name_over(&path)?)
    }

    /// [`Store::list`].
    ///
    /// # Errors
    /// [`FolderError`] as the file system says.
    pub fn list(&self, prefix: &str) -> Result<Vec<Listed>, FolderError> {
        let page = self.list_page(prefix, "", usize::MAX)?;
        match page.unreadable.into_iter().next() {
            None => Ok(page.objects),
            Some(folder) => Err(io::Error::other(format!("{}: {}", folder.name, folder.reason)).into()),
        }
    }

    /// A page of [`Store::list_page`] after a name: whole folders, until they hold `count` objects.
    ///
    /// # Errors
    /// [`FolderError`] if the folder that the prefix names cannot be read; one below it is named in the page.
    pub fn list_page(&self, prefix: &str, after: &str, count: usize) -> Result<ListPage, FolderError> {
        let (mut walk, mut objects) = (Walk::new(prefix, after), Vec::new());
        let has_more = walk.read(self, count, &mut objects)?;
        let next = objects.last().filter(|_| has_more).map(|last| last.key.to_string());
        Ok(ListPage { objects, next, foreign: walk.foreign, unreadable: walk.unreadable })
    }

    pub(super) fn disk(&self) -> &D {
        &self.disk
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// [`Store::delete`].
    ///
    /// # Errors
    /// [`FolderError`] as the file system says.
    pub fn delete(&self, key: &Key) -> Result<(), FolderError> {
        let path = self.path(key);
        match self.disk.remove(&path) {
            Ok(()) => Ok(()),
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
        if !self.disk.resolve(&parent)?.starts_with(self.disk.resolve(&self.root)?) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "a link leads out of the store's folder",
            ));
        }
        Ok((path, parent))
    }

    /// Makes a folder that lasts, with all above it that do not exist.
    ///
    /// One that exists may have been made by a process that was killed before it synced the folder above: so
    /// that is synced too, once.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if self.durable().contains(folder) && self.disk.is_folder(folder) {
            return Ok(());
        }
        let above = folder.parent().filter(|parent| *parent != Path::new(""));
        if folder.file_name().is_none() {
            // `/`, `.` and `..` exist wherever the folder does that they are in.
            return above.map_or(Ok(()), |parent| self.make_folder(parent));
        }
        // What is above the root is its owner's business.
        let is_ours = folder.starts_with(&self.root);
        let exists = self.disk.is_folder(folder);
        if is_ours || !exists {
            let parent = above.unwrap_or(Path::new("."));
            self.make_folder(parent)?;
            self.disk.make_folder(folder)?;
            match self.disk.sync_folder(parent) {
                // Somebody else made the root for us, in a folder that we must not read.
                Err(error)
                    if exists && folder == self.root && error.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced?,
            }
        }
        self.durable().insert(folder.to_path_buf());
        Ok(())
    }

    fn durable(&self) -> MutexGuard<'_, FxHashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the content to a file beside the objects, synced.
    fn stage(&self, bytes: &[u8]) -> io::Result<D::Staged> {
        let staged = self.stage_unsynced(bytes)?;
        staged.sync()?;
        Ok(staged)
    }

    fn stage_unsynced(&self, bytes: &[u8]) -> io::Result<D::Staged> {
        let folder = self.root.join(STAGING);
        // It need not last: only this process uses what is staged.
        self.disk.make_folder(&folder)?;
        self.disk.stage(&folder, bytes)
    }
}

/// Pairs what was prepared with how its syncing ended; what could not be prepared was not synced.
fn distribute<T>(
    prepared: Vec<io::Result<T>>,
    synced: Vec<io::Result<()>>,
) -> impl Iterator<Item = (io::Result<T>, io::Result<()>)> {
    let mut synced = synced.into_iter();
    prepared.into_iter().map(move |prepared| {
        let synced = if prepared.is_ok() { synced.next() } else { None };
        (prepared, synced.unwrap_or_else(|| Err(io::Error::other("it was not synced"))))
    })
}

/// The content names the state: whoever writes the same bytes again changes nothing.
fn version_of(bytes: &[u8]) -> Version {
    Version(format!("{:016x}-{}", XxHash3_64::oneshot(bytes), bytes.len()))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
