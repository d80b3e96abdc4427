//! Reads the objects of listings as they come, so that neither the listing nor what was read is ever held whole.

use futures_util::FutureExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::Archive;
use crate::cache::{Content, Origin};
use crate::store::pages::{PageRead, pages};
use crate::store::{CachedStore, Listed, PageStart, StoreError};

/// Maximum size of the objects that are read together, unless it is one.
const BYTES_TOGETHER: u64 = 1024 * 1024;
/// Number of objects that are read together at first: the answer may be complete soon. It is doubled each time.
const FIRST_TOGETHER: usize = 4;
/// Maximum number of requests at a time where each reads many objects.
const PARALLEL_TOGETHER: usize = 4;

/// The content of an object, nothing if it is gone, and where it came from.
pub(crate) type Read = Result<(Option<Content>, Origin), StoreError>;

impl Archive {
    /// The pages of a listing; from the cache only for those who only read.
    pub(crate) fn pages<'a>(
        &'a self,
        cached: Option<&'a CachedStore>,
        prefix: String,
        start: PageStart,
    ) -> BoxStream<'a, PageRead> {
        pages(&*self.store, cached, prefix, start)
    }

    /// The cache and the store behind it, if there is one.
    pub(crate) fn cached(&self) -> Option<&CachedStore> {
        self.cached.as_ref()
    }

    /// Reads objects in their order, several at a time, and together where the store can do that at less cost. Only a few more
    /// than were asked for are under way. Items without an object are passed on.
    pub(crate) fn read_in_order<'a, T: Send + 'a>(
        &'a self,
        cached: Option<&'a CachedStore>,
        items: BoxStream<'a, T>,
        listed: fn(&T) -> Option<&Listed>,
    ) -> BoxStream<'a, (T, Option<Read>)> {
        let together = if cached.is_some() { 1 } else { self.store.objects_together().max(1) };
        let parallel = if together > 1 { self.parallel().min(PARALLEL_TOGETHER) } else { self.parallel() };
        let mut size = together.min(FIRST_TOGETHER);
        let chunks = items.ready_chunks(together).flat_map(move |ready| {
            stream::iter(chunks(ready, listed, || {
                let now = size;
                size = (2 * size).min(together);
                now
            }))
        });
        let reads = chunks.map(move |chunk| self.read_chunk(cached, chunk, listed).boxed());
        reads.buffered(parallel).flat_map(stream::iter).boxed()
    }

    async fn read_chunk<T: Send>(
        &self,
        cached: Option<&CachedStore>,
        chunk: Vec<T>,
        listed: fn(&T) -> Option<&Listed>,
    ) -> Vec<(T, Option<Read>)> {
        let objects: Vec<Listed> = chunk.iter().filter_map(listed).cloned().collect();
        let mut reads = Vec::with_capacity(objects.len());
        if let Some(cached) = cached {
            for object in &objects {
                reads.push(cached.content(object).await.map_err(StoreError::from));
            }
        } else {
            let keys: Vec<_> = objects.into_iter().map(|object| object.key).collect();
            for object in self.store.get_together(&keys).await {
                reads.push(object.map(|it| (it.map(|object| Content::new(object.bytes)), Origin::Source)));
            }
        }
        let mut reads = reads.into_iter();
        let with_content = |item: T| {
            let read = if listed(&item).is_some() { reads.next() } else { None };
            (item, read)
        };
        chunk.into_iter().map(with_content).collect()
    }
}

fn chunks<T>(
    items: Vec<T>,
    listed: fn(&T) -> Option<&Listed>,
    mut next_size: impl FnMut() -> usize,
) -> Vec<Vec<T>> {
    let mut chunks: Vec<Vec<T>> = Vec::new();
    let (mut size, mut size_bytes) = (0, 0);
    for item in items {
        let item_bytes = listed(&item).map_or(0, |listed| listed.size_bytes);
        size_bytes += item_bytes;
        match chunks.last_mut() {
            Some(last) if last.len() < size && size_bytes <= BYTES_TOGETHER => last.push(item),
            _ => {
                size = next_size();
                size_bytes = item_bytes;
                chunks.push(vec![item]);
            }
        }
    }
    chunks
}
