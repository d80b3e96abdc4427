//! `bench-gate`: reports whether one build is slower than another. Exit codes: 0 no, 1 error, 2 wrong usage, 3 yes,
//! 4 inconclusive.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of instructions, far below where a double is not exact"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use anyhow::Context as _;
use bench::gate::baseline::{self, Past, Results};
use bench::gate::builds::{Programs, risen};
use bench::gate::calibrate::{Calibration, calibrate};
use bench::gate::instructions;
use bench::gate::pairs::{Comparison, Plan, Verdict, compare};
use bench::gate::report;
use bench::gate::slices::Build;
use chrono::Utc;
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use clap::{Parser, Subcommand};
use collector::files::writable;
use serde::Serialize;

/// A smaller share of more instructions is none.
const LEAST_MORE_INSTRUCTIONS: f64 = 0.01;

/// Says whether one build is slower than another.
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
    Record {
        /// The name.
        #[arg(long)]
        name: String,
        /// Append them to a history as well, a line a bench (JSON Lines).
        #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(writable))]
        history: Option<PathBuf>,
        /// Which revision that is, for the history [default: the one that is checked out].
        #[arg(long, value_name = "REVISION", requires = "history")]
        revision: Option<String>,
        #[command(flatten)]
        folders: Folders,
    },
    /// Compare criterion's newest results with those kept under a name. On a shared machine, prefer `ab`.
    Compare {
        /// The name.
        #[arg(long)]
        baseline: String,
        /// A smaller difference is none.
        #[arg(long, default_value = "5%", value_parser = percent)]
        tolerance: f64,
        /// A bench that is slower beyond doubt fails the gate from here on.
        #[arg(long, default_value = "10%", value_parser = percent)]
        fail: f64,
        #[command(flatten)]
        folders: Folders,
        #[command(flatten)]
        output: Output,
    },
    /// Build two revisions and compare them side by side, in short slices in turns.
    Ab {
        /// The revision that is compared with.
        base: String,
        /// The revision that is judged.
        #[arg(default_value = "HEAD")]
        head: String,
        /// Where work trees and builds are kept.
        #[arg(long, value_name = "DIR", default_value = "target/bench-gate/ab")]
        dir: PathBuf,
        /// Count instructions as well, with valgrind; one per cent more is a regression.
        #[arg(long)]
        instructions: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Compare a build with itself, as it is and slowed down, many times: what the gate can do on this machine.
    Calibrate {
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
    },
}

#[derive(Debug, clap::Args)]
struct Folders {
    /// Criterion's results.
    #[arg(long, value_name = "DIR", default_value = "target/criterion")]
    criterion: PathBuf,
    /// Where results are kept.
    #[arg(long, value_name = "DIR", default_value = "target/bench-gate")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Output {
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Write a comment for a pull request.
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(writable))]
    markdown: Option<PathBuf>,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(number) if number > 0.0 && number <= 1_000.0 => Ok(number / 100.0),
        _ => Err("not a percentage such as 5%".to_owned()),
    }
}

fn main() -> ExitCode {
    match carry_out(CommandLine::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Record { name, history, revision, folders } => {
            let results = Results::of_criterion(&folders.criterion)?;
            let path = kept(&folders, &name);
            results.save(&path)?;
            if let Some(history) = history {
                let revision = revision.map_or_else(head, Ok)?;
                append(&history, &results.history(Utc::now(), &revision))?;
            }
            print(&format!("{} benches are kept in {}\n", results.len(), path.display()))?;
            Ok(0)
        }
        Command::Compare { baseline, tolerance, fail, folders, output } => {
            let before = Results::load(&kept(&folders, &baseline))?;
            let after = Results::of_criterion(&folders.criterion)?;
            let comparison = baseline::compare(&before, &after, tolerance);
            show(&comparison, &[], &output, &format!("bench-gate compare --baseline {baseline}"))?;
            Ok(code_of_compare(&comparison, fail))
        }
        Command::Ab { base, head, dir, instructions, output } => {
            ab(&base, &head, &dir, instructions, &output)
        }
        Command::Calibrate { slowdowns, instructions: true, .. } => calibrate_instructions(&slowdowns),
        Command::Calibrate { trials, slow_trials, slowdowns, json, .. } => {
            calibration(trials, slow_trials, &slowdowns, json)
        }
    }
}

