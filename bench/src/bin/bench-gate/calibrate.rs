//! `bench-gate calibrate`.

use bench::gate::calibrate::{Calibration, calibrate};
use bench::gate::instructions;
use bench::gate::pairs::Plan;
use bench::gate::report;
use bench::gate::slices::Build;

use crate::ab::LEAST_MORE_INSTRUCTIONS;
use crate::output::{print, progress};
use crate::percent;

#[derive(Debug, clap::Args)]
pub(crate) struct Calibrate {
    /// Comparisons of the build with itself.
    #[arg(long, default_value_t = 200)]
    trials: usize,
    /// Comparisons for each slowdown.
    #[arg(long, default_value_t = 12)]
    slow_trials: usize,
    /// The slowdowns.
    #[arg(long, value_delimiter = ',', default_value = "2%,5%,10%,20%", value_parser = percent)]
    slowdowns: Vec<f64>,
    /// Try the second witness instead: count instructions with valgrind, once for each slowdown.
    #[arg(long)]
    instructions: bool,
    /// Print the result as JSON.
    #[arg(long, conflicts_with = "instructions")]
    json: bool,
}

impl Calibrate {
    pub(crate) fn carry_out(self) -> anyhow::Result<u8> {
        if self.instructions {
            return instructions_of(&self.slowdowns);
        }
        let (build, plan) = (own_build()?, Plan::default());
        let slowdowns = self.slowdowns.iter().map(|&slow| (slow, self.slow_trials));
        let mut found: Vec<Calibration> = Vec::new();
        for (handicap, trials) in std::iter::once((0.0, self.trials)).chain(slowdowns) {
            let one = calibrate(&build, &plan, handicap, trials, |done| {
                if done % 10 == 0 {
                    progress(&format!("{:.0} % slower: {done} of {trials}", handicap * 100.0));
                }
            })?;
            found.push(one);
        }
        if self.json {
            print(&(serde_json::to_string_pretty(&found)? + "\n"))?;
        } else {
            print(&report::calibration(&found))?;
        }
        Ok(0)
    }
}

/// Every slowdown must be found in every bench, and equal builds must not be reported.
fn instructions_of(slowdowns: &[f64]) -> anyhow::Result<u8> {
    let (build, plan) = (own_build()?, Plan::default());
    let mut right = true;
    for &handicap in [0.0].iter().chain(slowdowns) {
        let slower = Build { handicap, ..build.clone() };
        let counted = instructions::count(&build, &slower, &plan.ids)?;
        let found = counted.iter().filter(|it| it.is_more(LEAST_MORE_INSTRUCTIONS)).count();
        right &= found == if handicap > 0.0 { counted.len() } else { 0 };
        print(&format!(
            "{:>3.0} % more work: found in {found} of {} benches\n",
            handicap * 100.0,
            counted.len()
        ))?;
    }
    Ok(if right { 0 } else { 4 })
}

/// The `bench-slice` beside this program.
pub(crate) fn own_build() -> anyhow::Result<Build> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name("bench-slice");
    anyhow::ensure!(program.exists(), "{} is missing; `cargo build --release -p bench`", program.display());
    Ok(Build::new(&program))
}
