//! `collector watch`: the service, and what the system says to it.

use std::io::{self, Write as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use clap::{ArgMatches, Args};
use nix::sys::signal::SigSet;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::commands::{collector, heartbeat, system_clock};
use super::mirror::open_mirror;
use super::publish::Background;
use super::settings::{ServiceSettings, Settings};
use super::{Exit, Failure};
use crate::clock::SharedClock;
use crate::feed::Source;
use crate::heartbeat::Heartbeat;
use crate::mirror::{Mirror, MirrorOptions};
use crate::record::{health, is_in_the_future};
use crate::run::Collector;
use crate::watch::http::Pages;
use crate::watch::poll_interval::PollInterval;
use crate::watch::schedule::Schedule;
use crate::watch::status::Status;
use crate::watch::{Command, Watch, listener, recorded_runs};

/// A health file that is read is not larger.
const HEALTH_LIMIT_BYTES: u64 = 1 << 20;

type Commands = UnboundedReceiver<Command>;

/// Keeps a reload that is asked for before the service can hear it: by default the signal would end the process.
pub(crate) fn hold_reloads() {
    // Fails for an invalid argument only.
    let _ = reload_signal().thread_block();
}

fn reload_signal() -> SigSet {
    SigSet::from(nix::sys::signal::Signal::SIGHUP)
}

#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// Check the settings and the store as a reload does, and end
    #[arg(long)]
    check: bool,
}

pub(crate) fn watch(
    settings: Settings,
    options: &ArgMatches,
    arguments: &WatchArguments,
) -> Result<Exit, Failure> {
    let runtime = crate::run::runtime().context("cannot start")?;
    let ended = runtime.block_on(async {
        let commands = signals()?;
        let service = Service::start(settings)?;
        if arguments.check { service.check().await } else { Box::pin(service.serve(commands, options)).await }
    });
    // What still blocks a thread must not keep the process: it would be killed instead.
    runtime.shutdown_background();
    ended
}

struct Service {
    settings: Settings,
    clock: SharedClock,
    status: Arc<Status>,
    pages: Option<JoinHandle<()>>,
    /// What publishes beside the service.
    publishing: Option<Background>,
    /// The hour or day for which the tables were made last.
    #[cfg(feature = "tables")]
    tables_made: std::cell::Cell<Option<i64>>,
}

/// What depends on the settings.
type Setup = (Collector, Option<Mirror>, Option<Heartbeat>, Schedule, PollInterval);

impl Service {
    fn start(settings: Settings) -> Result<Self, Failure> {
        let clock = system_clock();
        let (buffer, limits) = (settings.deposit.buffer_size, settings.health.limits());
        let status = Arc::new(Status::new(clock.now(), buffer, limits)?);
        Ok(Self {
            settings,
            clock,
            status,
            pages: None,
            publishing: None,
            #[cfg(feature = "tables")]
            tables_made: std::cell::Cell::default(),
        })
    }

    /// Opens what the settings name, as a start and a reload do, and polls nothing.
    async fn check(self) -> Result<Exit, Failure> {
        self.collector().await?;
        writeln!(io::stdout(), "the settings are valid")?;
        Ok(Exit::Done)
    }

    async fn serve(mut self, mut commands: Commands, options: &ArgMatches) -> Result<Exit, Failure> {
        self.status.recall(recorded_runs::records(&self.settings.records.metrics_dir, self.clock.now()));
        self.status.note_evidence(&health::read_evidence(&self.settings.health.health_file), None);
        let (opened, mut command) = unless_stopped(Box::pin(self.collector()), &mut commands).await;
        let Some(opened) = opened else { return Ok(Exit::Done) };
        let ((mut collector, mut mirror), mut heartbeat) = (opened?, heartbeat(&self.settings)?);
        let (schedule, poll_interval) = self.rhythm();
        let last_run = last_run(&self.settings, self.clock.now());
        let (clock, status) = (Arc::clone(&self.clock), Arc::clone(&self.status));
        let mut watch = Watch::new(clock, schedule, poll_interval, status, last_run);
        self.listen().await;
        self.publishing = Background::start(&self.settings, &self.status);
        let watchdog = sd_notify::watchdog_enabled().map(|limit| tokio::spawn(feed_watchdog(limit / 2)));
        notify(&[NotifyState::Ready]);
        info!(every_s = schedule.interval().as_secs_f64(), store = %self.settings.store.store, "polling");
        loop {
            let poll = async || {
                let report = collector.run().await;
                if let (Some(mirror), Ok(deposit)) = (&mirror, &report.result) {
                    let updated = Box::pin(mirror.update(|_| {})).await;
                    let (stored, health_file) = (deposit.objects.len(), &self.settings.health.health_file);
                    self.status.note_mirror(&updated, stored, health_file, self.clock.now());
                }
                if let Some(heartbeat) = &heartbeat {
                    heartbeat.report(&report, self.clock.now(), &self.status.limits()).await;
                }
                show_status(&self.status);
                if let Some(publishing) = &self.publishing {
                    publishing.wake();
                }
                #[cfg(feature = "tables")]
                if report.result.is_ok() {
                    self.make_tables(&collector).await;
                }
                report
            };
            let said =
                if let Some(said) = command.take() { said } else { watch.run(poll, &mut commands).await };
            if said == Command::Stop {
                break;
            }
            notify_reloading();
            let (reloaded, next) = unless_stopped(Box::pin(self.reload(options)), &mut commands).await;
            command = next;
            if let Some(Some((renewed, replica, monitor, schedule, poll_interval))) = reloaded {
                (collector, mirror, heartbeat) = (renewed, replica, monitor);
                watch.set(schedule, poll_interval);
            }
            show_status(&self.status);
            notify(&[NotifyState::Ready]);
        }
        notify(&[NotifyState::Stopping]);
        if let Some(watchdog) = watchdog {
            watchdog.abort();
        }
        info!("stopped");
        Ok(Exit::Done)
    }

