//! `loadtest failover`.

use std::fmt::Write as _;

use clap::Args;
use loadtest::failover::{Answer, Failure, Question, RATES, Row, measure};
use loadtest::report::html::{Axes, Line, Page};
use loadtest::report::table::Table;

use super::{output, run};

/// Options of `loadtest failover`.
#[derive(Debug, Args)]
pub(super) struct Failover {
    /// Number of drills; rates and failures take turns.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,
    /// The first seed. Same seed and options, same drill.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Events an hour at rate 1.
    #[arg(long, default_value_t = fixtures::DOCUMENTED_EVENTS_PER_HOUR, value_parser = run::positive, allow_negative_numbers = true)]
    base_rate: f64,
    #[command(flatten)]
    results: output::Results,
}

impl Failover {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let Self { seeds, seed, base_rate, results } = self;
        let question = Question { seeds, first: seed, base_rate };
        let bar = output::progress(seeds, "drills");
        let answer = measure(&question, || bar.inc(1))?;
        bar.finish_and_clear();
        results.write(&answer, || page(&answer), || text(&answer))?;
        Ok(answer.is_sound())
    }
}

fn text(answer: &Answer) -> String {
    let mut text = format!("{}\n", table(&answer.rows));
    for (seed, fault) in &answer.faults {
        let _ = writeln!(text, "seed {seed}: {fault}");
    }
    let total = |pick: fn(&Row) -> usize| answer.rows.iter().map(pick).sum::<usize>();
    let _ = writeln!(
        text,
        "{} drills within the tolerable outage: {} events lost, {} duplicates; {} beyond it: {} lost. {:.1} s",
        total(|row| row.drills),
        total(|row| row.lost),
        total(|row| row.duplicates),
        total(|row| row.beyond),
        total(|row| row.lost_beyond),
        answer.elapsed_s
    );
    text
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "rate",
        "interval",
        "failure",
        "drills",
        "lost",
        "duplicates",
        "failed",
        "split",
        "recovery point",
        "recovery time",
        "beyond",
        "lost there",
        "unreported",
    ]);
    for row in rows {
        let span = |[median, maximum]: [f64; 2]| format!("{median:.1} s ({maximum:.1})");
        table.row(vec![
            format!("{}x", row.rate),
            format!("{} min", row.interval_s / 60),
            row.failure.name().to_owned(),
            row.drills.to_string(),
            row.lost.to_string(),
            row.duplicates.to_string(),
            row.failed.to_string(),
            row.splits.to_string(),
            span(row.recovery_point_s),
            span(row.recovery_time_s),
            row.beyond.to_string(),
            row.lost_beyond.to_string(),
            row.unreported.to_string(),
        ]);
    }
    table
}

fn page(answer: &Answer) -> anyhow::Result<String> {
    let mut page = Page::new("What a fail-over loses, and how long it takes");
    page.section(
        "Drills",
        "The recovery point is the age of the last commit of the replica when the region failed; the recovery time is that of the \
         promotion and the first run, without the time to notice and to decide. Median, and in brackets the maximum. Requests take \
         20 to 180 ms and are waited for one after the other. Beyond: the feed's buffer no longer held what the replica lacked.",
    );
    for (axis, pick) in [
        ("recovery point", (|row| row.recovery_point_s[1]) as fn(&Row) -> f64),
        ("recovery time", |row| row.recovery_time_s[1]),
    ] {
        let line = |(rate, _): (f64, chrono::TimeDelta)| Line {
            name: format!("{rate}x"),
            points: answer
                .rows
                .iter()
                .filter(|row| (row.rate - rate).abs() < f64::EPSILON)
                .enumerate()
                .map(|(failure, row)| (failure as f64, pick(row)))
                .collect(),
        };
        let names =
            Failure::ALL.iter().enumerate().map(|(number, failure)| format!("{number}: {}", failure.name()));
        let names = names.collect::<Vec<_>>().join(", ");
        let title = format!("Maximum {axis}");
        let axes = Axes { title: &title, x: &names, y: "seconds", mark: None };
        page.chart(&axes, &RATES.map(line))?;
    }
    page.table("Drills", &table(&answer.rows));
    Ok(page.finish())
}
