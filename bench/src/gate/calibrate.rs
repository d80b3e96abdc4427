//! Measures the gate itself: how often it cries wolf, and what it hears.

use serde::Serialize;

use super::pairs::{Plan, Verdict, compare};
use super::slices::Build;

/// How often the gate was right about builds whose difference is known.
#[derive(Debug, Clone, Serialize)]
pub struct Calibration {
    /// By how much the second build was slower, 0 for not at all.
    pub handicap: f64,
    /// Whole sets that were compared.
    pub comparisons: usize,
    /// Comparisons in which a bench was flagged as slower.
    pub alarms: usize,
    /// Comparisons in which nothing was said.
    pub inconclusive: usize,
    /// Benches flagged as slower, of all that were compared.
    pub benches_slower: usize,
    /// Benches that were compared.
    pub benches: usize,
}

/// Compares a build with itself, handicapped or not, many times.
///
/// # Errors
/// If the build cannot be run.
pub fn calibrate(
    build: &Build,
    plan: &Plan,
    handicap: f64,
    comparisons: usize,
    mut progress: impl FnMut(usize),
) -> anyhow::Result<Calibration> {
    let head = Build { handicap, ..build.clone() };
    let mut found =
        Calibration { handicap, comparisons, alarms: 0, inconclusive: 0, benches_slower: 0, benches: 0 };
    for number in 0..comparisons {
        let plan = Plan { seed: plan.seed + number as u64, ..plan.clone() };
        let comparison = compare(build, &head, &plan, |_| {})?;
        let slower = comparison.benches.iter().filter(|bench| bench.verdict == Verdict::Slower).count();
        found.alarms += usize::from(slower > 0 && !comparison.control_tripped);
        found.inconclusive += usize::from(comparison.exit_code() == 4);
        found.benches_slower += slower;
        found.benches += comparison.benches.len();
        progress(number + 1);
    }
    Ok(found)
}
