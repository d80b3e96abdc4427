//! Opens a store from one description: its address, and how a bucket is reached and signed for.

use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use reqwest::Url;
use thiserror::Error;
use tracing::debug;

use super::oci::credentials::{Credentials, CredentialsError};
use super::oci::endpoint::Region;
use super::oci::instance::{InstancePrincipal, METADATA_URL};
use super::oci::key::{KeyError, PrivateKey};
use super::oci::signature::{SignError, Signer};
use super::oci::vault::{self, SecretIds, VaultError};
use super::oci::{BucketPath, OciStore};
use super::remote::SetupError;
use super::s3::{S3Path, S3Settings, S3SetupError, S3Store};
use super::{LocalStore, SharedStore};
use crate::clock::SharedClock;
use crate::feed::is_loopback;
use crate::files::check_folder;
use crate::text::ParseError;

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAddress {
    /// A folder of this machine.
    Folder(PathBuf),
    /// `oci://NAMESPACE/BUCKET[/PREFIX]`.
    ObjectStorage(BucketPath),
    /// `s3://BUCKET[/PREFIX]`.
    S3(S3Path),
}

impl FromStr for StoreAddress {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.split_once("://") {
            None if text.is_empty() => Err("a folder or an address is missing".into()),
            None => Ok(Self::Folder(PathBuf::from(text))),
            Some(("oci", _)) => BucketPath::parse(text).map(Self::ObjectStorage),
            Some(("s3", _)) => S3Path::parse(text).map(Self::S3),
            Some((scheme, _)) => Err(format!(
                "`{scheme}://` is not supported; name a local folder, oci://NAMESPACE/BUCKET or s3://BUCKET"
            )
            .into()),
        }
    }
}

impl Display for StoreAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self {
            Self::Folder(path) => return write!(formatter, "{}", path.display()),
            Self::ObjectStorage(BucketPath { namespace, bucket, prefix }) => {
                write!(formatter, "oci://{namespace}/{bucket}")?;
                prefix
            }
            Self::S3(S3Path { bucket, prefix }) => {
                write!(formatter, "s3://{bucket}")?;
                prefix
            }
        };
        if prefix.is_empty() { Ok(()) } else { write!(formatter, "/{prefix}") }
    }
}

impl StoreAddress {
    /// The folder of a local store.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::ObjectStorage(_) | Self::S3(_) => None,
        }
    }
}

/// Where an S3 bucket is named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Addressing {
    /// In the path of the URL.
    #[default]
    Path,
    /// In the name of the host.
    Host,
}

/// Who signs requests to OCI Object Storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Auth {
    /// The user of `~/.oci/config` or of the variables `OCI_…`.
    #[default]
    ApiKey,
    /// The instance that this program runs on ("instance principal").
    Instance,
}

/// Which implementation signs requests to OCI Object Storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignerKind {
    /// That of this crate.
    #[default]
    BuiltIn,
    /// That of `oci-rust-sdk`.
    #[cfg(feature = "oci-rust-sdk")]
    OciRustSdk,
}

/// Describes a store: all that is needed to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Where the store is.
    pub address: StoreAddress,
    /// The region, instead of the one that stands beside the credentials.
    pub region: Option<String>,
    /// The address of the service, instead of the region's.
    pub endpoint: Option<Url>,
    /// Where an S3 bucket is named.
    pub addressing: Addressing,
    /// Who signs for Object Storage.
    pub auth: Auth,
    /// Which implementation signs for Object Storage.
    pub signer: SignerKind,
    /// The secrets in the Vault that hold the key of the user who signs.
    pub secrets: Option<SecretIds>,
    /// The address of the Vault, instead of the region's.
    pub vault_endpoint: Option<Url>,
    /// The address of the federation service, instead of the region's.
    pub auth_endpoint: Option<Url>,
    /// The address of the instance's metadata service, instead of [`METADATA_URL`].
    pub metadata: Option<Url>,
}

