//! `loadtest serve` and `loadtest stress`.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use collector::cache::CacheMetrics;
use fixtures::FeedConfig;
use loadtest::feed::faults::{Fault, FaultPlan};
use loadtest::feed::web::{EVENTS_PATH, Served};
use loadtest::feed::{SimulatedFeed, Source};
use loadtest::report::html::{Axes, Line, Page};
use loadtest::report::table::Table;
use loadtest::scenario::StoreKind;
use loadtest::stress::{Load, ReadLoad, Readings, Stressed, stress};
use serde_json::json;
use tokio::net::TcpListener;

use super::{output, run};

/// Options of `loadtest serve`.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The port on this machine; 0 for a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// How many times more events than at the base rate.
    #[arg(long, default_value_t = 1.0, value_parser = run::positive, allow_negative_numbers = true)]
    rate: f64,
    /// Events an hour at rate 1.
    #[arg(long, default_value_t = fixtures::DOCUMENTED_EVENTS_PER_HOUR, value_parser = run::positive, allow_negative_numbers = true)]
    base_rate: f64,
    /// How many times faster time passes at the feed: at 3600 an hour is a second. Its rules go by that time. At 0 it passes
    /// only on request: PUT /time?2026-01-02T12:00:00Z
    #[arg(long, default_value_t = 1.0, value_parser = speed, allow_negative_numbers = true)]
    speed: f64,
    /// Same seed, same events.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Events at every hour alike, without the rhythm of the real feed.
    #[arg(long)]
    flat: bool,
    /// Let everybody call as often as they like.
    #[arg(long)]
    no_rules: bool,
    /// Share of the calls that fail, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = run::share, allow_negative_numbers = true)]
    fault_rate: f64,
    /// In which ways calls fail: error, reset, timeout, cut.
    #[arg(long, value_delimiter = ',', default_value = "error,reset,cut", value_parser = str::parse::<Fault>)]
    faults: Vec<Fault>,
}

fn speed(text: &str) -> Result<f64, String> {
    if text == "0" { Ok(0.0) } else { run::positive(text) }
}

impl Serve {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let config = FeedConfig {
            seed: self.seed,
            events_per_hour: self.base_rate,
            rate: self.rate,
            traffic: if self.flat { fixtures::Traffic::Flat } else { fixtures::Traffic::Daily },
            ..FeedConfig::default()
        };
        let feed = fixtures::Feed::new(config);
        let start = feed.now();
        let faults = FaultPlan::new(start, self.fault_rate, &self.faults, &[], self.seed);
        let feed = SimulatedFeed::new(Source::Simulated(Box::new(feed)), faults);
        let feed = if self.no_rules { feed.without_rules() } else { feed };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))
                .await
                .with_context(|| format!("cannot listen on port {}", self.port))?;
            let base = format!("http://{}", listener.local_addr()?);
            let addresses = json!({"feed": format!("{base}{EVENTS_PATH}"), "status": format!("{base}/status"), "page": base});
            output::print(&format!("{addresses}\n"))?;
            let serving = Served::new(feed, start, self.speed).serve(listener);
            tokio::select! {
                ended = serving => ended.context("cannot serve")?,
                interrupted = tokio::signal::ctrl_c() => interrupted?,
            }
            Ok(true)
        })
    }
}

/// Options of `loadtest stress`.
#[derive(Debug, Args)]
pub(super) struct Stress {
    /// How many collectors there are; each has an archive of its own in the store.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    collectors: u32,
    /// Runs due in a second, all collectors together.
    #[arg(long, default_value_t = 100.0, value_parser = run::positive, allow_negative_numbers = true)]
    runs_per_second: f64,
    /// For how long.
    #[arg(long, default_value = "10s", value_parser = seconds)]
    duration: Duration,
    /// Where they store.
    #[arg(long, value_enum, default_value_t = StoreKind::Oci)]
    store: StoreKind,
    /// How many times faster time passes at the feed.
    #[arg(long, default_value_t = 600.0, value_parser = run::positive, allow_negative_numbers = true)]
    speed: f64,
    /// Queries due in a second beside the runs, all clients together: days, a week by type, a text in everything, numbers.
    #[arg(long, value_name = "QUERIES", value_parser = run::positive, allow_negative_numbers = true)]
    queries_per_second: Option<f64>,
    /// How many clients query.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    query_clients: u32,
    /// Let every query read the store.
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    results: output::Results,
    #[command(flatten)]
    baselines: output::Baselines,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| "not a time such as 10s".to_owned())?;
    if (Duration::from_secs(1)..=Duration::from_hours(24)).contains(&time) {
        Ok(time)
    } else {
        Err("must be from 1s to 1day".to_owned())
    }
}

