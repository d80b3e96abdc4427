//! Two builds side by side: short slices in turns, in an order drawn by lot, and a third process of the first build as a
//! control.
//!
//! A process keeps where its code and data happen to lie, which makes it faster or slower than its twin for as long as it
//! lives. So a round is made of fresh processes, and it is the rounds that are compared. Within a round, what the machine
//! does meanwhile only ever adds time: of a process's slices the shortest says most.

use std::fmt;

use anyhow::Context as _;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::conditions::Conditions;
use super::slices::{Build, Slices};
use super::statistics::{Interval, median_interval};

/// How it is done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which benches.
    pub ids: Vec<String>,
    /// Rounds until the first look at them, and at most where it is not clear by then.
    pub rounds: [usize; 2],
    /// Slices of each process and bench in a round.
    pub slices: usize,
    /// How long a slice is, in milliseconds.
    pub slice_ms: f64,
    /// Smaller differences are ignored.
    pub least_effect: f64,
    /// Two builds are equal once a difference larger than this is excluded.
    pub tolerance: f64,
    /// The chance of a false alarm, for all benches together.
    pub error: f64,
    /// Decides the order of slices.
    pub seed: u64,
    /// Benches that only the first build has, on purpose.
    pub accepted: Vec<String>,
    /// What disturbs a round, so that it is repeated.
    pub conditions: Conditions,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            ids: crate::catalog::QUICK.map(str::to_owned).to_vec(),
            rounds: [14, 84],
            slices: 5,
            slice_ms: 2.0,
            least_effect: 0.015,
            tolerance: 0.05,
            error: 0.01,
            seed: 1,
            accepted: Vec::new(),
            conditions: Conditions::default(),
        }
    }
}

impl Plan {
    /// A plan for all benches that some builds compare by default.
    ///
    /// # Errors
    /// If a build cannot be run, or has none.
    pub fn of(builds: &[&Build]) -> anyhow::Result<Self> {
        let mut ids: Vec<String> = Vec::new();
        for build in builds {
            ids.extend(build.benches()?.into_iter().filter(|id| !ids.contains(id)).collect::<Vec<_>>());
        }
        anyhow::ensure!(!ids.is_empty(), "there are no benches");
        Ok(Self { ids, ..Self::default() })
    }

    /// How often the rounds are looked at, at most.
    fn looks(&self) -> usize {
        (self.rounds[1] / self.rounds[0]).max(1)
    }

    /// Each bench and each look may err only by its part of what all may together.
    fn error_of_a_look(&self) -> f64 {
        self.error / (self.ids.len().max(1) * self.looks()) as f64
    }
}

/// What is said of a bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Less time, beyond doubt.
    Faster,
    /// No difference that matters.
    Same,
    /// More time, beyond doubt, and so again in a second round.
    Slower,
    /// Inconclusive.
    Unsure,
    /// Only the second build has it.
    New,
    /// Only the first build has it.
    Vanished,
    /// Only the first build has it, on purpose.
    Removed,
}

/// A bench and what is said of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compared {
    /// Which.
    pub id: String,
    /// What is said.
    pub verdict: Verdict,
    /// Time of the second build for each unit of the first's, with bounds.
    pub ratio: Option<Interval>,
    /// The same of the first build against itself.
    pub control: Option<Interval>,
}

/// What is said of two builds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Comparison {
    /// Bench by bench.
    pub benches: Vec<Compared>,
    /// Rounds that were run, those of the confirmation included.
    pub rounds: usize,
    /// Whether the first build differed from itself, so that nothing can be said.
    pub control_tripped: bool,
    /// Rounds that were repeated because the machine was disturbed.
    #[serde(default)]
    pub repeated: usize,
    /// What disturbed the machine in more rounds than the plan has, so that the result is inconclusive.
    #[serde(default)]
    pub disturbed: Option<String>,
    /// What else must be known to read this.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Comparison {
    /// 0 fine, 3 a regression, 4 inconclusive.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let any = |verdict| self.benches.iter().any(|bench| bench.verdict == verdict);
        if self.control_tripped || self.disturbed.is_some() {
            4
        } else if any(Verdict::Slower) || any(Verdict::Vanished) {
            3
        } else if any(Verdict::Unsure) {
            4
        } else {
            0
        }
    }
}

/// Log-ratios of the rounds so far.
#[derive(Debug, Default, Clone)]
struct Rounds {
    /// Second build against first.
    head: Vec<f64>,
    /// First against itself.
    control: Vec<f64>,
}

