//! What operations work on: archives, responses and records, made once for each size.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{Archive, ArchiveOptions};
use collector::clock::VirtualClock;
use collector::event::Response;
use collector::quantity::Quantity;
use collector::record::RunRecord;
use collector::store::{LocalStore, MemoryStore, SharedStore};
use collector::tables::{Tables, TablesOptions};
use fixtures::{Feed, FeedConfig};

use crate::year::{YEAR, first_moment};

/// Where an input's archive is.
pub(super) const ARCHIVE: &str = "archive";
/// Where the tables of a long archive are.
pub(super) const TABLES: &str = "with-tables";
/// Where the responses are, by the second at which they were recorded.
pub(super) const RESPONSES: &str = "responses";
/// Where the records are.
pub(super) const RECORDS: &str = "metrics";
/// Responses after those that an archive holds; each brings two new events.
const NEXT_RESPONSES: usize = 20;
/// Polls of a busy day: one a minute.
const MAX_POLLS: usize = 1_440;
/// Events in a response of a long archive: small, because it is asked often.
const SMALL_BUFFER: usize = 60;

/// What an operation works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// An archive of many objects, at an ordinary rate.
    Objects,
    /// A day that is polled up to once a minute, at a rising rate.
    Rate,
    /// A month that is polled each half hour, at a rising rate.
    Month,
    /// One response.
    Elements,
    /// Recorded responses half an hour apart, at ten times the ordinary rate: the ledger remembers few of the events.
    Responses,
    /// Records of runs, half an hour apart.
    Records,
}

impl Input {
    /// Each.
    pub const ALL: [Self; 6] =
        [Self::Objects, Self::Rate, Self::Month, Self::Elements, Self::Responses, Self::Records];

    /// What is counted.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Objects => "objects",
            Self::Rate => "events a day",
            Self::Month => "events",
            Self::Elements => "elements",
            Self::Responses => "responses",
            Self::Records => "records",
        }
    }

    /// At which sizes it is measured. Each is a multiple of the one before.
    #[must_use]
    pub fn sizes(self) -> [usize; 3] {
        match self {
            Self::Objects => [2_000, 8_000, 32_000],
            Self::Rate => [660, 6_600, 66_000],
            Self::Month => [2_000, 20_000, 200_000],
            Self::Elements => [31_250, 125_000, 500_000],
            Self::Responses => [250, 1_000, 4_000],
            Self::Records => [4_000, 16_000, 64_000],
        }
    }

    /// Makes an input of about a size in a folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn make(self, size: usize, folder: &Path) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        match self {
            Self::Objects => {
                let config = FeedConfig { buffer: SMALL_BUFFER, log: false, ..FeedConfig::quiet(1) };
                // Each poll finds an event, as an object of its own.
                let next = |feed: &mut Feed| {
                    feed.advance_by(TimeDelta::minutes(30));
                    feed.publish();
                };
                runtime.block_on(async {
                    collected(config, size, next, folder).await?;
                    let (archive, _) = archive_in(folder);
                    let tables = Tables::new(archive, Arc::new(LocalStore::new(folder.join(TABLES))));
                    tables.update(&TablesOptions::default()).await?;
                    Ok(())
                })
            }
            Self::Rate => {
                let events_per_hour = size as f64 / 24.0;
                let config = FeedConfig { events_per_hour, log: false, ..FeedConfig::quiet(1) };
                let polls = size.min(MAX_POLLS);
                let interval = TimeDelta::days(1) / i32::try_from(polls)?;
                runtime.block_on(collected(config, polls, |feed| feed.advance_by(interval), folder))
            }
            Self::Month => {
                let events_per_hour = size as f64 / (31.0 * 24.0);
                let config = FeedConfig {
                    start: first_moment(YEAR),
                    events_per_hour,
                    log: false,
                    ..FeedConfig::quiet(1)
                };
                let next = |feed: &mut Feed| feed.advance_by(TimeDelta::minutes(30));
                runtime.block_on(collected(config, 31 * 48, next, folder))
            }
            Self::Elements => {
                let feed = Feed::new(FeedConfig { buffer: size, log: false, ..FeedConfig::quiet(1) });
                write_response(&feed, folder)
            }
            Self::Responses => {
                let mut feed = Feed::new(FeedConfig { rate: 10.0, log: false, ..FeedConfig::quiet(1) });
                for _ in 0..size {
                    feed.advance_by(TimeDelta::minutes(30));
                    write_response(&feed, folder)?;
                }
                Ok(())
            }
            Self::Records => write_records(size, folder),
        }
    }
}

