//! The program `analyze-metrics`: reports over the records of past runs.

use std::env;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use clap::{CommandFactory as _, Parser, error::ErrorKind};

use super::output::report_error;
use super::{Exit, is_closed_pipe, refuse};
use crate::analysis::compare::Sides;
use crate::analysis::condition::Condition;
use crate::analysis::document::Format;
use crate::analysis::pack::pack;
use crate::analysis::report::{self, Report};
use crate::analysis::{baseline, compare};
use crate::record::compact::RunSlice;
use crate::record::history::{History, Input, Period};
use crate::text::printable;
use crate::trends;

const VARIABLE: &str = "COLLECTOR_METRICS_DIR";
const DEFAULT_FOLDER: &str = "./metrics";
const AFTER_HELP: &str = "\
Examples:
  analyze-metrics                                   the documented report
  analyze-metrics --report trends --last 90d        what changed in three months, and when
  analyze-metrics --report bottlenecks --format html > page.html
  analyze-metrics --compare 2026-01..2026-02 --format markdown
  analyze-metrics --compare 2026Q1..2026Q2          this quarter and the one before
  analyze-metrics --save-baseline v1 --last 30d     keep the runs of a month ...
  analyze-metrics --baseline v1 --last 30d          ... and compare a later month with them
  analyze-metrics --last 1d --fail-on 'p95(api_fetch) > 2s' --fail-on 'mean(failed) > 5%'

Exit codes: 0 done, 1 a condition of --fail-on holds, or the records cannot be read, 2 wrong usage.";

/// Reports how long past runs took, what they found and how often they failed.
#[derive(Debug, Parser)]
#[command(name = "analyze-metrics", version, long_version = include_str!(concat!(env!("OUT_DIR"), "/version")), after_help = AFTER_HELP)]
struct CommandLine {
    /// Folders of records, files of them (also JSON Lines, also compressed), or - for JSON Lines on standard input; instead
    /// of --metrics-dir.
    #[arg(value_name = "PATH", conflicts_with = "metrics_dir")]
    paths: Vec<PathBuf>,
    #[arg(
        long,
        value_name = "DIR",
        help = format!("The folder of run records [env: {VARIABLE}] [default: {DEFAULT_FOLDER}]")
    )]
    metrics_dir: Option<PathBuf>,
    /// Which report, in place of the documented one.
    #[arg(long)]
    report: Option<Report>,
    /// Compare two sides, each a day, a month, a quarter, a year, FROM/TO, a folder or a file: 2026-01..2026-02, 2026Q1..2026Q2.
    #[arg(long, value_name = "BEFORE..AFTER", conflicts_with_all = ["report", "since", "until", "last"])]
    compare: Option<Sides>,
    /// Compare the runs with those that --save-baseline has kept under this name.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["report", "compare"], value_parser = baseline::check_name)]
    baseline: Option<String>,
    /// Keep the selected runs under a name, in the folder `baselines` of the records; then no report is printed unless one is
    /// asked for.
    #[arg(long, value_name = "NAME", value_parser = baseline::check_name)]
    save_baseline: Option<String>,
    /// In which form a report is shown.
    #[arg(long, default_value = "text")]
    format: Format,
    /// Only runs since then: 2026-01-31, or 2026-01-31T07:00:00Z.
    #[arg(long, value_name = "DATE", value_parser = since)]
    since: Option<DateTime<Utc>>,
    /// Only runs until then, a day included.
    #[arg(long, value_name = "DATE", value_parser = until)]
    until: Option<DateTime<Utc>>,
    /// Only runs at most so long before the last one: 30d.
    #[arg(long, value_name = "TIME", value_parser = length)]
    last: Option<TimeDelta>,
    /// How far apart runs should be [default: as they usually are].
    #[arg(long, value_name = "TIME", value_parser = length, requires = "report")]
    interval: Option<TimeDelta>,
    /// Fail, and say so, if this holds: `p95(api_fetch) > 2s`. Several are possible. With --compare, of the later side.
    #[arg(long, value_name = "CONDITION")]
    fail_on: Vec<Condition>,
    /// Pack records that are older into one compressed file a month, which reports read as well; then no report is printed
    /// unless one is asked for.
    #[arg(long, value_name = "TIME", value_parser = length)]
    archive_older_than: Option<TimeDelta>,
}

fn since(text: &str) -> Result<DateTime<Utc>, String> {
    moment(text).map(|[from, _]| from)
}

fn until(text: &str) -> Result<DateTime<Utc>, String> {
    moment(text).map(|[_, to]| to)
}

/// A day, or a moment in it.
fn moment(text: &str) -> Result<[DateTime<Utc>; 2], String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok([time.to_utc(); 2]);
    }
    compare::period(text).ok_or_else(|| "not a date such as 2026-01-31 or 2026-01-31T07:00:00Z".to_owned())
}

fn length(text: &str) -> Result<TimeDelta, String> {
    let length = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let length = TimeDelta::from_std(length).map_err(|error| error.to_string())?;
    // About as long as there have been records.
    if length > TimeDelta::days(36_500) { Err("too long".to_owned()) } else { Ok(length) }
}

/// The program `analyze-metrics`.
#[must_use]
pub fn main() -> ExitCode {
    let checked = CommandLine::try_parse().and_then(|it| it.check().map(|()| it));
    let exit = match checked.map(|command_line| command_line.carry_out()) {
        Ok(Ok(conditions_hold)) => {
            if conditions_hold {
                Exit::Failed
            } else {
                Exit::Done
            }
        }
        Ok(Err(error)) if is_closed_pipe(&error) => Exit::Done,
        Ok(Err(error)) => report_error(&error, Exit::Failed),
        Err(refused) => refuse(&refused),
    };
    exit.into()
}

