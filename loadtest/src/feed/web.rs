//! The feed as a server of its own, for any collector, with a page that shows how it is used.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, put};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::sleep_until;

use super::{Answer, Call, SimulatedFeed, Usage};

/// Where the events are.
pub const EVENTS_PATH: &str = "/api/events";
/// When an answer comes that is to come too late.
const SILENCE: Duration = Duration::from_mins(2);

/// Sets the time of a feed at speed 0: `PUT /time?2026-01-02T12:00:00Z`.
pub const TIME_PATH: &str = "/time";

/// A feed with a time of its own.
#[derive(Debug, Clone)]
pub struct Served {
    feed: SimulatedFeed,
    start: DateTime<Utc>,
    origin: Instant,
    speed: f64,
    set_time: Arc<Mutex<DateTime<Utc>>>,
}

/// What the page shows.
#[derive(Debug, Serialize)]
pub struct Status {
    /// What time it is at the feed.
    pub virtual_time: DateTime<Utc>,
    /// How many times faster its time passes.
    pub speed: f64,
    /// Events published since it was started.
    pub published: u64,
    /// Events that it shows now.
    pub buffer: usize,
    /// How it was used.
    #[serde(flatten)]
    pub usage: Usage,
    /// Calls that were refused.
    pub refusals: u64,
}

impl Served {
    /// A feed that begins now, at `start` in its own time, which passes `speed` times faster than real time; at speed 0 it
    /// stands at the time that was set.
    #[must_use]
    pub fn new(feed: SimulatedFeed, start: DateTime<Utc>, speed: f64) -> Self {
        Self { feed, start, origin: Instant::now(), speed, set_time: Arc::new(Mutex::new(start)) }
    }

    /// Its own time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let passed = self.origin.elapsed().as_secs_f64() * self.speed;
        let flown = self.start + TimeDelta::milliseconds((passed * 1e3) as i64);
        flown.max(*self.set_time.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets it be this late, if it is not later already.
    fn advance_to(&self, now: DateTime<Utc>) {
        let mut set_time = self.set_time.lock().unwrap_or_else(PoisonError::into_inner);
        *set_time = now.max(*set_time);
    }

    /// How it is used.
    #[must_use]
    pub fn status(&self) -> Status {
        let now = self.now();
        self.feed.advance_to(now);
        let usage = self.feed.usage();
        let (published, buffer) = self.feed.look(|source| (source.published(), source.ids().len()));
        let refusals = usage.anonymous + usage.too_often;
        Status { virtual_time: now, speed: self.speed, published, buffer, usage, refusals }
    }

    /// Serves until it is dropped.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let router = Router::new()
            .route(EVENTS_PATH, get(events))
            .route(TIME_PATH, put(set_time))
            .route("/status", get(async |State(served): State<Arc<Self>>| json(&served.status())))
            .route("/", get(async |State(served): State<Arc<Self>>| Html(page(&served.status()))))
            .with_state(Arc::new(self));
        axum::serve(listener, router).await
    }
}

async fn events(State(served): State<Arc<Served>>, uri: Uri, headers: HeaderMap) -> Response {
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let call = Call {
        user_agent: header(header::USER_AGENT),
        takes_gzip: header(header::ACCEPT_ENCODING).is_some_and(|encodings| encodings.contains("gzip")),
        query: uri.query().unwrap_or_default(),
    };
    match served.feed.answer(call, served.now()) {
        Answer::Events { body, gzip } => {
            let mut response = Response::new(Body::from(body.to_vec()));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if gzip {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        Answer::Refused { status, retry_after_s } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let wait = retry_after_s.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
            wait.map_or_else(|| status.into_response(), |wait| (status, wait).into_response())
        }
        // A body that breaks off: the connection is closed without what was announced.
        Answer::Reset => {
            let broken = io::Error::from(io::ErrorKind::ConnectionReset);
            Response::new(Body::from_stream(futures_util::stream::iter([Err::<Vec<u8>, _>(broken)])))
        }
        Answer::Silence => {
            sleep_until((Instant::now() + SILENCE).into()).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
    }
}

async fn set_time(State(served): State<Arc<Served>>, uri: Uri) -> StatusCode {
    let Some(time) = uri.query().and_then(|query| query.parse().ok()) else { return StatusCode::BAD_REQUEST };
    served.advance_to(time);
    StatusCode::NO_CONTENT
}

fn json(status: &Status) -> Response {
    let text = serde_json::to_string_pretty(status).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn page(status: &Status) -> String {
    let Status { virtual_time, speed, published, buffer, usage, refusals } = status;
    let rows = [
        ("time at the feed", virtual_time.format("%A %Y-%m-%d %H:%M:%S UTC").to_string()),
        ("passes", format!("{speed} times faster")),
        ("events published since the start", published.to_string()),
        ("events in the buffer", buffer.to_string()),
        ("calls", usage.calls.to_string()),
        ("responses", usage.responses.to_string()),
        ("bytes sent", usage.wire_bytes.to_string()),
        (
            "refused",
            format!(
                "{refusals}: {} without a contact (403), {} too many calls (429)",
                usage.anonymous, usage.too_often
            ),
        ),
        ("went wrong on purpose", usage.faults.to_string()),
    ];
    let mut table = String::new();
    for (name, value) in rows {
        let _ = write!(table, "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>A simulated feed</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"2\">\
         <style>:root{{color-scheme:light dark}}body{{font:16px/1.6 system-ui,sans-serif;margin:2rem}}\
         th{{text-align:left;font-weight:normal;padding-right:2rem}}td{{font-variant-numeric:tabular-nums}}</style>\
         </head><body><h1>A simulated feed</h1><p>Events are at <a href=\"{EVENTS_PATH}\">{EVENTS_PATH}</a>; \
         these values as JSON at <a href=\"/status\">/status</a>.</p><table>{table}</table></body></html>"
    )
}
