//! `collector publish`: publishes the archive to a broker.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::{ArgGroup, Args};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::{error, info};

use super::commands::{runtime, system_clock};
use super::output;
use super::settings::{Settings, names};
use super::stores::{open_archive, open_peer};
use super::{Exit, Failure};
use crate::archive::{Archive, ChangesError, Cursor};
use crate::clock::SharedClock;
use crate::publish::{
    Beginning, Broker, BrokerError, MessageKind, PublishError, PublishOptions, PublishReport, Publisher,
    Target,
};
use crate::watch::status::{Published, Status};

/// In the service: the time after which commits are looked for that other collectors made, and after which publishing begins
/// anew after an error.
const PAUSE: Duration = Duration::from_mins(1);
/// How often the archive is asked for new commits.
const POLL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("begin"), group = ArgGroup::new("until"))]
pub(super) struct PublishArguments {
    /// If nothing was published yet: begin with the first commit
    #[arg(long, group = "begin")]
    from_start: bool,
    /// If nothing was published yet, or the last message is gone: begin after this cursor of `collector changes`
    #[arg(long, value_name = "CURSOR", group = "begin")]
    from: Option<Cursor>,
    /// End when everything is published that is committed [default]
    #[arg(long, group = "until")]
    once: bool,
    /// Publish what is committed until the process is ended
    #[arg(long, group = "until")]
    follow: bool,
    /// What to publish
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', default_value = "event,revision,withdrawal")]
    #[arg(value_parser = names(&[
        (&["event"], MessageKind::Event),
        (&["revision"], MessageKind::Revision),
        (&["withdrawal"], MessageKind::Withdrawal),
    ]))]
    kinds: Vec<MessageKind>,
}

impl PublishArguments {
    fn options(&self, settings: &Settings, target: &Target) -> PublishOptions {
        let mut options = PublishOptions { kinds: self.kinds.clone(), ..options(settings, target) };
        if let Some(cursor) = &self.from {
            options.from = Beginning::After(cursor.clone());
        } else if self.from_start {
            options.from = Beginning::Start;
        }
        if self.follow {
            options.failures = None;
        }
        options
    }
}

/// How is published as the settings say.
fn options(settings: &Settings, target: &Target) -> PublishOptions {
    let defaults = PublishOptions::default();
    // The end of a transaction takes several round trips, whatever it holds.
    let factor = if matches!(target, Target::Kafka { .. }) { 4 } else { 1 };
    PublishOptions {
        from: settings.publish.publish_from.clone().unwrap_or_default(),
        batch_messages: factor * defaults.batch_messages,
        batch_bytes: factor * defaults.batch_bytes,
        seed: unique(),
        ..defaults
    }
}

#[derive(Serialize)]
struct Output<'a> {
    target: String,
    elapsed_s: f64,
    #[serde(flatten)]
    report: &'a PublishReport,
}

pub(super) fn publish(settings: &Settings, arguments: &PublishArguments) -> Result<Exit, Failure> {
    let target = settings.publish.publish_to.as_ref();
    let target = target.ok_or_else(|| Failure::Usage(anyhow!("--to is required: where to publish")))?;
    let (runtime, clock) = (runtime()?, system_clock());
    runtime.block_on(async {
        let archive = published_archive(settings, &clock).await?;
        let broker = open_broker(settings, target)?;
        let mut publisher =
            Publisher::new(&archive, broker, clock.clone(), arguments.options(settings, target));
        let begun = Instant::now();
        let result = if arguments.follow {
            follow(&mut publisher, &clock).await
        } else {
            publisher.catch_up().await.map_err(Failure::from)
        };
        let output = Output {
            target: target.to_string(),
            elapsed_s: begun.elapsed().as_secs_f64(),
            report: publisher.report(),
        };
        if settings.output.json {
            output::print_json(&output)?;
        } else if result.is_ok() {
            print(&output)?;
        }
        result.map(|()| if output.report.skipped_total > 0 { Exit::Failed } else { Exit::Done })
    })
}

/// The archive whose commits are published: the replica, if there is one. What the replica lacks would be collected again after a
/// fail-over, as another commit, and published twice.
async fn published_archive(settings: &Settings, clock: &SharedClock) -> Result<Archive, Failure> {
    match &settings.replica.mirror_to {
        Some(replica) => open_peer(settings, replica, clock).await,
        None => open_archive(settings.archive(), clock).await,
    }
}

