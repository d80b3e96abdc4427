//! Oracle Cloud Infrastructure Object Storage, by its own REST API.
//!
//! Conditions are the service's: `if-none-match: *` creates only what is not there, `if-match` replaces
//! only the version that was read. What is certain to have had no effect is tried again here; a write whose
//! outcome is not known is reported as such, and whoever asked settles it by reading.
//!
//! Source: "Object Storage Service API", docs.oracle.com.

pub mod credentials;
pub mod endpoint;
pub mod signature;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use md5::{Digest as _, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{
    AUTHORIZATION, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
};
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use thiserror::Error;
use tracing::debug;

use self::signature::{KeyError, Signed, Signer};
use super::{Key, Listed, Object, Operation, Store, StoreError, Version, Write};
use crate::clock::SharedClock;

/// How often a request that had no effect is made again.
const RETRIES: u32 = 5;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_mins(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An object of the archive is a day's events; none comes near this.
const LARGEST_OBJECT_BYTES: u64 = 256 * 1024 * 1024;
/// The clock may be off by so much before the service refuses to listen.
const MOST_SKEW: TimeDelta = TimeDelta::minutes(5);
const PAGE: &str = "1000";

/// Everything but the characters that RFC 3986 calls unreserved: the service wants `/` in names as `%2F`.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a request had no result.
#[derive(Debug, Error)]
#[non_exhaustive]
enum Failure {
    /// The service says why.
    #[error("HTTP {status} {code}: {message}{hint}")]
    Service { status: u16, code: String, message: String, hint: String },
    /// No connection was made, so nothing was asked.
    #[error("cannot connect to {host}: {reason}")]
    Connect { host: String, reason: String },
    /// Something was asked, and the answer did not come, or not whole.
    #[error("no answer from {host}: {reason}")]
    NoAnswer { host: String, reason: String },
    /// The answer is not what the service gives.
    #[error("{host} gave an answer that cannot be used: {reason}")]
    Unusable { host: String, reason: String },
    /// Nobody can sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Failure {
    /// Whether it is certain that nothing was written.
    fn had_no_effect(&self) -> bool {
        match self {
            Self::Service { status, .. } => *status < 500,
            Self::Connect { .. } | Self::Key(_) => true,
            Self::NoAnswer { .. } | Self::Unusable { .. } => false,
        }
    }

    /// Whether the same request may succeed soon.
    fn may_pass(&self) -> bool {
        match self {
            // A bucket that exists was seen to be reported as missing in 3 to 16 % of requests.
            Self::Service { status: 404, code, .. } => code == "BucketNotFound",
            Self::Service { status, .. } => *status == 429 || *status >= 500,
            Self::Connect { .. } | Self::NoAnswer { .. } => true,
            Self::Unusable { .. } | Self::Key(_) => false,
        }
    }
}

/// An answer of the service.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Objects of a bucket whose names begin with a prefix.
pub struct OciStore {
    client: Client,
    clock: SharedClock,
    signer: Arc<dyn Signer>,
    endpoint: Url,
    host: String,
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

/// Why there can be no such store.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct OciSetupError(String);

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
    /// [`OciSetupError`] if the endpoint is neither HTTPS nor this machine, or no client can be made.
    pub fn new(
        path: BucketPath,
        endpoint: Url,
        signer: Arc<dyn Signer>,
        clock: SharedClock,
    ) -> Result<Self, OciSetupError> {
        let is_loopback = crate::feed::is_loopback(&endpoint);
        if endpoint.scheme() != "https" && !(endpoint.scheme() == "http" && is_loopback) {
            return Err(OciSetupError(format!(
                "the endpoint {endpoint} must be https, or http on this machine"
            )));
        }
        let host = endpoint.host_str().unwrap_or_default();
        let host = endpoint.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut builder = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("polisen-events-collector/", env!("CARGO_PKG_VERSION")));
        if is_loopback {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| OciSetupError(innermost(&error)))?;
        let BucketPath { namespace, bucket, mut prefix } = path;
        if !prefix.is_empty() {
            prefix.push('/');
        }
        Ok(Self { client, clock, signer, endpoint, host, namespace, bucket, prefix })
    }

    fn objects_path(&self) -> String {
        format!("/n/{}/b/{}/o", self.namespace, self.bucket)
    }

    fn object_path(&self, key: &Key) -> String {
        let name = format!("{}{key}", self.prefix);
        format!("{}/{}", self.objects_path(), utf8_percent_encode(&name, NAME))
    }

    /// Makes a request, again if it had no effect and may pass (`again_in_doubt`: also if that is not certain).
    async fn request(&self, ask: &Ask<'_>, again_in_doubt: bool) -> Result<Answer, Failure> {
        let mut backoff = FIRST_BACKOFF;
        let mut tries = 0;
        loop {
            let failure = match self.ask_once(ask).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            tries += 1;
            let harmless = failure.had_no_effect() || again_in_doubt;
            if tries > RETRIES || !failure.may_pass() || !harmless {
                return Err(failure);
            }
            debug!(%failure, tries, wait_s = backoff.as_secs_f64(), "asking Object Storage again");
            self.clock.sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    async fn ask_once(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let unusable = |reason: String| Failure::Unusable { host: self.host.clone(), reason };
        let date = self.clock.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let method = ask.method.as_str().to_lowercase();
        let signed =
            Signed { method: &method, target: &ask.target, host: &self.host, date: &date, body: None };
        let mut authorization = HeaderValue::try_from(signed.authorization(&*self.signer)?)
            .map_err(|_| unusable("the name of the key is no header".to_owned()))?;
        authorization.set_sensitive(true);
        let url = self.endpoint.join(&ask.target).map_err(|error| unusable(error.to_string()))?;
        let mut request = self
            .client
            .request(ask.method.clone(), url)
            .header(DATE, &date)
            .header(AUTHORIZATION, authorization)
            .headers(ask.headers.clone());
        if let Some(body) = ask.body {
            request = request.body(body.to_vec());
        }
        let response = request.send().await.map_err(|error| self.judge(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if response.content_length().is_some_and(|size| size > LARGEST_OBJECT_BYTES) {
            return Err(unusable("it is larger than any object of an archive".to_owned()));
        }
        let body = response.bytes().await.map_err(|error| self.judge(&error))?.to_vec();
        if status.is_success() || ask.expected.contains(&status) && !is_missing_bucket(status, &body) {
            return Ok(Answer { status, headers, body });
        }
        Err(self.refused(status, &headers, &body))
    }

    fn judge(&self, error: &reqwest::Error) -> Failure {
        let (host, reason) = (self.host.clone(), innermost(error));
        if error.is_connect() {
            Failure::Connect { host, reason }
        } else {
            Failure::NoAnswer { host, reason }
        }
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        let told: ServiceError = serde_json::from_slice(body).unwrap_or_default();
        let hint = match status {
            StatusCode::UNAUTHORIZED => self.hint_at_skew(headers),
            _ => String::new(),
        };
        Failure::Service { status: status.as_u16(), code: told.code, message: told.message, hint }
    }

    /// A clock that is off is the commonest reason why a signature is not believed.
    fn hint_at_skew(&self, headers: &HeaderMap) -> String {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        let theirs = date.and_then(|date| httpdate::parse_http_date(date).ok()).map(DateTime::<Utc>::from);
        let ahead = theirs.map_or(TimeDelta::zero(), |theirs| self.clock.now() - theirs);
        let off = ahead.abs();
        if off < MOST_SKEW {
            return " (check user, tenancy, fingerprint and key)".to_owned();
        }
        let direction = if ahead > TimeDelta::zero() { "ahead" } else { "behind" };
        format!(" (this machine's clock is {} s {direction})", off.num_seconds())
    }

    fn write_outcome(answer: &Answer) -> Result<Write, Failure> {
        if !answer.status.is_success() {
            return Ok(Write::Refused);
        }
        version_of(&answer.headers).map(Write::Done)
    }

    async fn put(&self, key: &Key, bytes: &[u8], name: HeaderName, value: &str) -> Result<Write, Failure> {
        let condition = HeaderValue::try_from(value).map_err(|_| Failure::Unusable {
            host: self.host.clone(),
            reason: "its etag is no header".to_owned(),
        })?;
        let md5 = HeaderValue::try_from(BASE64.encode(Md5::digest(bytes)));
        let mut headers = HeaderMap::from_iter([(name, condition)]);
        headers.extend(md5.map(|md5| (HeaderName::from_static("content-md5"), md5)));
        let ask = Ask {
            method: Method::PUT,
            target: self.object_path(key),
            headers,
            body: Some(bytes),
            expected: &[StatusCode::PRECONDITION_FAILED, StatusCode::NOT_FOUND],
        };
        Self::write_outcome(&self.request(&ask, false).await?)
    }

    async fn read(&self, key: &Key) -> Result<Option<Object>, Failure> {
        let ask = Ask::plain(Method::GET, self.object_path(key), &[StatusCode::NOT_FOUND]);
        let answer = self.request(&ask, true).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(Object { version: version_of(&answer.headers)?, bytes: answer.body }))
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
            let answer = self.request(&Ask::plain(Method::GET, target, &[]), true).await?;
            let page: Page = serde_json::from_slice(&answer.body)
                .map_err(|error| Failure::Unusable { host: self.host.clone(), reason: error.to_string() })?;
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

/// A request before it is signed.
struct Ask<'a> {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Option<&'a [u8]>,
    /// Statuses that are answers and no failures.
    expected: &'a [StatusCode],
}

impl<'a> Ask<'a> {
    fn plain(method: Method, target: String, expected: &'a [StatusCode]) -> Self {
        Self { method, target, headers: HeaderMap::new(), body: None, expected }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ServiceError {
    code: String,
    message: String,
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

/// Whether a 404 speaks of the bucket and not of the object. Without a body it speaks of nothing.
fn is_missing_bucket(status: StatusCode, body: &[u8]) -> bool {
    status == StatusCode::NOT_FOUND
        && serde_json::from_slice::<ServiceError>(body).map_or(true, |told| told.code != "ObjectNotFound")
}

fn version_of(headers: &HeaderMap) -> Result<Version, Failure> {
    let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok());
    etag.map(|etag| Version(etag.to_owned()))
        .ok_or_else(|| Failure::Unusable { host: String::new(), reason: "it has no etag".to_owned() })
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[async_trait]
impl Store for OciStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.read(key).await.map_err(|failure| self.failed(Operation::Get, key.as_str(), failure))
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
        let deleted = self.request(&ask, true).await;
        deleted.map(drop).map_err(|failure| self.failed(Operation::Delete, key.as_str(), failure))
    }

    fn location(&self) -> String {
        format!("oci://{}/{}/{}", self.namespace, self.bucket, self.prefix).trim_end_matches('/').to_owned()
    }
}