/// An archive that was polled often, and the responses after that.
async fn collected(
    config: FeedConfig,
    polls: usize,
    mut next: impl FnMut(&mut Feed),
    folder: &Path,
) -> anyhow::Result<()> {
    let mut feed = Feed::new(config);
    let clock = Arc::new(VirtualClock::at(feed.now()));
    // In memory, and written at once: a disk that syncs each object would take minutes.
    let store: SharedStore = Arc::new(MemoryStore::default());
    let archive = Archive::new(Arc::clone(&store), clock.clone(), ArchiveOptions::default());
    for _ in 0..polls {
        next(&mut feed);
        clock.set(feed.now());
        deposit(&archive, &feed.full_response().compact(), feed.now()).await?;
    }
    for listed in store.list("").await? {
        let object = store.get(&listed.key).await?.context("an object vanished")?;
        let path = folder.join(ARCHIVE).join(listed.key.as_str());
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(&path, object.bytes)?;
    }
    for _ in 0..NEXT_RESPONSES {
        feed.advance_by(TimeDelta::minutes(1));
        feed.publish();
        feed.publish();
        write_response(&feed, folder)?;
    }
    Ok(())
}

/// A run without the network.
pub(super) async fn deposit(archive: &Archive, body: &[u8], at: DateTime<Utc>) -> anyhow::Result<()> {
    let response = Response::parse(body)?;
    let snapshot = archive.open().await?;
    archive.deposit(&response, snapshot, at).await?;
    Ok(())
}

/// The archive of an input, and its clock.
pub(super) fn archive_in(folder: &Path) -> (Archive, Arc<VirtualClock>) {
    let clock = Arc::new(VirtualClock::at(Utc::now()));
    let store = Arc::new(LocalStore::new(folder.join(ARCHIVE)));
    (Archive::new(store, clock.clone(), ArchiveOptions::default()), clock)
}

fn write_response(feed: &Feed, folder: &Path) -> anyhow::Result<()> {
    let folder = folder.join(RESPONSES);
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}.json", feed.now().timestamp()));
    fs::write(&path, feed.full_response().compact())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Records whose values differ, and no two of which are of one second.
fn write_records(count: usize, folder: &Path) -> anyhow::Result<()> {
    let folder = folder.join(RECORDS);
    fs::create_dir_all(&folder)?;
    let end = DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default();
    for number in 0..count {
        let start = end - TimeDelta::minutes(30) * i32::try_from(count - number)?;
        let mut record = RunRecord::new(start);
        let (fetch_s, new) = (0.4 + (number % 97) as f64 / 1e3, number % 7);
        for (quantity, value) in [
            (Quantity::ApiFetch, fetch_s),
            (Quantity::TotalTime, fetch_s + 0.3),
            (Quantity::ApiEventsTotal, 500.0),
            (Quantity::NewEventsCount, new as f64),
            (Quantity::BufferOverlap, 500.0 - new as f64),
            (Quantity::PeakMemory, 8e6),
        ] {
            record.quantities.set(quantity, value);
        }
        let path = folder.join(format!("metrics_{}.json", start.format("%Y%m%d_%H%M%S")));
        let mut file = fs::File::create(path)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
    }
    Ok(())
}
