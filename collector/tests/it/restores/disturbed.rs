//! A store in which something happens at a moment of a run.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{Archive, ArchiveOptions, ProcessMemory};
use collector::clock::VirtualClock;
use collector::event::Response;
use collector::store::{Key, Listed, MemoryStore, Object, Store, StoreError, Version, Write};

use super::Site;

/// A store to which another machine commits at one moment of a run, or that hides the events of a day once.
#[derive(Debug)]
pub(super) struct Disturbed {
    pub(super) store: Arc<MemoryStore>,
    pub(super) replaces_atomically: bool,
    /// The responses that the other machine stores, until it has.
    pub(super) meanwhile: Mutex<Vec<Vec<u8>>>,
    /// After reading, or before creating, an object whose name begins so.
    pub(super) moment: Moment,
    pub(super) now: DateTime<Utc>,
    /// What the machine remembers that commits meanwhile.
    pub(super) memory: Arc<ProcessMemory>,
}

impl Disturbed {
    pub(super) fn new(site: &Site, moment: Moment, meanwhile: Vec<Vec<u8>>) -> Arc<Self> {
        let store = site.store.clone();
        let meanwhile = Mutex::new(meanwhile);
        let memory = Arc::default();
        Arc::new(Self { store, replaces_atomically: true, meanwhile, moment, now: site.now, memory })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    AfterGet(&'static str),
    BeforeCreate(&'static str),
    /// Of the first listing of events.
    HiddenOnce,
}

impl Disturbed {
    async fn let_others_commit(&self) {
        let meanwhile = std::mem::take(&mut *self.meanwhile.lock().unwrap());
        if meanwhile.is_empty() {
            return;
        }
        let (inner, memory) = (self.store.clone(), self.memory.clone());
        let store = Arc::new(Self { store: inner, meanwhile: Mutex::default(), memory, ..*self });
        for (number, body) in (1..).zip(meanwhile) {
            // At another second, or both archives would get the same id.
            let clock = Arc::new(VirtualClock::at(self.now + TimeDelta::seconds(number)));
            let archive = Archive::new(store.clone(), clock, ArchiveOptions::default());
            let archive = archive.with_memory(self.memory.clone());
            let response = Response::parse(&body).unwrap();
            let snapshot = archive.open().await.unwrap();
            archive.deposit(&response, snapshot, self.now).await.unwrap();
        }
    }
}

#[async_trait]
impl Store for Disturbed {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let found = self.store.get(key).await?;
        if matches!(self.moment, Moment::AfterGet(prefix) if key.as_str().starts_with(prefix)) {
            self.let_others_commit().await;
        }
        Ok(found)
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        if matches!(self.moment, Moment::BeforeCreate(prefix) if key.as_str().starts_with(prefix)) {
            self.let_others_commit().await;
        }
        self.store.create(key, bytes).await
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        self.store.replace(key, bytes, expected).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        if self.moment == Moment::HiddenOnce && prefix.starts_with("events/") {
            let was_hidden = std::mem::take(&mut *self.meanwhile.lock().unwrap()).is_empty();
            if !was_hidden {
                return Ok(Vec::new());
            }
        }
        self.store.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.store.delete(key).await
    }

    fn replaces_atomically(&self) -> bool {
        self.replaces_atomically
    }

    fn location(&self) -> String {
        self.store.location()
    }

    fn is_sound_by_construction(&self) -> bool {
        true
    }
}
