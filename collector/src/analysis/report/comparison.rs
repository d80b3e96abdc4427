//! Before and after: the documents' expected results, and what else is followed.

use super::{fact, title};
use crate::analysis::compare::Runs;
use crate::analysis::document::{Cell, Document, Item, Section, Table};
use crate::analysis::statistics::{Share, Sorted, mann_whitney};
use crate::quantity::{Quantity, Unit};
use crate::record::compact::RunSlice;

/// A smaller chance is no chance.
const SIGNIFICANT: f64 = 0.01;
const DAYS_A_MONTH: f64 = 30.0;

/// Compares the runs of two times.
#[must_use]
pub fn compare(before: &Runs<'_>, after: &Runs<'_>) -> Document {
    let sections = vec![
        sides(before, after),
        expected([before.all(), after.all()]),
        quantities(before.all(), after.all()),
    ];
    Document { name: "comparison", title: title("Before and after", after.all()), sections }
}

fn sides(before: &Runs<'_>, after: &Runs<'_>) -> Section {
    let ends = |runs: RunSlice<'_>| {
        Cell::maybe(super::period(runs), |[from, to]| Cell::range(Cell::Time(from), Cell::Time(to)))
    };
    let facts = vec![
        fact("before", "before", ends(before.all())),
        fact("runs_before", "runs", Cell::count(before.all().len())),
        fact("after", "after", ends(after.all())),
        fact("runs_after", "runs", Cell::count(after.all().len())),
        fact("skipped_records", "records that cannot be read", Cell::count(before.skipped + after.skipped)),
    ];
    Section::new("sides", "What is compared", vec![Item::Facts(facts)])
}

/// A value and the bounds that hold the true one with 95 % confidence.
#[derive(Clone, Copy)]
struct Bounded {
    value: f64,
    bounds: Option<[f64; 2]>,
}

impl Bounded {
    /// What is usual: the median, of numbers of events the mean.
    fn usual(runs: RunSlice<'_>, quantity: Quantity) -> Option<Self> {
        let sorted = Sorted::new(runs.values(quantity));
        Some(if quantity.follows_the_day() {
            Self { value: sorted.mean()?, bounds: sorted.mean_bounds() }
        } else {
            Self { value: sorted.median()?, bounds: sorted.median_bounds() }
        })
    }

    fn reliability(runs: RunSlice<'_>) -> Option<Self> {
        let failed = runs.failed();
        let Share { value, low, high } = Share::new(runs.len() - failed, runs.len());
        (!runs.is_empty()).then_some(Self { value, bounds: Some([low, high]) })
    }

    /// Bytes a month, if the calls continue at this rate.
    fn bandwidth(runs: RunSlice<'_>) -> Option<Self> {
        let wire = Self::usual(runs, Quantity::WireBytes);
        let whole = || Self::usual(runs, Quantity::ApiResponseBytes);
        let bytes = wire.or_else(whole)?;
        let [from, to] = super::period(runs)?;
        let days = (to - from).as_seconds_f64() / 86_400.0;
        let calls = (runs.len() - 1) as f64 / days * DAYS_A_MONTH;
        let times = |bytes: f64| bytes * calls;
        (days > 0.0).then(|| Self { value: times(bytes.value), bounds: bytes.bounds.map(|it| it.map(times)) })
    }

    /// The number of quantities that a record has.
    fn visibility(runs: RunSlice<'_>) -> Option<Self> {
        let sorted = Sorted::new(runs.iter().map(|run| run.quantity_count() as f64));
        Some(Self { value: sorted.median()?, bounds: sorted.median_bounds() })
    }

    /// The scorecard's mean.
    fn overall_score(runs: RunSlice<'_>) -> Option<Self> {
        super::scorecard::overall(runs).map(|value| Self { value, bounds: None })
    }

    fn cells(side: Option<Self>, unit: Unit) -> [Cell; 2] {
        let cell = |value| Cell::new(Some(value), unit);
        [
            Cell::maybe(side, |side| cell(side.value)),
            Cell::maybe(side.and_then(|side| side.bounds), |[low, high]| Cell::range(cell(low), cell(high))),
        ]
    }
}

