//! Reports to a monitor of scheduled tasks: when, where, and nothing of the secret in its address.

use std::net::TcpListener;

use wiremock::ResponseTemplate;

use crate::http::Server;
use crate::support::{Ended, Home, fixture};

const SECRET: &str = "5f0b2c1e-secret";

fn status(code: u16) -> ResponseTemplate {
    ResponseTemplate::new(code)
}

/// A run that reports to a monitor at this address.
fn run(home: &Home, feed: &str, monitor: &str) -> Ended {
    let ended = home.collector(&["run", "--feed", feed, "--heartbeat-url", monitor, "--log-level", "trace"]);
    assert!(!(ended.stderr.contains(SECRET) || ended.stdout.contains(SECRET)), "{}", ended.stderr);
    ended
}

fn monitor(server: &Server) -> String {
    server.url().replace("/api/events", &format!("/ping/{SECRET}"))
}

#[test]
fn settled_run_and_failed_run_are_reported() {
    let (home, server) = (Home::new(), Server::new([status(200)]));
    let feed = fixture("response.json");
    run(&home, feed.to_str().unwrap(), &monitor(&server)).with(0);
    run(&home, "absent.json", &monitor(&server)).with(1);
    let broken = home.write("empty.json", "[]");
    // The run itself succeeds, but an empty response is no evidence of health.
    run(&home, broken.to_str().unwrap(), &monitor(&server)).with(0);
    let paths: Vec<String> = server.calls().iter().map(|call| call.url.path().to_owned()).collect();
    let failed = format!("/ping/{SECRET}/fail");
    assert_eq!(paths, [format!("/ping/{SECRET}"), failed.clone(), failed]);
}

#[test]
fn monitor_that_refuses_or_redirects_or_is_away_does_not_fail_the_run() {
    let (home, feed) = (Home::new(), fixture("response.json"));
    let elsewhere = Server::new([status(200)]);
    let redirect = status(302).insert_header("location", monitor(&elsewhere));
    let server = Server::new([redirect, status(500)]);
    for code in ["302", "500"] {
        let ended = run(&home, feed.to_str().unwrap(), &monitor(&server)).with(0);
        assert!(
            ended.stderr.contains("the heartbeat was refused") && ended.stderr.contains(code),
            "{}",
            ended.stderr
        );
    }
    assert_eq!((server.calls().len(), elsewhere.calls().len()), (2, 0));
    let ended = run(&home, feed.to_str().unwrap(), &format!("http://127.0.0.1:1/{SECRET}")).with(0);
    assert!(ended.stderr.contains("the heartbeat could not be sent"), "{}", ended.stderr);
}

/// Takes as long as a report may take.
#[test]
fn silent_monitor_is_waited_for_no_longer_than_ten_seconds() {
    let (home, feed) = (Home::new(), fixture("response.json"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let monitor = format!("http://{}/{SECRET}", silent.local_addr().unwrap());
    let ended = run(&home, feed.to_str().unwrap(), &monitor).with(0);
    assert!(ended.stderr.contains("no answer within 10 s"), "{}", ended.stderr);
}

#[test]
fn secret_of_the_address_is_shown_nowhere() {
    let home = Home::new();
    let valid = format!("https://hc.example/{SECRET}");
    home.write("c.toml", format!("heartbeat_url = {valid:?}\n"));
    for json in [&["config", "--config", "c.toml"][..], &["config", "--config", "c.toml", "--json"]] {
        let shown = home.collector(json).with(0).stdout;
        assert!(shown.contains("https://hc.example/***") && !shown.contains(SECRET), "{shown}");
    }
    for wrong in [format!("http://hc.example/{SECRET}"), format!("{SECRET}:"), format!("hc.example/{SECRET}")]
    {
        let ended = home.collector(&["run", "--heartbeat-url", &wrong]).with(2);
        assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
    }
}
