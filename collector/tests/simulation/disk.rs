//! A file system that keeps what was synced, and of the rest only some after a power failure.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use collector::store::disk::{Disk, Entry, EntryKind, Staged};

use crate::rng::SeededRng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    /// The position of a file's content.
    File(usize),
}

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    /// What a power failure leaves for certain.
    synced: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<PathBuf, Node>,
    /// The names a power failure leaves for certain.
    synced_names: BTreeMap<PathBuf, Node>,
    contents: Vec<Content>,
    staged: usize,
    /// Whether syncing does what it says.
    syncs: bool,
}

impl State {
    fn node(&self, path: &Path) -> io::Result<Node> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn children<'a>(names: &'a BTreeMap<PathBuf, Node>, folder: &'a Path) -> Vec<(PathBuf, Node)> {
        let below = names.range(folder.to_path_buf()..).take_while(|(path, _)| path.starts_with(folder));
        let own = below.filter(|(path, _)| path.parent() == Some(folder));
        own.map(|(path, &node)| (path.clone(), node)).collect()
    }
}

/// The disk as one process sees it.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    fault: Arc<Mutex<Option<Fault>>>,
}

/// What goes wrong, and after how many writing calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) after: u32,
    pub(crate) kind: FaultKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// One call fails.
    InputOutput,
    /// Nothing is done any more.
    Killed,
}

impl SimulatedDisk {
    pub(crate) fn new(syncs: bool) -> Self {
        let state = State { syncs, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), fault: Arc::default() }
    }

    /// The same disk for another process.
    pub(crate) fn for_another_process(&self) -> Self {
        Self { state: Arc::clone(&self.state), fault: Arc::default() }
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Counts a writing call; it may be the one that fails.
    fn write(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut fault = self.fault.lock().unwrap();
        if let Some(next) = fault.as_mut() {
            if next.after == 0 {
                if next.kind == FaultKind::InputOutput {
                    *fault = None;
                }
                return Err(io::Error::other("the disk failed"));
            }
            next.after -= 1;
        }
        Ok(self.state())
    }

    /// Every file and what is in it now.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state();
        let files = state.names.iter().filter_map(|(path, node)| match node {
            Node::File(number) => Some((path.clone(), state.contents[*number].now.clone())),
            Node::Folder => None,
        });
        files.collect()
    }

    /// Sets a file to a content, or removes it; durable at once.
    pub(crate) fn put_back(&self, path: &Path, bytes: Option<&[u8]>) {
        let mut state = self.state();
        let Some(bytes) = bytes else {
            state.names.remove(path);
            state.synced_names.remove(path);
            return;
        };
        let number = state.contents.len();
        state.contents.push(Content { now: bytes.to_vec(), synced: Some(bytes.to_vec()) });
        for folder in path.ancestors().skip(1).filter(|folder| *folder != Path::new("")) {
            state.names.insert(folder.to_path_buf(), Node::Folder);
            state.synced_names.insert(folder.to_path_buf(), Node::Folder);
        }
        state.names.insert(path.to_path_buf(), Node::File(number));
        state.synced_names.insert(path.to_path_buf(), Node::File(number));
    }

    /// Keeps what was synced, and of the rest what the random number generator picks.
    pub(crate) fn lose_power(&self, rng: &mut SeededRng) {
        let mut state = self.state();
        let State { names, synced_names, contents, .. } = &mut *state;
        let mut paths: Vec<PathBuf> = names.keys().chain(synced_names.keys()).cloned().collect();
        paths.sort();
        paths.dedup();
        let mut left = BTreeMap::new();
        for path in paths {
            let (now, synced) = (names.get(&path), synced_names.get(&path));
            let node = if now == synced || rng.chance(500) { now } else { synced };
            let reachable = path
                .parent()
                .is_none_or(|parent| parent == Path::new("") || left.get(parent) == Some(&Node::Folder));
            if let (Some(&node), true) = (node, reachable) {
                left.insert(path, node);
            }
        }
        names.clone_from(&left);
        *synced_names = left;
        for content in contents {
            if content.synced.as_ref() != Some(&content.now) {
                let torn = rng.index(content.now.len() + 1);
                content.now = content.synced.clone().unwrap_or_else(|| content.now[..torn].to_vec());
                content.synced = Some(content.now.clone());
            }
        }
    }
}

impl Disk for SimulatedDisk {
    type Staged = StagedFile;
    type Lock = ();

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        match state.node(path)? {
            Node::File(number) => Ok(state.contents[number].now.clone()),
            Node::Folder => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn entries(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let state = self.state();
        state.node(folder)?;
        let entry = |(path, node): (PathBuf, Node)| Entry {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            kind: match node {
                Node::File(number) => EntryKind::File { size_bytes: state.contents[number].now.len() as u64 },
                Node::Folder => EntryKind::Folder,
            },
        };
        Ok(State::children(&state.names, folder).into_iter().map(entry).collect())
    }

    fn is_folder(&self, path: &Path) -> bool {
        matches!(self.state().node(path), Ok(Node::Folder)) || path == Path::new(".")
    }

    fn resolve(&self, folder: &Path) -> io::Result<PathBuf> {
        Ok(folder.to_path_buf())
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.write()?.names.insert(path.to_path_buf(), Node::Folder);
        Ok(())
    }

    fn stage(&self, folder: &Path, bytes: &[u8]) -> io::Result<StagedFile> {
        let mut state = self.write()?;
        state.staged += 1;
        let path = folder.join(format!("staged-{}", state.staged));
        let number = state.contents.len();
        state.contents.push(Content { now: bytes.to_vec(), synced: None });
        state.names.insert(path.clone(), Node::File(number));
        drop(state);
        Ok(StagedFile { disk: self.clone(), path, number, named: false })
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.write()?;
        let folder = if folder == Path::new(".") { Path::new("") } else { folder };
        if state.syncs {
            for (path, _) in State::children(&state.synced_names, folder) {
                state.synced_names.remove(&path);
            }
            let children = State::children(&state.names, folder);
            state.synced_names.extend(children);
        }
        Ok(())
    }

    fn lock(&self, _path: &Path, _wait: Duration) -> io::Result<()> {
        Ok(()) // one operation at a time is carried out anyway
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.write()?.names.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn clear_stale(&self, _folder: &Path) {}
}

pub(crate) struct StagedFile {
    disk: SimulatedDisk,
    path: PathBuf,
    number: usize,
    named: bool,
}

impl Staged for StagedFile {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.write()?;
        if state.syncs {
            let content = &mut state.contents[self.number];
            content.synced = Some(content.now.clone());
        }
        Ok(())
    }

    fn name_new(mut self, path: &Path) -> io::Result<bool> {
        let mut state = self.disk.write()?;
        if state.names.contains_key(path) {
            return Ok(false);
        }
        let node = state.names.remove(&self.path).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(path.to_path_buf(), node);
        drop(state);
        self.named = true;
        Ok(true)
    }

    fn name_over(mut self, path: &Path) -> io::Result<()> {
        let mut state = self.disk.write()?;
        let node = state.names.remove(&self.path).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(path.to_path_buf(), node);
        drop(state);
        self.named = true;
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        // A killed process leaves it lying about.
        if !self.named
            && let Ok(mut state) = self.disk.write()
        {
            state.names.remove(&self.path);
        }
    }
}
