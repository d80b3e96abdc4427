//! The service: when it polls, what it shows, what it bears.

#![expect(clippy::float_cmp, reason = "metrics that are whole numbers")]

mod program;
mod publishing;
mod replica;
mod unattended;
mod year;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use collector::archive::{Archive, ArchiveOptions, Kind};
use collector::clock::{Clock as _, VirtualClock};
use collector::feed::Feed;
use collector::record::{Limits, RecordPaths};
use collector::run::Collector;
use collector::store::{MemoryStore, Store as _};
use collector::watch::http::{self, Pages};
use collector::watch::poll_interval::PollInterval;
use collector::watch::schedule::Schedule;
use collector::watch::status::{MOST_RUNS, Status};
use collector::watch::{Command, Watch};
use fixtures::{FeedConfig, What};
use serde_json::Value;
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{Home, fixture};

const HALF_HOUR: Duration = Duration::from_mins(30);

/// A service in virtual time on a simulated feed.
struct Setup {
    home: Home,
    clock: Arc<VirtualClock>,
    store: Arc<MemoryStore>,
    status: Arc<Status>,
    feed: fixtures::Feed,
}

impl Setup {
    fn new() -> Self {
        let mut feed = fixtures::Feed::new(FeedConfig { sparse: 0.0, ..FeedConfig::default() });
        feed.drain_log();
        let clock = Arc::new(VirtualClock::at(feed.now()));
        let status = Arc::new(Status::new(feed.now(), 500, Limits::default()).unwrap());
        Self { home: Home::new(), clock, store: Arc::default(), status, feed }
    }

    fn file(&self) -> PathBuf {
        self.home.path("feed.json")
    }

    fn collector(&self) -> Collector {
        Collector {
            feed: Feed::File(self.file()),
            archive: Archive::new(self.store.clone(), self.clock.clone(), ArchiveOptions::default()),
            paths: RecordPaths {
                metrics_dir: self.home.path("metrics"),
                health_file: self.home.path("health.json"),
            },
            clock: self.clock.clone(),
        }
    }

    /// Lets the service work for a time, and whatever `happens` before each poll. When it polled.
    async fn watch(
        &mut self,
        time: TimeDelta,
        mut happens: impl FnMut(&VirtualClock, usize),
    ) -> Vec<Duration> {
        let (commands, mut received) = unbounded_channel();
        let schedule = Schedule::new(HALF_HOUR, Duration::from_mins(1), "test");
        let poll_interval = PollInterval::new(HALF_HOUR, false, 500);
        let mut watch = Watch::new(
            self.clock.clone(),
            schedule,
            poll_interval,
            self.status.clone(),
            Some(self.clock.now()),
        );
        let (collector, file) = (self.collector(), self.file());
        let (clock, feed) = (&self.clock, &mut self.feed);
        let end = clock.elapsed() + time.to_std().unwrap();
        let mut polls = Vec::new();
        let poll = async || {
            feed.advance_to(clock.now());
            fs::write(&file, feed.full_response().compact()).unwrap();
            polls.push(clock.elapsed());
            let report = collector.run().await;
            happens(clock, polls.len());
            if clock.elapsed() + HALF_HOUR > end {
                commands.send(Command::Stop).unwrap();
            }
            report
        };
        assert_eq!(watch.run(poll, &mut received).await, Command::Stop);
        polls
    }

    async fn stored(&self) -> usize {
        let mut lines = 0;
        for listed in self.store.list(&format!("{}/", Kind::Events)).await.unwrap() {
            let object = self.store.get(&listed.key).await.unwrap().unwrap();
            lines += std::str::from_utf8(&object.bytes).unwrap().lines().count();
        }
        lines
    }
}

