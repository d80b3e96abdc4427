//! Listings page by page, so that a listing of any length takes the memory of a page.

use futures_util::FutureExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::{CachedStore, Foreign, Key, Listed, Operation, Store, StoreError};
use crate::cache::Origin;

/// Maximum number of objects of one listing: 150 years of a run with news every quarter of an hour.
pub(super) const MAX_OBJECTS: usize = 5_000_000;
/// Maximum number of pages without an object. A store that skips deleted objects may send some.
pub(super) const MAX_EMPTY_PAGES: usize = 100;

/// Where a page of a listing begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PageStart {
    /// At the first name.
    #[default]
    First,
    /// At the first name that is greater than this text.
    After(String),
    /// Where the page before ended, as [`ListPage::next`] states it.
    Token(String),
}

/// A folder of a store that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableFolder {
    /// What the names of its objects begin with.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl UnreadableFolder {
    pub(crate) fn into_error(self, location: &str) -> StoreError {
        StoreError {
            operation: Operation::List,
            target: format!("{location}/{}", self.name),
            outcome_unknown: false,
            source: self.reason.into(),
        }
    }
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The objects, in the order of their names.
    pub objects: Vec<Listed>,
    /// The token of the next page; nothing on the last page.
    pub next: Option<String>,
    /// What lies between the objects and is none.
    pub foreign: Vec<Foreign>,
    /// Folders whose objects are missing from it.
    pub unreadable: Vec<UnreadableFolder>,
}

impl ListPage {
    /// The same without the objects that a page from `start` does not hold. Some services do not know where to start.
    #[must_use]
    pub fn from_start(mut self, start: &PageStart) -> Self {
        if let PageStart::After(after) = start {
            self.objects.retain(|listed| listed.key.as_str() > after.as_str());
        }
        self
    }

    /// The same, if no folder is missing from it.
    ///
    /// # Errors
    /// [`StoreError`] of the first folder that could not be read.
    pub(crate) fn complete(mut self, location: &str) -> Result<Self, StoreError> {
        if self.unreadable.is_empty() {
            Ok(self)
        } else {
            Err(self.unreadable.swap_remove(0).into_error(location))
        }
    }
}

/// A page, and where it came from.
pub(crate) type PageRead = Result<(ListPage, Origin), StoreError>;

/// The pages of the objects whose names begin with `prefix`, from the cache if there is one. Nothing is asked of the store
/// before a page is asked for; after an error there are no more pages.
pub(crate) fn pages<'a>(
    store: &'a dyn Store,
    cached: Option<&'a CachedStore>,
    prefix: String,
    start: PageStart,
) -> BoxStream<'a, PageRead> {
    let walk = Walk { prefix, start: Some(start), last: None, count: 0, empty: 0 };
    stream::unfold(walk, move |mut walk| {
        async move {
            let start = walk.start.take()?;
            let page = match cached {
                Some(cached) => cached.page(&walk.prefix, &start).await,
                None => store.list_page(&walk.prefix, &start).await.map(|page| (page, Origin::Source)),
            };
            let page = page.and_then(|(page, origin)| Ok((walk.check(&start, page, store)?, origin)));
            if let Ok((page, _)) = &page {
                walk.start = page.next.clone().map(PageStart::Token);
            }
            Some((page, walk))
        }
        .boxed()
    })
    .boxed()
}

/// How far a listing is.
struct Walk {
    prefix: String,
    start: Option<PageStart>,
    last: Option<Key>,
    count: usize,
    empty: usize,
}

impl Walk {
    /// A page that is repeated, or out of order, must never count as "there is nothing more".
    fn check(
        &mut self,
        start: &PageStart,
        page: ListPage,
        store: &dyn Store,
    ) -> Result<ListPage, StoreError> {
        let first = page.objects.first().map(|listed| &listed.key);
        let is_behind = first.is_some_and(|first| self.last.as_ref().is_some_and(|last| last >= first));
        let is_repeated =
            matches!((start, &page.next), (PageStart::Token(token), Some(next)) if token == next);
        self.count += page.objects.len();
        self.empty = if page.objects.is_empty() { self.empty + 1 } else { 0 };
        let reason = if is_behind || is_repeated {
            "the listing is not in order, or repeats a page".to_owned()
        } else if page.next.is_some() && self.empty > MAX_EMPTY_PAGES {
            format!("the listing has more than {MAX_EMPTY_PAGES} pages without an object")
        } else if self.count > MAX_OBJECTS {
            format!("the listing has more than {MAX_OBJECTS} objects")
        } else {
            self.last = page.objects.last().map(|listed| listed.key.clone()).or_else(|| self.last.take());
            return Ok(page);
        };
        Err(StoreError {
            operation: Operation::List,
            target: format!("{}/{}", store.location(), self.prefix),
            outcome_unknown: false,
            source: reason.into(),
        })
    }
}
