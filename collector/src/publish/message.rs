//! What is published: a line of the archive as the feed sent it, in an envelope of headers.

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::Position;
use crate::archive::Kind;
use crate::event::EventId;

/// The version of the envelope, in the header `version`.
const ENVELOPE: &str = "1";

/// What a message reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageKind {
    /// An event is new.
    Event,
    /// The content of an event changed.
    Revision,
    /// An event vanished from the feed before its time, or is back.
    Withdrawal,
}

impl MessageKind {
    /// Every kind, in the order in which those of one run are published.
    pub const ALL: [Self; 3] = [Self::Event, Self::Revision, Self::Withdrawal];

    /// Its name in the header `kind`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Revision => "revision",
            Self::Withdrawal => "withdrawal",
        }
    }

    pub(super) fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Events => Some(Self::Event),
            Kind::Revisions => Some(Self::Revision),
            Kind::Withdrawn => Some(Self::Withdrawal),
            Kind::Rejected => None,
        }
    }
}

/// A message.
#[derive(Debug, Clone)]
pub struct Message {
    /// What it reports.
    pub kind: MessageKind,
    /// The event, which is the key of the message.
    pub id: EventId,
    /// Where it stands in the history of the archive.
    pub position: Position,
    /// The epoch of the archive at that time.
    pub epoch: u64,
    /// When the run began that committed it.
    pub committed_at: DateTime<Utc>,
    /// The line, without its line feed.
    pub value: Bytes,
}

impl Message {
    /// The headers of the envelope. `ce_id` is the position.
    #[must_use]
    pub fn headers(&self) -> [(&'static str, String); 10] {
        let (id, kind) = (self.id.to_string(), self.kind.name());
        [
            ("key", id.clone()),
            ("kind", kind.to_owned()),
            ("version", ENVELOPE.to_owned()),
            ("epoch", self.epoch.to_string()),
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", self.position.to_string()),
            ("ce_source", format!("/archives/{}", self.position.cursor.archive())),
            ("ce_type", format!("polisen.{kind}")),
            ("ce_subject", id),
            ("ce_time", self.committed_at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        ]
    }

    /// Maximum size with its headers, as a broker counts it.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        /// More than what names, separators and the headers of a broker add.
        const OVERHEAD_BYTES: usize = 512;
        let headers: usize = self.headers().iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        self.value.len() + headers + OVERHEAD_BYTES
    }
}