#[tokio::test]
async fn a_week_is_336_polls_and_everything_that_was_published() {
    let mut setup = Setup::new();
    let shown: BTreeSet<u64> = setup.feed.full_response().events().iter().map(|event| event.id()).collect();
    let polls = setup.watch(TimeDelta::days(7), |_, _| ()).await;
    assert_eq!(polls.len(), 336);
    for pair in polls.windows(2) {
        assert!(pair[1].saturating_sub(pair[0]).abs_diff(HALF_HOUR) < Duration::from_secs(1), "{pair:?}");
    }
    let published: BTreeSet<u64> = setup
        .feed
        .drain_log()
        .iter()
        .filter(|change| matches!(change.what, What::Published | What::Restored))
        .map(|change| change.event.id())
        .chain(shown)
        .collect();
    let stored = setup.stored().await;
    // A few are withdrawn before any poll could see them.
    assert!(
        stored > published.len() * 98 / 100 && stored <= published.len(),
        "{stored} of {}",
        published.len()
    );
    let view = setup.status.view(MOST_RUNS);
    assert_eq!(view.runs.len(), 336);
    assert!(view.runs.iter().all(|run| !run.possible_gap && run.error.is_none()));
    assert_eq!(view.runs.iter().map(|run| run.new).sum::<usize>(), stored);
}

#[tokio::test]
async fn clocks_that_jump_and_a_sleep_neither_double_nor_lose_a_poll() {
    let mut setup = Setup::new();
    let start = setup.clock.now();
    let polls = setup
        .watch(TimeDelta::days(2), |clock, count| match count {
            // Set back by an hour; later the machine sleeps for eight hours, which only one of its clocks notices.
            20 => clock.set(clock.now() - TimeDelta::hours(1)),
            50 => clock.set(clock.now() + TimeDelta::hours(8)),
            _ => {}
        })
        .await;
    let gaps: Vec<Duration> = polls.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    assert!(gaps.iter().all(|gap| *gap < HALF_HOUR + Duration::from_secs(1)), "{gaps:?}");
    let close: Vec<_> = gaps.iter().filter(|gap| **gap + Duration::from_secs(1) < HALF_HOUR).collect();
    // After the sleep one comes at once.
    assert!(close.len() <= 2 && close.iter().any(|gap| **gap <= Duration::from_secs(10)), "{close:?}");
    assert!(setup.clock.now() - start > TimeDelta::hours(54));
}

/// The service's pages on a port of their own.
fn pages(setup: &Setup) -> SocketAddr {
    let pages = Pages {
        status: setup.status.clone(),
        health_file: setup.home.path("health.json"),
        clock: setup.clock.clone(),
    };
    let server = http::start(([127, 0, 0, 1], 0).into(), pages).unwrap();
    let address = server.address();
    // Shown until the test ends.
    std::mem::forget(server);
    address
}

