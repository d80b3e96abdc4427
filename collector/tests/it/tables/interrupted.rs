//! Tables as they stand after each single write: what a process leaves that is killed there, and what a reader finds there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use collector::archive::content_digest;
use collector::query::Query;
use collector::store::{Key, Listed, MemoryStore, Object, SharedStore, Store, StoreError, Version, Write};
use collector::tables::TablesOptions;
use parquet::file::reader::SerializedFileReader;
use serde_json::{Value, json};

use super::queries::answer;
use super::{History, Step, check, files, update};

/// A store that keeps what it holds after each write.
#[derive(Debug, Default)]
struct Recorder {
    inner: MemoryStore,
    moments: Mutex<Vec<SharedStore>>,
}

impl Recorder {
    async fn record(&self) {
        let copy = MemoryStore::default();
        for listed in self.inner.list("").await.unwrap() {
            let object = self.inner.get(&listed.key).await.unwrap().unwrap();
            let _ = copy.create(&listed.key, &object.bytes).await.unwrap();
        }
        self.moments.lock().unwrap().push(Arc::new(copy));
    }
}

#[async_trait]
impl Store for Recorder {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.inner.get(key).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        let written = self.inner.create(key, bytes).await;
        self.record().await;
        written
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        let written = self.inner.replace(key, bytes, expected).await;
        self.record().await;
        written
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await?;
        self.record().await;
        Ok(())
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

/// Each file is the one that the manifest names, unless its month is pending.
fn expect_announced(files: &BTreeMap<String, Vec<u8>>) {
    let manifest: Value = serde_json::from_slice(&files["tables/manifest.json"]).unwrap();
    for (key, bytes) in files.iter().filter(|(key, _)| key.ends_with(".parquet")) {
        let [_, table, folder, _] = key.split('/').collect::<Vec<_>>()[..] else { panic!("{key}") };
        let month = folder.strip_prefix("month=").unwrap();
        let is_pending = manifest["pending"].as_array().unwrap().contains(&json!(month));
        let named = &manifest["months"][month][table]["digest"];
        assert!(is_pending || *named == content_digest(bytes), "{key} is not the one of the manifest");
    }
}

/// Events are added, revised, withdrawn and moved to another month and back.
#[tokio::test]
async fn after_each_write_answers_are_right_and_the_next_update_completes() {
    let mut history = History::new();
    let recorder = Arc::new(Recorder::default());
    let tables: SharedStore = recorder.clone();
    for (version, absent) in [(0, vec![]), (3, vec![7]), (1, vec![]), (4, vec![9, 11])] {
        history.poll(&Step { new_events: 3, edits: vec![(49, version), (2, version)], absent }).await;
        let before = files(&tables).await;
        update(&history.tables(&tables), &TablesOptions::default()).await;
        let (expected, _) = answer(&history.archive, &Query::default()).await;
        let moments = std::mem::take(&mut *recorder.moments.lock().unwrap());
        assert!(moments.len() >= 4, "{}", moments.len());
        for moment in moments {
            let now = files(&moment).await;
            assert!(before.keys().all(|key| now.contains_key(key)), "a file is missing");
            expect_announced(&now);
            for (key, bytes) in now.into_iter().filter(|(key, _)| key.ends_with(".parquet")) {
                let whole = SerializedFileReader::new(bytes::Bytes::from(bytes));
                assert!(whole.is_ok(), "{key}");
            }
            let reading = history.archive.clone().with_tables(moment.clone());
            assert_eq!(answer(&reading, &Query::default()).await.0, expected);
            update(&history.tables(&moment), &TablesOptions::default()).await;
            assert_eq!(files(&moment).await, files(&tables).await);
            check(&history.store, &moment).await;
        }
    }
}
