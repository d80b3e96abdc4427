//! `bench-gate explain`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use bench::explain::document::document;
use bench::explain::explain;
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use collector::analysis::document::Format;
use collector::files::writable;

use crate::Builds;
use crate::output::{print, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The revision before.
    before: String,
    /// The revision after.
    after: String,
    /// The bench.
    name: String,
    #[command(flatten)]
    builds: Builds,
    /// In which form.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write it to a file instead of printing it.
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(writable))]
    output: Option<PathBuf>,
}

impl Explain {
    pub(crate) fn carry_out(self) -> anyhow::Result<u8> {
        let builder = self.builds.open(true)?;
        let commits = [&self.before, &self.after].map(|revision| builder.repository().commit(revision));
        let [before, after] = commits.map(|commit| {
            let commit = commit?;
            progress(&format!("building {commit}"));
            builder.build(&commit)
        });
        let (before, after) = (before?, after?);
        progress("counting");
        let explanation = explain(&before, &after, &self.name)?;
        let [one, other] = [&before, &after].map(|programs| programs.commit.to_string());
        let text = document(&explanation, &one, &other, &self.name).show(self.format);
        if let Some(path) = self.output {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        } else {
            print(&text)?;
        }
        Ok(0)
    }
}
