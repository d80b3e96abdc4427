//! What the benches measure, and on what: real-shaped responses and the steps of a run between the feed's
//! bytes and the archive's lines.

use chrono::{DateTime, Utc};
use collector::archive::{Draft, objects_of};
use collector::event::Response;
use collector::ledger::{Ledger, News};
use fixtures::{Feed, FeedConfig};
use serde::Deserialize;

/// An event as a program holds it that reads all of it.
#[derive(Debug, Clone, Deserialize)]
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
#[derive(Debug, Clone, Deserialize)]
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
        let news = News::find(&response, &self.ledger, self.at);
        objects_of(&response, &news, self.at, "")
    }
}

/// A response of about so many bytes.
#[must_use]
pub fn body_of(size_bytes: usize) -> Vec<u8> {
    const BYTES_PER_EVENT: usize = 347;
    let feed =
        Feed::new(FeedConfig { buffer: size_bytes / BYTES_PER_EVENT, log: false, ..FeedConfig::quiet(1) });
    feed.full_response().compact()
}

/// The ledger once a response is stored.
fn after(body: &[u8], ledger: &Ledger, at: DateTime<Utc>) -> Ledger {
    let Ok(response) = Response::parse(body) else { return ledger.clone() };
    News::find(&response, ledger, at).apply(&response, ledger, at)
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
