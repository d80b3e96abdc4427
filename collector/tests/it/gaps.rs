//! `possible_gap` on a simulated feed: every loss is reported, at any rate and in any order of the response.
//!
//! A seed decides everything. `GAP_SEEDS` is the number of simulated feeds, `GAP_SEED` selects one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::env;
use std::fmt::Write as _;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use collector::event::{EventId, Fingerprint, Response};
use collector::ledger::{Classification, Comparison, Doubt, Ledger};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

const BUFFER: usize = 500;
const POLLS: usize = 40;
const SEEDS: u64 = 150;

/// In which order a response lists the events of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    NewestFirst,
    Reversed,
    Shuffled,
    IdAscending,
    IdDescending,
    DateAscending,
    /// What an earlier response held comes last, in random order.
    KnownLast,
    KnownFirst,
}

const ORDERS: [Order; 8] = [
    Order::NewestFirst,
    Order::Reversed,
    Order::Shuffled,
    Order::IdAscending,
    Order::IdDescending,
    Order::DateAscending,
    Order::KnownLast,
    Order::KnownFirst,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    id: u64,
    version: u32,
    minute: u32,
}

/// A feed that publishes, edits and withdraws; the buffer is in front of `shown`.
struct Feed {
    random: Pcg64Mcg,
    shown: VecDeque<Shown>,
    next_id: u64,
    minute: u32,
    /// Share of the changes that are edits, and of the edits that change the content.
    edits: f64,
    corrections: f64,
    withdrawals: f64,
    /// Published since the last settled response.
    unseen: BTreeSet<u64>,
    /// Neither edited nor withdrawn since the last settled response.
    in_place: BTreeSet<u64>,
}

impl Feed {
    fn new(seed: u64) -> Self {
        let mut feed = Self {
            random: Pcg64Mcg::seed_from_u64(seed),
            shown: VecDeque::new(),
            next_id: 1_000,
            minute: 0,
            edits: 0.0,
            corrections: 0.0,
            withdrawals: 0.0,
            unseen: BTreeSet::new(),
            in_place: BTreeSet::new(),
        };
        (feed.edits, feed.corrections) = (feed.unit() * 0.2, feed.unit());
        feed.withdrawals = feed.unit() * 0.02;
        feed.change(700);
        feed
    }

    fn unit(&mut self) -> f64 {
        f64::from(self.random.next_u32()) / f64::from(u32::MAX)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.next_u32()).unwrap() % bound.max(1)
    }

    fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// Advances by a number of changes.
    fn change(&mut self, changes: usize) {
        for _ in 0..changes {
            let kind = self.unit();
            if kind < self.withdrawals && self.shown.len() > BUFFER {
                // Only what was seen: an event that was withdrawn unseen cannot be reported.
                let place = self.below(BUFFER);
                if !self.unseen.contains(&self.shown[place].id) {
                    let gone = self.shown.remove(place).unwrap();
                    self.in_place.remove(&gone.id);
                }
            } else if kind < self.withdrawals + self.edits && !self.shown.is_empty() {
                self.edit();
            } else {
                // Ids are taken when writing begins, so they are a little out of order.
                let id = self.next_id * 8 + u64::try_from(self.below(160)).unwrap();
                self.next_id += 1;
                if self.shown.iter().all(|shown| shown.id != id) {
                    self.shown.push_front(Shown { id, version: 0, minute: self.minute });
                    self.unseen.insert(id);
                }
            }
            self.shown.truncate(4 * BUFFER);
        }
    }

    /// Moves an event to the front, or a few neighbours.
    fn edit(&mut self) {
        let place = self.below(self.shown.len());
        let neighbours = if self.chance(0.1) { 1 + self.below(4) } else { 1 };
        for _ in 0..neighbours {
            let Some(mut event) = self.shown.remove(place) else { return };
            event.version += u32::from(self.chance(self.corrections));
            self.in_place.remove(&event.id);
            self.shown.push_front(event);
        }
    }

    fn response(&mut self, order: Order, length: usize) -> Vec<Shown> {
        let mut events: Vec<Shown> = self.shown.iter().take(length).copied().collect();
        let shuffle = |events: &mut Vec<Shown>, feed: &mut Self| {
            for place in (1..events.len()).rev() {
                events.swap(place, feed.below(place + 1));
            }
        };
        match order {
            Order::NewestFirst => {}
            Order::Reversed => events.reverse(),
            Order::Shuffled => shuffle(&mut events, self),
            Order::IdAscending => events.sort_by_key(|event| event.id),
            Order::IdDescending => events.sort_by_key(|event| std::cmp::Reverse(event.id)),
            Order::DateAscending => events.sort_by_key(|event| event.minute),
            Order::KnownLast | Order::KnownFirst => {
                shuffle(&mut events, self);
                events.sort_by_key(|event| self.unseen.contains(&event.id) == (order == Order::KnownFirst));
            }
        }
        events
    }

    /// Whether an event left the buffer unseen.
    fn has_lost(&self, response: &[Shown]) -> bool {
        let present: BTreeSet<u64> = response.iter().map(|event| event.id).collect();
        self.unseen.iter().any(|id| !present.contains(id))
    }

    fn settled(&mut self, response: &[Shown]) {
        self.unseen.clear();
        self.in_place = response.iter().map(|event| event.id).collect();
    }
}

