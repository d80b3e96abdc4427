//! `collector watch`: the service, and what the system says to it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use clap::ArgMatches;
use collector::clock::SharedClock;
use collector::feed::Source;
use collector::record::{health, is_in_the_future};
use collector::run::Collector;
use collector::watch::http::{self, Pages};
use collector::watch::pace::Pace;
use collector::watch::schedule::Schedule;
use collector::watch::status::Status;
use collector::watch::{Command, Watch, recall};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{error, info, warn};

use super::commands::{collector, system_clock};
use super::settings::{ServiceSettings, Settings};
use super::{Exit, Failure};

/// A health file that is read is not larger.
const HEALTH_LIMIT_BYTES: u64 = 1 << 20;

pub(crate) fn watch(settings: Settings, options: &ArgMatches) -> Result<Exit, Failure> {
    collector::run::runtime().context("cannot start")?.block_on(Service::start(settings)?.serve(options))
}

struct Service {
    settings: Settings,
    clock: SharedClock,
    status: Arc<Status>,
}

impl Service {
    fn start(settings: Settings) -> Result<Self, Failure> {
        let clock = system_clock();
        let (buffer, limits) = (settings.deposit.buffer_size, settings.health.limits());
        let status = Arc::new(Status::new(clock.now(), buffer, limits)?);
        status.recall(recall::records(&settings.records.metrics_dir, clock.now()));
        status.note_evidence(&health::read_evidence(&settings.health.health_file), None);
        Ok(Self { settings, clock, status })
    }

    async fn serve(mut self, options: &ArgMatches) -> Result<Exit, Failure> {
        let mut commands = signals()?;
        let mut collector = self.collector().await?;
        let (schedule, pace) = self.rhythm();
        let last_run = last_run(&self.settings, self.clock.now());
        let (clock, status) = (Arc::clone(&self.clock), Arc::clone(&self.status));
        let mut watch = Watch::new(clock, schedule, pace, status, last_run);
        self.listen()?;
        let watchdog = sd_notify::watchdog_enabled().map(|limit| tokio::spawn(feed_watchdog(limit / 2)));
        notify(&[NotifyState::Ready]);
        info!(every_s = schedule.interval().as_secs_f64(), store = %self.settings.store.store, "polling");
        while watch.run(async || collector.run().await, &mut commands).await == Command::Reload {
            notify_reloading();
            match self.reload(options).await {
                Ok((renewed, schedule, pace)) => {
                    collector = renewed;
                    watch.set(schedule, pace);
                    info!(every_s = schedule.interval().as_secs_f64(), "the settings were read again");
                }
                Err(error) => error!(error, "the settings cannot be read again; going on with the old ones"),
            }
            notify(&[NotifyState::Ready]);
        }
        notify(&[NotifyState::Stopping]);
        if let Some(watchdog) = watchdog {
            watchdog.abort();
        }
        info!("stopped");
        Ok(Exit::Done)
    }

    async fn collector(&self) -> Result<Collector, Failure> {
        check_source(&self.settings).map_err(Failure::Usage)?;
        collector(&self.settings, &self.clock).await
    }

    /// When and how often is polled. Where on the grid is a matter of the machine and the store.
    fn rhythm(&self) -> (Schedule, Pace) {
        let ServiceSettings { interval, jitter, adaptive, .. } = self.settings.service;
        let machine = nix::unistd::gethostname().unwrap_or_default();
        let name = format!("{} {}", machine.to_string_lossy(), self.settings.store.store);
        let buffer = self.settings.deposit.buffer_size;
        let pace = Pace::new(interval, adaptive, buffer).at_most_every(closest_calls(&self.settings));
        (Schedule::new(interval, jitter, &name), pace)
    }

    fn listen(&self) -> Result<(), Failure> {
        let Some(address) = self.settings.service.listen else { return Ok(()) };
        let pages = Pages {
            status: Arc::clone(&self.status),
            health_file: self.settings.health.health_file.clone(),
            clock: Arc::clone(&self.clock),
        };
        let address = http::start(address, pages).with_context(|| format!("cannot listen on {address}"))?;
        if address.ip().is_loopback() {
            info!(%address, "showing /, /health, /ready, /metrics and /api/runs");
        } else {
            warn!(%address, "showing /, /health, /ready, /metrics and /api/runs to everybody who can reach this address");
        }
        Ok(())
    }

    async fn reload(&mut self, options: &ArgMatches) -> Result<(Collector, Schedule, Pace), String> {
        let said = |failure: Failure| match failure {
            Failure::Usage(error) | Failure::Failed(error) => super::output::one_line(&error),
        };
        let settings = Settings::read(options).map_err(|error| said(Failure::Usage(error)))?;
        let before = std::mem::replace(&mut self.settings, settings);
        let renewed = async {
            let (schedule, pace) = self.rhythm();
            Ok((self.collector().await?, schedule, pace))
        };
        let renewed = renewed.await.map_err(said);
        if renewed.is_err() {
            self.settings = before;
        } else if self.settings.service.listen != before.service.listen {
            warn!("where the pages are shown changes only with a restart");
        }
        renewed
    }
}

/// Whether a feed can be asked again and again, so often.
fn check_source(settings: &Settings) -> anyhow::Result<()> {
    if settings.source.feed == Source::StandardInput {
        bail!("feed: standard input cannot be read again and again");
    }
    let closest = closest_calls(settings);
    if settings.service.interval < closest {
        bail!("interval: the feed may be called every {} s at most", closest.as_secs());
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
fn signals() -> anyhow::Result<UnboundedReceiver<Command>> {
    let (tell, told) = unbounded_channel();
    let kinds = [
        (SignalKind::terminate(), Command::Stop),
        (SignalKind::interrupt(), Command::Stop),
        (SignalKind::hangup(), Command::Reload),
    ];
    for (kind, command) in kinds {
        let signal = signal(kind).context("signals cannot be heard")?;
        tokio::spawn(pass_on(signal, command, tell.clone()));
    }
    Ok(told)
}

async fn pass_on(mut signal: Signal, command: Command, tell: UnboundedSender<Command>) {
    while signal.recv().await.is_some() {
        if tell.send(command).is_err() {
            return;
        }
    }
}

/// When an earlier process ran last, so that a restart does not poll anew before it is time. A time in the future delays nothing.
fn last_run(settings: &Settings, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let text = collector::files::read_regular(&settings.health.health_file, HEALTH_LIMIT_BYTES).ok()?;
    let health: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let time = DateTime::parse_from_rfc3339(health.get("last_run")?.as_str()?).ok()?;
    let time = time.to_utc();
    if is_in_the_future(time, now) {
        warn!(last_run = %time, local = %now, "the last run is dated in the future; polling at once");
        return None;
    }
    Some(time)
}

/// Tells systemd's watchdog that this thread is not stuck.
async fn feed_watchdog(every: Duration) {
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// Tells systemd, where there is one.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the system's manager cannot be told");
    }
}

fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "the system's manager cannot be told"),
    }
}
