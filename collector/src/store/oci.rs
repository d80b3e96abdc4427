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
use chrono::TimeDelta;
use md5::{Digest as _, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use self::client::{Answer, Ask, Client, Failure};
use self::signature::{Body, Signer};
use super::listing::{Listing, MAX_PAGE_BYTES, Page, Pages};
use super::remote::{MAX_MESSAGE_BYTES, MAX_OBJECT_BYTES, SetupError, check_object, check_written};
use super::{Head, Key, ListPage, Listed, Object, Operation, PageStart, Store, StoreError, Version, Write};
use crate::clock::SharedClock;
use crate::json::from_object;
use crate::quantity::Quantities;
use crate::text::{ParseError, server_text};

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
    pub fn parse(text: &str) -> Result<Self, ParseError> {
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
            return Err(wrong().into());
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
            limit: MAX_MESSAGE_BYTES,
        };
        let answer = self.client.request(&ask, false).await?;
        if !answer.status.is_success() {
            return Ok(Write::Refused);
        }
        check_written(&answer.body).map_err(|reason| self.unusable(reason))?;
        self.check_digest(&answer, "opc-content-md5", bytes)?;
        self.version(&answer).map(Write::Done)
    }

    /// What the service has received or sent is what this program has sent or received, where the service states its digest.
    fn check_digest(&self, answer: &Answer, header: &str, bytes: &[u8]) -> Result<(), Failure> {
        match answer.headers.get(header) {
            Some(stated) if stated.as_bytes() != BASE64.encode(Md5::digest(bytes)).as_bytes() => {
                Err(self.unusable(format!("its {header} is that of another content")))
            }
            _ => Ok(()),
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<Object>, Failure> {
        let ask = Ask {
            limit: MAX_OBJECT_BYTES,
            ..Ask::plain(Method::GET, self.object_path(key), &[StatusCode::NOT_FOUND])
        };
        let answer = self.client.request(&ask, true).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        check_object(&answer.headers, &answer.body).map_err(|reason| self.unusable(reason))?;
        self.length(&answer)?;
        self.check_digest(&answer, "content-md5", &answer.body)?;
        Ok(Some(Object { version: self.version(&answer)?, bytes: answer.body }))
    }

    /// How long the object is. An answer without it may have been cut.
    fn length(&self, answer: &Answer) -> Result<u64, Failure> {
        let length = answer.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        length.ok_or_else(|| self.unusable("it does not state the length of the object"))
    }

    async fn size(&self, key: &Key) -> Result<Option<Head>, Failure> {
        let ask = Ask::plain(Method::HEAD, self.object_path(key), &[StatusCode::NOT_FOUND]);
        let answer = self.client.request(&ask, true).await?;
        if answer.status == StatusCode::NOT_FOUND {
            // It may be the bucket that is missing, truly or not; only the body says which.
            return Ok(self.read(key).await?.map(|object| Head::of(&object)));
        }
        check_object(&answer.headers, &[]).map_err(|reason| self.unusable(reason))?;
        Ok(Some(Head { size_bytes: self.length(&answer)?, version: self.version(&answer)? }))
    }

    /// Asks for one page. Whether another one follows.
    async fn take_page(&self, pages: &mut Pages<'_>, start: &PageStart) -> Result<bool, Failure> {
        let encoded = |text: &str| utf8_percent_encode(text, NAME).to_string();
        let from = match start {
            PageStart::First => String::new(),
            PageStart::After(name) => format!("&start={}", encoded(&format!("{}{name}", self.prefix))),
            PageStart::Token(token) => format!("&start={}", encoded(token)),
        };
        let target = format!(
            "{}?prefix={}&limit={PAGE}&fields=name%2Csize{from}",
            self.objects_path(),
            encoded(&pages.full_prefix())
        );
        let ask = Ask { limit: MAX_PAGE_BYTES, ..Ask::plain(Method::GET, target, &[]) };
        let answer = self.client.request(&ask, true).await?;
        let page = parse_page(&answer.body).map_err(|reason| self.unusable(reason))?;
        pages.take(page).map_err(|reason| self.unusable(reason))
    }

    async fn list_all(&self, prefix: &str) -> Result<Listing, Failure> {
        let mut pages = Pages::new(&self.prefix, prefix);
        loop {
            let start = pages.start();
            if !self.take_page(&mut pages, &start).await? {
                return Ok(pages.finish());
            }
        }
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

/// Reads a page of `ListObjects`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_page(body: &[u8]) -> Result<Page, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        objects: Vec<ListedObject>,
        #[serde(default)]
        next_start_with: Option<String>,
    }
    #[derive(Deserialize)]
    struct ListedObject {
        name: String,
        size: u64,
    }
    let Document { objects, next_start_with } = from_object(body)
        .map_err(|error| format!("the listing is not a listing: {}", server_text(&error.to_string())))?;
    let objects = objects.into_iter().map(|ListedObject { name, size }| (name, size)).collect();
    Ok(Page { objects, next: next_start_with.filter(|next| !next.is_empty()) })
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
        let listing = self.list_all(prefix).await;
        let listing = listing.map_err(|failure| self.failed(Operation::List, prefix, failure))?;
        Ok(listing.into_objects(&self.location()))
    }

    async fn list_page(&self, prefix: &str, start: &PageStart) -> Result<ListPage, StoreError> {
        let mut pages = Pages::new(&self.prefix, prefix);
        let taken = self.take_page(&mut pages, start).await;
        taken.map_err(|failure| self.failed(Operation::List, prefix, failure))?;
        Ok(pages.into_page(&self.location(), start))
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let ask = Ask::plain(Method::DELETE, self.object_path(key), &[StatusCode::NOT_FOUND]);
        let deleted = self.client.request(&ask, true).await.and_then(|answer| {
            let is_absent = answer.status == StatusCode::NOT_FOUND;
            if is_absent {
                Ok(())
            } else {
                check_written(&answer.body).map_err(|reason| self.unusable(reason))
            }
        });
        deleted.map_err(|failure| self.failed(Operation::Delete, key.as_str(), failure))
    }

    fn location(&self) -> String {
        format!("oci://{}/{}/{}", self.namespace, self.bucket, self.prefix).trim_end_matches('/').to_owned()
    }

    /// Each write states the MD5 digest of its content, and so does the answer.
    fn proves_content(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        self.client.peer.fingerprint(&self.location(), self.client.endpoint.as_str())
    }

    fn clock_ahead(&self) -> Option<TimeDelta> {
        self.client.peer.clock_ahead()
    }

    fn take_calls(&self) -> Quantities {
        self.client.peer.take_calls()
    }
}
