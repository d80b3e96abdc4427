//! `collector run` against addresses on this machine: what is sent, what is accepted, what is tried again.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_compression::Level;
use async_compression::tokio::write::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use chrono::{DateTime, Utc};
use collector::clock::{Clock as _, VirtualClock};
use collector::feed::{CallLimits, Feed, FeedError, FeedOptions, Source};
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use crate::support::{Ended, Home, fixture};

/// A server and the threads it runs on.
pub(crate) struct Server {
    runtime: Runtime,
    inner: MockServer,
}

impl Server {
    /// Gives these answers one after the other, the last one for ever.
    pub(crate) fn new(answers: impl IntoIterator<Item = ResponseTemplate>) -> Self {
        let runtime = Runtime::new().unwrap();
        let answers: Vec<_> = answers.into_iter().collect();
        let inner = runtime.block_on(async {
            let server = MockServer::start().await;
            let last = answers.len() - 1;
            for (position, answer) in answers.into_iter().enumerate() {
                let mock = Mock::given(any()).respond_with(answer);
                if position < last { mock.up_to_n_times(1) } else { mock }.mount(&server).await;
            }
            server
        });
        Self { runtime, inner }
    }

    pub(crate) fn calls(&self) -> Vec<Request> {
        self.runtime.block_on(self.inner.received_requests()).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/api/events", self.inner.uri())
    }

    pub(crate) fn run(&self, home: &Home, more: &[&str]) -> Ended {
        let url = self.url();
        home.collector(&[&["run", "--json", "--retry-backoff", "1ms", "--feed", &url], more].concat())
    }
}

fn sent() -> Vec<u8> {
    std::fs::read(fixture("response.json")).unwrap()
}

pub(crate) fn ok() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(sent(), "application/json")
}

pub(crate) fn status(code: u16) -> ResponseTemplate {
    ResponseTemplate::new(code)
}

fn packed<W: AsyncWrite + Unpin>(
    runtime: &Runtime,
    mut encoder: W,
    body: &[u8],
    take: impl FnOnce(W) -> Vec<u8>,
) -> Vec<u8> {
    runtime.block_on(async {
        encoder.write_all(body).await.unwrap();
        encoder.shutdown().await.unwrap();
    });
    take(encoder)
}

/// The body in every encoding that is asked for; `deflate` as the standard says and as some servers do.
fn encodings(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let runtime = Runtime::new().unwrap();
    let level = Level::Fastest;
    vec![
        (
            "gzip",
            packed(&runtime, GzipEncoder::with_quality(Vec::new(), level), body, GzipEncoder::into_inner),
        ),
        (
            "deflate",
            packed(&runtime, ZlibEncoder::with_quality(Vec::new(), level), body, ZlibEncoder::into_inner),
        ),
        (
            "deflate",
            packed(
                &runtime,
                DeflateEncoder::with_quality(Vec::new(), level),
                body,
                DeflateEncoder::into_inner,
            ),
        ),
        (
            "br",
            packed(&runtime, BrotliEncoder::with_quality(Vec::new(), level), body, BrotliEncoder::into_inner),
        ),
        (
            "zstd",
            packed(&runtime, ZstdEncoder::with_quality(Vec::new(), level), body, ZstdEncoder::into_inner),
        ),
    ]
}

#[test]
fn a_call_says_who_calls_and_what_it_understands() {
    let (home, server) = (Home::new(), Server::new([ok()]));
    server.run(&home, &["--contact", "me@example.org"]).with(0);
    server.run(&home, &["--user-agent", "mine/2 (me@example.org)", "--no-compression"]).with(0);
    let header =
        |number: usize, name: &str| server.calls()[number].headers[name].to_str().unwrap().to_owned();
    let agent = header(0, "user-agent");
    assert!(
        agent.starts_with("polisen-events-collector/") && agent.ends_with(" (me@example.org)"),
        "{agent}"
    );
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        assert!(header(0, "accept-encoding").contains(encoding));
    }
    assert_eq!(header(1, "user-agent"), "mine/2 (me@example.org)");
    assert_eq!(header(1, "accept-encoding"), "identity");
}

