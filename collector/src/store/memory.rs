//! A store in memory: for tests and for what need not last.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Key, Listed, Object, Store, StoreError, Version, Write};

/// Objects in a map. Durable as long as the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Key, Object>,
    writes: u64,
}

impl State {
    fn write(&mut self, key: &Key, bytes: &[u8]) -> Write {
        self.writes += 1;
        let version = Version(self.writes.to_string());
        self.objects.insert(key.clone(), Object { bytes: bytes.to_vec(), version: version.clone() });
        Write::Done(version)
    }
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        Ok(self.state().objects.get(key).cloned())
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        let mut state = self.state();
        Ok(if state.objects.contains_key(key) { Write::Refused } else { state.write(key, bytes) })
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        let mut state = self.state();
        let same = state.objects.get(key).is_some_and(|object| object.version == *expected);
        Ok(if same { state.write(key, bytes) } else { Write::Refused })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let state = self.state();
        let matching = state.objects.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
        Ok(matching
            .map(|(key, object)| Listed { key: key.clone(), size_bytes: object.bytes.len() as u64 })
            .collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.state().objects.remove(key);
        Ok(())
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn proves_content(&self) -> bool {
        true
    }

    fn is_sound_by_construction(&self) -> bool {
        true
    }
}
