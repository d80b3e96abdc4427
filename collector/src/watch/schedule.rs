//! When the next poll is due. Pure: times are passed in.
//!
//! Polls lie on a grid of the time of day in UTC, so that a restart does not shift them and summer time does not exist. Where on
//! the grid's first interval an installation lies follows from its name, so that many do not call at the same instant (as
//! `FixedRandomDelay=` of systemd.timer). What was missed, by sleep or outage, is made up for once, at once.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use twox_hash::XxHash3_64;

/// A moment by both clocks: the time of day, which may jump, and the time since some moment, which stands still while the
/// machine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The time of day.
    pub now: DateTime<Utc>,
    /// [`crate::clock::Clock::elapsed`].
    pub elapsed: Duration,
}

/// A grid of polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    interval: Duration,
    phase: Duration,
}

/// Polls closer than this are one: the provider's least time between two calls.
const CLOSEST: Duration = Duration::from_secs(10);

impl Schedule {
    /// Every `interval` (at least a second), as early or late as `name` says, but no more than `jitter`.
    #[must_use]
    pub fn new(interval: Duration, jitter: Duration, name: &str) -> Self {
        let interval = interval.max(Duration::from_secs(1));
        let most = millis(jitter.min(interval)).max(1);
        let phase = XxHash3_64::oneshot(name.as_bytes()) % most.cast_unsigned();
        Self { interval, phase: Duration::from_millis(phase) }
    }

