//! What can go wrong while fetching, and what is to be done about it.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::{BODY_LIMIT_BYTES, HttpReport};

/// Why a response could not be fetched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The file or standard input cannot be read.
    #[error("cannot read {name}: {source}")]
    Read {
        /// What was to be read.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No client could be made.
    #[error("cannot set up the HTTP client: {0}")]
    Setup(String),
    /// The name has no address.
    #[error("cannot find the address of {host}: {reason}")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// No connection.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// The host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// The other side is not who it should be, or speaks no TLS.
    #[error("no secure connection to {host}: {reason}")]
    Tls {
        /// The host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// Too slow as a whole, or silent for too long.
    #[error("the feed did not answer in time (limit {} s, or {} s without a byte)", .total.as_secs_f64(), .idle.as_secs_f64())]
    Timeout {
        /// The limit for the whole call.
        total: Duration,
        /// The limit without a byte.
        idle: Duration,
    },
    /// A status that is none of success.
    #[error("the feed answered HTTP {status}{}", hint_for(*.status))]
    Status {
        /// The status.
        status: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// A redirect that must not be followed.
    #[error("the feed redirects where it must not be followed: {0}")]
    Redirect(String),
    /// The connection ended inside the body.
    #[error("the response ended early: {0}")]
    Cut(String),
    /// The body is not compressed as it says.
    #[error("the response is not valid {encoding}: {reason}")]
    Encoding {
        /// The encoding that was stated.
        encoding: String,
        /// What is wrong.
        reason: String,
    },
    /// More than [`BODY_LIMIT_BYTES`].
    #[error("the response has more than {} MiB", BODY_LIMIT_BYTES / 1024 / 1024)]
    TooLarge,
    /// The call is not allowed now.
    #[error("the provider's limit is reached: {reason}; the next call is allowed in {} s", .wait.as_secs())]
    RateLimited {
        /// Which limit.
        reason: String,
        /// How long to wait.
        wait: Duration,
    },
    /// An earlier call was answered with 404.
    #[error(
        "the feed answered HTTP 404 at {since}, which its rules call permanent, so it is not called again; \
         check the address, then run once with --force"
    )]
    Gone {
        /// When.
        since: String,
    },
    /// The count of calls cannot be kept, so no call may be made.
    #[error("cannot count calls in {path}: {source}; choose another folder with --state-dir")]
    CallLog {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Anything else the client reports.
    #[error("the call failed: {0}")]
    Other(String),
}

fn hint_for(status: u16) -> &'static str {
    match status {
        403 => " (forbidden: it wants a User-Agent with a contact; see --contact)",
        404 => " (not found: its rules forbid further calls)",
        429 => " (too many calls)",
        _ => "",
    }
}

impl FeedError {
    /// A short name of the kind, for records.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Setup(_) => "setup",
            Self::Dns { .. } => "dns",
            Self::Connect { .. } => "connect",
            Self::Tls { .. } => "tls",
            Self::Timeout { .. } => "timeout",
            Self::Status { .. } => "http_status",
            Self::Redirect(_) => "redirect",
            Self::Cut(_) => "body_cut",
            Self::Encoding { .. } => "encoding",
            Self::TooLarge => "too_large",
            Self::RateLimited { .. } => "rate_limited",
            Self::Gone { .. } => "gone",
            Self::CallLog { .. } => "call_log",
            Self::Other(_) => "http",
        }
    }

    /// Whether another call may succeed soon.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Dns { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Cut(_)
            | Self::Other(_) => true,
            Self::Status { status, .. } => matches!(status, 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

/// The error that ended the attempts, and what was done before it.
#[derive(Debug, Error)]
#[error("{error}{}", after(.report.attempts))]
pub struct FetchFailure {
    /// The last error.
    #[source]
    pub error: FeedError,
    /// What was done.
    pub report: Box<HttpReport>,
}

fn after(attempts: u32) -> String {
    if attempts > 1 { format!(" (after {attempts} attempts)") } else { String::new() }
}

impl FetchFailure {
    pub(super) fn before_any_call(error: FeedError) -> Self {
        Self { error, report: Box::default() }
    }
}
