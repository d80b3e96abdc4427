//! A store whose archive is read through a cache.
//!
//! An object's name and size together stand for its content: objects of the archive never change, but that a repair takes
//! lines out of one. So what was read of them stays good; only which there *are* grows old. A listing is fresh for a short
//! time, and until something is written below its prefix by way of this store.
//!
//! The operations of [`Store`] itself never answer from the cache: whoever writes must know what is there.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;

use super::{Head, Key, ListPage, Listed, Object, PageStart, SharedStore, Store, StoreError, Version, Write};
use crate::cache::{Cache, Content, Freshness, Origin};
use crate::quantity::Quantities;

/// A store, and what was read of it.
#[derive(Debug, Clone)]
pub struct CachedStore {
    store: SharedStore,
    cache: Arc<Cache>,
}

impl CachedStore {
    /// `store`, read through a cache that is for nothing else.
    #[must_use]
    pub fn new(store: SharedStore, cache: Arc<Cache>) -> Self {
        Self { store, cache }
    }

    /// What was read, and how often.
    #[must_use]
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// A page of the objects whose names begin with `prefix`, as they were at most the cache's time to live ago.
    ///
    /// The first page of a listing is forgotten when something is written below its prefix. It holds a random number that
    /// the names of the pages after it contain, so that they are forgotten with it. A page that begins in the middle is not
    /// kept.
    ///
    /// # Errors
    /// [`StoreError`] if it has to be listed and cannot be.
    pub(crate) async fn page(
        &self,
        prefix: &str,
        start: &PageStart,
    ) -> Result<(ListPage, Origin), StoreError> {
        let name = match start {
            PageStart::First => listing_name(prefix),
            PageStart::After(_) => return Ok((self.store.list_page(prefix, start).await?, Origin::Source)),
            PageStart::Token(token) => format!("{} {token}", listing_name(prefix)),
        };
        let (series, token) = match start {
            PageStart::Token(token) => token.split_once(' ').unwrap_or_default(),
            _ => ("", ""),
        };
        let list = || async {
            let is_first = *start == PageStart::First;
            let start = if is_first { PageStart::First } else { PageStart::Token(token.to_owned()) };
            // What cannot be read now may be readable soon: an incomplete page is not kept.
            let page = self.store.list_page(prefix, &start).await?.complete(&self.store.location())?;
            let series = if is_first { random().to_string() } else { series.to_owned() };
            let next = page.next.map(|token| format!("{series} {token}")).unwrap_or_default();
            Ok(Some([next.as_bytes(), b"\n", &encode(&page.objects)].concat()))
        };
        let (kept, origin) = self.cache.get(&name, Freshness::Brief, list).await?;
        let kept = kept.unwrap_or_default();
        let end = kept.iter().position(|&byte| byte == b'\n').unwrap_or(0);
        let next = std::str::from_utf8(&kept[..end]).ok().filter(|next| !next.is_empty());
        let objects = decode(kept.get(end + 1..).unwrap_or_default());
        Ok((ListPage { objects, next: next.map(str::to_owned), ..ListPage::default() }, origin))
    }

    /// The content of an object that was listed; nothing if it is gone.
    ///
    /// # Errors
    /// [`StoreError`] if it has to be read and cannot.
    pub async fn content(&self, listed: &Listed) -> Result<(Option<Content>, Origin), Arc<StoreError>> {
        let read = || async { Ok(self.store.get(&listed.key).await?.map(|object| object.bytes)) };
        let name = format!("object {} {}", listed.size_bytes, listed.key);
        let (content, origin) = self.cache.get(&name, Freshness::Forever, read).await?;
        if content.as_ref().is_some_and(|content| content.len() as u64 != listed.size_bytes) {
            // It was changed since it was listed: this is not what the name stands for.
            self.cache.forget(&name).await;
        }
        Ok((content, origin))
    }

    /// Something was written, or may have been: what was listed above it is no longer true.
    async fn note_written(&self, key: &Key) {
        self.cache.forget(&listing_name("")).await;
        for (end, _) in key.as_str().match_indices('/') {
            self.cache.forget(&listing_name(&key.as_str()[..=end])).await;
        }
    }
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn listing_name(prefix: &str) -> String {
    format!("listing {prefix}")
}

/// A line an object: its size and its name, which holds no line feed.
pub(crate) fn encode(listing: &[Listed]) -> Vec<u8> {
    let lines = listing.iter().map(|listed| format!("{} {}\n", listed.size_bytes, listed.key));
    lines.collect::<String>().into_bytes()
}

pub(crate) fn decode(listing: &[u8]) -> Vec<Listed> {
    let text = std::str::from_utf8(listing).unwrap_or_default();
    let listed = |line: &str| {
        let (size_bytes, key) = line.split_once(' ')?;
        Some(Listed { key: Key::new(key).ok()?, size_bytes: size_bytes.parse().ok()? })
    };
    text.lines().filter_map(listed).collect()
}

#[async_trait]
#[deny(clippy::missing_trait_methods, reason = "a wrapper must not answer for the store it wraps")]
impl Store for CachedStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.store.get(key).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>, StoreError> {
        self.store.head(key).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        let written = self.store.create(key, bytes).await;
        self.note_written(key).await;
        written
    }

    async fn create_together(&self, objects: &[(&Key, &[u8])]) -> Option<Vec<Result<Write, StoreError>>> {
        let written = self.store.create_together(objects).await;
        if written.is_some() {
            for (key, _) in objects {
                self.note_written(key).await;
            }
        }
        written
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        let written = self.store.replace(key, bytes, expected).await;
        self.note_written(key).await;
        written
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.store.list(prefix).await
    }

    async fn list_page(&self, prefix: &str, start: &PageStart) -> Result<ListPage, StoreError> {
        self.store.list_page(prefix, start).await
    }

    fn objects_together(&self) -> usize {
        self.store.objects_together()
    }

    async fn get_together(&self, keys: &[Key]) -> Vec<Result<Option<Object>, StoreError>> {
        self.store.get_together(keys).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let deleted = self.store.delete(key).await;
        self.note_written(key).await;
        deleted
    }

    async fn publish(&self, key: &Key, bytes: &[u8]) -> Result<(), StoreError> {
        let published = self.store.publish(key, bytes).await;
        self.note_written(key).await;
        published
    }

    fn replaces_atomically(&self) -> bool {
        self.store.replaces_atomically()
    }

    fn location(&self) -> String {
        self.store.location()
    }

    fn fingerprint(&self) -> String {
        self.store.fingerprint()
    }

    fn clock_ahead(&self) -> Option<TimeDelta> {
        self.store.clock_ahead()
    }

    fn take_calls(&self) -> Quantities {
        self.store.take_calls()
    }

    async fn probe(&self) -> Result<Option<String>, StoreError> {
        self.store.probe().await
    }

    fn proves_content(&self) -> bool {
        self.store.proves_content()
    }

    fn identity(&self) -> String {
        self.store.identity()
    }

    fn is_sound_by_construction(&self) -> bool {
        self.store.is_sound_by_construction()
    }
}