/// Compares two builds.
///
/// # Errors
/// If a build cannot be run.
pub fn compare(
    base: &Build,
    head: &Build,
    plan: &Plan,
    mut progress: impl FnMut(usize),
) -> anyhow::Result<Comparison> {
    let mut measurement = Measurement::new(base, head, plan)?;
    let measurable: Vec<usize> =
        (0..plan.ids.len()).filter(|&bench| measurement.iterations[bench].is_some()).collect();
    let rounds = measurement.settle(&measurable, &mut progress)?;
    let error = plan.error_of_a_look();
    let said: Vec<Option<Verdict>> =
        rounds.iter().map(|it| (!it.head.is_empty()).then(|| judge(&it.head, plan, error))).collect();
    let suspects: Vec<usize> =
        measurable.into_iter().filter(|&bench| said[bench] == Some(Verdict::Slower)).collect();
    let again = measurement.settle(&suspects, &mut progress)?;
    let confirmed = |bench: usize| judge(&again[bench].head, plan, error) == Verdict::Slower;
    let control_tripped =
        rounds.iter().any(|it| matches!(judge(&it.control, plan, error), Verdict::Slower | Verdict::Faster));
    let benches = plan.ids.iter().enumerate().map(|(bench, id)| {
        let interval = |logs: &[f64]| (!logs.is_empty()).then(|| median_interval(logs, error).map(f64::exp));
        Compared {
            id: id.clone(),
            verdict: match said[bench] {
                None if measurement.iterations[bench].is_some() => Verdict::Unsure,
                None => measurement.missing[bench],
                Some(Verdict::Slower) if !confirmed(bench) => Verdict::Unsure,
                Some(verdict) => verdict,
            },
            ratio: interval(&rounds[bench].head),
            control: interval(&rounds[bench].control),
        }
    });
    Ok(Comparison {
        benches: benches.collect(),
        rounds: measurement.rounds,
        control_tripped,
        repeated: measurement.repeated,
        disturbed: measurement.disturbed,
        notes: Vec::new(),
    })
}

/// The machine does not allow an answer now.
#[derive(Debug)]
pub struct Inconclusive(pub String);

impl fmt::Display for Inconclusive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "inconclusive: {}", self.0)
    }
}

impl std::error::Error for Inconclusive {}

/// Log-ratios of a bench, a pair a round.
#[derive(Debug, Clone)]
pub struct Ratios {
    /// Which bench.
    pub id: String,
    /// Second build against first.
    pub head: Vec<f64>,
    /// First against itself.
    pub control: Vec<f64>,
}

/// Measures two builds in a number of rounds, without a verdict. Benches that only one of them has are left out.
///
/// # Errors
/// If a build cannot be run; [`Inconclusive`] if the machine was disturbed for too long.
pub fn measure(
    base: &Build,
    head: &Build,
    plan: &Plan,
    mut progress: impl FnMut(usize),
) -> anyhow::Result<Vec<Ratios>> {
    let mut measurement = Measurement::new(base, head, plan)?;
    let benches: Vec<usize> =
        (0..plan.ids.len()).filter(|&bench| measurement.iterations[bench].is_some()).collect();
    let mut rounds = vec![Rounds::default(); plan.ids.len()];
    for _ in 0..plan.rounds[0] {
        measurement.round(&benches, &mut rounds)?;
        progress(measurement.rounds);
    }
    if let Some(disturbance) = measurement.disturbed {
        return Err(Inconclusive(disturbance).into());
    }
    let ratios = benches.into_iter().map(|bench| {
        let Rounds { head, control } = std::mem::take(&mut rounds[bench]);
        Ratios { id: plan.ids[bench].clone(), head, control }
    });
    Ok(ratios.collect())
}

/// What the log-ratios of some rounds say.
fn judge(logs: &[f64], plan: &Plan, error: f64) -> Verdict {
    let Interval { low, high, .. } = median_interval(logs, error);
    if low > plan.least_effect.ln_1p() {
        Verdict::Slower
    } else if high < -plan.least_effect.ln_1p() {
        Verdict::Faster
    } else if high < plan.tolerance.ln_1p() {
        Verdict::Same
    } else {
        Verdict::Unsure
    }
}

struct Measurement<'a> {
    base: &'a Build,
    head: &'a Build,
    plan: &'a Plan,
    /// Iterations of a slice; nothing where one of the builds does not have the bench.
    iterations: Vec<Option<u64>>,
    missing: Vec<Verdict>,
    /// Made so far.
    rounds: usize,
    /// Made in vain.
    repeated: usize,
    /// Why there were more rounds in vain than the plan has rounds, and no more are made.
    disturbed: Option<String>,
    rng: Pcg64Mcg,
}

