//! Carries ledger and archive: an object store of five operations.
//!
//! A store keeps named byte sequences. What makes "never twice" possible is conditional writing: an object
//! is created only if there is none, or replaced only if it is still the version that was read. A write
//! that returned is durable. A store knows nothing of events.

pub(crate) mod cached;
pub mod disk;
mod folders;
mod key;
#[cfg(any(feature = "oci", feature = "s3"))]
pub(crate) mod listing;
mod local;
mod memory;
#[cfg(feature = "oci")]
pub mod oci;
#[cfg(all(feature = "oci", feature = "s3"))]
mod open;
pub(crate) mod pages;
pub mod probe;
#[cfg(any(feature = "oci", feature = "s3"))]
pub mod remote;
#[cfg(feature = "s3")]
pub mod s3;
#[cfg(any(feature = "oci", feature = "s3"))]
pub(crate) mod secret_file;

use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use thiserror::Error;

use crate::quantity::Quantities;
pub use cached::CachedStore;
pub use key::{InvalidKey, Key};
pub use local::{Folder, FolderError, LocalStore};
pub use memory::MemoryStore;
#[cfg(feature = "oci")]
pub use oci::OciStore;
#[cfg(all(feature = "oci", feature = "s3"))]
pub use open::{Addressing, Auth, OpenError, OpenStore, SignerKind, StoreAddress, StoreOptions};
pub use pages::{ListPage, PageStart, UnreadableFolder};
#[cfg(feature = "s3")]
pub use s3::S3Store;
#[cfg(any(feature = "oci", feature = "s3"))]
pub use secret_file::Environment;

/// An opaque name for one state of an object; equal only if nothing was written in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub(crate) String);

/// An object as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Which state of it this is.
    pub version: Version,
}

/// An object without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Which state of it this is.
    pub version: Version,
}

impl Head {
    fn of(object: &Object) -> Self {
        Self { size_bytes: object.bytes.len() as u64, version: object.version.clone() }
    }
}

/// An object as a listing names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name.
    pub key: Key,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// Something in a store that no program of ours has put there, and that is not read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// Its name, with escapes for what is not printable.
    pub name: String,
    /// What it is.
    pub reason: &'static str,
}

/// What became of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Write {
    /// The object is written, durably, in this version.
    Done(Version),
    /// The condition did not hold: an object of that name exists (create), or its version is another
    /// (replace). Nothing was written.
    Refused,
}

/// A place for objects. All five operations may be called by several processes at once.
#[async_trait]
pub trait Store: Debug + Send + Sync {
    /// Reads an object; nothing if there is none.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not answer.
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError>;

    /// Returns the size and version of an object without its content; nothing if there is none.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not answer.
    async fn head(&self, key: &Key) -> Result<Option<Head>, StoreError> {
        Ok(self.get(key).await?.map(|object| Head::of(&object)))
    }

    /// Writes an object only if none of that name exists.
    ///
    /// # Errors
    /// [`StoreError`]; if [`StoreError::outcome_unknown`], the object may have been written, or yet be.
    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError>;

    /// Creates objects of different names together, each as [`Store::create`] does, where that is cheaper than one by one.
    /// Nothing if it is not: then nothing was done.
    async fn create_together(&self, objects: &[(&Key, &[u8])]) -> Option<Vec<Result<Write, StoreError>>> {
        let _ = objects;
        None
    }

    /// Writes an object only if it exists and its version is `expected`.
    ///
    /// # Errors
    /// [`StoreError`]; if [`StoreError::outcome_unknown`], the object may have been written, or yet be.
    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError>;

    /// The objects whose names begin with `prefix`, in the order of their names.
    ///
    /// # Errors
    /// [`StoreError`] if the listing is not complete.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;

