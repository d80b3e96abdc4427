//! What a feed publishes: events made from a seed, or a history that was recorded.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use fixtures::{Feed, What};

use super::changes::Changes;
use super::recording::Recording;

/// Where the events come from.
#[derive(Debug)]
pub enum Source {
    /// Made from a seed.
    Simulated(Box<Feed>),
    /// Recorded responses, played back.
    Recorded(Recording),
}

impl Source {
    /// Lets everything happen that happens until then.
    pub fn advance_to(&mut self, now: DateTime<Utc>) {
        match self {
            Self::Simulated(feed) => feed.advance_to(now),
            Self::Recorded(recording) => recording.advance_to(now),
        }
    }

    /// The body of a response now. Whether it is a sparse one is a matter of chance.
    pub fn response(&mut self) -> Vec<u8> {
        match self {
            Self::Simulated(feed) => feed.response().compact(),
            Self::Recorded(recording) => recording.response(),
        }
    }

    /// The ids that stand in the feed now.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<u64> {
        match self {
            Self::Simulated(feed) => feed.full_response().events().iter().map(|event| event.id()).collect(),
            Self::Recorded(recording) => recording.ids(),
        }
    }

    /// Events published since the start.
    #[must_use]
    pub fn published(&self) -> u64 {
        match self {
            Self::Simulated(feed) => feed.published(),
            Self::Recorded(recording) => recording.published(),
        }
    }

    /// What changed since this was last asked.
    pub fn changes(&mut self) -> Changes {
        let feed = match self {
            Self::Simulated(feed) => feed,
            Self::Recorded(recording) => return recording.changes(),
        };
        let mut changes = Changes::default();
        for change in feed.drain_log() {
            let id = change.event.id();
            match change.what {
                What::Published | What::Restored => {
                    changes.appeared.insert(id, change.at);
                    changes.withdrawn.remove(&id);
                }
                What::Withdrawn => {
                    changes.appeared.remove(&id);
                    changes.withdrawn.insert(id);
                }
                What::Corrected | What::Touched => {
                    changes.moved.insert(id);
                }
            }
        }
        changes
    }
}
