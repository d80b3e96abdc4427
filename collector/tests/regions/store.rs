//! A region's store as one process reaches it: operations wait until the schedule decides what becomes of them.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use async_trait::async_trait;
use collector::archive::{Kind, Place};
use collector::event::{self, EventId, Fingerprint};
use collector::store::{
    Key, Listed, MemoryStore, Object, Operation, Store, StoreError, Version as StoreVersion, Write,
};
use futures_util::FutureExt as _;

/// What keeps the promises, and is switched off one at a time to see that the simulation can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// A ledger is only replaced if it is still the one that was read.
    Claim,
    /// An object is created only if the name is free.
    Create,
    /// An update of a replica waits for its objects before it writes the ledger.
    ObjectsFirst,
    /// A promotion fences what an update had claimed.
    Fence,
    /// A promotion fences the old primary.
    OldPrimary,
}

#[derive(Debug, Clone)]
pub(crate) enum Request {
    Get(Key),
    Create(Key, Vec<u8>),
    Replace(Key, Vec<u8>, StoreVersion),
    List(String),
    Delete(Key),
}

impl Request {
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Self::Get(_) | Self::List(_))
    }

    pub(crate) fn target(&self) -> &str {
        match self {
            Self::List(prefix) => prefix,
            Self::Get(key) | Self::Create(key, _) | Self::Replace(key, ..) | Self::Delete(key) => {
                key.as_str()
            }
        }
    }

    pub(crate) fn failure(&self, outcome_unknown: bool, why: &str) -> StoreError {
        let operation = match self {
            Self::Get(_) => Operation::Get,
            Self::Create(..) => Operation::Create,
            Self::Replace(..) => Operation::Replace,
            Self::List(_) => Operation::List,
            Self::Delete(_) => Operation::Delete,
        };
        StoreError { operation, target: self.target().to_owned(), outcome_unknown, source: why.into() }
    }
}

#[derive(Debug)]
pub(crate) enum Reply {
    Got(Option<Object>),
    Wrote(Write),
    Listed(Vec<Listed>),
    Deleted,
}

/// A version of an event.
pub(crate) type Version = (EventId, Fingerprint);

/// The objects of a region.
#[derive(Debug, Clone, Default)]
pub(crate) struct Region {
    store: Arc<MemoryStore>,
    /// What each object of events and revisions holds, line by line.
    lines: BTreeMap<Key, (Kind, Vec<Version>)>,
}

impl Region {
    pub(crate) fn apply(&mut self, request: &Request, broken: Option<Guard>) -> Result<Reply, StoreError> {
        let reply = self.carry_out(request, broken);
        if let Request::Create(key, _) | Request::Replace(key, ..) | Request::Delete(key) = request {
            self.read_lines(key);
        }
        reply
    }

    fn read_lines(&mut self, key: &Key) {
        let Some(Place { kind: kind @ (Kind::Events | Kind::Revisions), .. }) = Place::of(key.as_str())
        else {
            return;
        };
        self.lines.remove(key);
        if let Some(object) = self.store.get(key).now_or_never().unwrap().unwrap() {
            let lines = object.bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            let versions = lines.map(|line| {
                let event = event::parse_line(line).unwrap();
                (event.id, event.fingerprint)
            });
            self.lines.insert(key.clone(), (kind, versions.collect()));
        }
    }

