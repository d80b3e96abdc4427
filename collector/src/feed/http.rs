//! Calls an address, and calls again where that may help.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, StatusCode, Url};
use tracing::{Instrument as _, debug, warn};

use super::body::{self, BodyError};
use super::rules::CallLog;
use super::{FeedError, FeedOptions, FetchFailure, Fetched, HttpReport, Selection, is_loopback, retry};
use crate::clock::{SharedClock, ahead_of};
use crate::http_phases::{self, Call, DnsFailure};
use crate::{http_span, tls};

const MOST_REDIRECTS: usize = 3;
/// Longest wait for the provider's limits inside a run: the space between two calls, not an hour.
const LONGEST_WAIT_FOR_LIMITS: Duration = Duration::from_mins(1);

/// An address that is called by the provider's rules.
#[derive(Debug, Clone)]
pub struct HttpFeed {
    client: Client,
    url: Url,
    options: FeedOptions,
    log: CallLog,
    clock: SharedClock,
}

impl HttpFeed {
    pub(super) fn new(url: Url, options: FeedOptions, clock: SharedClock) -> Result<Self, FeedError> {
        let builder = Client::builder()
            .default_headers(headers(&options)?)
            .timeout(options.timeout)
            .read_timeout(options.idle_timeout)
            .connect_timeout(options.idle_timeout)
            .redirect(Policy::custom(follow));
        let mut builder = tls::secure(http_phases::instrument(builder));
        if is_loopback(&url) {
            // Never by way of a proxy, and `localhost` is this machine whatever a resolver says.
            let addresses =
                [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
            builder = builder.no_proxy().resolve_to_addrs("localhost", &addresses);
        }
        let client = builder.build().map_err(|error| FeedError::Setup(innermost(&error)))?;
        let log = CallLog::new(options.state_dir.clone(), options.limits, &url, &options.instance);
        Ok(Self { client, url, options, log, clock })
    }

    /// What is called.
    #[must_use]
    pub fn address(&self) -> &Url {
        &self.url
    }

    pub(super) fn state_dir(&self) -> &Path {
        &self.options.state_dir
    }

    /// The same feed and its connections, asked by its own filters.
    pub(super) fn selecting(&self, selection: &Selection) -> Self {
        let url = selection.address(&self.url);
        let options = self.options.clone();
        let log = CallLog::new(options.state_dir.clone(), options.limits, &url, &options.instance);
        Self { url, options, log, ..self.clone() }
    }

    /// Fetches one response, with repetitions.
    pub(super) async fn fetch(&self) -> Result<Fetched, FetchFailure> {
        let mut report = HttpReport::default();
        loop {
            if let Err(error) = self.wait_for_limits(report.attempts).await {
                return Err(FetchFailure { error, report: report.into() });
            }
            report.attempts += 1;
            let span = http_span::of_call("GET", &self.url, report.attempts);
            let result = self.call(&mut report).instrument(span.clone()).await;
            match &result {
                Ok(_) => http_span::note_answer(&span, report.status.unwrap_or_default()),
                Err(error @ FeedError::Status { status, .. }) => {
                    http_span::note_answer(&span, *status);
                    http_span::note_error(&span, error.kind(), error);
                }
                Err(error) => http_span::note_error(&span, error.kind(), error),
            }
            if let Err(error) = self.note_presence(&result) {
                warn!(%error, "whether the feed is there could not be noted");
            }
            let error = match result {
                Ok(body) => return Ok(Fetched { body, http: Some(report) }),
                Err(error) => error,
            };
            let wait = retry::wait_after(&error, report.attempts, self.options.retries, self.options.backoff);
            let Some(wait) = wait else {
                return Err(FetchFailure { error, report: report.into() });
            };
            warn!(attempt = report.attempts, cause = %error, wait_s = wait.as_secs_f64(), "the call failed; calling again");
            self.clock.sleep(wait).await;
        }
    }

    /// Waits until the provider's limits allow a call, and counts it.
    async fn wait_for_limits(&self, made: u32) -> Result<(), FeedError> {
        loop {
            let (log, now, force) = (self.log.clone(), self.clock.now(), self.options.force);
            let answer = tokio::task::spawn_blocking(move || log.try_call(now, force)).await;
            let wait = answer.map_err(|error| FeedError::Other(error.to_string()))??;
            let Some((wait, rule)) = wait else { return Ok(()) };
            if wait > LONGEST_WAIT_FOR_LIMITS {
                return Err(FeedError::RateLimited { reason: rule, wait });
            }
            debug!(made, %rule, wait_s = wait.as_secs_f64(), "waiting for the provider's limits");
            self.clock.sleep(wait).await;
        }
    }

    fn note_presence(&self, result: &Result<Vec<u8>, FeedError>) -> Result<(), FeedError> {
        match result {
            Ok(_) => self.log.note_found(),
            Err(FeedError::Status { status: 404, .. }) => self.log.note_gone(self.clock.now()),
            Err(_) => Ok(()),
        }
    }

    /// Calls once.
    async fn call(&self, report: &mut HttpReport) -> Result<Vec<u8>, FeedError> {
        let (sent, mut phases) = Call::new(&self.clock).send(self.client.get(self.url.clone()).send()).await;
        let head_at = self.clock.elapsed();
        let result = match sent {
            Ok(response) => self.take(response, report).await,
            Err(error) => {
                phases.first_byte = None;
                Err(self.judge(&error))
            }
        };
        phases.body = result.is_ok().then(|| self.clock.since(head_at));
        report.phases = phases;
        result
    }

    async fn take(&self, response: reqwest::Response, report: &mut HttpReport) -> Result<Vec<u8>, FeedError> {
        let status = response.status();
        report.status = Some(status.as_u16());
        report.clock_offset = ahead_of(response.headers(), self.clock.now()).or(report.clock_offset);
        if status != StatusCode::OK {
            let retry_after = retry_after(response.headers(), self.clock.now());
            return Err(FeedError::Status { status: status.as_u16(), retry_after });
        }
        let body = body::read(response).await.map_err(|error| match error {
            BodyError::Client(error) => self.judge(&error),
            BodyError::Feed(error) => error,
        })?;
        report.encoding = body.encoding;
        report.wire_bytes = body.wire_bytes;
        Ok(body.bytes)
    }

    /// Says in our words what the client reports. Its own words would name the address each time.
    fn judge(&self, error: &reqwest::Error) -> FeedError {
        let host = self.host();
        let reason = innermost(error);
        if error.is_timeout() {
            FeedError::Timeout { total: self.options.timeout, idle: self.options.idle_timeout }
        } else if error.is_redirect() {
            FeedError::Redirect(reason)
        } else if chain(error).any(<dyn Error>::is::<DnsFailure>) {
            FeedError::Dns { host: self.url.host_str().unwrap_or_default().to_owned(), reason }
        } else if error.is_connect() && chain(error).any(is_invalid_data) {
            FeedError::Tls { host, reason }
        } else if error.is_connect() {
            FeedError::Connect { host, reason }
        } else if error.is_body() || error.is_decode() {
            FeedError::Cut(reason)
        } else {
            FeedError::Other(reason)
        }
    }

    fn host(&self) -> String {
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", self.url.host_str().unwrap_or_default())
    }
}

fn headers(options: &FeedOptions) -> Result<HeaderMap, FeedError> {
    let user_agent = HeaderValue::from_str(&options.user_agent).map_err(|_| {
        FeedError::Setup("the User-Agent holds characters that no header may hold".to_owned())
    })?;
    let encodings = if options.compression { body::ACCEPT_ENCODING } else { "identity" };
    Ok(HeaderMap::from_iter([
        (reqwest::header::USER_AGENT, user_agent),
        (ACCEPT, HeaderValue::from_static("application/json")),
        (ACCEPT_ENCODING, HeaderValue::from_static(encodings)),
    ]))
}

/// Follows a redirect unless it leaves the secure connection or there were too many.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let to = attempt.url();
    let insecure = to.scheme() != "https" && !is_loopback(to);
    let downgraded =
        attempt.previous().last().is_some_and(|from| from.scheme() == "https") && to.scheme() != "https";
    if insecure || downgraded {
        return attempt.error("it leads from https to http");
    }
    if attempt.previous().last().is_some_and(|from| from.scheme() != to.scheme()) {
        return attempt.error("it leads from this machine to another one");
    }
    if attempt.previous().len() > MOST_REDIRECTS {
        return attempt.error("there are too many redirects in a row");
    }
    attempt.follow()
}

/// `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some((DateTime::<Utc>::from(date) - now).to_std().unwrap_or_default())
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        // An input/output error passes over the one that it wraps when it is asked for its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map_or_else(|| error.source(), |wrapped| Some(wrapped))
    })
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// How the TLS library's errors come out of the connector.
fn is_invalid_data(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData)
}
