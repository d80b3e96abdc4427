//! Where the time of a run goes when everything outside is as slow as the analysis of the documented collector
//! measured it.
//!
//! Everything is real but the latencies, which are waited for in full: the feed answers after 1.2 s (compressed),
//! Object Storage after 0.5 s (read), 0.8 s (events) and 0.3 s (metadata). The documented collector waits for one
//! after the other and takes 3.12 s.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use chrono::TimeDelta;
use collector::archive::{Archive, ArchiveOptions, StateFolder};
use collector::clock::{SharedClock, SystemClock};
use collector::feed::{Feed, FeedOptions, Source};
use collector::quantity::Quantity;
use collector::record::RecordPaths;
use collector::run::Collector;
use collector::store::OciStore;
use collector::store::oci::BucketPath;
use collector::store::oci::key::PrivateKey;
use fixtures::FeedConfig;
use serde::Serialize;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::feed::compress;
use crate::oci::{Account, Faults, Latency, ObjectStorage, Served};

/// A response, as documented.
const FEED_LATENCY: Duration = Duration::from_millis(1_500);
/// A compressed one, as documented.
const COMPRESSED_FEED_LATENCY: Duration = Duration::from_millis(1_200);
/// What the documented collector takes, with new events.
const DOCUMENTED_S: f64 = 3.12;
/// A run with new events must take less.
const LIMIT_WITH_NEW_S: f64 = 2.9;
/// A run without must take less.
const LIMIT_WITHOUT_NEW_S: f64 = 1.4;
/// Columns of the chart.
const WIDTH: f64 = 60.0;

/// One run: how long it took and what it waited for.
#[derive(Debug, Serialize)]
pub struct Timeline {
    name: &'static str,
    /// How many events were new.
    new_events: usize,
    /// How long the run took, in seconds.
    total_s: f64,
    /// It must take less, in seconds.
    limit_s: f64,
    waits: Vec<Wait>,
}

/// A request: what was asked, when it reached the service, how long it took there, in seconds.
#[derive(Debug, Serialize)]
struct Wait {
    what: String,
    from_s: f64,
    took_s: f64,
}

impl Timeline {
    /// Whether it kept below the limit.
    #[must_use]
    pub fn is_fast_enough(&self) -> bool {
        self.total_s < self.limit_s
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, new_events, total_s, limit_s, waits } = self;
        let verdict = if self.is_fast_enough() { "below" } else { "NOT BELOW" };
        writeln!(
            formatter,
            "{name}: {total_s:.2} s, {verdict} {limit_s} s ({new_events} new); the documented collector takes {DOCUMENTED_S} s"
        )?;
        for Wait { what, from_s, took_s } in waits {
            let column = |seconds: f64| (seconds / DOCUMENTED_S * WIDTH).round().max(0.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a column of a chart"
            )]
            let (from, to) = (column(*from_s) as usize, column(from_s + took_s) as usize);
            let bar = format!("{}{}", " ".repeat(from), "█".repeat((to - from).max(1)));
            writeln!(formatter, "  {bar:62} {from_s:5.2} + {took_s:.2} s  {what}")?;
        }
        Ok(())
    }
}

/// Runs the collector three times: first, with some events new, with none.
///
/// # Errors
/// If something cannot be set up, or a run fails.
pub async fn measure() -> anyhow::Result<Vec<Timeline>> {
    let [_, with_new, without] = measure_runs(true).await?;
    Ok(vec![with_new, without])
}

/// How long an ordinary run with new events takes with or without compression, and its fetch, in seconds.
///
/// # Errors
/// If something cannot be set up, or a run fails.
pub async fn run_and_fetch_s(compression: bool) -> anyhow::Result<(f64, f64)> {
    let [_, with_new, _] = measure_runs(compression).await?;
    Ok((with_new.total_s, with_new.waits.first().map_or(0.0, |fetch| fetch.took_s)))
}

