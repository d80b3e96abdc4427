//! What stores elsewhere have in common: how they may be called, and what time it is there.

use std::error::Error;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::{DATE, HeaderMap};
use reqwest::{Client, Url};
use thiserror::Error;

use crate::clock::Clock;

const TIMEOUT: Duration = Duration::from_mins(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that nothing went over for so long is not used again: services close theirs after a minute, and a write that
/// meets the end of one has an outcome that nobody knows.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// As many as `--parallel` usually asks for, twice.
const MOST_IDLE: usize = 32;

/// Why there can be no client.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct SetupError(pub(super) String);

/// Whether an address may be called: HTTPS, or HTTP on this machine.
pub(super) fn check_address(address: &Url) -> Result<(), SetupError> {
    let plain_here = address.scheme() == "http" && crate::feed::is_loopback(address);
    if address.scheme() == "https" || plain_here {
        return Ok(());
    }
    Err(SetupError(format!("the endpoint {address} must be https, or http on this machine")))
}

/// A client that follows nobody elsewhere.
pub(super) fn http_client(address: &Url) -> Result<Client, SetupError> {
    let mut builder = Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MOST_IDLE)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("polisen-events-collector/", env!("CARGO_PKG_VERSION")));
    if crate::feed::is_loopback(address) {
        builder = builder.no_proxy();
    }
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

/// How far a clock is ahead of the `Date` of an answer.
pub(super) fn ahead_of(headers: &HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let date = headers.get(DATE)?.to_str().ok()?;
    Some(now - DateTime::<Utc>::from(httpdate::parse_http_date(date).ok()?))
}

/// The cause of the cause: what an error says without all that led to it.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
