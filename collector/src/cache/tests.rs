use std::cell::Cell;
use std::convert::Infallible;
use std::fs;

use chrono::DateTime;
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::*;
use crate::clock::VirtualClock;

struct Fixture {
    cache: Cache,
    clock: Arc<VirtualClock>,
    /// How often the source was asked.
    asked: Cell<u32>,
}

fn disk(folder: &std::path::Path, limit_bytes: u64) -> DiskOptions {
    DiskOptions { folder: folder.to_owned(), limit_bytes, owner: "me".to_owned() }
}

impl Fixture {
    fn new(memory_bytes: u64, disk: Option<DiskOptions>) -> Self {
        let clock = Arc::new(VirtualClock::at(DateTime::from_timestamp(1_767_362_400, 0).unwrap()));
        let options = CacheOptions { memory_bytes, ttl: Duration::from_secs(30), disk };
        Self { cache: Cache::new(options, clock.clone()), clock, asked: Cell::new(0) }
    }

    /// What is under a name if the source says `answer`.
    async fn get(&self, name: &str, freshness: Freshness, answer: &str) -> (String, Origin) {
        let read = || async {
            self.asked.set(self.asked.get() + 1);
            Ok::<_, Infallible>(Some(answer.as_bytes().to_vec()))
        };
        let (content, origin) = self.cache.get(name, freshness, read).await.unwrap();
        (String::from_utf8(content.unwrap().to_vec()).unwrap(), origin)
    }

    async fn pass(&self, seconds: u64) {
        crate::clock::Clock::sleep(&*self.clock, Duration::from_secs(seconds)).await;
    }
}

#[tokio::test]
async fn what_may_change_is_believed_for_its_time_and_what_may_not_for_ever() {
    let fixture = Fixture::new(1 << 20, None);
    assert_eq!(fixture.get("a", Freshness::Brief, "1").await, ("1".to_owned(), Origin::Source));
    assert_eq!(fixture.get("b", Freshness::Forever, "1").await.1, Origin::Source);
    fixture.pass(29).await;
    assert_eq!(fixture.get("a", Freshness::Brief, "2").await, ("1".to_owned(), Origin::Memory));
    fixture.pass(1).await;
    assert_eq!(fixture.get("a", Freshness::Brief, "2").await, ("2".to_owned(), Origin::Source));
    fixture.pass(1_000_000).await;
    assert_eq!(fixture.get("b", Freshness::Forever, "2").await, ("1".to_owned(), Origin::Memory));
    let metrics = fixture.cache.metrics().await;
    assert_eq!((metrics.memory_hits, metrics.misses, metrics.entries), (2, 3, 2));
    assert_eq!(metrics.hit_rate(), Some(0.4));
}

#[tokio::test]
async fn a_hundred_equal_requests_become_one() {
    let fixture = Fixture::new(1 << 20, None);
    let gate = Notify::new();
    let ask = || async {
        let read = || async {
            fixture.asked.set(fixture.asked.get() + 1);
            gate.notified().await;
            Ok::<_, Infallible>(Some(b"answer".to_vec()))
        };
        fixture.cache.get("a", Freshness::Brief, read).await.unwrap()
    };
    let all = join_all((0..100).map(|_| ask()));
    let (answers, ()) = tokio::join!(all, async {
        tokio::task::yield_now().await;
        gate.notify_one();
    });
    assert_eq!(fixture.asked.get(), 1);
    assert!(answers.iter().all(|(content, _)| content.as_ref().unwrap().as_slice() == b"answer"));
    assert_eq!(answers.iter().filter(|(_, origin)| *origin == Origin::Source).count(), 1);
    let metrics = fixture.cache.metrics().await;
    assert_eq!((metrics.misses, metrics.coalesced), (1, 99));
}

