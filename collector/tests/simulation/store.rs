//! A store whose operations wait until the scheduler decides what becomes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use collector::store::{Folder, Key, Listed, Object, Operation, Store, StoreError, Version, Write};

use crate::disk::SimulatedDisk;

/// What keeps the promises, and is switched off one at a time to see that the simulation can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The ledger is only replaced if it is still the one that was read.
    Claim,
    /// An object is created only if the name is free.
    Create,
    /// What is synced lasts.
    Sync,
    /// What the ledger does not know is looked up in the archive.
    LookUp,
    /// What a dead run claimed is fenced.
    Fence,
    /// Where replacing is not one step, the ledger is a sequence of created objects.
    Generations,
}

/// What a collector asks for.
#[derive(Clone)]
pub(crate) enum Request {
    Get(Key),
    Create(Key, Vec<u8>),
    CreateTogether(Vec<(Key, Vec<u8>)>),
    Replace(Key, Vec<u8>, Version),
    Publish(Key, Vec<u8>),
    List(String),
    Delete(Key),
}

impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.operation(), self.target())?;
        match self {
            Self::Create(_, bytes) | Self::Replace(_, bytes, _) | Self::Publish(_, bytes) => {
                write!(formatter, ", {} bytes", bytes.len())
            }
            Self::CreateTogether(objects) => write!(formatter, ", {} objects", objects.len()),
            _ => Ok(()),
        }
    }
}

