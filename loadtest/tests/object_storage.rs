//! The collector's store for Object Storage against the simulated service: the suite that every store passes, the
//! whole protocol on a service that misbehaves, and who is believed.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../collector/tests/it/stores/suite.rs"]
mod suite;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{Archive, ArchiveError, ArchiveOptions, Outcome};
use collector::clock::{Clock, SharedClock, SystemClock};
use collector::event::Response;
use collector::store::oci::BucketPath;
use collector::store::oci::key::PrivateKey;
use collector::store::{Key, OciStore, SharedStore, Store as _, Write};
use fixtures::{Feed, FeedConfig};
use loadtest::oci::{Account, Faults, ObjectStorage, Requests};

/// The machine's time of day, but nobody waits.
#[derive(Debug, Default)]
struct Impatient(SystemClock);

#[async_trait]
impl Clock for Impatient {
    fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, _: Duration) {
        tokio::task::yield_now().await;
    }
}

/// A service that was started, and stores in it.
struct Simulated {
    service: Arc<ObjectStorage>,
    url: String,
    key_id: String,
    pem: String,
}

impl Simulated {
    async fn start(faults: Faults) -> Self {
        let account = Account::generate("one").unwrap();
        let (key_id, pem) = (account.key_id(), account.private_key_pem());
        let service = ObjectStorage::new("ns", "events", vec![account], faults).unwrap();
        let url = format!("http://{}", service.start().await.unwrap());
        Self { service, url, key_id, pem }
    }

    fn store_with(&self, prefix: &str, clock: SharedClock, key_id: &str) -> SharedStore {
        let path = BucketPath::parse(&format!("oci://ns/events/{prefix}")).unwrap();
        let key = PrivateKey::from_pem(key_id.to_owned(), &self.pem, None).unwrap();
        Arc::new(OciStore::new(path, self.url.parse().unwrap(), Arc::new(key), clock).unwrap())
    }

    fn store(&self, prefix: &str) -> SharedStore {
        self.store_with(prefix, Arc::new(Impatient::default()), &self.key_id)
    }
}

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

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_stored_once_on_a_service_that_misbehaves() {
    for seed in 0..6 {
        let simulated = Simulated::start(Faults::many(seed)).await;
        let mut feed = Feed::new(FeedConfig {
            seed,
            buffer: 40,
            corrections: 0.15,
            withdrawals: 0.05,
            returns: 0.5,
            sparse: 0.1,
            log: false,
            ..FeedConfig::default()
        });
        let (mut published, mut done) = (BTreeSet::new(), 0);
        for _ in 0..15 {
            feed.advance_by(TimeDelta::minutes(90));
            let response = feed.response();
            let (body, at) = (response.compact(), feed.now());
            let run = || collect(simulated.store("archive"), &body, at);
            let (one, two, three) = tokio::join!(run(), run(), run());
            for outcome in [one, two, three] {
                // A run may fail on such a service; one that says it has stored has.
                if matches!(outcome, Ok(Outcome::Stored)) {
                    done += 1;
                    published
                        .extend(response.events().iter().map(|event| i64::try_from(event.id()).unwrap()));
                }
            }
        }
        assert!(done > 0);
        let archive = archive(simulated.store("archive"));
        archive.repair(false, |_, _| {}).await.unwrap();
        let audit = archive.audit(|_, _| {}).await.unwrap();
        assert_eq!(audit.findings.problems, [], "seed {seed}");
        assert!(audit.findings.unique_ids >= published.len());
    }
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
    let mut feed = Feed::new(FeedConfig { buffer: 40, log: false, ..FeedConfig::quiet(1) });
    let first = feed.full_response().compact();
    collect(simulated.store("archive"), &first, feed.now()).await.unwrap();
    assert_eq!(simulated.service.requests().delete, 1, "the trial");
    let before = simulated.service.requests();
    collect(simulated.store("archive"), &first, feed.now() + TimeDelta::minutes(1)).await.unwrap();
    let after = simulated.service.requests();
    assert_eq!(Requests { get: before.get + 1, ..before }, after);
    feed.publish();
    collect(simulated.store("archive"), &feed.full_response().compact(), feed.now() + TimeDelta::minutes(2))
        .await
        .unwrap();
    let last = simulated.service.requests();
    assert_eq!(Requests { get: after.get + 1, put: after.put + 3, ..after }, last, "claim, write, commit");
}

fn archive(store: SharedStore) -> Archive {
    Archive::new(
        store,
        Arc::new(Impatient::default()),
        ArchiveOptions { capacity: 80, ..ArchiveOptions::default() },
    )
}

async fn collect(store: SharedStore, body: &[u8], at: DateTime<Utc>) -> Result<Outcome, ArchiveError> {
    let archive = archive(store);
    let response = Response::parse(body).unwrap();
    let snapshot = archive.open().await?;
    Ok(archive.deposit(&response, snapshot, at).await?.0.outcome)
}
