//! `collector doctor`: tries everything a run needs.

mod publish;
mod python;

use std::ffi::{CStr, CString, OsString};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, anyhow};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Args;
use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, User, geteuid, setgid, setuid};
use serde::Serialize;
use url::Url;

use super::commands::{runtime, system_clock};
use super::settings::Settings;
use super::{Exit, Failure, output};
use crate::archive::{Archive, ArchiveOptions, ledger_key};
use crate::clock::{CLOCK_TOLERANCE, SharedClock};
use crate::event::Response;
use crate::feed::{Feed, FeedError, Source};
use crate::files::{FileKind, check_folder};
use crate::store::probe::{self, Probe};
use crate::store::remote::clock_ahead_of;
use crate::store::{LocalStore, OpenStore};
use crate::text::printable;

/// A clock offset that is worth a warning; beyond [`CLOCK_TOLERANCE`] it is an error.
const NOTABLE_OFFSET: TimeDelta = TimeDelta::seconds(30);
/// A year of events and records, with as much again to write them.
const LEAST_FREE_BYTES: u64 = 500_000_000;
/// Less than this, and the next runs may fail.
const SCARCE_BYTES: u64 = 20_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum CheckResult {
    Ok,
    Warning,
    Failed,
    Skipped,
}

impl CheckResult {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: CheckResult,
    /// What was found.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// Try as this user, for instance the one of the service; only root can
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Also examine what a Python collector left
    #[arg(long)]
    pub(crate) from_python: bool,
}

/// Whether this process runs as that user.
pub(crate) fn is_own(user: &str) -> bool {
    User::from_name(user).ok().flatten().is_some_and(|user| user.uid == geteuid())
}

#[cfg(not(target_vendor = "apple"))]
fn take_groups(login: &CStr, group: Gid) -> nix::Result<()> {
    nix::unistd::initgroups(login, group)
}

/// Not supported there; `sudo -u NAME collector doctor` is.
#[cfg(target_vendor = "apple")]
fn take_groups(_: &CStr, _: Gid) -> nix::Result<()> {
    Err(nix::errno::Errno::ENOTSUP)
}

/// Starts the same command once more, as another user and with that user's home folder. Returns only if that fails.
pub(crate) fn run_as(name: &str) -> Result<Exit, Failure> {
    let refused = |reason: String| Failure::Usage(anyhow!("--user: `{name}`: {reason}"));
    let found = User::from_name(name).map_err(|error| refused(error.to_string()))?;
    let user = found.ok_or_else(|| refused("no such user".to_owned()))?;
    if !geteuid().is_root() {
        return Err(refused("only root can act as another user".to_owned()));
    }
    let program = env::current_exe().context("cannot start again")?;
    let login = CString::new(name).map_err(|_| refused("not a valid name".to_owned()))?;
    take_groups(&login, user.gid)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .map_err(|error| refused(error.to_string()))?;
    let mut arguments: Vec<OsString> = env::args_os().skip(1).collect();
    arguments.retain(|argument| argument != format!("--user={name}").as_str());
    if let Some(position) = arguments.iter().position(|argument| argument == "--user") {
        arguments.drain(position..(position + 2).min(arguments.len()));
    }
    let mut command = Command::new(&program);
    command.args(arguments).env("HOME", user.dir).env("USER", name).env("LOGNAME", name);
    let error = command.env_remove("XDG_STATE_HOME").env_remove("XDG_CACHE_HOME").exec();
    Err(refused(format!("cannot start {}: {error}", program.display())))
}

pub(crate) fn doctor(settings: &Settings, arguments: &DoctorArguments) -> Result<Exit, Failure> {
    let mut round = Round { checks: Vec::new(), prints: !settings.output.json };
    let (runtime, clock) = (runtime()?, system_clock());
    if arguments.from_python {
        runtime.block_on(python::examine(settings, &clock, &mut round))?;
    }
    runtime.block_on(examine(settings, &clock, &mut round))?;
    let count = |verdict| round.checks.iter().filter(|check| check.verdict == verdict).count();
    let (failed, warnings) = (count(CheckResult::Failed), count(CheckResult::Warning));
    if round.prints {
        let verdict = if failed > 0 { "A run would fail." } else { "A run will work." };
        writeln!(io::stdout(), "{verdict} Failed: {failed}, warnings: {warnings}.")?;
    } else {
        output::print_json(&Report { ok: failed == 0, checks: round.checks })?;
    }
    Ok(if failed > 0 { Exit::Failed } else { Exit::Done })
}

