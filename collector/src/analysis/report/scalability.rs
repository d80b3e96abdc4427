//! How much the feed brings, whether that grows, and when a limit is reached.

use chrono::{DateTime, TimeDelta, Timelike as _, Utc};

use super::{BUFFER, CALLS_A_DAY, fact, later_news, overview, sorted, title};
use crate::analysis::document::{Cell, Chart, Document, Fact, Item, Section, Table};
use crate::analysis::series::{Schedule, Series};
use crate::analysis::statistics::{Sorted, slope};
use crate::quantity::{Quantity, Unit};
use crate::record::compact::RunSlice;
use crate::record::history::History;

/// Rates of the documents' matrix.
const FACTORS: [f64; 4] = [1.0, 10.0, 50.0, 100.0];
/// What the documents say of them.
const DOCUMENTED: [&str; 4] = ["OK", "OK", "OK: poll every 15 min", "WARNING: API limit"];
/// The minimum interval between two calls that the provider asks for, in seconds.
const SHORTEST_INTERVAL_S: f64 = 60.0;
/// The minimum number of days for a statement about growth.
const LEAST_DAYS: usize = 28;
const DAYS_A_YEAR: f64 = 365.25;
const HALF_HOUR_S: u32 = 1_800;
const MOST_POINTS: usize = 200;

pub(super) fn document(history: &History, interval: Option<TimeDelta>) -> Document {
    let runs = history.runs.all();
    let schedule = Schedule::new(runs, interval);
    let flow = Flow::new(runs, schedule.as_ref());
    let sections = vec![
        overview(history, schedule.as_ref()),
        rate(&flow),
        overlap(runs),
        calls(runs, schedule.as_ref()),
        matrix(&flow),
        limits(&flow, schedule.as_ref()),
    ];
    Document { name: "scalability", title: title("Scalability", runs), sections }
}

/// What the feed brings.
struct Flow {
    /// New events and when they were found, run by run, the first run left out.
    news: Vec<(DateTime<Utc>, f64)>,
    interval_s: Option<f64>,
    /// Events a day, day by day.
    days: Series,
    /// Events a day more from year to year, with bounds.
    growth: Option<[f64; 3]>,
}

impl Flow {
    fn new(runs: RunSlice<'_>, schedule: Option<&Schedule>) -> Self {
        let news: Vec<_> = later_news(runs).collect();
        let interval_s = schedule.map(|it| it.interval.as_seconds_f64());
        let means = Series::from_points(news.iter().copied()).by_day();
        let runs_a_day = interval_s.map_or(0.0, |seconds| 86_400.0 / seconds);
        let days = Series::from_points(means.points().map(|(day, mean)| (day, mean * runs_a_day)));
        let years =
            |(day, events): (DateTime<Utc>, f64)| (day.timestamp() as f64 / 86_400.0 / DAYS_A_YEAR, events);
        let growth = (days.values().len() >= LEAST_DAYS && runs_a_day > 0.0)
            .then(|| slope(&days.points().map(years).collect::<Vec<_>>()))
            .flatten();
        Self { news, interval_s, days, growth }
    }

    fn sorted(&self) -> Sorted {
        Sorted::new(self.news.iter().map(|(_, new)| *new))
    }

    fn a_day(&self) -> Option<f64> {
        Sorted::new(self.days.values().iter().copied()).mean()
    }

    /// The half hour of the day (UTC) that brings most, and how many events a run finds in it.
    fn busiest(&self) -> Option<(u32, f64)> {
        let mut slots = vec![(0.0, 0.0); 48];
        for (time, new) in &self.news {
            let slot = &mut slots[(time.num_seconds_from_midnight() / HALF_HOUR_S) as usize % 48];
            *slot = (slot.0 + new, slot.1 + 1.0);
        }
        let means = slots.iter().zip(0_u32..).filter(|((_, runs), _)| *runs > 0.0);
        means.map(|((sum, runs), slot)| (slot, sum / runs)).max_by(|one, other| one.1.total_cmp(&other.1))
    }
}

