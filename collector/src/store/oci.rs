//! Oracle Cloud Infrastructure Object Storage, by its own REST API.
//!
//! Conditions are the service's: `if-none-match: *` creates only what is not there, `if-match` replaces
//! only the version that was read. What is certain to have had no effect is tried again here; a write whose
//! outcome is not known is reported as such, and whoever asked settles it by reading.
//!
//! Source: "Object Storage Service API", docs.oracle.com.

pub mod client;
pub mod credentials;
pub mod endpoint;
pub mod instance;
pub mod key;
#[cfg(feature = "oci-rust-sdk")]
pub mod sdk;
pub mod signature;
pub mod vault;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use self::client::{Answer, Ask, Client, Failure};
use self::signature::{Body, Signer};
use super::remote::SetupError;
use super::{Head, Key, Listed, Object, Operation, Store, StoreError, Version, Write};
use crate::clock::SharedClock;

const PAGE: &str = "1000";

/// Everything but the characters that RFC 3986 calls unreserved: the service wants `/` in names as `%2F`.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Objects of a bucket whose names begin with a prefix.
pub struct OciStore {
    client: Client,
    namespace: String,
    bucket: String,
    /// Empty, or ends with `/`.
    prefix: String,
}

impl fmt::Debug for OciStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "OciStore({})", self.location())
    }
}

/// Which bucket, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketPath {
    /// The tenancy's namespace.
    pub namespace: String,
    /// The bucket.
    pub bucket: String,
    /// How all names begin; may be empty.
    pub prefix: String,
}

impl BucketPath {
    /// Reads `oci://NAMESPACE/BUCKET[/PREFIX]`.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not of the form oci://NAMESPACE/BUCKET[/PREFIX]");
        let rest = text.strip_prefix("oci://").ok_or_else(wrong)?;
        let mut segments = rest.splitn(3, '/');
        let mut next = || segments.next().unwrap_or_default().to_owned();
        let (namespace, bucket, prefix) = (next(), next(), next());
        let prefix = prefix.trim_end_matches('/').to_owned();
        let named = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if !named(&namespace) || !named(&bucket) || !(prefix.is_empty() || Key::new(prefix.as_str()).is_ok())
        {
            return Err(wrong());
        }
        Ok(Self { namespace, bucket, prefix })
    }
}

impl OciStore {
    /// A store in a bucket. Nothing is asked yet.
    ///
    /// # Errors
    /// [`SetupError`] if the endpoint is neither HTTPS nor this machine, or no client can be made.
    pub fn new(
        path: BucketPath,
        endpoint: Url,
        signer: Arc<dyn Signer>,
        clock: SharedClock,
    ) -> Result<Self, SetupError> {
        let BucketPath { namespace, bucket, mut prefix } = path;
        if !prefix.is_empty() {
            prefix.push('/');
        }
        Ok(Self { client: Client::new(endpoint, signer, clock)?, namespace, bucket, prefix })
    }

    fn objects_path(&self) -> String {
        format!("/n/{}/b/{}/o", self.namespace, self.bucket)
    }

    fn object_path(&self, key: &Key) -> String {
        let name = format!("{}{key}", self.prefix);
        format!("{}/{}", self.objects_path(), utf8_percent_encode(&name, NAME))
    }

    fn unusable(&self, reason: impl Into<String>) -> Failure {
        Failure::Unusable { host: self.client.host.clone(), reason: reason.into() }
    }

    fn version(&self, answer: &Answer) -> Result<Version, Failure> {
        version_of(&answer.headers).ok_or_else(|| self.unusable("it has no etag"))
    }

    async fn put(&self, key: &Key, bytes: &[u8], name: HeaderName, value: &str) -> Result<Write, Failure> {
        let condition = HeaderValue::try_from(value).map_err(|_| self.unusable("its etag is no header"))?;
        let md5 = HeaderValue::try_from(BASE64.encode(Md5::digest(bytes)));
        let mut headers = HeaderMap::from_iter([(name, condition)]);
        headers.extend(md5.map(|md5| (HeaderName::from_static("content-md5"), md5)));
        let ask = Ask {
            method: Method::PUT,
            target: self.object_path(key),
            headers,
            body: Body::Object(bytes),
            expected: &[StatusCode::PRECONDITION_FAILED, StatusCode::NOT_FOUND],
        };
        let answer = self.client.request(&ask, false).await?;
        if answer.status.is_success() { self.version(&answer).map(Write::Done) } else { Ok(Write::Refused) }
    }