/// Publishes until the process is asked to end.
async fn follow<B: Broker>(publisher: &mut Publisher<'_, B>, clock: &SharedClock) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be heard")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be heard")?;
    let publishing = async {
        loop {
            publisher.catch_up().await?;
            clock.sleep(POLL).await;
        }
    };
    tokio::select! {
        ended = publishing => return ended,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopped");
    Ok(())
}

/// Publishes beside the service, on a thread of its own, so that collecting neither waits for it nor fails with it. It ends
/// when this is dropped.
#[derive(Debug)]
pub(super) struct Background {
    /// Something was committed.
    committed: Arc<Notify>,
    stop: Arc<Notify>,
}

impl Background {
    /// Begins to publish, if the settings say where.
    pub(super) fn start(settings: &Settings, status: &Arc<Status>) -> Option<Self> {
        settings.publish.publish_to.as_ref()?;
        status.note_publishing(None);
        let background = Self { committed: Arc::default(), stop: Arc::default() };
        let (settings, status) = (settings.clone(), Arc::clone(status));
        let (committed, stop) = (Arc::clone(&background.committed), Arc::clone(&background.stop));
        let publishing = move || {
            let Ok(runtime) = crate::run::runtime() else { return };
            runtime.block_on(async {
                tokio::select! {
                    () = stop.notified() => {}
                    () = publish_commits(&settings, &status, &committed) => {}
                }
            });
            runtime.shutdown_background();
        };
        if let Err(error) = std::thread::Builder::new().name("publishing".to_owned()).spawn(publishing) {
            error!(%error, "nothing is published: the thread for it cannot be started");
        }
        Some(background)
    }

    /// Publishes what was committed.
    pub(super) fn wake(&self) {
        self.committed.notify_one();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

/// Publishes each commit, and begins anew a while after an error; not after another publisher has taken over.
async fn publish_commits(settings: &Settings, status: &Status, committed: &Notify) {
    loop {
        let Err(failure) = publish_until_failure(settings, status, committed).await;
        status.note_publishing(None);
        let (Failure::Usage(error) | Failure::Failed(error)) = failure;
        let is_fenced = error
            .downcast_ref::<PublishError>()
            .is_some_and(|error| matches!(error, PublishError::Broker(BrokerError::Fenced { .. })));
        let error = output::one_line(&error);
        if is_fenced {
            error!(error, "publishing has ended; it begins again with a reload or a restart");
            return;
        }
        error!(
            error,
            "nothing is published; the events are stored, and publishing is tried again in a minute"
        );
        let _ = tokio::time::timeout(PAUSE, committed.notified()).await;
    }
}

async fn publish_until_failure(
    settings: &Settings,
    status: &Status,
    committed: &Notify,
) -> Result<Infallible, Failure> {
    let clock = system_clock();
    let archive = published_archive(settings, &clock).await?;
    let target = settings.publish.publish_to.as_ref().ok_or_else(|| anyhow!("publish_to is not set"))?;
    let broker = open_broker(settings, target)?;
    let mut publisher = Publisher::new(&archive, broker, clock.clone(), options(settings, target));
    let mut noted = PublishReport::default();
    loop {
        match publisher.catch_up().await {
            Ok(()) => {
                let messages = publisher.report().since(&noted);
                status.note_publishing(Some(Published { at: clock.now(), messages }));
                noted.clone_from(publisher.report());
            }
            // The first run of all is not over yet.
            Err(PublishError::Changes(ChangesError::NoArchive(_) | ChangesError::NoJournal(_))) => {}
            Err(error) => return Err(error.into()),
        }
        let _ = tokio::time::timeout(PAUSE, committed.notified()).await;
    }
}

/// A number that differs from that of every other process.
fn unique() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

/// The broker of an address. It is not connected yet.
#[cfg_attr(
    not(any(feature = "kafka", feature = "nats")),
    expect(unused_variables, reason = "only brokers need them")
)]
pub(super) fn open_broker(settings: &Settings, target: &Target) -> Result<Box<dyn Broker>, Failure> {
    match target {
        #[cfg(feature = "kafka")]
        Target::Kafka { servers, topic, tls } => {
            use crate::publish::Transactions;
            use crate::publish::kafka::KafkaTopic;
            let auth = kafka_auth(settings).map_err(Failure::Usage)?;
            let topic = KafkaTopic::new(servers.clone(), topic.clone(), *tls, auth);
            Ok(Box::new(Transactions::new(topic, format!("{:016x}", unique()))))
        }
        #[cfg(feature = "nats")]
        Target::Nats { servers, subject, tls } => {
            use crate::publish::JetStream;
            use crate::publish::nats::NatsStream;
            let auth = nats_auth(settings).map_err(Failure::Usage)?;
            let stream = NatsStream::new(servers.clone(), subject.clone(), *tls, auth);
            Ok(Box::new(JetStream::new(stream, format!("{:016x}", unique()))))
        }
        #[cfg(not(feature = "kafka"))]
        Target::Kafka { .. } => Err(without("kafka")),
        #[cfg(not(feature = "nats"))]
        Target::Nats { .. } => Err(without("nats")),
    }
}

#[cfg(not(all(feature = "kafka", feature = "nats")))]
fn without(feature: &str) -> Failure {
    Failure::Usage(anyhow!(
        "this program was built without the feature `{feature}`; the Debian package and the container have it, \
         `cargo install polisen-events-collector --features {feature}` builds it"
    ))
}

/// The password or token: of the file, or of a variable.
#[cfg(any(feature = "kafka", feature = "nats"))]
fn secret(settings: &Settings, variable: &str) -> anyhow::Result<Option<String>> {
    Ok(match &settings.publish.publish_secret_file {
        Some(path) => Some(read_file(path)?.trim_end_matches(['\r', '\n']).to_owned()),
        None => std::env::var(variable).ok().filter(|secret| !secret.is_empty()),
    })
}

#[cfg(any(feature = "kafka", feature = "nats"))]
fn read_file(path: &std::path::Path) -> anyhow::Result<String> {
    crate::publish::read_secret(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(feature = "kafka")]
fn kafka_auth(settings: &Settings) -> anyhow::Result<crate::publish::kafka::KafkaAuth> {
    use crate::publish::kafka::KafkaAuth;
    let Some(user) = &settings.publish.publish_user else { return Ok(KafkaAuth::Nothing) };
    let password = secret(settings, "KAFKA_PASSWORD")?
        .ok_or_else(|| anyhow!("publish_user: neither publish_secret_file nor KAFKA_PASSWORD is set"))?;
    Ok(KafkaAuth::Sasl(settings.publish.publish_sasl, user.clone(), password))
}

#[cfg(feature = "nats")]
fn nats_auth(settings: &Settings) -> anyhow::Result<crate::publish::nats::NatsAuth> {
    use crate::publish::nats::NatsAuth;
    let publish = &settings.publish;
    if let Some(path) = &publish.publish_credentials {
        let content = read_file(path)?;
        let seed = content.trim();
        let is_seed = seed.starts_with('S') && seed.bytes().all(|byte| byte.is_ascii_alphanumeric());
        return Ok(if is_seed { NatsAuth::Nkey(seed.to_owned()) } else { NatsAuth::Credentials(content) });
    }
    let variable = if publish.publish_user.is_some() { "NATS_PASSWORD" } else { "NATS_TOKEN" };
    Ok(match (&publish.publish_user, secret(settings, variable)?) {
        (Some(user), Some(password)) => NatsAuth::Password(user.clone(), password),
        (Some(_), None) => {
            anyhow::bail!("publish_user: neither publish_secret_file nor NATS_PASSWORD is set")
        }
        (None, Some(token)) => NatsAuth::Token(token),
        (None, None) => NatsAuth::Nothing,
    })
}

fn print(output: &Output<'_>) -> io::Result<()> {
    let PublishReport { events, revisions, withdrawals, skipped, skipped_total, unreadable, .. } =
        output.report;
    let mut text = format!(
        "published {events} events, {revisions} revisions and {withdrawals} withdrawals to {}\n",
        output.target
    );
    for it in skipped {
        let _ = writeln!(
            text,
            "too large: {} {} with {} bytes, the broker takes {}",
            it.kind.name(),
            it.id,
            it.size_bytes,
            it.limit_bytes
        );
    }
    if *skipped_total > 0 {
        let _ = writeln!(text, "{skipped_total} messages are too large for the broker and not published");
    }
    if *unreadable > 0 {
        let _ = writeln!(text, "{unreadable} lines are not events and not published");
    }
    io::stdout().write_all(text.as_bytes())
}