/// The checks so far; printed as they end, since some take a while.
struct Round {
    checks: Vec<Check>,
    prints: bool,
}

impl Round {
    fn note(
        &mut self,
        name: &'static str,
        verdict: CheckResult,
        detail: impl Into<String>,
    ) -> io::Result<()> {
        self.push(Check { name, verdict, detail: detail.into(), advice: None })
    }

    fn advise(
        &mut self,
        name: &'static str,
        verdict: CheckResult,
        detail: impl Into<String>,
        advice: &'static str,
    ) -> io::Result<()> {
        self.push(Check { name, verdict, detail: detail.into(), advice: Some(advice) })
    }

    fn push(&mut self, check: Check) -> io::Result<()> {
        if self.prints {
            let mut line =
                format!("{:<8} {:<12} {}\n", check.verdict.word(), check.name, printable(&check.detail));
            if let Some(advice) = check.advice {
                let _ = writeln!(line, "{:21} → {advice}", "");
            }
            io::stdout().write_all(line.as_bytes())?;
        }
        self.checks.push(check);
        Ok(())
    }
}

async fn examine(settings: &Settings, clock: &SharedClock, round: &mut Round) -> Result<(), Failure> {
    examine_store(settings, clock, round).await?;
    examine_peers(settings, clock, round).await?;
    examine_feed(settings, clock, round).await?;
    publish::examine(settings, round).await?;
    let records = settings.record_paths();
    let health_dir = records.health_file.parent().filter(|path| *path != Path::new(""));
    let folders = [
        ("records", records.metrics_dir.as_path()),
        ("health", health_dir.unwrap_or(Path::new("."))),
        ("state", &settings.state.state_dir),
    ];
    for (name, folder) in folders {
        examine_folder(name, folder, round)?;
    }
    if let Ok(metadata) = fs::metadata(&records.health_file)
        && !metadata.is_file()
    {
        let detail = format!("{} is {}", records.health_file.display(), FileKind::of(&metadata).describe());
        round.advise("health", CheckResult::Failed, detail, "name a file that exists or can be made")?;
    }
    examine_space(settings.store.store.folder().unwrap_or(&records.metrics_dir), round)?;
    Ok(())
}

async fn examine_store(settings: &Settings, clock: &SharedClock, round: &mut Round) -> Result<(), Failure> {
    let options = settings.store.options();
    let OpenStore { store, endpoint, identity } = match options.open(clock).await {
        Ok(opened) => opened,
        Err(error) => {
            let (name, advice) = if options.address.folder().is_none() {
                ("credentials", "without credentials and an address nothing can be stored")
            } else {
                ("store", "name a folder that exists or can be made")
            };
            let advice = error.hint().unwrap_or(advice);
            return Ok(round.advise(name, CheckResult::Failed, output::one_line(&error.into()), advice)?);
        }
    };
    if let Some(endpoint) = &endpoint {
        examine_clock(endpoint, clock, round).await?;
    }
    if let Some(identity) = identity {
        round.note("credentials", CheckResult::Ok, identity)?;
    }
    let location = store.location();
    // The conditions are tried apart, and nothing may be left of a trial.
    let options = ArchiveOptions { single_writer: true, ..settings.archive_options() };
    let mut archive = Archive::new(Arc::clone(&store), Arc::clone(clock), options);
    // One that cannot be opened is reported with the other stores.
    if let Some(address) = settings.replica.latest_epoch()
        && let Ok(peer) = settings.peer(address).open(clock).await
    {
        archive = archive.with_epoch_store(peer.store);
    }
    match store.head(&ledger_key()).await {
        Ok(Some(head)) => {
            round.note("ledger", CheckResult::Ok, format!("{} bytes in {location}", head.size_bytes))?;
        }
        Ok(None) => round.note("ledger", CheckResult::Ok, format!("none yet in {location}"))?,
        Err(error) => {
            let advice = "check address, bucket, credentials and the permission to read";
            return Ok(round.advise("ledger", CheckResult::Failed, error.to_string(), advice)?);
        }
    }
    match store.list("metadata/").await {
        Ok(_) => round.note("listing", CheckResult::Ok, "objects can be listed")?,
        Err(error) => {
            let advice = "grant the permission to list the bucket";
            round.advise("listing", CheckResult::Failed, error.to_string(), advice)?;
        }
    }
    let proven = match settings.store.store.folder() {
        Some(folder) => examine_file_system(folder, clock, round).await?,
        None => archive.prove_conditions().await.map_err(|error| error.to_string()),
    };
    match proven {
        Ok(()) => {
            let detail =
                "objects can be written and deleted; a second create and a stale replace are refused";
            round.note("conditions", CheckResult::Ok, detail)?;
        }
        Err(error) if settings.store.single_writer => {
            round.note("conditions", CheckResult::Warning, format!("{error}; used all the same"))?;
        }
        Err(error) => {
            let advice = "grant the permissions to create, overwrite and delete; or choose a store that can be trusted";
            return Ok(round.advise("conditions", CheckResult::Failed, error, advice)?);
        }
    }
    match archive.open().await {
        Ok(snapshot) => {
            let ledger = snapshot.ledger;
            let mut detail = format!("{} events are known", ledger.len());
            if let Some(claim) = &ledger.claim {
                let _ = write!(detail, "; {} is at work until {}", claim.owner, claim.end());
            }
            round.note("archive", CheckResult::Ok, detail)?;
        }
        Err(error) => {
            let advice = error.hint().unwrap_or("`collector repair --dry-run`");
            round.advise("archive", CheckResult::Failed, error.to_string(), advice)?;
        }
    }
    Ok(())
}