    /// What each object of events and revisions holds, line by line.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&Key, Kind, Version)> {
        self.lines
            .iter()
            .flat_map(|(key, (kind, versions))| versions.iter().map(move |version| (key, *kind, *version)))
    }

    fn carry_out(&self, request: &Request, broken: Option<Guard>) -> Result<Reply, StoreError> {
        let store = &self.store;
        let ready = |written: Option<Result<Write, StoreError>>| written.unwrap().map(Reply::Wrote);
        match request {
            Request::Get(key) => store.get(key).now_or_never().unwrap().map(Reply::Got),
            Request::Create(key, bytes) if bytes.is_empty() && broken == Some(Guard::Fence) => {
                let found = store.get(key).now_or_never().unwrap()?;
                let done = || Write::Done(Region::version());
                Ok(Reply::Wrote(if found.is_some() { Write::Refused } else { done() }))
            }
            Request::Create(key, bytes) if broken == Some(Guard::Create) => self.overwrite(key, bytes),
            Request::Create(key, bytes) => ready(store.create(key, bytes).now_or_never()),
            Request::Replace(key, bytes, _) if broken == Some(Guard::Claim) => self.overwrite(key, bytes),
            Request::Replace(key, bytes, version) => ready(store.replace(key, bytes, version).now_or_never()),
            Request::List(prefix) => store.list(prefix).now_or_never().unwrap().map(Reply::Listed),
            Request::Delete(key) => store.delete(key).now_or_never().unwrap().map(|()| Reply::Deleted),
        }
    }

    fn overwrite(&self, key: &Key, bytes: &[u8]) -> Result<Reply, StoreError> {
        let store = &self.store;
        let written = match store.get(key).now_or_never().unwrap()? {
            Some(found) => store.replace(key, bytes, &found.version).now_or_never().unwrap()?,
            None => store.create(key, bytes).now_or_never().unwrap()?,
        };
        Ok(Reply::Wrote(written))
    }

    /// A version as the store would state it.
    pub(crate) fn version() -> StoreVersion {
        let store = MemoryStore::default();
        let key = Key::new("x").unwrap();
        match store.create(&key, b"").now_or_never().unwrap().unwrap() {
            Write::Done(version) => version,
            Write::Refused => panic!("an empty store refuses"),
        }
    }

    pub(crate) fn objects(&self, prefix: &str) -> Vec<(Key, Vec<u8>)> {
        let listed = self.store.list(prefix).now_or_never().unwrap().unwrap();
        let read = |key: Key| {
            let object = self.store.get(&key).now_or_never().unwrap().unwrap().unwrap();
            (key, object.bytes)
        };
        listed.into_iter().map(|listed| read(listed.key)).collect()
    }
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    waiting: BTreeMap<u64, Arc<Request>>,
    answered: BTreeMap<u64, Result<Reply, StoreError>>,
}

/// The store as one process reaches it.
#[derive(Debug, Clone)]
pub(crate) struct ScheduledStore {
    pub(crate) region: usize,
    calls: Arc<Mutex<Calls>>,
    is_atomic: bool,
}

impl ScheduledStore {
    pub(crate) fn new(region: usize, is_atomic: bool) -> Self {
        Self { region, calls: Arc::default(), is_atomic }
    }

    pub(crate) fn waiting(&self) -> Vec<(u64, Arc<Request>)> {
        self.calls
            .lock()
            .unwrap()
            .waiting
            .iter()
            .map(|(&call, request)| (call, Arc::clone(request)))
            .collect()
    }

    pub(crate) fn answer(&self, call: u64, result: Result<Reply, StoreError>) {
        let mut calls = self.calls.lock().unwrap();
        calls.waiting.remove(&call);
        calls.answered.insert(call, result);
    }

    async fn call(&self, request: Request) -> Result<Reply, StoreError> {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            calls.next += 1;
            let call = calls.next;
            calls.waiting.insert(call, Arc::new(request));
            call
        };
        poll_fn(|context| {
            // The schedule polls a process whenever one of its calls was answered.
            context.waker().wake_by_ref();
            self.calls.lock().unwrap().answered.remove(&call).map_or(Poll::Pending, Poll::Ready)
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

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &StoreVersion) -> Result<Write, StoreError> {
        match self.call(Request::Replace(key.clone(), bytes.to_vec(), expected.clone())).await? {
            Reply::Wrote(write) => Ok(write),
            other => panic!("{other:?}"),
        }
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

    fn replaces_atomically(&self) -> bool {
        self.is_atomic
    }

    fn location(&self) -> String {
        format!("region-{}", self.region)
    }

    fn is_sound_by_construction(&self) -> bool {
        true
    }

    /// Half of the stores state a checksum.
    fn proves_content(&self) -> bool {
        self.is_atomic
    }
}