    async fn read(&self, key: &Key) -> Result<Option<Object>, Failure> {
        let ask = Ask::plain(Method::GET, self.object_path(key), &[StatusCode::NOT_FOUND]);
        let answer = self.client.request(&ask, true).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(Object { version: self.version(&answer)?, bytes: answer.body }))
    }

    async fn size(&self, key: &Key) -> Result<Option<Head>, Failure> {
        let ask = Ask::plain(Method::HEAD, self.object_path(key), &[StatusCode::NOT_FOUND]);
        let answer = self.client.request(&ask, true).await?;
        if answer.status == StatusCode::NOT_FOUND {
            // It may be the bucket that is missing, truly or not; only a body tells.
            return Ok(self.read(key).await?.map(|object| Head::of(&object)));
        }
        let length = answer.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let size_bytes = length.ok_or_else(|| self.unusable("it does not say how long the object is"))?;
        Ok(Some(Head { size_bytes, version: self.version(&answer)? }))
    }

    async fn list_all(&self, prefix: &str) -> Result<Vec<Listed>, Failure> {
        let mut found = Vec::new();
        let mut start: Option<String> = None;
        loop {
            let encoded = |text: &str| utf8_percent_encode(text, NAME).to_string();
            let from = start.as_ref().map_or_else(String::new, |start| format!("&start={}", encoded(start)));
            let target = format!(
                "{}?prefix={}&limit={PAGE}&fields=name%2Csize{from}",
                self.objects_path(),
                encoded(&format!("{}{prefix}", self.prefix))
            );
            let answer = self.client.request(&Ask::plain(Method::GET, target, &[]), true).await?;
            let page: Page =
                serde_json::from_slice(&answer.body).map_err(|error| self.unusable(error.to_string()))?;
            for PageObject { name, size } in page.objects {
                let own = name.strip_prefix(&self.prefix).and_then(|name| Key::new(name).ok());
                found.extend(own.map(|key| Listed { key, size_bytes: size.unwrap_or(0) }));
            }
            match page.next_start_with {
                Some(next) if start.as_ref() != Some(&next) => start = Some(next),
                _ => break,
            }
        }
        found.sort();
        Ok(found)
    }

    fn failed(&self, operation: Operation, target: &str, failure: Failure) -> StoreError {
        let writes = !matches!(operation, Operation::Get | Operation::List);
        StoreError {
            operation,
            target: format!("{}/{target}", self.location()),
            outcome_unknown: writes && !failure.had_no_effect(),
            source: failure.into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    objects: Vec<PageObject>,
    #[serde(default)]
    next_start_with: Option<String>,
}

#[derive(Deserialize)]
struct PageObject {
    name: String,
    #[serde(default)]
    size: Option<u64>,
}

fn version_of(headers: &HeaderMap) -> Option<Version> {
    let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok());
    etag.map(|etag| Version(etag.to_owned()))
}

#[async_trait]
impl Store for OciStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.read(key).await.map_err(|failure| self.failed(Operation::Get, key.as_str(), failure))
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>, StoreError> {
        self.size(key).await.map_err(|failure| self.failed(Operation::Get, key.as_str(), failure))
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        let put = self.put(key, bytes, IF_NONE_MATCH, "*").await;
        put.map_err(|failure| self.failed(Operation::Create, key.as_str(), failure))
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        let put = self.put(key, bytes, IF_MATCH, &expected.0).await;
        put.map_err(|failure| self.failed(Operation::Replace, key.as_str(), failure))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.list_all(prefix).await.map_err(|failure| self.failed(Operation::List, prefix, failure))
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let ask = Ask::plain(Method::DELETE, self.object_path(key), &[StatusCode::NOT_FOUND]);
        let deleted = self.client.request(&ask, true).await;
        deleted.map(drop).map_err(|failure| self.failed(Operation::Delete, key.as_str(), failure))
    }

    fn location(&self) -> String {
        format!("oci://{}/{}/{}", self.namespace, self.bucket, self.prefix).trim_end_matches('/').to_owned()
    }
}
