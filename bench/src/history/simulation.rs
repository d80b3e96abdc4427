//! How often the findings of a history are wrong: histories are drawn from noise that was recorded, with a change whose place
//! and size are known.

use std::collections::BTreeMap;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;

use super::findings::{Change, changes_of};

/// Measurements in a row that are drawn together: a busy hour disturbs neighbours alike.
const BLOCK: usize = 5;
/// Found at the right revision: so far from it at most.
const NEAR: usize = 2;

/// Log-ratios of measurements of a build against itself, by bench; the benches of a measurement have the same index.
pub type Noise = BTreeMap<String, Vec<f64>>;

/// What is put into the noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Injected {
    /// Nothing.
    Nothing,
    /// A bench is slower by this share, from a revision on.
    Step(f64),
    /// A bench gets slower by this share at each revision.
    Drift(f64),
}

/// How often it was right.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was put in.
    pub injected: Injected,
    /// Histories that were simulated.
    pub histories: usize,
    /// Histories in which the change was found in its bench, whichever way.
    pub found: usize,
    /// Of these, histories in which a step was found within two revisions of its place.
    pub near: usize,
    /// Histories in which a bench is reported that did not change.
    pub false_alarms: usize,
}

/// Simulates histories of a number of revisions.
#[must_use]
pub fn simulate(noise: &Noise, injected: Injected, histories: usize, revisions: usize) -> Outcome {
    let mut outcome = Outcome { injected, histories, found: 0, near: 0, false_alarms: 0 };
    for seed in 0..histories {
        let mut rng = Pcg64Mcg::seed_from_u64(seed as u64);
        let mut history = draw(noise, revisions, &mut rng);
        let bench = below(&mut rng, history.len());
        // Not so near to an end that there is hardly anything to compare with.
        let at = revisions / 5 + below(&mut rng, revisions * 3 / 5);
        for (revision, log) in history[bench].iter_mut().enumerate() {
            *log += match injected {
                Injected::Step(share) if revision >= at => share.ln_1p(),
                Injected::Drift(share) => revision as f64 * share.ln_1p(),
                Injected::Nothing | Injected::Step(_) => 0.0,
            };
        }
        let count = history.len();
        let found: Vec<Vec<Change>> = history.iter().map(|logs| changes_of(logs, count)).collect();
        let changed = injected != Injected::Nothing;
        let alarm =
            |(number, found): (usize, &Vec<Change>)| !(found.is_empty() || changed && number == bench);
        outcome.false_alarms += usize::from(found.iter().enumerate().any(alarm));
        let is_near = |change: &Change| match change {
            Change::Step { index, .. } => index.abs_diff(at) <= NEAR,
            Change::Drift { .. } => false,
        };
        outcome.found += usize::from(changed && !found[bench].is_empty());
        outcome.near += usize::from(changed && found[bench].iter().any(is_near));
    }
    outcome
}

fn below(rng: &mut Pcg64Mcg, limit: usize) -> usize {
    rng.next_u32() as usize % limit.max(1)
}

/// Blocks of measurements in a row, from anywhere in the noise; all benches from the same place.
fn draw(noise: &Noise, revisions: usize, rng: &mut Pcg64Mcg) -> Vec<Vec<f64>> {
    let length = noise.values().map(Vec::len).min().unwrap_or(0).max(1);
    let mut history = vec![Vec::new(); noise.len()];
    while history.first().is_some_and(|logs| logs.len() < revisions) {
        let from = below(rng, length);
        for (logs, bench) in history.iter_mut().zip(noise.values()) {
            logs.extend((from..from + BLOCK).map(|at| bench[at % length]));
            logs.truncate(revisions);
        }
    }
    history
}
