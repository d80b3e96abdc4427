//! A build's `bench-slice`, asked for one slice after the other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

/// A build that can be measured.
#[derive(Debug, Clone)]
pub struct Build {
    /// Its `bench-slice`.
    pub program: PathBuf,
    /// By how much more work than asked for it does, to see whether that is found: 0.05 for 5 %.
    pub handicap: f64,
}

impl Build {
    /// A build as it is.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), handicap: 0.0 }
    }

    /// Starts a process of it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self) -> anyhow::Result<Slices> {
        let started = Command::new(&self.program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = started.with_context(|| format!("cannot start {}", self.program.display()))?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("{} has no pipes", self.program.display());
        };
        Ok(Slices { process, stdin, stdout: BufReader::new(stdout), handicap: self.handicap })
    }
}

/// A process that measures.
#[derive(Debug)]
pub struct Slices {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    handicap: f64,
}

impl Slices {
    /// How long a number of iterations of a bench takes; nothing if the build does not know it.
    ///
    /// # Errors
    /// If the process has ended or says something else.
    pub fn measure(&mut self, id: &str, iterations: u64) -> anyhow::Result<Option<Duration>> {
        let iterations = (iterations as f64 * (1.0 + self.handicap)).round() as u64;
        writeln!(self.stdin, "{id} {iterations}")?;
        self.stdin.flush()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        match line.trim() {
            "unknown" => Ok(None),
            "" => Err(anyhow!("bench-slice ended while it measured {id}")),
            text => {
                let nanoseconds = text
                    .parse()
                    .map_err(|_| anyhow!("bench-slice says `{text}` where it should say how long"))?;
                Ok(Some(Duration::from_nanos(nanoseconds)))
            }
        }
    }
}

impl Drop for Slices {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
