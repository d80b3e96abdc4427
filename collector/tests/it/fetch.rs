//! `collector fetch` against a feed on this machine that filters as the provider's page says, and not quite exactly.

use std::collections::HashMap;
use std::sync::Arc;

use collector::cache::{Cache, CacheOptions};
use collector::clock::SystemClock;
use collector::feed::{Feed, FeedOptions, Selection, Source};
use collector::fetch::select;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use crate::support::{Ended, Home, fixture};

/// What the feed shows, and its filters. With each filtered answer comes an event that ended asked for.
struct Filtering(Vec<Value>);

fn events() -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(fixture("response.json")).unwrap()).unwrap()
}

fn text<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event.pointer(pointer).and_then(Value::as_str).unwrap()
}

/// `2026-01-02 09`, whatever the feed writes for nine o'clock.
fn hour(event: &Value) -> String {
    let (day, time) = text(event, "/datetime").split_once(' ').unwrap();
    format!("{day} {:0>2}", time.split(':').next().unwrap())
}

impl Respond for Filtering {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let asked: HashMap<String, String> = request.url.query_pairs().into_owned().collect();
        if asked.get("type").is_some_and(|wanted| wanted == "Fel") {
            return ResponseTemplate::new(400);
        }
        let is = |name: &str, fits: &dyn Fn(&str) -> bool| asked.get(name).is_none_or(|wanted| fits(wanted));
        let mut found: Vec<&Value> = self
            .0
            .iter()
            .filter(|event| {
                is("DateTime", &|wanted| hour(event).starts_with(wanted))
                    && is("locationname", &|wanted| {
                        wanted.split(';').any(|it| it == text(event, "/location/name"))
                    })
                    && is("type", &|wanted| wanted.split(';').any(|it| it == text(event, "/type")))
            })
            .collect();
        if !asked.is_empty() {
            found.extend(self.0.iter().find(|event| !found.contains(event)));
        }
        ResponseTemplate::new(200).set_body_raw(json!(found).to_string(), "application/json")
    }
}

struct Server {
    runtime: Runtime,
    inner: MockServer,
}

impl Server {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let inner = runtime.block_on(async {
            let server = MockServer::start().await;
            Mock::given(any()).respond_with(Filtering(events())).mount(&server).await;
            server
        });
        Self { runtime, inner }
    }

    fn url(&self) -> String {
        format!("{}/api/events", self.inner.uri())
    }

    /// The queries of all calls.
    fn calls(&self) -> Vec<String> {
        let calls = self.runtime.block_on(self.inner.received_requests()).unwrap();
        calls.iter().map(|call| call.url.query().unwrap_or_default().to_owned()).collect()
    }

    fn fetch(&self, home: &Home, arguments: &[&str]) -> Ended {
        home.collector(&[&["fetch", "--retries", "0", "--feed", &self.url()], arguments].concat())
    }
}

fn printed(ended: &Ended) -> Vec<Value> {
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Options, and which events they ask for.
type Case<'a> = (Vec<&'a str>, Box<dyn Fn(&Value) -> bool + 'a>);

#[test]
fn the_filter_goes_to_the_feed_and_what_comes_is_checked() {
    let (server, home, all) = (Server::new(), Home::new(), events());
    let sample = &all[200];
    let (kind, place) = (text(sample, "/type"), text(sample, "/location/name"));
    let (day, hour_of) = (&text(sample, "/datetime")[..10], hour(sample));
    let by_hand = |wanted: &dyn Fn(&Value) -> bool| -> Vec<Value> {
        all.iter().filter(|event| wanted(event)).cloned().collect()
    };
    let cases: Vec<Case<'_>> = vec![
        (vec![], Box::new(|_| true)),
        (vec!["--type", kind], Box::new(|it| text(it, "/type") == kind)),
        (
            vec!["--type", kind, "--type", "Brand"],
            Box::new(|it| [kind, "Brand"].contains(&text(it, "/type"))),
        ),
        (vec!["--location", place], Box::new(|it| text(it, "/location/name") == place)),
        (vec!["--date", day], Box::new(|it| text(it, "/datetime").starts_with(day))),
        (vec!["--date", &day[..7]], Box::new(|it| text(it, "/datetime").starts_with(&day[..7]))),
        (vec!["--date", &hour_of], Box::new(|it| hour(it) == hour_of)),
        (
            vec!["--date", day, "--type", kind],
            Box::new(|it| text(it, "/datetime").starts_with(day) && text(it, "/type") == kind),
        ),
    ];
    for (arguments, wanted) in cases {
        let ended =
            server.fetch(&home, &[&["--format", "jsonl", "--explain"], &arguments[..]].concat()).with(0);
        let expected = by_hand(&*wanted);
        assert!(!expected.is_empty());
        assert_eq!(printed(&ended), expected, "{arguments:?}");
        let cost: Value = serde_json::from_str(ended.stderr.lines().last().unwrap()).unwrap();
        let stray = u64::from(!arguments.is_empty() && expected.len() < all.len());
        assert_eq!(cost["explain"]["not_asked_for"], stray, "{arguments:?}");
        assert_eq!(cost["explain"]["calls"], 1);
    }
    let calls = server.calls();
    assert_eq!(calls.len(), 8);
    assert!(calls[2].starts_with("type=") && calls[2].ends_with("%3BBrand"), "{calls:?}");
    assert_eq!(calls[6], format!("DateTime={}", hour_of.replace(' ', "%20")));
}

