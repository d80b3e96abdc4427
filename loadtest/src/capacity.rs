//! At which rate a feed's buffer overflows between two polls: by formula, and by simulated months.
//!
//! The simulation counts what comes to stand in front of the buffer (publications, and edits of older events) between
//! two polls. One month is made at the highest rate that can matter; a lower rate keeps each of its events with the
//! same chance, so that what holds at one rate holds at every lower one.

mod formula;
mod month;
mod tables;

use std::sync::Mutex;
use std::thread;

use anyhow::anyhow;
use chrono::TimeDelta;
use serde::Serialize;

use fixtures::FeedConfig;
pub use formula::{limit_with_chance, plain_limit};
use month::Outcome;
pub use tables::{MatrixRow, ResourceRow, matrix, resources};

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Question {
    /// Between two polls.
    pub intervals: Vec<TimeDelta>,
    /// Polls missed in a row, at the worst moment.
    pub missed_polls: Vec<u32>,
    /// Events an hour at rate 1.
    pub base_rate: f64,
    /// How long a simulated month is.
    pub days: u32,
    /// How many months are simulated for each rhythm.
    pub seeds: u64,
}

impl Default for Question {
    fn default() -> Self {
        Self {
            intervals: [5, 10, 15, 30, 60].map(TimeDelta::minutes).to_vec(),
            missed_polls: vec![0, 1, 2, 4],
            base_rate: fixtures::DOCUMENTED_EVENTS_PER_HOUR,
            days: 30,
            seeds: 3,
        }
    }
}

impl Question {
    /// The longest time between two polls of which the collector sees both; without a limit if it is beyond all bounds.
    #[must_use]
    pub fn longest_window(&self) -> Option<TimeDelta> {
        let missed = self.missed_polls.iter().max()?;
        let polls = i32::try_from(*missed).unwrap_or(i32::MAX).saturating_add(1);
        self.intervals.iter().map(|interval| interval.checked_mul(polls).unwrap_or(TimeDelta::MAX)).max()
    }

    /// How long a simulated month is.
    #[must_use]
    pub fn length(&self) -> TimeDelta {
        TimeDelta::days(i64::from(self.days))
    }
}

/// The highest rate at which nothing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limit {
    /// `flat` or `daily`.
    pub traffic: &'static str,
    /// Between two polls, in seconds.
    pub interval_s: i64,
    /// Polls missed in a row.
    pub missed_polls: u32,
    /// The buffer divided by the mean number of events between two polls: the documents' formula.
    pub max_rate_plain: f64,
    /// The same for events at random times (Poisson), and edits: exceeded in none of the simulated intervals with a
    /// probability of one half.
    pub max_rate_formula: f64,
    /// In the worst of the simulated months.
    pub max_rate_simulated: f64,
    /// By how much the rhythm lowers what the formula gives for an even flow, 0 to 1.
    pub lowered_by: f64,
}

/// Finds the limits. `progress` hears how many of how many months are done.
///
/// # Errors
/// If a simulation breaks off.
pub fn limits(question: &Question, progress: impl Fn() + Sync) -> anyhow::Result<Vec<Limit>> {
    let rhythms = [("flat", fixtures::Traffic::Flat), ("daily", fixtures::Traffic::Daily)];
    let months: Vec<(&'static str, fixtures::Traffic, u64)> = rhythms
        .into_iter()
        .flat_map(|(name, traffic)| (0..question.seeds).map(move |seed| (name, traffic, seed)))
        .collect();
    let next = Mutex::new(months.into_iter());
    let found: Mutex<Vec<Found>> = Mutex::default();
    let work = || {
        while let Some((name, traffic, seed)) = next.lock().ok().and_then(|mut next| next.next()) {
            let limits = limits_of_month(question, name, traffic, seed);
            if let Ok(mut found) = found.lock() {
                found.extend(limits);
            }
            progress();
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let found = found.into_inner().map_err(|_| anyhow!("a simulation broke off"))?;
    let mut limits = Vec::new();
    for (name, _) in rhythms {
        for &interval in &question.intervals {
            for &missed_polls in &question.missed_polls {
                let of_cell = found.iter().filter(|found| {
                    (found.traffic, found.interval, found.missed_polls) == (name, interval, missed_polls)
                });
                // What must hold in every month is what holds in the worst.
                let worst = of_cell.min_by(|one, other| one.max_rate.total_cmp(&other.max_rate));
                limits.extend(worst.map(|worst| limit(question, worst)));
            }
        }
    }
    Ok(limits)
}

#[derive(Debug, Clone, Copy)]
struct Found {
    traffic: &'static str,
    interval: TimeDelta,
    missed_polls: u32,
    max_rate: f64,
    /// Movements for each publication, as far as they count in a window of this length.
    movements_per_event: f64,
}

fn limits_of_month(
    question: &Question,
    name: &'static str,
    traffic: fixtures::Traffic,
    seed: u64,
) -> Vec<Found> {
    let cells = || {
        question
            .intervals
            .iter()
            .flat_map(|&interval| question.missed_polls.iter().map(move |&missed| (interval, missed)))
    };
    let highest = cells()
        .map(|(interval, missed)| plain_limit(question.base_rate, interval, missed))
        .fold(1.0, f64::max);
    let config = FeedConfig {
        seed,
        events_per_hour: question.base_rate,
        rate: highest,
        traffic,
        ..FeedConfig::default()
    };
    let outcomes = month::outcomes(&config, question.days, cells());
    let found = |((interval, missed_polls), outcome)| {
        let Outcome { max_rate, movements_per_event } = outcome;
        Found { traffic: name, interval, missed_polls, max_rate, movements_per_event }
    };
    cells().zip(outcomes).map(found).collect()
}

fn limit(question: &Question, worst: &Found) -> Limit {
    let Found { traffic, interval, missed_polls, max_rate, movements_per_event } = *worst;
    let plain = plain_limit(question.base_rate, interval, missed_polls);
    let months = question.seeds as f64 * f64::from(question.days) * 86_400.0;
    let windows = months / interval.num_seconds() as f64;
    let formula = limit_with_chance(plain, movements_per_event, windows);
    Limit {
        traffic,
        interval_s: interval.num_seconds(),
        missed_polls,
        max_rate_plain: plain,
        max_rate_formula: formula,
        max_rate_simulated: max_rate,
        lowered_by: 1.0 - max_rate / formula,
    }
}
