//! `collector tables`: makes the Parquet files of the archive.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::anyhow;
use chrono::{DateTime, NaiveDate, Utc};
use clap::Args;
use tracing::{info, warn};

use super::commands::{runtime, system_clock};
use super::output;
use super::settings::{Settings, TablesSchedule, parsers};
use super::stores::open_archive;
use super::{Exit, Failure};
use crate::archive::Archive;
use crate::clock::SharedClock;
use crate::store::SharedStore;
use crate::tables::{Month, Months, Tables, TablesFindings, TablesOptions, TablesReport};

#[derive(Debug, Args)]
pub(super) struct TablesArguments {
    /// First day; its whole month is made [default: the earliest month in the archive]
    #[arg(long, value_name = "DATE", value_parser = parsers::day)]
    from: Option<NaiveDate>,
    /// Last day; its whole month is made [default: the latest month in the archive]
    #[arg(long, value_name = "DATE", value_parser = parsers::day)]
    to: Option<NaiveDate>,
    /// Make every file anew from the objects, also if nothing was committed
    #[arg(long)]
    full: bool,
}

pub(super) fn tables(settings: &Settings, arguments: &TablesArguments) -> Result<Exit, Failure> {
    let TablesArguments { from, to, full } = *arguments;
    parsers::check_period(from, to).map_err(Failure::Usage)?;
    let months = Months::new(from.map(Month::from), to.map(Month::from)).unwrap_or_default();
    let (runtime, clock) = (runtime()?, system_clock());
    let tables = runtime.block_on(open_tables(settings, &clock))?;
    let options = TablesOptions::new(months, full, settings.repair.dry_run);
    let report = runtime.block_on(tables.update(&options))?;
    if settings.output.json {
        output::print_json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(Exit::Done)
}

/// The tables that the settings describe.
async fn open_tables(settings: &Settings, clock: &SharedClock) -> Result<Tables, Failure> {
    let archive = open_archive(settings.archive(), clock).await?;
    let store = tables_store(&archive, settings, clock).await?;
    Ok(Tables::new(archive, store))
}

/// The same archive, for queries that may be answered from its tables.
pub(super) async fn with_tables(archive: Archive, settings: &Settings) -> Result<Archive, Failure> {
    let store = tables_store(&archive, settings, &system_clock()).await?;
    Ok(archive.with_tables(store))
}

async fn tables_store(
    archive: &Archive,
    settings: &Settings,
    clock: &SharedClock,
) -> Result<SharedStore, Failure> {
    Ok(match settings.tables_store() {
        Some(options) => {
            let opened = options.open(clock).await;
            opened.map_err(|error| Failure::Usage(anyhow!("the place of the tables: {error}")))?.store
        }
        None => archive.store().clone(),
    })
}

/// Holds the tables against the archive. Whether nothing is wrong.
pub(super) fn verify(settings: &Settings) -> Result<(TablesFindings, String), Failure> {
    let (runtime, clock) = (runtime()?, system_clock());
    let tables = runtime.block_on(open_tables(settings, &clock))?;
    let findings = runtime.block_on(tables.verify())?;
    Ok((findings, tables.location()))
}

pub(super) fn print_findings(findings: &TablesFindings, location: &str) -> io::Result<()> {
    let TablesFindings { months, events, revisions, objects_since, .. } = findings;
    let mut text =
        format!("{location}: tables of {months} months, {events} events in {revisions} versions\n");
    if *objects_since > 0 {
        let _ = writeln!(text, "{objects_since} objects were committed since they were made");
    }
    for problem in &findings.problems {
        let _ = writeln!(text, "{problem}");
    }
    if findings.is_sound() {
        text.push_str("nothing is wrong with the tables\n");
    }
    io::stdout().write_all(text.as_bytes())
}

/// The hour or the day in which the tables have to be made once; nothing if they are not made.
pub(super) fn period(schedule: TablesSchedule, now: DateTime<Utc>) -> Option<i64> {
    match schedule {
        TablesSchedule::Off => None,
        TablesSchedule::Hourly => Some(now.timestamp().div_euclid(3_600)),
        TablesSchedule::Daily => Some(now.timestamp().div_euclid(86_400)),
    }
}

/// Brings the tables up to date after a run. The events are stored whether or not this succeeds.
pub(super) async fn follow_run(settings: &Settings, archive: &Archive, clock: &SharedClock) {
    let made = async {
        let store = tables_store(archive, settings, clock).await?;
        Ok::<_, Failure>(Tables::new(archive.clone(), store).update(&TablesOptions::default()).await?)
    };
    match made.await {
        Ok(report) => info!(replaced = report.replaced.len(), "the tables are up to date"),
        Err(Failure::Failed(error) | Failure::Usage(error)) => {
            warn!(error = format!("{error:#}"), "the events are stored, but the tables could not be made");
        }
    }
}

fn print(report: &TablesReport) -> io::Result<()> {
    let mut text = String::new();
    let (done, removed) = if report.dry_run { ("would write", "would remove") } else { ("wrote", "removed") };
    for (done, files) in [(done, &report.replaced), (removed, &report.removed)] {
        for file in files {
            let _ = writeln!(text, "{done} {file}");
        }
    }
    let TablesReport { events, revisions, size_bytes, objects_read, .. } = report;
    let _ = writeln!(
        text,
        "{events} events in {revisions} versions, {size_bytes} bytes; {objects_read} objects read"
    );
    if report.odd_values > 0 {
        let _ = writeln!(text, "{} values of another type than expected are null", report.odd_values);
    }
    if report.unreadable > 0 {
        let _ = writeln!(text, "{} lines are not events and in no table", report.unreadable);
    }
    io::stdout().write_all(text.as_bytes())
}