/// Looks at the other stores that a run or the service uses.
async fn examine_peers(settings: &Settings, clock: &SharedClock, round: &mut Round) -> io::Result<()> {
    let replica = &settings.replica;
    for (name, address) in [("replica", &replica.mirror_to), ("epoch store", &replica.epoch_store)] {
        let Some(address) = address else { continue };
        let looked_at = async {
            let store = settings.peer(address).open(clock).await?.store;
            store.head(&ledger_key()).await?;
            Ok::<_, anyhow::Error>(store.location())
        };
        match looked_at.await {
            Ok(location) => round.note(name, CheckResult::Ok, format!("{location} can be read"))?,
            Err(error) => {
                let advice = "check address, credentials and permissions of this store";
                round.advise(name, CheckResult::Failed, output::one_line(&error), advice)?;
            }
        }
    }
    Ok(())
}

/// Tries a store in a hidden folder of the file system that the store is or will be on. Returns why one cannot be kept there.
async fn examine_file_system(
    root: &Path,
    clock: &SharedClock,
    round: &mut Round,
) -> io::Result<Result<(), String>> {
    if root.exists() && !root.is_dir() {
        return Ok(Err(format!("{} is not a folder", root.display())));
    }
    let there = nearest(root);
    let failed = |error: io::Error| format!("no files can be made in {}: {error}", there.display());
    let hidden = match tempfile::Builder::new().prefix(probe::PREFIX).tempdir_in(there) {
        Ok(hidden) => hidden,
        Err(error) => return Ok(Err(failed(error))),
    };
    let probes = match probe::probe(hidden.path()) {
        Ok(probes) => probes,
        Err(error) => return Ok(Err(failed(error))),
    };
    for Probe { name, outcome } in probes {
        match outcome {
            Ok(detail) => round.note(name, CheckResult::Ok, detail)?,
            Err(reason) => {
                let advice = "keep the store on a file system that does, or in an object store";
                round.advise(name, CheckResult::Failed, reason, advice)?;
            }
        }
    }
    let store = Arc::new(LocalStore::new(hidden.path().join("store")));
    let archive = Archive::new(store, Arc::clone(clock), ArchiveOptions::default());
    Ok(archive.prove_conditions().await.map_err(|error| error.to_string()))
}

async fn examine_clock(endpoint: &Url, clock: &SharedClock, round: &mut Round) -> io::Result<()> {
    let host = endpoint.host_str().unwrap_or_default();
    match clock_ahead_of(endpoint, &**clock).await {
        Ok(Some(ahead)) => compare_clocks("clock", host, ahead, clock.now(), round),
        Ok(None) => round.note("clock", CheckResult::Skipped, format!("{host} does not say what time it is")),
        Err(reason) => {
            let advice = "check the address and the way there (name, proxy, firewall, certificates)";
            round.advise("clock", CheckResult::Failed, format!("{host} cannot be reached: {reason}"), advice)
        }
    }
}

/// Compares the clock of this machine with that of a server.
fn compare_clocks(
    name: &'static str,
    server: &str,
    ahead: TimeDelta,
    now: DateTime<Utc>,
    round: &mut Round,
) -> io::Result<()> {
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let seconds = ahead.num_seconds();
    let detail =
        format!("{seconds:+} s: this machine shows {}, {server} shows {}", time(now), time(now - ahead));
    match ahead.abs() {
        offset if offset > CLOCK_TOLERANCE => {
            let advice = "set the clock (NTP): ages, claims and the names of objects rest on it";
            round.advise(name, CheckResult::Failed, detail, advice)
        }
        offset if offset >= NOTABLE_OFFSET => {
            round.advise(name, CheckResult::Warning, detail, "set the clock, for instance by NTP")
        }
        _ => round.note(name, CheckResult::Ok, detail),
    }
}

