//! `collector doctor --from-python`: what an installation of a Python collector consists of, and what becomes of it here.
//!
//! Nothing is changed. The archive is read whole, because its duplicates are counted.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use super::{CheckResult, Round};
use crate::archive::{Archive, Findings};
use crate::cli::settings::{Settings, python};
use crate::cli::{Failure, output};
use crate::clock::SharedClock;
use crate::record::history::{History, Input};
use crate::store::OpenStore;

/// Where services and their times are configured.
const SCHEDULES: [&str; 3] = ["/etc/systemd/system", "/etc/cron.d", "/var/spool/cron/crontabs"];
/// The program of the Python collectors.
const PROGRAM: &str = "collect_events.py";
/// Largest file that may configure a service.
const LIMIT_BYTES: u64 = 1 << 20;

pub(super) async fn examine(
    settings: &Settings,
    clock: &SharedClock,
    round: &mut Round,
) -> Result<(), Failure> {
    examine_variables(round)?;
    examine_archive(settings, clock, round).await?;
    examine_records(settings, clock, round)?;
    examine_schedules(round)
}

fn examine_variables(round: &mut Round) -> Result<(), Failure> {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let set: Vec<_> = python::VARIABLES.iter().filter(|variable| is_set(variable.name)).collect();
    if set.is_empty() {
        let advice = "name its .env with --env-file";
        round.advise(
            "variable",
            CheckResult::Warning,
            "no variable of the Python collector is set",
            advice,
        )?;
    }
    for variable in set {
        let has_effect = !matches!(variable.meaning, python::Meaning::Elsewhere(_));
        let verdict = if has_effect { CheckResult::Ok } else { CheckResult::Warning };
        let detail = format!("{}: {}", variable.name, python::describe(variable.meaning));
        round.note("variable", verdict, detail)?;
    }
    Ok(())
}

async fn examine_archive(settings: &Settings, clock: &SharedClock, round: &mut Round) -> Result<(), Failure> {
    let Ok(OpenStore { store, .. }) = settings.store.options().open(clock).await else {
        // The check of the store reports why.
        return Ok(());
    };
    let location = store.location();
    let archive = Archive::new(store, Arc::clone(clock), settings.archive_options());
    let audit = match archive.require_existing().await {
        Ok(()) => archive.audit(|_, _| {}).await,
        Err(error) => Err(error),
    };
    match audit {
        Ok(audit) => note_findings(&audit.findings, &location, round),
        Err(error) => {
            let advice = "name the archive of the Python collector with --store, or begin a new one";
            Ok(round.advise("takeover", CheckResult::Warning, output::one_line(&error.into()), advice)?)
        }
    }
}

fn note_findings(findings: &Findings, location: &str, round: &mut Round) -> Result<(), Failure> {
    let Findings { objects, events, unique_ids, duplicates, misplaced, unreadable, .. } = findings;
    let detail = format!(
        "{events} events in {objects} objects of {location}: {unique_ids} distinct, {duplicates} duplicates, \
         {misplaced} in the wrong day, {unreadable} unreadable"
    );
    if findings.is_sound() {
        return Ok(round.note("takeover", CheckResult::Ok, detail)?);
    }
    let advice = "stop the Python collector, then `collector repair --dry-run` and `collector repair`: duplicates move to repaired/";
    Ok(round.advise("takeover", CheckResult::Warning, detail, advice)?)
}

fn examine_records(settings: &Settings, clock: &SharedClock, round: &mut Round) -> Result<(), Failure> {
    let folder = settings.record_paths().metrics_dir;
    match History::read(&[Input::Path(folder.clone())], clock.now()) {
        Ok(history) => {
            let (runs, skipped) = (history.runs.all().len(), history.skipped.len());
            let detail =
                format!("{runs} records in {} can be read by reports, {skipped} cannot", folder.display());
            let verdict = if skipped > 0 { CheckResult::Warning } else { CheckResult::Ok };
            Ok(round.note("past runs", verdict, detail)?)
        }
        Err(error) => {
            let advice = "name the folder of its metrics with --metrics-dir";
            Ok(round.advise("past runs", CheckResult::Warning, error.to_string(), advice)?)
        }
    }
}

fn examine_schedules(round: &mut Round) -> Result<(), Failure> {
    let found: Vec<PathBuf> =
        SCHEDULES.iter().flat_map(|folder| files_that_run_it(Path::new(folder))).collect();
    if found.is_empty() {
        let detail = "no unit and no cron line runs the Python collector";
        return Ok(round.note("schedule", CheckResult::Ok, detail)?);
    }
    for path in found {
        let detail = format!("{} runs the Python collector", path.display());
        let advice = "`sudo scripts/install --replace-python` disables it";
        round.advise("schedule", CheckResult::Warning, detail, advice)?;
    }
    Ok(())
}

/// Units, and files of cron, that name the program.
fn files_that_run_it(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut found: Vec<_> = paths
        .filter(|path| path.extension().is_none_or(|extension| extension == OsStr::new("service")))
        .filter(|path| {
            let text = crate::files::read_regular(path, LIMIT_BYTES);
            text.is_ok_and(|text| String::from_utf8_lossy(&text).contains(PROGRAM))
        })
        .collect();
    found.sort();
    found
}
