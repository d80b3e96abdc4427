//! Signed requests to one service, made again where that is harmless.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use chrono::TimeDelta;
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use thiserror::Error;
use tracing::{Instrument as _, debug};

use super::signature::{Body, SignError, Signed, Signer};
use crate::clock::SharedClock;
use crate::http_phases::Call;
use crate::http_span;
use crate::quantity::CallKind;
use crate::store::remote::{
    BodyError, MAX_MESSAGE_BYTES, Peer, SetupError, ahead_of, check_address, http_client, innermost, is_html,
    read_bounded,
};
use crate::text::{printable, server_text};

/// How often a request that had no effect is made again.
const RETRIES: u32 = 5;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// The clock may be off by so much before the service refuses to listen.
const MOST_SKEW: TimeDelta = TimeDelta::minutes(5);

/// Why a request had no result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Failure {
    /// The service says why.
    #[error("HTTP {status} {code}: {message}{hint}")]
    Service {
        /// The HTTP status.
        status: u16,
        /// The service's name for it.
        code: String,
        /// Its sentence.
        message: String,
        /// What may help, or under which id the service knows the request.
        hint: String,
    },
    /// No connection was made, so nothing was asked.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// Who was called.
        host: String,
        /// Why.
        reason: String,
    },
    /// Something was asked, and the answer did not come, or not whole.
    #[error("no answer from {host}: {reason}")]
    NoAnswer {
        /// Who was called.
        host: String,
        /// Why.
        reason: String,
    },
    /// The answer is not what the service gives.
    #[error("{host} gave an answer that cannot be used: {reason}")]
    Unusable {
        /// Who answered.
        host: String,
        /// Why.
        reason: String,
    },
    /// There are no credentials to sign with.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl Failure {
    /// A short name.
    fn kind(&self) -> &'static str {
        match self {
            Self::Service { .. } => "http_status",
            Self::Connect { .. } => "connect",
            Self::NoAnswer { .. } => "no_answer",
            Self::Unusable { .. } => "unusable",
            Self::Sign(_) => "sign",
        }
    }

    /// Whether it is certain that nothing was written.
    pub(super) fn had_no_effect(&self) -> bool {
        match self {
            Self::Service { status, .. } => *status < 500,
            Self::Connect { .. } | Self::Sign(_) => true,
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
            Self::Unusable { .. } | Self::Sign(_) => false,
        }
    }
}

/// A request before it is signed.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Body<'a>,
    /// Statuses that are answers and no failures.
    pub(super) expected: &'a [StatusCode],
    /// Maximum size of the body of a successful answer in bytes.
    pub(super) limit: u64,
}

impl<'a> Ask<'a> {
    pub(super) fn plain(method: Method, target: String, expected: &'a [StatusCode]) -> Self {
        Self {
            method,
            target,
            headers: HeaderMap::new(),
            body: Body::Empty,
            expected,
            limit: MAX_MESSAGE_BYTES,
        }
    }

    /// What the request is for.
    fn kind(&self) -> CallKind {
        match self.method {
            // Only a listing has a query.
            Method::GET if self.target.contains('?') => CallKind::StoreList,
            Method::GET | Method::HEAD => CallKind::StoreRead,
            _ => CallKind::StoreWrite,
        }
    }
}

/// An answer of the service.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// One service, called in somebody's name.
pub(super) struct Client {
    http: reqwest::Client,
    clock: SharedClock,
    signer: Arc<dyn Signer>,
    pub(super) endpoint: Url,
    pub(super) peer: Peer,
    /// As it stands in the `Host` header.
    pub(super) host: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Client({})", self.host)
    }
}

