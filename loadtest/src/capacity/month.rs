//! A simulated month, at any rate up to the one it was made at.

use chrono::{DateTime, TimeDelta};
use fixtures::{FeedConfig, Movements, Traffic};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

use crate::scenario::BUFFER;

/// Polls lie at multiples of this.
const SLOT_S: i64 = 300;
/// Before the month, so that there are older events to be edited.
const LEAD_DAYS: u32 = 4;

/// Movements in slots of five minutes, in an order drawn by lot.
pub(super) struct Month {
    /// Events an hour and rate, times the highest rate, is what it was made at.
    highest_rate: f64,
    slots: usize,
    events: Vec<Slots>,
}

/// Slots of an event's publication and its edits; `u32::MAX` for none.
#[derive(Debug, Clone, Copy)]
struct Slots {
    published: u32,
    edited: [u32; 2],
}

impl Month {
    pub(super) fn make(traffic: Traffic, seed: u64, base_rate: f64, highest_rate: f64, days: u32) -> Self {
        let config = FeedConfig {
            seed,
            events_per_hour: base_rate,
            rate: highest_rate,
            traffic,
            ..FeedConfig::default()
        };
        let start = config.start;
        let until = start + TimeDelta::days(i64::from(days + LEAD_DAYS));
        let slot = |at: DateTime<chrono::Utc>| {
            u32::try_from((at - start).num_seconds() / SLOT_S).unwrap_or(u32::MAX - 1)
        };
        let slots_of = |Movements { published, edited }: Movements| Slots {
            published: slot(published),
            edited: edited.map(|at| at.map_or(u32::MAX, slot)),
        };
        let mut events: Vec<Slots> = fixtures::movements(&config, until).map(slots_of).collect();
        shuffle(&mut events, seed);
        let slots = usize::try_from((until - start).num_seconds() / SLOT_S).unwrap_or(0);
        Self { highest_rate, slots, events }
    }

    /// The highest rate at which no window holds more than the buffer.
    pub(super) fn max_rate(&self, interval: TimeDelta, missed_polls: u32) -> f64 {
        let polls = Polls::new(interval, missed_polls);
        let (mut sound, mut broken) = (0, self.events.len() + 1);
        // To a thousandth: a finer answer would be an answer about this month's luck.
        while broken - sound > 1 + sound / 1_000 {
            let middle = usize::midpoint(sound, broken);
            if middle <= self.events.len() && self.overflows(&self.events[..middle], polls) {
                broken = middle;
            } else if middle > self.events.len() {
                break;
            } else {
                sound = middle;
            }
        }
        self.highest_rate * sound as f64 / self.events.len().max(1) as f64
    }

    fn overflows(&self, events: &[Slots], polls: Polls) -> bool {
        let changes = self.changes(events, polls.window);
        let mut held = 0_i32;
        let most = i32::try_from(BUFFER).unwrap_or(i32::MAX);
        let first = usize::try_from(i64::from(LEAD_DAYS) * 86_400 / SLOT_S).unwrap_or(0);
        for (slot, change) in changes.iter().enumerate() {
            held += change;
            let is_polled = (slot + 1).is_multiple_of(polls.interval);
            if slot >= first && is_polled && held > most {
                return true;
            }
        }
        false
    }

    /// By how much the number of events that moved within the last `window` slots changes from slot to slot. One that
    /// moved twice counts once.
    fn changes(&self, events: &[Slots], window: usize) -> Vec<i32> {
        let mut changes = vec![0_i32; self.slots + 1];
        let mut add = |from: usize, until: usize| {
            if from < until && from < self.slots {
                changes[from] += 1;
                changes[until.min(self.slots)] -= 1;
            }
        };
        for event in events {
            let published = event.published as usize;
            let mut counted_until = published + window;
            add(published, counted_until);
            let mut edits = event.edited;
            edits.sort_unstable();
            for edited in edits.into_iter().filter(|edited| *edited != u32::MAX) {
                let edited = edited as usize;
                add(edited.max(counted_until), edited + window);
                counted_until = counted_until.max(edited + window);
            }
        }
        changes
    }

    /// How many places in the buffer an event takes in windows of this length, edits included.
    pub(super) fn movements_per_event(&self, interval: TimeDelta, missed_polls: u32) -> f64 {
        let window = Polls::new(interval, missed_polls).window;
        let some = &self.events[..self.events.len().min(200_000)];
        let (mut published, mut places) = (0_u64, 0_u64);
        for event in some {
            let mut counted_until = event.published as usize + window;
            published += window as u64;
            places += window as u64;
            let mut edits = event.edited;
            edits.sort_unstable();
            for edited in edits.into_iter().filter(|edited| *edited != u32::MAX) {
                let (from, until) = ((edited as usize).max(counted_until), edited as usize + window);
                places += until.saturating_sub(from) as u64;
                counted_until = counted_until.max(until);
            }
        }
        places as f64 / published.max(1) as f64
    }
}

/// Polls in slots.
#[derive(Debug, Clone, Copy)]
struct Polls {
    interval: usize,
    /// From one that is made to the next that is.
    window: usize,
}

impl Polls {
    fn new(interval: TimeDelta, missed_polls: u32) -> Self {
        let interval = usize::try_from(interval.num_seconds() / SLOT_S).unwrap_or(1).max(1);
        Self { interval, window: interval * (missed_polls as usize + 1) }
    }
}

fn shuffle(events: &mut [Slots], seed: u64) {
    let mut rng = Pcg64Mcg::seed_from_u64(seed ^ 0x5eed);
    for end in (1..events.len()).rev() {
        let below = u64::try_from(end + 1).unwrap_or(1);
        events.swap(end, usize::try_from(rng.next_u64() % below).unwrap_or(0));
    }
}
