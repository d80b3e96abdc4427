//! What stores elsewhere have in common: how they may be called, and what time it is there.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{Stream, StreamExt as _};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, SERVER};
use reqwest::{Client, Url};
use thiserror::Error;
use tracing::warn;

pub(super) use crate::clock::ahead_of;
use crate::clock::{CLOCK_TOLERANCE, Clock, SharedClock};
use crate::http_phases::{self, Call, Phases};
use crate::quantity::{CallKind, Quantities, Quantity};
use crate::text::{printable, server_text, without_credentials};
use crate::tls;

const TIMEOUT: Duration = Duration::from_mins(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that nothing went over for so long is not used again: services close theirs after a minute, and a write that
/// meets the end of one has an unknown outcome.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// As many as `--parallel` usually asks for, twice.
const MOST_IDLE: usize = 32;

/// Largest object in bytes that is read. A day's events take a few hundred kilobytes, and what a run stores of one day is
/// divided long before this size.
pub const MAX_OBJECT_BYTES: u64 = 128 * 1024 * 1024;
/// Largest answer in bytes that is neither an object nor a listing: errors, credentials, secrets, metadata of an instance.
pub(super) const MAX_MESSAGE_BYTES: u64 = 1024 * 1024;

/// Why there can be no client.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct SetupError(pub(super) String);

/// Whether an address may be called: HTTPS, or HTTP on this machine.
pub(super) fn check_address(address: &Url) -> Result<(), SetupError> {
    if !address.username().is_empty() || address.password().is_some() {
        let shown = without_credentials(address.as_str()).into_owned();
        return Err(SetupError(format!("the endpoint {shown} must not hold a user name or password")));
    }
    let plain_here = address.scheme() == "http" && crate::feed::is_loopback(address);
    if address.scheme() == "https" || plain_here {
        return Ok(());
    }
    Err(SetupError(format!("the endpoint {address} must be https, or http on this machine")))
}

/// A client that does not follow redirects.
pub(super) fn http_client(address: &Url) -> Result<Client, SetupError> {
    let mut builder = Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MOST_IDLE)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(crate::feed::USER_AGENT);
    if crate::feed::is_loopback(address) {
        builder = builder.no_proxy();
    }
    let builder = tls::secure(http_phases::instrument(builder));
    builder.build().map_err(|error| SetupError(innermost(&error)))
}

/// How far this machine's clock is ahead of a server's, if the server says what time it is.
///
/// # Errors
/// A sentence if it cannot be reached.
pub async fn clock_ahead_of(address: &Url, clock: &dyn Clock) -> Result<Option<TimeDelta>, String> {
    let client = http_client(address).map_err(|error| error.to_string())?;
    let response = client.head(address.clone()).send().await.map_err(|error| innermost(&error))?;
    Ok(ahead_of(response.headers(), clock.now()))
}

/// What the answers of a service say about the service.
#[derive(Debug, Default)]
pub(super) struct Peer(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    server: Option<String>,
    clock_ahead: Option<TimeDelta>,
    has_warned: bool,
    calls: Quantities,
}

impl Peer {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the `Server` and `Date` headers of an answer that is the service's own.
    pub(super) fn note(&self, headers: &HeaderMap, now: DateTime<Utc>) {
        let mut seen = self.seen();
        let server = headers.get(SERVER).and_then(|server| server.to_str().ok());
        seen.server = server
            .map(|server| printable(server).to_string().chars().take(60).collect())
            .or(seen.server.take());
        seen.clock_ahead = ahead_of(headers, now).or(seen.clock_ahead);
        if let Some(ahead) = seen.clock_ahead
            && ahead.abs() > CLOCK_TOLERANCE
            && !seen.has_warned
        {
            seen.has_warned = true;
            warn!(ahead_s = ahead.num_seconds(), "the clocks of this machine and of the store disagree");
        }
    }

    /// Which service answers for a store: where it is, at which address, and with which software, if its answers name it.
    pub(super) fn fingerprint(&self, location: &str, endpoint: &str) -> String {
        let endpoint = endpoint.trim_end_matches('/');
        match &self.seen().server {
            Some(server) => format!("{location} at {endpoint} ({server})"),
            None => format!("{location} at {endpoint}"),
        }
    }

