//! Publishes the archive to a broker: each event, revision and withdrawal once, in the order of the archive's commits.
//!
//! The archive is the outbox: it knows each event once and never forgets one. How far publishing has come is known by the broker
//! alone, which stores the position of each message with the message. After whatever went wrong the publisher asks for it and
//! continues there; it keeps no state that could be lost, restored or outdated. Nothing here may delay or fail a run that stores
//! events: the publisher only reads the archive.

mod broker;
#[cfg(any(feature = "kafka", feature = "nats"))]
mod connection;
mod jetstream;
#[cfg(feature = "kafka")]
pub mod kafka;
mod message;
#[cfg(feature = "nats")]
pub mod nats;
mod position;
mod source;
mod target;
mod transactions;

use std::time::Duration;

use serde::Serialize;
use thiserror::Error;
use tracing::{info, warn};
use twox_hash::XxHash3_64;

pub use broker::{Broker, BrokerError, Opened, Published};
#[cfg(any(feature = "kafka", feature = "nats"))]
pub use connection::read_secret;
pub use jetstream::{Answer, JetStream, Stored, Stream, StreamLimits};
pub use message::{Message, MessageKind};
pub use position::{InvalidPosition, Position};
pub use target::{InvalidTarget, SaslMechanism, Target};
pub use transactions::{Ends, Topic, TopicLimits, Transactions};

use crate::archive::{Archive, ArchiveError, ChangesError, Cursor};
use crate::clock::SharedClock;
use crate::event::EventId;
use crate::store::{Key, StoreError};
use source::{Source, Start};

/// Maximum number of skipped messages that a report names.
const MOST_SKIPPED: usize = 100;

/// Where publishing begins if the broker holds nothing of the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Beginning {
    /// Nowhere: that is an error.
    #[default]
    Unset,
    /// With the first commit.
    Start,
    /// After a commit.
    After(Cursor),
}

/// How is published.
#[derive(Debug, Clone)]
pub struct PublishOptions {
    /// What is published.
    pub kinds: Vec<MessageKind>,
    /// Where to begin if the broker holds nothing of the archive.
    pub from: Beginning,
    /// Maximum number of messages that are sent together.
    pub batch_messages: usize,
    /// Maximum size of messages that are sent together, in bytes.
    pub batch_bytes: usize,
    /// Maximum number of failures in a row; nothing for no maximum.
    pub failures: Option<u32>,
    /// Wait after the first failure, doubled with each further one.
    pub first_wait: Duration,
    /// Maximum wait after a failure.
    pub longest_wait: Duration,
    /// Decides the jitter of the waits.
    pub seed: u64,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            kinds: MessageKind::ALL.to_vec(),
            from: Beginning::Unset,
            batch_messages: 1_000,
            batch_bytes: 1024 * 1024,
            failures: Some(6),
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(30),
            seed: 0,
        }
    }
}

/// A message that the broker does not take. It is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its event.
    pub id: EventId,
    /// What it reports.
    pub kind: MessageKind,
    /// Where it stands in the archive.
    pub position: Position,
    /// Its maximum size with headers in bytes.
    pub size_bytes: usize,
    /// What the broker takes.
    pub limit_bytes: usize,
}

/// What was published since the publisher was made, in batches that the broker acknowledged whole: where an answer is lost, what
/// the broker had stored of that batch is not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PublishReport {
    /// New events.
    pub events: u64,
    /// Revisions.
    pub revisions: u64,
    /// Withdrawals.
    pub withdrawals: u64,
    /// Messages that are too large for the broker, the first 100 by name.
    pub skipped: Vec<Skipped>,
    /// Number of messages that are too large for the broker.
    pub skipped_total: u64,
    /// Lines that are not events. They are not published.
    pub unreadable: u64,
    /// Failures that were followed by another attempt.
    pub retries: u64,
    /// The last message that is known to be published.
    pub position: Option<Position>,
}

