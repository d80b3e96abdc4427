//! Many collectors at once on one feed and one store.
//!
//! Open loop: runs are due at a steady rate whether or not the ones before are done, and a run's latency counts from
//! the instant at which it was due. Otherwise a service that stalls would hold up its own measurement, and the stall
//! would hardly show.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use collector::archive::{Archive, ArchiveOptions};
use collector::clock::{SharedClock, SystemClock};
use collector::feed::{CallLimits, Feed, FeedOptions, Source as FeedSource};
use collector::record::RecordPaths;
use collector::run::Collector;
use collector::store::oci::BucketPath;
use collector::store::oci::key::PrivateKey;
use collector::store::{LocalStore, MemoryStore, OciStore, SharedStore};
use fixtures::FeedConfig;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep_until, timeout_at};

use crate::feed::faults::FaultPlan;
use crate::feed::web::{EVENTS_PATH, Served};
use crate::feed::{SimulatedFeed, Source};
use crate::latency::{self, Percentiles};
use crate::oci::{Account, Faults, ObjectStorage};
use crate::process;
use crate::scenario::StoreKind;

/// After the last run was due, so long is waited for those that are not done.
const PATIENCE: Duration = Duration::from_secs(10);
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
    /// From the instant at which a run was due to its end, in seconds.
    pub latency_s: Percentiles,
    /// The longest of these, in seconds.
    pub latency_max_s: f64,
    /// From the instant at which a run began to its end, in seconds.
    pub service_s: Percentiles,
    /// By share of the runs, for a chart: share, seconds.
    pub latency_curve: Vec<(f64, f64)>,
    /// CPUs that were busy on average, feed and store included.
    pub cpus_busy: f64,
    /// CPUs there are.
    pub cpus: usize,
    /// The most memory this process ever had, in bytes.
    pub peak_rss_bytes: u64,
    /// Which limit was reached.
    pub limit: String,
}

/// Does it. `progress` hears of every run that is done.
///
/// # Errors
/// If something cannot be set up.
pub fn stress(load: &Load, progress: impl Fn()) -> anyhow::Result<Stressed> {
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let services = servers.block_on(Services::start(load))?;
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = clients.block_on(LocalSet::new().run_until(run(load, &services, progress)))?;
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
    Oci { endpoint: String, key: Arc<PrivateKey> },
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
                let endpoint = format!("http://{}", service.map_err(no_key)?.start().await?);
                StoreService::Oci { endpoint, key: Arc::new(key) }
            }
        };
        Ok(Self { feed_url, store, folder: tempfile::tempdir()? })
    }

    fn collector(&self, number: usize) -> anyhow::Result<Collector> {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let folder = self.folder.path().join(format!("collector-{number}"));
        let store: SharedStore = match &self.store {
            StoreService::Memory => Arc::new(MemoryStore::default()),
            StoreService::Local => Arc::new(LocalStore::new(folder.join("data"))),
            StoreService::Oci { endpoint, key } => {
                let path = BucketPath::parse(&format!("oci://simulated/events/collector-{number}"));
                let path = path.map_err(|error| anyhow!(error))?;
                Arc::new(OciStore::new(path, endpoint.parse()?, key.clone(), Arc::clone(&clock))?)
            }
        };
        let source = FeedSource::parse(&self.feed_url).map_err(|error| anyhow!(error))?;
        let options = FeedOptions {
            user_agent: "polisen-events-collector (stress)".to_owned(),
            timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(10),
            compression: true,
            retries: 0,
            backoff: Duration::ZERO,
            limits: CallLimits::NONE,
            state_dir: folder.join("state"),
            force: false,
            instance: number.to_string(),
        };
        Ok(Collector {
            feed: Feed::new(&source, options, Arc::clone(&clock))?,
            archive: Archive::new(store, Arc::clone(&clock), ArchiveOptions::default()),
            paths: RecordPaths {
                metrics_dir: folder.join("metrics"),
                health_file: folder.join("health.json"),
            },
            clock,
        })
    }
}

/// A run that was done: how long after it was due, how long it took, and whether it succeeded.
struct Done {
    latency: Duration,
    service: Duration,
    succeeded: bool,
}

struct Measured {
    due: u64,
    succeeded: u64,
    failed: u64,
    latencies: Histogram<u64>,
    services: Histogram<u64>,
    /// From the first run that was due to the last that was done.
    elapsed: Duration,
    /// CPU time of the process and of the thread that all collectors share, in that time, in seconds.
    cpu_s: f64,
    thread_cpu_s: f64,
}

