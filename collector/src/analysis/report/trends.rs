//! What is usual, what changed and when, what stood out, what failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::{iter, panic, thread};

use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Utc};

use super::{overview, title};
use crate::analysis::document::{Cell, Chart, Document, Item, Section, Table};
use crate::analysis::series::{LevelChange, Outlier, Schedule, Series};
use crate::analysis::statistics::{Sorted, mann_whitney};
use crate::quantity::{Quantity, Unit};
use crate::record::compact::RunSlice;
use crate::record::history::{History, Skipped};

/// Days that are compared, and days before them with which.
const RECENT_DAYS: i64 = 7;
const BEFORE_DAYS: i64 = 30;
/// A smaller chance is no chance.
const SIGNIFICANT: f64 = 0.01;
/// A smaller change of the median does not matter.
const MATTERS: f64 = 0.02;
/// Rows of tables that could be long.
const MOST_ROWS: usize = 20;
const DAYS_SHOWN: usize = 31;
const WEEKS_SHOWN: usize = 53;
/// Points of a line in a chart.
const MOST_POINTS: usize = 120;

pub(super) fn document(history: &History, interval: Option<TimeDelta>) -> Document {
    let runs = history.runs.all();
    let schedule = Schedule::new(runs, interval);
    let followed = follow(runs);
    let sections = vec![
        overview(history, schedule.as_ref()),
        run_times(runs, &followed),
        recent(runs),
        level_changes(&followed),
        outliers(&followed),
        errors(runs),
        missing(schedule.as_ref()),
        by_day(runs),
        by_week(runs),
        skipped(&history.skipped),
    ];
    Document { name: "trends", title: title("Trends", runs), sections }
}

/// What is said of one quantity.
struct Followed {
    quantity: Quantity,
    usual: Option<Vec<Cell>>,
    outliers: Vec<Outlier>,
    changes: Vec<LevelChange>,
}

impl Followed {
    fn new(runs: RunSlice<'_>, quantity: Quantity, totals_s: f64) -> Self {
        let series = Series::new(runs, quantity);
        let usual = usual_values(quantity, &series, totals_s);
        // What comes with new events follows the rhythm of the day: only days can be compared.
        let (outliers, changes) = if quantity.follows_the_day() {
            (Vec::new(), series.by_day().deviations().1)
        } else {
            series.deviations()
        };
        Self { quantity, usual, outliers, changes }
    }
}

/// What is said of every quantity, in their order; on all processors, because it takes longer than the rest.
fn follow(runs: RunSlice<'_>) -> Vec<Followed> {
    let totals_s: f64 = runs.values(Quantity::TotalTime).sum();
    let quantities: Vec<Quantity> = Quantity::reported().collect();
    let next = AtomicUsize::new(0);
    let work = || -> Vec<Followed> {
        let taken = iter::from_fn(|| quantities.get(next.fetch_add(1, Ordering::Relaxed)));
        taken.map(|&quantity| Followed::new(runs, quantity, totals_s)).collect()
    };
    let mut all: Vec<Followed> = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(ScopedJoinHandle::join);
        done.flat_map(|part| part.unwrap_or_else(|panic| panic::resume_unwind(panic))).collect()
    });
    all.sort_by_key(|followed| followed.quantity);
    all
}

fn usual_values(quantity: Quantity, series: &Series, totals_s: f64) -> Option<Vec<Cell>> {
    if quantity.unit() == Unit::Share {
        return None;
    }
    let all = Sorted::new(series.values().iter().copied());
    let sum = all.mean()? * all.len() as f64;
    let cell = |value| Cell::new(value, quantity.unit());
    let share = (quantity.unit() == Unit::Seconds && totals_s > 0.0).then(|| Cell::Share(sum / totals_s));
    Some(vec![
        Cell::text(quantity.key()),
        Cell::count(all.len()),
        share.unwrap_or(Cell::Undefined),
        cell(all.quantile(0.5)),
        cell(all.quantile(0.95)),
        cell(all.quantile(0.99)),
        cell(all.max()),
    ])
}

fn run_times(runs: RunSlice<'_>, followed: &[Followed]) -> Section {
    let rows = followed.iter().filter_map(|followed| followed.usual.clone());
    let columns = [
        ("quantity", ""),
        ("runs", "runs"),
        ("share_of_run", "of all runs"),
        ("p50", "p50"),
        ("p95", "p95"),
        ("p99", "p99"),
        ("max", "most"),
    ];
    let table = Table::new("quantities", &columns, rows.collect());
    Section::new(
        "quantities",
        "Usual and unusual values",
        vec![Item::Table(table), Item::Chart(percentiles(runs, followed)), Item::Chart(operations(runs))],
    )
}

