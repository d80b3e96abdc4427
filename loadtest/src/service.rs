//! The service for a long time: the real loop, its pages and a collector over HTTP, in virtual time.
//!
//! What is asked is whether it polls as often as it should and whether it grows. Memory is that of the whole process, so the feed,
//! which remembers all that it ever published, is in another one.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use collector::clock::{Clock as _, SharedClock, VirtualClock};
use collector::quantity::Quantity;
use collector::record::{Limits, resident_bytes};
use collector::run::RunReport;
use collector::watch::http::{self, Pages};
use collector::watch::poll_interval::PollInterval;
use collector::watch::schedule::Schedule;
use collector::watch::status::Status;
use collector::watch::{Command, Watch};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::unbounded_channel;

use crate::feed::web::{EVENTS_PATH, TIME_PATH};
use crate::process::peak_rss_bytes;
use crate::scenario::{BUFFER, Scenario, Setup, StoreKind};

/// How far from the grid polls lie at most, as in `collector watch` by default.
const JITTER: Duration = Duration::from_mins(1);
/// The service may have so much memory, in bytes.
pub const MOST_MEMORY: u64 = 24_000_000;

/// What is played.
#[derive(Debug, Clone)]
pub struct Life {
    /// For how long.
    pub days: u32,
    /// Between two polls.
    pub interval: Duration,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Lived {
    /// For how long.
    pub days: u32,
    /// Polls that were due.
    pub due: u64,
    /// Polls that were made.
    pub polls: u64,
    /// The farthest that two polls were from being an interval apart, in seconds.
    pub drift_s: f64,
    /// Polls that failed.
    pub failed: u64,
    /// Events published since the first poll.
    pub published: u64,
    /// Lines of the archive.
    pub stored: usize,
    /// Ids that stand in more than one line.
    pub duplicates: usize,
    /// Runs before which events may have been missed.
    pub possible_gaps: u64,
    /// Pages that were read, three after each poll.
    pub pages: u64,
    /// Memory after the first day, and then every 30 days, in bytes.
    pub rss_by_month_bytes: Vec<u64>,
    /// Memory in the end, in bytes.
    pub rss_bytes: u64,
    /// The most memory, in bytes.
    pub peak_rss_bytes: u64,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
}

impl Lived {
    /// Whether the service did what it should and stayed small.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.polls == self.due
            && self.drift_s < 1.0
            && self.duplicates == 0
            && self.possible_gaps == 0
            && self.peak_rss_bytes < MOST_MEMORY
    }
}

impl Life {
    /// How many polls are due, or one more.
    #[must_use]
    pub fn poll_count(&self) -> u64 {
        u64::from(self.days) * 86_400 / self.interval.as_secs()
    }
}

/// Simulates it on a feed whose time is set by requests ([`crate::feed::web::Served`] at speed 0). `progress` is called for each poll.
///
/// # Errors
/// If something cannot be set up, a page cannot be read, or the archive cannot.
pub async fn simulate(life: &Life, feed: &FeedService, progress: impl Fn()) -> anyhow::Result<Lived> {
    let began = Instant::now();
    let (start, published_before) = feed.status()?;
    let clock = Arc::new(VirtualClock::at(start));
    let shared: SharedClock = clock.clone();
    let local = Scenario { store: StoreKind::Local, ..Scenario::default() };
    let setup = Setup::new(&local, &feed.events_url(), Arc::clone(&shared)).await?;
    let status = Arc::new(Status::new(start, BUFFER, Limits::default())?);
    let pages = Pages {
        status: Arc::clone(&status),
        health_file: setup.collector.paths.health_file.clone(),
        clock: Arc::clone(&shared),
    };
    let server = http::start(([127, 0, 0, 1], 0).into(), pages).context("the pages cannot be shown")?;
    let address = server.address();

    let (commands, mut received) = unbounded_channel();
    let end = start + TimeDelta::days(life.days.into());
    let mut diary = Diary::default();
    let poll = async || {
        let now = clock.now();
        diary.begin(now, life.interval);
        let told_time = feed.advance_to(now);
        let report = setup.collector.run().await;
        diary.note(&report, now - start);
        if let Err(error) = told_time.and_then(|()| diary.read_pages(address)) {
            diary.broken.get_or_insert(error);
        }
        progress();
        if now + life.interval > end || diary.broken.is_some() {
            let _ = commands.send(Command::Stop);
        }
        report
    };
    let schedule = Schedule::new(life.interval, JITTER, "loadtest");
    let poll_interval = PollInterval::new(life.interval, false, BUFFER);
    Watch::new(shared, schedule, poll_interval, status, Some(start)).run(poll, &mut received).await;

    // Before the archive is read, which takes memory of its own.
    let (rss_bytes, peak_rss_bytes) = (resident_bytes().unwrap_or(0), peak_rss_bytes());
    if let Some(error) = diary.broken {
        return Err(error).context("feed or pages cannot be asked");
    }
    let stored = setup.stored_ids().await.context("the archive cannot be read")?;
    Ok(Lived {
        days: life.days,
        due: diary.first.map_or(0, |first| polls_until(end, first, life.interval)),
        polls: diary.polls,
        drift_s: diary.drift.as_seconds_f64(),
        failed: diary.failed,
        published: feed.status()?.1 - published_before,
        stored: stored.ids.len(),
        duplicates: stored.duplicates,
        possible_gaps: diary.possible_gaps,
        pages: diary.pages,
        rss_by_month_bytes: diary.rss_by_month,
        rss_bytes,
        peak_rss_bytes,
        elapsed_s: began.elapsed().as_secs_f64(),
    })
}