    /// Makes the tables, once an hour or a day.
    #[cfg(feature = "tables")]
    async fn make_tables(&self, collector: &Collector) {
        let schedule = self.settings.tables_schedule.tables;
        let period = super::tables::period(schedule, self.clock.now());
        if period.is_some() && period != self.tables_made.replace(period) {
            super::tables::follow_run(&self.settings, &collector.archive, &self.clock).await;
        }
    }

    /// Reads the settings again. Returns nothing, and leaves everything as it is, if they are not valid.
    async fn reload(&mut self, options: &ArgMatches) -> Option<Setup> {
        match self.renew(options).await {
            Ok((settings, setup)) => {
                let before = std::mem::replace(&mut self.settings, settings);
                info!(every_s = setup.3.interval().as_secs_f64(), "the settings were read again");
                let (log, log_before) = (&self.settings.output.log, &before.output.log);
                for (setting, is_changed) in [
                    ("log_level", log.log_level != log_before.log_level),
                    ("log_format", log.log_format != log_before.log_format),
                ] {
                    if is_changed {
                        warn!(setting, "this setting changes only with a restart");
                    }
                }
                let pages =
                    |settings: &Settings| (settings.service.listen, settings.health.health_file.clone());
                if pages(&self.settings) != pages(&before) {
                    self.listen().await;
                }
                // The one before ends first, or one of them would be fenced.
                self.publishing = None;
                self.publishing = Background::start(&self.settings, &self.status);
                Some(setup)
            }
            Err(Failure::Usage(error) | Failure::Failed(error)) => {
                let error = super::output::one_line(&error);
                self.status.note_reload(Err(error.clone()));
                error!(error, "the settings cannot be read again; the earlier ones stay in use");
                None
            }
        }
    }

    async fn renew(&self, options: &ArgMatches) -> Result<(Settings, Setup), Failure> {
        let renewed = Self {
            settings: Settings::read(options).map_err(Failure::Usage)?,
            clock: Arc::clone(&self.clock),
            status: Arc::clone(&self.status),
            pages: None,
            publishing: None,
            #[cfg(feature = "tables")]
            tables_made: self.tables_made.clone(),
        };
        let ((collector, mirror), heartbeat) = (renewed.collector().await?, heartbeat(&renewed.settings)?);
        let (schedule, poll_interval) = renewed.rhythm();
        let (buffer, limits) = (renewed.settings.deposit.buffer_size, renewed.settings.health.limits());
        self.status.note_reload(Ok((buffer, limits)));
        Ok((renewed.settings, (collector, mirror, heartbeat, schedule, poll_interval)))
    }

    /// The collector, and the mirror of its archive if there is one.
    async fn collector(&self) -> Result<(Collector, Option<Mirror>), Failure> {
        check_source(&self.settings).map_err(Failure::Usage)?;
        let mirror = match &self.settings.replica.mirror_to {
            Some(to) => Some(open_mirror(&self.settings, to, MirrorOptions::default(), &self.clock).await?),
            None => None,
        };
        Ok((collector(&self.settings, &self.clock).await?, mirror))
    }