/// The run time's percentiles over time, with its changes.
fn percentiles(runs: RunSlice<'_>, followed: &[Followed]) -> Chart {
    let line = |share: f64| {
        let group = runs.len().div_ceil(MOST_POINTS).max(1);
        let points = runs.chunks(group).filter_map(|runs| {
            let times = Sorted::new(runs.values(Quantity::TotalTime));
            Some((runs.first()?.start, times.quantile(share)?))
        });
        points.collect()
    };
    let of_run_time = followed.iter().filter(|followed| followed.quantity == Quantity::TotalTime);
    let marks = of_run_time.flat_map(|followed| &followed.changes);
    Chart {
        title: "Run time and its changes".to_owned(),
        unit: Unit::Seconds,
        stacked: false,
        lines: vec![
            ("p50".to_owned(), line(0.5)),
            ("p95".to_owned(), line(0.95)),
            ("p99".to_owned(), line(0.99)),
        ],
        marks: marks.map(|change| (change.time, change_in_words(change))).collect(),
    }
}

fn change_in_words(change: &LevelChange) -> String {
    let (before, after) = (Cell::Seconds(change.point.mean_before), Cell::Seconds(change.point.mean_after));
    format!("{before} to {after} at {}", Cell::Time(change.time))
}

/// What a run's time is made of, over time.
fn operations(runs: RunSlice<'_>) -> Chart {
    let group = runs.len().div_ceil(MOST_POINTS).max(1);
    let lines = Quantity::steps().filter(|(_, step)| !step.kind.is_phase()).filter_map(|(quantity, _)| {
        let points = runs.chunks(group).filter_map(|runs| {
            let sum: f64 = runs.values(quantity).sum();
            Some((runs.first()?.start, sum / runs.len() as f64))
        });
        let points: Vec<_> = points.collect();
        points.iter().any(|(_, mean)| *mean > 0.0).then(|| (quantity.key().to_owned(), points))
    });
    Chart {
        title: "Operations of a mean run".to_owned(),
        unit: Unit::Seconds,
        stacked: true,
        lines: lines.collect(),
        marks: Vec::new(),
    }
}

/// The last days against those before.
fn recent(runs: RunSlice<'_>) -> Section {
    let last = runs.last().map(|run| run.start).unwrap_or_default();
    let (since, before) =
        (last - TimeDelta::days(RECENT_DAYS), last - TimeDelta::days(RECENT_DAYS + BEFORE_DAYS));
    let values = |quantity: Quantity, from: DateTime<Utc>, to: DateTime<Utc>| -> Vec<f64> {
        let within = runs.iter().filter(|run| run.start > from && run.start <= to);
        within.filter_map(|run| run.get(quantity)).collect()
    };
    let rows = Quantity::reported().filter_map(|quantity| {
        let (then, now) = (values(quantity, before, since), values(quantity, since, last));
        let chance = mann_whitney(&then, &now)?;
        // A share's median is 0 or 1.
        let middle = |values: Vec<f64>| {
            let sorted = Sorted::new(values);
            if quantity.follows_the_day() { sorted.mean() } else { sorted.median() }
        };
        let (then, now) = (middle(then)?, middle(now)?);
        let relative = if then == 0.0 { None } else { Some(now / then - 1.0) };
        let matters = chance < SIGNIFICANT && relative.is_none_or(|change| change.abs() >= MATTERS);
        let verdict = if !matters {
            "same"
        } else if now > then {
            "more"
        } else {
            "less"
        };
        Some(vec![
            Cell::text(quantity.key()),
            Cell::new(Some(then), quantity.unit()),
            Cell::new(Some(now), quantity.unit()),
            relative.map_or(Cell::Undefined, Cell::Change),
            Cell::Chance(chance),
            Cell::text(verdict),
        ])
    });
    let columns = [
        ("quantity", ""),
        ("before", "30 days before"),
        ("now", "last 7 days"),
        ("change", "change"),
        ("p_value", "p-value"),
        ("verdict", ""),
    ];
    let table = Table::new("quantities", &columns, rows.collect());
    let note = "Medians; of numbers of events, shares and bytes written the means. p-value: the Mann–Whitney U test.";
    Section::new(
        "recent",
        "The last 7 days against the 30 before",
        vec![Item::Table(table), Item::Note(note.to_owned())],
    )
}

