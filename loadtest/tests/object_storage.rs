//! The collector's store for Object Storage against the simulated service: the suite that every store passes, and
//! authentication.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../collector/tests/it/stores/suite.rs"]
mod suite;
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{Archive, ArchiveError, ArchiveOptions, Outcome};
use collector::event::Response;
use collector::quantity::Quantity;
use collector::query::Query;
use collector::store::oci::BucketPath;
use collector::store::oci::key::PrivateKey;
use collector::store::{Key, OciStore, SharedStore, Store as _, Write};
use fixtures::{Feed, FeedConfig};
use loadtest::oci::{Account, Faults, Requests};
use support::{Impatient, Simulated};

#[tokio::test(flavor = "multi_thread")]
async fn object_storage_passes_the_suite() {
    let (simulated, stores) = (Simulated::start(Faults::none()).await, AtomicUsize::new(0));
    suite::run(|| simulated.store(&format!("store-{}", stores.fetch_add(1, Ordering::Relaxed)))).await;
}

#[tokio::test]
async fn listings_go_on_over_all_pages() {
    let simulated = Simulated::start(Faults::none()).await;
    let store = simulated.store("");
    let names: Vec<String> = (0..2_345).map(|number| format!("events/{number:05}")).collect();
    for name in &names {
        assert!(matches!(
            store.create(&Key::new(name.as_str()).unwrap(), b"x").await.unwrap(),
            Write::Done(_)
        ));
    }
    let listed = store.list("events/").await.unwrap();
    assert_eq!(listed.iter().map(|it| it.key.to_string()).collect::<Vec<_>>(), names);
    assert_eq!(simulated.service.requests().list, 3);
}

