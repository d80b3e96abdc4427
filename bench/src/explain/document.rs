//! An explanation as a report: text, JSON, Markdown, CSV and a page.

use collector::analysis::document::{Cell, Document, Fact, Item, Section, Table};

use super::{Difference, Explanation, Kind};

/// Rows of a table; what differs less is left out.
const ROWS: usize = 25;

/// The report of what differs in a bench.
#[must_use]
pub fn document(explanation: &Explanation, before: &str, after: &str, bench: &str) -> Document {
    let [was, is] = explanation.instructions.map_or([None, None], |[was, is]| [Some(was), Some(is)]);
    let fact = |name, label, value| Fact { name, label, value };
    let mut summary = vec![Item::Facts(vec![
        fact("bench", "bench", Cell::text(bench)),
        fact("before", "before", Cell::text(before)),
        fact("after", "after", Cell::text(after)),
        fact("instructions_before", "instructions of an iteration before", Cell::maybe(was, Cell::Count)),
        fact("instructions_after", "instructions of an iteration after", Cell::maybe(is, Cell::Count)),
    ])];
    summary
        .extend(explanation.missing.iter().map(|missing| Item::Note(format!("Not looked at: {missing}."))));
    let mut sections = vec![Section::new("summary", "Summary", summary), causes(explanation)];
    let tables = [
        ("functions", "Instructions by function", &explanation.functions),
        ("blocks", "Blocks allocated by function", &explanation.blocks),
        ("syscalls", "System calls", &explanation.syscalls),
        ("sizes", "Bytes of the program by crate", &explanation.sizes),
    ];
    for (name, title, differences) in tables {
        sections.push(Section::new(name, title, vec![table(name, differences)]));
    }
    sections.push(counts(explanation));
    Document { name: "explanation", title: format!("What {bench} does differently"), sections }
}

fn causes(explanation: &Explanation) -> Section {
    let columns = [
        ("kind", "cause"),
        ("name", "name"),
        ("change", "what changed"),
        ("instructions", "instructions"),
        ("share", "share of an iteration"),
    ];
    let row = |cause: &super::Cause| {
        let kind = match cause.kind {
            Kind::Toolchain => "toolchain",
            Kind::Settings => "build settings",
            Kind::Dependency => "dependency",
            Kind::Function => "function",
            Kind::Syscall => "system call",
            Kind::Allocation => "allocation",
        };
        vec![
            Cell::text(kind),
            Cell::text(&cause.name),
            Cell::text(&cause.change),
            Cell::Count(cause.instructions.round()),
            Cell::maybe(cause.share, Cell::Change),
        ]
    };
    let rows: Vec<Vec<Cell>> = explanation.causes.iter().take(ROWS).map(row).collect();
    let items = if rows.is_empty() {
        vec![Item::Note("Nothing that is counted differs enough to explain a slowdown.".to_owned())]
    } else {
        vec![Item::Table(Table::new("causes", &columns, rows))]
    };
    Section::new("causes", "Likely causes, the largest first", items)
}

fn table(name: &'static str, differences: &[Difference]) -> Item {
    if differences.is_empty() {
        return Item::Note("No difference.".to_owned());
    }
    let columns = [("name", "name"), ("before", "before"), ("after", "after"), ("difference", "difference")];
    let row = |it: &Difference| {
        let number = |value: f64| Cell::Count((value * 100.0).round() / 100.0);
        vec![Cell::text(&it.name), number(it.before), number(it.after), number(it.after - it.before)]
    };
    Item::Table(Table::new(name, &columns, differences.iter().take(ROWS).map(row).collect()))
}

fn counts(explanation: &Explanation) -> Section {
    let columns = [("name", "count"), ("before", "before"), ("after", "after")];
    let number = |count: Option<u64>| Cell::maybe(count, |count| Cell::Count(count as f64));
    let rows = explanation.counts.iter().map(|it| vec![Cell::text(&it.name), number(it.from), number(it.to)]);
    let rows: Vec<Vec<Cell>> = rows.collect();
    let item = if rows.is_empty() {
        Item::Note("No difference.".to_owned())
    } else {
        Item::Table(Table::new("counts", &columns, rows))
    };
    Section::new("counts", "Requests, bytes and allocations of an ordinary run", vec![item])
}