fn rate(flow: &Flow) -> Section {
    let (news, busiest) = (flow.sorted(), flow.busiest());
    let an_hour = |events: Option<f64>| Some(events? * 3_600.0 / flow.interval_s?);
    let count = |value| Cell::maybe(value, Cell::Count);
    let growth = |cell: fn(&[f64; 3], f64) -> Cell| {
        Cell::maybe(flow.growth.zip(flow.a_day()), |(growth, mean)| cell(&growth, mean))
    };
    let mut facts: Vec<Fact> = vec![
        fact("events_per_hour", "events an hour", count(an_hour(news.mean()))),
        fact("p95_per_run", "new events a run, p95", count(news.quantile(0.95))),
        fact("max_per_run", "new events a run, most", count(news.max())),
        fact(
            "busiest_half_hour",
            "the busiest half hour (UTC)",
            Cell::maybe(busiest, |(slot, _)| Cell::text(format!("{:02}:{:02}", slot / 2, slot % 2 * 30))),
        ),
        fact("busiest_mean", "new events a run in it, mean", count(busiest.map(|(_, mean)| mean))),
        fact("events_per_day", "events a day", count(flow.a_day())),
    ];
    facts.push(fact(
        "growth_per_year",
        "growth a year",
        growth(|growth, mean| Cell::Change(growth[1] / mean)),
    ));
    facts.push(fact(
        "growth_per_year_95",
        "with 95 % confidence",
        growth(|growth, mean| Cell::range(Cell::Change(growth[0] / mean), Cell::Change(growth[2] / mean))),
    ));
    let chart = Chart {
        title: "Events a day".to_owned(),
        unit: Unit::Count,
        stacked: false,
        lines: vec![("events".to_owned(), flow.days.thinned(MOST_POINTS))],
        marks: Vec::new(),
    };
    let note = format!(
        "Growth: the median of the slopes between all pairs of days (Theil and Sen), after {LEAST_DAYS} days."
    );
    Section::new(
        "rate",
        "What the feed brings",
        vec![Item::Facts(facts), Item::Chart(chart), Item::Note(note)],
    )
}

fn overlap(runs: RunSlice<'_>) -> Section {
    // The first run knows nothing.
    let overlaps = Series::new(runs.without_first(), Quantity::BufferOverlap);
    let least = overlaps.points().min_by(|one, other| one.1.total_cmp(&other.1));
    let sorted = Sorted::new(overlaps.values().iter().copied());
    let by_year =
        |(day, least): (DateTime<Utc>, f64)| (day.timestamp() as f64 / 86_400.0 / DAYS_A_YEAR, least);
    let days: Vec<_> = overlaps.least_by_day().points().map(by_year).collect();
    let trend = (days.len() >= LEAST_DAYS).then(|| slope(&days)).flatten();
    let facts = vec![
        fact(
            "least",
            "least known events in a response",
            Cell::maybe(least, |(_, least)| Cell::Count(least)),
        ),
        fact("least_at", "that was", Cell::maybe(least, |(time, _)| Cell::Time(time))),
        fact(
            "p1",
            "one response in a hundred has fewer than",
            Cell::maybe(sorted.quantile(0.01), Cell::Count),
        ),
        fact("trend_per_year", "each day's least, a year", Cell::maybe(trend, |it| Cell::Count(it[1]))),
        fact(
            "trend_per_year_95",
            "with 95 % confidence",
            Cell::maybe(trend, |it| Cell::range(Cell::Count(it[0]), Cell::Count(it[2]))),
        ),
    ];
    Section::new("overlap", "How far responses reach back", vec![Item::Facts(facts)])
}

fn calls(runs: RunSlice<'_>, schedule: Option<&Schedule>) -> Section {
    let attempts = sorted(runs, Quantity::Attempts).mean().or((!runs.is_empty()).then_some(1.0));
    let a_day = attempts.zip(schedule).map(|(calls, it)| calls * 86_400.0 / it.interval.as_seconds_f64());
    let apart = Sorted::new(runs.pairs().map(|[one, next]| (next.start - one.start).as_seconds_f64()));
    let facts = vec![
        fact("calls_per_day", "calls a day", Cell::maybe(a_day, Cell::Count)),
        fact("allowed_per_day", "allowed", Cell::Count(CALLS_A_DAY)),
        fact("share", "of what is allowed", Cell::maybe(a_day, |calls| Cell::Share(calls / CALLS_A_DAY))),
        fact("closest_s", "closest two runs", Cell::maybe(apart.min(), Cell::Seconds)),
    ];
    Section::new("calls", "Calls of the feed", vec![Item::Facts(facts)])
}