#[test]
fn several_times_are_several_calls_and_each_event_is_told_once() {
    let (server, home, all) = (Server::new(), Home::new(), events());
    let day = &text(&all[200], "/datetime")[..10];
    let ended = server
        .fetch(&home, &["--date", &day[..7], "--date", day, "--date", day, "--format", "jsonl"])
        .with(0);
    let month = all.iter().filter(|it| text(it, "/datetime").starts_with(&day[..7])).count();
    assert_eq!(printed(&ended).len(), month);
    assert_eq!(server.calls().len(), 2, "equal ones are one call");
    let counted =
        server.fetch(&home, &["--date", day, "--count-by", "day", "--format", "csv"]).with(0).stdout;
    assert!(counted.contains(day), "{counted}");
    let limited = server.fetch(&home, &["--limit", "3", "--fields", "id", "--format", "csv"]).with(0).stdout;
    assert_eq!(limited.lines().count(), 4);
}

#[test]
fn the_same_again_within_its_time_asks_nobody() {
    let (server, home) = (Server::new(), Home::new());
    let first = server.fetch(&home, &["--type", "Brand"]).with(0).stdout;
    for _ in 0..9 {
        assert_eq!(server.fetch(&home, &["--type", "Brand"]).with(0).stdout, first);
    }
    assert_eq!(server.calls().len(), 1);
    let url = server.url();
    let stats = home.collector(&["cache", "stats", "--feed", &url, "--json"]).with(0).json();
    assert_eq!((&stats[0]["kept"], &stats[1]["hit_rate"]), (&Value::Null, &json!(0.9)));
    assert_eq!(stats[1]["kept"]["entries"], 1);
    server.fetch(&home, &["--type", "Brand", "--no-cache"]).with(0);
    server.fetch(&home, &["--type", "Brand", "--cache-ttl", "0s"]).with(0);
    assert_eq!(server.calls().len(), 3);
    let cleared = home.collector(&["cache", "clear", "--feed", &url]).with(0).stdout;
    assert!(cleared.contains("1 entry ") && cleared.contains("removed"), "{cleared}");
    server.fetch(&home, &["--type", "Brand"]).with(0);
    assert_eq!(server.calls().len(), 4);
}

#[test]
fn a_hundred_equal_requests_at_once_are_one_call() {
    let (server, home) = (Server::new(), Home::new());
    let clock = Arc::new(SystemClock::default());
    let source = Source::parse(&server.url()).unwrap();
    let options = FeedOptions { retries: 0, ..FeedOptions::new(home.path("state")) };
    let found = server.runtime.block_on(async {
        let feed = Feed::new(&source, options, clock.clone()).unwrap();
        let cache = Cache::new(CacheOptions::default(), clock);
        let wanted = [Selection { types: vec!["Brand".to_owned()], ..Selection::default() }];
        join_all((0..100).map(|_| select(&feed, &wanted, 4, Some(&cache), |_| ()))).await
    });
    assert!(found.iter().all(|it| it.failures.is_empty() && it.events == found[0].events));
    assert!(!found[0].events.is_empty());
    assert_eq!(found.iter().map(|it| it.cost.calls).sum::<u32>(), 1);
    assert_eq!(server.calls().len(), 1);
}

#[test]
fn selection_that_fails_is_reported_and_the_others_are_printed() {
    let (server, home) = (Server::new(), Home::new());
    let ended = server.fetch(&home, &["--type", "Fel"]).with(1);
    assert!(
        ended.error_line().contains("Fel cannot be read: the feed answered HTTP 400"),
        "{}",
        ended.stderr
    );
    let ended = home.collector(&["fetch", "--feed", "http://127.0.0.1:1/", "--retries", "0"]).with(1);
    assert!(ended.error_line().contains("cannot connect"), "{}", ended.stderr);
    let page = home.write("page.json", "<html></html>");
    home.collector(&["fetch", "--feed", page.to_str().unwrap()]).with(1).error_line();
    for wrong in [&["--date", "2026"][..], &["--date", "2026-02-30"], &["--type", "a;b"], &["--location", ""]]
    {
        server.fetch(&home, wrong).with(2).error_line();
    }
    assert_eq!(server.calls().len(), 1);
}

#[test]
fn a_recorded_response_is_looked_through_here() {
    let (home, all) = (Home::new(), events());
    let file = fixture("response.json");
    let arguments = ["fetch", "--feed", file.to_str().unwrap(), "--type", "Brand", "--format", "jsonl"];
    let expected: Vec<&Value> = all.iter().filter(|it| text(it, "/type") == "Brand").collect();
    assert_eq!(printed(&home.collector(&arguments).with(0)).iter().collect::<Vec<_>>(), expected);
}
