//! Where the time of a run goes, what bounds it, and how much room is left.

use chrono::TimeDelta;

use super::{BUFFER, CALLS_A_DAY, MEMORY_BYTES, fact, later_news, network, overview, sorted, title};
use crate::analysis::document::{Cell, Document, Item, Section, Table};
use crate::analysis::series::Schedule;
use crate::analysis::statistics::Sorted;
use crate::quantity::{Quantity, StepKind, Unit};
use crate::record::compact::RunSlice;
use crate::record::history::History;

/// The line that the documents take for granted: 100 Mbit/s.
const LINE_BYTES_A_SECOND: f64 = 100e6 / 8.0;
const DAY_S: f64 = 86_400.0;

pub(super) fn document(history: &History, interval: Option<TimeDelta>) -> Document {
    let runs = history.runs.all();
    let schedule = Schedule::new(runs, interval);
    let sections = vec![
        overview(history, schedule.as_ref()),
        timeline(runs),
        ranking(runs),
        network::section(runs),
        resources(runs, schedule.as_ref()),
    ];
    Document { name: "bottlenecks", title: title("Bottlenecks", runs), sections }
}

/// The mean over all runs, those without the operation included: what an operation costs a run.
pub(super) fn mean_cost(runs: RunSlice<'_>, quantity: Quantity) -> f64 {
    runs.values(quantity).sum::<f64>() / runs.len().max(1) as f64
}

fn operations(of: impl Fn(StepKind) -> bool) -> impl Iterator<Item = (Quantity, StepKind)> {
    Quantity::steps().map(|(quantity, step)| (quantity, step.kind)).filter(move |(_, kind)| of(*kind))
}

fn total(runs: RunSlice<'_>) -> f64 {
    mean_cost(runs, Quantity::TotalTime)
}

/// A mean run as a bar, and what of it waits and what computes.
fn timeline(runs: RunSlice<'_>) -> Section {
    let whole = total(runs);
    let share = |seconds: f64| if whole > 0.0 { seconds / whole } else { 0.0 };
    let cost = |wanted: StepKind| {
        operations(move |kind| kind == wanted).map(|(it, ..)| mean_cost(runs, it)).sum::<f64>()
    };
    // The ledger is read while the response is fetched, so that parts may be more than the whole.
    let parts: Vec<(String, f64)> = operations(|kind| !kind.is_phase())
        .map(|(quantity, ..)| (quantity.key().to_owned(), share(mean_cost(runs, quantity))))
        .filter(|(_, share)| *share >= 0.001)
        .collect();
    let sum: f64 = parts.iter().map(|(_, share)| share).sum();
    let facts = vec![
        fact("mean_run_s", "a mean run", Cell::Seconds(whole)),
        fact("waiting", "waiting for the network and the store", Cell::Share(share(cost(StepKind::Io)))),
        fact("computing", "computing", Cell::Share(share(cost(StepKind::Cpu)))),
        fact("named", "in operations that are named", Cell::Share(sum)),
    ];
    let note = "Operations that are done at the same time count twice, so that the shares may be more than the whole.";
    let items = vec![Item::Bar(parts), Item::Facts(facts), Item::Note(note.to_owned())];
    Section::new("timeline", "A mean run", items)
}

fn ranking(runs: RunSlice<'_>) -> Section {
    let whole = total(runs);
    let mut ranked: Vec<_> = operations(|kind| !kind.is_phase())
        .map(|(quantity, kind)| (mean_cost(runs, quantity), quantity, kind))
        .filter(|(cost, ..)| *cost > 0.0)
        .collect();
    ranked.sort_by(|one, other| other.0.total_cmp(&one.0));
    let rows = ranked.into_iter().map(|(cost, quantity, kind)| {
        let sorted = Sorted::new(runs.values(quantity));
        vec![
            Cell::text(quantity.key()),
            Cell::text(quantity.definition().description),
            Cell::text(if kind == StepKind::Cpu { "processor" } else { "network or store" }),
            Cell::Seconds(cost),
            Cell::Share(if whole > 0.0 { cost / whole } else { 0.0 }),
            Cell::maybe(sorted.quantile(0.95), Cell::Seconds),
        ]
    });
    let columns = [
        ("operation", "operation"),
        ("what", "what it does"),
        ("bound", "waits for"),
        ("mean", "a run"),
        ("share", "of the run"),
        ("p95", "p95"),
    ];
    let table = Table::new("operations", &columns, rows.collect());
    Section::new("operations", "Operations by their cost", vec![Item::Table(table)])
}

/// What is used of what there is.
fn resources(runs: RunSlice<'_>, schedule: Option<&Schedule>) -> Section {
    let interval_s = schedule.map(|schedule| schedule.interval.as_seconds_f64());
    let a_day = |figure: Option<f64>| Some(figure? * DAY_S / interval_s?);
    let attempts = sorted(runs, Quantity::Attempts).mean().or((!runs.is_empty()).then_some(1.0));
    let per_second = |figure: Option<f64>| Some(figure? / interval_s?);
    let rows = [
        ("cpu", "processor", per_second(sorted(runs, Quantity::CpuTime).mean()), 1.0, Unit::Share),
        ("memory", "memory, at most", sorted(runs, Quantity::PeakMemory).max(), MEMORY_BYTES, Unit::Bytes),
        ("calls_a_day", "calls of the feed a day", a_day(attempts), CALLS_A_DAY, Unit::Count),
        (
            "buffer",
            "new events a poll, at most",
            Sorted::new(later_news(runs).map(|(_, new)| new)).max(),
            BUFFER,
            Unit::Count,
        ),
        (
            "network",
            "bytes a second",
            per_second(sorted(runs, Quantity::WireBytes).mean()),
            LINE_BYTES_A_SECOND,
            Unit::Bytes,
        ),
    ];
    let rows = rows.into_iter().map(|(name, what, used, limit, unit)| {
        vec![
            Cell::text(name),
            Cell::text(what),
            Cell::new(used, unit),
            Cell::new(Some(limit), unit),
            Cell::maybe(used, |used| Cell::Share(used / limit)),
            Cell::maybe(used.filter(|used| *used > 0.0), |used| Cell::text(times(limit / used))),
        ]
    });
    let columns = [
        ("resource", "resource"),
        ("what", "what"),
        ("used", "used"),
        ("limit", "limit"),
        ("share", "of it"),
        ("headroom", "headroom"),
    ];
    let table = Table::new("resources", &columns, rows.collect());
    let note = "Limits: the provider's 1,440 calls a day and 500 events a response; 8 GB and 100 Mbit/s as the documents have it.";
    Section::new("resources", "Resources and headroom", vec![Item::Table(table), Item::Note(note.to_owned())])
}

fn times(headroom: f64) -> String {
    if headroom < 10.0 { format!("{headroom:.1}x") } else { format!("{}x", Cell::Count(headroom.round())) }
}
