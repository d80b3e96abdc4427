//! Two builds side by side: short slices in turns, in an order drawn by lot, and a third process of the first build as a
//! control.
//!
//! A process keeps where its code and data happen to lie, which makes it faster or slower than its twin for as long as it
//! lives. So a round is made of fresh processes, and it is the rounds that are compared. Within a round, what the machine
//! does meanwhile only ever adds time: of a process's slices the shortest says most.

use anyhow::Context as _;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;

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
    /// A smaller difference is none.
    pub least_effect: f64,
    /// Whether a difference can be larger than this has to be clear before it is called none.
    pub tolerance: f64,
    /// The chance of a false alarm, for all benches together.
    pub error: f64,
    /// Decides the order of slices.
    pub seed: u64,
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
        }
    }
}

impl Plan {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
}

/// A bench and what is said of it.
#[derive(Debug, Clone, Serialize)]
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
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Bench by bench.
    pub benches: Vec<Compared>,
    /// Rounds that were run, those of the confirmation included.
    pub rounds: usize,
    /// Whether the first build differed from itself, so that nothing can be said.
    pub control_tripped: bool,
}

impl Comparison {
    /// 0 fine, 3 a regression, 4 inconclusive.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let any = |verdict| self.benches.iter().any(|bench| bench.verdict == verdict);
        if self.control_tripped {
            4
        } else if any(Verdict::Slower) {
            3
        } else if any(Verdict::Unsure) || any(Verdict::Vanished) {
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
                None => measurement.missing[bench],
                Some(Verdict::Slower) if !confirmed(bench) => Verdict::Unsure,
                Some(verdict) => verdict,
            },
            ratio: interval(&rounds[bench].head),
            control: interval(&rounds[bench].control),
        }
    });
    Ok(Comparison { benches: benches.collect(), rounds: measurement.rounds, control_tripped })
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
    rng: Pcg64Mcg,
}

impl<'a> Measurement<'a> {
    fn new(base: &'a Build, head: &'a Build, plan: &'a Plan) -> anyhow::Result<Self> {
        let (mut of_base, mut of_head) = (base.start()?, head.start()?);
        let (mut iterations, mut missing) = (Vec::new(), Vec::new());
        for id in &plan.ids {
            let known = [of_base.measure(id, 1)?, of_head.measure(id, 1)?];
            iterations.push(match known {
                [Some(_), Some(_)] => Some(calibrated(&mut of_base, id, plan.slice_ms)?),
                _ => None,
            });
            missing.push(if known[0].is_none() { Verdict::New } else { Verdict::Vanished });
        }
        let rng = Pcg64Mcg::seed_from_u64(plan.seed);
        Ok(Self { base, head, plan, iterations, missing, rounds: 0, rng })
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
                self.rounds += 1;
                progress(self.rounds);
            }
            open.retain(|&bench| judge(&rounds[bench].head, plan, error) == Verdict::Unsure);
        }
        Ok(rounds)
    }

    /// A round of fresh processes.
    fn round(&mut self, benches: &[usize], rounds: &mut [Rounds]) -> anyhow::Result<()> {
        let mut processes = [self.base.start()?, self.head.start()?, self.base.start()?];
        for &bench in benches {
            let (id, Some(iterations)) = (&self.plan.ids[bench], self.iterations[bench]) else { continue };
            for process in &mut processes {
                process.measure(id, iterations / 4 + 1)?;
            }
            let mut least = [f64::INFINITY; 3];
            for _ in 0..self.plan.slices {
                for which in self.order() {
                    let measured = processes[which].measure(id, iterations)?;
                    let took = measured.with_context(|| format!("{id} has vanished"))?.as_secs_f64();
                    least[which] = least[which].min(took);
                }
            }
            let [base, head, control] = least.map(f64::ln);
            rounds[bench].head.push(head - base);
            rounds[bench].control.push(control - base);
        }
        Ok(())
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
        let took_ms = took.as_secs_f64() * 1e3;
        if took_ms >= slice_ms / 2.0 || iterations > 1 << 30 {
            return Ok(((iterations as f64 * slice_ms / took_ms.max(1e-6)) as u64).max(20));
        }
        iterations *= 2;
    }
}
