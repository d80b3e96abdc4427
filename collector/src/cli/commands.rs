//! The commands: each reads its settings, calls the library, prints the result.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use chrono::{DateTime, Utc};
use clap::Args;
use clap_complete::Shell;
use tokio::runtime::Runtime;
use tracing::warn;

use super::output::{self, Progress};
use super::settings::{Settings, Value};
use super::stores::{open_archive, open_peer};
use super::{Exit, Failure, command_line, summary};
use crate::archive::{ArchiveError, Findings};
use crate::clock::{Clock as _, SharedClock, SystemClock};
use crate::feed::{Feed, FeedError, POLISEN_URL};
use crate::heartbeat::Heartbeat;
use crate::import::{find_recordings, import as import_recordings};
use crate::mirror::state::MirrorState;
use crate::record::check;
use crate::run::Collector;
use crate::text::{printable, printable_lines};
use crate::watch::status::Status;

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Print each step, and each phase of the calls
    #[arg(long)]
    timings: bool,
}

pub(crate) fn run(settings: &Settings, arguments: &RunArguments) -> Result<Exit, Failure> {
    let limits = settings.health.limits();
    let (runtime, clock) = (crate::run::runtime().context("cannot start")?, system_clock());
    let collector = runtime.block_on(collector(settings, &clock))?;
    let heartbeat = heartbeat(settings)?;
    let report = runtime.block_on(collector.run());
    if let Some(heartbeat) = heartbeat {
        runtime.block_on(heartbeat.report(&report, clock.now(), &limits));
    }
    report.log_unhealthy(clock.now(), &limits);
    #[cfg(feature = "tables")]
    if report.result.is_ok() && super::tables::period(settings.tables_schedule.tables, clock.now()).is_some()
    {
        runtime.block_on(super::tables::follow_run(settings, &collector.archive, &clock));
    }
    let health_file = &collector.paths.health_file;
    let mut unwritten = None;
    if let Some(path) = &settings.prometheus.prometheus_file {
        let status = Status::new(clock.now(), settings.deposit.buffer_size, limits)?;
        status.metrics().resume(path);
        status.metrics().note_interval(settings.service.interval);
        status.note(&report.record);
        status.note_evidence(&report.evidence, report.health_error.as_ref());
        status.check_health(health_file, clock.now());
        unwritten = status.metrics().write_to(path).err().map(|error| (path, error));
    }
    let store = collector.archive.store().location();
    if settings.output.json {
        output::print_json(&output::RunOutput::new(&report, &store))?;
    } else {
        output::print_run(&report, &settings.source.feed, &store, arguments.timings)?;
    }
    if settings.output.log.shows_summary() {
        summary::log(&report.record, settings.output.log.log_format);
    }
    let unwritten = report.health_error.map(|error| (health_file, error)).or(unwritten);
    Ok(match (report.result, unwritten) {
        (Ok(_), None) => Exit::Done,
        (Err(error), _) => output::report_error(&error.into(), Exit::Failed),
        // The events are stored, but a monitor would see the state of an earlier run.
        (Ok(_), Some((path, error))) => {
            let error = anyhow!("cannot write {}: {error}", path.display());
            output::report_error(&error, Exit::Failed)
        }
    })
}

/// Warns of calls without a contact: the provider asks for one.
pub(super) fn remind_of_contact(settings: &Settings) {
    if settings.calls.is_anonymous() && settings.source.feed.to_string() == POLISEN_URL {
        warn!("no --contact is set; the provider asks callers to say how they can be reached");
    }
}

/// Makes the collector that the settings describe.
pub(super) async fn collector(settings: &Settings, clock: &SharedClock) -> Result<Collector, Failure> {
    remind_of_contact(settings);
    let feed = Feed::new(&settings.source.feed, settings.feed_options(), Arc::clone(clock))?;
    let mut archive = open_archive(settings.archive(), clock).await?;
    if let Some(address) = settings.replica.latest_epoch() {
        archive = archive.with_epoch_store(Arc::clone(open_peer(settings, address, clock).await?.store()));
    }
    Ok(Collector { feed, archive, paths: settings.record_paths(), clock: Arc::clone(clock) })
}

/// The monitor that the settings name, if any.
pub(super) fn heartbeat(settings: &Settings) -> Result<Option<Heartbeat>, FeedError> {
    settings.heartbeat.heartbeat_url.as_ref().map(Heartbeat::new).transpose()
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// Responses named by the second of their recording (1767225600.json), folders or tar archives of them (.tar, .tar.gz,
    /// .tar.xz, .tar.zst), JSON Lines of {time, body} (.jsonl), or all versions of a file in a git repository
    /// (git:REPOSITORY:FILE)
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

pub(crate) fn import(settings: &Settings, arguments: &ImportArguments) -> Result<Exit, Failure> {
    let bar = Progress::counting("responses found");
    let found = find_recordings(&arguments.paths, |found| bar.count(found));
    bar.finish();
    let recordings = found.map_err(|error| Failure::Usage(error.into()))?;
    if recordings.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "no recorded response was found; their names say the second, such as 1767225600.json"
        )));
    }
    let (runtime, clock) = (runtime()?, system_clock());
    let archive = runtime.block_on(open_archive(settings.archive(), &clock))?;
    let bar = Progress::new("responses");
    let imported = import_recordings(&archive, &clock, &recordings, |summary| {
        bar.show(summary.responses, recordings.len());
    });
    let summary = runtime.block_on(imported);
    bar.finish();
    let summary = summary?;
    if settings.output.json {
        output::print_json(&summary)?;
    } else {
        output::print_import(&summary)?;
    }
    Ok(if summary.failed > 0 { Exit::Failed } else { Exit::Done })
}

