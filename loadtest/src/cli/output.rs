//! Writes results, progress and errors.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use collector::files;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use loadtest::baseline::{Baseline, Limit, json_lines, metrics};
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

/// Keeping results under a name, and comparing with what was kept.
#[derive(Debug, Args)]
pub(super) struct Baselines {
    /// Keep the result under a name.
    #[arg(long, value_name = "NAME")]
    save_baseline: Option<String>,
    /// Compare with a result that was kept: of the same command and options, on this kind of machine.
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// Fail with exit code 1 if a metric differs from the baseline by more: `latency_s.p99>10%`, `achieved_per_s<5%`.
    #[arg(long, value_name = "LIMIT", requires = "baseline")]
    fail_on: Vec<Limit>,
    /// Where results are kept.
    #[arg(long, value_name = "DIR", default_value = "target/loadtest/baselines")]
    baseline_dir: PathBuf,
    /// Write a line of JSON for each metric, as k6 does.
    #[arg(long, value_name = "FILE", value_parser = writable())]
    json_lines: Option<PathBuf>,
}

/// What a result is compared with, read before the measurement.
pub(super) struct Comparing<'a> {
    options: &'a Baselines,
    save: Option<PathBuf>,
    before: Option<Baseline>,
}

impl Baselines {
    /// Options that do not decide what is measured, each with a value.
    const BESIDE: [&'static str; 7] =
        ["--save-baseline", "--baseline", "--fail-on", "--baseline-dir", "--json-lines", "--json", "--html"];

    /// Reads the baseline, and checks names and limits.
    pub(super) fn prepare(&self) -> anyhow::Result<Comparing<'_>> {
        let path = |name: &Option<String>| {
            let name = name.as_ref()?;
            Some(Baseline::path(&self.baseline_dir, name).unwrap_or_else(|error| usage(&error)))
        };
        let (save, before) = (path(&self.save_baseline), path(&self.baseline));
        let before = before.map(|path| Baseline::load(&path)).transpose()?;
        for limit in &self.fail_on {
            if let Some(Err(error)) = before.as_ref().map(|before| before.check(limit)) {
                usage(&error);
            }
        }
        if let Some(path) = &save {
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            files::writable(path.clone()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Comparing { options: self, save, before })
    }

    /// The command with the options that decide what is measured.
    fn command(arguments: impl Iterator<Item = String>) -> Vec<String> {
        let (mut command, mut is_value) = (Vec::new(), false);
        for argument in arguments {
            let name = argument.split('=').next().unwrap_or_default();
            let beside = Self::BESIDE.contains(&name);
            if !beside && !is_value {
                command.push(argument.clone());
            }
            // The value of an option that is left out, unless `=` joins them. `timeline` has a `--json` without a value.
            let is_switch = name == "--json" && command.first().is_some_and(|command| command == "timeline");
            is_value = beside && !argument.contains('=') && !is_switch;
        }
        command
    }
}

impl Comparing<'_> {
    /// Compares a result and keeps it; says whether it is within the limits. The table goes to standard error, beside the
    /// result.
    pub(super) fn finish(self, result: &impl Serialize) -> anyhow::Result<bool> {
        let result = serde_json::to_value(result)?;
        let now = Baseline::new(Baselines::command(std::env::args().skip(1)), &result);
        if let Some(path) = &self.options.json_lines {
            let command = now.command.first().map_or("", String::as_str);
            write_file(path, &json_lines(command, &metrics(&result), chrono::Utc::now()))?;
        }
        let mut within = true;
        if let Some(before) = &self.before {
            let (table, broken) = before.compare(&now, &self.options.fail_on)?;
            let mut text = table.to_string();
            for limit in &broken {
                let _ = writeln!(text, "worse than the baseline: {limit}");
            }
            io::stderr().write_all(text.as_bytes())?;
            within = broken.is_empty();
        }
        // A result beyond the limits does not become the next baseline by itself.
        if let Some(path) = self.save.filter(|_| within) {
            now.save(&path)?;
        }
        Ok(within)
    }
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

/// Ends the program: whether what was expected came true, or why the command failed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_beside_the_measurement_are_not_of_the_command() {
        let command = |line: &str| Baselines::command(line.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(command("stress --json - --baseline a --collectors 4"), "stress --collectors 4");
        assert_eq!(command("stress --fail-on=x>1% --collectors 4 --html x"), "stress --collectors 4");
        assert_eq!(command("timeline --json --save-baseline a"), "timeline");
    }
}
