//! Processes that measure: a build's `bench-slice`, asked for one slice after the other, or a bench target with criterion.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, anyhow, bail, ensure};

use super::baseline::Results;
use super::programs::Kind;

/// A build that can be measured.
#[derive(Debug, Clone)]
pub struct Build {
    /// Its program.
    pub program: PathBuf,
    /// By how much more work than asked for it does, to see whether that is found: 0.05 for 5 %.
    pub handicap: f64,
    /// Whether the program is a bench target with criterion.
    pub criterion: bool,
}

impl Build {
    /// A `bench-slice` as it is.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), handicap: 0.0, criterion: false }
    }

    pub(super) fn of_kind(program: &Path, kind: &Kind) -> Self {
        Self { criterion: matches!(kind, Kind::Criterion { .. }), ..Self::new(program) }
    }

    /// Whether a process can be asked for a number of iterations. With criterion, it decides the number itself.
    #[must_use]
    pub fn counts_iterations(&self) -> bool {
        !self.criterion
    }

    /// Starts a process of it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self) -> anyhow::Result<Slices> {
        if self.criterion {
            return Ok(Slices::Criterion { program: self.program.clone(), benches: self.benches()? });
        }
        let started = Command::new(&self.program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = started.with_context(|| format!("cannot start {}", self.program.display()))?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("{} has no pipes", self.program.display());
        };
        let stdout = BufReader::new(stdout);
        Ok(Slices::Process(Process { child: process, stdin, stdout, handicap: self.handicap }))
    }

    /// The benches to compare by default. A `bench-slice` that does not list them has those of this program.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn benches(&self) -> anyhow::Result<Vec<String>> {
        if !self.criterion {
            let Slices::Process(mut process) = self.start()? else { return Ok(Vec::new()) };
            let line = process.ask("benches")?;
            return Ok(serde_json::from_str(&line)
                .unwrap_or_else(|_| crate::catalog::QUICK.map(str::to_owned).to_vec()));
        }
        let mut list = Command::new(&self.program);
        let listed = list.args(["--bench", "--list", "--format", "terse"]).output();
        let listed = listed.with_context(|| format!("cannot start {}", self.program.display()))?;
        ensure!(listed.status.success(), "{} lists no benches", self.program.display());
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        Ok(text.lines().filter_map(|line| line.strip_suffix(": benchmark")).map(str::to_owned).collect())
    }
}

/// A process that measures, or a program with criterion that is started for each measurement.
#[derive(Debug)]
pub enum Slices {
    /// A `bench-slice`.
    Process(Process),
    /// A bench target with criterion.
    Criterion {
        /// The program.
        program: PathBuf,
        /// What it can measure.
        benches: Vec<String>,
    },
}

/// A running `bench-slice`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    handicap: f64,
}

impl Slices {
    /// How long a number of iterations of a bench takes, in seconds; nothing if the build does not know it. With criterion:
    /// the fastest of ten samples, for one iteration.
    ///
    /// # Errors
    /// If the process has ended or prints something else.
    pub fn measure(&mut self, id: &str, iterations: u64) -> anyhow::Result<Option<f64>> {
        match self {
            Self::Process(process) => process.measure(id, iterations),
            Self::Criterion { program, benches } => {
                benches.iter().any(|bench| bench == id).then(|| with_criterion(program, id)).transpose()
            }
        }
    }
}

impl Process {
    fn measure(&mut self, id: &str, iterations: u64) -> anyhow::Result<Option<f64>> {
        let iterations = (iterations as f64 * (1.0 + self.handicap)).round() as u64;
        match self.ask(&format!("{id} {iterations}"))?.as_str() {
            "unknown" => Ok(None),
            "" => Err(anyhow!("bench-slice ended while it measured {id}")),
            text => {
                let nanoseconds: u64 = text.parse().map_err(|_| {
                    anyhow!("bench-slice printed `{text}` instead of a number of nanoseconds")
                })?;
                Ok(Some(nanoseconds as f64 * 1e-9))
            }
        }
    }

    fn ask(&mut self, question: &str) -> anyhow::Result<String> {
        writeln!(self.stdin, "{question}")?;
        self.stdin.flush()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_criterion(program: &Path, id: &str) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(program);
    command.args(["--bench", "--exact", id, "--noplot", "--sample-size", "10"]);
    command.args(["--warm-up-time", "0.02", "--measurement-time", "0.1"]);
    let ended = command.env("CRITERION_HOME", folder.path()).output();
    let ended = ended.with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(ended.status.success(), "{id} failed: {}", String::from_utf8_lossy(&ended.stderr).trim());
    let results = Results::of_criterion(folder.path())?;
    let samples = results.samples(id).with_context(|| format!("criterion left no result of {id}"))?;
    Ok(samples.iter().copied().fold(f64::INFINITY, f64::min) * 1e-9)
}
