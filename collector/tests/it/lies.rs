//! A store whose answers are not the store's own, or not whole: a run fails, nothing is stored twice, nothing is lost.

mod server;

use std::sync::Arc;

use crate::support::{Home, fixture};
use server::{Answer, Api, Lie, LyingStore, Request};

const LEDGER: &str = "metadata/last_seen.json";
const PORTAL: &str =
    "<!DOCTYPE html><html><head><title>Log in</title></head><body>Log in first</body></html>";

const HTML: &str = "<html><body>Log in</body></html>";

fn lie(change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) -> Lie {
    Arc::new(change)
}

/// Changes the pages of listings.
fn listing(change: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Lie {
    lie(move |request, answer| if request.is_listing() { change(answer) } else { answer })
}

/// Changes the text of the pages.
fn text(change: impl Fn(String) -> String + Send + Sync + 'static) -> Lie {
    listing(move |answer| Answer { body: change(answer.text()).into(), ..answer })
}

fn page(status: u16) -> Answer {
    Answer::new(status, "text/html", PORTAL)
        .with("etag", "\"portal\"")
        .with("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
}

/// A run stores 500 events. While the store lies, the commands fail and give the reason; afterwards a run stores what is new.
fn is_refused(api: Api, commands: &[&str], forget: &[&str], lie: &Lie, reason: &str) {
    let (home, store) = (Home::new(), LyingStore::start(api));
    store.collector(&home, &["run", "--feed", fixture("response.json").to_str().unwrap()]).with(0);
    assert_eq!(store.event_lines(), 500);
    let forgotten: Vec<_> = forget.iter().map(|&key| (key, store.object(key).unwrap())).collect();
    for (key, _) in &forgotten {
        store.remove(key);
    }
    store.lie(lie);
    let before = store.keys();
    let next = fixture("response-next.json");
    let run = ["run", "--feed", next.to_str().unwrap()];
    for &command in commands {
        let ended =
            if command == "run" { store.collector(&home, &run) } else { store.collector(&home, &[command]) };
        assert_eq!(ended.code, Some(1), "{api:?} {command:?} {reason}: {}", ended.stderr);
        assert!(ended.stderr.contains(reason), "{api:?} {command:?}, not {reason}: {}", ended.stderr);
    }
    assert_eq!(store.keys(), before, "{api:?} {reason}: nothing is written");
    store.be_honest();
    store.collector(&home, &run).with(0);
    let findings = store.collector(&home, &["verify", "--json"]).with(0).json();
    assert_eq!((&findings["events"], &findings["duplicates"]), (&514.into(), &0.into()), "{findings}");
}

/// The same for lies about listings, with no ledger, so that the run depends on the listing.
fn listing_is_refused(api: Api, lie: &Lie, reason: &str) {
    is_refused(api, &["run", "query", "verify"], &[LEDGER], lie, reason);
}

#[test]
fn pages_of_portals_are_not_empty_listings() {
    for (api, reason) in [(Api::S3, "its root element is <html>"), (Api::Oci, "the listing is not a listing")]
    {
        listing_is_refused(api, &listing(|_| Answer::new(200, "text/html", HTML)), reason);
        let disguised = listing(|answer| Answer { body: HTML.into(), ..answer });
        listing_is_refused(api, &disguised, reason);
        listing_is_refused(api, &listing(|_| page(200)), "the listing is not a listing");
        let redirect =
            listing(|_| Answer::new(302, "text/html", "").with("location", "http://127.0.0.1:9/login"));
        listing_is_refused(api, &redirect, "redirected");
        listing_is_refused(api, &listing(|_| page(203)), "HTTP 203");
        listing_is_refused(api, &listing(|_| page(404)), "HTML page");
        listing_is_refused(api, &listing(|_| Answer { status: 204, ..Answer::default() }), "HTTP 204");
        listing_is_refused(api, &text(|_| String::new()), "the listing is not");
    }
}

#[test]
fn damaged_listings_of_s3_are_refused() {
    let cases: [(Lie, &str); 7] = [
        (text(|text| text[..text.len() / 2].to_owned()), "the listing is not"),
        (text(|text| text.replace("ListBucketResult", "ListAllMyBucketsResult")), "its root element is"),
        (text(|text| text.replace("<IsTruncated>false</IsTruncated>", "")), "IsTruncated"),
        (
            text(|text| text.replace("<IsTruncated>false", "<IsTruncated>true")),
            "does not state how it continues",
        ),
        (text(|text| text.replace("Contents>", "Content>")), "KeyCount"),
        (text(|text| text.replace("Size>", "Bytes>")), "without Key or Size"),
        (text(|text| text.replace("<Prefix>archive/", "<Prefix>other/")), "another Prefix"),
    ];
    for (lie, reason) in &cases {
        listing_is_refused(Api::S3, lie, reason);
    }
}

#[test]
fn damaged_listings_of_object_storage_are_refused() {
    let cases: [Lie; 6] = [
        text(|text| text[..text.len() / 2].to_owned()),
        text(|text| text.replace("objects", "items")),
        text(|text| text.replace("\"name\"", "\"title\"")),
        text(|text| text.replace("\"size\"", "\"bytes\"")),
        text(|_| "{}".to_owned()),
        text(|_| "[]".to_owned()),
    ];
    for lie in &cases {
        listing_is_refused(Api::Oci, lie, "the listing is not a listing");
    }
}

#[test]
fn listings_that_contradict_themselves_are_refused() {
    for api in [Api::S3, Api::Oci] {
        let elsewhere = text(|text| text.replace("archive/events/2026", "archive/revisions/2026"));
        listing_is_refused(api, &elsewhere, "does not begin with");
        let outside = text(|text| {
            text.replace(">archive/events/2026", ">other/events/2026")
                .replace("\"archive/events/2026", "\"other/events/2026")
        });
        listing_is_refused(api, &outside, "does not begin with");
        // The years change places, and with them the order.
        let disorder = text(|text| text.replacen("events/2026/", "events/2027/", 1));
        listing_is_refused(api, &disorder, "not in order");
        let longer = listing(|answer| Answer { stated_length: Some(answer.body.len() + 10), ..answer });
        listing_is_refused(api, &longer, "");
        let shorter = listing(|answer| Answer { stated_length: Some(answer.body.len() / 2), ..answer });
        listing_is_refused(api, &shorter, "the listing is not");
        let endless = listing(|answer| {
            let stated_length = Some(usize::MAX / 2);
            Answer { body: vec![b' '; 17 * 1024 * 1024], stated_length, ..answer }
        });
        listing_is_refused(api, &endless, "larger than 16777216 bytes");
    }
}

#[test]
fn a_page_that_is_repeated_ends() {
    for api in [Api::S3, Api::Oci] {
        let again = lie(|request, answer| {
            let is_first =
                !request.query.contains_key("start") && !request.query.contains_key("continuation-token");
            if !request.is_listing() || !is_first {
                return answer;
            }
            let text = answer.text();
            let text = text.replace("\"nextStartWith\":null", "\"nextStartWith\":\"archive/\"").replace(
                "<IsTruncated>false</IsTruncated>",
                "<IsTruncated>true</IsTruncated><NextContinuationToken>archive/</NextContinuationToken>",
            );
            Answer { body: text.into(), ..answer }
        });
        listing_is_refused(api, &again, "repeats a page");
    }
}

/// Lies about one object of the events, or about the ledger.
fn read_of(part: &'static str, change: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Lie {
    lie(move |request, answer| if request.is_read_of(part) { change(answer) } else { answer })
}

#[test]
fn a_ledger_that_cannot_be_read_is_not_a_missing_ledger() {
    for api in [Api::S3, Api::Oci] {
        let refused = |change: fn(Answer) -> Answer, reason| {
            is_refused(api, &["run", "verify"], &[], &read_of(LEDGER, change), reason);
        };
        refused(|_| page(200), "HTML page");
        refused(
            |_| Answer { body: PORTAL.into(), ..page(200).with("content-type", "application/json") },
            "HTML page",
        );
        refused(|_| page(404), "HTML page");
        refused(|_| Answer::new(404, "text/plain", "no such host"), "without an error code");
        refused(|_| Answer::new(404, "text/plain", ""), "without an error code");
        refused(|_| page(403), "403");
        refused(|_| page(302).with("location", "/login"), "redirected");
        refused(|_| Answer { status: 204, ..Answer::default() }, "HTTP 204");
        refused(|answer| answer.with("content-encoding", "gzip"), "encoded as `gzip`");
        refused(|answer| Answer { headers: Vec::new(), ..answer }, "tag");
        let endless =
            |answer| Answer { body: vec![b' '; 129 << 20], stated_length: Some(usize::MAX / 2), ..answer };
        refused(endless, "larger than 134217728 bytes");
    }
}

#[test]
fn objects_that_cannot_be_read_are_not_empty() {
    for api in [Api::S3, Api::Oci] {
        let refused = |change: fn(Answer) -> Answer, reason| {
            let commands = ["run", "query", "verify"];
            is_refused(api, &commands, &[LEDGER], &read_of("/events/", change), reason);
        };
        refused(|_| page(200), "HTML page");
        refused(|_| page(404), "HTML page");
    }
    let altered = |answer: Answer| answer.with("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==");
    is_refused(
        Api::Oci,
        &["run", "query", "verify"],
        &[LEDGER],
        &read_of("/events/", altered),
        "content-md5",
    );
}

#[test]
fn a_write_that_a_portal_accepts_is_not_durable() {
    for api in [Api::S3, Api::Oci] {
        for etag in [true, false] {
            let (home, store) = (Home::new(), LyingStore::start(api));
            let feed = fixture("response.json");
            let run = ["run", "--feed", feed.to_str().unwrap()];
            store.collector(&home, &run).with(0);
            let next = fixture("response-next.json");
            let next = ["run", "--feed", next.to_str().unwrap()];
            // The store never sees these writes.
            let swallowed = lie(move |request, answer| match request.method.as_str() {
                "PUT" if etag => page(200),
                "PUT" => Answer { status: 200, ..Answer::default() },
                _ => answer,
            });
            store.swallow_writes(true);
            store.lie(&swallowed);
            let ended = store.collector(&home, &next).with(1);
            assert!(!ended.stderr.is_empty());
            store.swallow_writes(false);
            store.be_honest();
            let before = store.event_lines();
            assert_eq!(before, 500);
            store.collector(&home, &next).with(0);
            let findings = store.collector(&home, &["verify", "--json"]).with(0).json();
            assert_eq!(
                (&findings["events"], &findings["duplicates"]),
                (&514.into(), &0.into()),
                "{findings}"
            );
        }
    }
}

#[test]
fn foreign_objects_are_named_and_stop_nothing() {
    for api in [Api::S3, Api::Oci] {
        let (home, store) = (Home::new(), LyingStore::start(api));
        store.set_page(3);
        let feed = fixture("response.json");
        let run = ["run", "--feed", feed.to_str().unwrap()];
        store.collector(&home, &run).with(0);
        let foreign = [
            "events/2026/01/02/a b.jsonl",
            "events/2026/01/02/.hidden",
            "events/2026/01/02//x",
            "events/2026/01/02/",
            "events/2026/01/02/<&>\u{1b}[31m\u{202e}\r\n.jsonl",
            "events/2026/01/02/events-1767362400.jsonl ",
            "events/2026/01/02/å\u{1f600}",
            "events/notes.txt",
        ];
        for name in foreign {
            store.put(name, b"not an event\n");
        }
        store.remove(LEDGER);
        let next = fixture("response-next.json");
        let ended = store.collector(&home, &["run", "--feed", next.to_str().unwrap()]).with(0);
        assert!(ended.stderr.contains("foreign names are skipped"), "{}", ended.stderr);
        let found = store.collector(&home, &["query", "--format", "jsonl"]).with(0);
        assert_eq!(found.stdout.lines().count(), 514);
        let findings = store.collector(&home, &["verify", "--json"]).with(1);
        let text = &findings.stdout;
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\r']), "{text}");
        for part in ["a b.jsonl", ".hidden", "//x", "02/\"", "<&>", "jsonl \"", "notes.txt"] {
            assert!(text.contains(part), "{api:?} {part}: {text}");
        }
        let findings = findings.json();
        assert_eq!((&findings["events"], &findings["duplicates"]), (&514.into(), &0.into()), "{findings}");
        for name in foreign {
            assert_eq!(store.object(name).as_deref(), Some(&b"not an event\n"[..]), "{name}");
        }
    }
}

/// The trials that a run has made.
fn trials(store: &LyingStore) -> usize {
    let is_trial = |request: &&String| request.starts_with("DELETE archive/metadata/trial-");
    store.requests().iter().filter(is_trial).count()
}

#[test]
fn conditions_are_proven_again_for_another_server() {
    for api in [Api::S3, Api::Oci] {
        let (home, store) = (Home::new(), LyingStore::start(api));
        let run = |name: &str| {
            store.collector(&home, &["run", "--feed", fixture(name).to_str().unwrap()]).with(0);
            trials(&store)
        };
        assert_eq!((run("response.json"), run("response.json")), (1, 0), "{api:?}");
        store.lie(&lie(|_, answer| answer.with("server", "Other/2")));
        assert_eq!((run("response-next.json"), run("response-next.json")), (1, 0), "{api:?}");
        let ledger = String::from_utf8(store.object(LEDGER).unwrap()).unwrap();
        assert!(ledger.contains("(Other/2), collector "), "{ledger}");
    }
}

#[test]
fn a_store_whose_listing_lags_is_not_trusted() {
    for api in [Api::S3, Api::Oci] {
        let (home, store) = (Home::new(), LyingStore::start(api));
        store.lie(&text(|text| text.replace("/trial-1", "/trial-0")));
        let ended =
            store.collector(&home, &["run", "--feed", fixture("response.json").to_str().unwrap()]).with(1);
        assert!(ended.stderr.contains("its listing does not show"), "{}", ended.stderr);
        assert_eq!(store.keys(), [""; 0]);
    }
}

#[test]
fn trial_objects_that_were_left_behind_are_deleted() {
    for api in [Api::S3, Api::Oci] {
        let (home, store) = (Home::new(), LyingStore::start(api));
        store.put("metadata/trial-1000000000000000000-7", b"1");
        store.collector(&home, &["run", "--feed", fixture("response.json").to_str().unwrap()]).with(0);
        assert!(!store.keys().iter().any(|key| key.contains("trial")), "{:?}", store.keys());
    }
}

#[test]
fn a_clock_that_disagrees_with_the_store_is_warned_about() {
    for api in [Api::S3, Api::Oci] {
        let (home, store) = (Home::new(), LyingStore::start(api));
        store.lie(&lie(|_, answer| answer.with("date", "Thu, 01 Jan 2026 00:00:00 GMT")));
        let ended =
            store.collector(&home, &["run", "--feed", fixture("response.json").to_str().unwrap()]).with(0);
        let warnings = ended.stderr.matches("clocks of this machine and of the store disagree").count();
        assert_eq!(warnings, 1, "{}", ended.stderr);
    }
}

#[test]
fn texts_of_servers_are_escaped() {
    for api in [Api::S3, Api::Oci] {
        let (home, store) = (Home::new(), LyingStore::start(api));
        let evil = match api {
            Api::S3 => {
                "<Error><Code>Access\u{1b}[31mDenied</Code><Message>no\nerror: forged \u{202e}</Message></Error>"
            }
            Api::Oci => r#"{"code":"Access\u001b[31mDenied","message":"no\nerror: forged \u202e"}"#,
        };
        store.lie(&lie(move |_, _| Answer::new(403, "text/plain", evil)));
        let ended = store.collector(&home, &["verify"]).with(1);
        assert!(ended.error_line().contains("forged"), "{}", ended.stderr);
        assert!(!ended.stderr.contains(['\u{1b}', '\u{202e}']), "{:?}", ended.stderr);
    }
}
