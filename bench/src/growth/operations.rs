//! The operations that are measured, and what each may cost.

#![expect(clippy::unnecessary_wraps, reason = "the operations have one signature")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use chrono::{DateTime, Months, Utc};
use collector::analysis::compare;
use collector::analysis::document::Format;
use collector::analysis::pack::pack;
use collector::analysis::report::{self, Report};
use collector::archive::{Archive, ArchiveOptions};
use collector::clock::{SharedClock, SystemClock, VirtualClock};
use collector::import::{find_recordings, import};
use collector::query::{Filter, Query};
use collector::record::history::{History, Input as Records, Period};
use collector::store::LocalStore;
use collector::tables::{Tables, TablesOptions};
use collector::trends;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::inputs::{ARCHIVE, Input, RECORDS, RESPONSES, TABLES, archive_in, deposit};
use super::{CONSTANT, LINEAR, Operation, Work};

/// Rows of the table of operations.
macro_rules! operations {
    ($($name:literal, $input:ident, $exponent:expr, $memory_mb:literal, $once:literal, $prepare:expr;)*) => {
        &[$(Operation {
            name: $name,
            input: Input::$input,
            exponent: $exponent,
            memory_mb: $memory_mb,
            once: $once,
            prepare: $prepare,
        }),*]
    };
}

/// Each operation, by its input. What changes its input comes last.
pub const OPERATIONS: &[Operation] = operations![
    "query all", Objects, LINEAR, 24, false, |folder| query(folder, Query::default(), None);
    "query by text", Objects, LINEAR, 24, false, |folder| query(folder, by_text(), None);
    "query the first ten", Objects, CONSTANT, 24, false, |folder| query(folder, Query::default(), Some(10));
    "query an absent id", Objects, LINEAR, 24, false, absent_id;
    "changes", Objects, LINEAR, 24, false, changes;
    "verify", Objects, LINEAR, 64, false, verify;
    "repair, dry run", Objects, LINEAR, 64, false, repair;
    "tables", Objects, LINEAR, 128, false, tables;
    "query an absent id from tables", Objects, LINEAR, 24, false, absent_id_from_tables;
    "run in a long archive", Objects, CONSTANT, 24, false, run;
    "run on a busy day", Rate, CONSTANT, 24, false, run;
    "tables of a month", Month, LINEAR, 128, true, tables;
    "a response with all new", Elements, LINEAR, 1_000, false, all_new;
    "import", Responses, LINEAR, 64, false, first_import;
    "import again", Responses, LINEAR, 64, false, repeated_import;
    "plain report", Records, LINEAR, 128, false, plain_report;
    "trends", Records, LINEAR, 128, false, |folder| report_of(folder, Period::default());
    "trends of the last 30 days", Records, LINEAR, 128, false, |folder| report_of(folder, last_month());
    "compare two months", Records, LINEAR, 128, false, comparison;
    "pack records", Records, LINEAR, 128, true, packing;
];

/// Something to be awaited, on a runtime like that of the programs.
fn in_runtime<F: AsyncFnMut(&Archive) -> anyhow::Result<()> + 'static>(
    folder: &Path,
    mut work: F,
) -> anyhow::Result<Work> {
    let (runtime, (archive, _)) = (collector::run::runtime()?, archive_in(folder));
    Ok(Box::new(move || runtime.block_on(work(&archive))))
}

fn by_text() -> Query {
    Query {
        filter: Filter { text: Some("trafikolycka".to_owned()), ..Filter::default() },
        ..Query::default()
    }
}

fn query(folder: &Path, query: Query, limit: Option<usize>) -> anyhow::Result<Work> {
    in_runtime(folder, async move |archive| {
        let (mut answer, mut found) = (archive.query(&query), 0);
        while let Some(event) = answer.next().await {
            event?;
            found += 1;
            if limit == Some(found) {
                break;
            }
        }
        ensure!(found > 0, "nothing was found");
        Ok(())
    })
}

fn absent_id(folder: &Path) -> anyhow::Result<Work> {
    in_runtime(folder, async |archive| {
        ensure!(archive.get_many([-1]).await.found.is_empty(), "an event that does not exist was found");
        Ok(())
    })
}

fn absent_id_from_tables(folder: &Path) -> anyhow::Result<Work> {
    let (runtime, (archive, _)) = (collector::run::runtime()?, archive_in(folder));
    let archive = archive.with_tables(Arc::new(LocalStore::new(folder.join(TABLES))));
    let filter = Filter { ids: [-1].into(), ..Filter::default() };
    let query = Query { filter, ..Query::default() };
    Ok(Box::new(move || {
        runtime.block_on(async {
            let mut answer = archive.query(&query);
            ensure!(answer.next().await.is_none(), "an event that does not exist was found");
            ensure!(answer.tables().not_used.is_empty(), "the tables were not used");
            ensure!(answer.cost().objects_listed == 0, "objects were listed");
            Ok(())
        })
    }))
}

fn changes(folder: &Path) -> anyhow::Result<Work> {
    in_runtime(folder, async |archive| {
        let (mut since, mut count) = (None, 0);
        loop {
            let page = archive.changes(since.as_ref(), 1_000).await?;
            count += page.changes.len();
            if page.complete {
                break;
            }
            since = Some(page.cursor);
        }
        ensure!(count > 0, "nothing changed");
        Ok(())
    })
}