/// The first run, one with some events new, one with none.
async fn measure_runs(compression: bool) -> anyhow::Result<[Timeline; 3]> {
    let account = Account::generate("timeline").map_err(|_| anyhow!("no key could be made"))?;
    let key = PrivateKey::from_pem(account.key_id(), &account.private_key_pem(), None)?;
    let service =
        ObjectStorage::slow("simulated", "events", vec![account], Faults::none(), Latency::DOCUMENTED)
            .map_err(|_| anyhow!("no key could be made"))?;
    let endpoint = format!("http://{}", service.start().await?);
    let feed_server = MockServer::start().await;
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let bench = Bench { service, endpoint, key: Arc::new(key), feed_server, folder, compression };

    let mut feed = fixtures::Feed::new(FeedConfig { log: false, ..FeedConfig::quiet(1) });
    let first = bench.run("the first run", f64::INFINITY, &feed.full_response().compact()).await?;
    for _ in 0..2 {
        feed.publish();
    }
    feed.advance_by(TimeDelta::minutes(1));
    let body = feed.full_response().compact();
    Ok([
        first,
        bench.run("a run with new events", LIMIT_WITH_NEW_S, &body).await?,
        bench.run("a run without new events", LIMIT_WITHOUT_NEW_S, &body).await?,
    ])
}

struct Bench<'a> {
    service: Arc<ObjectStorage>,
    endpoint: String,
    key: Arc<PrivateKey>,
    feed_server: MockServer,
    folder: &'a Path,
    compression: bool,
}

impl Bench<'_> {
    async fn run(&self, name: &'static str, limit_s: f64, body: &[u8]) -> anyhow::Result<Timeline> {
        self.feed_server.reset().await;
        let answer = ResponseTemplate::new(200);
        let answer = if self.compression {
            answer
                .set_body_raw(compress(body)?, "application/json")
                .insert_header("content-encoding", "gzip")
                .set_delay(COMPRESSED_FEED_LATENCY)
        } else {
            answer.set_body_raw(body, "application/json").set_delay(FEED_LATENCY)
        };
        Mock::given(any()).respond_with(answer).mount(&self.feed_server).await;
        let collector = self.collector()?;
        self.service.remember();
        let began = Instant::now();
        let report = collector.run().await;
        let total_s = began.elapsed().as_secs_f64();
        let deposit = report.result.context(name)?;
        let fetch_s = report.record.get(Quantity::ApiFetch).unwrap_or_default();
        let feed = Wait { what: "GET the feed".to_owned(), from_s: 0.0, took_s: fetch_s };
        let waits = self.service.served().into_iter().map(|served| wait_for(&served, began));
        Ok(Timeline {
            name,
            new_events: deposit.count(Quantity::NewEventsCount),
            total_s,
            limit_s,
            waits: std::iter::once(feed).chain(waits).collect(),
        })
    }

    /// A collector as a new process has it: without a connection.
    fn collector(&self) -> anyhow::Result<Collector> {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let path = BucketPath::parse("oci://simulated/events/archive").map_err(|error| anyhow!(error))?;
        let signer = Arc::clone(&self.key);
        let store = OciStore::new(path, self.endpoint.parse()?, signer, Arc::clone(&clock))?;
        let source = Source::parse(&self.feed_server.uri()).map_err(|error| anyhow!(error))?;
        let options = FeedOptions {
            user_agent: "polisen-events-collector timeline".to_owned(),
            compression: self.compression,
            retries: 0,
            instance: "timeline".to_owned(),
            ..FeedOptions::new(self.folder.join("state"))
        };
        Ok(Collector {
            feed: Feed::new(&source, options, Arc::clone(&clock))?,
            archive: Archive::new(Arc::new(store), Arc::clone(&clock), ArchiveOptions::default())
                .with_memory(Arc::new(StateFolder::new(self.folder.join("state")))),
            paths: RecordPaths {
                metrics_dir: self.folder.join("metrics"),
                health_file: self.folder.join("health.json"),
            },
            clock,
        })
    }
}

fn wait_for(served: &Served, since: Instant) -> Wait {
    let name = served.path.rsplit('/').next().unwrap_or_default().replace("%2F", "/");
    Wait {
        what: format!("{} {name}", served.method),
        from_s: served.began.saturating_duration_since(since).as_secs_f64(),
        took_s: served.took.as_secs_f64(),
    }
}