fn level_changes(followed: &[Followed]) -> Section {
    let of_quantity = |it: &Followed| iter::repeat(it.quantity).zip(it.changes.clone());
    let mut changes: Vec<(Quantity, LevelChange)> = followed.iter().flat_map(of_quantity).collect();
    changes.sort_by_key(|(_, change)| change.time);
    let rows = changes.into_iter().map(|(quantity, LevelChange { time, between: [first, last], point })| {
        let cell = |value| Cell::new(Some(value), quantity.unit());
        vec![
            Cell::text(quantity.key()),
            Cell::Time(time),
            Cell::range(Cell::Time(first), Cell::Time(last)),
            cell(point.mean_before),
            cell(point.mean_after),
            if point.mean_before == 0.0 { Cell::Undefined } else { Cell::Change(point.relative_change()) },
            Cell::Chance(point.p_value),
        ]
    });
    let columns = [
        ("quantity", ""),
        ("time", "since"),
        ("between_95", "with 95 % confidence"),
        ("before", "from"),
        ("after", "to"),
        ("change", "change"),
        ("p_value", "p-value"),
    ];
    let table = Table::new("changes", &columns, rows.collect());
    let note = "E-divisive with Student's t test. The rhythm of the day and single outliers are taken out first; of numbers of \
                events and shares the days are compared.";
    Section::new("changes", "Change points", vec![Item::Table(table), Item::Note(note.to_owned())])
}

fn outliers(followed: &[Followed]) -> Section {
    let of_quantity = |it: &Followed| iter::repeat(it.quantity).zip(it.outliers.clone());
    let mut all: Vec<(Quantity, Outlier)> = followed.iter().flat_map(of_quantity).collect();
    let count = all.len();
    let times_usual = |value: f64, usual: f64| if usual > 0.0 { value / usual } else { f64::INFINITY };
    all.sort_by(|(_, one), (_, other)| {
        times_usual(other.value, other.usual).total_cmp(&times_usual(one.value, one.usual))
    });
    let rows = all.into_iter().take(MOST_ROWS).map(|(quantity, it)| {
        vec![
            Cell::text(quantity.key()),
            Cell::Time(it.time),
            Cell::new(Some(it.value), quantity.unit()),
            Cell::new(Some(it.usual), quantity.unit()),
        ]
    });
    let columns = [("quantity", ""), ("time", "when"), ("value", "was"), ("usual", "usual about then")];
    let table = Table::new("largest", &columns, rows.collect());
    let facts = vec![super::fact("outliers", "single values unlike those about them", Cell::count(count))];
    Section::new("outliers", "Outliers", vec![Item::Facts(facts), Item::Table(table)])
}