async fn examine_feed(settings: &Settings, clock: &SharedClock, round: &mut Round) -> Result<(), Failure> {
    let source = &settings.source.feed;
    if matches!(source, Source::Http(_)) {
        if settings.calls.is_anonymous() {
            let advice = "name an address or a page with --contact; the provider's rules ask for it";
            round.advise("contact", CheckResult::Warning, "no contact is configured", advice)?;
        } else {
            round.note("contact", CheckResult::Ok, settings.feed_options().user_agent)?;
        }
    }
    if settings.doctor.offline || *source == Source::StandardInput {
        return Ok(round.note("feed", CheckResult::Skipped, "not called")?);
    }
    // One try: whoever asks is there to see what is wrong.
    let mut options = settings.feed_options();
    options.retries = 0;
    let began = clock.elapsed();
    let fetched = match Feed::new(source, options, Arc::clone(clock)) {
        Ok(feed) => feed.fetch().await.map_err(|failure| failure.error),
        Err(error) => Err(error),
    };
    let took = clock.since(began);
    if let Some(ahead) = fetched.as_ref().ok().and_then(|fetched| fetched.http.as_ref()?.clock_offset) {
        compare_clocks("feed clock", "the feed", ahead, clock.now(), round)?;
    }
    match fetched {
        Ok(fetched) => match Response::parse(&fetched.body) {
            Ok(response) => {
                let (elements, bytes) = (response.elements(), fetched.body.len());
                let events = elements.iter().filter(|element| element.event.is_ok()).count();
                let all = elements.len();
                let detail = format!(
                    "{events} valid events of {all}, {bytes} bytes from {source} in {}",
                    seconds(took)
                );
                if events == 0 {
                    let advice =
                        "the address answers, but not with events; check --feed and the feed's format";
                    round.advise("feed", CheckResult::Failed, detail, advice)?;
                } else {
                    round.note("feed", CheckResult::Ok, detail)?;
                }
            }
            Err(error) => {
                let advice = "the address answers, but not with events; check --feed";
                round.advise("feed", CheckResult::Failed, error.to_string(), advice)?;
            }
        },
        Err(error @ FeedError::Gone { .. }) => {
            let advice = "check the address; then call it once with `collector run --force`";
            round.advise("feed", CheckResult::Failed, error.to_string(), advice)?;
        }
        Err(error) => {
            let advice = "check the address and the way there (name, proxy, firewall, certificates)";
            round.advise("feed", CheckResult::Failed, error.to_string(), advice)?;
        }
    }
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Whether files can be made in a folder, or in the one that it would be made in.
fn examine_folder(name: &'static str, folder: &Path, round: &mut Round) -> io::Result<()> {
    let there = nearest(folder);
    match check_folder(folder).and_then(|()| tempfile::tempfile_in(there)) {
        Ok(_) => round.note(name, CheckResult::Ok, format!("{} can be written", folder.display())),
        Err(error) => {
            let detail = format!("{}: {error}", folder.display());
            let advice = "name a folder that the user who runs this may write to";
            round.advise(name, CheckResult::Failed, detail, advice)
        }
    }
}

fn examine_space(folder: &Path, round: &mut Round) -> io::Result<()> {
    let there = nearest(folder);
    let space = match statvfs(there) {
        Ok(space) => space,
        Err(error) => {
            return round.note("space", CheckResult::Skipped, format!("{}: {error}", there.display()));
        }
    };
    #[cfg_attr(target_os = "linux", expect(clippy::useless_conversion, reason = "32 bits on macOS"))]
    let free = space.fragment_size().saturating_mul(space.blocks_available().into());
    let detail = format!("{} MB free in {}", free / 1_000_000, there.display());
    match free {
        0..SCARCE_BYTES => round.advise("space", CheckResult::Failed, detail, "make room"),
        SCARCE_BYTES..LEAST_FREE_BYTES => round.advise("space", CheckResult::Warning, detail, "make room"),
        _ => round.note("space", CheckResult::Ok, detail),
    }
}

/// The folder, or the nearest one above that exists.
fn nearest(folder: &Path) -> &Path {
    let found = folder.ancestors().find(|path| path.is_dir());
    found.unwrap_or(if folder.is_absolute() { Path::new("/") } else { Path::new(".") })
}