/// Sends bytes as they are. The status of the answer, and all of it.
fn ask(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

/// The metrics of `/metrics`, by name and labels.
fn metrics(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn health_turns_after_45_minutes_and_back_after_the_next_good_run() {
    let mut setup = Setup::new();
    let address = pages(&setup);
    assert_eq!((get(address, "/health").0, get(address, "/ready").0), (503, 503));
    setup.watch(TimeDelta::hours(1), |_, _| ()).await;
    assert_eq!((get(address, "/health").0, get(address, "/ready").0), (200, 200));
    setup.clock.sleep(Duration::from_mins(45)).await;
    assert_eq!(get(address, "/health").0, 200);
    setup.clock.sleep(Duration::from_mins(1)).await;
    let (status, answer) = get(address, "/health");
    let health: Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!((status, &health["healthy"]), (503, &Value::Bool(false)));
    assert!(health["lines"][0].as_str().unwrap().contains("Last run was 46 minutes ago"), "{health}");
    assert_eq!(metrics(body(&get(address, "/metrics").1))["polisen_collector_healthy"], 0.0);
    setup.watch(TimeDelta::hours(1), |_, _| ()).await;
    assert_eq!(get(address, "/health").0, 200);
    assert_eq!(metrics(body(&get(address, "/metrics").1))["polisen_collector_healthy"], 1.0);
}

#[tokio::test]
async fn the_figures_are_those_of_the_runs() {
    let mut setup = Setup::new();
    let address = pages(&setup);
    setup.watch(TimeDelta::hours(24), |_, _| ()).await;
    let all = metrics(body(&get(address, "/metrics").1));
    let figure = |name: &str| all[&format!("polisen_collector_{name}")];
    #[expect(clippy::cast_precision_loss, reason = "some hundred events")]
    let stored = setup.stored().await as f64;
    assert_eq!(figure("events_total{kind=\"new\"}"), stored);
    assert_eq!(
        (figure("runs_total{result=\"success\"}"), figure("runs_total{result=\"failed\"}")),
        (48.0, 0.0)
    );
    assert_eq!(figure("run_duration_seconds_count"), 48.0);
    assert_eq!(figure("possible_gaps_total"), 0.0);
    assert!((490.0..=500.0).contains(&figure("buffer_overlap_events")));
    assert_eq!(figure("poll_interval_seconds"), 1_800.0);
    assert!(all["process_resident_memory_bytes"] > 1e6 && all["process_cpu_seconds_total"] > 0.0);
    let view: Value = serde_json::from_str(body(&get(address, "/api/runs").1)).unwrap();
    assert_eq!(view["runs"].as_array().unwrap().len(), 48);
    let page = get(address, "/").1;
    assert!(page.contains("<strong>✓ Healthy</strong>") && page.contains("http-equiv=\"refresh\""));
    let elsewhere = ["<script", "src=", "href=\"http", "url(", "@import"];
    assert!(elsewhere.iter().all(|word| !page.contains(word)), "something from elsewhere");
    for (name, value) in
        [("x-frame-options", "DENY"), ("x-content-type-options", "nosniff"), ("cache-control", "no-store")]
    {
        assert!(page.to_lowercase().contains(&format!("{name}: {}", value.to_lowercase())), "{name}");
    }
}

/// The names of metrics in a file of `scripts/monitoring`.
fn monitored(name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(monitoring().join(name)).unwrap();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_name(letter));
    let names: BTreeSet<String> = words
        .filter(|word| word.starts_with("polisen_collector_") || word.starts_with("process_"))
        .map(ToOwned::to_owned)
        .collect();
    assert!(names.len() > 5, "{name}: {names:?}");
    names
}

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/monitoring")
}

/// What alerts and the dashboard to import ask for is served; what alerts ask for also before the first run.
#[tokio::test]
async fn monitored_metrics_are_served() {
    let mut setup = Setup::new();
    let address = pages(&setup);
    // As a service that publishes.
    setup.status.note_publishing(None);
    let served = || -> BTreeSet<String> {
        let text = get(address, "/metrics").1;
        body(&text).lines().filter_map(|line| Some(line.split(['{', ' ']).next()?.to_owned())).collect()
    };
    let all = metrics(body(&get(address, "/metrics").1));
    for name in ["alerts.yml", "alerts_test.yml"] {
        // An alert whose metric is missing at first, or has labels that another one lacks, may never fire.
        let missing = monitored(name).into_iter().filter(|name| !all.contains_key(name));
        // This one is named in a description only.
        let missing: Vec<String> = missing.filter(|name| !name.ends_with("_run_failures_total")).collect();
        assert_eq!(missing, [""; 0], "{name}");
    }
    setup.watch(TimeDelta::hours(2), |_, _| ()).await;
    let missing = fixture("absent.json");
    let failing = Collector { feed: Feed::File(missing), ..setup.collector() };
    setup.status.note(&failing.run().await.record);
    for name in ["alerts.yml", "grafana.json"] {
        let missing: Vec<String> = monitored(name).difference(&served()).cloned().collect();
        assert_eq!(missing, [""; 0], "{name}");
    }
    let dashboard: Value =
        serde_json::from_slice(&fs::read(monitoring().join("grafana.json")).unwrap()).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
}