/// The change from one side to the other, and the widest that both bounds allow.
fn change(before: Option<Bounded>, after: Option<Bounded>) -> [Cell; 2] {
    let ratio = |from: f64, to: f64| (from > 0.0).then(|| Cell::Change(to / from - 1.0));
    let (Some(before), Some(after)) = (before, after) else { return [Cell::Missing, Cell::Missing] };
    let widest = before.bounds.zip(after.bounds).and_then(|([low, high], [after_low, after_high])| {
        Some(Cell::range(ratio(high, after_low)?, ratio(low, after_high)?))
    });
    [ratio(before.value, after.value), widest].map(|cell| cell.unwrap_or(Cell::Undefined))
}

const COLUMNS: [(&str, &str); 6] = [
    ("before", "before"),
    ("before_95", "with 95 %"),
    ("after", "after"),
    ("after_95", "with 95 %"),
    ("change", "change"),
    ("change_95", "with 95 % at least"),
];

fn row(first: Vec<Cell>, before: Option<Bounded>, after: Option<Bounded>, unit: Unit) -> Vec<Cell> {
    let sides = [Bounded::cells(before, unit), Bounded::cells(after, unit), change(before, after)];
    first.into_iter().chain(sides.into_iter().flatten()).collect()
}

/// The documents' table: its rows, and what it promises.
fn expected(sides: [RunSlice<'_>; 2]) -> Section {
    let [before, after] = sides;
    let of = |quantity: Quantity| [before, after].map(|runs| Bounded::usual(runs, quantity));
    let rows = [
        ("Execution Time", "3.12 s to 2.82 s", of(Quantity::TotalTime), Unit::Seconds),
        ("API Fetch Time", "1.5 s to 1.2 s", of(Quantity::ApiFetch), Unit::Seconds),
        ("Reliability", "95 % to 99.7 %", [before, after].map(Bounded::reliability), Unit::Share),
        ("Monthly Bandwidth", "474 MB to 237 MB", [before, after].map(Bounded::bandwidth), Unit::Bytes),
        ("Operational Visibility", "Low to High", [before, after].map(Bounded::visibility), Unit::Count),
        ("Overall Score", "8.8/10 to 9.2/10", sides.map(Bounded::overall_score), Unit::Count),
    ];
    let rows = rows.map(|(metric, documented, [before, after], unit)| {
        row(vec![Cell::text(metric), Cell::text(documented)], before, after, unit)
    });
    let columns = [&[("metric", "metric"), ("documented", "documented")][..], &COLUMNS].concat();
    let table = Table::new("metrics", &columns, rows.into());
    let note = "Operational Visibility: quantities in a record. Overall Score: the scorecard's, of ten.";
    let items = vec![Item::Table(table), Item::Note(note.to_owned())];
    Section::new("expected_results", "Expected results", items)
}

fn quantities(before: RunSlice<'_>, after: RunSlice<'_>) -> Section {
    let rows =
        Quantity::reported().filter(|quantity| quantity.unit() != Unit::Share).filter_map(|quantity| {
            let values = |runs: RunSlice<'_>| runs.values(quantity).collect::<Vec<f64>>();
            let chance = mann_whitney(&values(before), &values(after))?;
            let [before, after] = [before, after].map(|runs| Bounded::usual(runs, quantity));
            let more = after?.value > before?.value;
            let verdict = match (chance < SIGNIFICANT, more) {
                (false, _) => "same",
                (true, true) => "more",
                (true, false) => "less",
            };
            let mut cells = row(vec![Cell::text(quantity.key())], before, after, quantity.unit());
            cells.extend([Cell::Chance(chance), Cell::text(verdict)]);
            Some(cells)
        });
    let columns =
        [&[("quantity", "")][..], &COLUMNS, &[("p_value", "p-value"), ("verdict", "verdict")]].concat();
    let table = Table::new("quantities", &columns, rows.collect());
    let note = "Medians; of numbers of events and bytes written the means. p-value: the Mann–Whitney U test.";
    Section::new("quantities", "All that is followed", vec![Item::Table(table), Item::Note(note.to_owned())])
}