    /// A page of the objects whose names begin with `prefix`, in the order of their names. A store that does not list page by
    /// page returns all of them.
    ///
    /// # Errors
    /// [`StoreError`] if the page is not complete.
    async fn list_page(&self, prefix: &str, start: &PageStart) -> Result<ListPage, StoreError> {
        let page = ListPage { objects: self.list(prefix).await?, ..ListPage::default() };
        Ok(page.from_start(start))
    }

    /// Number of objects that [`Store::get_together`] reads at about the cost of one; 1 where each takes a request.
    fn objects_together(&self) -> usize {
        1
    }

    /// Reads objects, each as [`Store::get`] does.
    async fn get_together(&self, keys: &[Key]) -> Vec<Result<Option<Object>, StoreError>> {
        let mut read = Vec::with_capacity(keys.len());
        for key in keys {
            read.push(self.get(key).await);
        }
        read
    }

    /// Removes an object. It is no error if there is none. After a power failure it may be there again.
    ///
    /// # Errors
    /// [`StoreError`] if it is not known whether it is gone.
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Writes an object that is a copy for other programs, whatever is there. It need not last.
    ///
    /// # Errors
    /// [`StoreError`] if it may not be written.
    async fn publish(&self, key: &Key, bytes: &[u8]) -> Result<(), StoreError> {
        let _ = match self.head(key).await? {
            Some(head) => self.replace(key, bytes, &head.version).await?,
            None => self.create(key, bytes).await?,
        };
        Ok(())
    }

    /// Whether [`Store::replace`] compares and writes in one step, whoever else writes. Otherwise only
    /// [`Store::create`] excludes others.
    fn replaces_atomically(&self) -> bool {
        true
    }

    /// Where it is, for people.
    fn location(&self) -> String;

    /// Which service answers for the store. What a store has proven holds as long as this stays the same.
    fn fingerprint(&self) -> String {
        self.location()
    }

    /// How far this machine's clock was ahead of the store's at the last answer, if the store states the time.
    fn clock_ahead(&self) -> Option<TimeDelta> {
        None
    }

    /// The number of the calls over the network and the times of their phases, since the last time that this was called.
    fn take_calls(&self) -> Quantities {
        Quantities::default()
    }

    /// Tries what the store needs and the operations do not show. Returns what is wrong.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be tried.
    async fn probe(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// Whether a write that is reported as done proves the content that is stored: the service compares a checksum.
    fn proves_content(&self) -> bool {
        false
    }

    /// Where it is, for programs: the same for every way to name it.
    fn identity(&self) -> String {
        self.location()
    }

    /// Whether its conditions hold because of how it is made, so that they need no proof.
    fn is_sound_by_construction(&self) -> bool {
        false
    }
}

/// A store that several steps share.
pub type SharedStore = Arc<dyn Store>;

/// What was asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`Store::get`].
    Get,
    /// [`Store::create`].
    Create,
    /// [`Store::replace`].
    Replace,
    /// [`Store::list`].
    List,
    /// [`Store::delete`].
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Get => "read",
            Self::Create => "create",
            Self::Replace => "replace",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}

/// An operation that failed.
#[derive(Debug, Error)]
#[error("cannot {operation} {target}: {source}")]
pub struct StoreError {
    /// What was asked.
    pub operation: Operation,
    /// The object's name or the prefix.
    pub target: String,
    /// Whether a write may have taken effect, or may yet.
    pub outcome_unknown: bool,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl From<Arc<StoreError>> for StoreError {
    /// The same failure for each of those who waited for one answer.
    fn from(shared: Arc<Self>) -> Self {
        match Arc::try_unwrap(shared) {
            Ok(error) => error,
            Err(shared) => Self {
                operation: shared.operation,
                target: shared.target.clone(),
                outcome_unknown: shared.outcome_unknown,
                source: Box::new(SharedCause(shared)),
            },
        }
    }
}

/// The cause of a failure that several have.
#[derive(Debug)]
struct SharedCause(Arc<StoreError>);

impl fmt::Display for SharedCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.source, formatter)
    }
}

impl std::error::Error for SharedCause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.source()
    }
}