/// A feed that another process serves, whose time is set by requests.
#[derive(Debug, Clone, Copy)]
pub struct FeedService {
    address: SocketAddr,
}

impl FeedService {
    /// The feed at an address.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self { address }
    }

    fn events_url(&self) -> String {
        format!("http://{}{EVENTS_PATH}", self.address)
    }

    fn advance_to(&self, now: DateTime<Utc>) -> io::Result<()> {
        let now = now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        ask(self.address, "PUT", &format!("{TIME_PATH}?{now}"), &[204]).map(|_| ())
    }

    /// What time it is there, and how many events were published so far.
    fn status(&self) -> anyhow::Result<(DateTime<Utc>, u64)> {
        #[derive(Deserialize)]
        struct Status {
            virtual_time: DateTime<Utc>,
            published: u64,
        }
        let status: Status = serde_json::from_str(&ask(self.address, "GET", "/status", &[200])?)?;
        Ok((status.virtual_time, status.published))
    }
}

/// Asks for a page. Its body, if the status is one of these.
fn ask(address: SocketAddr, method: &str, path: &str, expected: &[u16]) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !status.is_some_and(|status| expected.contains(&status)) {
        return Err(io::Error::other(format!("{path}: {head}")));
    }
    Ok(body.to_owned())
}

/// How many polls fit, the first one included.
fn polls_until(end: DateTime<Utc>, first: DateTime<Utc>, interval: Duration) -> u64 {
    let after_first = (end - first).to_std().unwrap_or_default().as_millis() / interval.as_millis().max(1);
    after_first as u64 + 1
}

/// What was seen poll by poll.
#[derive(Default)]
struct Diary {
    first: Option<DateTime<Utc>>,
    last: Option<DateTime<Utc>>,
    drift: TimeDelta,
    polls: u64,
    failed: u64,
    possible_gaps: u64,
    pages: u64,
    broken: Option<io::Error>,
    rss_by_month: Vec<u64>,
}

impl Diary {
    fn begin(&mut self, now: DateTime<Utc>, interval: Duration) {
        self.first.get_or_insert(now);
        let planned = TimeDelta::from_std(interval).unwrap_or_default();
        if let Some(last) = self.last.replace(now) {
            self.drift = self.drift.max((now - last - planned).abs());
        }
    }

    fn note(&mut self, report: &RunReport, age: TimeDelta) {
        self.polls += 1;
        self.failed += u64::from(report.result.is_err());
        self.possible_gaps += u64::from(report.record.quantities.is_set(Quantity::PossibleGap));
        let months = i32::try_from(self.rss_by_month.len()).unwrap_or(i32::MAX);
        let due = if months == 0 { TimeDelta::days(1) } else { TimeDelta::days(30) * months };
        if age >= due {
            self.rss_by_month.push(resident_bytes().unwrap_or(0));
        }
    }

    /// Reads what a monitor and a person would. A run that failed makes the service unhealthy, and it says so.
    fn read_pages(&mut self, address: SocketAddr) -> io::Result<()> {
        for path in ["/metrics", "/health", "/"] {
            ask(address, "GET", path, &[200, 503])?;
            self.pages += 1;
        }
        Ok(())
    }
}
