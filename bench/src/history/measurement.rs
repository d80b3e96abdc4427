//! One measurement of a revision against the reference, as it is kept: a small file that is never changed.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::counts::Counts;
use crate::gate::machine::Machine;
use crate::gate::pairs::{Inconclusive, Plan, Ratios, measure};
use crate::gate::programs::Programs;
use crate::gate::statistics::{Interval, median_interval};
use crate::gate::work_tree::Commit;

/// The format of measurements, blessings and skipped revisions.
pub const FORMAT: u32 = 1;
/// The error of the intervals that are kept.
const ERROR: f64 = 0.01;
/// Of the normal distribution, 99.5 %: what an interval at 99 % is wide on each side, in standard errors.
const Z99: f64 = 2.575_829_303_548_901;
/// No median is known better than this: the log-ratio that a coarse clock leaves.
const LEAST_ERROR: f64 = 1e-4;

/// What a revision took, in units of what the reference took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// [`FORMAT`].
    pub format: u32,
    /// When it was measured.
    pub time: DateTime<Utc>,
    /// The revision.
    pub commit: Commit,
    /// The revision that it was measured against.
    pub reference: Commit,
    /// Where.
    pub machine: Machine,
    /// What rustc called itself in the revision's work tree.
    pub toolchain: String,
    /// Rounds of fresh processes.
    pub rounds: usize,
    /// Time for each unit of the reference's, with bounds at 99 %, by bench.
    pub benches: BTreeMap<String, Interval>,
    /// What cannot vary, counted.
    pub counts: Counts,
    /// Sizes of the programs, in bytes.
    pub sizes: Counts,
}

/// A change that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blessing {
    /// [`FORMAT`].
    pub format: u32,
    /// When it was accepted.
    pub time: DateTime<Utc>,
    /// The revision that made the change.
    pub commit: Commit,
    /// Which bench or count changed; `all` for each of them.
    pub bench: String,
    /// Why that is accepted.
    pub reason: String,
}

/// A revision that could not be measured, so that it is not tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// [`FORMAT`].
    pub format: u32,
    /// When it was tried.
    pub time: DateTime<Utc>,
    /// The revision.
    pub commit: Commit,
    /// Why.
    pub reason: String,
}

/// The standard error of a logarithm whose interval at 99 % is known.
#[must_use]
pub fn standard_error(ratio: Interval) -> f64 {
    let width = (ratio.high.ln() - ratio.low.ln()) / (2.0 * Z99);
    if width.is_finite() { width.max(LEAST_ERROR) } else { 1.0 }
}

/// The median and its interval of log-ratios, as ratios.
#[must_use]
pub fn ratio(logs: &[f64]) -> Interval {
    median_interval(logs, ERROR).map(f64::exp)
}

/// Measures a revision against the reference.
///
/// # Errors
/// If a program cannot be run; [`Inconclusive`] if the machine is disturbed, or the reference differs from itself beyond doubt.
pub fn record(
    reference: &Programs,
    revision: &Programs,
    rounds: usize,
    progress: impl FnMut(usize),
) -> anyhow::Result<Measurement> {
    let plan = Plan::of(&[&reference.build, &revision.build])?;
    let plan = Plan { rounds: [rounds, rounds], ..plan };
    let measured = measure(&reference.build, &revision.build, &plan, progress)?;
    let tripped = measured.iter().find(|bench| differs_from_itself(bench, measured.len()));
    if let Some(Ratios { id, .. }) = tripped {
        return Err(
            Inconclusive(format!("the reference differs from itself in {id} on this machine now")).into()
        );
    }
    let mut sizes = Counts::new();
    let programs = [Some(revision.build.program.as_path()), revision.counting()];
    for program in programs.into_iter().flatten() {
        let bytes =
            fs::metadata(program).with_context(|| format!("cannot read {}", program.display()))?.len();
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sizes.insert(format!("size/{name}: bytes"), bytes);
    }
    let toolchain = revision.provenance.toolchain.lines().next().unwrap_or_default().to_owned();
    Ok(Measurement {
        format: FORMAT,
        time: Utc::now(),
        commit: revision.commit.clone(),
        reference: reference.commit.clone(),
        machine: Machine::this(),
        toolchain,
        rounds,
        benches: measured.iter().map(|bench| (bench.id.clone(), ratio(&bench.head))).collect(),
        counts: revision.counts()?,
        sizes,
    })
}

/// Whether the control differs by more than the least effect that the gate looks for.
fn differs_from_itself(bench: &Ratios, benches: usize) -> bool {
    let least_effect = Plan::default().least_effect.ln_1p();
    let Interval { low, high, .. } = median_interval(&bench.control, ERROR / benches.max(1) as f64);
    low > least_effect || high < -least_effect
}
