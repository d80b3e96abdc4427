//! `bench-gate`: reports whether one build is slower than another. Exit codes: 0 no, 1 error, 2 wrong usage, 3 yes,
//! 4 inconclusive.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of instructions, far below where a double is not exact"
)]

mod ab;
mod calibrate;
mod explain;
mod history;
mod kept;
mod output;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use bench::gate::pairs::Inconclusive;
use bench::gate::programs::{Builder, Kind};
use clap::{Parser, Subcommand};

/// Reports whether one build is slower than another.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 nothing is slower, 1 error, 2 wrong usage, 3 a regression, 4 inconclusive."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep criterion's newest results under a name.
    Record(kept::Record),
    /// Compare criterion's newest results with those kept under a name. On a shared machine, prefer `ab`.
    Compare(kept::Compare),
    /// Build two revisions and compare them side by side, in short slices in turns.
    Ab(ab::Ab),
    /// Print the result of the last `ab` again, in another form.
    Render(ab::Render),
    /// Compare a build with itself, as it is and slowed down, many times: what the gate can do on this machine.
    Calibrate(calibrate::Calibrate),
    /// Explain what a bench does differently in a second revision; profilers that are not installed are named.
    Explain(explain::Explain),
    /// Record revisions against a pinned reference, and find steps and drift in what was recorded.
    #[command(subcommand)]
    History(history::History),
}

/// Where revisions are built, and what of them is measured.
#[derive(Debug, clap::Args)]
struct Builds {
    /// Where builds are kept.
    #[arg(long, value_name = "DIR", default_value = "target/bench-gate/ab")]
    dir: PathBuf,
    /// Measure a bench target with criterion instead of this project's catalog.
    #[arg(long, value_name = "NAME")]
    bench: Option<String>,
    /// The package of the bench target.
    #[arg(long, value_name = "NAME", requires = "bench")]
    package: Option<String>,
}

impl Builds {
    fn open(&self, symbols: bool) -> anyhow::Result<Builder> {
        let kind = match &self.bench {
            Some(bench) => Kind::Criterion { bench: bench.clone(), package: self.package.clone() },
            None => Kind::Catalog,
        };
        Builder::open(&std::env::current_dir()?, &self.dir, kind, symbols)
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(number) if number > 0.0 && number <= 1_000.0 => Ok(number / 100.0),
        _ => Err("not a percentage such as 5%".to_owned()),
    }
}

fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Record(command) => command.carry_out(),
        Command::Compare(command) => command.carry_out(),
        Command::Ab(command) => command.carry_out(),
        Command::Render(command) => command.carry_out(),
        Command::Calibrate(command) => command.carry_out(),
        Command::Explain(command) => command.carry_out(),
        Command::History(command) => command.carry_out(),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            if error.is::<Inconclusive>() { ExitCode::from(4) } else { ExitCode::FAILURE }
        }
    }
}
