//! How the cost of an operation grows with its input: each is measured at three sizes, and an exponent is fitted.
//!
//! Processor time, not time: other work on the machine and its disk hardly matter. Each size is measured in a process of
//! its own, because the largest resident set of a process never shrinks.

mod inputs;
mod operations;

use std::path::Path;

use anyhow::Context as _;
use collector::record::ProcessUse;
use serde::{Deserialize, Serialize};

pub use inputs::Input;
pub use operations::OPERATIONS;

/// The exponent of an operation that must cost the same whatever its input: less than twice as much for a hundred times the input.
pub const CONSTANT: f64 = 0.15;
/// The exponent of an operation that may cost as much as its input.
pub const LINEAR: f64 = 1.1;
/// The minimum and maximum number of repetitions, of which the cheapest counts.
const REPETITIONS: [usize; 2] = [3, 20];
/// Beyond this processor time in seconds, nothing is repeated more often than it must be.
const ENOUGH_S: f64 = 1.0;
/// A shorter time than can be measured, in seconds.
const RESOLUTION_S: f64 = 1e-6;

/// One repetition.
pub type Work = Box<dyn FnMut() -> anyhow::Result<()>>;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// What it works on.
    pub input: Input,
    /// The maximum exponent of its processor time.
    pub exponent: f64,
    /// The maximum resident set at the largest size, in MB.
    pub memory_mb: u64,
    /// Whether it is done once: it changes its input, or its memory is that of a process which does nothing else.
    pub once: bool,
    /// Makes it ready to work on an input in a folder.
    pub prepare: fn(&Path) -> anyhow::Result<Work>,
}

/// What an operation cost on an input of one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Processor time in seconds: the least of all repetitions.
    pub cpu_s: f64,
    /// The largest resident set of the process, in bytes.
    pub peak_memory_bytes: u64,
}

impl Cost {
    /// Carries out an operation on the input in `folder`, repeatedly, in this process.
    ///
    /// # Errors
    /// If it fails.
    pub fn of(operation: &Operation, folder: &Path) -> anyhow::Result<Self> {
        let mut work = (operation.prepare)(folder)?;
        let (mut least, mut sum) = (f64::INFINITY, 0.0);
        let [min, max] = if operation.once { [1, 1] } else { REPETITIONS };
        for repetition in 1..=max {
            let before = ProcessUse::so_far();
            work()?;
            let after = ProcessUse::so_far();
            let cpu_s = after.cpu_user_s + after.cpu_system_s - before.cpu_user_s - before.cpu_system_s;
            least = least.min(cpu_s);
            sum += cpu_s;
            if repetition >= min && sum > ENOUGH_S {
                break;
            }
        }
        let peak_memory_bytes = ProcessUse::so_far().peak_memory_bytes;
        Ok(Self { cpu_s: least.max(RESOLUTION_S), peak_memory_bytes })
    }
}

/// How an operation grows.
#[derive(Debug, Clone, Serialize)]
pub struct Growth {
    /// Its name.
    pub operation: &'static str,
    /// What grows.
    pub unit: &'static str,
    /// The sizes.
    pub sizes: [usize; 3],
    /// The cost at each.
    pub costs: [Cost; 3],
    /// The fitted exponent of the processor time.
    pub exponent: f64,
    /// The maximum exponent.
    pub max_exponent: f64,
    /// The maximum resident set at the largest size, in bytes.
    pub max_memory_bytes: u64,
}

impl Growth {
    /// What the costs of an operation at its input's sizes mean.
    #[must_use]
    pub fn new(operation: &Operation, costs: [Cost; 3]) -> Self {
        let sizes = operation.input.sizes();
        Self {
            operation: operation.name,
            unit: operation.input.unit(),
            sizes,
            costs,
            exponent: exponent(sizes, costs.map(|cost| cost.cpu_s)),
            max_exponent: operation.exponent,
            max_memory_bytes: operation.memory_mb * 1_000_000,
        }
    }

    /// What is beyond its limit.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let Self { operation, unit, exponent, max_exponent, max_memory_bytes, .. } = self;
        let ([.., largest], [.., cost]) = (self.sizes, self.costs);
        let too_steep = (exponent > max_exponent)
            .then(|| format!("{operation}: grows with exponent {exponent:.2}, {max_exponent} is allowed"));
        let used = cost.peak_memory_bytes;
        let too_large = (used > *max_memory_bytes).then(|| {
            format!(
                "{operation}: {} MB at {largest} {unit}, {} MB are allowed",
                used / 1_000_000,
                max_memory_bytes / 1_000_000
            )
        });
        too_steep.into_iter().chain(too_large).collect()
    }
}

/// An operation by its name.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> anyhow::Result<&'static Operation> {
    OPERATIONS.iter().find(|it| it.name == name).with_context(|| format!("no operation is called {name:?}"))
}

/// The slope of the straight line through the logarithms, by least squares.
fn exponent(sizes: [usize; 3], values: [f64; 3]) -> f64 {
    let logarithms = |values: [f64; 3]| values.map(f64::ln);
    let (x, y) = (logarithms(sizes.map(|size| size as f64)), logarithms(values));
    let mean = |values: [f64; 3]| values.iter().sum::<f64>() / 3.0;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let products: f64 = x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let squares: f64 = x.iter().map(|x| (x - mean_x).powi(2)).sum();
    products / squares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(name: &str, cpu_s: [f64; 3], peak_memory_bytes: u64) -> Growth {
        Growth::new(find(name).unwrap(), cpu_s.map(|cpu_s| Cost { cpu_s, peak_memory_bytes }))
    }

    #[test]
    fn exponents_are_those_of_powers() {
        let sizes = [1_000, 4_000, 16_000];
        for power in [0.0, 0.5, 1.0, 2.0] {
            let values = sizes.map(|size| 3.0 * (size as f64).powf(power));
            assert!((exponent(sizes, values) - power).abs() < 1e-9, "{power}");
        }
    }

    #[test]
    fn what_grows_too_fast_or_needs_too_much_memory_is_a_fault() {
        let [small, medium, large] = find("verify").unwrap().input.sizes().map(|size| size as f64);
        let linear = [small, medium, large].map(|size| size * 1e-6);
        let square = linear.map(|time| time * time);
        assert_eq!(growth("verify", linear, 1_000_000).faults(), Vec::<String>::new());
        assert!(growth("verify", square, 1_000_000).faults()[0].contains("exponent 2.00"));
        assert!(growth("verify", linear, 1_000_000_000).faults()[0].contains("1000 MB"));
        assert_eq!(growth("run in a long archive", linear, 1_000_000).faults().len(), 1);
    }

    #[test]
    fn each_operation_works_on_a_small_input() {
        for input in Input::ALL {
            let folder = tempfile::tempdir().unwrap();
            // Records of two months: some operations are about months.
            let size = if input == Input::Records { 3_000 } else { 40 };
            input.make(size, folder.path()).unwrap();
            for operation in OPERATIONS.iter().filter(|operation| operation.input == input) {
                let cost = (operation.prepare)(folder.path()).and_then(|mut work| work());
                assert!(cost.is_ok(), "{}: {:#}", operation.name, cost.unwrap_err());
            }
        }
    }
}
