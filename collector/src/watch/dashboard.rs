//! The service at a glance: one page, without a script, that loads itself again.

#![expect(clippy::cast_precision_loss, reason = "counts of events, far below where a double is not exact")]

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::pace::Reason;
use super::status::{Ended, MOST_RUNS, Plan, RunSummary, Status, View};
use crate::analysis::document::{Cell, Chart, Document, Fact, Format, Item, Line, Section, Table};
use crate::analysis::quantity::Unit;
use crate::record::check::Verdict;

/// The page loads itself again after so many seconds.
const REFRESH_S: u32 = 30;
const RUNS_SHOWN: usize = 20;

pub(super) fn page(status: &Status, verdict: &Verdict, now: DateTime<Utc>) -> String {
    let view = status.view(MOST_RUNS);
    let sections = vec![
        Section::new(
            "now",
            "Now",
            vec![Item::Note(words(verdict)), Item::Facts(facts(&view, status.buffer(), now))],
        ),
        Section::new("day", "The last day", charts_of_day(&view.runs, now)),
        Section::new("month", "The last month", charts_of_month(&view.runs)),
        Section::new("runs", "The last runs", vec![Item::Table(table(&view.runs))]),
    ];
    let document = Document { name: "dashboard", title: title(verdict), sections };
    document.show(Format::Html).replacen(
        "<meta charset=\"utf-8\">\n",
        &format!("<meta charset=\"utf-8\">\n<meta http-equiv=\"refresh\" content=\"{REFRESH_S}\">\n"),
        1,
    )
}

fn title(verdict: &Verdict) -> String {
    let state = if verdict.healthy { "healthy" } else { "unhealthy" };
    format!("Police events: the collector is {state}")
}

fn words(verdict: &Verdict) -> String {
    verdict.lines.lines().map(str::trim).collect::<Vec<_>>().join(" · ")
}

fn facts(view: &View, buffer: usize, now: DateTime<Utc>) -> Vec<Fact> {
    let last = view.runs.first();
    let full = view.runs.iter().find(|run| run.overlap.is_some() && !run.sparse);
    let headroom = full.and_then(|run| run.overlap).map(|overlap| overlap as f64 / buffer.max(1) as f64);
    let Plan { next_poll, interval_s, reason, .. } = view.plan.unwrap_or(Plan {
        next_poll: now,
        interval_s: 0.0,
        reason: Reason::AsConfigured,
        failures: 0,
    });
    let reason = match reason {
        Reason::AsConfigured => "",
        Reason::BufferFills => ", oftener than configured: the buffer fills",
        Reason::Failing => ", less often than configured: polls fail",
    };
    let day = || view.runs.iter().filter(|run| now - run.start < TimeDelta::days(1));
    let fact = |name, label, value| Fact { name, label, value };
    vec![
        fact("last_success", "Last good run (UTC)", Cell::maybe(view.last_success, Cell::Time)),
        fact(
            "next_poll",
            "Next run (UTC)",
            if view.polling_since.is_some() { Cell::text("now") } else { Cell::Time(next_poll) },
        ),
        fact("interval", "Every", Cell::text(format!("{}{reason}", Cell::Seconds(interval_s)))),
        fact("headroom", "Buffer that was known at the last run", Cell::maybe(headroom, Cell::Share)),
        fact("last_new", "New at the last run", Cell::maybe(last, |run| Cell::count(run.new))),
        fact("new_today", "New in 24 hours", Cell::count(day().map(|run| run.new).sum())),
        fact("runs_today", "Runs in 24 hours", Cell::count(day().count())),
        fact(
            "failed_today",
            "Of these failed",
            Cell::count(day().filter(|run| run.ended == Ended::Failed).count()),
        ),
        fact(
            "gaps",
            "Possible gaps in a month",
            Cell::count(view.runs.iter().filter(|run| run.possible_gap).count()),
        ),
        fact("started", "Service since (UTC)", Cell::Time(view.started)),
    ]
}

fn chart(title: &str, unit: Unit, lines: Vec<Line>) -> Item {
    Item::Chart(Chart { title: title.to_owned(), unit, stacked: false, lines, marks: Vec::new() })
}

fn charts_of_day(runs: &[RunSummary], now: DateTime<Utc>) -> Vec<Item> {
    let day: Vec<&RunSummary> =
        runs.iter().rev().filter(|run| now - run.start < TimeDelta::days(1)).collect();
    if day.len() < 2 {
        return vec![Item::Note("Charts come with the second run.".to_owned())];
    }
    let line = |name: &str, of: &dyn Fn(&RunSummary) -> Option<f64>| -> Line {
        (name.to_owned(), day.iter().filter_map(|run| Some((run.start, of(run)?))).collect())
    };
    vec![
        chart(
            "Events",
            Unit::Count,
            vec![
                line("new", &|run| Some(run.new as f64)),
                line("known of the response", &|run| run.overlap.map(|overlap| overlap as f64)),
            ],
        ),
        chart("Time of a run", Unit::Seconds, vec![line("seconds", &|run| Some(run.total_s))]),
    ]
}

fn charts_of_month(runs: &[RunSummary]) -> Vec<Item> {
    let mut days: Vec<(NaiveDate, f64, f64)> = Vec::new();
    for run in runs.iter().rev() {
        let (day, failed) = (run.start.date_naive(), f64::from(u8::from(run.ended == Ended::Failed)));
        match days.last_mut().filter(|(last, ..)| *last == day) {
            Some((_, new, failures)) => {
                *new += run.new as f64;
                *failures += failed;
            }
            None => days.push((day, run.new as f64, failed)),
        }
    }
    if days.len() < 2 {
        return vec![Item::Note("Charts come with the second day.".to_owned())];
    }
    let line = |name: &str, of: fn(&(NaiveDate, f64, f64)) -> f64| -> Line {
        let noon = |day: NaiveDate| day.and_hms_opt(12, 0, 0).unwrap_or_default().and_utc();
        (name.to_owned(), days.iter().map(|day| (noon(day.0), of(day))).collect())
    };
    vec![chart("A day", Unit::Count, vec![line("new events", |day| day.1), line("failed runs", |day| day.2)])]
}

fn table(runs: &[RunSummary]) -> Table {
    let columns = [
        ("start", "Began (UTC)"),
        ("ended", "Ended"),
        ("new", "New"),
        ("revised", "Revised"),
        ("overlap", "Known"),
        ("total_s", "Took"),
        ("note", "Note"),
    ];
    let row = |run: &RunSummary| {
        let note = match (&run.error, run.possible_gap, run.sparse) {
            (Some(error), ..) => error.clone(),
            (None, true, _) => "events may have been missed before".to_owned(),
            (None, _, true) => "a sparse response".to_owned(),
            _ => String::new(),
        };
        vec![
            Cell::Time(run.start),
            Cell::text(run.ended.name().replace('_', " ")),
            Cell::count(run.new),
            Cell::count(run.revised),
            Cell::maybe(run.overlap, Cell::count),
            Cell::Seconds(run.total_s),
            Cell::text(note),
        ]
    };
    Table::new("runs", &columns, runs.iter().take(RUNS_SHOWN).map(row).collect())
}
