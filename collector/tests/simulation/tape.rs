//! What the feed answered, and when: made once from `fixtures`, replayed in many schedules.

use chrono::{DateTime, Duration, Utc};
use collector::event::{Event, Response};
use fixtures::{Feed, FeedConfig};

/// A response and when it is given.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) at: DateTime<Utc>,
    pub(crate) body: Vec<u8>,
    pub(crate) events: Vec<Event>,
}

/// Some days of a feed that misbehaves as the real one does, only more often.
#[derive(Debug)]
pub(crate) struct Tape {
    pub(crate) answers: Vec<Answer>,
    pub(crate) buffer: usize,
}

impl Tape {
    /// A number of responses of a feed, a few hours apart.
    pub(crate) fn record(seed: u64, responses: usize) -> Self {
        // A window of 40 is long enough for events to vanish from its middle.
        let buffer = [8, 12, 40][usize::try_from(seed % 3).unwrap()];
        let mut feed = Feed::new(FeedConfig {
            seed,
            buffer,
            corrections: 0.15,
            withdrawals: 0.05,
            returns: 0.5,
            touches: 0.1,
            sparse: 0.12,
            log: false,
            ..FeedConfig::default()
        });
        let answers = (0..responses).map(|number| {
            // Now and then the same minute, now and then a day: with and without an overlap.
            let minutes =
                [0, 5, 30, 30, 60, 120, 240, 1_440][(number * 7 + usize::try_from(seed).unwrap()) % 8];
            feed.advance_by(Duration::minutes(minutes));
            let at = feed.now();
            let body = feed.response().compact();
            let parsed = Response::parse(&body).unwrap();
            let events = parsed.elements().iter().map(|element| element.event.unwrap()).collect();
            Answer { at, body, events }
        });
        Self { answers: answers.collect(), buffer }
    }

    /// What the feed answers at a time.
    pub(crate) fn at(&self, now: DateTime<Utc>) -> usize {
        self.answers.partition_point(|answer| answer.at <= now).saturating_sub(1)
    }
}
