//! Collects the events that the Swedish police publish, stores each exactly once, and reads what is stored.
//!
//! Data flows one way, and each module is one step of it:
//!
//! ```text
//! feed ──► event ──► ledger ──► archive ──► record
//! fetch    parse     which are  partition,  metrics,
//!          in place  new?       JSON Lines  health
//!               store holds ledger and archive
//! ```
//!
//! [`run`] is the list of these steps; [`import`] repeats them over recorded responses. [`query`] reads what is stored, through a
//! [`cache`] where there is one, and from `tables` where they hold the same; [`fetch`] asks the feed by its own filters. `analysis` and `trends` read the records of
//! runs, whose values [`quantity`] defines; `heartbeat` reports runs to a monitor. Only `cli` knows the command line, only
//! [`feed`], [`store`] and `heartbeat` know the network, and only [`clock`] reads the time.
//!
//! Modules that this page does not list are public for the programs, benches and load tests of this project alone. They change
//! without notice.
//!
//! # A course in five steps
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use collector::archive::{Archive, ArchiveOptions};
//! use collector::clock::{Clock as _, SystemClock};
//! use collector::feed::{Feed, FeedOptions, Source};
//! use collector::quantity::Quantity;
//! use collector::query::Query;
//! use collector::record::{Limits, RecordPaths};
//! use collector::run::Collector;
//! use collector::store::LocalStore;
//! # #[cfg(feature = "watch")]
//! use collector::watch::{Command, Watch, poll_interval::PollInterval, schedule::Schedule, status::Status};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let folder = temporary.path();
//! # let feed_address = folder.join("response.json").display().to_string();
//! # std::fs::write(&feed_address, r#"[{"id": 1, "datetime": "2026-01-02 19:56:53 +01:00", "type": "Brand"}]"#)?;
//! // 1. Open an archive: in a folder, in memory (`MemoryStore`), or in a bucket (`OciStore`, `S3Store`).
//! let clock = Arc::new(SystemClock::default());
//! let store = Arc::new(LocalStore::new(folder.join("data")));
//! let archive = Archive::new(store, clock.clone(), ArchiveOptions::default());
//!
//! // 2. Collect: fetch the feed once (an address or a file) and store what is new.
//! let source = Source::parse(&feed_address)?;
//! let feed = Feed::new(&source, FeedOptions::new(folder.join("state")), clock.clone())?;
//! let paths = RecordPaths { metrics_dir: folder.join("metrics"), health_file: folder.join("health.json") };
//! let collector = Collector { feed, archive, paths, clock: clock.clone() };
//! let report = collector.run().await;
//! assert_eq!(report.result?.count(Quantity::NewEventsCount), 1);
//!
//! // 3. Query.
//! let mut answer = collector.archive.query(&Query::default());
//! while let Some(event) = answer.next().await {
//!     println!("{}", event?.json);
//! }
//! # drop(answer);
//!
//! // 4. Verify: every event once, every object as it was committed.
//! let audit = collector.archive.audit(|_, _| {}).await?;
//! assert!(audit.findings.is_sound());
//!
//! // 5. Serve: poll on schedule until a command comes.
//! # #[cfg(feature = "watch")] {
//! let interval = Duration::from_secs(1800);
//! let schedule = Schedule::new(interval, Duration::ZERO, "this machine");
//! let status = Arc::new(Status::new(clock.now(), 500, Limits::default())?);
//! let mut watch = Watch::new(clock, schedule, PollInterval::new(interval, false, 500), status, None);
//! let (commands, mut received) = tokio::sync::mpsc::unbounded_channel();
//! # commands.send(Command::Stop)?;
//! watch.run(async || collector.run().await, &mut received).await;
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! All are on by default but the last five.
//!
//! | Feature | What it adds |
//! |---|---|
//! | `cli` | the programs `collector` and `analyze-metrics` |
//! | `oci` | archives in OCI Object Storage |
//! | `s3` | archives in buckets with the API of S3 |
//! | `tables` | Parquet files of the archive, for other tools and for queries |
//! | `watch` | the service: schedule, pages, metrics |
//! | `kafka` | publishes to Kafka; needs Rust 1.95 |
//! | `nats` | publishes to NATS JetStream |
//! | `otlp` | traces for OpenTelemetry |
//! | `oci-rust-sdk` | a second signer for Object Storage, under the AGPL-3.0 |
//! | `fuzzing` | parsers of foreign bytes, for the fuzz targets only |

#[cfg(not(unix))]
compile_error!(
    "the local store needs POSIX renames, hard links and synced folders, which this platform does not have: \
     docs/platforms.md"
);

#[doc(hidden)]
pub mod analysis;
pub mod archive;
pub mod cache;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod clock;
mod concurrency;
pub mod event;
pub mod feed;
pub mod fetch;
#[doc(hidden)]
pub mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[doc(hidden)]
pub mod heartbeat;
mod http_phases;
mod http_span;
pub mod import;
mod json;
pub mod ledger;
pub mod mirror;
pub mod publish;
mod python;
pub mod quantity;
pub mod query;
pub mod record;
pub mod run;
pub mod store;
#[cfg(feature = "tables")]
pub mod tables;
#[doc(hidden)]
pub mod text;
mod tls;
#[doc(hidden)]
pub mod trends;
#[cfg(feature = "watch")]
pub mod watch;
