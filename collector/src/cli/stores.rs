//! Opens the archive that the settings describe, and the cache beside it.

use std::sync::Arc;

use anyhow::anyhow;
use twox_hash::XxHash3_64;

use super::Failure;
use super::settings::{ArchiveSettings, CacheSettings, Origin, Settings};
use crate::archive::{Archive, StateFolder};
use crate::cache::{Cache, CacheOptions, DiskOptions};
use crate::clock::SharedClock;
use crate::store::{OpenError, OpenStore, StoreAddress, StoreOptions};

/// Opens a store. An error about a folder names the option, variable or file that chose it.
pub(crate) async fn open_store(
    store: &StoreOptions,
    origin: &Origin,
    clock: &SharedClock,
) -> Result<OpenStore, Failure> {
    let opened = store.open(clock).await;
    opened.map_err(|error| {
        Failure::Usage(match error {
            OpenError::Folder { path, source } => {
                anyhow!("{}: `{}`: {source}", origin.place("store"), path.display())
            }
            error => error.into(),
        })
    })
}

pub(crate) async fn open_archive(settings: ArchiveSettings, clock: &SharedClock) -> Result<Archive, Failure> {
    let ArchiveSettings { store, origin, options, state_dir, cache } = settings;
    let opened = open_store(&store, &origin, clock).await?;
    let cache = cache.and_then(|cache| cache.of_store(&opened));
    let memory = Arc::new(StateFolder::new(state_dir));
    let archive = Archive::new(opened.store, Arc::clone(clock), options).with_memory(memory);
    Ok(match cache {
        Some(options) => archive.with_cache(Arc::new(Cache::new(options, Arc::clone(clock)))),
        None => archive,
    })
}

/// Opens another store that belongs to the archive of the settings.
pub(crate) async fn open_peer(
    settings: &Settings,
    address: &StoreAddress,
    clock: &SharedClock,
) -> Result<Archive, Failure> {
    let opened = settings.peer(address).open(clock).await.map_err(|error| Failure::Usage(error.into()))?;
    let memory = Arc::new(StateFolder::new(settings.state.state_dir.clone()));
    Ok(Archive::new(opened.store, Arc::clone(clock), settings.archive_options()).with_memory(memory))
}

impl CacheSettings {
    /// The cache of a store between commands. Nothing of a folder is cached, since it is as fast as a cache on disk.
    pub(crate) fn of_store(&self, opened: &OpenStore) -> Option<CacheOptions> {
        let endpoint = opened.endpoint.as_ref()?;
        let owner = format!("{} at {}", opened.store.location(), endpoint.origin().ascii_serialization());
        Some(self.between_commands(owner))
    }

    /// A cache on disk for a command and those after it. Nothing is cached in memory, since a command reads nothing twice.
    /// `owner` says whose responses these are.
    pub(crate) fn between_commands(&self, owner: String) -> CacheOptions {
        let folder = self.cache_dir.join(format!("{:016x}", XxHash3_64::oneshot(owner.as_bytes())));
        let disk = DiskOptions { folder, limit_bytes: self.cache_size, owner };
        CacheOptions { memory_bytes: 0, ttl: self.cache_ttl, disk: Some(disk) }
    }
}
