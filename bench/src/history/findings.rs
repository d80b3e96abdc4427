//! What changed in a history and is not accepted: steps and drift of benches, counts that rose, benches that vanished.
//!
//! Steps come from [`collector::analysis::change_points`], drift from the test of Mann and Kendall with the median of slopes
//! (`collector::analysis::statistics`). A series that climbs evenly is a drift and not a staircase: of the two models, the one
//! counts that leaves less unexplained for its number of parameters (Schwarz's criterion).

use chrono::{DateTime, Utc};
use collector::analysis::change_points::{ChangePoint, Retest, Settings, change_points};
use collector::analysis::statistics::{slope, trend};
use serde::Serialize;

use super::measurement::{Blessing, Measurement};
use super::series::{Series, series};
use super::storage::History;
use crate::counts::{CountChange, changes};
use crate::gate::work_tree::{Commit, short};

/// The error of each bench is this much, divided among the points and the benches.
const ERROR: f64 = 0.001;
/// Smaller steps are ignored.
const LEAST_STEP: f64 = 0.005;
/// A smaller drift, over the whole series, is ignored.
const LEAST_DRIFT: f64 = 0.01;
/// A level between two steps that lasts fewer revisions is ignored.
const LEAST_LENGTH: usize = 5;
/// A blessing covers a step that is found within this number of measured revisions: where a step lies is not known better.
const REACH: usize = 2;

/// What kind of change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Another level from one revision on.
    Step,
    /// A little at each revision.
    Drift,
    /// A count that rose.
    Count,
    /// A bench or count that is not measured any more.
    Vanished,
}

/// A change.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Which bench or count.
    pub bench: String,
    /// Which kind.
    pub kind: Kind,
    /// The relative change: 0.02 for 2 % slower; nothing for what vanished.
    pub change: Option<f64>,
    /// The p-value; 0 for what is counted.
    pub p_value: f64,
    /// The last revision before the change.
    pub from: Commit,
    /// The first revision after it.
    pub to: Commit,
    /// When `to` was made, for charts.
    pub time: DateTime<Utc>,
    /// Why it is accepted, if it is.
    pub blessed: Option<String>,
}

impl Finding {
    /// Whether it fails a check.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.blessed.is_none() && self.change.is_none_or(|change| change > 0.0)
    }

    /// It in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { bench, kind, change, from, to, .. } = self;
        let change = change.map_or_else(String::new, |change| format!("{:+.2} % ", change * 100.0));
        let place = format!("between {} and {}", short(&from.id), short(&to.id));
        let what = match kind {
            Kind::Step => format!("a step of {change}{place} ({})", to.subject),
            Kind::Drift => format!("a drift of {change}{place}"),
            Kind::Count => format!("a count, {change}{place} ({})", to.subject),
            Kind::Vanished => format!("vanished {place} ({})", to.subject),
        };
        let blessed =
            self.blessed.as_ref().map_or_else(String::new, |reason| format!(", accepted: {reason}"));
        format!("{bench}: {what}{blessed}")
    }
}

/// A change of a series of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// From an index on.
    Step {
        /// The first point of the new level.
        index: usize,
        /// The relative change.
        change: f64,
        /// By Student's t test.
        p_value: f64,
    },
    /// Over the whole series.
    Drift {
        /// The relative change from the first point to the last.
        change: f64,
        /// By the test of Mann and Kendall.
        p_value: f64,
    },
}

/// The changes of a series of log-ratios, when a number of series is looked at together.
#[must_use]
pub fn changes_of(logs: &[f64], series: usize) -> Vec<Change> {
    let max_p_value = (ERROR / (logs.len().max(10) * series.max(1)) as f64).min(1e-5);
    let settings = Settings {
        windows: vec![100, 800],
        max_p_value,
        min_magnitude: LEAST_STEP,
        min_length: LEAST_LENGTH,
        retest: Retest::BothSides,
    };
    let ratios: Vec<f64> = logs.iter().map(|log| log.exp()).collect();
    let steps = change_points(&ratios, &settings);
    let points: Vec<(f64, f64)> = logs.iter().enumerate().map(|(index, &log)| (index as f64, log)).collect();
    if let (Some(p_value), Some([_, slope, _])) = (trend(logs), slope(&points)) {
        let change = (slope * logs.len().saturating_sub(1) as f64).exp_m1();
        let line = rest_of_line(&points, slope);
        let is_drift = p_value < max_p_value
            && change.abs() >= LEAST_DRIFT
            && (steps.is_empty()
                || criterion(line, logs.len(), 2)
                    < criterion(rest_of_steps(logs, &steps), logs.len(), 1 + 2 * steps.len()));
        if is_drift {
            return vec![Change::Drift { change, p_value }];
        }
    }
    steps
        .iter()
        .map(|step| Change::Step { index: step.index, change: step.relative_change(), p_value: step.p_value })
        .collect()
}