#[test]
fn every_encoding_brings_the_same_events_and_its_bytes_are_counted() {
    for (encoding, body) in encodings(&sent()) {
        let size = body.len();
        let answer =
            status(200).set_body_raw(body, "application/json").insert_header("content-encoding", encoding);
        let (home, server) = (Home::new(), Server::new([answer]));
        let report = server.run(&home, &[]).with(0).json();
        assert_eq!(report["counts"]["new_events_count"], 500, "{encoding}");
        assert_eq!(report["counts"]["api_response_bytes"], sent().len());
        assert_eq!(report["http"]["wire_bytes"], size);
        assert_eq!(report["http"]["encoding"], encoding);
        assert_eq!((&report["http"]["attempts"], &report["http"]["status"]), (&1.into(), &200.into()));
        for phase in ["api_fetch", "api_connect", "api_first_byte", "api_body"] {
            assert!(report["timings"][phase].is_number(), "{phase}");
        }
    }
}

#[test]
fn a_bomb_is_cut_off_whatever_it_is_packed_with() {
    let zeros = vec![b' '; 65 * 1024 * 1024];
    for (encoding, body) in encodings(&zeros) {
        assert!(body.len() < 1024 * 1024);
        let answer =
            status(200).set_body_raw(body, "application/json").insert_header("content-encoding", encoding);
        let (home, server) = (Home::new(), Server::new([answer]));
        let ended = server.run(&home, &[]).with(1);
        assert!(ended.error_line().contains("more than 64 MiB"), "{encoding}: {}", ended.stderr);
        assert_eq!(server.calls().len(), 1, "it is not fetched again");
    }
}

#[test]
fn what_may_pass_is_tried_again_and_each_time_said_why() {
    for code in [429, 500, 502, 503, 504] {
        let (home, server) = (Home::new(), Server::new([status(code), status(code), status(code), ok()]));
        let ended = server.run(&home, &["--log-format", "json"]).with(0);
        assert_eq!(ended.json()["http"]["attempts"], 4);
        let causes: Vec<Value> = ended
            .stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &Value| line["cause"].is_string())
            .collect();
        assert_eq!(causes.len(), 3, "{}", ended.stderr);
        assert!(causes[0]["cause"].as_str().unwrap().contains(&code.to_string()));
        assert_eq!(home.lines("events").len(), 500);
    }
}

#[test]
fn a_body_that_ends_early_is_fetched_again() {
    // Not a mock server: those send what they promise.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let body = sent();
        for part in [body.len() / 2, 0, body.len()] {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = std::io::Read::read(&mut connection, &mut request).unwrap();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            connection.write_all(head.as_bytes()).unwrap();
            connection.write_all(&body[..part]).unwrap();
        }
    });
    let home = Home::new();
    let url = format!("http://127.0.0.1:{port}/");
    let ended = home.collector(&["run", "--json", "--retry-backoff", "1ms", "--feed", &url]).with(0);
    assert_eq!(ended.json()["http"]["attempts"], 3);
    assert_eq!(ended.stderr.matches("ended early").count(), 2, "{}", ended.stderr);
    server.join().unwrap();
}

#[test]
fn what_cannot_pass_is_not_tried_again() {
    for code in [204, 301, 400, 401, 403, 404, 410, 501] {
        let (home, server) = (Home::new(), Server::new([status(code)]));
        let ended = server.run(&home, &[]).with(1);
        assert!(ended.error_line().contains(&format!("HTTP {code}")), "{}", ended.stderr);
        assert_eq!(server.calls().len(), 1, "{code}");
        assert_eq!(ended.json()["status"], "failed");
        assert_eq!((&home.health()["status"], home.store().len()), (&"failed".into(), 0));
        assert_eq!(home.records()[0]["errors"][0]["type"], "http_status");
    }
}

#[test]
fn after_a_404_nothing_is_called_until_somebody_says_so() {
    let (home, server) = (Home::new(), Server::new([status(404), ok()]));
    server.run(&home, &[]).with(1);
    for _ in 0..2 {
        let ended = server.run(&home, &[]).with(1);
        assert!(ended.error_line().contains("--force"), "{}", ended.stderr);
    }
    assert_eq!(server.calls().len(), 1);
    // Health fails at once, with the command that ends it.
    let health = home.collector(&["health"]).with(1).stdout;
    let state = home.path(".local/state/polisen-events-collector");
    let command = format!("`collector run --force --state-dir {}`", state.display());
    assert!(health.contains("HTTP 404") && health.contains(&command), "{health}");
    let since = home.health()["feed_gone"]["since"].clone();
    assert!(since.as_str().unwrap().parse::<DateTime<Utc>>().is_ok(), "{since}");
    server.run(&home, &["--prometheus-file", "c.prom"]).with(1);
    let metric = || {
        let text = std::fs::read_to_string(home.path("c.prom")).unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix("polisen_collector_feed_gone_timestamp_seconds "));
        line.unwrap().parse::<f64>().unwrap()
    };
    assert!(metric() > 1.7e9);
    server.run(&home, &["--force", "--prometheus-file", "c.prom"]).with(0);
    assert!(metric() == 0.0);
    home.collector(&["health"]).with(0);
    server.run(&home, &[]).with(0);
    assert_eq!(server.calls().len(), 3);
}

