//! Traces: what is sent whereto, and what becomes of a run when it cannot be.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;

use serde_json::Value;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{Ended, Home, fixture};

const SECRET: &str = "s3cr3t-of-the-backend";

/// Spans by their names, as a backend received them, and the name of the service.
async fn received(backend: &MockServer) -> (BTreeMap<String, Value>, String) {
    let mut spans = BTreeMap::new();
    let mut service = String::new();
    for request in backend.received_requests().await.unwrap() {
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        for resource in sent["resourceSpans"].as_array().unwrap() {
            attribute(&resource["resource"], "service.name").as_str().unwrap().clone_into(&mut service);
            for scope in resource["scopeSpans"].as_array().unwrap() {
                for span in scope["spans"].as_array().unwrap() {
                    spans.insert(span["name"].as_str().unwrap().to_owned(), span.clone());
                }
            }
        }
    }
    (spans, service)
}

/// An attribute's value, whatever its type; numbers are strings in OTLP's JSON.
fn attribute(of: &Value, key: &str) -> Value {
    let all = of["attributes"].as_array().unwrap();
    let found = all.iter().find(|attribute| attribute["key"] == key);
    let value = found.unwrap_or_else(|| panic!("no {key}: {of}"))["value"].as_object().unwrap();
    value.values().next().unwrap().clone()
}

fn whole(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap()
}

/// Runs it with an endpoint for traces, apart from the test's own runtime.
async fn run(home: &Home, endpoint: &str, arguments: &[&str]) -> Ended {
    let mut command = home.command(&[&["run"], arguments].concat());
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
        .env("OTEL_EXPORTER_OTLP_HEADERS", format!("x-key={SECRET}"));
    tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
}

#[tokio::test]
async fn a_run_is_a_trace_of_its_steps_and_calls() {
    let backend = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/traces"))
        .and(header("x-key", SECRET))
        .respond_with(ResponseTemplate::new(200))
        .mount(&backend)
        .await;
    let feed = MockServer::start().await;
    let body = fs::read(fixture("response.json")).unwrap();
    Mock::given(path("/api/events"))
        .respond_with(ResponseTemplate::new(503))
        .up_to_n_times(1)
        .mount(&feed)
        .await;
    Mock::given(path("/api/events"))
        .respond_with(ResponseTemplate::new(200).set_body_bytes(body))
        .mount(&feed)
        .await;
    let home = Home::new();
    let url = format!("{}/api/events?token={SECRET}", feed.uri());
    let ended = run(&home, &backend.uri(), &["--feed", &url, "--contact", "me@example.org"]).await.with(0);
    assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);

    let (spans, service) = received(&backend).await;
    assert_eq!(service, "polisen-events-collector");
    let root = &spans["run"];
    assert_eq!(whole(&attribute(root, "new")), 500);
    assert!(root["parentSpanId"].as_str().is_none_or(str::is_empty));
    for (name, parent) in [
        ("fetch", "run"),
        ("GET", "fetch"),
        ("read_ledger", "run"),
        ("parse", "run"),
        ("deposit", "run"),
        ("deduplicate", "deposit"),
        ("claim", "deposit"),
        ("save", "deposit"),
        ("commit", "deposit"),
    ] {
        let span = spans.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", spans.keys()));
        assert_eq!(span["parentSpanId"], spans[parent]["spanId"], "{name} is no part of {parent}");
        assert_eq!(span["traceId"], root["traceId"]);
        let time = |end: &str| span[end].as_str().unwrap().parse::<u64>().unwrap();
        assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"));
    }
    // The call that was made again, as the conventions have it.
    let call = &spans["GET"];
    assert_eq!(whole(&attribute(call, "http.request.resend_count")), 1);
    assert_eq!(whole(&attribute(call, "http.response.status_code")), 200);
    assert_eq!(attribute(call, "url.path"), "/api/events");
    assert_eq!(call["kind"], 3, "a client's");
    for request in backend.received_requests().await.unwrap() {
        assert!(!String::from_utf8_lossy(&request.body).contains(SECRET));
    }
}

#[tokio::test]
async fn a_failed_run_is_a_failed_trace() {
    let backend = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&backend).await;
    let home = Home::new();
    let mut command = home.command(&["run", "--feed", "absent.json"]);
    command
        .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{}/here", backend.uri()))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
        .env("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine");
    let ended: Ended = tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap();
    ended.with(1);
    let (spans, service) = received(&backend).await;
    assert_eq!(service, "mine");
    assert_eq!(backend.received_requests().await.unwrap()[0].url.path(), "/here");
    assert_eq!(spans["run"]["status"]["code"], 2, "{}", spans["run"]);
    assert!(spans["run"]["status"]["message"].as_str().unwrap().contains("cannot read"));
    assert_eq!(attribute(&spans["run"], "error.type"), "read");
}

#[tokio::test]
async fn a_backend_that_is_away_fails_no_run_and_is_told_of() {
    // No server listens there.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", taken.local_addr().unwrap());
    drop(taken);
    let home = Home::new();
    let feed = fixture("response.json");
    let ended = run(&home, &endpoint, &["--feed", feed.to_str().unwrap()]).await.with(0);
    assert!(ended.stderr.contains("could be sent") || ended.stderr.contains("Export"), "{}", ended.stderr);
    assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
    assert_eq!(home.lines("events").len(), 500);
}

#[tokio::test]
async fn only_a_safe_address_is_sent_to_and_without_one_nothing_is() {
    let home = Home::new();
    let feed = fixture("response.json");
    let feed = ["--feed", feed.to_str().unwrap()];
    for wrong in ["http://example.org:4318", "ftp://127.0.0.1", "not an address"] {
        let ended = run(&home, wrong, &feed).await.with(2);
        assert!(ended.error_line().contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{}", ended.stderr);
    }
    assert!(home.objects().is_empty());
    run(&home, "", &feed).await.with(0);
}