impl Request {
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Self::Get(_) | Self::List(_))
    }

    pub(crate) fn keys(&self) -> Vec<&Key> {
        match self {
            Self::Get(key)
            | Self::Create(key, _)
            | Self::Replace(key, ..)
            | Self::Publish(key, _)
            | Self::Delete(key) => vec![key],
            Self::CreateTogether(objects) => objects.iter().map(|(key, _)| key).collect(),
            Self::List(_) => Vec::new(),
        }
    }

    /// The most writing calls to the disk that it is interrupted after.
    pub(crate) fn calls(&self) -> u32 {
        match self {
            Self::CreateTogether(objects) => 9 + 4 * u32::try_from(objects.len()).unwrap(),
            _ => 9,
        }
    }

    fn operation(&self) -> Operation {
        match self {
            Self::Get(_) => Operation::Get,
            Self::Create(..) | Self::CreateTogether(_) => Operation::Create,
            Self::Replace(..) | Self::Publish(..) => Operation::Replace,
            Self::List(_) => Operation::List,
            Self::Delete(_) => Operation::Delete,
        }
    }

    pub(crate) fn failure(&self, outcome_unknown: bool, why: &str) -> StoreError {
        StoreError { operation: self.operation(), target: self.target(), outcome_unknown, source: why.into() }
    }

    fn target(&self) -> String {
        match self {
            Self::List(prefix) => prefix.clone(),
            _ => self.keys().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Reply {
    Got(Option<Object>),
    Wrote(Write),
    WroteTogether(Vec<Result<Write, StoreError>>),
    Listed(Vec<Listed>),
    Published,
    Deleted,
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    waiting: BTreeMap<u64, Request>,
    answered: BTreeMap<u64, Result<Reply, StoreError>>,
    wakers: BTreeMap<u64, Waker>,
}

/// The store as one process sees it.
#[derive(Debug, Clone)]
pub(crate) struct ScheduledStore {
    calls: Arc<Mutex<Calls>>,
    folder: Arc<Folder<SimulatedDisk>>,
    pub(crate) disk: SimulatedDisk,
    broken: Option<Guard>,
    /// Whether it replaces in one step, as buckets do and file systems do not.
    is_atomic: bool,
}

impl ScheduledStore {
    pub(crate) fn new(disk: SimulatedDisk, broken: Option<Guard>, is_atomic: bool) -> Self {
        let folder = Arc::new(Folder::new(disk.clone(), "s"));
        Self { calls: Arc::default(), folder, disk, broken, is_atomic }
    }

    /// The operations that wait.
    pub(crate) fn waiting(&self) -> Vec<(u64, Request)> {
        self.calls.lock().unwrap().waiting.iter().map(|(&call, request)| (call, request.clone())).collect()
    }

    pub(crate) fn answer(&self, call: u64, result: Result<Reply, StoreError>) {
        let mut calls = self.calls.lock().unwrap();
        calls.waiting.remove(&call);
        calls.answered.insert(call, result);
        if let Some(waker) = calls.wakers.remove(&call) {
            waker.wake();
        }
    }

    /// Carries a request out.
    pub(crate) fn apply(&self, request: &Request) -> Result<Reply, StoreError> {
        let failed = |error: collector::store::FolderError| {
            request.failure(error.published, &error.source.to_string())
        };
        let folder = &self.folder;
        match request {
            Request::Get(key) => folder.read(key).map(Reply::Got),
            Request::Create(key, bytes) if bytes.is_empty() && self.broken == Some(Guard::Fence) => {
                self.pretend_to_create(key)
            }
            Request::Create(key, bytes) if self.broken == Some(Guard::Create) => self.overwrite(key, bytes),
            Request::Create(key, bytes) => folder.create(key, bytes).map(Reply::Wrote),
            Request::CreateTogether(objects) => {
                let written = folder.create_together(objects).into_iter();
                Ok(Reply::WroteTogether(written.map(|written| written.map_err(failed)).collect()))
            }
            Request::Replace(key, bytes, _) if self.broken == Some(Guard::Claim) => {
                self.overwrite(key, bytes)
            }
            Request::Replace(key, bytes, expected) => folder.replace(key, bytes, expected).map(Reply::Wrote),
            Request::Publish(key, bytes) => folder.publish(key, bytes).map(|()| Reply::Published),
            Request::List(prefix)
                if self.broken == Some(Guard::LookUp) && prefix.matches('/').count() > 1 =>
            {
                Ok(Reply::Listed(Vec::new()))
            }
            Request::List(prefix) => folder.list(prefix).map(Reply::Listed),
            Request::Delete(key) => folder.delete(key).map(|()| Reply::Deleted),
        }
        .map_err(failed)
    }

    /// Says what creating would have come to, and leaves the name free.
    fn pretend_to_create(&self, key: &Key) -> Result<Reply, collector::store::FolderError> {
        let written = self.folder.create(key, b"")?;
        if matches!(written, Write::Done(_)) {
            self.folder.delete(key)?;
        }
        Ok(Reply::Wrote(written))
    }

    fn overwrite(&self, key: &Key, bytes: &[u8]) -> Result<Reply, collector::store::FolderError> {
        let written = match self.folder.read(key)? {
            Some(object) => self.folder.replace(key, bytes, &object.version)?,
            None => self.folder.create(key, bytes)?,
        };
        Ok(Reply::Wrote(written))
    }

    async fn call(&self, request: Request) -> Result<Reply, StoreError> {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            calls.next += 1;
            let call = calls.next;
            calls.waiting.insert(call, request);
            call
        };
        poll_fn(|context| {
            let mut calls = self.calls.lock().unwrap();
            if let Some(result) = calls.answered.remove(&call) {
                return Poll::Ready(result);
            }
            calls.wakers.insert(call, context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[async_trait]
impl Store for ScheduledStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        match self.call(Request::Get(key.clone())).await? {
            Reply::Got(object) => Ok(object),
            other => panic!("{other:?}"),
        }
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        match self.call(Request::Create(key.clone(), bytes.to_vec())).await? {
            Reply::Wrote(write) => Ok(write),
            other => panic!("{other:?}"),
        }
    }

    /// As folders do; buckets write each object by itself.
    async fn create_together(&self, objects: &[(&Key, &[u8])]) -> Option<Vec<Result<Write, StoreError>>> {
        if self.is_atomic || self.broken == Some(Guard::Create) {
            return None;
        }
        let owned = objects.iter().map(|&(key, bytes)| (key.clone(), bytes.to_vec())).collect();
        let request = Request::CreateTogether(owned);
        Some(match self.call(request.clone()).await {
            Ok(Reply::WroteTogether(written)) => written,
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                let failure = |_| Err(request.failure(error.outcome_unknown, &error.source.to_string()));
                objects.iter().map(failure).collect()
            }
        })
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        if self.broken == Some(Guard::Generations) {
            // Compared now, renamed later: no lock excludes others in between.
            if self.get(key).await?.is_none_or(|object| object.version != *expected) {
                return Ok(Write::Refused);
            }
            self.publish(key, bytes).await?;
            return Ok(Write::Done(
                self.get(key).await?.map_or_else(|| expected.clone(), |object| object.version),
            ));
        }
        match self.call(Request::Replace(key.clone(), bytes.to_vec(), expected.clone())).await? {
            Reply::Wrote(write) => Ok(write),
            other => panic!("{other:?}"),
        }
    }

    async fn publish(&self, key: &Key, bytes: &[u8]) -> Result<(), StoreError> {
        match self.call(Request::Publish(key.clone(), bytes.to_vec())).await? {
            Reply::Published => Ok(()),
            other => panic!("{other:?}"),
        }
    }

    fn replaces_atomically(&self) -> bool {
        self.is_atomic || self.broken == Some(Guard::Generations)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        match self.call(Request::List(prefix.to_owned())).await? {
            Reply::Listed(listed) => Ok(listed),
            other => panic!("{other:?}"),
        }
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        match self.call(Request::Delete(key.clone())).await? {
            Reply::Deleted => Ok(()),
            other => panic!("{other:?}"),
        }
    }

    fn location(&self) -> String {
        "simulation".to_owned()
    }

    /// Or the trial would find a guard that is switched off, and not the promises.
    fn is_sound_by_construction(&self) -> bool {
        true
    }
}