#[test]
fn limits_count_the_calls_of_all_processes() {
    let (home, server) = (Home::new(), Server::new([ok()]));
    let limit = ["--max-calls-per-hour", "2", "--state-dir", "state"];
    server.run(&home, &limit).with(0);
    server.run(&home, &limit).with(0);
    let ended = server.run(&home, &limit).with(1);
    assert!(ended.error_line().contains("2 calls an hour"), "{}", ended.stderr);
    assert_eq!(server.calls().len(), 2);
    assert_eq!(home.health()["status"], "failed");
}

#[test]
fn redirects_are_followed_on_this_machine_only() {
    let target = Server::new([ok()]);
    let (home, server) = (Home::new(), Server::new([status(302).insert_header("location", target.url())]));
    server.run(&home, &[]).with(0);
    for elsewhere in ["http://example.invalid/", "https://example.invalid/", "ftp://127.0.0.1/", "/again"] {
        let server = Server::new([status(307).insert_header("location", elsewhere)]);
        let ended = server.run(&home, &[]).with(1);
        assert!(ended.error_line().contains("redirect"), "{elsewhere}: {}", ended.stderr);
    }
}

/// Fetches in virtual time: the result, and how long was waited.
fn fetch(server: &Server, change: impl FnOnce(&mut FeedOptions)) -> (Result<usize, FeedError>, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let mut options = FeedOptions::new(folder.path());
    change(&mut options);
    let start: DateTime<Utc> = DateTime::from_timestamp(1_767_362_400, 0).unwrap();
    let clock = Arc::new(VirtualClock::at(start));
    let feed = Feed::new(&Source::parse(&server.url()).unwrap(), options, clock.clone()).unwrap();
    let fetched = server.runtime.block_on(feed.fetch());
    (fetched.map(|fetched| fetched.body.len()).map_err(|failure| failure.error), clock.elapsed())
}

#[test]
fn the_waits_are_one_two_and_four_seconds() {
    let (result, waited) = fetch(&Server::new([status(500), status(500), status(500), ok()]), |_| {});
    assert_eq!((result.unwrap(), waited), (sent().len(), Duration::from_secs(1 + 2 + 4)));
    let (result, waited) = fetch(&Server::new([status(500)]), |_| {});
    assert!(matches!(result, Err(FeedError::Status { status: 500, .. })));
    assert_eq!(waited, Duration::from_secs(7));
}

#[test]
fn a_server_that_says_when_to_come_back_is_obeyed_up_to_a_minute() {
    let later = |value: &str| status(503).insert_header("retry-after", value);
    for (value, seconds) in [("17", 17), ("0", 1), ("60", 60), ("Fri, 02 Jan 2026 14:00:42 GMT", 42)] {
        let (result, waited) = fetch(&Server::new([later(value), ok()]), |_| {});
        assert!(result.is_ok(), "{value}");
        assert_eq!(waited, Duration::from_secs(seconds), "{value}");
    }
    for value in ["61", "86400", "Sat, 03 Jan 2026 14:00:00 GMT"] {
        let server = Server::new([later(value), ok()]);
        let (result, waited) = fetch(&server, |_| {});
        assert!(matches!(result, Err(FeedError::Status { status: 503, .. })), "{value}");
        assert_eq!((waited, server.calls().len()), (Duration::ZERO, 1), "{value}");
    }
}

#[test]
fn retries_keep_the_limits_too() {
    let apart = CallLimits { min_interval: Duration::from_secs(10), ..CallLimits::NONE };
    let (result, waited) =
        fetch(&Server::new([status(500), status(500), ok()]), |options| options.limits = apart);
    assert!(result.is_ok());
    assert_eq!(waited, Duration::from_secs(20));
}
