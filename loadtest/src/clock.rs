//! A clock for polls in virtual time: the time of day jumps from poll to poll and past every wait, but how long
//! things take is measured.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use collector::clock::Clock;

/// The clock that collector and feed share.
#[derive(Debug)]
pub struct PollClock {
    now: Mutex<DateTime<Utc>>,
    origin: Instant,
}

impl PollClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: DateTime<Utc>) -> Self {
        Self { now: Mutex::new(now), origin: Instant::now() }
    }

    /// Lets it be this late, if it is not later already.
    pub fn advance_to(&self, now: DateTime<Utc>) {
        let mut shown = self.state();
        *shown = now.max(*shown);
    }

    fn state(&self) -> MutexGuard<'_, DateTime<Utc>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for PollClock {
    fn now(&self) -> DateTime<Utc> {
        *self.state()
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        *self.state() += duration;
    }
}