/// Why publishing ended. What was published before stays published, and continues where it ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The archive cannot be read, or the position does not belong to it.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker holds nothing, and it was not said where to begin.
    #[error("{target} holds nothing of an archive, and neither --from-start nor --from is given")]
    NoStart {
        /// Where.
        target: String,
    },
    /// The last message is gone, so that it is unknown what was published.
    #[error("{target} held messages, and the last one is gone: how far publishing had come is unknown")]
    PositionLost {
        /// Where.
        target: String,
    },
    /// An object that was published in part was changed by a repair.
    #[error("{0} was published in part and changed since: which of its lines are published is unknown")]
    Altered(Key),
    /// An object that was committed does not exist.
    #[error("{0} was committed and does not exist; `collector verify` checks the archive")]
    Absent(Key),
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        Self::Changes(ArchiveError::from(error).into())
    }
}

impl PublishReport {
    /// The number of messages of each kind that were published since an earlier report.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> [(MessageKind, u64); 3] {
        [
            (MessageKind::Event, self.events - earlier.events),
            (MessageKind::Revision, self.revisions - earlier.revisions),
            (MessageKind::Withdrawal, self.withdrawals - earlier.withdrawals),
        ]
    }
}

impl PublishError {
    /// What to do about it, where that helps.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Broker(BrokerError::Permanent { hint, .. }) => *hint,
            Self::Broker(BrokerError::Fenced { .. }) => {
                Some("one publisher for each stream; end the other one, then start this one again")
            }
            Self::NoStart { .. } => Some(
                "--from-start publishes the whole archive; --from CURSOR what was committed after a cursor, as \
                 `collector changes` prints it",
            ),
            Self::PositionLost { .. } => {
                Some("--from CURSOR says after which commit to continue; `collector changes` prints cursors")
            }
            Self::Changes(
                ChangesError::OtherArchive { .. }
                | ChangesError::BeyondEnd { .. }
                | ChangesError::Diverged(_),
            )
            | Self::Altered(_) => Some(
                "nothing was published; publish to a new stream or topic with --from-start, or --from CURSOR",
            ),
            _ => None,
        }
    }

    /// Whether it may be over after a while.
    fn is_transient(&self) -> bool {
        match self {
            Self::Broker(BrokerError::OutcomeUnknown(_) | BrokerError::Temporary(_)) => true,
            Self::Changes(ChangesError::Archive(error)) => matches!(error, ArchiveError::Store(_)),
            _ => false,
        }
    }
}

/// Publishes an archive to a broker.
pub struct Publisher<'a, B> {
    archive: &'a Archive,
    broker: B,
    clock: SharedClock,
    options: PublishOptions,
    /// The messages after the last one that the broker holds. Nothing after an error, whatever it was: then the broker is asked
    /// how far messages reach, and the archive is read from there.
    source: Option<Source<'a>>,
    max_message_bytes: Option<usize>,
    failed: u32,
    report: PublishReport,
}

impl<B> std::fmt::Debug for Publisher<'_, B> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Publisher").field("report", &self.report).finish_non_exhaustive()
    }
}

impl<'a, B: Broker> Publisher<'a, B> {
    /// A publisher that has not connected yet.
    #[must_use]
    pub fn new(archive: &'a Archive, broker: B, clock: SharedClock, options: PublishOptions) -> Self {
        Self {
            archive,
            broker,
            clock,
            options,
            source: None,
            max_message_bytes: None,
            failed: 0,
            report: PublishReport::default(),
        }
    }

    /// What was published by now.
    #[must_use]
    pub fn report(&self) -> &PublishReport {
        &self.report
    }

