//! A bench's ratios over the revisions, all in units of one reference: where the reference changed, the series are chained,
//! and the error of the link is carried along.

use std::collections::{BTreeMap, BTreeSet};

use super::measurement::{Measurement, standard_error};
use crate::gate::statistics::Interval;
use crate::gate::work_tree::Commit;

/// Of the normal distribution, 97.5 %.
const Z95: f64 = 1.959_963_984_540_054;

/// A bench over the revisions.
#[derive(Debug, Clone)]
pub struct Series {
    /// Which bench.
    pub bench: String,
    /// The reference that all ratios refer to.
    pub reference: Commit,
    /// A point a revision, in the order of history.
    pub points: Vec<Point>,
    /// Measurements against a reference that no measurement links with this one.
    pub not_linked: usize,
}

/// What a revision took.
#[derive(Debug, Clone)]
pub struct Point {
    /// The revision.
    pub commit: Commit,
    /// The logarithm of the ratio.
    pub log_ratio: f64,
    /// Its standard error, that of links included.
    pub error: f64,
}

impl Point {
    /// The ratio, with bounds at 95 %.
    #[must_use]
    pub fn ratio(&self) -> Interval {
        let Self { log_ratio: value, error, .. } = *self;
        Interval { value, low: value - Z95 * error, high: value + Z95 * error }.map(f64::exp)
    }
}

/// A logarithm and its variance.
#[derive(Debug, Clone, Copy)]
struct Estimate {
    log: f64,
    variance: f64,
}

impl Estimate {
    fn of(measurement: &Measurement, bench: &str) -> Option<Self> {
        let ratio = *measurement.benches.get(bench)?;
        Some(Self { log: ratio.value.ln(), variance: standard_error(ratio).powi(2) })
            .filter(|it| it.log.is_finite())
    }

    fn plus(self, other: Self) -> Self {
        Self { log: self.log + other.log, variance: self.variance + other.variance }
    }

    /// The mean, the more exact ones counting more.
    fn mean(all: &[Self]) -> Option<Self> {
        let weight: f64 = all.iter().map(|it| 1.0 / it.variance).sum();
        let log = all.iter().map(|it| it.log / it.variance).sum::<f64>() / weight;
        (!all.is_empty()).then_some(Self { log, variance: 1.0 / weight })
    }
}

/// The series of all benches that were ever measured, by name. Measurements must be in the order of history.
#[must_use]
pub fn series(measurements: &[Measurement]) -> Vec<Series> {
    let benches: BTreeSet<&String> = measurements.iter().flat_map(|it| it.benches.keys()).collect();
    benches.into_iter().filter_map(|bench| of_bench(bench, measurements)).collect()
}

fn of_bench(bench: &str, measurements: &[Measurement]) -> Option<Series> {
    let measured: Vec<(&Measurement, Estimate)> =
        measurements.iter().filter_map(|it| Some((it, Estimate::of(it, bench)?))).collect();
    let first = measured.iter().map(|(it, _)| *it).min_by_key(|it| it.time)?;
    let offsets = offsets(&first.reference.id, &measured);
    let mut by_commit: Vec<(&Commit, Vec<Estimate>)> = Vec::new();
    let mut not_linked = 0;
    for (measurement, estimate) in measured {
        let Some(offset) = offsets.get(measurement.reference.id.as_str()) else {
            not_linked += 1;
            continue;
        };
        let estimate = estimate.plus(*offset);
        match by_commit.last_mut() {
            Some((commit, estimates)) if commit.id == measurement.commit.id => estimates.push(estimate),
            _ => by_commit.push((&measurement.commit, vec![estimate])),
        }
    }
    let point = |(commit, estimates): (&Commit, Vec<Estimate>)| {
        let Estimate { log, variance } = Estimate::mean(&estimates)?;
        Some(Point { commit: commit.clone(), log_ratio: log, error: variance.sqrt() })
    };
    let points = by_commit.into_iter().filter_map(point).collect();
    Some(Series { bench: bench.to_owned(), reference: first.reference.clone(), points, not_linked })
}

/// What each reference took in units of the root, as far as measurements link them.
fn offsets<'a>(root: &'a str, measured: &[(&'a Measurement, Estimate)]) -> BTreeMap<&'a str, Estimate> {
    let references: BTreeSet<&str> = measured.iter().map(|(it, _)| it.reference.id.as_str()).collect();
    let mut offsets = BTreeMap::from([(root, Estimate { log: 0.0, variance: 0.0 })]);
    loop {
        let next =
            references.iter().filter(|reference| !offsets.contains_key(*reference)).find_map(|&reference| {
                let links = measured.iter().filter_map(|(it, estimate)| {
                    let (commit, against) = (it.commit.id.as_str(), it.reference.id.as_str());
                    if commit == reference {
                        Some(estimate.plus(*offsets.get(against)?))
                    } else if against == reference {
                        let inverse = Estimate { log: -estimate.log, ..*estimate };
                        Some(inverse.plus(*offsets.get(commit)?))
                    } else {
                        None
                    }
                });
                Some((reference, Estimate::mean(&links.collect::<Vec<_>>())?))
            });
        let Some((reference, offset)) = next else { return offsets };
        offsets.insert(reference, offset);
    }
}
