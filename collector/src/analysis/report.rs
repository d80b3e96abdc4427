//! What is said of runs: a report for each question.

mod bottlenecks;
mod comparison;
mod network;
mod scalability;
mod scorecard;
mod trends;

pub use comparison::compare;

use chrono::{DateTime, TimeDelta, Utc};

use super::document::{Cell, Document, Fact, Section};
use super::series::Schedule;
use super::statistics::{Share, Sorted};
use crate::quantity::Quantity;
use crate::record::compact::{CompactRun, RunSlice};
use crate::record::history::History;

/// What the provider allows: a call a minute, and this number of events in a response.
const CALLS_A_DAY: f64 = 1_440.0;
const BUFFER: f64 = 500.0;
/// The machine that the documents take for granted.
const MEMORY_BYTES: f64 = 8e9;

/// A question about runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Report {
    /// What is usual, what changed and when, what failed.
    Trends,
    /// Where the time of a run goes, and how much room is left.
    Bottlenecks,
    /// How much the feed brings, whether that grows, and when a limit is reached.
    Scalability,
    /// The documents' categories, scored by rules from measured values.
    Scorecard,
}

impl Report {
    /// Answers it. `interval` is how far apart runs should be, if that is known better than from their starts.
    #[must_use]
    pub fn document(self, history: &History, interval: Option<TimeDelta>) -> Document {
        match self {
            Self::Trends => trends::document(history, interval),
            Self::Bottlenecks => bottlenecks::document(history, interval),
            Self::Scalability => scalability::document(history, interval),
            Self::Scorecard => scorecard::document(history, interval),
        }
    }
}

fn fact(name: &'static str, label: &'static str, value: Cell) -> Fact {
    Fact { name, label, value }
}

/// All values of a quantity.
fn sorted(runs: RunSlice<'_>, quantity: Quantity) -> Sorted {
    Sorted::new(runs.values(quantity))
}

/// New events of runs that knew others already: the first one finds a whole buffer of them.
fn later_news(runs: RunSlice<'_>) -> impl Iterator<Item = (DateTime<Utc>, f64)> {
    let knew = |number: usize, run: CompactRun<'_>| {
        run.get(Quantity::BufferOverlap).map_or(number > 0, |overlap| overlap > 0.0)
    };
    let later = runs.iter().enumerate().filter(move |(number, run)| knew(*number, *run));
    later.filter_map(|(_, run)| Some((run.start, run.get(Quantity::NewEventsCount)?)))
}

/// From when to when.
fn period(runs: RunSlice<'_>) -> Option<[DateTime<Utc>; 2]> {
    Some([runs.first()?.start, runs.last()?.start])
}

fn title(what: &str, runs: RunSlice<'_>) -> String {
    match period(runs) {
        Some([from, to]) => format!("{what}, {} to {}", from.date_naive(), to.date_naive()),
        None => format!("{what}: no runs"),
    }
}

/// What every report begins with.
fn overview(history: &History, schedule: Option<&Schedule>) -> Section {
    let runs = history.runs.all();
    let failed = runs.failed();
    let reliability = Share::new(runs.len() - failed, runs.len());
    let known = |cell: Cell| if runs.is_empty() { Cell::Missing } else { cell };
    let ends = period(runs);
    let facts = vec![
        fact("runs", "runs", Cell::count(runs.len())),
        fact("from", "first", Cell::maybe(ends, |[from, _]| Cell::Time(from))),
        fact("to", "last", Cell::maybe(ends, |[_, to]| Cell::Time(to))),
        fact(
            "interval_s",
            "median interval",
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
            Cell::count(runs.iter().filter(|run| run.is_set(Quantity::PossibleGap)).count()),
        ),
        fact("skipped_records", "records that cannot be read", Cell::count(history.skipped.len())),
    ];
    Section::new("overview", "Overview", vec![super::document::Item::Facts(facts)])
}
