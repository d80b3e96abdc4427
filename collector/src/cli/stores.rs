//! Opens the archive that the settings describe, and the cache beside it.

use std::sync::Arc;

use collector::archive::{Archive, StateFolder};
use collector::cache::{Cache, CacheOptions, DiskOptions};
use collector::clock::SharedClock;
use collector::store::OpenStore;
use twox_hash::XxHash3_64;

use super::Failure;
use super::settings::{CacheSettings, Settings};

/// Opens the store. An error about a folder names the option, variable or key that holds it.
pub(crate) async fn open_store(settings: &Settings, clock: &SharedClock) -> Result<OpenStore, Failure> {
    let options = settings.store_options()?;
    if options.address.folder().is_some() {
        settings.folder("store").map_err(Failure::Usage)?;
    }
    options.open(clock).await.map_err(|error| Failure::Usage(error.into()))
}

pub(crate) async fn open_archive(settings: &Settings, clock: &SharedClock) -> Result<Archive, Failure> {
    let opened = open_store(settings, clock).await?;
    let options = if settings.uses_cache()? { cache_options(&opened, settings)? } else { None };
    let memory = Arc::new(StateFolder::new(settings.state_dir().map_err(Failure::Usage)?));
    let archive =
        Archive::new(opened.store, Arc::clone(clock), settings.archive_options()?).with_memory(memory);
    Ok(match options {
        Some(options) => archive.with_cache(Arc::new(Cache::new(options, Arc::clone(clock)))),
        None => archive,
    })
}

/// How what is read of a store is kept between commands. Nothing is kept in memory, since a command reads nothing twice, and
/// nothing of a folder, which is as fast as a cache on disk.
pub(crate) fn cache_options(opened: &OpenStore, settings: &Settings) -> anyhow::Result<Option<CacheOptions>> {
    let Some(endpoint) = &opened.endpoint else { return Ok(None) };
    let owner = format!("{} at {}", opened.store.location(), endpoint.origin().ascii_serialization());
    Ok(Some(settings.cache_settings()?.between_commands(owner)))
}

impl CacheSettings {
    /// A cache for a command and those after it. `owner` says whose answers are kept.
    pub(crate) fn between_commands(self, owner: String) -> CacheOptions {
        let Self { folder, size_bytes, ttl } = self;
        let folder = folder.join(format!("{:016x}", XxHash3_64::oneshot(owner.as_bytes())));
        let disk = DiskOptions { folder, limit_bytes: size_bytes.saturating_mul(8), owner };
        CacheOptions { memory_bytes: 0, ttl, disk: Some(disk) }
    }
}
