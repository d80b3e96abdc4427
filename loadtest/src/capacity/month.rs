//! A simulated month, at any rate up to the one it was made at.
//!
//! Each event draws a priority: at a lower rate only those below a threshold are there. The 501st smallest priority of what
//! moved between two polls is therefore the rate at which that poll would miss something, and the smallest of them over all
//! polls is the answer. So one pass over the events is enough, and only what lies below the answer so far is held.

use std::collections::{BinaryHeap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use fixtures::{FeedConfig, Movements};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

use crate::scenario::BUFFER;

/// Polls lie at multiples of this.
const SLOT_S: i64 = 300;
/// Before the month, so that there are older events to be edited.
const LEAD_DAYS: u32 = 4;
/// About as many events decide how many places in the buffer an event takes.
const SAMPLE: f64 = 200_000.0;
/// The priorities of all events lie below.
const PRIORITIES: u64 = 1 << 32;

/// What a month shows of one interval and one number of missed polls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// The highest rate at which no window holds more than the buffer.
    pub(super) max_rate: f64,
    /// How many places in the buffer an event takes in windows of this length, edits included.
    pub(super) movements_per_event: f64,
}

/// The outcome of each of the cells (interval, missed polls) in a month that is made at the highest rate.
pub(super) fn outcomes(
    config: &FeedConfig,
    days: u32,
    cells: impl Iterator<Item = (TimeDelta, u32)>,
) -> Vec<Outcome> {
    let until = config.start + TimeDelta::days(i64::from(days + LEAD_DAYS));
    let slot = |at: DateTime<Utc>| usize::try_from((at - config.start).num_seconds() / SLOT_S).unwrap_or(0);
    let expected = config.events_per_hour * config.rate * 24.0 * f64::from(days + LEAD_DAYS);
    // A float beyond the largest whole number becomes that number.
    let sampled_below = (PRIORITIES as f64 * SAMPLE / expected.max(SAMPLE)) as u32;
    let mut watched: Vec<Watched> =
        cells.map(|(interval, missed)| Watched::new(interval, missed, slot(until))).collect();
    let mut rng = Pcg64Mcg::seed_from_u64(config.seed ^ 0x5eed);
    for Movements { begun, published, edited } in fixtures::movements(config, until) {
        let priority = rng.next_u32();
        let moved = Moved { published: slot(published), edited: edited.map(|at| at.map(slot)) };
        for cell in &mut watched {
            cell.close_before(slot(begun));
            cell.note(&moved, priority);
            if priority < sampled_below {
                cell.sample(&moved);
            }
        }
    }
    watched.iter().map(|cell| cell.outcome(config.rate)).collect()
}

/// Slots of an event's publication and its edits.
#[derive(Debug, Clone, Copy)]
struct Moved {
    published: usize,
    edited: [Option<usize>; 2],
}

impl Moved {
    /// The slots within `window` after a movement, each once.
    fn spans(&self, window: usize) -> impl Iterator<Item = (usize, usize)> {
        let mut moved = [Some(self.published), self.edited[0], self.edited[1]];
        moved.sort_unstable();
        let mut counted_until = 0;
        moved.into_iter().flatten().filter_map(move |at| {
            let from = at.max(counted_until);
            counted_until = at + window;
            (from < counted_until).then_some((from, counted_until))
        })
    }
}

/// The polls of one interval, of which some are missed.
#[derive(Debug)]
struct Watched {
    /// In slots.
    interval: usize,
    /// From a poll that is made to the next that is, in slots.
    window: usize,
    /// Polls before this number are not looked at.
    first: usize,
    /// Polls from this number on are not looked at.
    end: usize,
    /// The lowest priorities of what moved before each poll, from the poll `first` on.
    open: VecDeque<BinaryHeap<u32>>,
    /// The lowest priority at which a poll so far would miss something.
    limit: u64,
    sampled: usize,
    places: usize,
}

impl Watched {
    fn new(interval: TimeDelta, missed_polls: u32, slots: usize) -> Self {
        let interval = usize::try_from(interval.num_seconds() / SLOT_S).unwrap_or(1).max(1);
        let lead = usize::try_from(i64::from(LEAD_DAYS) * 86_400 / SLOT_S).unwrap_or(0);
        Self {
            interval,
            window: interval * (missed_polls as usize + 1),
            first: lead / interval,
            end: slots / interval,
            open: VecDeque::new(),
            limit: PRIORITIES,
            sampled: 0,
            places: 0,
        }
    }

    /// Forgets the polls before a slot, in front of which nothing moves any more.
    fn close_before(&mut self, slot: usize) {
        while (self.first + 1) * self.interval <= slot && self.first < self.end {
            self.open.pop_front();
            self.first += 1;
        }
    }

    fn note(&mut self, moved: &Moved, priority: u32) {
        if u64::from(priority) >= self.limit {
            return;
        }
        for (from, until) in moved.spans(self.window) {
            // The poll `n` is made at the end of its interval.
            let polls = (from / self.interval).max(self.first)..(until / self.interval).min(self.end);
            for poll in polls {
                self.note_before(poll - self.first, priority);
            }
        }
    }

    fn note_before(&mut self, poll: usize, priority: u32) {
        if self.open.len() <= poll {
            self.open.resize_with(poll + 1, BinaryHeap::new);
        }
        let lowest = &mut self.open[poll];
        lowest.push(priority);
        if lowest.len() > BUFFER + 1 {
            lowest.pop();
        }
        if lowest.len() > BUFFER
            && let Some(&highest) = lowest.peek()
        {
            self.limit = self.limit.min(u64::from(highest));
        }
    }

    fn sample(&mut self, moved: &Moved) {
        self.sampled += 1;
        self.places += moved.spans(self.window).map(|(from, until)| until - from).sum::<usize>();
    }

    fn outcome(&self, highest_rate: f64) -> Outcome {
        let published = self.sampled * self.window;
        Outcome {
            max_rate: highest_rate * self.limit as f64 / PRIORITIES as f64,
            movements_per_event: self.places as f64 / published.max(1) as f64,
        }
    }
}
