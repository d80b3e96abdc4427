//! The same for programs that wait: an archive whose answers are iterators.

use std::io;

use futures_util::StreamExt;
use tokio::runtime::{Builder, Runtime};

use super::{Cost, Found, LookUp, Query, Unreadable};
use crate::event::EventId;

/// An archive to be read by a thread that waits. Not for use inside an asynchronous program.
///
/// ```
/// use std::sync::Arc;
///
/// use collector::archive::{Archive, ArchiveOptions};
/// use collector::clock::SystemClock;
/// use collector::query::{Query, blocking};
/// use collector::store::LocalStore;
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Arc::new(LocalStore::new("./data"));
/// let archive = Archive::new(store, Arc::new(SystemClock::default()), ArchiveOptions::default());
/// let archive = blocking::Archive::new(archive)?;
/// for event in archive.query(&Query::default()) {
///     println!("{}", event?.json);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Archive {
    archive: crate::archive::Archive,
    runtime: Runtime,
}

impl Archive {
    /// The same archive.
    ///
    /// # Errors
    /// If the system gives no threads or no events of the network.
    pub fn new(archive: crate::archive::Archive) -> io::Result<Self> {
        Ok(Self { archive, runtime: Builder::new_current_thread().enable_all().build()? })
    }

    /// Looks for events, as [`crate::archive::Archive::query`] does.
    #[must_use]
    pub fn query(&self, query: &Query) -> Answer<'_> {
        Answer { answer: self.archive.query(query), runtime: &self.runtime }
    }

    /// Events by their numbers, as [`crate::archive::Archive::get_many`] finds them.
    #[must_use]
    pub fn get_many(&self, ids: impl IntoIterator<Item = EventId>) -> LookUp {
        self.runtime.block_on(self.archive.get_many(ids))
    }
}

/// What is found, as it comes.
#[derive(Debug)]
pub struct Answer<'a> {
    answer: super::Answer<'a>,
    runtime: &'a Runtime,
}

impl Answer<'_> {
    /// What it has cost so far.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.answer.cost()
    }

    /// What was answered from tables so far.
    #[must_use]
    pub fn tables(&self) -> super::TablesUse {
        self.answer.tables()
    }
}

impl Iterator for Answer<'_> {
    type Item = Result<Found, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(StreamExt::next(&mut self.answer))
    }
}