pub(crate) fn health(settings: &Settings) -> Result<Exit, Failure> {
    let (health_file, now, limits) =
        (&settings.health.health_file, SystemClock::default().now(), settings.health.limits());
    let mut verdict = check::check(health_file, now, &limits);
    if settings.replica.mirror_to.is_some()
        && let Some(fault) = replica_fault(health_file, now, limits.max_age_minutes)
    {
        verdict.add_fault(fault);
    }
    if settings.output.json {
        output::print_json(&output::HealthOutput::new(&verdict))?;
    } else {
        io::stdout().write_all(printable_lines(&verdict.lines).as_bytes())?;
    }
    Ok(if verdict.healthy { Exit::Done } else { Exit::Failed })
}

/// What is wrong with the replica, as the last update has kept it.
fn replica_fault(health_file: &Path, now: DateTime<Utc>, max_age_minutes: i64) -> Option<String> {
    match MirrorState::read(health_file) {
        Ok(state) => state.fault(now, max_age_minutes),
        Err(error) => Some(format!(
            "ERROR: How the replica is cannot be read at {}: {}\nHINT: It may never have been updated\n",
            MirrorState::path(health_file).display(),
            printable(error)
        )),
    }
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Also hold the Parquet files of `collector tables` against the archive
    #[cfg(feature = "tables")]
    #[arg(long = "tables")]
    with_tables: bool,
}

/// The findings about an archive, and about its tables.
#[cfg(feature = "tables")]
#[derive(serde::Serialize)]
struct AllFindings<'a> {
    #[serde(flatten)]
    archive: &'a Findings,
    tables: &'a crate::tables::TablesFindings,
}

#[cfg(feature = "tables")]
fn verify_tables(settings: &Settings, findings: &Findings, location: &str) -> Result<Exit, Failure> {
    let (tables, tables_location) = super::tables::verify(settings)?;
    if settings.output.json {
        output::print_json(&AllFindings { archive: findings, tables: &tables })?;
    } else {
        output::print_findings(findings, location)?;
        super::tables::print_findings(&tables, &tables_location)?;
    }
    Ok(if findings.is_sound() && tables.is_sound() { Exit::Done } else { Exit::Failed })
}

#[cfg_attr(not(feature = "tables"), expect(unused_variables, reason = "without the feature there are none"))]
pub(crate) fn verify(settings: &Settings, arguments: &VerifyArguments) -> Result<Exit, Failure> {
    let runtime = runtime()?;
    let archive = runtime.block_on(open_archive(settings.archive(), &system_clock()))?;
    if let Err(error) = runtime.block_on(archive.require_existing()) {
        if settings.output.json && matches!(error, ArchiveError::Missing(_)) {
            output::print_json(&Findings::of_missing_archive(&archive.store().location()))?;
        }
        return Err(error.into());
    }
    let bar = Progress::new("objects");
    let audit = runtime.block_on(archive.audit(|read, of| bar.show(read, of)));
    bar.finish();
    let findings = audit?.findings;
    #[cfg(feature = "tables")]
    if arguments.with_tables {
        return verify_tables(settings, &findings, &archive.store().location());
    }
    if settings.output.json {
        output::print_json(&findings)?;
    } else {
        output::print_findings(&findings, &archive.store().location())?;
    }
    Ok(if findings.is_sound() { Exit::Done } else { Exit::Failed })
}

pub(crate) fn repair(settings: &Settings) -> Result<Exit, Failure> {
    let runtime = runtime()?;
    let archive = runtime.block_on(open_archive(settings.archive(), &system_clock()))?;
    runtime.block_on(archive.require_existing())?;
    let bar = Progress::new("objects");
    let repaired = runtime.block_on(archive.repair(settings.repair.dry_run, |read, of| bar.show(read, of)));
    bar.finish();
    let repair = repaired?;
    if settings.output.json {
        output::print_json(&repair)?;
    } else {
        output::print_repair(&repair, &archive.store().location())?;
    }
    Ok(Exit::Done)
}

pub(crate) fn config(settings: &Settings, values: &[Value]) -> Result<Exit, Failure> {
    if settings.output.json {
        output::print_json(&output::config_json(values))?;
    } else {
        output::print_config(values, &settings.state.state_dir)?;
    }
    Ok(Exit::Done)
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    shell: Shell,
}

pub(crate) fn completions(arguments: &CompletionsArguments) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command_line(), "collector", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}

pub(crate) fn man() -> Result<Exit, Failure> {
    let mut page = Vec::new();
    let command = command_line();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for subcommand in command.get_subcommands() {
        let title = format!("collector-{}", subcommand.get_name());
        clap_mangen::Man::new(subcommand.clone().name(title)).render(&mut page)?;
    }
    io::stdout().write_all(&page)?;
    Ok(Exit::Done)
}

pub(super) fn system_clock() -> SharedClock {
    Arc::new(SystemClock::default())
}

/// The runtime of a command that reads many objects at a time.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    crate::run::runtime_with(16).context("cannot start")
}
