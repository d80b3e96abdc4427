//! Writes results and progress.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use bench::counts::CountChange;
use bench::gate::pairs::Comparison;
use bench::gate::report;
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use collector::files::writable;
use serde::{Deserialize, Serialize};

/// In which form a comparison is printed. Files are checked before the work begins.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Write a comment for a pull request.
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(writable))]
    markdown: Option<PathBuf>,
}

/// A comparison with the counts that changed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) comparison: Comparison,
    /// Counts that rose, or are not counted any more: what, from, to.
    pub(crate) risen: Vec<(String, u64, Option<u64>)>,
    /// The command that reproduces it.
    pub(crate) reproduce: String,
}

impl Report {
    pub(crate) fn new(comparison: Comparison, changes: &[CountChange], reproduce: String) -> Self {
        let regressions = changes.iter().filter(|change| change.is_regression());
        let risen = regressions.map(|it| (it.name.clone(), it.from.unwrap_or(0), it.to)).collect();
        Self { comparison, risen, reproduce }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        if self.risen.is_empty() { self.comparison.exit_code() } else { 3 }
    }

    pub(crate) fn show(&self, output: &Output) -> anyhow::Result<()> {
        let Self { comparison, risen, reproduce } = self;
        let mut counts = String::new();
        for (what, from, to) in risen {
            let _ = match to {
                Some(to) => writeln!(counts, "MORE      {what}: {from}, now {to}"),
                None => writeln!(counts, "VANISHED  {what}: {from}, not counted any more"),
            };
        }
        if let Some(path) = &output.markdown {
            let mut text = report::markdown(comparison, reproduce);
            if !counts.is_empty() {
                let _ = write!(text, "\nCounts that rose, which no noise explains:\n\n```\n{counts}```\n");
            }
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if output.json {
            print(&(serde_json::to_string_pretty(self)? + "\n"))
        } else {
            let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            print(&(report::text(comparison, coloured) + &counts))
        }
    }
}

pub(crate) fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}
