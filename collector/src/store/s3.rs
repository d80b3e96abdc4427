//! S3: Amazon's, what is like it, and the S3-compatible endpoint of Oracle's Object Storage.
//!
//! The crate `object_store` speaks the protocol and repeats what fails. A repeated create can so meet the
//! object that its own first try made, and a repeated replace the version it wrote itself; both look like a
//! conflict. That is settled where conflicts are: by comparing what is there with what was to be written.

mod http;
pub(crate) mod listing;

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path as ObjectPath;
use object_store::{
    Error as S3Error, GetResult, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload, PutResult, RetryConfig, UpdateVersion,
};
use reqwest::Url;
use thiserror::Error;

use self::http::{Connector, NotTheService};
use super::listing::{Listing, Page, Pages};
use super::remote::{Peer, SetupError, check_address};
use super::secret_file::{self, Environment, Section, expand, home, sections};
use super::{Head, Key, ListPage, Listed, Object, Operation, PageStart, Store, StoreError, Version, Write};
use crate::clock::SharedClock;
use crate::quantity::Quantities;
use crate::text::{ParseError, server_text};

const RETRIES: usize = 5;
const RETRY_TIMEOUT: std::time::Duration = std::time::Duration::from_mins(2);

/// Which bucket, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Path {
    /// The bucket.
    pub bucket: String,
    /// How all names begin; may be empty.
    pub prefix: String,
}

impl S3Path {
    /// Reads `s3://BUCKET[/PREFIX]`.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let wrong = || format!("`{text}` is not of the form s3://BUCKET[/PREFIX]");
        let rest = text.strip_prefix("s3://").ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let named = bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if bucket.is_empty() || !named || !(prefix.is_empty() || Key::new(prefix).is_ok()) {
            return Err(wrong().into());
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

/// What may be chosen; what is not comes from `AWS_…` variables or the profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3Settings {
    /// The region.
    pub region: Option<String>,
    /// The address of a service that is like S3.
    pub endpoint: Option<Url>,
    /// Whether the bucket is a part of the host's name, and not of the path.
    pub virtual_hosts: bool,
}

/// Why there can be no such store. Never says anything of a key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum S3SetupError {
    /// The address must not be called.
    #[error(transparent)]
    Address(#[from] SetupError),
    /// An address is none.
    #[error("{name} is no valid address: {reason}")]
    Endpoint {
        /// Where it stands.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A profile was named, and is not there.
    #[error("there is no profile `{profile}` in {}", .path.display())]
    NoProfile {
        /// Where it was looked for.
        path: PathBuf,
        /// Which.
        profile: String,
    },
    /// A setting is wrong.
    #[error("{0}")]
    Settings(String),
}

/// Objects of a bucket whose names begin with a prefix.
pub struct S3Store {
    client: AmazonS3,
    bucket: String,
    /// Empty, or ends with `/`.
    prefix: String,
    /// Where it is, if it is not Amazon's.
    endpoint: Option<Url>,
    identity: &'static str,
    peer: Arc<Peer>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "S3Store({})", self.location())
    }
}

impl S3Store {
    /// A store in a bucket. Nothing is asked yet.
    ///
    /// Keys come from the variables `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, or
    /// from the profile `AWS_PROFILE` (`default`) in `~/.aws/credentials`, or as `object_store` finds them
    /// on a machine or in a container of Amazon's.
    ///
    /// # Errors
    /// [`S3SetupError`] if the endpoint is neither HTTPS nor this machine, or the profile is not there.
    pub fn new(
        path: S3Path,
        settings: S3Settings,
        environment: Environment<'_>,
        clock: SharedClock,
    ) -> Result<Self, S3SetupError> {
        let profile = Profile::find(environment)?;
        let endpoint = match settings.endpoint {
            Some(endpoint) => Some(endpoint),
            None => endpoint_of(environment, &profile)?,
        };
        let S3Path { bucket, mut prefix } = path;
        if !prefix.is_empty() {
            prefix.push('/');
        }
        let peer = Arc::new(Peer::default());
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&bucket)
            .with_virtual_hosted_style_request(settings.virtual_hosts)
            .with_allow_http(false)
            .with_retry(RetryConfig {
                max_retries: RETRIES,
                retry_timeout: RETRY_TIMEOUT,
                ..RetryConfig::default()
            })
            // One answer to one request, which can be checked.
            .with_disable_bulk_delete(true)
            .with_http_connector(Connector { endpoint: endpoint.clone(), peer: Arc::clone(&peer), clock });
        for (key, value) in &profile.keys {
            builder = builder.with_config(*key, value);
        }
        if let Some(region) = settings.region.or_else(|| profile.region.clone()) {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &endpoint {
            check_address(endpoint)?;
            let plain = endpoint.scheme() == "http";
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/')).with_allow_http(plain);
        }
        let client = builder.build().map_err(|error| S3SetupError::Settings(brief(&error)))?;
        let identity = profile.identity(environment);
        Ok(Self { client, bucket, prefix, endpoint, identity, peer })
    }