/// The documents' matrix: the same rhythm at a multiple of the rate.
fn matrix(flow: &Flow) -> Section {
    let most = flow.sorted().max();
    let rows = FACTORS.into_iter().zip(DOCUMENTED).map(|(factor, documented)| {
        let fullest = most.map(|most| most * factor);
        let over = flow.news.iter().filter(|(_, new)| new * factor > BUFFER).count();
        let needed =
            flow.interval_s.zip(fullest).map(|(seconds, fullest)| seconds * BUFFER / fullest.max(1.0));
        vec![
            Cell::text(format!("{factor}x")),
            Cell::maybe(fullest, Cell::Count),
            Cell::count(over),
            Cell::maybe(needed, Cell::Seconds),
            Cell::text(documented),
            Cell::maybe(needed.zip(flow.interval_s), |(needed, interval)| {
                Cell::text(verdict(needed, interval))
            }),
        ]
    });
    let columns = [
        ("rate", "rate"),
        ("fullest", "fullest poll"),
        ("overflows", "polls that overflow"),
        ("interval_needed", "interval needed"),
        ("documented", "documented"),
        ("verdict", "verdict"),
    ];
    let table = Table::new("rates", &columns, rows.collect());
    let note = "The runs as they were, each with a multiple of its new events, against the buffer of 500. `loadtest capacity` \
                simulates it.";
    Section::new("matrix", "Multiples of the rate", vec![Item::Table(table), Item::Note(note.to_owned())])
}

fn verdict(needed_s: f64, interval_s: f64) -> String {
    if needed_s >= interval_s {
        "nothing lost".to_owned()
    } else if needed_s >= SHORTEST_INTERVAL_S {
        format!("poll every {} min", (needed_s / 60.0).floor())
    } else {
        "more than the feed can show".to_owned()
    }
}

/// At today's growth, when is each limit reached?
fn limits(flow: &Flow, schedule: Option<&Schedule>) -> Section {
    let last = flow.news.last().map(|(time, _)| *time);
    let mean = flow.a_day().filter(|mean| *mean > 0.0);
    // The buffer at this interval, and at the shortest one that is allowed.
    let room = |interval_s: f64| {
        let most = flow.sorted().max().filter(|most| *most > 0.0)?;
        Some(BUFFER / most * flow.interval_s? / interval_s)
    };
    let now = schedule.and_then(|it| room(it.interval.as_seconds_f64()));
    let rows = [
        ("buffer", "the buffer, at this interval", now),
        ("calls", "the buffer, at a call a minute", room(SHORTEST_INTERVAL_S)),
    ];
    let rows = rows.into_iter().map(|(name, what, factor)| {
        let reached = |growth: f64| {
            let years = (factor? - 1.0) * mean? / growth;
            (growth > 0.0 && years.is_finite() && years < 1_000.0).then(|| {
                last.map(|last| last + TimeDelta::seconds((years * DAYS_A_YEAR * 86_400.0) as i64))
            })?
        };
        let cell =
            |growth: f64| reached(growth).map_or(Cell::text("never"), |time| Cell::Day(time.date_naive()));
        vec![
            Cell::text(name),
            Cell::text(what),
            Cell::maybe(factor, |factor| Cell::text(format!("{factor:.1}x"))),
            Cell::maybe(flow.growth, |growth| cell(growth[1])),
            Cell::maybe(flow.growth, |growth| Cell::range(cell(growth[2]), cell(growth[0]))),
        ]
    });
    let columns = [
        ("limit", "limit"),
        ("what", "what"),
        ("room", "room"),
        ("reached", "reached"),
        ("reached_95", "with 95 % confidence"),
    ];
    let table = Table::new("limits", &columns, rows.collect());
    Section::new("limits", "When limits are reached, at this growth", vec![Item::Table(table)])
}