/// Every alert has a case in which it fires and one in which it does not, after `promtool test rules`.
#[test]
fn every_alert_is_tested() {
    let alerts = fs::read_to_string(monitoring().join("alerts.yml")).unwrap();
    let tests = fs::read_to_string(monitoring().join("alerts_test.yml")).unwrap();
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")), "{alert} never fires");
        assert!(tests.contains(&format!("alertname: {alert}, exp_alerts: []")), "{alert} never resolves");
    }
}

/// A response that is stored in part, an outage and a clock in the future, in the metrics.
#[tokio::test]
async fn evidence_is_served_as_metrics() {
    let mut setup = Setup::new();
    let address = pages(&setup);
    let figure =
        |name: &str| metrics(body(&get(address, "/metrics").1))[&format!("polisen_collector_{name}")];
    assert_eq!((figure("last_settled_timestamp_seconds"), figure("healthy")), (0.0, 0.0));
    setup.watch(TimeDelta::hours(1), |_, _| ()).await;
    let settled = figure("last_settled_timestamp_seconds");
    assert!(settled > 0.0 && settled == figure("last_valid_response_timestamp_seconds"));
    assert_eq!((figure("response_valid_events"), figure("rejected_share")), (500.0, 0.0));
    assert_eq!((figure("buffer_size_events"), figure("rejected_share_limit")), (500.0, 0.2));
    assert!(figure("ledger_events") >= 500.0);

    let note = |report: &collector::run::RunReport| {
        setup.status.note(&report.record);
        setup.status.note_evidence(&report.evidence, report.health_error.as_ref());
    };
    fs::write(setup.file(), "[1, 2, 3]").unwrap();
    note(&setup.collector().run().await);
    assert_eq!((figure("response_valid_events"), figure("rejected_share")), (0.0, 1.0));
    assert_eq!((figure("last_settled_timestamp_seconds"), figure("healthy")), (settled, 0.0));
    fs::remove_file(setup.file()).unwrap();
    for failures in [1.0, 2.0, 3.0] {
        note(&setup.collector().run().await);
        assert_eq!(figure("consecutive_failures"), failures);
    }
}

#[tokio::test]
async fn health_file_that_cannot_be_written_makes_the_service_unhealthy() {
    let mut setup = Setup::new();
    let address = pages(&setup);
    setup.watch(TimeDelta::hours(1), |_, _| ()).await;
    assert_eq!(get(address, "/health").0, 200);
    let mut collector = setup.collector();
    collector.paths.health_file = setup.home.path("feed.json/health.json");
    let report = collector.run().await;
    assert!(report.result.is_ok());
    setup.status.note_evidence(&report.evidence, report.health_error.as_ref());
    let (status, answer) = get(address, "/health");
    assert!(status == 503 && answer.contains("could not be written"), "{answer}");
    let report = setup.collector().run().await;
    setup.status.note_evidence(&report.evidence, report.health_error.as_ref());
    assert_eq!(get(address, "/health").0, 200);
}

#[tokio::test]
async fn clock_that_was_ahead_is_unhealthy_until_the_next_run() {
    let mut setup = Setup::new();
    let address = pages(&setup);
    setup.watch(TimeDelta::hours(1), |_, _| ()).await;
    setup.clock.set(setup.clock.now() - TimeDelta::days(2));
    let (status, answer) = get(address, "/health");
    assert!(status == 503 && answer.contains("is dated"), "{answer}");
    setup.collector().run().await;
    assert_eq!(get(address, "/health").0, 200);
}

#[tokio::test]
async fn a_failure_is_counted_by_its_kind_and_makes_it_unhealthy() {
    let setup = Setup::new();
    let address = pages(&setup);
    let report = setup.collector().run().await;
    setup.status.note(&report.record);
    let all = metrics(body(&get(address, "/metrics").1));
    assert_eq!(all["polisen_collector_run_failures_total{kind=\"read\"}"], 1.0);
    assert_eq!(get(address, "/health").0, 503);
    let page = get(address, "/").1;
    assert!(page.contains("<strong>✗ Unhealthy</strong>") && page.contains("cannot read"));
}

