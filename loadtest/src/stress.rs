//! Many collectors at once on one feed and one store, and others who read what they store.

mod open_loop;
mod readers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use collector::archive::{Archive, ArchiveOptions};
use collector::cache::{Cache, CacheOptions};
use collector::clock::{SharedClock, SystemClock};
use collector::feed::{Feed, FeedOptions, Source as FeedSource};
use collector::record::RecordPaths;
use collector::run::Collector;
use collector::store::oci::BucketPath;
use collector::store::oci::key::PrivateKey;
use collector::store::{LocalStore, MemoryStore, OciStore, SharedStore};
use fixtures::FeedConfig;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use crate::feed::faults::FaultPlan;
use crate::feed::web::{EVENTS_PATH, Served};
use crate::feed::{SimulatedFeed, Source};
use crate::latency::{self, Percentiles};
use crate::oci::{Account, Faults, ObjectStorage};
use crate::process;
use crate::scenario::StoreKind;
use open_loop::{Tally, drive};
use readers::Reader;
pub use readers::Readings;

/// Both ends of a connection are in this process.
const ENDS: u64 = 2;
/// Connections of a collector beside those of parallel requests: the feed, the ledger and the journal.
const FURTHER_CONNECTIONS: u64 = 3;
/// Files that are open in this process beside connections.
const OWN_DESCRIPTORS: u64 = 100;
/// Below this share of what was due, a limit was reached.
const KEPT_UP: f64 = 0.97;

/// What is done.
#[derive(Debug, Clone)]
pub struct Load {
    /// How many collectors there are; each has an archive of its own in the store.
    pub collectors: usize,
    /// Runs due in a second, all collectors together.
    pub runs_per_s: f64,
    /// For how long.
    pub duration: Duration,
    /// Where they store.
    pub store: StoreKind,
    /// How many times more events than at the real rate, and how many times faster time passes at the feed.
    pub feed_speed: f64,
    /// The concurrent readers, if there are any.
    pub reading: Option<ReadLoad>,
}

/// Queries beside the runs.
#[derive(Debug, Clone)]
pub struct ReadLoad {
    /// How many clients there are.
    pub clients: usize,
    /// Queries due in a second, all clients together.
    pub per_s: f64,
    /// Whether the clients of an archive share a cache with its collector.
    pub with_cache: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Stressed {
    /// Collectors.
    pub collectors: usize,
    /// Runs that were due in a second.
    pub offered_per_s: f64,
    /// Runs that were done in a second.
    pub achieved_per_s: f64,
    /// Runs that were due.
    pub due: u64,
    /// Runs that succeeded.
    pub succeeded: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Runs that were not done in the end.
    pub unfinished: u64,
    /// From the instant at which a run was due to its end, in seconds; to the end of the measurement for those that were
    /// not done.
    pub latency_s: Percentiles,
    /// The longest of these, in seconds.
    pub latency_max_s: f64,
    /// From the instant at which a run began to its end, in seconds.
    pub service_s: Percentiles,
    /// By share of the runs, for a chart: share, seconds.
    pub latency_curve: Vec<(f64, f64)>,
    /// CPUs that were busy on average, feed and store included.
    pub cpus_busy: f64,
    /// CPU time of the whole process for each run that was done, feed and store included, in seconds.
    pub cpu_s_per_run: Option<f64>,
    /// CPUs there are.
    pub cpus: usize,
    /// The most memory this process ever had, in bytes.
    pub peak_rss_bytes: u64,
    /// Which limit was reached.
    pub limit: String,
    /// What came of the queries beside the runs.
    pub queries: Option<Readings>,
    /// Connections that the store was asked over, and the requests; none where it is not over a network.
    pub store_connections: Option<u64>,
    /// Requests to the store.
    pub store_requests: Option<u64>,
}

/// Does it. `progress` hears of every run that is done.
///
/// # Errors
/// If something cannot be set up.
pub fn stress(load: &Load, progress: impl Fn()) -> anyhow::Result<Stressed> {
    let parallel = parallel_requests(load, process::max_descriptors())?;
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let services = servers.block_on(Services::start(load))?;
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = clients.block_on(LocalSet::new().run_until(run(load, parallel, &services, progress)))?;
    Ok(measured.into_stressed(load))
}

/// Feed and store.
struct Services {
    feed_url: String,
    store: StoreService,
    folder: tempfile::TempDir,
}

enum StoreService {
    Memory,
    Local,
    Oci { service: Arc<ObjectStorage>, endpoint: String, key: Arc<PrivateKey> },
}

impl Services {
    async fn start(load: &Load) -> anyhow::Result<Self> {
        let feed = fixtures::Feed::new(FeedConfig { log: false, ..FeedConfig::default() });
        let start = feed.now();
        let source = Source::Simulated(Box::new(feed));
        let feed = SimulatedFeed::new(source, FaultPlan::none()).without_rules();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for the feed")?;
        let feed_url = format!("http://{}{EVENTS_PATH}", listener.local_addr()?);
        tokio::spawn(Served::new(feed, start, load.feed_speed).serve(listener));
        let store = match load.store {
            StoreKind::Memory => StoreService::Memory,
            StoreKind::Local => StoreService::Local,
            StoreKind::Oci => {
                let no_key = |_| anyhow!("no key could be made");
                let account = Account::generate("stress").map_err(no_key)?;
                let key = PrivateKey::from_pem(account.key_id(), &account.private_key_pem(), None)?;
                let service = ObjectStorage::new("simulated", "events", vec![account], Faults::none());
                let service = service.map_err(no_key)?;
                let endpoint = format!("http://{}", service.start().await?);
                StoreService::Oci { service, endpoint, key: Arc::new(key) }
            }
        };
        Ok(Self { feed_url, store, folder: tempfile::tempdir()? })
    }

