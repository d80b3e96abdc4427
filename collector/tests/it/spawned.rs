//! The library on a runtime of several threads: every future can be sent between them.

use std::sync::Arc;

use collector::archive::{Archive, ArchiveOptions, ProcessMemory};
use collector::clock::{SharedClock, SystemClock};
use collector::event::{EventId, Response};
use collector::feed::{Feed, FeedOptions, Source};
use collector::import::{find_recordings, import};
use collector::quantity::Quantity;
use collector::query::Query;
use collector::record::RecordPaths;
use collector::run::Collector;
use collector::store::LocalStore;
use tokio::runtime::{Builder, Runtime};

use crate::support::{Home, fixture};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn clock() -> SharedClock {
    Arc::new(SystemClock::default())
}

fn archive(home: &Home) -> Archive {
    Archive::new(Arc::new(LocalStore::new(home.path("data"))), clock(), ArchiveOptions::default())
        .with_memory(Arc::new(ProcessMemory::default()))
}

#[test]
fn collector_runs_in_a_spawned_task() {
    let home = Home::new();
    let source = Source::parse(fixture("response.json").to_str().unwrap()).unwrap();
    let feed = Feed::new(&source, FeedOptions::new(home.path("state")), clock()).unwrap();
    let paths = RecordPaths { metrics_dir: home.path("metrics"), health_file: home.path("health.json") };
    let collector = Collector { feed, archive: archive(&home), paths, clock: clock() };
    let report =
        runtime().block_on(async { tokio::spawn(async move { collector.run().await }).await.unwrap() });
    assert_eq!(report.result.unwrap().count(Quantity::NewEventsCount), 500);
}

#[test]
fn archive_is_read_and_repaired_in_spawned_tasks() {
    let home = Home::new();
    home.run_json(fixture("response.json"));
    let archive = Arc::new(archive(&home));
    runtime().block_on(async {
        let body = std::fs::read(fixture("response-next.json")).unwrap();
        let shared = Arc::clone(&archive);
        let deposited = tokio::spawn(async move {
            let response = Response::parse(&body).unwrap();
            let snapshot = shared.open().await.unwrap();
            shared
                .deposit(&response, snapshot, chrono::Utc::now())
                .await
                .unwrap()
                .0
                .count(Quantity::NewEventsCount)
        });
        assert_eq!(deposited.await.unwrap(), 14);
        let shared = Arc::clone(&archive);
        let found = tokio::spawn(async move {
            let query = Query::default();
            let mut answer = shared.query(&query);
            let mut ids: Vec<EventId> = Vec::new();
            while let Some(found) = answer.next().await {
                ids.push(found.unwrap().id);
            }
            let looked_up = shared.get_many(ids.iter().copied().take(3)).await;
            (ids.len(), looked_up.found.len())
        });
        assert_eq!(found.await.unwrap(), (514, 3));
        let shared = Arc::clone(&archive);
        let changes = tokio::spawn(async move { shared.changes(None, 1_000).await.unwrap().changes.len() });
        assert!(changes.await.unwrap() > 0);
        let shared = Arc::clone(&archive);
        let repaired = tokio::spawn(async move { shared.repair(false, |_, _| {}).await.unwrap() });
        assert!(repaired.await.unwrap().is_idle());
        let audited = tokio::spawn(async move { archive.audit(|_, _| {}).await.unwrap() });
        assert!(audited.await.unwrap().findings.is_sound());
    });
}

#[test]
fn recordings_are_imported_in_a_spawned_task() {
    let home = Home::new();
    home.write("polls/1767225600.json", std::fs::read(fixture("response.json")).unwrap());
    let (archive, recordings) = (archive(&home), find_recordings(&[home.path("polls")], |_| {}).unwrap());
    let summary = runtime().block_on(async {
        tokio::spawn(async move { import(&archive, &clock(), &recordings, |_| {}).await.unwrap() })
            .await
            .unwrap()
    });
    assert_eq!(summary.events_new, 500);
}