    /// Makes a call of a kind, up to the end of the response, and adds the time of its phases.
    pub(super) async fn measure<R, T, E>(
        &self,
        (clock, call): (&SharedClock, Call),
        kind: CallKind,
        send: impl Future<Output = Result<R, E>>,
        receive: impl AsyncFnOnce(R) -> Result<T, E>,
    ) -> Result<T, E> {
        let (head, mut phases) = call.send(send).await;
        let head_at = clock.elapsed();
        let result = match head {
            Ok(response) => receive(response).await,
            Err(error) => {
                phases.first_byte = None;
                Err(error)
            }
        };
        phases.body = result.is_ok().then(|| clock.since(head_at));
        self.note_call(kind, &phases);
        result
    }

    fn note_call(&self, kind: CallKind, phases: &Phases) {
        let calls = &mut self.seen().calls;
        calls.add(kind.calls(), 1_usize);
        calls.add(Quantity::StoreConnections, usize::from(phases.is_cold()));
        phases.add_to(calls, kind);
    }

    /// The number and the times of the calls since the last time that this was called.
    pub(super) fn take_calls(&self) -> Quantities {
        std::mem::take(&mut self.seen().calls)
    }

    /// How far this machine's clock was ahead of the service's at the last answer.
    pub(super) fn clock_ahead(&self) -> Option<TimeDelta> {
        self.seen().clock_ahead
    }
}

/// Why a body was not read.
#[derive(Debug, Error)]
pub(super) enum BodyError<E> {
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
    #[error(transparent)]
    Broken(E),
}

/// Reads a body, and no more of it than the limit.
pub(super) async fn read_bounded<B, E, S>(chunks: S, limit: u64) -> Result<Vec<u8>, BodyError<E>>
where
    B: AsRef<[u8]>,
    S: Stream<Item = Result<B, E>>,
{
    let mut chunks = std::pin::pin!(chunks);
    let mut body = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(BodyError::Broken)?;
        if (body.len() + chunk.as_ref().len()) as u64 > limit {
            return Err(BodyError::TooLarge(limit));
        }
        body.extend_from_slice(chunk.as_ref());
    }
    Ok(body)
}

/// Checks that an answer can be an object: proxies and captive portals answer with a page, also with status 200 and an `ETag`.
///
/// # Errors
/// What it is instead.
pub(super) fn check_object(headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let encoding = header(CONTENT_ENCODING);
    if !matches!(encoding, "" | "identity" | "aws-chunked") {
        return Err(format!("the object is encoded as `{}`, which was not asked for", server_text(encoding)));
    }
    let media_type = header(CONTENT_TYPE).to_ascii_lowercase();
    if media_type.starts_with("text/html") || media_type.starts_with("application/xhtml") || is_html(body) {
        return Err("the answer is an HTML page, as a proxy or a captive portal sends it".to_owned());
    }
    Ok(())
}

/// Checks the body of the answer to a write, which both APIs leave empty.
///
/// # Errors
/// What it is instead.
pub(super) fn check_written(body: &[u8]) -> Result<(), String> {
    if body.is_empty() {
        return Ok(());
    }
    let what = if is_html(body) { "an HTML page" } else { "a text" };
    Err(format!("the answer to a write is {what} of {} bytes instead of an empty one", body.len()))
}

/// Whether a body begins as an HTML page does.
pub(super) fn is_html(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    let begins =
        |with: &str| body.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()));
    begins("<!doctype html") || begins("<html")
}

/// The cause of the cause: what an error says without all that led to it.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, stream};

    use super::*;

    #[test]
    fn a_body_is_read_up_to_its_limit() {
        let read = |limit| {
            let chunks = stream::iter([Ok::<_, String>("abc"), Ok("def"), Err("not reached".to_owned())]);
            read_bounded(chunks, limit).now_or_never().unwrap()
        };
        assert!(matches!(read(5), Err(BodyError::TooLarge(5))));
        assert!(matches!(read(6), Err(BodyError::Broken(_))));
    }

    #[test]
    fn pages_are_recognized() {
        let page = |body: &str| is_html(body.as_bytes());
        assert!(page("<!DOCTYPE html><p>") && page("\u{feff}\n <HTML>") && page("<html lang=sv>"));
        assert!(!page("") && !page("<Error>") && !page("{\"id\":1}") && !page("htm"));
    }
}
