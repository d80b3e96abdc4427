//! What is said of runs: a report for each question.

mod bottlenecks;
mod trends;

use chrono::{DateTime, TimeDelta, Utc};

use super::document::{Cell, Document, Fact, Section};
use super::runs::{History, Run};
use super::series::Schedule;
use super::statistics::Share;

/// A question about runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Report {
    /// What is usual, what changed and when, what failed.
    Trends,
    /// Where the time of a run goes, and how much room is left.
    Bottlenecks,
}

impl Report {
    /// Answers it. `interval` is how far apart runs should be, if that is known better than from their starts.
    #[must_use]
    pub fn document(self, history: &History, interval: Option<TimeDelta>) -> Document {
        match self {
            Self::Trends => trends::document(history, interval),
            Self::Bottlenecks => bottlenecks::document(history, interval),
        }
    }
}

fn fact(name: &'static str, label: &'static str, value: Cell) -> Fact {
    Fact { name, label, value }
}

/// From when to when, in general words.
fn period(runs: &[Run]) -> Option<[DateTime<Utc>; 2]> {
    Some([runs.first()?.start, runs.last()?.start])
}

fn title(what: &str, runs: &[Run]) -> String {
    match period(runs) {
        Some([from, to]) => format!("{what}, {} to {}", from.date_naive(), to.date_naive()),
        None => format!("{what}: no runs"),
    }
}

/// What every report begins with.
fn overview(history: &History, schedule: Option<&Schedule>) -> Section {
    let runs = &history.runs;
    let failed = runs.iter().filter(|run| run.failed).count();
    let reliability = Share::of(runs.len() - failed, runs.len());
    let known = |cell: Cell| if runs.is_empty() { Cell::Missing } else { cell };
    let ends = period(runs);
    let facts = vec![
        fact("runs", "runs", Cell::count(runs.len())),
        fact("from", "first", Cell::maybe(ends, |[from, _]| Cell::Time(from))),
        fact("to", "last", Cell::maybe(ends, |[_, to]| Cell::Time(to))),
        fact(
            "interval_s",
            "usually apart",
            Cell::maybe(schedule, |it| Cell::Seconds(it.interval.as_seconds_f64())),
        ),
        fact("missed_runs", "runs that are missing", Cell::maybe(schedule, |it| Cell::count(it.missed()))),
        fact("failed_runs", "runs that failed", Cell::count(failed)),
        fact("reliability", "runs that succeeded", known(Cell::Share(reliability.value))),
        fact(
            "reliability_95",
            "with 95 % confidence",
            known(Cell::range(Cell::Share(reliability.low), Cell::Share(reliability.high))),
        ),
        fact(
            "possible_gaps",
            "runs before which events may have been missed",
            Cell::count(runs.iter().filter(|run| run.possible_gap).count()),
        ),
        fact("skipped_records", "records that cannot be read", Cell::count(history.skipped.len())),
    ];
    Section::new("overview", "Overview", vec![super::document::Item::Facts(facts)])
}
