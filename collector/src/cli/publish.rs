//! `collector publish`: publishes the archive to a broker.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use crate::archive::Cursor;
use crate::clock::SharedClock;
use crate::publish::{Beginning, Broker, MessageKind, PublishOptions, PublishReport, Publisher, Target};
use anyhow::{Context as _, anyhow};
use clap::{ArgGroup, Args};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::commands::{runtime, system_clock};
use super::output;
use super::settings::{Settings, names};
use super::stores::open_archive;
use super::{Exit, Failure};

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
    fn options(&self) -> PublishOptions {
        let from = match &self.from {
            Some(cursor) => Beginning::After(cursor.clone()),
            None if self.from_start => Beginning::Start,
            None => Beginning::Unset,
        };
        let defaults =
            PublishOptions { kinds: self.kinds.clone(), from, seed: unique(), ..PublishOptions::default() };
        if self.follow { PublishOptions { failures: None, ..defaults } } else { defaults }
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
        let archive = open_archive(settings.archive(), &clock).await?;
        let broker = open_broker(settings, target)?;
        let mut publisher = Publisher::new(&archive, broker, clock.clone(), arguments.options());
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

/// A number that differs from that of every other process.
fn unique() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(feature = "nats")]
fn open_broker(settings: &Settings, target: &Target) -> Result<Box<dyn Broker>, Failure> {
    use crate::publish::JetStream;
    use crate::publish::nats::NatsStream;
    let Target::Nats { servers, subject, tls } = target;
    let auth = nats_auth(settings).map_err(Failure::Usage)?;
    let stream = NatsStream::new(servers.clone(), subject.clone(), *tls, auth);
    Ok(Box::new(JetStream::new(stream, format!("{:016x}", unique()))))
}

#[cfg(feature = "nats")]
fn nats_auth(settings: &Settings) -> anyhow::Result<crate::publish::nats::NatsAuth> {
    use crate::publish::nats::NatsAuth;
    let read = |path: &std::path::Path| {
        crate::publish::nats::read_secret(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let publish = &settings.publish;
    if let Some(path) = &publish.publish_credentials {
        let content = read(path)?;
        let seed = content.trim();
        let is_seed = seed.starts_with('S') && seed.bytes().all(|byte| byte.is_ascii_alphanumeric());
        return Ok(if is_seed { NatsAuth::Nkey(seed.to_owned()) } else { NatsAuth::Credentials(content) });
    }
    let variable = if publish.publish_user.is_some() { "NATS_PASSWORD" } else { "NATS_TOKEN" };
    let secret = match &publish.publish_secret_file {
        Some(path) => Some(read(path)?.trim_end_matches(['\r', '\n']).to_owned()),
        None => std::env::var(variable).ok().filter(|secret| !secret.is_empty()),
    };
    Ok(match (&publish.publish_user, secret) {
        (Some(user), Some(password)) => NatsAuth::Password(user.clone(), password),
        (Some(_), None) => {
            anyhow::bail!("publish_user: neither publish_secret_file nor NATS_PASSWORD is set")
        }
        (None, Some(token)) => NatsAuth::Token(token),
        (None, None) => NatsAuth::Nothing,
    })
}

#[cfg(not(feature = "nats"))]
fn open_broker(_: &Settings, _: &Target) -> Result<Box<dyn Broker>, Failure> {
    Err(Failure::Usage(anyhow!(
        "this program was built without the feature `nats`; the Debian package and the container have it, \
         `cargo install polisen-events-collector --features nats` builds it"
    )))
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