fn verify(folder: &Path) -> anyhow::Result<Work> {
    in_runtime(folder, async |archive| {
        ensure!(archive.audit(|_, _| {}).await?.findings.is_sound(), "the archive is not sound");
        Ok(())
    })
}

fn repair(folder: &Path) -> anyhow::Result<Work> {
    in_runtime(folder, async |archive| {
        ensure!(archive.repair(true, |_, _| {}).await?.is_idle(), "there is something to repair");
        Ok(())
    })
}

fn tables(folder: &Path) -> anyhow::Result<Work> {
    in_runtime(folder, async |archive| {
        let place = tempfile::tempdir()?;
        let tables = Tables::new(archive.clone(), Arc::new(LocalStore::new(place.path())));
        ensure!(tables.update(&TablesOptions::default()).await?.events > 0, "the tables are empty");
        Ok(())
    })
}

/// One run after the other, each with two new events.
fn run(folder: &Path) -> anyhow::Result<Work> {
    let (runtime, (archive, clock)) = (collector::run::runtime()?, archive_in(folder));
    let mut responses = responses(folder)?.into_iter();
    Ok(Box::new(move || {
        let (at, path) = responses.next().context("there are no more responses")?;
        let body = fs::read(path)?;
        clock.set(at);
        runtime.block_on(deposit(&archive, &body, at))
    }))
}

fn responses(folder: &Path) -> anyhow::Result<Vec<(DateTime<Utc>, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join(RESPONSES))? {
        let path = entry?.path();
        let second = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
        let time = second.and_then(|second| DateTime::from_timestamp(second, 0));
        found.push((time.context("a response has no time")?, path));
    }
    found.sort_unstable();
    Ok(found)
}

fn all_new(folder: &Path) -> anyhow::Result<Work> {
    let runtime = collector::run::runtime()?;
    let (at, path) = responses(folder)?.pop().context("the input lacks a response")?;
    let body = fs::read(path)?;
    Ok(Box::new(move || {
        let store = Arc::new(collector::store::MemoryStore::default());
        let archive = Archive::new(store, Arc::new(VirtualClock::at(at)), ArchiveOptions::default());
        runtime.block_on(deposit(&archive, &body, at))
    }))
}

/// Imports the responses into an archive, again and again.
struct Importer {
    runtime: Runtime,
    archive: Archive,
    recordings: Vec<collector::import::Recording>,
    /// Removed at the end.
    _place: TempDir,
}

impl Importer {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let place = tempfile::tempdir_in(folder)?;
        let clock: SharedClock = Arc::new(SystemClock::default());
        let store = Arc::new(LocalStore::new(place.path().join(ARCHIVE)));
        let archive = Archive::new(store, clock, ArchiveOptions::default());
        let recordings = find_recordings(&[folder.join(RESPONSES)], |_| ())?;
        Ok(Self { runtime: collector::run::runtime()?, archive, recordings, _place: place })
    }

    fn import(&self) -> anyhow::Result<()> {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let summary = self.runtime.block_on(import(&self.archive, &clock, &self.recordings, |_| ()))?;
        ensure!(summary.failed == 0 && summary.responses == self.recordings.len(), "not all was imported");
        Ok(())
    }
}

fn first_import(folder: &Path) -> anyhow::Result<Work> {
    let folder = folder.to_owned();
    Ok(Box::new(move || Importer::new(&folder)?.import()))
}

fn repeated_import(folder: &Path) -> anyhow::Result<Work> {
    let importer = Importer::new(folder)?;
    importer.import()?;
    Ok(Box::new(move || importer.import()))
}

fn plain_report(folder: &Path) -> anyhow::Result<Work> {
    let folder = folder.join(RECORDS);
    Ok(Box::new(move || {
        let runs = trends::Runs::load(&folder)?;
        Ok(trends::Report::new(&runs).write(&mut io::sink())?)
    }))
}

fn last_month() -> Period {
    Period { last: Some(chrono::TimeDelta::days(30)), ..Period::default() }
}

fn history(folder: &Path, period: &Period) -> anyhow::Result<History> {
    let history = History::read_period(&[Records::Path(folder.join(RECORDS))], Utc::now(), period)?;
    ensure!(!history.runs.all().is_empty() && history.skipped.is_empty(), "not all records were read");
    Ok(history)
}

fn report_of(folder: &Path, period: Period) -> anyhow::Result<Work> {
    let folder = folder.to_owned();
    Ok(Box::new(move || {
        let text = Report::Trends.document(&history(&folder, &period)?, None).show(Format::Text);
        ensure!(!text.is_empty(), "the report is empty");
        Ok(())
    }))
}

/// The last two months; the records end on the first day of 2026.
fn comparison(folder: &Path) -> anyhow::Result<Work> {
    let folder = folder.to_owned();
    Ok(Box::new(move || {
        let history = history(&folder, &Period::default())?;
        let [before, after] = "2025-11..2025-12".parse::<compare::Sides>()?.runs(&history)?;
        ensure!(!report::compare(&before, &after).show(Format::Text).is_empty(), "the report is empty");
        Ok(())
    }))
}

fn packing(folder: &Path) -> anyhow::Result<Work> {
    let folder = folder.join(RECORDS);
    Ok(Box::new(move || {
        let packed = pack(&folder, Utc::now() - Months::new(1), Utc::now())?;
        ensure!(packed.records > 0 && packed.left.is_empty(), "not all records were packed");
        Ok(())
    }))
}