    /// The address that is called, if it is not Amazon's.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Url> {
        self.endpoint.as_ref()
    }

    /// Where the keys come from, for people.
    #[must_use]
    pub fn identity(&self) -> &'static str {
        self.identity
    }

    fn path(&self, key: &Key) -> ObjectPath {
        ObjectPath::from(format!("{}{key}", self.prefix))
    }

    /// Writes under a condition. What fails may have been written all the same: it was repeated.
    async fn put(
        &self,
        operation: Operation,
        key: &Key,
        bytes: &[u8],
        mode: PutMode,
    ) -> Result<Write, StoreError> {
        let payload = PutPayload::from(bytes.to_vec());
        match self.client.put_opts(&self.path(key), payload, PutOptions::from(mode)).await {
            Ok(PutResult { e_tag: Some(etag), .. }) => Ok(Write::Done(Version(etag))),
            Ok(_) => Err(self.failed(operation, key.as_str(), "the answer has no etag".into())),
            Err(S3Error::AlreadyExists { .. } | S3Error::Precondition { .. }) => Ok(Write::Refused),
            Err(error) => Err(self.failed(operation, key.as_str(), brief(&error).into())),
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<Object>, S3Error> {
        let found = match self.client.get(&self.path(key)).await {
            Ok(found) => found,
            Err(error) if is_missing_object(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let version = version_of(&found.meta)?;
        let bytes = GetResult::bytes(found).await?.to_vec();
        Ok(Some(Object { bytes, version }))
    }

    /// Asks for one page. `object_store` makes the requests; our client has read the pages.
    async fn take_page(&self, pages: &mut Pages<'_>, start: &PageStart) -> Result<bool, S3Error> {
        let invalid = |reason: String| S3Error::Generic { store: "S3", source: reason.into() };
        let options = match start {
            PageStart::First => PaginatedListOptions::default(),
            PageStart::After(name) => {
                let offset = Some(format!("{}{name}", self.prefix));
                PaginatedListOptions { offset, ..PaginatedListOptions::default() }
            }
            PageStart::Token(token) => {
                PaginatedListOptions { page_token: Some(token.clone()), ..PaginatedListOptions::default() }
            }
        };
        let answer = self.client.list_paginated(Some(&pages.full_prefix()), options).await?;
        let page = answer.result.extensions.get::<Page>().cloned();
        let page = page.ok_or_else(|| invalid("the listing was not read".to_owned()))?;
        pages.take(page).map_err(invalid)
    }

    async fn list_all(&self, prefix: &str) -> Result<Listing, S3Error> {
        let mut pages = Pages::new(&self.prefix, prefix);
        loop {
            let start = pages.start();
            if !self.take_page(&mut pages, &start).await? {
                return Ok(pages.finish());
            }
        }
    }

    fn failed(&self, operation: Operation, target: &str, source: Box<dyn Error + Send + Sync>) -> StoreError {
        let outcome_unknown = !matches!(operation, Operation::Get | Operation::List);
        StoreError { operation, target: format!("{}/{target}", self.location()), outcome_unknown, source }
    }
}

fn version_of(meta: &ObjectMeta) -> Result<Version, S3Error> {
    let etag = meta.e_tag.clone();
    etag.map(Version).ok_or_else(|| S3Error::Generic { store: "S3", source: "the answer has no etag".into() })
}

/// Whether it is the object that is missing, and not the bucket: only the service itself can say so.
fn is_missing_object(error: &S3Error) -> bool {
    matches!(error, S3Error::NotFound { source, .. } if source.to_string().contains("<Code>NoSuchKey</Code>"))
}

#[async_trait]
impl Store for S3Store {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let read = self.read(key).await;
        read.map_err(|error| self.failed(Operation::Get, key.as_str(), brief(&error).into()))
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>, StoreError> {
        let head = match self.client.head(&self.path(key)).await {
            // It may be the bucket that is missing; only the body says which.
            Err(S3Error::NotFound { .. }) => {
                self.read(key).await.map(|found| found.map(|object| Head::of(&object)))
            }
            Err(error) => Err(error),
            Ok(meta) => version_of(&meta).map(|version| Some(Head { size_bytes: meta.size, version })),
        };
        head.map_err(|error| self.failed(Operation::Get, key.as_str(), brief(&error).into()))
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        self.put(Operation::Create, key, bytes, PutMode::Create).await
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        let version = UpdateVersion { e_tag: Some(expected.0.clone()), version: None };
        self.put(Operation::Replace, key, bytes, PutMode::Update(version)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let listing = self.list_all(prefix).await;
        let listing = listing.map_err(|error| self.failed(Operation::List, prefix, brief(&error).into()))?;
        Ok(listing.into_objects(&self.location()))
    }

    async fn list_page(&self, prefix: &str, start: &PageStart) -> Result<ListPage, StoreError> {
        let mut pages = Pages::new(&self.prefix, prefix);
        let taken = self.take_page(&mut pages, start).await;
        taken.map_err(|error| self.failed(Operation::List, prefix, brief(&error).into()))?;
        Ok(pages.into_page(&self.location(), start))
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        match self.client.delete(&self.path(key)).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing_object(&error) => Ok(()),
            Err(error) => Err(self.failed(Operation::Delete, key.as_str(), brief(&error).into())),
        }
    }

    fn location(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix).trim_end_matches('/').to_owned()
    }

    fn fingerprint(&self) -> String {
        let endpoint = self.endpoint.as_ref().map_or("amazonaws.com", Url::as_str);
        self.peer.fingerprint(&self.location(), endpoint)
    }

    fn clock_ahead(&self) -> Option<TimeDelta> {
        self.peer.clock_ahead()
    }

    fn take_calls(&self) -> Quantities {
        self.peer.take_calls()
    }
}

/// The sections of `~/.aws/credentials` and `~/.aws/config` that a profile names.
#[derive(Debug, Default)]
struct Profile {
    keys: Vec<(AmazonS3ConfigKey, String)>,
    region: Option<String>,
    endpoint: Option<String>,
}

impl Profile {
    /// The profile that is named, or `default`, which need not be there. Variables beat it.
    fn find(environment: Environment<'_>) -> Result<Self, S3SetupError> {
        let named = environment("AWS_PROFILE");
        let name = named.as_deref().unwrap_or("default");
        let home = home(environment);
        let path = |variable: &str, default: &str| {
            environment(variable).map_or_else(|| home.join(default), |path| expand(&path, &home))
        };
        let secrets_path = path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
        let config_path = path("AWS_CONFIG_FILE", ".aws/config");
        let secrets = secret_file::read(&secrets_path).ok();
        let secrets = secrets.and_then(|text| sections(&text, "").remove(name));
        let in_config = if name == "default" { name.to_owned() } else { format!("profile {name}") };
        let config = secret_file::read_text(&config_path).ok();
        let config = config.and_then(|text| sections(&text, "").remove(&in_config));
        if let (Some(profile), None, None) = (&named, &secrets, &config) {
            return Err(S3SetupError::NoProfile { path: secrets_path, profile: profile.clone() });
        }
        let (secrets, config) = (secrets.unwrap_or_default(), config.unwrap_or_default());
        let of = |section: &Section, name: &str| section.get(name).filter(|text| !text.is_empty()).cloned();
        let mut profile = Self { endpoint: of(&config, "endpoint_url"), ..Self::default() };
        if environment("AWS_REGION").or_else(|| environment("AWS_DEFAULT_REGION")).is_none() {
            profile.region = of(&config, "region");
        }
        if environment("AWS_ACCESS_KEY_ID").is_none() {
            let settings = [
                (AmazonS3ConfigKey::AccessKeyId, "aws_access_key_id"),
                (AmazonS3ConfigKey::SecretAccessKey, "aws_secret_access_key"),
                (AmazonS3ConfigKey::Token, "aws_session_token"),
            ];
            let found = |(key, name)| Some((key, of(&secrets, name).or_else(|| of(&config, name))?));
            profile.keys = settings.into_iter().filter_map(found).collect();
        }
        Ok(profile)
    }
}

impl Profile {
    fn identity(&self, environment: Environment<'_>) -> &'static str {
        if environment("AWS_ACCESS_KEY_ID").is_some() {
            "the key in AWS_ACCESS_KEY_ID"
        } else if self.keys.is_empty() {
            "the role of this machine or container: no key is in AWS_ACCESS_KEY_ID or a profile"
        } else {
            "the key of a profile"
        }
    }
}

fn endpoint_of(environment: Environment<'_>, profile: &Profile) -> Result<Option<Url>, S3SetupError> {
    let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let set = variables.into_iter().find_map(|name| Some((name, environment(name)?)));
    let Some((name, text)) = set.or_else(|| Some(("endpoint_url", profile.endpoint.clone()?))) else {
        return Ok(None);
    };
    let reason = |error: url::ParseError| S3SetupError::Endpoint { name, reason: error.to_string() };
    text.parse().map(Some).map_err(reason)
}

/// What an error says, without the request, whose address may be signed, and in one line.
fn brief(error: &S3Error) -> String {
    let mut cause: &dyn Error = error;
    loop {
        if let Some(NotTheService(reason)) = cause.downcast_ref() {
            return reason.clone();
        }
        let Some(deeper) = cause.source() else { break };
        cause = deeper;
    }
    let text = cause.to_string();
    let between = |from: &str, to: &str| {
        let (_, rest) = text.split_once(from)?;
        Some(rest.split_once(to)?.0)
    };
    let Some(code) = between("<Code>", "</Code>") else {
        return server_text(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    };
    let message = between("<Message>", "</Message>").unwrap_or_default();
    let status = between("status code: ", " ").unwrap_or_default();
    format!("HTTP {status} {}: {}", server_text(code), server_text(message))
}
