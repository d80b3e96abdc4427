//! How often is polled: oftener when the feed's buffer runs full, less often while everything fails. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::summary::{Ended, RunSummary};

/// So many failures one after the other, and polls become rarer.
const FAILURES_BORNE: u32 = 3;
/// While everything fails, polls are never rarer than this: what is mended is to be noticed soon.
const RAREST: Duration = Duration::from_hours(2);
/// Polls are never made oftener by themselves than this: 30 an hour, half of what the provider allows.
const OFTENEST: Duration = Duration::from_mins(2);
/// What may be new in a poll, at most, before polls become oftener: half of the buffer.
const FULL: f64 = 0.5;
/// What may be new before they become rarer again.
const EMPTY: f64 = 0.125;
/// So many runs are remembered: a day of half hours.
const REMEMBERED: usize = 48;

/// How a run ended, as far as the pace is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// It succeeded.
    Well {
        /// Events of the response that were not known before.
        news: usize,
        /// Time since the run before that succeeded; none for the first.
        since: Option<Duration>,
    },
    /// It failed.
    Badly,
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
pub struct Pace {
    base: Duration,
    is_adaptive: bool,
    buffer: usize,
    oftenest: Duration,
    /// The base, or less while many events come.
    current: Duration,
    failures: u32,
    /// Events a second between polls, the latest last.
    rates: VecDeque<f64>,
}

impl Pace {
    /// A poll every `base`, for a feed that shows `buffer` events.
    #[must_use]
    pub fn new(base: Duration, is_adaptive: bool, buffer: usize) -> Self {
        let (oftenest, rates) = (OFTENEST, VecDeque::new());
        Self { base, is_adaptive, buffer, oftenest, current: base, failures: 0, rates }
    }

    /// The same, never oftener than the feed may be called.
    #[must_use]
    pub fn at_most_every(mut self, closest: Duration) -> Self {
        self.oftenest = self.oftenest.max(closest);
        self
    }

    /// Goes on after these runs, the latest first, as if it had seen them. Failures are left behind: whoever starts anew has
    /// mended something.
    #[must_use]
    pub fn after(mut self, runs: &[RunSummary]) -> Self {
        let good = || runs.iter().take(REMEMBERED).rev().filter(|run| run.ended == Ended::Success);
        for (before, run) in good().zip(good().skip(1)) {
            self.note(Ran::Well { news: run.new, since: (run.start - before.start).to_std().ok() });
        }
        self
    }

    /// The time between polls now, and why.
    #[must_use]
    pub fn interval(&self) -> (Duration, Reason) {
        if let Some(doublings) = self.failures.checked_sub(FAILURES_BORNE) {
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
        Duration::try_from_secs_f64(half / highest).unwrap_or(RAREST).min(RAREST)
    }

    #[expect(clippy::cast_precision_loss, reason = "a buffer has hundreds of events")]
    fn buffer_size(&self) -> f64 {
        self.buffer as f64
    }

    /// Takes a run into account.
    #[expect(clippy::cast_precision_loss, reason = "a response has hundreds of events")]
    pub fn note(&mut self, ran: Ran) {
        let Ran::Well { news, since } = ran else {
            self.failures = self.failures.saturating_add(1);
            return;
        };
        self.failures = 0;
        let Some(since) = since.filter(|since| !since.is_zero()) else { return };
        if self.rates.len() == REMEMBERED {
            self.rates.pop_front();
        }
        self.rates.push_back(news as f64 / since.as_secs_f64());
        if !self.is_adaptive {
            return;
        }
        // What would be new if as many came in the time that is planned now.
        let share = news as f64 / self.buffer_size() * self.current.as_secs_f64() / since.as_secs_f64();
        if share > FULL {
            let oftener = self.current / 2;
            self.current = oftener.max(self.oftenest.min(self.base));
        } else if share < EMPTY {
            self.current = (self.current * 2).min(self.base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_HOUR: Duration = Duration::from_mins(30);

    fn well(news: usize) -> Ran {
        Ran::Well { news, since: Some(HALF_HOUR) }
    }

    #[test]
    fn failures_make_polls_rarer_and_one_success_ends_that() {
        let mut pace = Pace::new(HALF_HOUR, false, 500);
        pace.note(well(2));
        for (failures, minutes) in [(1, 30), (2, 30), (3, 60), (4, 120), (5, 120), (60, 120)] {
            while pace.failures() < failures {
                pace.note(Ran::Badly);
            }
            assert_eq!(pace.interval().0, Duration::from_mins(minutes), "after {failures}");
        }
        assert_eq!(pace.interval().1, Reason::Failing);
        pace.note(well(2));
        assert_eq!(pace.interval(), (HALF_HOUR, Reason::AsConfigured));
    }

    #[test]
    fn they_never_become_so_rare_that_the_buffer_could_overflow() {
        for news in [1_u32, 20, 60, 124, 250, 500] {
            let mut pace = Pace::new(HALF_HOUR, false, 500);
            pace.note(well(news as usize));
            for _ in 0..20 {
                pace.note(Ran::Badly);
                let (interval, _) = pace.interval();
                let filled = f64::from(news) * interval.as_secs_f64() / HALF_HOUR.as_secs_f64();
                assert!(filled <= 250.001 || interval == HALF_HOUR, "{news}: {filled} in {interval:?}");
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
        let pace = Pace::new(HALF_HOUR, true, 500).after(&runs);
        assert_eq!((pace.interval(), pace.failures()), ((HALF_HOUR / 2, Reason::BufferFills), 0));
        let mut failing = Pace::new(HALF_HOUR, false, 500).after(&runs);
        (0..9).for_each(|_| failing.note(Ran::Badly));
        assert_eq!(failing.interval().0, HALF_HOUR, "250 events come in less than half an hour");
        assert_eq!(Pace::new(HALF_HOUR, true, 500).after(&[]).interval().0, HALF_HOUR);
    }

    #[test]
    fn a_buffer_that_fills_makes_polls_oftener_and_quiet_brings_them_back() {
        let mut pace = Pace::new(HALF_HOUR, true, 500);
        pace.note(well(200));
        assert_eq!(pace.interval(), (HALF_HOUR, Reason::AsConfigured));
        let mut steps = Vec::new();
        for _ in 0..6 {
            let since = pace.interval().0;
            pace.note(Ran::Well { news: 300, since: Some(since) });
            steps.push(pace.interval().0.as_secs());
        }
        assert_eq!(steps, [900, 450, 225, 120, 120, 120]);
        assert_eq!(pace.interval().1, Reason::BufferFills);
        for _ in 0..5 {
            let since = pace.interval().0;
            pace.note(Ran::Well { news: 3, since: Some(since) });
        }
        assert_eq!(pace.interval(), (HALF_HOUR, Reason::AsConfigured));
        let mut limited = Pace::new(HALF_HOUR, true, 500).at_most_every(Duration::from_mins(12));
        for _ in 0..3 {
            limited.note(Ran::Well { news: 400, since: Some(limited.interval().0) });
        }
        assert_eq!(limited.interval(), (Duration::from_mins(12), Reason::BufferFills));
        let mut fixed = Pace::new(HALF_HOUR, false, 500);
        fixed.note(well(400));
        assert_eq!(fixed.interval(), (HALF_HOUR, Reason::AsConfigured));
    }
}