impl Stress {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let comparing = self.baselines.prepare()?;
        let load = Load {
            collectors: self.collectors as usize,
            runs_per_s: self.runs_per_second,
            duration: self.duration,
            store: self.store,
            feed_speed: self.speed,
            reading: self.queries_per_second.map(|per_s| ReadLoad {
                clients: self.query_clients as usize,
                per_s,
                with_cache: !self.no_cache,
            }),
        };
        let bar = output::progress((self.runs_per_second * self.duration.as_secs_f64()) as u64, "runs");
        let stressed = stress(&load, || bar.inc(1))?;
        bar.finish_and_clear();
        self.results.write(&stressed, || page(&stressed), || table(&stressed).to_string())?;
        comparing.finish(&stressed)
    }
}

fn table(stressed: &Stressed) -> Table {
    let ms = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
    let Stressed { latency_s, service_s, .. } = stressed;
    let rows = [
        ("runs due in a second", format!("{:.0}", stressed.offered_per_s)),
        ("done", format!("{:.1}", stressed.achieved_per_s)),
        ("succeeded", stressed.succeeded.to_string()),
        ("failed", stressed.failed.to_string()),
        ("not done in the end", stressed.unfinished.to_string()),
        (
            "latency from the instant due: p50, p95, p99, longest",
            [latency_s.p50, latency_s.p95, latency_s.p99, stressed.latency_max_s].map(ms).join(", "),
        ),
        ("time at work: p50, p95, p99", [service_s.p50, service_s.p95, service_s.p99].map(ms).join(", ")),
        ("CPUs busy", format!("{:.2} of {}", stressed.cpus_busy, stressed.cpus)),
        ("CPU time for each run", stressed.cpu_s_per_run.map_or_else(|| "–".to_owned(), ms)),
        ("memory", format!("{} MB", stressed.peak_rss_bytes / 1_000_000)),
        ("limit reached", stressed.limit.clone()),
    ];
    let mut rows = rows.to_vec();
    if let Some(queries) = &stressed.queries {
        let Readings { latency_s, service_s, .. } = queries;
        let cache = queries.cache.zip(queries.hit_rate);
        rows.extend([
            ("queries due in a second", format!("{:.0}", queries.offered_per_s)),
            ("answered", format!("{:.1}", queries.achieved_per_s)),
            ("answered in part", queries.failed.to_string()),
            ("not answered in the end", queries.unfinished.to_string()),
            (
                "latency from the instant due: p50, p95, p99",
                [latency_s.p50, latency_s.p95, latency_s.p99].map(ms).join(", "),
            ),
            ("time at work: p50, p95, p99", [service_s.p50, service_s.p95, service_s.p99].map(ms).join(", ")),
            (
                "from the cache",
                cache.map_or_else(
                    || "there is none".to_owned(),
                    |(cache, rate)| {
                        let CacheMetrics { coalesced, evictions, .. } = cache;
                        format!("{:.1} % ({coalesced} shared, {evictions} evicted)", rate * 100.0)
                    },
                ),
            ),
        ]);
    }
    if let Some((connections, requests)) = stressed.store_connections.zip(stressed.store_requests) {
        rows.push(("requests to the store", format!("{requests} over {connections} connections")));
    }
    let mut table = Table::new(&["", "measured"]);
    for (name, value) in rows {
        table.row(vec![name.to_owned(), value]);
    }
    table
}

fn page(stressed: &Stressed) -> anyhow::Result<String> {
    let mut page = Page::new("Many collectors at once");
    page.section(
        "Latency",
        "From the instant at which a run was due to its end, so that nothing is left out in step with the server.",
    );
    let points =
        stressed.latency_curve.iter().map(|(share, seconds)| (share * 100.0, seconds * 1e3)).collect();
    let line = Line { name: "latency".to_owned(), points };
    page.chart(&Axes { title: "Latency", x: "% of the runs", y: "ms at most", mark: None }, &[line])?;
    page.table("Measured", &table(stressed));
    Ok(page.finish())
}