/// The revision that is checked out.
fn head() -> anyhow::Result<String> {
    let output =
        process::Command::new("git").args(["rev-parse", "HEAD"]).output().context("cannot start git")?;
    anyhow::ensure!(
        output.status.success(),
        "this is no checkout of git; say which revision it is with --revision"
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn append(history: &Path, lines: &[Past]) -> anyhow::Result<()> {
    let mut text = String::new();
    for line in lines {
        text += &serde_json::to_string(line)?;
        text.push('\n');
    }
    let file = fs::File::options().append(true).create(true).open(history);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", history.display()))
}

fn kept(folders: &Folders, name: &str) -> PathBuf {
    folders.dir.join(format!("{name}.json"))
}

/// A slowdown above the tolerance but below what fails is reported and passes; a bench that is missing does not pass silently.
fn code_of_compare(comparison: &Comparison, fail: f64) -> u8 {
    let fails = |bench: &&bench::gate::pairs::Compared| {
        bench.verdict == Verdict::Slower && bench.ratio.is_some_and(|ratio| ratio.value >= 1.0 + fail)
    };
    let unclear = |verdict| matches!(verdict, Verdict::Unsure | Verdict::Vanished);
    if comparison.benches.iter().any(|bench| fails(&bench)) {
        3
    } else if comparison.benches.iter().any(|bench| unclear(bench.verdict)) {
        4
    } else {
        0
    }
}

fn ab(base: &str, head: &str, dir: &Path, with_instructions: bool, output: &Output) -> anyhow::Result<u8> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    report(&format!("building {base}"));
    let before = Programs::build(base, "base", &dir)?;
    report(&format!("building {head}"));
    let after = Programs::build(head, "head", &dir)?;
    let mut risen = risen(&before.counts()?, &after.counts()?);
    let builds = (Build::new(&before.slice), Build::new(&after.slice));
    let plan = Plan::default();
    if with_instructions {
        report("counting instructions");
        let counted = instructions::count(&builds.0, &builds.1, &plan.ids)?;
        let more = counted.iter().filter(|it| it.is_more(LEAST_MORE_INSTRUCTIONS));
        risen.extend(more.map(|it| (format!("{}: instructions", it.id), it.base as u64, it.head as u64)));
    }
    let comparison = compare(&builds.0, &builds.1, &plan, |rounds| {
        if rounds % 7 == 0 {
            report(&format!("{rounds} rounds"));
        }
    })?;
    show(&comparison, &risen, output, &format!("bench-gate ab {base} {head}"))?;
    Ok(if risen.is_empty() { comparison.exit_code() } else { 3 })
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    comparison: &'a Comparison,
    /// Counts that rose: what, from, to.
    risen: &'a [(String, u64, u64)],
}

fn show(
    comparison: &Comparison,
    risen: &[(String, u64, u64)],
    output: &Output,
    reproduce: &str,
) -> anyhow::Result<()> {
    let mut counts = String::new();
    for (what, from, to) in risen {
        let _ = writeln!(counts, "MORE      {what}: {from}, now {to}");
    }
    if let Some(path) = &output.markdown {
        let mut text = report::markdown(comparison, reproduce);
        if !counts.is_empty() {
            let _ = write!(text, "\nCounts that rose, which no noise explains:\n\n```\n{counts}```\n");
        }
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if output.json {
        print(&(serde_json::to_string_pretty(&Report { comparison, risen })? + "\n"))
    } else {
        let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        print(&(report::text(comparison, coloured) + &counts))
    }
}

/// Every slowdown must be found in every bench, and none where there is none.
fn calibrate_instructions(slowdowns: &[f64]) -> anyhow::Result<u8> {
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
fn own_build() -> anyhow::Result<Build> {
    let own = std::env::current_exe().context("the path of this program is not known")?;
    let program = own.with_file_name("bench-slice");
    anyhow::ensure!(program.exists(), "{} is missing; `cargo build --release -p bench`", program.display());
    Ok(Build::new(&program))
}

fn calibration(trials: usize, slow_trials: usize, slowdowns: &[f64], json: bool) -> anyhow::Result<u8> {
    let (build, plan) = (own_build()?, Plan::default());
    let cases = std::iter::once((0.0, trials)).chain(slowdowns.iter().map(|&slow| (slow, slow_trials)));
    let mut found: Vec<Calibration> = Vec::new();
    for (handicap, trials) in cases {
        let one = calibrate(&build, &plan, handicap, trials, |done| {
            if done % 10 == 0 {
                report(&format!("{:.0} % slower: {done} of {trials}", handicap * 100.0));
            }
        })?;
        found.push(one);
    }
    if json {
        print(&(serde_json::to_string_pretty(&found)? + "\n"))?;
    } else {
        print(&report::calibration(&found))?;
    }
    Ok(0)
}

fn report(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}