    /// The time between two polls.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// The same grid, so much wider or closer.
    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        Self { interval, phase: self.phase.min(interval) }
    }

    /// How long to wait for the next poll after the last one; nothing if it is due.
    #[must_use]
    pub fn wait(&self, last: Option<Moment>, at: Moment) -> Duration {
        let Some(last) = last else { return Duration::ZERO };
        let passed = at.elapsed.saturating_sub(last.elapsed);
        // By a clock that was set back the last poll would lie in the future: then the other clock knows when it was. After a
        // sleep it is the other way round.
        let last_at = last.now.min(at.now - delta(passed));
        let slot = self.slot_before(at.now);
        if slot > last_at {
            return CLOSEST.min(self.interval / 2).saturating_sub(passed);
        }
        let next = slot + delta(self.interval);
        (next - at.now).to_std().unwrap_or_default().max(Duration::from_millis(1))
    }

    /// Whether a place of the grid lies behind a poll and before now.
    #[must_use]
    pub fn is_overdue(&self, last: Moment, at: Moment) -> bool {
        self.slot_before(at.now) > last.now
    }

    /// When the next poll is, by the time of day.
    #[must_use]
    pub fn next(&self, last: Option<Moment>, at: Moment) -> DateTime<Utc> {
        at.now + delta(self.wait(last, at))
    }

    /// The last place of the grid that is not after a time.
    fn slot_before(&self, time: DateTime<Utc>) -> DateTime<Utc> {
        let since = time.timestamp_millis() - millis(self.phase);
        time - TimeDelta::milliseconds(since.rem_euclid(millis(self.interval).max(1)))
            - TimeDelta::microseconds(i64::from(time.timestamp_subsec_micros() % 1_000))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALF_HOUR: Duration = Duration::from_mins(30);

    /// A machine whose clocks and sleep are ours.
    struct Machine {
        schedule: Schedule,
        at: Moment,
        last: Option<Moment>,
        /// When it polled: time of day, and real time since the start.
        polls: Vec<(DateTime<Utc>, Duration)>,
        real: Duration,
    }

    impl Machine {
        fn new(start: &str) -> Self {
            let schedule = Schedule::new(HALF_HOUR, Duration::from_mins(5), "test");
            let at = Moment { now: start.parse().unwrap(), elapsed: Duration::ZERO };
            Self { schedule, at, last: None, polls: Vec::new(), real: Duration::ZERO }
        }

        fn pass(&mut self, time: Duration) {
            self.at.now += time;
            self.at.elapsed += time;
            self.real += time;
        }

        /// Works as the service does: a poll takes a while, waits are cut into pieces.
        fn work_for(&mut self, time: Duration) {
            let end = self.real + time;
            while self.real < end {
                let wait = self.schedule.wait(self.last, self.at);
                if wait.is_zero() {
                    self.polls.push((self.at.now, self.real));
                    self.last = Some(self.at);
                    self.pass(Duration::from_millis(1_234));
                } else {
                    self.pass(wait.min(Duration::from_secs(15)).min(end.saturating_sub(self.real)));
                }
            }
        }

        fn gaps(&self) -> Vec<Duration> {
            self.polls.windows(2).map(|pair| pair[1].1.saturating_sub(pair[0].1)).collect()
        }
    }

    fn hours(hours: u64) -> Duration {
        Duration::from_hours(hours)
    }

    #[test]
    fn a_week_has_336_polls_that_do_not_drift_also_over_the_change_to_summer_time() {
        let mut machine = Machine::new("2026-03-25T00:00:00Z");
        machine.last = Some(machine.at);
        machine.work_for(hours(168));
        assert_eq!(machine.polls.len(), 336);
        assert!(machine.gaps().iter().all(|gap| gap.abs_diff(HALF_HOUR) < Duration::from_secs(1)));
        let first = machine.polls[0].0;
        let last = machine.polls[335].0;
        assert!(((last - first) - delta(HALF_HOUR * 335)).abs() < TimeDelta::seconds(1));
    }

    #[test]
    fn a_restart_does_not_shift_the_polls() {
        let mut machine = Machine::new("2026-01-02T00:00:00Z");
        machine.work_for(hours(2));
        let before = machine.polls.last().unwrap().0;
        // The new process polls at once if it does not know of the last one, and then on the same grid.
        machine.last = None;
        machine.work_for(hours(2));
        let grid = |time: DateTime<Utc>| time.timestamp().rem_euclid(1_800);
        assert_eq!(grid(machine.polls.last().unwrap().0), grid(before));
    }

    #[test]
    fn a_clock_set_back_by_an_hour_neither_doubles_nor_delays_a_poll() {
        for minutes in [60, 17, 1, 61, 600] {
            let mut machine = Machine::new("2026-01-02T00:00:00Z");
            machine.work_for(Duration::from_mins(100));
            machine.at.now -= TimeDelta::minutes(minutes);
            machine.work_for(hours(24));
            let gaps = machine.gaps();
            assert!(gaps.iter().all(|gap| *gap <= HALF_HOUR + Duration::from_secs(1)), "{minutes}: {gaps:?}");
            assert!(
                gaps.iter().filter(|gap| **gap < Duration::from_mins(29)).count() <= 3,
                "{minutes}: {gaps:?}"
            );
        }
    }

    #[test]
    fn after_a_sleep_of_eight_hours_one_poll_comes_at_once() {
        let mut machine = Machine::new("2026-01-02T00:00:00Z");
        machine.work_for(Duration::from_mins(100));
        let polls = machine.polls.len();
        machine.at.now += TimeDelta::hours(8);
        machine.real += hours(8);
        let woken = machine.real;
        machine.work_for(hours(1));
        assert!(machine.polls[polls].1.saturating_sub(woken) < Duration::from_secs(1));
        assert_eq!(machine.polls.len(), polls + 3);
    }

    proptest! {
        /// Whatever clocks do: as long as the machine is awake, polls are never further apart than the interval, and never
        /// closer than the provider allows.
        #[test]
        fn polls_keep_their_distance(jumps in proptest::collection::vec((1_u64..200, -40_000_i64..40_000), 1..20), minutes in 1_u64..120) {
            let mut machine = Machine::new("2026-01-02T00:00:00Z");
            machine.schedule = machine.schedule.every(Duration::from_mins(minutes));
            for (work, jump) in jumps {
                machine.work_for(Duration::from_mins(work));
                machine.at.now += TimeDelta::seconds(jump);
            }
            for gap in machine.gaps() {
                assert!(gap <= machine.schedule.interval() + Duration::from_secs(2), "{gap:?}");
                assert!(gap >= CLOSEST, "{gap:?}");
            }
        }
    }
}
