//! The interval between polls: shorter when the feed's buffer fills, longer while everything fails. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::summary::{Ended, RunSummary};

/// Number of consecutive failures after which polls become rarer.
const MAX_FAILURES: u32 = 3;
/// While everything fails, polls are never rarer than this: what is mended is to be noticed soon.
const MAX_INTERVAL: Duration = Duration::from_hours(2);
/// Minimum interval that is chosen automatically: 30 polls an hour, half of what the provider allows.
const MIN_INTERVAL: Duration = Duration::from_mins(2);
/// Maximum share of new events in a poll before polls become more frequent: half of the buffer.
const FULL: f64 = 0.5;
/// What may be new before they become rarer again.
const EMPTY: f64 = 0.125;
/// Number of runs that are remembered: a day of half hours.
const REMEMBERED: usize = 48;

/// How a run ended, as far as the poll interval is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOutcome {
    /// It succeeded.
    Succeeded {
        /// Events of the response that were not known before.
        new_events: usize,
        /// Time since the run before that succeeded; none for the first.
        since: Option<Duration>,
    },
    /// It failed.
    Failed,
}

/// Why the time between polls is not the one that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is the one that was asked for.
    AsConfigured,
    /// Many events came between two polls.
    BufferFills,
    /// Polls fail one after the other.
    Failing,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Plan {
    /// When the next poll is.
    pub next_poll: DateTime<Utc>,
    /// The time between two polls now, in seconds.
    pub interval_s: f64,
    /// Why it is that.
    pub reason: Reason,
    /// Polls that failed one after the other.
    pub failures: u32,
}

/// The pace of polls.
#[derive(Debug, Clone)]
pub struct PollInterval {
    base: Duration,
    is_adaptive: bool,
    buffer: usize,
    minimum: Duration,
    /// The base, or less while many events come.
    current: Duration,
    failures: u32,
    /// Events a second between polls, the latest last.
    rates: VecDeque<f64>,
}

impl PollInterval {
    /// A poll every `base`, for a feed that shows `buffer` events.
    #[must_use]
    pub fn new(base: Duration, is_adaptive: bool, buffer: usize) -> Self {
        let (minimum, rates) = (MIN_INTERVAL, VecDeque::new());
        Self { base, is_adaptive, buffer, minimum, current: base, failures: 0, rates }
    }

    /// The same, never more often than the feed may be called.
    #[must_use]
    pub fn at_most_every(mut self, closest: Duration) -> Self {
        self.minimum = self.minimum.max(closest);
        self
    }

    /// Continues after these runs, the latest first, as if it had seen them. Failures are left behind: whoever starts anew has
    /// mended something.
    #[must_use]
    pub fn after(mut self, runs: &[RunSummary]) -> Self {
        let good = || runs.iter().take(REMEMBERED).rev().filter(|run| run.ended == Ended::Success);
        for (before, run) in good().zip(good().skip(1)) {
            self.note(RunOutcome::Succeeded {
                new_events: run.new,
                since: (run.start - before.start).to_std().ok(),
            });
        }
        self
    }

    /// The time between polls now, and why.
    #[must_use]
    pub fn interval(&self) -> (Duration, Reason) {
        if let Some(doublings) = self.failures.checked_sub(MAX_FAILURES) {
            let rarer = self.current.saturating_mul(2_u32.saturating_pow(doublings.min(16) + 1));
            let interval = rarer.min(self.longest_safe()).max(self.current);
            if interval > self.current {
                return (interval, Reason::Failing);
            }
        }
        if self.current < self.base {
            return (self.current, Reason::BufferFills);
        }
        (self.current, Reason::AsConfigured)
    }

    /// What comes next, if that is at `next_poll`.
    #[must_use]
    pub fn plan(&self, next_poll: DateTime<Utc>) -> Plan {
        let (interval, reason) = self.interval();
        Plan { next_poll, interval_s: interval.as_secs_f64(), reason, failures: self.failures }
    }

    /// Failures one after the other.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The longest time in which half the buffer would not fill at the highest rate of the last day.
    fn longest_safe(&self) -> Duration {
        let highest = self.rates.iter().copied().fold(0.0, f64::max);
        let half = self.buffer_size() / 2.0;
        Duration::try_from_secs_f64(half / highest).unwrap_or(MAX_INTERVAL).min(MAX_INTERVAL)
    }

    #[expect(clippy::cast_precision_loss, reason = "a buffer has hundreds of events")]
    fn buffer_size(&self) -> f64 {
        self.buffer as f64
    }

