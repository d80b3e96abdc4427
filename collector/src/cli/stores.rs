//! Opens the store that the settings name.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use collector::archive::{Archive, StateFolder};
use collector::cache::{Cache, CacheOptions, DiskOptions};
use collector::clock::SharedClock;
use collector::store::oci::BucketPath;
use collector::store::oci::credentials::Credentials;
use collector::store::oci::endpoint::Region;
use collector::store::oci::instance::InstancePrincipal;
use collector::store::oci::key::PrivateKey;
use collector::store::oci::signature::Signer;
use collector::store::oci::vault;
use collector::store::s3::{S3Path, S3Settings};
use collector::store::{LocalStore, OciStore, S3Store, SharedStore};
use tracing::debug;
use twox_hash::XxHash3_64;
use url::Url;

use super::Failure;
use super::settings::{BucketOptions, CacheSettings, Settings};

/// A store, where it is called, and who is known there.
pub(crate) struct Opened {
    pub(crate) store: SharedStore,
    /// The address of a store that is not a folder.
    pub(crate) endpoint: Option<Url>,
    /// In whose name, for people.
    pub(crate) identity: Option<String>,
}

pub(crate) async fn open_archive(settings: &Settings, clock: &SharedClock) -> Result<Archive, Failure> {
    let opened = open_store(settings, clock).await.map_err(Failure::Usage)?;
    let options = if settings.uses_cache()? { opened.cache_options(settings)? } else { None };
    let memory = Arc::new(StateFolder::new(settings.state_dir().map_err(Failure::Usage)?));
    let archive =
        Archive::new(opened.store, Arc::clone(clock), settings.archive_options()?).with_memory(memory);
    Ok(match options {
        Some(options) => archive.with_cache(Arc::new(Cache::new(options, Arc::clone(clock)))),
        None => archive,
    })
}

impl Opened {
    /// How what is read of it is kept between commands. A command reads nothing twice, so nothing is kept in its memory; and
    /// nothing of a folder, which is as fast as any cache on disk.
    pub(crate) fn cache_options(&self, settings: &Settings) -> anyhow::Result<Option<CacheOptions>> {
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        let owner = format!("{} at {}", self.store.location(), endpoint.origin().ascii_serialization());
        Ok(Some(settings.cache_settings()?.between_commands(owner)))
    }
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

/// The store. Nothing in it is asked for yet, but who may ask is settled.
pub(crate) async fn open_store(settings: &Settings, clock: &SharedClock) -> anyhow::Result<Opened> {
    let location = settings.text("store");
    match location.split_once("://") {
        None => open_folder(settings),
        Some(("oci", _)) => open_object_storage(location, settings, clock).await,
        Some(("s3", _)) => open_s3(location, settings, clock),
        Some((scheme, _)) => Err(anyhow!(
            "store: `{scheme}://` is not supported; name a local folder, oci://NAMESPACE/BUCKET or s3://BUCKET"
        )),
    }
}

fn open_folder(settings: &Settings) -> anyhow::Result<Opened> {
    let folder = settings.folder("store")?;
    Ok(Opened { store: Arc::new(LocalStore::new(folder)), endpoint: None, identity: None })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn open_s3(location: &str, settings: &Settings, clock: &SharedClock) -> anyhow::Result<Opened> {
    let path = S3Path::parse(location).map_err(|error| anyhow!("store: {error}"))?;
    let BucketOptions { virtual_hosts, endpoint, .. } = settings.bucket_options()?;
    let s3 = S3Settings {
        region: settings.chosen("region", "OCI_").map(str::to_owned),
        endpoint: endpoint.filter(|_| settings.chosen("endpoint", "OCI_").is_some()),
        virtual_hosts,
    };
    let store = S3Store::new(path, s3, &variable, Arc::clone(clock)).context("store")?;
    let amazon = Url::parse("https://s3.amazonaws.com")?;
    let endpoint = Some(store.endpoint().cloned().unwrap_or(amazon));
    let identity = Some(store.identity().to_owned());
    Ok(Opened { store: Arc::new(store), endpoint, identity })
}

async fn open_object_storage(
    location: &str,
    settings: &Settings,
    clock: &SharedClock,
) -> anyhow::Result<Opened> {
    let path = BucketPath::parse(location).map_err(|error| anyhow!("store: {error}"))?;
    let options = settings.bucket_options()?;
    let Identity { signer, region, name } = find_identity(settings, &options, clock)
        .await
        .context("store: nobody can sign for Object Storage")?;
    debug!(identity = name, "signing for Object Storage");
    let endpoint = address(options.endpoint, region.as_ref(), "objectstorage")?;
    let store = OciStore::new(path, endpoint.clone(), signer, Arc::clone(clock)).context("store")?;
    Ok(Opened { store: Arc::new(store), endpoint: Some(endpoint), identity: Some(name) })
}

fn address(chosen: Option<Url>, region: Option<&Region>, service: &str) -> anyhow::Result<Url> {
    if let Some(address) = chosen {
        return Ok(address);
    }
    let region = region.ok_or_else(|| anyhow!("store: no region is known; name one with --region"))?;
    region.address(service).map_err(|error| anyhow!("region: {error}"))
}

/// Somebody who signs, and the region that is known with it.
struct Identity {
    signer: Arc<dyn Signer>,
    region: Option<Region>,
    name: String,
}

async fn find_identity(
    settings: &Settings,
    options: &BucketOptions,
    clock: &SharedClock,
) -> anyhow::Result<Identity> {
    let mut identity = match &options.metadata {
        Some(metadata) if options.is_instance => {
            let (metadata, federation) = (metadata.clone(), options.auth_endpoint.clone());
            let found = InstancePrincipal::find(metadata, federation, Arc::clone(clock)).await;
            let (principal, region) = found.context("is this an instance of Oracle's cloud?")?;
            Identity { signer: Arc::new(principal), region: Some(region), name: "this instance".to_owned() }
        }
        _ => {
            let found = Credentials::find(&variable);
            let Credentials { key, region, origin } =
                found.context("see ~/.oci/config, OCI_CONFIG_FILE, OCI_USER or --auth instance")?;
            let signer = signer_of(key, options.sdk_signs)?;
            Identity { signer, region: region.as_deref().map(Region::named), name: origin }
        }
    };
    if let Some(name) = settings.chosen("region", "") {
        identity.region = Some(Region::named(name));
    }
    if let Some(secrets) = &options.secrets {
        let vault = address(options.vault_endpoint.clone(), identity.region.as_ref(), "secrets.vaults")?;
        let key = vault::read_key(secrets, vault, identity.signer, Arc::clone(clock)).await?;
        identity.signer = signer_of(key, options.sdk_signs)?;
        identity.name = format!("the user in the Vault, read by {}", identity.name);
    }
    Ok(identity)
}

#[cfg(not(feature = "oci-rust-sdk"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
fn signer_of(key: PrivateKey, _: bool) -> anyhow::Result<Arc<dyn Signer>> {
    Ok(Arc::new(key))
}

#[cfg(feature = "oci-rust-sdk")]
fn signer_of(key: PrivateKey, sdk_signs: bool) -> anyhow::Result<Arc<dyn Signer>> {
    use collector::store::oci::sdk::SdkSigner;

    Ok(if sdk_signs { Arc::new(SdkSigner::new(&key)?) } else { Arc::new(key) })
}
