//! Writes results, progress and errors.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use collector::files;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// The option `--json` of a command.
#[derive(Debug, Args)]
pub(super) struct JsonOutput {
    /// Write all results as JSON; - for standard output, instead of the tables.
    #[arg(long, value_name = "FILE", value_parser = writable())]
    json: Option<PathBuf>,
}

/// Where the results of a command go.
#[derive(Debug, Args)]
pub(super) struct Results {
    #[command(flatten)]
    json: JsonOutput,
    /// Write a page with charts.
    #[arg(long, value_name = "FILE", value_parser = writable())]
    html: Option<PathBuf>,
}

/// A file is checked before the measurement that it is for.
fn writable() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new()
        .try_map(|path| if path == Path::new("-") { Ok(path) } else { files::writable(path) })
}

impl Results {
    /// Writes the page if it is asked for, then as [`JsonOutput::write`].
    pub(super) fn write(
        &self,
        value: &impl Serialize,
        page: impl FnOnce() -> anyhow::Result<String>,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        if let Some(path) = &self.html {
            write_file(path, &page()?)?;
        }
        self.json.write(value, text)
    }
}

impl JsonOutput {
    /// Writes the JSON if it is asked for, and prints the text unless the JSON goes to standard output.
    pub(super) fn write(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let Some(path) = &self.json else { return print(&text()) };
        let json = json(value)?;
        if path == Path::new("-") {
            return print(&json);
        }
        write_file(path, &json)?;
        print(&text())
    }
}

pub(super) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Ends the program with wrong usage.
pub(super) fn usage(message: &str) -> ! {
    clap::Error::raw(clap::error::ErrorKind::InvalidValue, format!("{message}\n")).exit()
}

/// Ends the program: whether what was expected came true, or why there is no answer.
pub(super) fn end(done: anyhow::Result<bool>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

pub(super) fn print(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// How far something is, with the time left; on a terminal only.
pub(super) fn progress(of: u64, what: &str) -> ProgressBar {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(of), target).with_message(what.to_owned());
    match ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
