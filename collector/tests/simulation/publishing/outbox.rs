//! Archives that grew by some responses, and what of each response must be published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use collector::archive::{Archive, ArchiveOptions, Kind, Place};
use collector::clock::VirtualClock;
use collector::event::Response;
use collector::publish::{Message, MessageKind};
use collector::store::{Key, Listed, MemoryStore, Object, SharedStore, Store, StoreError, Version, Write};
use futures_util::FutureExt as _;

use crate::tape::Tape;

/// A line and what it reports.
pub(super) type Line = (u8, Vec<u8>);

/// An archive after each response that changed it.
#[derive(Debug)]
pub(super) struct Outbox {
    stages: Vec<Arc<MemoryStore>>,
    /// Of each line the number of the response that brought it.
    pub(super) lines: BTreeMap<Line, usize>,
}

/// Waits for what is ready at once.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

impl Outbox {
    pub(super) fn record(tape: &Tape) -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(VirtualClock::at(tape.answers[0].at));
        let options = ArchiveOptions { buffer: tape.buffer, ..ArchiveOptions::default() };
        let archive = Archive::new(store.clone(), clock.clone(), options);
        let mut outbox = Self { stages: Vec::new(), lines: BTreeMap::new() };
        for answer in &tape.answers {
            clock.set(answer.at);
            let snapshot = now(archive.open()).unwrap();
            now(archive.deposit(&Response::parse(&answer.body).unwrap(), snapshot, answer.at)).unwrap();
            outbox.note(&store);
        }
        outbox
    }

    fn note(&mut self, store: &Arc<MemoryStore>) {
        let stage = MemoryStore::default();
        let number = self.stages.len();
        let mut has_news = false;
        for listed in now(store.list("")).unwrap() {
            let object = now(store.get(&listed.key)).unwrap().unwrap();
            assert!(matches!(now(stage.create(&listed.key, &object.bytes)), Ok(Write::Done(_))));
            let Some(rank) = Place::of(listed.key.as_str()).and_then(|place| rank(place.kind)) else {
                continue;
            };
            for line in object.bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                let before = self.lines.get(&(rank, line.to_vec()));
                has_news |= before.is_none();
                self.lines.entry((rank, line.to_vec())).or_insert(number);
            }
        }
        if has_news {
            self.stages.push(Arc::new(stage));
        }
    }

    pub(super) fn stages(&self) -> usize {
        self.stages.len()
    }

    /// The lines of the first stages.
    pub(super) fn until(&self, stage: usize) -> BTreeSet<&Line> {
        self.lines.iter().filter(|(_, at)| **at <= stage).map(|(line, _)| line).collect()
    }

    pub(super) fn growing(&'static self) -> Arc<Growing> {
        Arc::new(Growing { outbox: self, stage: AtomicUsize::new(0) })
    }
}

/// The line of a message.
pub(super) fn line_of(message: &Message) -> Line {
    let rank = MessageKind::ALL.iter().position(|kind| *kind == message.kind).unwrap();
    (u8::try_from(rank).unwrap(), message.value.to_vec())
}

fn rank(kind: Kind) -> Option<u8> {
    match kind {
        Kind::Events => Some(0),
        Kind::Revisions => Some(1),
        Kind::Withdrawn => Some(2),
        Kind::Rejected => None,
    }
}

/// An archive that grows while it is read.
#[derive(Debug)]
pub(super) struct Growing {
    outbox: &'static Outbox,
    stage: AtomicUsize,
}

impl Growing {
    pub(super) fn grow(&self) {
        let next = (self.stage() + 1).min(self.outbox.stages() - 1);
        self.stage.store(next, Ordering::Relaxed);
    }

    pub(super) fn stage(&self) -> usize {
        self.stage.load(Ordering::Relaxed)
    }

    fn store(&self) -> &MemoryStore {
        &self.outbox.stages[self.stage()]
    }

    pub(super) fn archive(self: &Arc<Self>) -> Archive {
        let store: SharedStore = self.clone();
        let clock = Arc::new(VirtualClock::at(chrono::DateTime::UNIX_EPOCH));
        Archive::new(store, clock, ArchiveOptions::default())
    }
}

#[async_trait]
impl Store for Growing {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.store().get(key).await
    }

    async fn create(&self, _: &Key, _: &[u8]) -> Result<Write, StoreError> {
        unreachable!("publishing writes nothing")
    }

    async fn replace(&self, _: &Key, _: &[u8], _: &Version) -> Result<Write, StoreError> {
        unreachable!("publishing writes nothing")
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.store().list(prefix).await
    }

    async fn delete(&self, _: &Key) -> Result<(), StoreError> {
        unreachable!("publishing writes nothing")
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}
