//! The program `fuzz`: runs targets for a time, in processes of their own.

mod supervisor;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use fuzz::batch::{self, End};
use fuzz::{Target, targets};
use twox_hash::XxHash3_64;

use supervisor::{BatchResult, Plan};

/// Runs mutated inputs through the parsers of foreign bytes, and ends with 1 at the first violation.
#[derive(Debug, Parser)]
struct CommandLine {
    /// Targets to run [default: all].
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Maximum duration of the run [default: 60, or no maximum with --inputs].
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Number of inputs of all targets together; the run ends when every target has had its turn after that.
    #[arg(long, value_name = "N")]
    inputs: Option<u64>,
    /// Number of processes [default: one for each processor].
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Seed of the first batch; the same seed makes the same inputs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where the input of a violation is saved.
    #[arg(long, value_name = "DIR", default_value = "target/violations")]
    save: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// List the targets.
    #[arg(long)]
    list: bool,
    /// Run the input in this file once, in the one target that is named.
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    replay: Option<PathBuf>,
    /// Run one batch for this many milliseconds in this process, and print its result as JSON.
    #[arg(long, value_name = "MS", hide = true)]
    batch: Option<u64>,
    /// Write each input to this file before it is run.
    #[arg(long, value_name = "FILE", hide = true, requires = "batch")]
    trace: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(CommandLine::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(line: CommandLine) -> anyhow::Result<bool> {
    let targets = chosen(&line.targets)?;
    if line.list {
        for target in targets {
            writeln!(io::stdout(), "{}", target.name)?;
        }
        return Ok(true);
    }
    if let Some(file) = &line.replay {
        return replay(one(&targets)?, file);
    }
    if let Some(milliseconds) = line.batch {
        let result = run_batch(one(&targets)?, &line, Duration::from_millis(milliseconds))?;
        serde_json::to_writer(io::stdout(), &result)?;
        return Ok(true);
    }
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    supervisor::run(&Plan {
        targets,
        time: duration(&line),
        inputs: line.inputs.unwrap_or(u64::MAX),
        jobs: line.jobs.unwrap_or_else(processors).max(1),
        seed: line.seed,
        save: line.save,
        json: line.json,
    })
}

fn duration(line: &CommandLine) -> Duration {
    let forever = Duration::from_hours(365 * 24);
    let default = if line.inputs.is_some() { forever } else { Duration::from_mins(1) };
    line.seconds.map_or(default, Duration::from_secs).min(forever)
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(targets::all());
    }
    names
        .iter()
        .map(|name| targets::named(name).with_context(|| format!("no target is called `{name}`")))
        .collect()
}

fn one(targets: &[&'static Target]) -> anyhow::Result<&'static Target> {
    let [target] = targets else { bail!("name one target") };
    Ok(target)
}

fn replay(target: &Target, file: &Path) -> anyhow::Result<bool> {
    let input = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut out = io::stdout();
    match batch::run_input(target, &input) {
        Ok((kind, meter)) => {
            writeln!(out, "{}: no violation (kind {kind:x}, {meter:?})", target.name)?;
            Ok(true)
        }
        Err(reason) => {
            writeln!(out, "{}: {reason}", target.name)?;
            Ok(false)
        }
    }
}

fn run_batch(target: &Target, line: &CommandLine, time: Duration) -> anyhow::Result<BatchResult> {
    let mut trace = line.trace.as_ref().map(File::create).transpose().context("cannot write the trace")?;
    let ran = batch::run(target, line.seed, End::Time(time), trace.as_mut())
        .with_context(|| format!("cannot read the corpus of {}", target.name))?;
    match ran {
        Ok(report) => Ok(BatchResult { report, violation: None }),
        Err(violation) => {
            let saved = save(&line.save, target, &violation.input)?;
            let reason = format!("{} (saved as {})", violation.reason, saved.display());
            Ok(BatchResult { report: batch::Report::default(), violation: Some(reason) })
        }
    }
}

/// Saves the input of a violation under a name that depends on its content.
pub(crate) fn save(folder: &Path, target: &Target, input: &[u8]) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{}-{:016x}", target.name, XxHash3_64::oneshot(input)));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, input))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