    fn collector(&self, number: usize, parallel: usize, with_cache: bool) -> anyhow::Result<Collector> {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let folder = self.folder.path().join(format!("collector-{number}"));
        let store: SharedStore = match &self.store {
            StoreService::Memory => Arc::new(MemoryStore::default()),
            StoreService::Local => Arc::new(LocalStore::new(folder.join("data"))),
            StoreService::Oci { endpoint, key, .. } => {
                let path = BucketPath::parse(&format!("oci://simulated/events/collector-{number}"));
                let path = path.map_err(|error| anyhow!(error))?;
                Arc::new(OciStore::new(path, endpoint.parse()?, key.clone(), Arc::clone(&clock))?)
            }
        };
        let source = FeedSource::parse(&self.feed_url).map_err(|error| anyhow!(error))?;
        let options = FeedOptions {
            user_agent: "polisen-events-collector (stress)".to_owned(),
            retries: 0,
            instance: number.to_string(),
            ..FeedOptions::new(folder.join("state"))
        };
        let options_of_archive = ArchiveOptions { parallel, ..ArchiveOptions::default() };
        let mut archive = Archive::new(store, Arc::clone(&clock), options_of_archive);
        if with_cache {
            archive = archive.with_cache(Arc::new(Cache::new(CacheOptions::default(), Arc::clone(&clock))));
        }
        Ok(Collector {
            feed: Feed::new(&source, options, Arc::clone(&clock))?,
            archive,
            paths: RecordPaths {
                metrics_dir: folder.join("metrics"),
                health_file: folder.join("health.json"),
            },
            clock,
        })
    }
}

struct Measured {
    runs: Tally,
    queries: Option<Readings>,
    /// CPU time of the process and of the thread that all collectors share, in that time, in seconds.
    cpu_s: f64,
    thread_cpu_s: f64,
    elapsed: Duration,
    store_connections: Option<u64>,
    store_requests: Option<u64>,
}

/// Number of requests that a collector makes at a time, as far as the connections of all of them can be open at once. A
/// connection that cannot be accepted would wait without an error.
fn parallel_requests(load: &Load, max_descriptors: u64) -> anyhow::Result<usize> {
    let usual = ArchiveOptions::default().parallel;
    if load.store != StoreKind::Oci {
        return Ok(usual);
    }
    let collectors = load.collectors.max(1) as u64;
    let each = max_descriptors.saturating_sub(OWN_DESCRIPTORS) / collectors / ENDS;
    match usize::try_from(each.saturating_sub(FURTHER_CONNECTIONS)).unwrap_or(usual) {
        0 => {
            let least = OWN_DESCRIPTORS + collectors * ENDS * (FURTHER_CONNECTIONS + 1);
            Err(anyhow!(
                "{collectors} collectors need {least} open files and connections, and this process can have \
                 {max_descriptors}\nhint: raise the limit with `ulimit -n {least}`, or use fewer --collectors"
            ))
        }
        parallel => Ok(parallel.min(usual)),
    }
}

async fn run(
    load: &Load,
    parallel: usize,
    services: &Services,
    progress: impl Fn(),
) -> anyhow::Result<Measured> {
    let with_cache = load.reading.as_ref().is_some_and(|reading| reading.with_cache);
    let (mut collectors, mut archives) = (Vec::new(), Vec::new());
    for number in 0..load.collectors {
        let collector = services.collector(number, parallel, with_cache)?;
        // The first run stores all that is in the feed, and opens the connections; it is not counted.
        let _ = collector.run().await;
        archives.push(collector.archive.clone());
        collectors.push(async move || collector.run().await.result.is_ok());
    }
    let mut readers = Vec::new();
    let clients = load.reading.as_ref().map_or(0, |reading| reading.clients);
    for (archive, number) in archives.iter().cycle().zip(0..clients as u64) {
        let mut reader = Reader::new(archive.clone(), number).await;
        readers.push(async move || reader.ask().await);
    }
    let (cpu_before_s, thread_cpu_before_s) = (process::cpu_s(), process::thread_cpu_s());
    let began = Instant::now();
    let runs = drive(collectors, load.runs_per_s, load.duration, &progress);
    let queries = async {
        match &load.reading {
            Some(reading) => Ok(Some(drive(readers, reading.per_s, load.duration, || ()).await?)),
            None => Ok::<_, anyhow::Error>(None),
        }
    };
    let (runs, queries) = tokio::try_join!(runs, queries)?;
    let elapsed = began.elapsed();
    let caches: Vec<Arc<Cache>> = archives.iter().filter_map(Archive::cache).cloned().collect();
    let queries = match (&queries, &load.reading) {
        (Some(tally), Some(reading)) => Some(Readings::of(tally, reading, load, &caches).await),
        _ => None,
    };
    let service = match &services.store {
        StoreService::Oci { service, .. } => Some(service),
        StoreService::Memory | StoreService::Local => None,
    };
    Ok(Measured {
        runs,
        queries,
        cpu_s: process::cpu_s() - cpu_before_s,
        thread_cpu_s: process::thread_cpu_s() - thread_cpu_before_s,
        elapsed,
        store_connections: service.map(|service| service.connections()),
        store_requests: service.map(|service| service.requests().all()),
    })
}

impl Measured {
    fn into_stressed(self, load: &Load) -> Stressed {
        let elapsed_s = self.elapsed.as_secs_f64();
        let (cpus_busy, thread_busy) = (self.cpu_s / elapsed_s, self.thread_cpu_s / elapsed_s);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let Tally { due, succeeded, failed, ref latencies, ref services, .. } = self.runs;
        let done = self.runs.done();
        let achieved_per_s = self.runs.achieved_per_s(load.duration);
        let service_s = latency::percentiles(services);
        let mean_service_s = latency::seconds(services.mean() as u64);
        // How many collectors are busy at a time, by Little's law.
        let busy_collectors = achieved_per_s * mean_service_s;
        let kept_up = achieved_per_s >= KEPT_UP * load.runs_per_s;
        let limit = if kept_up && failed == 0 {
            "none: what was due was done".to_owned()
        } else if cpus_busy > 0.9 * cpus as f64 {
            format!("the processor: {cpus_busy:.1} of {cpus} CPUs were busy, feed and store included")
        } else if thread_busy > 0.9 {
            format!("the thread that all collectors share was busy {:.0} % of the time", thread_busy * 100.0)
        } else if busy_collectors > 0.9 * load.collectors as f64 {
            format!("the collectors: {busy_collectors:.1} of {} were busy at a time", load.collectors)
        } else if failed > 0 {
            format!("errors: {failed} of {done} runs failed")
        } else {
            "none of those that are measured here".to_owned()
        };
        let curve = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0];
        let at = |share: f64| latency::seconds(latencies.value_at_quantile(share));
        Stressed {
            collectors: load.collectors,
            offered_per_s: load.runs_per_s,
            achieved_per_s,
            due,
            succeeded,
            failed,
            unfinished: due.saturating_sub(done),
            latency_s: latency::percentiles(latencies),
            latency_max_s: at(1.0),
            service_s,
            latency_curve: curve.map(|share| (share, at(share))).to_vec(),
            cpus_busy,
            cpu_s_per_run: (done > 0).then(|| self.cpu_s / done as f64),
            cpus,
            peak_rss_bytes: process::peak_rss_bytes(),
            limit,
            queries: self.queries,
            store_connections: self.store_connections,
            store_requests: self.store_requests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_limit_of_descriptors() {
        let load = Load {
            collectors: 1_000,
            runs_per_s: 1.0,
            duration: Duration::ZERO,
            store: StoreKind::Oci,
            feed_speed: 1.0,
            reading: None,
        };
        assert_eq!(parallel_requests(&load, 100_000).unwrap(), 16);
        assert_eq!(parallel_requests(&load, 20_000).unwrap(), 6);
        let error = parallel_requests(&load, 1_024).unwrap_err().to_string();
        assert!(error.contains("ulimit -n 8100"), "{error}");
        let local = Load { store: StoreKind::Local, ..load };
        assert_eq!(parallel_requests(&local, 1_024).unwrap(), 16);
    }
}