impl<'a> Measurement<'a> {
    fn new(base: &'a Build, head: &'a Build, plan: &'a Plan) -> anyhow::Result<Self> {
        let (mut of_base, mut of_head) = (base.start()?, head.start()?);
        let (mut iterations, mut missing) = (Vec::new(), Vec::new());
        for id in &plan.ids {
            let known = [of_base.measure(id, 1)?, of_head.measure(id, 1)?];
            iterations.push(match known {
                [Some(_), Some(_)] if !base.counts_iterations() => Some(1),
                [Some(_), Some(_)] => Some(calibrated(&mut of_base, id, plan.slice_ms)?),
                _ => None,
            });
            missing.push(match known {
                [None, _] => Verdict::New,
                _ if plan.accepted.contains(id) => Verdict::Removed,
                _ => Verdict::Vanished,
            });
        }
        let rng = Pcg64Mcg::seed_from_u64(plan.seed);
        Ok(Self { base, head, plan, iterations, missing, rounds: 0, repeated: 0, disturbed: None, rng })
    }

    /// Rounds of some benches, each until it is clear, or there were enough of them.
    fn settle(&mut self, benches: &[usize], progress: &mut impl FnMut(usize)) -> anyhow::Result<Vec<Rounds>> {
        let (plan, error) = (self.plan, self.plan.error_of_a_look());
        let mut rounds = vec![Rounds::default(); plan.ids.len()];
        let mut open = benches.to_vec();
        for _ in 0..plan.looks() {
            if open.is_empty() {
                break;
            }
            for _ in 0..plan.rounds[0] {
                self.round(&open, &mut rounds)?;
                progress(self.rounds);
            }
            open.retain(|&bench| judge(&rounds[bench].head, plan, error) == Verdict::Unsure);
        }
        Ok(rounds)
    }

    /// A round of fresh processes, repeated for as long as the machine is disturbed.
    fn round(&mut self, benches: &[usize], rounds: &mut [Rounds]) -> anyhow::Result<()> {
        while self.disturbed.is_none() {
            let before = self.plan.conditions.snapshot();
            let measured = self.measure(benches)?;
            let Some(disturbance) = self.plan.conditions.disturbance_since(&before) else {
                for (&bench, [head, control]) in benches.iter().zip(measured) {
                    rounds[bench].head.push(head);
                    rounds[bench].control.push(control);
                }
                self.rounds += 1;
                break;
            };
            self.repeated += 1;
            if self.repeated > self.plan.rounds[0] {
                self.disturbed = Some(disturbance);
            }
        }
        Ok(())
    }

    /// The log-ratios of the second build and of the control against the first build, bench by bench.
    fn measure(&mut self, benches: &[usize]) -> anyhow::Result<Vec<[f64; 2]>> {
        let mut processes = [self.base.start()?, self.head.start()?, self.base.start()?];
        let warms_up = self.base.counts_iterations();
        let slices = if warms_up { self.plan.slices } else { 1 };
        let mut measured = Vec::new();
        for &bench in benches {
            let (id, iterations) = (&self.plan.ids[bench], self.iterations[bench].unwrap_or(1));
            for process in processes.iter_mut().filter(|_| warms_up) {
                process.measure(id, iterations / 4 + 1)?;
            }
            let mut least = [f64::INFINITY; 3];
            for _ in 0..slices {
                for which in self.order() {
                    let took = processes[which].measure(id, iterations)?;
                    let took = took.with_context(|| format!("{id} has vanished"))?;
                    least[which] = least[which].min(took);
                }
            }
            // A clock that is too coarse for a bench says zero.
            let [base, head, control] = least.map(|least| least.max(1e-12).ln());
            measured.push([head - base, control - base]);
        }
        Ok(measured)
    }

    /// The three processes in an order drawn by lot.
    fn order(&mut self) -> [usize; 3] {
        const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        ORDERS[self.rng.next_u32() as usize % ORDERS.len()]
    }
}

/// The number of iterations that takes about as long as a slice should.
fn calibrated(process: &mut Slices, id: &str, slice_ms: f64) -> anyhow::Result<u64> {
    let mut iterations = 1;
    loop {
        let took = process.measure(id, iterations)?.with_context(|| format!("{id} has vanished"))?;
        let took_ms = took * 1e3;
        if took_ms >= slice_ms / 2.0 || iterations > 1 << 30 {
            return Ok(((iterations as f64 * slice_ms / took_ms.max(1e-6)) as u64).max(20));
        }
        iterations *= 2;
    }
}