    /// Publishes everything that is committed by now. What fails is tried again after a while, as the options say.
    ///
    /// # Errors
    /// [`PublishError`] if something is wrong that does not pass, or that lasted.
    pub async fn catch_up(&mut self) -> Result<(), PublishError> {
        loop {
            let ended = self.publish().await;
            let Err(error) = ended else { return Ok(()) };
            self.failed = self.failed.saturating_add(1);
            let is_last = self.options.failures.is_some_and(|most| self.failed > most);
            if is_last || !error.is_transient() {
                return Err(error);
            }
            let wait = self.wait();
            warn!(%error, wait_s = wait.as_secs_f64(), "publishing failed; it continues after a while");
            self.report.retries += 1;
            self.clock.sleep(wait).await;
        }
    }

    async fn publish(&mut self) -> Result<(), PublishError> {
        let mut source = match self.source.take() {
            Some(source) => source,
            None => self.open().await?,
        };
        let (most, most_bytes) = (self.options.batch_messages, self.options.batch_bytes);
        let mut next = source.next(most, most_bytes).await?;
        while !next.is_empty() {
            let batch = self.without_large(next);
            let stored = async { if batch.is_empty() { Ok(()) } else { self.broker.publish(&batch).await } };
            // What follows is read while this is stored.
            let (stored, following) = tokio::join!(stored, source.next(most, most_bytes));
            stored?;
            self.failed = 0;
            self.note(&batch);
            self.report.unreadable += std::mem::take(&mut source.unreadable);
            next = following?;
        }
        self.failed = 0;
        self.report.unreadable += std::mem::take(&mut source.unreadable);
        self.source = Some(source);
        Ok(())
    }

    /// Asks the broker how far messages reach, and opens the archive there.
    async fn open(&mut self) -> Result<Source<'a>, PublishError> {
        let Opened { published, max_message_bytes, .. } = self.broker.open().await?;
        self.max_message_bytes = max_message_bytes;
        let target = || self.broker.target();
        let start = match (published, self.options.from.clone()) {
            (Published::UpTo(position), _) => {
                info!(%position, target = target(), "continuing after the last message");
                self.report.position = Some(position.clone());
                Start::Message(position)
            }
            (_, Beginning::After(cursor)) => Start::Commit(Some(cursor)),
            (Published::Nothing, Beginning::Start) => Start::Commit(None),
            (Published::Nothing, Beginning::Unset) => return Err(PublishError::NoStart { target: target() }),
            (Published::Unknown, _) => return Err(PublishError::PositionLost { target: target() }),
        };
        Source::open(self.archive, &self.options.kinds, start).await
    }

    /// The messages that the broker takes.
    fn without_large(&mut self, mut batch: Vec<Message>) -> Vec<Message> {
        let Some(limit_bytes) = self.max_message_bytes else { return batch };
        batch.retain(|message| {
            let size_bytes = message.size_bytes();
            if size_bytes <= limit_bytes {
                return true;
            }
            let (id, kind, position) = (message.id, message.kind, message.position.clone());
            warn!(id, kind = kind.name(), %position, size_bytes, limit_bytes, "too large for the broker; passed over");
            self.report.skipped_total += 1;
            if self.report.skipped.len() < MOST_SKIPPED {
                self.report.skipped.push(Skipped { id, kind, position, size_bytes, limit_bytes });
            }
            false
        });
        batch
    }

    fn note(&mut self, batch: &[Message]) {
        for message in batch {
            match message.kind {
                MessageKind::Event => self.report.events += 1,
                MessageKind::Revision => self.report.revisions += 1,
                MessageKind::Withdrawal => self.report.withdrawals += 1,
            }
        }
        if let Some(last) = batch.last() {
            self.report.position = Some(last.position.clone());
        }
    }

    /// The wait after failures: between half and all of what doubles with each.
    fn wait(&self) -> Duration {
        let doubled = self.options.first_wait.saturating_mul(2_u32.saturating_pow(self.failed - 1));
        let longest = doubled.min(self.options.longest_wait);
        let draw = XxHash3_64::oneshot_with_seed(self.options.seed, &self.report.retries.to_le_bytes());
        longest / 2 + longest.mul_f64(f64::from((draw >> 40) as u32) / f64::from(1_u32 << 24) / 2.0)
    }
}
