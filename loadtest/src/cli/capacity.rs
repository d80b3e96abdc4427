//! `loadtest capacity`.

use chrono::TimeDelta;
use clap::Args;
use loadtest::capacity::{Limit, MatrixRow, Question, ResourceRow, limits, matrix, resources};
use loadtest::report::html::{Axes, Line, Page};
use loadtest::report::table::Table;
use loadtest::scenario::{Scenario, play_all};
use serde::Serialize;

use super::{output, run};

/// Options of `loadtest capacity`.
#[derive(Debug, Args)]
pub(super) struct Capacity {
    /// The times between two polls, in multiples of five minutes.
    #[arg(long, value_delimiter = ',', default_value = "5m,10m,15m,30m,60m", value_parser = slots)]
    intervals: Vec<TimeDelta>,
    /// Numbers of polls missed in a row, at the worst moment.
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,4")]
    miss_polls: Vec<u32>,
    /// Events an hour at rate 1.
    #[arg(long, default_value_t = fixtures::DOCUMENTED_EVENTS_PER_HOUR, value_parser = run::positive, allow_negative_numbers = true)]
    base_rate: f64,
    /// How long a simulated month is.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=366))]
    days: u32,
    /// How many months are simulated for each rhythm.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    #[command(flatten)]
    results: output::Results,
    #[command(flatten)]
    baselines: output::Baselines,
}

fn slots(text: &str) -> Result<TimeDelta, String> {
    let time = run::interval(text)?;
    if time.num_seconds() % 300 == 0 { Ok(time) } else { Err("must be a multiple of 5m".to_owned()) }
}

#[derive(Serialize)]
struct Output {
    limits: Vec<Limit>,
    matrix: Vec<MatrixRow>,
    resources: Vec<ResourceRow>,
}

impl Capacity {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let comparing = self.baselines.prepare()?;
        let question = Question {
            intervals: self.intervals,
            missed_polls: self.miss_polls,
            base_rate: self.base_rate,
            days: self.days,
            seeds: self.seeds,
        };
        if let Some(window) = question.longest_window().filter(|window| *window > question.length()) {
            output::usage(&format!(
                "an interval with its missed polls lasts {:.1} days and does not fit into a simulated month of {} days\n\
                 hint: simulate longer months with --days",
                window.as_seconds_f64() / 86_400.0,
                question.days
            ));
        }
        let day = Scenario { days: 1.0, base_rate: self.base_rate, ..Scenario::default() };
        let day = play_all(&[day], || {})?.remove(0);
        let bar = output::progress(2 * question.seeds, "months");
        bar.tick();
        let limits = limits(&question, || bar.inc(1))?;
        bar.finish_and_clear();
        // The first poll stores what the buffer held before.
        let stored_a_day =
            day.stored_bytes * (day.published.saturating_sub(500)) as u64 / day.published.max(1) as u64;
        let output = Output {
            matrix: matrix(self.base_rate, &limits),
            resources: resources(self.base_rate, &day, stored_a_day, &limits),
            limits,
        };
        let Output { limits, matrix, resources } = &output;
        let tables = || [limits_table(limits), matrix_table(matrix), resources_table(resources)];
        let text = || tables().map(|table| table.to_string()).join("\n");
        self.results.write(&output, || page(&output), text)?;
        comparing.finish(&output)
    }
}

fn limits_table(limits: &[Limit]) -> Table {
    let mut table = Table::new(&[
        "rhythm",
        "interval",
        "missed",
        "plain formula",
        "with chance",
        "simulated",
        "difference",
    ]);
    for limit in limits {
        let rate = |rate: f64| format!("{rate:.1}x");
        table.row(vec![
            limit.traffic.to_owned(),
            format!("{} min", limit.interval_s / 60),
            limit.missed_polls.to_string(),
            rate(limit.max_rate_plain),
            rate(limit.max_rate_formula),
            rate(limit.max_rate_simulated),
            format!("{:+.1} %", -100.0 * limit.lowered_by),
        ]);
    }
    table
}

fn matrix_table(rows: &[MatrixRow]) -> Table {
    let mut table = Table::new(&["rate", "interval", "documented", "computed", "simulated", "verdict"]);
    for row in rows {
        table.row(vec![
            format!("{}x", row.rate),
            format!("{} min", row.interval_s / 60),
            row.documented.to_owned(),
            format!("{:.1}x room", row.computed),
            format!("{:.1}x room", row.simulated),
            row.verdict.clone(),
        ]);
    }
    table
}

fn resources_table(rows: &[ResourceRow]) -> Table {
    let mut table = Table::new(&["resource", "documented", "computed", "simulated", "verdict"]);
    for ResourceRow { resource, documented, computed, simulated, verdict } in rows {
        let cells = [resource, documented, computed.as_str(), simulated.as_str(), verdict.as_str()];
        table.row(cells.map(str::to_owned).to_vec());
    }
    table
}

fn page(output: &Output) -> anyhow::Result<String> {
    let mut page = Page::new("At which rate events are lost");
    page.section(
        "Limits",
        "The highest rate without loss. The plain formula divides the buffer by the mean; with chance it allows for \
         events that come at random and for edits, which take places too; simulated: months of the feed.",
    );
    let axes = Axes { title: "Highest rate without loss", x: "minutes between polls", y: "rate", mark: None };
    let line = |name: &str, traffic: &str, pick: fn(&Limit) -> f64| Line {
        name: name.to_owned(),
        points: output
            .limits
            .iter()
            .filter(|limit| limit.traffic == traffic && limit.missed_polls == 0)
            .map(|limit| (limit.interval_s as f64 / 60.0, pick(limit)))
            .collect(),
    };
    let lines = [
        line("plain formula", "flat", |limit| limit.max_rate_plain),
        line("even flow, simulated", "flat", |limit| limit.max_rate_simulated),
        line("real rhythm, simulated", "daily", |limit| limit.max_rate_simulated),
    ];
    page.chart(&axes, &lines)?;
    page.table("Limits", &limits_table(&output.limits));
    page.section("The documents' claims", "Each beside what was computed and simulated.");
    page.table("Scalability matrix", &matrix_table(&output.matrix));
    page.table("Resource headroom", &resources_table(&output.resources));
    Ok(page.finish())
}