impl CommandLine {
    /// The documented report is over all records of a folder.
    fn check(&self) -> Result<(), clap::Error> {
        let reports = self.prints_document();
        let is_one_folder = self.paths.len() <= 1 && self.paths.iter().all(|path| path.is_dir());
        let chooses = !is_one_folder || self.since.is_some() || self.until.is_some() || self.last.is_some();
        let wrong = |message: &str| Err(Self::command().error(ErrorKind::MissingRequiredArgument, message));
        if chooses && !reports && self.fail_on.is_empty() && self.save_baseline.is_none() {
            if let Some(path) = self.paths.iter().find(|path| path.as_os_str() != "-" && !path.exists()) {
                return wrong(&format!("{}: no such file or folder", printable(path.display())));
            }
            return wrong(
                "without --report, all records of one folder are reported; for a period or other records, name a report with --report",
            );
        }
        if self.format != Format::Text && !reports {
            return wrong("the documented report is text; for other forms, ask for one with --report");
        }
        Ok(())
    }

    /// Whether a document is asked for, in place of the documented report.
    fn prints_document(&self) -> bool {
        self.report.is_some() || self.compare.is_some() || self.baseline.is_some()
    }

    /// Whether a condition holds that should not.
    fn carry_out(&self) -> anyhow::Result<bool> {
        let folder = self.folder();
        let mut out = BufWriter::new(io::stdout().lock());
        if let Some(age) = self.archive_older_than {
            archive(&folder, age, &mut out)?;
        }
        if !self.prints_document() && self.fail_on.is_empty() && self.save_baseline.is_none() {
            if self.archive_older_than.is_none() {
                let runs = trends::Runs::load(&folder).with_context(|| cannot_read(&folder))?;
                trends::Report::new(&runs).write(&mut out)?;
            }
            out.flush()?;
            return Ok(false);
        }
        let reads_history =
            self.compare.as_ref().is_none_or(Sides::are_in_history) || self.save_baseline.is_some();
        let history = if reads_history { self.history(&folder)? } else { History::default() };
        if let Some(name) = &self.save_baseline {
            let path = baseline::save(&self.baselines(), name, &history)?;
            writeln!(out, "{} runs are kept in {}", history.runs.all().len(), path.display())?;
        }
        if let Some(name) = &self.baseline {
            let before = baseline::load(&self.baselines(), name)?;
            out.write_all(
                report::compare(&(&before).into(), &(&history).into()).show(self.format).as_bytes(),
            )?;
        } else if let Some(sides) = &self.compare {
            let [before, after] = sides.runs(&history)?;
            out.write_all(report::compare(&before, &after).show(self.format).as_bytes())?;
            out.flush()?;
            return self.judge(after.all());
        } else if let Some(report) = self.report {
            out.write_all(report.document(&history, self.interval).show(self.format).as_bytes())?;
        }
        out.flush()?;
        self.judge(history.runs.all())
    }

    fn judge(&self, runs: RunSlice<'_>) -> anyhow::Result<bool> {
        let mut holds = false;
        for condition in &self.fail_on {
            match condition.judge(runs) {
                Ok(None) => {}
                Ok(Some(met)) => {
                    let _ = writeln!(io::stderr(), "error: {}", printable(&met));
                    holds = true;
                }
                Err(no_runs) => return Err(no_runs.into()),
            }
        }
        Ok(holds)
    }

    /// The folder of records; an empty variable counts as not set.
    fn folder(&self) -> PathBuf {
        if let [folder] = &self.paths[..] {
            return folder.clone();
        }
        let variable = || env::var_os(VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        self.metrics_dir.clone().or_else(variable).unwrap_or_else(|| PathBuf::from(DEFAULT_FOLDER))
    }

    /// The folder whose `baselines` are meant: that of records, or the one of a file of records.
    fn baselines(&self) -> PathBuf {
        let folder = self.folder();
        if folder.is_file() { folder.parent().map_or(folder.clone(), Path::to_owned) } else { folder }
    }

    fn history(&self, folder: &Path) -> anyhow::Result<History> {
        let input =
            |path: &PathBuf| if path.as_os_str() == "-" { Input::Stdin } else { Input::Path(path.clone()) };
        let inputs: Vec<Input> = if self.paths.is_empty() {
            vec![Input::Path(folder.to_owned())]
        } else {
            self.paths.iter().map(input).collect()
        };
        let period = Period { since: self.since, until: self.until, last: self.last };
        History::read_period(&inputs, Utc::now(), &period).context("cannot read the records")
    }
}

fn cannot_read(folder: &Path) -> String {
    format!("cannot read {}", folder.display())
}

fn archive(folder: &Path, age: TimeDelta, out: &mut impl io::Write) -> anyhow::Result<()> {
    let now = Utc::now();
    let packed = pack(folder, now - age, now).with_context(|| format!("cannot pack {}", folder.display()))?;
    let files = packed.files.len();
    writeln!(
        out,
        "{} records are packed into {files} file{}",
        packed.records,
        if files == 1 { "" } else { "s" }
    )?;
    for left in packed.left {
        writeln!(out, "left as it is: {}: {}", printable(left.place), printable(left.reason))?;
    }
    Ok(())
}