/// Schwarz's criterion: smaller is better.
fn criterion(rest: f64, points: usize, parameters: usize) -> f64 {
    let points = points as f64;
    points * (rest / points).max(1e-18).ln() + parameters as f64 * points.ln()
}

/// The sum of squares that a line of a slope leaves.
fn rest_of_line(points: &[(f64, f64)], slope: f64) -> f64 {
    let rests: Vec<f64> = points.iter().map(|(x, y)| y - slope * x).collect();
    rest_of_level(&rests)
}

fn rest_of_steps(logs: &[f64], steps: &[ChangePoint]) -> f64 {
    let edges: Vec<usize> =
        std::iter::once(0).chain(steps.iter().map(|step| step.index)).chain([logs.len()]).collect();
    edges.windows(2).map(|edge| rest_of_level(&logs[edge[0]..edge[1]])).sum()
}

fn rest_of_level(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    values.iter().map(|value| (value - mean).powi(2)).sum()
}

/// All changes of a history, in the order of the benches.
#[must_use]
pub fn findings(history: &History) -> Vec<Finding> {
    let all = series(&history.measurements);
    let mut found: Vec<Finding> =
        all.iter().flat_map(|series| of_series(series, all.len(), &history.blessings)).collect();
    found.extend(of_counts(history));
    found
}

fn of_series(series: &Series, of: usize, blessings: &[Blessing]) -> Vec<Finding> {
    let commits: Vec<&Commit> = series.points.iter().map(|point| &point.commit).collect();
    let logs: Vec<f64> = series.points.iter().map(|point| point.log_ratio).collect();
    let finding = |kind, change: f64, p_value, from: usize, to: usize, blessed: Option<String>| Finding {
        bench: series.bench.clone(),
        kind,
        change: Some(change),
        p_value,
        from: commits[from].clone(),
        to: commits[to].clone(),
        time: commits[to].time,
        blessed,
    };
    let mut found = Vec::new();
    for change in changes_of(&logs, of) {
        match change {
            Change::Step { index, change, p_value } => {
                let first = commits[index.saturating_sub(1 + REACH)].position;
                let last = commits[(index + REACH).min(commits.len() - 1)].position;
                let reason = covering(blessings, &series.bench, first, last);
                found.push(finding(Kind::Step, change, p_value, index - 1, index, reason));
            }
            Change::Drift { change, p_value } => {
                // What drifted before a blessing is accepted; what has drifted since is looked at anew.
                let last = blessings
                    .iter()
                    .filter(|it| is_for(it, &series.bench) && it.commit.position >= commits[0].position)
                    .max_by_key(|it| it.commit.position);
                let since = last
                    .map_or(0, |it| commits.partition_point(|commit| commit.position < it.commit.position));
                let end = commits.len() - 1;
                let again = changes_of(&logs[since..], of);
                let reason = last.filter(|_| again.is_empty()).map(|blessing| blessing.reason.clone());
                found.push(finding(Kind::Drift, change, p_value, 0, end, reason));
            }
        }
    }
    found
}

fn is_for(blessing: &Blessing, bench: &str) -> bool {
    blessing.bench == bench || blessing.bench == "all"
}

/// The reason of a blessing of a bench whose revision lies between two positions, not the first one.
fn covering(blessings: &[Blessing], bench: &str, after: u64, last: u64) -> Option<String> {
    let covers =
        |it: &&Blessing| is_for(it, bench) && after < it.commit.position && it.commit.position <= last;
    blessings.iter().find(covers).map(|blessing| blessing.reason.clone())
}

/// Counts that rose or vanished, and benches that vanished, from a measured revision to the next.
fn of_counts(history: &History) -> Vec<Finding> {
    let mut found = Vec::new();
    for pair in history.measurements.windows(2) {
        let [before, after] = pair else { continue };
        if before.commit.id == after.commit.id {
            continue;
        }
        let finding = |bench: &str, kind, change| Finding {
            bench: bench.to_owned(),
            kind,
            change,
            p_value: 0.0,
            from: before.commit.clone(),
            to: after.commit.clone(),
            time: after.commit.time,
            blessed: covering(&history.blessings, bench, before.commit.position, after.commit.position),
        };
        let vanished = before.benches.keys().filter(|bench| !after.benches.contains_key(*bench));
        found.extend(vanished.map(|bench| finding(bench, Kind::Vanished, None)));
        // What a toolchain's library allocates is not the revision's doing.
        if before.toolchain == after.toolchain {
            found.extend(risen(before, after).map(|(name, kind, change)| finding(&name, kind, change)));
        }
    }
    found
}

fn risen(before: &Measurement, after: &Measurement) -> impl Iterator<Item = (String, Kind, Option<f64>)> {
    changes(&before.counts, &after.counts).into_iter().filter(CountChange::is_regression).map(|change| {
        let relative = |to: u64| to as f64 / change.from.unwrap_or(0).max(1) as f64 - 1.0;
        let kind = if change.to.is_some() { Kind::Count } else { Kind::Vanished };
        let by = change.to.map(relative);
        (change.name, kind, by)
    })
}