async fn run(load: &Load, services: &Services, progress: impl Fn()) -> anyhow::Result<Measured> {
    let (to_collectors, runs_due) = mpsc::unbounded_channel::<Instant>();
    let (to_tally, mut done) = mpsc::unbounded_channel::<Done>();
    let runs_due = Arc::new(Mutex::new(runs_due));
    for number in 0..load.collectors {
        let collector = services.collector(number)?;
        // The first run stores all that is in the feed, and opens the connections; it is not counted.
        let _ = collector.run().await;
        let (runs_due, to_tally) = (Arc::clone(&runs_due), to_tally.clone());
        spawn_local(async move {
            loop {
                let Some(due) = runs_due.lock().await.recv().await else { return };
                let began = Instant::now();
                let succeeded = collector.run().await.result.is_ok();
                let done = Done { latency: due.elapsed(), service: began.elapsed(), succeeded };
                if to_tally.send(done).is_err() {
                    return;
                }
            }
        });
    }
    drop(to_tally);
    let (cpu_before_s, thread_cpu_before_s) = (process::cpu_s(), process::thread_cpu_s());
    let (began, duration, per_s) = (Instant::now(), load.duration, load.runs_per_s);
    let schedule = spawn_local(async move {
        let mut due_runs = 0_u64;
        loop {
            let due = began + Duration::from_secs_f64(due_runs as f64 / per_s);
            if due > began + duration {
                return due_runs;
            }
            sleep_until(due.into()).await;
            if to_collectors.send(due).is_err() {
                return due_runs;
            }
            due_runs += 1;
        }
    });
    let mut measured = Measured {
        due: 0,
        succeeded: 0,
        failed: 0,
        latencies: latency::histogram(),
        services: latency::histogram(),
        elapsed: Duration::ZERO,
        cpu_s: 0.0,
        thread_cpu_s: 0.0,
    };
    let deadline = began + duration + PATIENCE;
    while let Ok(Some(Done { latency, service, succeeded })) = timeout_at(deadline.into(), done.recv()).await
    {
        measured.latencies.saturating_record(latency::nanoseconds(latency.as_secs_f64()));
        measured.services.saturating_record(latency::nanoseconds(service.as_secs_f64()));
        measured.succeeded += u64::from(succeeded);
        measured.failed += u64::from(!succeeded);
        measured.elapsed = began.elapsed();
        progress();
        measured.cpu_s = process::cpu_s() - cpu_before_s;
        measured.thread_cpu_s = process::thread_cpu_s() - thread_cpu_before_s;
    }
    measured.due = schedule.await.context("the schedule broke off")?;
    Ok(measured)
}

impl Measured {
    fn into_stressed(self, load: &Load) -> Stressed {
        let elapsed_s = self.elapsed.as_secs_f64();
        let (cpus_busy, thread_busy) = (self.cpu_s / elapsed_s, self.thread_cpu_s / elapsed_s);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let done = self.succeeded + self.failed;
        let achieved_per_s = done as f64 / elapsed_s.max(load.duration.as_secs_f64());
        let service_s = latency::percentiles(&self.services);
        let mean_service_s = latency::seconds(self.services.mean() as u64);
        // How many collectors are busy at a time, by Little's law.
        let busy_collectors = achieved_per_s * mean_service_s;
        let kept_up = achieved_per_s >= KEPT_UP * load.runs_per_s;
        let limit = if kept_up && self.failed == 0 {
            "none: what was due was done".to_owned()
        } else if cpus_busy > 0.9 * cpus as f64 {
            format!("the processor: {cpus_busy:.1} of {cpus} CPUs were busy, feed and store included")
        } else if thread_busy > 0.9 {
            format!("the thread that all collectors share was busy {:.0} % of the time", thread_busy * 100.0)
        } else if busy_collectors > 0.9 * load.collectors as f64 {
            format!("the collectors: {busy_collectors:.1} of {} were busy at a time", load.collectors)
        } else if self.failed > 0 {
            format!("errors: {} of {done} runs failed", self.failed)
        } else {
            "none of those that are measured here".to_owned()
        };
        let curve = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0];
        let at = |share: f64| latency::seconds(self.latencies.value_at_quantile(share));
        Stressed {
            collectors: load.collectors,
            offered_per_s: load.runs_per_s,
            achieved_per_s,
            due: self.due,
            succeeded: self.succeeded,
            failed: self.failed,
            unfinished: self.due.saturating_sub(done),
            latency_s: latency::percentiles(&self.latencies),
            latency_max_s: at(1.0),
            service_s,
            latency_curve: curve.map(|share| (share, at(share))).to_vec(),
            cpus_busy,
            cpus,
            peak_rss_bytes: process::peak_rss_bytes(),
            limit,
        }
    }
}
