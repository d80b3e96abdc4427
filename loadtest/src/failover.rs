//! A drill: two simulated regions, a collector in the first one and a replica in the second. The first region fails at a random
//! moment in one of six ways; the second is promoted and collects; the first comes back, both are reconciled, and the roles are
//! exchanged again.
//!
//! All of it happens in virtual time, and follows from a seed. Requests are waited for one after the other, so the times are upper
//! bounds. Events are counted at the feed and in the objects, neither by what the collector reports.

mod drill;
mod region;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use anyhow::anyhow;
use chrono::TimeDelta;
use serde::Serialize;

pub use drill::Drilled;
pub use region::Failure;

/// Rates of the feed, and the interval at which each is polled.
pub const RATES: [(f64, TimeDelta); 3] =
    [(1.0, TimeDelta::minutes(30)), (10.0, TimeDelta::minutes(30)), (50.0, TimeDelta::minutes(15))];

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Number of drills; rates and failures take turns.
    pub seeds: u64,
    /// The first seed.
    pub first: u64,
    /// Events an hour at rate 1.
    pub base_rate: f64,
}

/// The drills of one rate and one failure.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// How many times more events than at the base rate.
    pub rate: f64,
    /// Between two polls, in seconds.
    pub interval_s: i64,
    /// How the region failed.
    pub failure: Failure,
    /// Number of drills with an outage within what the feed's buffer bears.
    pub drills: usize,
    /// Events that were lost in them.
    pub lost: usize,
    /// Events or versions that stand twice in an archive.
    pub duplicates: usize,
    /// Drills after which an archive is not sound, the roles could not be exchanged, or both do not hold the same.
    pub failed: usize,
    /// Drills in which both regions collected for a while.
    pub splits: usize,
    /// Age of the last commit of the replica when the region failed, in seconds: median and maximum.
    pub recovery_point_s: [f64; 2],
    /// Time of the promotion and the first run, in seconds: median and maximum.
    pub recovery_time_s: [f64; 2],
    /// Drills with a longer outage, in which events may leave the feed before they are seen.
    pub beyond: usize,
    /// Events that were lost in those.
    pub lost_beyond: usize,
    /// Those of them in which no run reported a possible gap although events were lost.
    pub unreported: usize,
}

/// What came of the drills.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// One row for each rate and failure.
    pub rows: Vec<Row>,
    /// What went wrong, by seed.
    pub faults: BTreeMap<u64, String>,
    /// Each drill.
    pub drills: Vec<Drilled>,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
}

impl Answer {
    /// Whether nothing was lost, stored twice or left in two.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Carries out the drills, as many at a time as there are processors. `progress` is called for each.
///
/// # Errors
/// If a drill cannot be carried out at all.
pub fn measure(question: &Question, progress: impl Fn() + Sync) -> anyhow::Result<Answer> {
    let began = std::time::Instant::now();
    let seeds = Mutex::new(question.first..question.first + question.seeds);
    let done = Mutex::new(Vec::new());
    let work = || {
        while let Some(seed) = seeds.lock().ok().and_then(|mut seeds| seeds.next()) {
            let result = drill_one(question, seed);
            if let Ok(mut done) = done.lock() {
                done.push(result);
            }
            progress();
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let done = done.into_inner().map_err(|_| anyhow!("a drill broke off"))?;
    let mut drills = done.into_iter().collect::<anyhow::Result<Vec<Drilled>>>()?;
    drills.sort_by_key(|drill| drill.seed);
    let faults = drills.iter().filter_map(|drill| Some((drill.seed, drill.fault()?))).collect();
    Ok(Answer { rows: rows(&drills), faults, drills, elapsed_s: began.elapsed().as_secs_f64() })
}

fn drill_one(question: &Question, seed: u64) -> anyhow::Result<Drilled> {
    let number = usize::try_from(seed)?;
    let (rate, interval) = RATES[number % RATES.len()];
    let failure = Failure::ALL[number / RATES.len() % Failure::ALL.len()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(drill::carry_out(seed, rate, question.base_rate, interval, failure))
}

fn rows(drills: &[Drilled]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (rate, interval) in RATES {
        for failure in Failure::ALL {
            let of_row = drills.iter().filter(|drill| {
                drill.interval_s == interval.num_seconds()
                    && drill.failure == failure
                    && (drill.rate - rate).abs() < f64::EPSILON
            });
            let (within, beyond): (Vec<&Drilled>, Vec<&Drilled>) = of_row.partition(|drill| drill.is_within);
            let sum = |drills: &[&Drilled], pick: fn(&Drilled) -> usize| -> usize {
                drills.iter().map(|drill| pick(drill)).sum()
            };
            rows.push(Row {
                rate,
                interval_s: interval.num_seconds(),
                failure,
                drills: within.len(),
                lost: sum(&within, |drill| drill.lost),
                duplicates: sum(&within, |drill| drill.duplicates),
                failed: within.iter().filter(|drill| !drill.problems.is_empty()).count(),
                splits: within.iter().filter(|drill| drill.split_commits > 0).count(),
                recovery_point_s: median_and_maximum(within.iter().map(|drill| drill.recovery_point_s)),
                recovery_time_s: median_and_maximum(within.iter().map(|drill| drill.recovery_time_s)),
                beyond: beyond.len(),
                lost_beyond: sum(&beyond, |drill| drill.lost),
                unreported: beyond.iter().filter(|drill| drill.lost > 0 && !drill.is_gap_reported).count(),
            });
        }
    }
    rows
}

fn median_and_maximum(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let median = values.get(values.len() / 2).copied().unwrap_or_default();
    [median, values.last().copied().unwrap_or_default()]
}
