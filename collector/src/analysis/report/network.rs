//! The phases of HTTP calls, ranked by what they cost a run, and which calls opened a connection.

use super::bottlenecks::mean_cost;
use super::fact;
use crate::analysis::document::{Cell, Fact, Item, Section, Table};
use crate::analysis::statistics::Sorted;
use crate::quantity::{CallKind, Quantity, StepKind};
use crate::record::compact::{CompactRun, RunSlice};

/// A phase of a kind of calls, and the mean over all runs of the seconds that it takes.
struct Phase {
    cost: f64,
    call: CallKind,
    quantity: Quantity,
}

pub(super) fn section(runs: RunSlice<'_>) -> Section {
    let mut phases: Vec<Phase> = Quantity::steps()
        .filter_map(|(quantity, step)| match step.kind {
            StepKind::Phase(call) => Some(Phase { cost: mean_cost(runs, quantity), call, quantity }),
            StepKind::Io | StepKind::Cpu => None,
        })
        .filter(|phase| phase.cost > 0.0)
        .collect();
    phases.sort_by(|one, other| other.cost.total_cmp(&one.cost));
    let whole: f64 = phases.iter().map(|phase| phase.cost).sum();
    let rows = phases.iter().filter_map(|Phase { cost, call, quantity }| {
        let sorted = Sorted::new(runs.values(*quantity));
        Some(vec![
            Cell::text(quantity.key()),
            Cell::text(call.name()),
            Cell::text(quantity.definition().description),
            Cell::Seconds(sorted.median()?),
            Cell::Seconds(sorted.quantile(0.95)?),
            Cell::Share(if whole > 0.0 { cost / whole } else { 0.0 }),
        ])
    });
    let columns = [
        ("phase", "phase"),
        ("call", "call"),
        ("what", "what it does"),
        ("p50", "p50"),
        ("p95", "p95"),
        ("share", "of the phases"),
    ];
    let table = Table::new("phases", &columns, rows.collect());
    let note = "Calls of the store: the sum over the calls of a run. A cold call opens a connection, a warm one uses an open one.";
    let items = vec![Item::Table(table), Item::Facts(connections(runs)), Item::Note(note.to_owned())];
    Section::new("network", "Calls over the network, phase by phase", items)
}

/// Cold and warm calls.
fn connections(runs: RunSlice<'_>) -> Vec<Fact> {
    let has = |run: &CompactRun<'_>, quantity| run.get(quantity).is_some();
    let called = || runs.iter().filter(|run| has(run, Quantity::ApiFirstByte));
    let is_cold = |run: &CompactRun<'_>| has(run, Quantity::ApiConnect) || has(run, Quantity::ApiConnectTls);
    let cold = called().filter(is_cold).count();
    let sum = |quantity| runs.values(quantity).sum::<f64>();
    let store_calls: f64 = CallKind::STORE.into_iter().map(|kind| sum(kind.calls())).sum();
    let opened = sum(Quantity::StoreConnections);
    vec![
        fact("feed_cold", "cold calls of the feed", Cell::count(cold)),
        fact("feed_warm", "warm calls of the feed", Cell::count(called().count() - cold)),
        fact("store_cold", "cold calls of the store", Cell::Count(opened)),
        fact("store_warm", "warm calls of the store", Cell::Count((store_calls - opened).max(0.0))),
    ]
}