/// Why a store cannot be opened. Never contains a key or a secret.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path is not that of a folder.
    #[error("store: `{}`: {source}", .path.display())]
    Folder {
        /// The path.
        path: PathBuf,
        /// What is there instead.
        source: io::Error,
    },
    /// No region is known.
    #[error("store: no region is known; name one with --region")]
    NoRegion,
    /// The region's name is not valid.
    #[error("region: {0}")]
    Region(ParseError),
    /// There are no usable credentials for Object Storage.
    #[error("store: no usable credentials for Object Storage: {source}")]
    Credentials {
        /// What is missing or wrong.
        source: CredentialsError,
    },
    /// The instance does not sign.
    #[error(
        "store: no instance principal for Object Storage (is this an instance of Oracle's cloud?): {source}"
    )]
    Instance {
        /// What failed.
        source: SignError,
    },
    /// The key in the Vault cannot be read.
    #[error("store: {0}")]
    Vault(#[from] VaultError),
    /// The key cannot be used.
    #[error("store: {0}")]
    Key(#[from] KeyError),
    /// No client can be made for Object Storage.
    #[error("store: {0}")]
    Setup(#[from] SetupError),
    /// No client can be made for S3.
    #[error("store: {0}")]
    S3(#[from] S3SetupError),
}

impl OpenError {
    /// What to do about it, where that helps.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Credentials { .. } => {
                Some("set OCI_USER and the other OCI_… variables, or OCI_CONFIG_FILE, or use --auth instance")
            }
            _ => None,
        }
    }
}

/// A store that was opened, where it is called, and in whose name. No request has been sent to it.
#[derive(Debug)]
pub struct OpenStore {
    /// The store.
    pub store: SharedStore,
    /// The address of the service; none for a folder.
    pub endpoint: Option<Url>,
    /// In whose name requests are sent, for people.
    pub identity: Option<String>,
}

impl StoreOptions {
    /// A store at an address, with the defaults for everything else.
    #[must_use]
    pub fn new(address: StoreAddress) -> Self {
        Self {
            address,
            region: None,
            endpoint: None,
            addressing: Addressing::default(),
            auth: Auth::default(),
            signer: SignerKind::default(),
            secrets: None,
            vault_endpoint: None,
            auth_endpoint: None,
            metadata: None,
        }
    }

    /// Whether the store is called at an address that is not on this machine.
    #[must_use]
    pub fn is_on_network(&self) -> bool {
        self.address.folder().is_none() && self.endpoint.as_ref().is_none_or(|url| !is_loopback(url))
    }

    /// Opens the store. Only an instance's metadata service and the Vault are called, where they are configured.
    ///
    /// # Errors
    /// [`OpenError`] if the description is not complete, or requests cannot be signed.
    pub async fn open(&self, clock: &SharedClock) -> Result<OpenStore, OpenError> {
        match &self.address {
            StoreAddress::Folder(path) => open_folder(path),
            StoreAddress::ObjectStorage(path) => self.open_object_storage(path, clock).await,
            StoreAddress::S3(path) => self.open_s3(path, clock),
        }
    }

    fn open_s3(&self, path: &S3Path, clock: &SharedClock) -> Result<OpenStore, OpenError> {
        let settings = S3Settings {
            region: self.region.clone(),
            endpoint: self.endpoint.clone(),
            virtual_hosts: self.addressing == Addressing::Host,
        };
        let store = S3Store::new(path.clone(), settings, &variable, Arc::clone(clock))?;
        let endpoint = store.endpoint().cloned().or_else(|| Url::parse("https://s3.amazonaws.com").ok());
        let identity = Some(store.identity().to_owned());
        Ok(OpenStore { store: Arc::new(store), endpoint, identity })
    }

    async fn open_object_storage(
        &self,
        path: &BucketPath,
        clock: &SharedClock,
    ) -> Result<OpenStore, OpenError> {
        let Identity { signer, region, name } = self.identity(clock).await?;
        debug!(identity = name, "signing for Object Storage");
        let endpoint = address(self.endpoint.as_ref(), region.as_ref(), "objectstorage")?;
        let store = OciStore::new(path.clone(), endpoint.clone(), signer, Arc::clone(clock))?;
        Ok(OpenStore { store: Arc::new(store), endpoint: Some(endpoint), identity: Some(name) })
    }

