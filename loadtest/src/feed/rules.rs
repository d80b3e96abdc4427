//! The provider's rules: 10 s between two calls, 60 an hour, 1,440 a day.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

const LEAST_GAP: TimeDelta = TimeDelta::seconds(10);
const LIMITS: [(TimeDelta, usize); 2] = [(TimeDelta::hours(1), 60), (TimeDelta::days(1), 1_440)];

/// Counts calls and says which come too soon.
#[derive(Debug)]
pub(super) struct Rules {
    /// The calls of the last day that were let through.
    calls: VecDeque<DateTime<Utc>>,
    apply: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { calls: VecDeque::new(), apply: true }
    }
}

impl Rules {
    pub(super) fn none() -> Self {
        Self { apply: false, ..Self::default() }
    }

    /// How long a call now would have to wait; nothing if it is let through, and then it counts.
    pub(super) fn wait(&mut self, now: DateTime<Utc>) -> Option<TimeDelta> {
        if !self.apply {
            return None;
        }
        while self.calls.front().is_some_and(|call| now - *call >= TimeDelta::days(1)) {
            self.calls.pop_front();
        }
        let free_again = |(span, most): (TimeDelta, usize)| {
            let oldest = self.calls.len().checked_sub(most).and_then(|index| self.calls.get(index));
            oldest.map(|call| *call + span)
        };
        let after_gap = self.calls.back().map(|call| *call + LEAST_GAP);
        let free = LIMITS.into_iter().filter_map(free_again).chain(after_gap).max();
        if let Some(free) = free.filter(|free| *free > now) {
            return Some(free - now);
        }
        self.calls.push_back(now);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_lie_ten_seconds_apart_and_an_hour_holds_sixty() {
        let mut rules = Rules::default();
        let at = |second: i64| DateTime::from_timestamp(second, 0).unwrap();
        assert_eq!(rules.wait(at(0)), None);
        assert_eq!(rules.wait(at(9)), Some(TimeDelta::seconds(1)));
        for call in 1..60 {
            assert_eq!(rules.wait(at(call * 10)), None);
        }
        assert_eq!(rules.wait(at(600)), Some(TimeDelta::seconds(3_000)));
        assert_eq!(rules.wait(at(3_600)), None);
    }
}
