//! An archive in memory whose store lists page by page and counts what is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, TimeDelta};
use collector::archive::{Archive, ArchiveOptions};
use collector::clock::VirtualClock;
use collector::store::{
    Key, ListPage, Listed, MemoryStore, Object, PageStart, Store, StoreError, Version, Write,
};

/// Number of objects in a page.
pub(crate) const PAGE: usize = 50;

#[derive(Debug, Default)]
pub(crate) struct Paged {
    inner: MemoryStore,
    /// The names, in order.
    names: Vec<Listed>,
    pub(crate) pages: AtomicUsize,
    pub(crate) reads: AtomicUsize,
}

impl Paged {
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.pages.load(Ordering::Relaxed), self.reads.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl Store for Paged {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.get(key).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        self.inner.create(key, bytes).await
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        self.inner.replace(key, bytes, expected).await
    }

    async fn list(&self, _: &str) -> Result<Vec<Listed>, StoreError> {
        unreachable!("a listing that is held whole")
    }

    async fn list_page(&self, prefix: &str, start: &PageStart) -> Result<ListPage, StoreError> {
        self.pages.fetch_add(1, Ordering::Relaxed);
        let after = match start {
            PageStart::First => prefix,
            PageStart::After(name) | PageStart::Token(name) => name,
        };
        let begin = self.names.partition_point(|listed| listed.key.as_str() <= after);
        let matching =
            self.names[begin..].iter().take_while(|listed| listed.key.as_str().starts_with(prefix));
        let objects: Vec<Listed> = matching.take(PAGE).cloned().collect();
        let next = objects.last().filter(|_| objects.len() == PAGE).map(|last| last.key.to_string());
        Ok(ListPage { objects, next, ..ListPage::default() })
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

/// An event of a day.
pub(crate) fn line(id: usize, day: NaiveDate) -> String {
    format!(
        r#"{{"id":{id},"datetime":"{day} 9:38:09 +01:00","name":"n","summary":"s","url":"/u","type":"Brand","location":{{"name":"Falun","gps":"1,2"}}}}"#
    ) + "\n"
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// An archive of a number of objects, 20 a day. `content` makes that of the object at a position and day.
pub(crate) fn archive(objects: usize, content: impl Fn(usize, NaiveDate) -> String) -> (Arc<Paged>, Archive) {
    let first = NaiveDate::from_ymd_opt(2020, 1, 1).unwrap();
    let mut store = Paged::default();
    for position in 0..objects {
        let day = first + TimeDelta::days(i64::try_from(position / 20).unwrap());
        let second = 1_577_836_800 + 4_320 * position;
        let name = format!("events/{}/events-{second}.jsonl", day.format("%Y/%m/%d"));
        let (key, bytes) = (Key::new(name).unwrap(), content(position, day).into_bytes());
        assert!(matches!(block_on(store.inner.create(&key, &bytes)).unwrap(), Write::Done(_)));
        store.names.push(Listed { key, size_bytes: bytes.len() as u64 });
    }
    let store = Arc::new(store);
    let clock = VirtualClock::at(DateTime::from_timestamp(1_900_000_000, 0).unwrap());
    let options = ArchiveOptions { parallel: 4, ..ArchiveOptions::default() };
    (store.clone(), Archive::new(store, Arc::new(clock), options))
}
