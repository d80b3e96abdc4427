//! First step of a run: fetches one response.
//!
//! From the network it obeys the provider's rules: it sends a User-Agent with a contact, calls no more often than allowed, counted
//! over all processes of a machine, and stops for good after a 404. It never trusts what comes: the time,
//! the size and the encoding of a body are bounded before anything is kept. What the bytes mean is not
//! decided here.

pub(crate) mod body;
mod error;
pub(crate) mod http;
mod retry;
pub(crate) mod rules;
mod selection;

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::TimeDelta;
use reqwest::Url;

pub use crate::http_phases::Phases;
pub use error::{FeedError, FetchFailure};
pub use http::HttpFeed;
pub use rules::{CallLimits, CallLog};
pub use selection::{InvalidWhen, Selection, When};

use crate::clock::SharedClock;
use crate::files;
use crate::text::ParseError;

/// The address of the police's events.
pub const POLISEN_URL: &str = "https://polisen.se/api/events";
/// How long a FIFO or device in the place of a recorded response has to deliver it.
const FILE_PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of a body that are taken, decompressed.
pub const BODY_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// Where responses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An address: HTTPS, or HTTP on this machine.
    Http(Url),
    /// A recorded response.
    File(PathBuf),
    /// Standard input.
    StandardInput,
}

impl Source {
    /// Reads what a user wrote: `-`, an address, or else a path.
    ///
    /// # Errors
    /// A sentence about an address that must not be called.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text == "-" {
            return Ok(Self::StandardInput);
        }
        if !text.contains("://") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let url = Url::parse(text).map_err(|error| format!("it is not a valid address: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an address with a user name or password would end up in logs".into());
        }
        match url.scheme() {
            "https" => Ok(Self::Http(url)),
            "http" if is_loopback(&url) => Ok(Self::Http(url)),
            "http" => {
                Err("plain http is only taken for this machine (127.0.0.1, ::1, localhost); use https".into())
            }
            other => {
                Err(format!("`{other}` is not a supported scheme; use https, or a path without ://").into())
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => formatter.write_str(url.as_str()),
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::StandardInput => formatter.write_str("standard input"),
        }
    }
}

/// Whether an address names this machine and no other.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// How a feed is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedOptions {
    /// The User-Agent header.
    pub user_agent: String,
    /// Longest time for one call, body included.
    pub timeout: Duration,
    /// Longest time without a byte.
    pub idle_timeout: Duration,
    /// Whether compressed responses are asked for.
    pub compression: bool,
    /// How often a failed call is repeated.
    pub retries: u32,
    /// The wait before the first repetition; it doubles with each further one.
    pub backoff: Duration,
    /// How often may be called.
    pub limits: CallLimits,
    /// Where calls are counted; shared by all processes of this machine.
    pub state_dir: PathBuf,
    /// Call in spite of an earlier 404.
    pub force: bool,
    /// Distinguishes users of an address on this machine, where ports are used again: an answer 404 counts for one of them.
    pub instance: String,
}

/// The User-Agent header, unless another is configured.
pub const USER_AGENT: &str = concat!("polisen-events-collector/", env!("CARGO_PKG_VERSION"));

impl FeedOptions {
    /// The defaults of the program: three retries, compressed responses, no limits but those of the provider.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            user_agent: USER_AGENT.to_owned(),
            timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(10),
            compression: true,
            retries: 3,
            backoff: Duration::from_secs(1),
            limits: CallLimits::NONE,
            state_dir: state_dir.into(),
            force: false,
            instance: String::new(),
        }
    }
}

/// A response as it was fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The body, decompressed.
    pub body: Vec<u8>,
    /// How it was fetched, if from an address.
    pub http: Option<HttpReport>,
}

/// How a response was fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpReport {
    /// Calls made, repetitions included.
    pub attempts: u32,
    /// The last status, if there was one.
    pub status: Option<u16>,
    /// The body's content encoding, if there was one.
    pub encoding: Option<String>,
    /// Bytes of the body as they were sent.
    pub wire_bytes: u64,
    /// How far the clock of this machine was ahead of the server's, by the last answer that stated a time.
    pub clock_offset: Option<TimeDelta>,
    /// Where the time of the last call went.
    pub phases: Phases,
}

/// Something responses can be fetched from.
#[derive(Debug)]
pub enum Feed {
    /// An address.
    Http(Box<HttpFeed>),
    /// A recorded response.
    File(PathBuf),
    /// Standard input.
    StandardInput,
}

impl Feed {
    /// Prepares to fetch. Nothing is called yet.
    ///
    /// # Errors
    /// [`FeedError::Setup`] if no HTTP client can be made, for instance without root certificates.
    pub fn new(source: &Source, options: FeedOptions, clock: SharedClock) -> Result<Self, FeedError> {
        Ok(match source {
            Source::Http(url) => Self::Http(Box::new(HttpFeed::new(url.clone(), options, clock)?)),
            Source::File(path) => Self::File(path.clone()),
            Source::StandardInput => Self::StandardInput,
        })
    }

    /// The same feed, asked by its own filters. A recording has none.
    #[must_use]
    pub fn selecting(&self, selection: &Selection) -> Self {
        match self {
            Self::Http(feed) => Self::Http(Box::new(feed.selecting(selection))),
            Self::File(path) => Self::File(path.clone()),
            Self::StandardInput => Self::StandardInput,
        }
    }

    /// Where calls are counted and an answer HTTP 404 is remembered.
    #[must_use]
    pub fn state_dir(&self) -> Option<&Path> {
        match self {
            Self::Http(feed) => Some(feed.state_dir()),
            Self::File(_) | Self::StandardInput => None,
        }
    }

    /// Fetches one response.
    ///
    /// # Errors
    /// [`FetchFailure`] with the last error and what was done before it.
    pub async fn fetch(&self) -> Result<Fetched, FetchFailure> {
        match self {
            Self::Http(feed) => feed.fetch().await,
            Self::File(path) => {
                let (path, name) = (path.clone(), path.display().to_string());
                read_blocking(name, move || files::read_stream(&path, BODY_LIMIT_BYTES, FILE_PATIENCE)).await
            }
            Self::StandardInput => {
                read_blocking("standard input".to_owned(), || {
                    let mut body = Vec::new();
                    io::stdin().take(BODY_LIMIT_BYTES + 1).read_to_end(&mut body)?;
                    Ok(body)
                })
                .await
            }
        }
    }
}

async fn read_blocking(
    name: String,
    read: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
) -> Result<Fetched, FetchFailure> {
    let body = match tokio::task::spawn_blocking(read).await {
        Ok(Ok(body)) if body.len() as u64 > BODY_LIMIT_BYTES => Err(FeedError::TooLarge),
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if error.kind() == io::ErrorKind::FileTooLarge => Err(FeedError::TooLarge),
        Ok(Err(source)) => Err(FeedError::Read { name, source }),
        Err(error) => Err(FeedError::Read { name, source: error.into() }),
    };
    Ok(Fetched { body: body.map_err(FetchFailure::before_any_call)?, http: None })
}