    async fn identity(&self, clock: &SharedClock) -> Result<Identity, OpenError> {
        let mut identity = match self.auth {
            Auth::Instance => self.instance(clock).await?,
            Auth::ApiKey => {
                let found = Credentials::find(&variable);
                let Credentials { key, region, origin } =
                    found.map_err(|source| OpenError::Credentials { source })?;
                let region = region.as_deref().map(Region::named);
                Identity { signer: self.signer_of(key)?, region, name: origin }
            }
        };
        if let Some(name) = &self.region {
            identity.region = Some(Region::named(name));
        }
        if let Some(secrets) = &self.secrets {
            let vault = address(self.vault_endpoint.as_ref(), identity.region.as_ref(), "secrets.vaults")?;
            let key = vault::read_key(secrets, vault, identity.signer, Arc::clone(clock)).await?;
            identity.signer = self.signer_of(key)?;
            identity.name = format!("the user in the Vault, read by {}", identity.name);
        }
        Ok(identity)
    }

    async fn instance(&self, clock: &SharedClock) -> Result<Identity, OpenError> {
        let metadata = match &self.metadata {
            Some(metadata) => metadata.clone(),
            None => Url::parse(METADATA_URL).map_err(|error| OpenError::Region(error.to_string().into()))?,
        };
        let found = InstancePrincipal::find(metadata, self.auth_endpoint.clone(), Arc::clone(clock)).await;
        let (principal, region) = found.map_err(|source| OpenError::Instance { source })?;
        Ok(Identity { signer: Arc::new(principal), region: Some(region), name: "this instance".to_owned() })
    }

    #[cfg(not(feature = "oci-rust-sdk"))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "with the feature, it can fail")]
    fn signer_of(&self, key: PrivateKey) -> Result<Arc<dyn Signer>, KeyError> {
        Ok(Arc::new(key))
    }

    #[cfg(feature = "oci-rust-sdk")]
    fn signer_of(&self, key: PrivateKey) -> Result<Arc<dyn Signer>, KeyError> {
        use super::oci::sdk::SdkSigner;

        Ok(match self.signer {
            SignerKind::OciRustSdk => Arc::new(SdkSigner::new(&key)?),
            SignerKind::BuiltIn => Arc::new(key),
        })
    }
}

/// Who signs, and the region that is known with it.
struct Identity {
    signer: Arc<dyn Signer>,
    region: Option<Region>,
    name: String,
}

fn open_folder(path: &Path) -> Result<OpenStore, OpenError> {
    check_folder(path).map_err(|source| OpenError::Folder { path: path.to_owned(), source })?;
    Ok(OpenStore { store: Arc::new(LocalStore::new(path)), endpoint: None, identity: None })
}

/// The address that was chosen, or that of a service in a region.
fn address(chosen: Option<&Url>, region: Option<&Region>, service: &str) -> Result<Url, OpenError> {
    match (chosen, region) {
        (Some(address), _) => Ok(address.clone()),
        (None, Some(region)) => region.address(service).map_err(OpenError::Region),
        (None, None) => Err(OpenError::NoRegion),
    }
}

/// A variable of the environment that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_displayed_as_they_are_written() {
        for text in
            ["data", "./data", "oci://ns/bucket", "oci://ns/bucket/a/b", "s3://bucket", "s3://bucket/a"]
        {
            assert_eq!(text.parse::<StoreAddress>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
        for text in ["ftp://x/y", "oci://bucket", "s3://", "s3://b/../x"] {
            assert!(text.parse::<StoreAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_network_is_used_only_for_buckets_elsewhere() {
        let mut options = StoreOptions::new(StoreAddress::Folder(PathBuf::from("data")));
        assert!(!options.is_on_network());
        options.address = "s3://bucket".parse().unwrap();
        assert!(options.is_on_network());
        options.endpoint = Url::parse("http://127.0.0.1:9").ok();
        assert!(!options.is_on_network());
    }
}