#[tokio::test]
async fn who_asks_after_something_changed_is_not_told_what_was_before() {
    let fixture = Fixture::new(1 << 20, None);
    let (begun, gate) = (Notify::new(), Notify::new());
    let slow = async {
        let read = || async {
            begun.notify_one();
            gate.notified().await;
            Ok::<_, Infallible>(Some(b"old".to_vec()))
        };
        fixture.cache.get("a", Freshness::Brief, read).await.unwrap()
    };
    let later = async {
        begun.notified().await;
        fixture.cache.forget("a").await;
        // The reading that began before is still under way, and this request finds it.
        let (answer, ()) =
            tokio::join!(fixture.get("a", Freshness::Brief, "new"), async { gate.notify_one() });
        answer.0
    };
    let (_, answer) = tokio::join!(slow, later);
    assert_eq!(answer, "new");
    assert_eq!(fixture.get("a", Freshness::Brief, "newer").await.0, "new");
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_asked_and_not_kept() {
    let fixture = Fixture::new(1 << 20, None);
    let fail = || async { Err::<Option<Vec<u8>>, _>("out of order") };
    for _ in 0..2 {
        assert_eq!(*fixture.cache.get("a", Freshness::Forever, fail).await.unwrap_err(), "out of order");
    }
    let nothing = || async { Ok::<Option<Vec<u8>>, Infallible>(None) };
    assert_eq!(fixture.cache.get("a", Freshness::Forever, nothing).await.unwrap(), (None, Origin::Source));
    assert_eq!(fixture.get("a", Freshness::Forever, "there").await.0, "there");
}

#[tokio::test]
async fn the_least_recently_used_is_let_go_of_first_and_memory_stays_below_its_limit() {
    let fixture = Fixture::new(10_000, None);
    let long = "x".repeat(900);
    for number in 0..100 {
        fixture.get("kept", Freshness::Forever, &long).await;
        fixture.get(&format!("{number}"), Freshness::Forever, &long).await;
        let metrics = fixture.cache.metrics().await;
        assert!(metrics.bytes <= 10_000, "{metrics:?}");
    }
    let asked = fixture.asked.get();
    assert_eq!(asked, 101, "what was used all the time was let go of");
    assert!(fixture.cache.metrics().await.evictions > 80);
    fixture.get("0", Freshness::Forever, &long).await;
    assert_eq!(fixture.asked.get(), asked + 1, "what was used longest ago was kept");
}

#[tokio::test]
async fn another_process_finds_what_is_on_disk_while_it_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = || Fixture::new(0, Some(disk(folder.path(), 1 << 20)));
    fresh().get("listing", Freshness::Brief, "1").await;
    fresh().get("object", Freshness::Forever, "1").await;
    assert_eq!(fresh().get("listing", Freshness::Brief, "2").await, ("1".to_owned(), Origin::Disk));
    let later = fresh();
    later.pass(30).await;
    assert_eq!(later.get("listing", Freshness::Brief, "2").await, ("2".to_owned(), Origin::Source));
    assert_eq!(later.get("object", Freshness::Forever, "2").await, ("1".to_owned(), Origin::Disk));
    // What another process read grows old in this one's memory too.
    let first = Fixture::new(1 << 20, Some(disk(folder.path(), 1 << 20)));
    first.pass(31).await;
    let options = CacheOptions { disk: Some(disk(folder.path(), 1 << 20)), ..CacheOptions::default() };
    let second = Fixture { cache: Cache::new(options, first.clock.clone()), ..Fixture::new(0, None) };
    first.get("aging", Freshness::Brief, "1").await;
    first.pass(20).await;
    assert_eq!(second.get("aging", Freshness::Brief, "2").await.1, Origin::Disk);
    first.pass(9).await;
    assert_eq!(second.get("aging", Freshness::Brief, "2").await.1, Origin::Memory);
    first.pass(1).await;
    assert_eq!(second.get("aging", Freshness::Brief, "2").await.1, Origin::Source);
    // An entry from the future, written before a clock was set back, is not fresh.
    assert_eq!(fresh().get("listing", Freshness::Brief, "3").await, ("3".to_owned(), Origin::Source));
    fresh().cache.forget("listing").await;
    assert_eq!(fresh().get("listing", Freshness::Brief, "4").await.0, "4");
    // Somebody else's answers are not ours.
    let options = DiskOptions { owner: "you".to_owned(), ..disk(folder.path(), 1 << 20) };
    assert_eq!(Fixture::new(0, Some(options)).get("object", Freshness::Forever, "5").await.0, "5");
}

#[tokio::test]
async fn what_was_damaged_on_disk_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = || Fixture::new(0, Some(disk(folder.path(), 1 << 20)));
    fresh().get("object", Freshness::Forever, "a whole object").await;
    let shelf = fs::read_dir(folder.path().join("entries")).unwrap().next().unwrap().unwrap().path();
    let file = fs::read_dir(shelf).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&file).unwrap();
    for damage in [&whole[..whole.len() - 3], b"", b"\xff\n", &[&whole[..], b"more"].concat()] {
        fs::write(&file, damage).unwrap();
        assert_eq!(
            fresh().get("object", Freshness::Forever, "again").await,
            ("again".to_owned(), Origin::Source)
        );
        fs::write(&file, &whole).unwrap();
        assert_eq!(fresh().get("object", Freshness::Forever, "again").await.0, "a whole object");
    }
}

#[tokio::test]
async fn the_disk_holds_no_more_than_it_may_and_counts_what_all_did() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..50 {
        let fixture = Fixture::new(0, Some(disk(folder.path(), 20_000)));
        fixture.get(&format!("{number}"), Freshness::Forever, &"x".repeat(1_000)).await;
        fixture.get(&format!("{number}"), Freshness::Forever, "").await;
        fixture.cache.close().await;
        let kept = fixture.cache.kept_on_disk().await.unwrap();
        assert!(kept.bytes <= 20_000, "{kept:?}");
    }
    let fixture = Fixture::new(0, Some(disk(folder.path(), 20_000)));
    let kept = fixture.cache.kept_on_disk().await.unwrap();
    assert_eq!((kept.used.misses, kept.used.disk_hits), (50, 50));
    assert_eq!(kept.entries + kept.used.evictions, 50);
    assert!(kept.entries >= 15, "{kept:?}");
    assert!(fixture.cache.clear().await.unwrap() >= 15_000);
    assert_eq!(fixture.cache.kept_on_disk().await.unwrap().entries, 0);
}

#[tokio::test]
async fn a_disk_that_takes_nothing_fails_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let fixture = Fixture::new(1 << 20, Some(disk(&file, 1 << 20)));
    assert_eq!(fixture.get("a", Freshness::Brief, "1").await.0, "1");
    fixture.cache.forget("a").await;
    fixture.cache.close().await;
    assert_eq!(fixture.get("a", Freshness::Brief, "2").await.0, "2");
}
