//! `bench-gate record` and `compare`: criterion's own results, for machines that run nothing else.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::Context as _;
use bench::gate::baseline::{self, Past, Results};
use bench::gate::pairs::{Compared, Comparison, Verdict};
use chrono::Utc;
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use collector::files::writable;

use crate::output::{Output, Report, print};
use crate::percent;

#[derive(Debug, clap::Args)]
pub(crate) struct Record {
    /// The name.
    #[arg(long, value_parser = file_name)]
    name: String,
    /// Append them to a history as well, a line a bench (JSON Lines).
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(writable))]
    history: Option<PathBuf>,
    /// Which revision that is, for the history [default: the one that is checked out].
    #[arg(long, value_name = "REVISION", requires = "history")]
    revision: Option<String>,
    #[command(flatten)]
    folders: Folders,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// The name.
    #[arg(long, value_parser = file_name)]
    baseline: String,
    /// Smaller differences are ignored.
    #[arg(long, default_value = "5%", value_parser = percent)]
    tolerance: f64,
    /// A bench that is slower beyond doubt fails the gate from here on.
    #[arg(long, default_value = "10%", value_parser = percent)]
    fail: f64,
    /// A bench that only the baseline has, on purpose; without this it is a regression. May be repeated.
    #[arg(long, value_name = "NAME")]
    accept_vanished: Vec<String>,
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    output: Output,
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

impl Folders {
    fn kept(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }
}

/// A name that is a file's name on every system.
fn file_name(name: &str) -> Result<String, String> {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !name.is_empty() && !name.starts_with('.') && name.bytes().all(usual);
    is_name
        .then(|| name.to_owned())
        .ok_or_else(|| "may have letters, digits, `-`, `_` and `.` only".to_owned())
}

impl Record {
    pub(crate) fn carry_out(self) -> anyhow::Result<u8> {
        let results = Results::of_criterion(&self.folders.criterion)?.measured_here()?;
        let path = self.folders.kept(&self.name);
        results.save(&path)?;
        if let Some(history) = self.history {
            let revision = self.revision.map_or_else(head, Ok)?;
            append(&history, &results.history(Utc::now(), &revision))?;
        }
        print(&format!("{} benches are kept in {}\n", results.len(), path.display()))?;
        Ok(0)
    }
}

impl Compare {
    pub(crate) fn carry_out(self) -> anyhow::Result<u8> {
        let before = Results::load(&self.folders.kept(&self.baseline))?;
        let after = Results::of_criterion(&self.folders.criterion)?.measured_here()?;
        let comparison = baseline::compare(&before, &after, self.tolerance, &self.accept_vanished);
        let code = exit_code(&comparison, self.fail);
        let reproduce = format!("bench-gate compare --baseline {}", self.baseline);
        Report::new(comparison, &[], reproduce).show(&self.output)?;
        Ok(code)
    }
}

/// A slowdown above the tolerance but below what fails is reported and passes; a bench that is missing fails.
fn exit_code(comparison: &Comparison, fail: f64) -> u8 {
    let fails = |bench: &&Compared| match bench.verdict {
        Verdict::Slower => bench.ratio.is_some_and(|ratio| ratio.value >= 1.0 + fail),
        verdict => verdict == Verdict::Vanished,
    };
    if comparison.disturbed.is_some() {
        4
    } else if comparison.benches.iter().any(|bench| fails(&bench)) {
        3
    } else if comparison.benches.iter().any(|bench| bench.verdict == Verdict::Unsure) {
        4
    } else {
        0
    }
}

/// The revision that is checked out.
fn head() -> anyhow::Result<String> {
    let output =
        process::Command::new("git").args(["rev-parse", "HEAD"]).output().context("cannot start git")?;
    anyhow::ensure!(
        output.status.success(),
        "this folder is not a git work tree; name the revision with --revision"
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