#[tokio::test]
async fn connections_are_used_again() {
    const PARALLEL: usize = 8;
    let simulated = Simulated::start(Faults::none()).await;
    let store = simulated.store("");
    for number in 0..300 {
        let key = Key::new(format!("events/2026/01/02/events-{number}.jsonl")).unwrap();
        let line = format!(r#"{{"id":{number},"datetime":"2026-01-02 9:38:09 +01:00"}}"#);
        let _ = store.create(&key, line.as_bytes()).await.unwrap();
    }
    assert_eq!(simulated.service.connections(), 1, "one after the other");
    let options = ArchiveOptions { parallel: PARALLEL, ..ArchiveOptions::default() };
    let archive = Archive::new(store, Arc::new(Impatient::default()), options);
    for _ in 0..3 {
        let mut answer = archive.query(&Query::default());
        let mut found = 0;
        while let Some(event) = answer.next().await {
            event.unwrap();
            found += 1;
        }
        assert_eq!((found, answer.cost().requests()), (300, 301));
        let connections = simulated.service.connections();
        assert!(connections <= PARALLEL as u64, "{connections} connections");
    }
}

/// What the bottleneck report shows of a bucket: each kind of call is counted and its phases are measured, and the connection
/// was opened once.
#[tokio::test]
async fn calls_of_the_store_are_measured_by_kind() {
    let simulated = Simulated::start(Faults::none()).await;
    let store = simulated.store("");
    let (key, bytes) = (Key::new("events/a").unwrap(), vec![b'x'; 300_000]);
    assert!(matches!(store.create(&key, &bytes).await.unwrap(), Write::Done(_)));
    assert_eq!(store.get(&key).await.unwrap().unwrap().bytes, bytes, "the body is sent whole");
    assert_eq!(store.list("events/").await.unwrap().len(), 1);
    let calls = store.take_calls();
    for (quantity, expected) in [
        (Quantity::StoreWriteCalls, 1),
        (Quantity::StoreReadCalls, 1),
        (Quantity::StoreListCalls, 1),
        (Quantity::StoreConnections, 1),
    ] {
        assert_eq!(calls.count(quantity), Some(expected), "{}", quantity.key());
    }
    let cold = [Quantity::StoreWriteConnect, Quantity::StoreWriteRequest, Quantity::StoreWriteFirstByte];
    let warm = [Quantity::StoreReadFirstByte, Quantity::StoreReadBody, Quantity::StoreListFirstByte];
    for phase in [cold, warm].concat() {
        assert!(calls.get(phase).is_some(), "{} is missing", phase.key());
    }
    // No name to resolve and no TLS on loopback; warm calls connect no more.
    for phase in [Quantity::StoreWriteDns, Quantity::StoreWriteTls, Quantity::StoreReadConnect] {
        assert_eq!(calls.get(phase), None, "{}", phase.key());
    }
    assert_eq!(store.take_calls().iter().count(), 0, "what was taken is not counted again");
}

#[tokio::test]
async fn only_who_has_the_key_and_the_time_is_believed() {
    let simulated = Simulated::start(Faults::none()).await;
    let key = Key::new("a").unwrap();
    let stranger = simulated.store_with("", Arc::new(Impatient::default()), "t/u/aa:bb");
    let error = stranger.get(&key).await.unwrap_err();
    assert!(error.to_string().contains("NotAuthenticated"), "{error}");

    let late = Arc::new(collector::clock::VirtualClock::at(Utc::now() - TimeDelta::minutes(17)));
    let error = simulated.store_with("", late, &simulated.key_id).create(&key, b"x").await.unwrap_err();
    assert!(error.to_string().contains("s behind)"), "{error}");
    assert!(!error.outcome_unknown);

    let other = Account::generate("two").unwrap();
    let forged = PrivateKey::from_pem(simulated.key_id.clone(), &other.private_key_pem(), None).unwrap();
    let path = BucketPath::parse("oci://ns/events").unwrap();
    let clock = Arc::new(Impatient::default());
    let store = OciStore::new(path, simulated.url.parse().unwrap(), Arc::new(forged), clock).unwrap();
    assert!(store.get(&key).await.unwrap_err().to_string().contains("does not match"));
    let unsigned = reqwest::get(format!("{}/n/ns/b/events/o/a", simulated.url)).await.unwrap();
    assert_eq!(unsigned.status(), 401);
}

#[tokio::test]
async fn another_bucket_is_not_found_and_that_is_not_no_object() {
    let simulated = Simulated::start(Faults::none()).await;
    let path = BucketPath::parse("oci://ns/elsewhere").unwrap();
    let key = PrivateKey::from_pem(simulated.key_id.clone(), &simulated.pem, None).unwrap();
    let clock = Arc::new(Impatient::default());
    let store = OciStore::new(path, simulated.url.parse().unwrap(), Arc::new(key), clock).unwrap();
    let error = store.get(&Key::new("a").unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("BucketNotFound"), "{error}");
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused_unless_nobody_else_writes() {
    let simulated = Simulated::start(Faults::none()).await;
    simulated.service.ignore_conditions();
    let error = archive(simulated.store("archive")).open().await.unwrap_err();
    assert!(matches!(error, ArchiveError::Untrusted { .. }), "{error}");
    assert!(error.to_string().contains("--single-writer"));
    assert_eq!(simulated.store("").list("").await.unwrap(), [], "nothing is left of the trial");
    let options = ArchiveOptions { single_writer: true, ..ArchiveOptions::default() };
    let alone = Archive::new(simulated.store("archive"), Arc::new(Impatient::default()), options);
    assert!(alone.open().await.is_ok());
}

#[tokio::test]
async fn conditions_are_proven_once_and_an_ordinary_run_asks_for_nothing_more() {
    let simulated = Simulated::start(Faults::none()).await;
    let archive = archive(simulated.store("archive"));
    let mut feed = Feed::new(FeedConfig { buffer: 40, log: false, ..FeedConfig::quiet(1) });
    let first = feed.full_response().compact();
    collect(&archive, &first, feed.now()).await.unwrap();
    assert_eq!(simulated.service.requests().delete, 1, "the trial");
    let before = simulated.service.requests();
    collect(&archive, &first, feed.now() + TimeDelta::minutes(1)).await.unwrap();
    let after = simulated.service.requests();
    assert_eq!(
        Requests { get: before.get + 1, head: before.head + 1, ..before },
        after,
        "ledger, last object"
    );
    feed.publish();
    collect(&archive, &feed.full_response().compact(), feed.now() + TimeDelta::minutes(2)).await.unwrap();
    let last = simulated.service.requests();
    let expected = Requests {
        get: after.get + 1,
        head: after.head + 1,
        put: after.put + 4,
        list: after.list + 1,
        ..after
    };
    assert_eq!(expected, last, "claim beside journal and listing, write, commit");
}

fn archive(store: SharedStore) -> Archive {
    Archive::new(
        store,
        Arc::new(Impatient::default()),
        ArchiveOptions { capacity: 80, ..ArchiveOptions::default() },
    )
}

async fn collect(archive: &Archive, body: &[u8], at: DateTime<Utc>) -> Result<Outcome, ArchiveError> {
    let response = Response::parse(body).unwrap();
    let snapshot = archive.open().await?;
    Ok(archive.deposit(&response, snapshot, at).await?.0.outcome)
}

/// Speaks HTTP by hand: what comes back before and after the body is sent.
fn put_by_hand(simulated: &Simulated, authorization: &str, date: &str) -> (String, Option<String>) {
    let host = simulated.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "PUT /n/ns/b/events/o/a HTTP/1.1\r\nhost: {host}\r\ndate: {date}\r\nauthorization: {authorization}\r\n\
         content-length: 3\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut buffer = [0; 1_024];
    let length = stream.read(&mut buffer).unwrap();
    let first = String::from_utf8_lossy(&buffer[..length]).into_owned();
    if !first.starts_with("HTTP/1.1 100") {
        return (first, None);
    }
    stream.write_all(b"abc").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    (first, Some(rest))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_only_if_its_sender_is_believed() {
    use collector::store::oci::signature::{Body, Signed};

    let simulated = Simulated::start(Faults::none()).await;
    let (refused, rest) = put_by_hand(&simulated, "Signature x", "now");
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    assert_eq!(rest, None);

    let key = PrivateKey::from_pem(simulated.key_id.clone(), &simulated.pem, None).unwrap();
    let date = Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let host = simulated.url.strip_prefix("http://").unwrap();
    let target = "/n/ns/b/events/o/a";
    let signed = Signed { method: "put", target, host, date: &date, body: Body::Object(b"abc") };
    let (_, rest) = put_by_hand(&simulated, &key.authorization(&signed).unwrap(), &date);
    assert!(rest.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(simulated.store("").get(&Key::new("a").unwrap()).await.unwrap().unwrap().bytes, b"abc");
}

#[cfg(feature = "oci-rust-sdk")]
#[tokio::test(flavor = "multi_thread")]
async fn with_the_signer_of_oci_rust_sdk_the_suite_passes_too() {
    use collector::store::oci::sdk::SdkSigner;

    let (simulated, stores) = (Simulated::start(Faults::none()).await, AtomicUsize::new(0));
    let key = PrivateKey::from_pem(simulated.key_id.clone(), &simulated.pem, None).unwrap();
    let signer = Arc::new(SdkSigner::new(&key).unwrap());
    suite::run(|| {
        let prefix = format!("store-{}", stores.fetch_add(1, Ordering::Relaxed));
        simulated.store_signed_by(signer.clone(), &prefix)
    })
    .await;
}