fn body(events: &[Shown], rejected: &[usize]) -> Vec<u8> {
    let day = NaiveDate::from_ymd_opt(2026, 1, 2).unwrap();
    let mut text = String::from("[");
    for (place, event) in events.iter().enumerate() {
        let at = day.and_hms_opt(0, 0, 0).unwrap() + TimeDelta::minutes(event.minute.into());
        if rejected.contains(&place) {
            write!(text, r#"{{"number":{}}},"#, event.id).unwrap();
        }
        write!(
            text,
            r#"{{"id":{},"datetime":"{} +01:00","summary":"{}"}},"#,
            event.id,
            at.format("%Y-%m-%d %H:%M:%S"),
            event.version
        )
        .unwrap();
    }
    text.pop();
    text.push(']');
    text.into_bytes()
}

/// The ledger of a collector, and what its archive holds.
struct Collector {
    ledger: Ledger,
    stored: BTreeMap<EventId, BTreeSet<Fingerprint>>,
    now: DateTime<Utc>,
}

impl Collector {
    fn new() -> Self {
        Self {
            ledger: Ledger::default(),
            stored: BTreeMap::new(),
            now: DateTime::from_timestamp(1_767_362_400, 0).unwrap(),
        }
    }

    /// Judges a response, stores what is new and commits. Whether a possible gap is reported.
    fn run(&mut self, body: &[u8], dies_before_its_commit: bool) -> bool {
        let response = Response::parse(body).unwrap();
        let mut classified = Classification::find(&response, &self.ledger, self.now);
        for doubtful in std::mem::take(&mut classified.doubtful) {
            let versions = self.stored.get(&doubtful.event.id);
            let comparison = match (versions, doubtful.doubt) {
                (None, Doubt::Late) => Comparison::New,
                (Some(versions), _) if versions.contains(&doubtful.event.fingerprint) => Comparison::Stored,
                _ => Comparison::Revised,
            };
            classified.settle(doubtful, comparison);
        }
        let gap = classified.possible_gap(&response, &self.ledger, BUFFER);
        for event in response.elements().iter().filter_map(|element| element.event.ok()) {
            self.stored.entry(event.id).or_default().insert(event.fingerprint);
        }
        if dies_before_its_commit {
            // The next run finishes the claim: it remembers what was written, and nothing else.
            for &position in &classified.events {
                self.ledger.remember(response.elements()[position].event.unwrap());
            }
        } else {
            self.ledger = classified.apply(&response, &self.ledger, self.now);
        }
        gap
    }

    /// Loses all of the ledger but the ids.
    fn forget_the_window(&mut self) {
        let mut ledger = Ledger::default();
        self.ledger.iter().for_each(|(id, _)| ledger.trust(id));
        self.ledger = ledger;
    }
}

#[derive(Debug, Default)]
struct Outcome {
    losses: usize,
    /// Losses that were not reported, by order.
    unreported: Vec<(Order, usize)>,
    /// Reports although an event of the last response had kept its place, by order.
    false_reports: Vec<(Order, usize)>,
}

fn simulate(seed: u64, orders: &[Order], rates: (f64, f64), disturbed: bool) -> Outcome {
    let mut feed = Feed::new(seed);
    let mut collector = Collector::new();
    let mut outcome = Outcome::default();
    let (mut was_settled, mut has_died, mut was_forgotten) = (false, false, false);
    let rate = rates.0 * (rates.1 / rates.0).powf(feed.unit());
    for poll in 0..POLLS {
        let minutes = 1 + feed.below(59);
        let changes = rate * 2.75 / 60.0 * f64::from(u32::try_from(minutes).unwrap()) * feed.unit() * 2.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
        feed.change((changes as usize).min(4 * BUFFER));
        feed.minute += u32::try_from(minutes).unwrap();
        collector.now += TimeDelta::minutes(i64::try_from(minutes).unwrap());
        if disturbed && feed.chance(0.15) {
            continue;
        }
        let order = orders[feed.below(orders.len())];
        let longer = if disturbed && feed.chance(0.1) { feed.below(300) } else { 0 };
        let mut response = feed.response(order, BUFFER + longer);
        if disturbed && feed.chance(0.1) {
            response.extend_from_within(response.len() - 50..);
        }
        let rejects = if disturbed && feed.chance(0.1) { feed.below(200) } else { 0 };
        let rejected: Vec<usize> = (0..rejects).map(|_| feed.below(response.len())).collect();
        let dies = disturbed && !was_forgotten && feed.chance(0.1);
        // No rebuilt ledger knows what a run that died before it had missed.
        if disturbed && !has_died && feed.chance(0.05) {
            collector.forget_the_window();
            was_forgotten = true;
        }
        let gap = collector.run(&body(&response, &rejected), dies);
        if dies {
            // Stored, but not settled: what was lost before it is still to be reported.
            has_died = true;
            continue;
        }
        if was_settled && feed.has_lost(&response) {
            outcome.losses += 1;
            if !gap {
                outcome.unreported.push((order, poll));
            }
        } else if gap && response.iter().any(|event| feed.in_place.contains(&event.id)) {
            outcome.false_reports.push((order, poll));
        }
        feed.settled(&response);
        (was_settled, has_died, was_forgotten) = (true, false, false);
    }
    outcome
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn seeds() -> std::ops::Range<u64> {
    number("GAP_SEED").map_or_else(|| 0..number("GAP_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1)
}

#[test]
fn every_loss_is_reported_in_any_order() {
    let mut losses = 0;
    for seed in seeds() {
        let outcome = simulate(seed, &ORDERS, (1.0, 10_000.0), true);
        assert!(outcome.unreported.is_empty(), "seed {seed}: {outcome:?}");
        losses += outcome.losses;
    }
    assert!(losses > 10 || number("GAP_SEED").is_some(), "{losses} losses");
}

#[test]
fn no_report_is_false_where_the_response_is_newest_first() {
    for seed in seeds() {
        let outcome = simulate(seed, &[Order::NewestFirst], (1.0, 100.0), false);
        assert!(outcome.false_reports.is_empty(), "seed {seed}: {outcome:?}");
    }
}

/// Ids of a response, and those of the next one; whether the next one reports a possible gap.
fn reports_gap(first: &[u64], next: &[u64]) -> bool {
    let shown = |ids: &[u64]| ids.iter().map(|&id| Shown { id, version: 0, minute: 0 }).collect::<Vec<_>>();
    let mut collector = Collector::new();
    collector.run(&body(&shown(first), &[]), false);
    collector.now += TimeDelta::minutes(30);
    collector.run(&body(&shown(next), &[]), false)
}

fn newest_first(ids: std::ops::Range<u64>) -> Vec<u64> {
    ids.rev().collect()
}

#[test]
fn order_decides_whether_few_known_events_reach_back() {
    let first = newest_first(1_000..1_500);
    let new = |count: u64| newest_first(2_000..2_000 + count);
    for (known, expected, why) in [
        (vec![1_499], false, "the newest known event is the last element"),
        (newest_first(1_495..1_500), false, "the newest known events are the last elements"),
        (vec![1_499, 1_498, 1_496, 1_495], false, "one of them was withdrawn"),
        (vec![1_498], true, "an edited event is the last element"),
        (vec![1_300, 1_499], true, "old events are sorted to the end"),
        (vec![1_490, 1_000], true, "an event that never leaves the end reaches nothing"),
        (newest_first(1_250..1_500), false, "half of the response is known and keeps its order"),
        ((0..250).map(|number| 1_000 + 2 * number).collect(), true, "half of the response was edited"),
    ] {
        let next = [new(500 - u64::try_from(known.len()).unwrap()), known].concat();
        assert_eq!(reports_gap(&first, &next), expected, "{why}");
        let reversed: Vec<u64> = next.iter().rev().copied().collect();
        assert!(reports_gap(&first, &reversed), "in another order: {why}");
    }
    let mostly_known: Vec<u64> = [new(100), newest_first(1_100..1_500)].concat();
    for next in [mostly_known.clone(), mostly_known.iter().rev().copied().collect()] {
        assert!(!reports_gap(&first, &next), "edits do not bring back four fifths");
    }
    let pinned = [vec![1_499], new(499)].concat();
    assert!(reports_gap(&first, &pinned), "one known event in front");
    let longer = [new(650), newest_first(1_450..1_500)].concat();
    assert!(reports_gap(&first, &longer), "longer than the buffer");
}
