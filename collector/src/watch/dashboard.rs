//! The service at a glance: one page, without a script, that loads itself again.

#![expect(clippy::cast_precision_loss, reason = "counts of events, far below where a double is not exact")]

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::poll_interval::{Plan, Reason};
use super::status::{MOST_RUNS, Status, View};
use super::summary::{Ended, RunSummary};
use crate::analysis::document::{Cell, Chart, Document, Fact, Item, Line, Live, Section, Table};
use crate::quantity::Unit;
use crate::record::check::HealthCheck;
use crate::text::printable;

const RELOAD: Duration = Duration::from_secs(30);
const RUNS_SHOWN: usize = 20;

pub(super) fn page(status: &Status, verdict: &HealthCheck, now: DateTime<Utc>) -> String {
    let view = status.view(MOST_RUNS);
    let sections = vec![
        Section::new("now", "Now", vec![Item::Facts(facts(&view, status.buffer(), now))]),
        Section::new("day", "The last day", charts_of_day(&view.runs, now)),
        Section::new("month", "The last month", charts_of_month(&view.runs)),
        Section::new("runs", "The last runs", vec![Item::Table(table(&view.runs))]),
    ];
    let live = Live {
        reload_every: RELOAD,
        is_good: verdict.healthy,
        state: if verdict.healthy { "Healthy" } else { "Unhealthy" },
        words: words(verdict),
    };
    Document { name: "dashboard", title: "Events of the Swedish police".to_owned(), sections }
        .show_live(&live)
}

/// What the health check says, in a line; the word for it is shown already.
fn words(verdict: &HealthCheck) -> String {
    let lines = verdict.lines.lines().map(str::trim).filter(|line| !line.starts_with("OK: "));
    lines.map(|line| line.trim_start_matches("ERROR: ")).collect::<Vec<_>>().join(" · ")
}

fn facts(view: &View, buffer: usize, now: DateTime<Utc>) -> Vec<Fact> {
    let last = view.runs.first();
    let full = view.runs.iter().find(|run| run.overlap.is_some() && !run.sparse);
    let headroom = full.and_then(|run| run.overlap).map(|overlap| {
        let share = Cell::Share(overlap as f64 / buffer.max(1) as f64);
        Cell::text(format!("{share} ({overlap} of {buffer} known)"))
    });
    let last_day: Vec<&RunSummary> =
        view.runs.iter().filter(|run| now - run.start < TimeDelta::days(1)).collect();
    let new_today = last_day.iter().map(|run| run.new).sum();
    let fact = |name, label, value| Fact { name, label, value };
    let mut facts = vec![
        fact("last_success", "Last good run (UTC)", Cell::maybe(view.last_success, |time| moment(time, now))),
        fact("next_poll", "Next run (UTC)", next_poll(view, now)),
        fact("interval", "Every", Cell::maybe(view.plan, |plan| Cell::text(pace(&plan)))),
        fact("headroom", "Buffer headroom", headroom.unwrap_or(Cell::Missing)),
        fact("bears", "Maximum tolerable outage", bears(&last_day, new_today, buffer)),
        fact("last_new", "New at the last run", Cell::maybe(last, |run| Cell::count(run.new))),
        fact("new_today", "New in 24 hours", Cell::count(new_today)),
        fact("runs_today", "Runs in 24 hours", Cell::count(last_day.len())),
        fact(
            "failed_today",
            "Of these failed",
            Cell::count(last_day.iter().filter(|run| run.ended == Ended::Failed).count()),
        ),
        fact(
            "gaps",
            "Possible gaps in a month",
            Cell::count(view.runs.iter().filter(|run| run.possible_gap).count()),
        ),
        fact("started", "Service since (UTC)", Cell::Time(view.started)),
    ];
    if let Some(mirror) = &view.mirror {
        facts.push(fact("replica", "Replica complete (UTC)", moment(mirror.last_success, now)));
        if let Some(error) = &mirror.error {
            let lacking = format!("{} objects: {}", mirror.lag_objects, printable(error));
            facts.push(fact("replica_lacks", "Replica lacks", Cell::text(lacking)));
        }
    }
    if let Some(error) = &view.settings_error {
        facts.push(fact("reload_error", "Reload failed", Cell::text(printable(error).to_string())));
    }
    facts
}

/// A time and how far it is away.
fn moment(time: DateTime<Utc>, now: DateTime<Utc>) -> Cell {
    let minutes = (time - now).num_minutes().unsigned_abs();
    let away = humantime::format_duration(Duration::from_mins(minutes));
    let away = match time - now {
        _ if minutes == 0 => "now".to_owned(),
        past if past < TimeDelta::zero() => format!("{away} ago"),
        _ => format!("in {away}"),
    };
    Cell::text(format!("{} ({away})", Cell::Time(time)))
}

fn next_poll(view: &View, now: DateTime<Utc>) -> Cell {
    if view.polling_since.is_some() {
        return Cell::text("at work now");
    }
    Cell::maybe(view.plan, |plan| moment(plan.next_poll, now))
}

fn pace(plan: &Plan) -> String {
    let why = match plan.reason {
        Reason::AsConfigured => "",
        Reason::BufferFills => ", more often than configured: the buffer fills",
        Reason::Failing => ", less often than configured: polls fail",
    };
    let interval = Duration::try_from_secs_f64(plan.interval_s).unwrap_or_default();
    format!("{}{why}", humantime::format_duration(interval))
}

/// How long an outage may last before something is missed, if events come as they did in the last day. The first run of all
/// finds the whole buffer new and says nothing about that.
fn bears(last_day: &[&RunSummary], new: usize, buffer: usize) -> Cell {
    let Some((first, latest)) = last_day.last().zip(last_day.first()) else { return Cell::Missing };
    let (new, seconds) = (new.saturating_sub(first.new), (latest.start - first.start).as_seconds_f64());
    if new == 0 || seconds < 3_600.0 {
        return Cell::Missing;
    }
    Cell::Seconds(buffer as f64 / new as f64 * seconds)
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
            "Stored by a run",
            Unit::Count,
            vec![
                line("new events", &|run| Some(run.new as f64)),
                line("new versions of known ones", &|run| Some(run.revised as f64)),
            ],
        ),
        chart(
            "Buffer headroom",
            Unit::Count,
            vec![line("events of the response that were known", &|run| {
                run.overlap.map(|overlap| overlap as f64)
            })],
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