#[tokio::test]
async fn whatever_is_sent_is_refused_or_answered_and_the_next_is_answered_too() {
    let setup = Setup::new();
    let address = pages(&setup);
    // Connections on which nothing, or half of a request, comes.
    let mut open = Vec::new();
    for number in 0..60 {
        let mut stream = TcpStream::connect(address).unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ").unwrap();
        }
        open.push(stream);
    }
    let long = "x".repeat(1 << 20);
    for (request, expected) in [
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"), &[431, 0][..]),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), &[414, 431, 0]),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(1_000)), &[431, 0]),
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
                .to_owned(),
            &[405],
        ),
        ("DELETE /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), &[405]),
        ("GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), &[404, 400]),
        ("GET /%2e%2e/health.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), &[404, 400]),
        ("GET /metrics/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), &[404]),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), &[400, 0]),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), &[400, 505, 0]),
    ] {
        let (status, answer) = ask(address, request.as_bytes());
        assert!(expected.contains(&status), "{status}: {}", &request[..40.min(request.len())]);
        assert!(!answer.contains("root:"));
        assert_eq!(get(address, "/metrics").0, 200);
    }
}

/// More than the places there are: who says nothing, who says half, who asks and does not read.
#[tokio::test]
async fn readers_that_take_every_place_delay_no_poll_and_are_forgotten() {
    let mut setup = Setup::new();
    let address = pages(&setup);
    setup.watch(TimeDelta::hours(12), |_, _| ()).await;
    let sent: [&[u8]; 3] = [
        b"",
        b"GET /api/runs HTTP/1.1\r\nHost: x\r\n",
        b"GET /api/runs HTTP/1.1\r\nHost: x\r\n\r\nGET /api/runs HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let open: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.write_all(sent[number % sent.len()]);
            stream
        })
        .collect();
    assert_eq!(setup.watch(TimeDelta::days(1), |_, _| ()).await.len(), 48);
    drop(open);
    assert_eq!(get(address, "/health").0, 200);
    let view: Value = serde_json::from_str(body(&get(address, "/api/runs").1)).unwrap();
    assert_eq!(view["runs"].as_array().unwrap().len(), 72);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_scrapes_are_answered_while_it_polls() {
    let mut setup = Setup::new();
    let address = pages(&setup);
    let scrapes = tokio::spawn(async move {
        // A connection each: one that waits for its next request may just have been closed for saying nothing.
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).pool_max_idle_per_host(0);
        let client = client.build().unwrap();
        let url = format!("http://{address}/metrics");
        let mut answered = 0;
        for _ in 0..100 {
            let batch = (0..100).map(|_| client.get(&url).send());
            for answer in futures_util::future::join_all(batch).await {
                answered += u32::from(answer.is_ok_and(|answer| answer.status() == 200));
            }
        }
        answered
    });
    let polls = setup.watch(TimeDelta::days(4), |_, _| ()).await;
    assert_eq!(polls.len(), 192);
    assert_eq!(scrapes.await.unwrap(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_does_not_end_is_broken_off_ten_seconds_after_the_word_to_stop() {
    let setup = Setup::new();
    let schedule = Schedule::new(HALF_HOUR, Duration::ZERO, "test");
    let poll_interval = PollInterval::new(HALF_HOUR, false, 500);
    let mut watch = Watch::new(setup.clock.clone(), schedule, poll_interval, setup.status.clone(), None);
    let (commands, mut received) = unbounded_channel();
    let began = tokio::time::Instant::now();
    let poll = async || {
        commands.send(Command::Reload).unwrap();
        commands.send(Command::Stop).unwrap();
        std::future::pending().await
    };
    assert_eq!(watch.run(poll, &mut received).await, Command::Stop);
    assert_eq!(began.elapsed().as_secs(), 10);
    assert!(setup.status.view(1).runs.is_empty());
}