    /// Takes a run into account.
    #[expect(clippy::cast_precision_loss, reason = "a response has hundreds of events")]
    pub fn note(&mut self, ran: RunOutcome) {
        let RunOutcome::Succeeded { new_events, since } = ran else {
            self.failures = self.failures.saturating_add(1);
            return;
        };
        self.failures = 0;
        let Some(since) = since.filter(|since| !since.is_zero()) else { return };
        if self.rates.len() == REMEMBERED {
            self.rates.pop_front();
        }
        self.rates.push_back(new_events as f64 / since.as_secs_f64());
        if !self.is_adaptive {
            return;
        }
        // What would be new if as many came in the time that is planned now.
        let share = new_events as f64 / self.buffer_size() * self.current.as_secs_f64() / since.as_secs_f64();
        if share > FULL {
            let shorter = self.current / 2;
            self.current = shorter.max(self.minimum.min(self.base));
        } else if share < EMPTY {
            self.current = (self.current * 2).min(self.base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_HOUR: Duration = Duration::from_mins(30);

    fn well(new_events: usize) -> RunOutcome {
        RunOutcome::Succeeded { new_events, since: Some(HALF_HOUR) }
    }

    #[test]
    fn failures_make_polls_rarer_and_one_success_ends_that() {
        let mut poll_interval = PollInterval::new(HALF_HOUR, false, 500);
        poll_interval.note(well(2));
        for (failures, minutes) in [(1, 30), (2, 30), (3, 60), (4, 120), (5, 120), (60, 120)] {
            while poll_interval.failures() < failures {
                poll_interval.note(RunOutcome::Failed);
            }
            assert_eq!(poll_interval.interval().0, Duration::from_mins(minutes), "after {failures}");
        }
        assert_eq!(poll_interval.interval().1, Reason::Failing);
        poll_interval.note(well(2));
        assert_eq!(poll_interval.interval(), (HALF_HOUR, Reason::AsConfigured));
    }

    #[test]
    fn they_never_become_so_rare_that_the_buffer_could_overflow() {
        for new_events in [1_u32, 20, 60, 124, 250, 500] {
            let mut poll_interval = PollInterval::new(HALF_HOUR, false, 500);
            poll_interval.note(well(new_events as usize));
            for _ in 0..20 {
                poll_interval.note(RunOutcome::Failed);
                let (interval, _) = poll_interval.interval();
                let filled = f64::from(new_events) * interval.as_secs_f64() / HALF_HOUR.as_secs_f64();
                assert!(filled <= 250.001 || interval == HALF_HOUR, "{new_events}: {filled} in {interval:?}");
            }
        }
    }

    #[test]
    fn a_restart_goes_on_at_the_pace_that_the_last_runs_ask_for() {
        let run = |minute: i64, ended: Ended| RunSummary {
            start: DateTime::from_timestamp(1_767_362_400 + 60 * minute, 0).unwrap_or_default(),
            total_s: 1.0,
            ended,
            error: None,
            events: Some(500),
            new: 300,
            revised: 0,
            rejected: 0,
            overlap: Some(200),
            possible_gap: false,
            sparse: false,
        };
        let runs = [(45, Ended::Failed), (30, Ended::Success), (0, Ended::Success)];
        let runs = runs.map(|(minute, ended)| run(minute, ended));
        let poll_interval = PollInterval::new(HALF_HOUR, true, 500).after(&runs);
        assert_eq!(
            (poll_interval.interval(), poll_interval.failures()),
            ((HALF_HOUR / 2, Reason::BufferFills), 0)
        );
        let mut failing = PollInterval::new(HALF_HOUR, false, 500).after(&runs);
        (0..9).for_each(|_| failing.note(RunOutcome::Failed));
        assert_eq!(failing.interval().0, HALF_HOUR, "250 events come in less than half an hour");
        assert_eq!(PollInterval::new(HALF_HOUR, true, 500).after(&[]).interval().0, HALF_HOUR);
    }

    #[test]
    fn a_buffer_that_fills_makes_polls_oftener_and_quiet_brings_them_back() {
        let mut poll_interval = PollInterval::new(HALF_HOUR, true, 500);
        poll_interval.note(well(200));
        assert_eq!(poll_interval.interval(), (HALF_HOUR, Reason::AsConfigured));
        let mut steps = Vec::new();
        for _ in 0..6 {
            let since = poll_interval.interval().0;
            poll_interval.note(RunOutcome::Succeeded { new_events: 300, since: Some(since) });
            steps.push(poll_interval.interval().0.as_secs());
        }
        assert_eq!(steps, [900, 450, 225, 120, 120, 120]);
        assert_eq!(poll_interval.interval().1, Reason::BufferFills);
        for _ in 0..5 {
            let since = poll_interval.interval().0;
            poll_interval.note(RunOutcome::Succeeded { new_events: 3, since: Some(since) });
        }
        assert_eq!(poll_interval.interval(), (HALF_HOUR, Reason::AsConfigured));
        let mut limited = PollInterval::new(HALF_HOUR, true, 500).at_most_every(Duration::from_mins(12));
        for _ in 0..3 {
            limited.note(RunOutcome::Succeeded { new_events: 400, since: Some(limited.interval().0) });
        }
        assert_eq!(limited.interval(), (Duration::from_mins(12), Reason::BufferFills));
        let mut fixed = PollInterval::new(HALF_HOUR, false, 500);
        fixed.note(well(400));
        assert_eq!(fixed.interval(), (HALF_HOUR, Reason::AsConfigured));
    }
}
