//! The one place that knows what time it is. Passed in, so that a month can pass in a second.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::header::{AGE, DATE, HeaderMap};

/// The largest difference between two clocks that is not reported. A time that is later than now by more is in the future.
pub const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(2);

/// A source of time.
#[async_trait]
pub trait Clock: Debug + Send + Sync {
    /// The time of day, as the machine believes it; may jump.
    fn now(&self) -> DateTime<Utc>;

    /// Time since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;

    /// Time since a moment of [`Clock::elapsed`].
    fn since(&self, moment: Duration) -> Duration {
        self.elapsed().saturating_sub(moment)
    }

    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// A time as Python's `datetime.isoformat()` writes it, always with microseconds.
#[must_use]
pub fn iso(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, false)
}

/// How far a clock is ahead of an HTTP server's: of the `Date` of its answer, plus the `Age` of one from a cache.
pub(crate) fn ahead_of(headers: &HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let text = |name| headers.get(name)?.to_str().ok();
    let date = DateTime::<Utc>::from(httpdate::parse_http_date(text(DATE)?).ok()?);
    let age_s: u32 = text(AGE).and_then(|age| age.trim().parse().ok()).unwrap_or(0);
    Some(now - date - TimeDelta::seconds(age_s.into()))
}

/// A clock that several steps share.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { origin: Instant::now() }
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that stands still until somebody waits: then it jumps to the end of the wait.
///
/// For imports, where each response is a run at its own time, and for tests of what waits.
#[derive(Debug)]
pub struct VirtualClock {
    now: std::sync::Mutex<(DateTime<Utc>, Duration)>,
}

impl VirtualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: DateTime<Utc>) -> Self {
        Self { now: std::sync::Mutex::new((now, Duration::ZERO)) }
    }

    /// Sets the time of day.
    pub fn set(&self, now: DateTime<Utc>) {
        self.state().0 = now;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (DateTime<Utc>, Duration)> {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> DateTime<Utc> {
        self.state().0
    }

    fn elapsed(&self) -> Duration {
        self.state().1
    }

    async fn sleep(&self, duration: Duration) {
        let mut state = self.state();
        state.0 += duration;
        state.1 += duration;
    }
}