    /// When and how often is polled. Where on the grid is a matter of the machine and the store.
    fn rhythm(&self) -> (Schedule, PollInterval) {
        let ServiceSettings { interval, jitter, adaptive, .. } = self.settings.service;
        let machine = nix::unistd::gethostname().unwrap_or_default();
        let name = format!("{} {}", machine.to_string_lossy(), self.settings.store.store);
        let buffer = self.settings.deposit.buffer_size;
        let poll_interval =
            PollInterval::new(interval, adaptive, buffer).at_most_every(closest_calls(&self.settings));
        (Schedule::new(interval, jitter, &name), poll_interval)
    }

    /// Shows the pages where the settings say, as soon as that is possible, and no longer elsewhere.
    async fn listen(&mut self) {
        if let Some(pages) = self.pages.take() {
            pages.abort();
            // Until the address is free again.
            let _ = pages.await;
        }
        let Some(address) = self.settings.service.listen else { return };
        let pages = Pages {
            status: Arc::clone(&self.status),
            health_file: self.settings.health.health_file.clone(),
            clock: Arc::clone(&self.clock),
        };
        let status = Arc::clone(&self.status);
        self.pages = Some(tokio::spawn(listener::show(address, pages, move || show_status(&status))));
    }
}

/// Carries out work, unless the service is to stop. A reload that is asked for meanwhile is returned.
async fn unless_stopped<T>(
    work: impl Future<Output = T>,
    commands: &mut Commands,
) -> (Option<T>, Option<Command>) {
    let mut work = pin!(work);
    let mut asked = None;
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command.unwrap_or(Command::Stop) {
                Command::Reload => asked = Some(Command::Reload),
                Command::Stop => return (None, Some(Command::Stop)),
            },
            done = &mut work => return (Some(done), asked),
        }
    }
}

/// Whether a feed can be asked again and again, so often.
fn check_source(settings: &Settings) -> anyhow::Result<()> {
    if settings.source.feed == Source::StandardInput {
        bail!("feed: standard input cannot be read again and again");
    }
    let closest = closest_calls(settings);
    if settings.service.interval < closest {
        bail!(
            "--interval: {} s is less than the {} s that the feed permits between two polls; 30m is 30 minutes",
            settings.service.interval.as_secs(),
            closest.as_secs()
        );
    }
    Ok(())
}

/// How often a feed may be called for hours and days on end.
fn closest_calls(settings: &Settings) -> Duration {
    let Source::Http(url) = &settings.source.feed else { return Duration::ZERO };
    let limits = settings.feed_options().limits.for_url(url);
    let apart = |calls: Option<u32>, period: Duration| calls.map(|calls| period / calls.max(1));
    let hour = apart(limits.per_hour, Duration::from_hours(1));
    let day = apart(limits.per_day, Duration::from_hours(24));
    hour.max(day).unwrap_or_default()
}

/// What the system says: end on SIGTERM and SIGINT, read the settings again on SIGHUP.
fn signals() -> anyhow::Result<Commands> {
    let (sender, commands) = unbounded_channel();
    let kinds = [
        (SignalKind::terminate(), Command::Stop),
        (SignalKind::interrupt(), Command::Stop),
        (SignalKind::hangup(), Command::Reload),
    ];
    for (kind, command) in kinds {
        let signal = signal(kind).context("signals cannot be heard")?;
        tokio::spawn(pass_on(signal, command, sender.clone()));
    }
    // Now that it is heard, one that was held is heard as well.
    reload_signal().thread_unblock().context("signals cannot be heard")?;
    Ok(commands)
}

async fn pass_on(mut signal: Signal, command: Command, sender: UnboundedSender<Command>) {
    while signal.recv().await.is_some() {
        if sender.send(command).is_err() {
            return;
        }
    }
}

/// When an earlier process ran last, so that a restart does not poll anew before it is time. A time in the future delays nothing.
fn last_run(settings: &Settings, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let text = crate::files::read_regular(&settings.health.health_file, HEALTH_LIMIT_BYTES).ok()?;
    let health: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let time = DateTime::parse_from_rfc3339(health.get("last_run")?.as_str()?).ok()?;
    let time = time.to_utc();
    if is_in_the_future(time, now) {
        warn!(last_run = %time, local = %now, "the last run is dated in the future; polling at once");
        return None;
    }
    Some(time)
}

/// Notifies systemd's watchdog that this thread is not blocked.
async fn feed_watchdog(every: Duration) {
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// Shows the state of the service in `systemctl status`.
fn show_status(status: &Status) {
    notify(&[NotifyState::Status(&status.view(1).to_string())]);
}

/// Notifies systemd, if it started the process.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd cannot be notified");
    }
}

fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "systemd cannot be notified"),
    }
}