fn errors(runs: RunSlice<'_>) -> Section {
    let mut kinds: BTreeMap<&str, (usize, DateTime<Utc>)> = BTreeMap::new();
    for run in runs.iter() {
        for error in run.errors() {
            let (count, last) = kinds.entry(&error.kind).or_default();
            *count += 1;
            *last = run.start;
        }
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let rows = kinds.into_iter().map(|(kind, (count, last))| {
        vec![
            Cell::text(kind),
            Cell::count(count),
            Cell::Share(count as f64 / runs.len().max(1) as f64),
            Cell::Time(last),
        ]
    });
    let columns = [("kind", "kind"), ("count", "how often"), ("per_run", "a run"), ("last", "last")];
    let table = Table::new("kinds", &columns, rows.take(MOST_ROWS).collect());
    Section::new("errors", "What failed", vec![Item::Table(table), Item::Chart(failures(runs))])
}

fn failures(runs: RunSlice<'_>) -> Chart {
    let mut points: BTreeMap<NaiveDate, f64> = BTreeMap::new();
    for run in runs.iter() {
        *points.entry(run.start.date_naive()).or_default() += run.errors().len() as f64;
    }
    let (times, values): (Vec<_>, Vec<_>) = points
        .into_iter()
        .map(|(day, count)| (day.and_time(chrono::NaiveTime::MIN).and_utc(), count))
        .unzip();
    let group = values.len().div_ceil(MOST_POINTS).max(1);
    let sums = times.chunks(group).zip(values.chunks(group));
    let line = sums.filter_map(|(times, values)| Some((*times.first()?, values.iter().sum()))).collect();
    Chart {
        title: if group == 1 { "Errors a day".to_owned() } else { format!("Errors in {group} days") },
        unit: Unit::Count,
        stacked: false,
        lines: vec![("errors".to_owned(), line)],
        marks: Vec::new(),
    }
}

fn missing(schedule: Option<&Schedule>) -> Section {
    let mut gaps = schedule.map(|it| it.gaps.clone()).unwrap_or_default();
    gaps.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
    let count = gaps.len();
    let rows = gaps
        .into_iter()
        .take(MOST_ROWS)
        .map(|(from, to, runs)| vec![Cell::Time(from), Cell::Time(to), Cell::count(runs)]);
    let columns = [("after", "after"), ("until", "until"), ("missed", "runs that are missing")];
    let table = Table::new("longest", &columns, rows.collect());
    let facts = vec![super::fact("gaps", "times without the runs that were due", Cell::count(count))];
    Section::new("missing", "When no runs were made", vec![Item::Facts(facts), Item::Table(table)])
}

/// The columns of a day or a week.
const PERIOD_COLUMNS: [(&str, &str); 6] = [
    ("runs", "runs"),
    ("failed", "failed"),
    ("p50", "run time p50"),
    ("p95", "p95"),
    ("new_events", "new events"),
    ("least_overlap", "minimum overlap"),
];

fn period_row(first: Cell, runs: RunSlice<'_>) -> Vec<Cell> {
    let all = |quantity: Quantity| Sorted::new(runs.values(quantity));
    let times = all(Quantity::TotalTime);
    let (new, overlap) = (all(Quantity::NewEventsCount), all(Quantity::BufferOverlap));
    vec![
        first,
        Cell::count(runs.len()),
        Cell::count(runs.failed()),
        Cell::maybe(times.quantile(0.5), Cell::Seconds),
        Cell::maybe(times.quantile(0.95), Cell::Seconds),
        Cell::maybe(new.mean(), |mean| Cell::Count((mean * new.len() as f64).round())),
        Cell::maybe(overlap.min(), Cell::Count),
    ]
}

fn by_period(runs: RunSlice<'_>, day_of: fn(NaiveDate) -> NaiveDate, most: usize) -> Vec<Vec<Cell>> {
    let day_of = |start: DateTime<Utc>| day_of(start.date_naive());
    let periods: Vec<RunSlice<'_>> = runs.chunk_by(day_of).collect();
    let last = periods.into_iter().rev().take(most).rev();
    last.filter_map(|runs| Some(period_row(Cell::Day(day_of(runs.first()?.start)), runs))).collect()
}

fn by_day(runs: RunSlice<'_>) -> Section {
    let columns = [&[("day", "day (UTC)")][..], &PERIOD_COLUMNS].concat();
    let table = Table::new("days", &columns, by_period(runs, |day| day, DAYS_SHOWN));
    let charts = [
        ("new_events_count", "New events a day", Series::new(runs, Quantity::NewEventsCount).sums_by_day()),
        (
            "buffer_overlap",
            "Minimum overlap of a day",
            Series::new(runs, Quantity::BufferOverlap).least_by_day(),
        ),
    ];
    let charts = charts.map(|(name, title, series)| {
        Item::Chart(Chart {
            title: title.to_owned(),
            unit: Unit::Count,
            stacked: false,
            lines: vec![(name.to_owned(), series.thinned(MOST_POINTS))],
            marks: Vec::new(),
        })
    });
    let items = [Item::Table(table)].into_iter().chain(charts).collect();
    Section::new("by_day", format!("Day by day, at most {DAYS_SHOWN}"), items)
}

fn by_week(runs: RunSlice<'_>) -> Section {
    let columns = [&[("week", "week from")][..], &PERIOD_COLUMNS].concat();
    let monday = |day: NaiveDate| day - TimeDelta::days(i64::from(day.weekday().num_days_from_monday()));
    let table = Table::new("weeks", &columns, by_period(runs, monday, WEEKS_SHOWN));
    Section::new("by_week", format!("Week by week, at most {WEEKS_SHOWN}"), vec![Item::Table(table)])
}

fn skipped(skipped: &[Skipped]) -> Section {
    let rows = skipped.iter().take(MOST_ROWS).map(|it| vec![Cell::text(&it.place), Cell::text(&it.reason)]);
    let table = Table::new("records", &[("place", "record"), ("reason", "why")], rows.collect());
    let mut items = vec![Item::Table(table)];
    if skipped.len() > MOST_ROWS {
        items.push(Item::Note(format!("and {} more", skipped.len() - MOST_ROWS)));
    }
    Section::new("skipped", "Records that cannot be read", items)
}
