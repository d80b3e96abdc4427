//! The documents' nine categories, each scored by a rule from measured values.

use chrono::TimeDelta;

use super::{BUFFER, MEMORY_BYTES, later_news, overview, sorted, title};
use crate::analysis::document::{Cell, Document, Fact, Item, Section, Table};
use crate::analysis::series::Schedule;
use crate::analysis::statistics::{Share, Sorted};
use crate::quantity::{Quantity, Unit};
use crate::record::compact::RunSlice;
use crate::record::history::History;

/// A category: what the documents give it, the figure, and what the value is worth.
struct Score {
    category: &'static str,
    documented: f64,
    figure: Cell,
    points: Option<f64>,
    rule: &'static str,
}

pub(super) fn document(history: &History, interval: Option<TimeDelta>) -> Document {
    let runs = history.runs.all();
    let schedule = Schedule::new(runs, interval);
    let scores = scores(runs, schedule.as_ref());
    let measured = Sorted::new(scores.iter().filter_map(|score| score.points));
    let overall = vec![
        Fact {
            name: "overall",
            label: "overall, of what is measured",
            value: Cell::maybe(measured.mean(), points),
        },
        Fact { name: "documented", label: "documented", value: Cell::text("8.8/10") },
    ];
    let rows = scores.into_iter().map(|score| {
        vec![
            Cell::text(score.category),
            points(score.documented),
            Cell::maybe(score.points, points),
            score.figure,
            Cell::text(score.rule),
        ]
    });
    let columns = [
        ("category", "category"),
        ("documented", "documented"),
        ("score", "score"),
        ("figure", "measured"),
        ("rule", "rule"),
    ];
    let table = Table::new("categories", &columns, rows.collect());
    let card = Section::new("scorecard", "Scorecard", vec![Item::Table(table), Item::Facts(overall)]);
    let sections = vec![overview(history, schedule.as_ref()), card];
    Document { name: "scorecard", title: title("Scorecard", runs), sections }
}

/// The mean score of what is measured.
pub(super) fn overall(runs: RunSlice<'_>) -> Option<f64> {
    let schedule = Schedule::new(runs, None);
    let scores = scores(runs, schedule.as_ref());
    Sorted::new(scores.iter().filter_map(|score| score.points)).mean()
}

fn points(points: f64) -> Cell {
    Cell::text(format!("{points:.1}/10"))
}

/// The powers of ten of headroom that score ten; none scores zero.
fn by_headroom(headroom: Option<f64>, powers: f64) -> Option<f64> {
    Some((10.0 * headroom?.log10() / powers).clamp(0.0, 10.0))
}

fn scores(runs: RunSlice<'_>, schedule: Option<&Schedule>) -> Vec<Score> {
    let interval_s = schedule.map(|it| it.interval.as_seconds_f64());
    let cpu = sorted(runs, Quantity::CpuTime).mean().zip(interval_s).map(|(cpu, interval)| cpu / interval);
    let memory = sorted(runs, Quantity::PeakMemory).max();
    let saved = saved_by_compression(runs);
    let objects = objects_of_a_run(runs);
    let an_event = time_of_an_event(runs);
    let room = Sorted::new(later_news(runs).map(|(_, new)| new)).max().map(|most| BUFFER / most.max(1.0));
    let failed = runs.failed();
    let reliable = (!runs.is_empty()).then(|| Share::new(runs.len() - failed, runs.len()).low);
    let recorded = schedule.map(|it| runs.len() as f64 / (runs.len() + it.missed()) as f64);
    let score =
        |category, documented, figure, points, rule| Score { category, documented, figure, points, rule };
    vec![
        score(
            "CPU Efficiency",
            9.0,
            Cell::new(cpu, Unit::Share),
            by_headroom(cpu.map(|cpu| 1.0 / cpu), 4.0),
            "share of a processor: 10 for a ten-thousandth, 2.5 less for ten times as much",
        ),
        score(
            "Memory Efficiency",
            9.0,
            Cell::new(memory, Unit::Bytes),
            by_headroom(memory.map(|memory| MEMORY_BYTES / memory), 3.0),
            "of 8 GB: 10 for a thousandth, 3.3 less for ten times as much",
        ),
        score(
            "Network Efficiency",
            8.0,
            Cell::new(saved, Unit::Share),
            saved.map(|saved| (10.0 * saved).clamp(0.0, 10.0)),
            "bytes of the response that compression saves: 10 for all",
        ),
        score(
            "Storage Efficiency",
            9.0,
            Cell::maybe(objects, Cell::Count),
            objects.map(|objects| (10.0 / objects).clamp(0.0, 10.0)),
            "objects written by a run with new events: 10 for one, 5 for two",
        ),
        score(
            "Algorithm Efficiency",
            10.0,
            Cell::new(an_event, Unit::Seconds),
            by_headroom(an_event.map(|seconds| 1e-3 / seconds), 3.0),
            "finding and comparing an event: 10 for 1 µs, 3.3 less for ten times as much",
        ),
        score(
            "Scalability",
            9.0,
            Cell::maybe(room, |room| Cell::text(format!("{room:.1}x"))),
            by_headroom(room, 2.0),
            "buffer for each new event of the fullest poll: 10 for 100x, 5 for 10x",
        ),
        score("Code Quality", 9.0, Cell::Missing, None, "records say nothing about it"),
        score(
            "Error Handling",
            8.0,
            Cell::new(reliable, Unit::Share),
            reliable.map(|reliable| (-10.0 / 4.0 * (1.0 - reliable).max(1e-9).log10()).clamp(0.0, 10.0)),
            "runs that succeed, the lower bound at 95 %: 10 for 99.99 %, 5 for 99 %",
        ),
        score(
            "Monitoring",
            7.0,
            Cell::new(recorded, Unit::Share),
            recorded.map(|recorded| 10.0 * recorded),
            "runs that were due and left a record: 10 for all",
        ),
    ]
}

fn saved_by_compression(runs: RunSlice<'_>) -> Option<f64> {
    let (wire, whole) =
        (sorted(runs, Quantity::WireBytes).mean()?, sorted(runs, Quantity::ApiResponseBytes).mean()?);
    (whole > 0.0).then(|| 1.0 - wire / whole)
}

fn objects_of_a_run(runs: RunSlice<'_>) -> Option<f64> {
    let with_news = runs.iter().filter(|run| run.is_set(Quantity::NewEventsCount));
    Sorted::new(
        with_news.filter_map(|run| run.get(Quantity::ObjectsWritten).filter(|objects| *objects > 0.0)),
    )
    .mean()
}

fn time_of_an_event(runs: RunSlice<'_>) -> Option<f64> {
    let events = sorted(runs, Quantity::ApiEventsTotal).median().filter(|events| *events > 0.0)?;
    let seconds = sorted(runs, Quantity::Parse).median().unwrap_or(0.0)
        + sorted(runs, Quantity::Deduplication).median()?;
    (seconds > 0.0).then(|| seconds / events)
}
