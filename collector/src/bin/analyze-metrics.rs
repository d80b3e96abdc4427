//! The program `analyze-metrics`: the documented trend report over the records of past runs.

use std::env;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Arg, Command, value_parser};
use collector::trends::{Report, Runs};

const VARIABLE: &str = "COLLECTOR_METRICS_DIR";
const DEFAULT_FOLDER: &str = "./metrics";
const AFTER_HELP: &str = "Exit codes: 0 done, 1 the folder cannot be read, 2 wrong usage.";

fn main() -> ExitCode {
    let matches = match command_line().try_get_matches() {
        Ok(matches) => matches,
        Err(refused) => {
            // Help and version come this way too, on stdout and as success.
            let _ = refused.print();
            return ExitCode::from(if refused.use_stderr() { 2 } else { 0 });
        }
    };
    // An empty variable counts as not set.
    let folder = matches
        .get_one::<PathBuf>("metrics_dir")
        .cloned()
        .or_else(|| env::var_os(VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(DEFAULT_FOLDER));
    match print_report(&folder) {
        Err(error) if !is_closed_pipe(&error) => {
            let line = format!("{error:#}").replace(['\n', '\r'], " ");
            let _ = writeln!(io::stderr(), "error: {line}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn command_line() -> Command {
    let help = format!("The folder of run records [env: {VARIABLE}] [default: {DEFAULT_FOLDER}]");
    Command::new("analyze-metrics")
        .about("Reports how long past runs took, what they found and how often they failed")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(AFTER_HELP)
        .arg(
            Arg::new("metrics_dir")
                .long("metrics-dir")
                .value_name("DIR")
                .help(help)
                .value_parser(value_parser!(PathBuf)),
        )
}

fn print_report(folder: &std::path::Path) -> anyhow::Result<()> {
    let runs = Runs::load(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut out = BufWriter::new(io::stdout().lock());
    Report::of(&runs).write(&mut out)?;
    Ok(out.flush()?)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
