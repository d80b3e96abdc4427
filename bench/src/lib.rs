//! What the benches measure, and on what: real-shaped responses and the steps of a run between the feed's
//! bytes and the archive's lines.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "numbers of iterations, rounds and nanoseconds, far below where a double is not exact"
)]

pub mod catalog;
pub mod counts;
pub mod explain;
pub mod gate;
pub mod growth;
pub mod history;
pub mod year;

use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{Draft, objects_of};
use collector::event::{EventId, Response};
use collector::ledger::{CAPACITY, Classification, Ledger};
use fixtures::{Feed, FeedConfig};
use serde::{Deserialize, Serialize};

/// An event as a program holds it that reads all of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OwnedEvent {
    /// Its number.
    pub id: i64,
    /// Its local date and time with the offset.
    pub datetime: String,
    /// Its title.
    pub name: String,
    /// What happened.
    pub summary: String,
    /// The path of its page.
    pub url: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it happened.
    pub location: OwnedLocation,
}

/// Where an event happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OwnedLocation {
    /// The place's name.
    pub name: String,
    /// Its latitude and longitude.
    pub gps: String,
}

/// A response, and the ledger that it meets.
#[derive(Debug)]
pub struct Case {
    /// The response as it is fetched.
    pub body: Vec<u8>,
    /// What the collector remembers before it.
    pub ledger: Ledger,
    /// When it is fetched.
    pub at: DateTime<Utc>,
}

impl Case {
    /// A response of `buffer` events of which the newest `new` are not known yet.
    #[must_use]
    pub fn new(buffer: usize, new: usize) -> Self {
        let mut feed = Feed::new(FeedConfig { buffer, log: false, ..FeedConfig::quiet(1) });
        let mut ledger = Ledger::complete_since_ever();
        if new < buffer {
            ledger = after(&feed.full_response().compact(), &ledger, feed.now());
            for _ in 0..new {
                feed.publish();
            }
        }
        Self { body: feed.full_response().compact(), ledger, at: feed.now() }
    }

    /// From the response's bytes to the objects of the archive.
    #[must_use]
    pub fn objects(&self) -> Vec<Draft> {
        let Ok(response) = Response::parse(&self.body) else { return Vec::new() };
        let classified = Classification::find(&response, &self.ledger, self.at);
        objects_of(&response, &classified, self.at, "")
    }
}

/// A response of about this number of bytes.
#[must_use]
pub fn body_of(size_bytes: usize) -> Vec<u8> {
    const BYTES_PER_EVENT: usize = 347;
    let feed =
        Feed::new(FeedConfig { buffer: size_bytes / BYTES_PER_EVENT, log: false, ..FeedConfig::quiet(1) });
    feed.full_response().compact()
}

/// Ids to deduplicate.
#[derive(Debug)]
pub struct Ids {
    /// A thousand that were seen.
    pub seen: Vec<EventId>,
    /// The ledger that saw them.
    pub ledger: Ledger,
    /// Those that are asked for: half were seen, in the order of no rule.
    pub asked: Vec<EventId>,
}

/// As many ids to be asked for, and a thousand that were seen.
#[must_use]
pub fn ids(count: usize) -> Ids {
    let (seen_body, other_body) = (buffer_of(CAPACITY, 1), buffer_of(count.max(CAPACITY), 2));
    let (seen, mut others) = (ids_in(&seen_body), ids_in(&other_body));
    let ledger = after(&seen_body, &Ledger::complete_since_ever(), DateTime::UNIX_EPOCH);
    others.retain(|id| !seen.contains(id));
    let asked = (0..count).map(|number| {
        let from = if number % 2 == 0 || others.is_empty() { &seen } else { &others };
        from[number * 7_919 % from.len()]
    });
    Ids { asked: asked.collect(), seen, ledger }
}

fn buffer_of(events: usize, seed: u64) -> Vec<u8> {
    Feed::new(FeedConfig { buffer: events, log: false, ..FeedConfig::quiet(seed) }).full_response().compact()
}

fn ids_in(body: &[u8]) -> Vec<EventId> {
    let Ok(response) = Response::parse(body) else { return Vec::new() };
    response.elements().iter().filter_map(|element| Some(element.event.ok()?.id)).collect()
}

/// A ledger that remembers as much as it can.
#[must_use]
pub fn full_ledger() -> Ledger {
    after(&buffer_of(CAPACITY, 1), &Ledger::complete_since_ever(), DateTime::UNIX_EPOCH)
}

/// Responses half an hour apart, and when they are given: 48 for a day.
#[must_use]
pub fn responses(count: usize) -> Vec<(DateTime<Utc>, Vec<u8>)> {
    let mut feed = Feed::new(FeedConfig { log: false, ..FeedConfig::default() });
    let responses = (0..count).map(|_| {
        feed.advance_by(TimeDelta::minutes(30));
        (feed.now(), feed.full_response().compact())
    });
    responses.collect()
}

/// The ledger once a response is stored.
fn after(body: &[u8], ledger: &Ledger, at: DateTime<Utc>) -> Ledger {
    let Ok(response) = Response::parse(body) else { return ledger.clone() };
    Classification::find(&response, ledger, at).apply(&response, ledger, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(objects: &[Draft]) -> usize {
        objects.iter().map(|object| object.bytes.split_inclusive(|&byte| byte == b'\n').count()).sum()
    }

    #[test]
    fn a_case_brings_as_much_news_as_it_says() {
        for (buffer, new) in [(500, 0), (500, 2), (500, 500), (5_000, 2)] {
            let case = Case::new(buffer, new);
            assert_eq!(Response::parse(&case.body).unwrap().elements().len(), buffer);
            assert_eq!(lines(&case.objects()), new, "of {buffer}");
        }
    }

    #[test]
    fn bodies_are_as_large_as_they_say() {
        for size in [15_000, 172_000] {
            let body = body_of(size);
            assert!(body.len().abs_diff(size) < size / 20, "{} for {size}", body.len());
            assert!(serde_json::from_slice::<Vec<OwnedEvent>>(&body).is_ok());
        }
    }
}