impl Client {
    /// A client. Nothing is asked yet.
    pub(super) fn new(
        endpoint: Url,
        signer: Arc<dyn Signer>,
        clock: SharedClock,
    ) -> Result<Self, SetupError> {
        check_address(&endpoint)?;
        let host = endpoint.host_str().unwrap_or_default();
        let host = endpoint.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { http: http_client(&endpoint)?, clock, signer, endpoint, peer: Peer::default(), host })
    }

    /// Makes a request, again if it had no effect and may pass (`again_in_doubt`: also if that is not certain).
    pub(super) async fn request(&self, ask: &Ask<'_>, again_in_doubt: bool) -> Result<Answer, Failure> {
        let mut backoff = FIRST_BACKOFF;
        let (mut tries, mut renewed) = (0, false);
        loop {
            let failure = match self.ask_traced(ask, tries + 1).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if matches!(failure, Failure::Service { status: 401, .. }) && !renewed {
                renewed = true;
                if self.signer.was_refused().await {
                    continue;
                }
            }
            tries += 1;
            let harmless = failure.had_no_effect() || again_in_doubt;
            if tries > RETRIES || !failure.may_pass() || !harmless {
                return Err(failure);
            }
            debug!(%failure, tries, wait_s = backoff.as_secs_f64(), host = %self.host, "asking again");
            self.clock.sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    async fn ask_traced(&self, ask: &Ask<'_>, attempt: u32) -> Result<Answer, Failure> {
        let url = self.endpoint.join(&ask.target);
        let span = http_span::of_call(ask.method.as_str(), url.as_ref().unwrap_or(&self.endpoint), attempt);
        let result = self.ask_once(ask).instrument(span.clone()).await;
        match &result {
            Ok(answer) => http_span::note_answer(&span, answer.status.as_u16()),
            Err(failure) => {
                if let Failure::Service { status, .. } = failure {
                    http_span::note_answer(&span, *status);
                }
                http_span::note_error(&span, failure.kind(), failure);
            }
        }
        result
    }

    async fn ask_once(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let unusable = |reason: String| Failure::Unusable { host: self.host.clone(), reason };
        let date = self.clock.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let method = ask.method.as_str().to_lowercase();
        let signed =
            Signed { method: &method, target: &ask.target, host: &self.host, date: &date, body: ask.body };
        let url = self.endpoint.join(&ask.target).map_err(|error| unusable(error.to_string()))?;
        let mut request = self
            .http
            .request(ask.method.clone(), url)
            .headers(ask.headers.clone())
            .headers(self.signer.sign(&signed).await?)
            .header(DATE, &date);
        if let Some(id) = request_id() {
            request = request.header(HeaderName::from_static("opc-client-request-id"), id);
        }
        let call = Call::new(&self.clock);
        if let Some(body) = ask.body.bytes() {
            request = request.body(call.body(body.to_vec()));
        }
        let send = async { request.send().await.map_err(|error| self.judge(&error)) };
        let receive = async |response: reqwest::Response| {
            let (status, headers) = (response.status(), response.headers().clone());
            let limit = if status.is_success() { ask.limit } else { MAX_MESSAGE_BYTES };
            let body = read_bounded(response.bytes_stream(), limit).await.map_err(|error| match error {
                BodyError::Broken(error) => self.judge(&error),
                BodyError::TooLarge(_) => unusable(error.to_string()),
            })?;
            Ok((status, headers, body))
        };
        let measured = self.peer.measure((&self.clock, call), ask.kind(), send, receive);
        let (status, headers, body) = measured.await?;
        self.sort(ask, status, headers, body)
    }

    /// Distinguishes the service's answers from its errors, and both from what others send in its place.
    fn sort(
        &self,
        ask: &Ask<'_>,
        status: StatusCode,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, Failure> {
        let unusable = |reason: String| Err(Failure::Unusable { host: self.host.clone(), reason });
        let code = serde_json::from_slice::<ServiceError>(&body).ok().map(|error| error.code);
        // The answer to HEAD has no body that could state what is missing.
        let states_code = ask.method == Method::HEAD || code.as_ref().is_some_and(|code| !code.is_empty());
        match status {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT if ask.method == Method::DELETE => {}
            _ if status.is_success() => {
                return unusable(format!("HTTP {status}, which is not an answer to this request"));
            }
            _ if status.is_redirection() => {
                return unusable(format!("HTTP {status}: the request is redirected, which is not followed"));
            }
            _ if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS && !states_code => {
                let what = if is_html(&body) { "with an HTML page" } else { "without an error code" };
                return unusable(format!("HTTP {status} {what}, which does not come from the service"));
            }
            StatusCode::NOT_FOUND if code.is_some_and(|code| code != "ObjectNotFound") => {
                return Err(self.refused(status, &headers, &body));
            }
            _ if ask.expected.contains(&status) => {}
            _ => return Err(self.refused(status, &headers, &body)),
        }
        self.peer.note(&headers, self.clock.now());
        Ok(Answer { status, headers, body })
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
        let error: ServiceError = serde_json::from_slice(body).unwrap_or_default();
        let id = headers.get("opc-request-id").and_then(|id| id.to_str().ok());
        let hint = match status {
            StatusCode::UNAUTHORIZED => self.hint_at_skew(headers),
            _ => id.map_or_else(String::new, |id| format!(" (request {:.120})", printable(id).to_string())),
        };
        let (code, message) = (server_text(&error.code), server_text(&error.message));
        Failure::Service { status: status.as_u16(), code, message, hint }
    }

    /// A wrong clock is the most frequent reason why a signature is refused.
    fn hint_at_skew(&self, headers: &HeaderMap) -> String {
        let ahead = ahead_of(headers, self.clock.now()).unwrap_or_else(TimeDelta::zero);
        if ahead.abs() < MOST_SKEW {
            return " (check user, tenancy, fingerprint and key)".to_owned();
        }
        let direction = if ahead > TimeDelta::zero() { "ahead" } else { "behind" };
        format!(" (this machine's clock is {} s {direction})", ahead.abs().num_seconds())
    }
}

/// A name for one request, by which the service's people can find it.
fn request_id() -> Option<HeaderValue> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).ok()?;
    HeaderValue::try_from(format!("{:032X}", u128::from_be_bytes(random))).ok()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ServiceError {
    code: String,
    message: String,
}
