//! `loadtest service`.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use chrono::TimeDelta;
use clap::Args;
use loadtest::report::table::Table;
use loadtest::service::{FeedService, Life, Lived, MOST_MEMORY, simulate};
use serde_json::Value;

use super::{output, run};

/// Options of `loadtest service`.
#[derive(Debug, Args)]
pub(super) struct Service {
    /// For how many days.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: u32,
    /// Between two polls.
    #[arg(long, default_value = "30m", value_parser = run::interval)]
    interval: TimeDelta,
    /// Share of the calls to the feed that fail.
    #[arg(long, default_value_t = 0.02, value_parser = run::share, allow_negative_numbers = true)]
    fault_rate: f64,
    /// Same seed and options, same polls.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    results: output::JsonOutput,
}

impl Service {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let Self { days, interval, fault_rate, seed, results } = self;
        let life = Life { days, interval: interval.to_std()? };
        let feed = ServedFeed::start(fault_rate, seed)?;
        let bar = output::progress(life.poll_count(), "polls");
        let runtime = collector::run::runtime()?;
        let lived = runtime.block_on(simulate(&life, &feed.service, || bar.inc(1)))?;
        bar.finish_and_clear();
        results.write(&lived, || table(&lived).to_string())?;
        Ok(lived.is_sound())
    }
}

/// `loadtest serve` as a process of its own, until this is dropped.
struct ServedFeed {
    service: FeedService,
    _process: Running,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl ServedFeed {
    fn start(fault_rate: f64, seed: u64) -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["serve", "--speed", "0", "--no-rules", "--faults", "error,cut"])
            .args(["--fault-rate", &fault_rate.to_string(), "--seed", &seed.to_string()])
            .stdout(Stdio::piped());
        let mut process = Running(command.spawn().context("the feed cannot be started")?);
        let mut line = String::new();
        if let Some(stdout) = process.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let addresses: Value = serde_json::from_str(&line).context("the feed does not say where it is")?;
        let base =
            addresses["page"].as_str().and_then(|page| page.strip_prefix("http://")).unwrap_or_default();
        let service = FeedService::at(base.parse().context("the feed does not say where it is")?);
        Ok(Self { service, _process: process })
    }
}

fn table(lived: &Lived) -> Table {
    let mut table = Table::new(&["the service", "measured", "expected"]);
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let mut row = |what: &str, measured: String, expected: String| {
        table.row(vec![what.to_owned(), measured, expected]);
    };
    row("polls", lived.polls.to_string(), lived.due.to_string());
    row("farthest from the interval", format!("{:.3} s", lived.drift_s), "less than 1 s".to_owned());
    row("of them failed", lived.failed.to_string(), String::new());
    row("events published", lived.published.to_string(), String::new());
    row("events stored", lived.stored.to_string(), String::new());
    row("stored more than once", lived.duplicates.to_string(), "0".to_owned());
    row("possible gaps", lived.possible_gaps.to_string(), "0".to_owned());
    row("pages read meanwhile", lived.pages.to_string(), String::new());
    if let Some((first_day, months)) = lived.rss_by_month_bytes.split_first() {
        row("memory after the first day", megabytes(*first_day), String::new());
        if let Some(month) = months.first() {
            row("after a month", megabytes(*month), String::new());
        }
    }
    row("in the end", megabytes(lived.rss_bytes), String::new());
    row("most memory", megabytes(lived.peak_rss_bytes), format!("less than {}", megabytes(MOST_MEMORY)));
    row("took", format!("{:.1} s", lived.elapsed_s), String::new());
    table
}
