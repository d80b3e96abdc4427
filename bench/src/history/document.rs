//! A history as a report: text, JSON, Markdown, CSV, and a page that needs no network.

use collector::analysis::document::{Cell, Chart, Document, Fact, Item, Section, Table};
use collector::quantity::Unit;

use super::findings::{Finding, Kind};
use super::series::{Point, Series, series};
use super::storage::History;
use crate::gate::work_tree::short;

/// The report of a history and what was found in it.
#[must_use]
pub fn document(history: &History, findings: &[Finding]) -> Document {
    let all = series(&history.measurements);
    let mut sections = vec![summary(history, findings), found(findings)];
    sections.push(Section::new(
        "series",
        "Benches",
        all.iter().flat_map(|it| of_bench(it, findings)).collect(),
    ));
    sections.push(measured(history));
    sections.push(counted(history));
    Document { name: "history", title: "History of the benches".to_owned(), sections }
}

fn summary(history: &History, findings: &[Finding]) -> Section {
    let fact = |name, label, value| Fact { name, label, value };
    let open = findings.iter().filter(|finding| finding.fails()).count();
    let commit = |commit: Option<&crate::gate::work_tree::Commit>| {
        Cell::maybe(commit, |commit| Cell::text(commit.to_string()))
    };
    let mut machines: Vec<String> = history.measurements.iter().map(|it| it.machine.to_string()).collect();
    machines.sort();
    machines.dedup();
    let mut items = vec![Item::Facts(vec![
        fact("measurements", "measurements", Cell::count(history.measurements.len())),
        fact("reference", "reference", commit(history.reference())),
        fact("newest", "newest revision", commit(history.measurements.last().map(|it| &it.commit))),
        fact("changes", "changes", Cell::count(findings.len())),
        fact("open", "regressions that are not accepted", Cell::count(open)),
        fact("machines", "machines", Cell::text(machines.join("; "))),
    ])];
    items.extend(history.unreadable.iter().map(|file| Item::Note(format!("not readable: {file}"))));
    let skipped = history.skipped.iter().map(|it| format!("not measured: {}: {}", it.commit, it.reason));
    items.extend(skipped.map(Item::Note));
    Section::new("summary", "Summary", items)
}

fn found(findings: &[Finding]) -> Section {
    let columns = [
        ("bench", "bench"),
        ("kind", "kind"),
        ("change", "change"),
        ("p_value", "p-value"),
        ("from", "after"),
        ("to", "at or before"),
        ("subject", "subject"),
        ("accepted", "accepted"),
    ];
    let row = |finding: &Finding| {
        let kind = match finding.kind {
            Kind::Step => "step",
            Kind::Drift => "drift",
            Kind::Count => "count",
            Kind::Vanished => "vanished",
        };
        vec![
            Cell::text(&finding.bench),
            Cell::text(kind),
            Cell::maybe(finding.change, Cell::Change),
            Cell::Chance(finding.p_value),
            Cell::text(short(&finding.from.id)),
            Cell::text(short(&finding.to.id)),
            Cell::text(&finding.to.subject),
            finding.blessed.as_ref().map_or_else(|| Cell::text("no"), Cell::text),
        ]
    };
    let rows: Vec<Vec<Cell>> = findings.iter().map(row).collect();
    let items = if rows.is_empty() {
        vec![Item::Note("No bench, count or set of benches changed.".to_owned())]
    } else {
        vec![Item::Table(Table::new("changes", &columns, rows))]
    };
    Section::new("changes", "Changes", items)
}

fn of_bench(series: &Series, findings: &[Finding]) -> Vec<Item> {
    let line = |name: &str, pick: fn(&Point) -> f64| {
        let points = series.points.iter().map(|point| (point.commit.time, pick(point)));
        (name.to_owned(), points.collect())
    };
    let marks = findings.iter().filter(|finding| finding.bench == series.bench);
    let chart = Chart {
        title: format!("{}, in units of {}", series.bench, short(&series.reference.id)),
        unit: Unit::Count,
        stacked: false,
        lines: vec![
            line("time", |point| point.ratio().value),
            line("lower bound (95 %)", |point| point.ratio().low),
            line("upper bound (95 %)", |point| point.ratio().high),
        ],
        marks: marks.map(|finding| (finding.time, finding.sentence())).collect(),
    };
    let mut items = vec![Item::Chart(chart)];
    if series.not_linked > 0 {
        items.push(Item::Note(format!(
            "{}: {} measurements against a reference that no measurement links with {} are left out.",
            series.bench,
            series.not_linked,
            short(&series.reference.id)
        )));
    }
    items
}

fn measured(history: &History) -> Section {
    let columns = [
        ("bench", "bench"),
        ("revision", "revision"),
        ("time", "committed"),
        ("change", "time beside the reference"),
        ("range", "95 %"),
    ];
    let mut rows = Vec::new();
    for series in series(&history.measurements) {
        for point in &series.points {
            let ratio = point.ratio().map(|ratio| ratio - 1.0);
            rows.push(vec![
                Cell::text(&series.bench),
                Cell::text(short(&point.commit.id)),
                Cell::Time(point.commit.time),
                Cell::Change(ratio.value),
                Cell::range(Cell::Change(ratio.low), Cell::Change(ratio.high)),
            ]);
        }
    }
    Section::new("points", "Points", vec![Item::Table(Table::new("points", &columns, rows))])
}

/// Counts and sizes of the newest revision, beside those of the oldest.
fn counted(history: &History) -> Section {
    let mut rows = Vec::new();
    if let (Some(first), Some(last)) = (history.measurements.first(), history.measurements.last()) {
        let pairs = [(&first.sizes, &last.sizes), (&first.counts, &last.counts)];
        for (before, after) in pairs {
            for (name, &now) in after {
                let was = before.get(name).copied();
                let change = was.filter(|&was| was > 0).map(|was| now as f64 / was as f64 - 1.0);
                rows.push(vec![
                    Cell::text(name),
                    Cell::maybe(was, |was| Cell::Count(was as f64)),
                    Cell::Count(now as f64),
                    Cell::maybe(change, Cell::Change),
                ]);
            }
        }
    }
    let columns = [
        ("name", "count"),
        ("oldest", "oldest revision"),
        ("newest", "newest revision"),
        ("change", "change"),
    ];
    Section::new("counts", "Sizes and counts", vec![Item::Table(Table::new("counts", &columns, rows))])
}
