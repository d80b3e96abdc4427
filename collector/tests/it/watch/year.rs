//! A year of the service with what happens to one in a year.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use collector::archive::Outcome;
use collector::record::health;
use collector::store::{Key, Listed, Object, Operation, Store, StoreError, Version, Write};
use collector::watch::{listener, recorded_runs};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use tokio::sync::Notify;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

/// What can happen between two polls, or during one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Disturbance {
    /// The settings are read again, with another interval.
    Reload,
    /// The clock is set to a time that is wrong by up to three hours.
    ClockSet,
    /// The machine sleeps for up to nine hours: only the time of day continues.
    Suspend,
    /// The process ends between two polls and is started again.
    Restart,
    /// The process is killed while it writes.
    Kill,
    /// The port of the pages is in use during a poll.
    PortInUse,
    /// Nothing can be written for up to five polls, neither to the archive nor for records and health.
    FullDisk,
}

const ALL: [Disturbance; 7] = [
    Disturbance::Reload,
    Disturbance::ClockSet,
    Disturbance::Suspend,
    Disturbance::Restart,
    Disturbance::Kill,
    Disturbance::PortInUse,
    Disturbance::FullDisk,
];

/// A store on a disk that can be full, and whose writer can be killed.
#[derive(Debug, Default)]
struct Disk {
    inner: MemoryStore,
    is_full: AtomicBool,
    /// The number of the write, counted backwards, in which the process is killed; 0 for none.
    kill_in: AtomicU32,
    killed: Notify,
}

impl Disk {
    /// Fails if the disk is full, and never returns if this is the write in which the process is killed.
    async fn write(&self, key: &Key) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(StoreError {
                operation: Operation::Create,
                target: key.to_string(),
                outcome_unknown: false,
                source: "no space left on device".into(),
            });
        }
        let left = self.kill_in.load(Ordering::Relaxed);
        self.kill_in.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Disk {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.inner.get(key).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        self.write(key).await?;
        self.inner.create(key, bytes).await
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        self.write(key).await?;
        self.inner.replace(key, bytes, expected).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn location(&self) -> String {
        "disk".to_owned()
    }
}

/// A service and what it has seen in a year.
struct Year {
    home: Home,
    clock: Arc<VirtualClock>,
    disk: Arc<Disk>,
    feed: fixtures::Feed,
    random: Pcg64Mcg,
    interval: Duration,
    start: DateTime<Utc>,
    /// How long the machine slept.
    asleep: TimeDelta,
    /// When polls began, by the clock that is never set, and the interval after each.
    polls: Vec<(Duration, Duration)>,
    /// Disturbances that are still to come: before which poll, and what.
    coming: Vec<(usize, Disturbance)>,
    happened: BTreeMap<Disturbance, u32>,
    /// The disk is full until this poll.
    full_until: usize,
    /// Every id that a response held.
    shown: BTreeSet<u64>,
    /// Every id that a response held whose poll succeeded.
    settled: BTreeSet<u64>,
}

impl Year {
    fn new(seed: u64, disturbances: usize, polls: usize) -> Self {
        let mut feed = fixtures::Feed::new(FeedConfig { sparse: 0.0, log: false, ..FeedConfig::default() });
        feed.drain_log();
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut coming: Vec<_> = (0..disturbances)
            .map(|number| (usize::try_from(random.next_u64()).unwrap() % polls, ALL[number % ALL.len()]))
            .collect();
        coming.sort_unstable_by_key(|(poll, _)| std::cmp::Reverse(*poll));
        Self {
            home: Home::new(),
            start: feed.now(),
            asleep: TimeDelta::zero(),
            clock: Arc::new(VirtualClock::at(feed.now())),
            disk: Arc::default(),
            feed,
            random,
            interval: 3 * HOUR,
            polls: Vec::new(),
            coming,
            happened: BTreeMap::new(),
            full_until: 0,
            shown: BTreeSet::new(),
            settled: BTreeSet::new(),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    /// The time by a clock that is never wrong.
    fn true_time(&self) -> DateTime<Utc> {
        self.start + self.clock.elapsed() + self.asleep
    }

    fn paths(&self) -> RecordPaths {
        RecordPaths {
            metrics_dir: self.home.path("metrics"),
            health_file: self.home.path("state/health.json"),
        }
    }

    fn collector(&self) -> Collector {
        Collector {
            feed: Feed::File(self.home.path("feed.json")),
            archive: Archive::new(self.disk.clone(), self.clock.clone(), ArchiveOptions::default()),
            paths: self.paths(),
            clock: self.clock.clone(),
        }
    }

    fn rhythm(&self) -> (Schedule, PollInterval) {
        let schedule = Schedule::new(self.interval, Duration::from_mins(1), "test");
        (schedule, PollInterval::new(self.interval, false, 500))
    }

    /// Folders for records and health turn into files, so that nothing can be written there, and back.
    fn fill_disk(&self, is_full: bool) {
        if self.disk.is_full.swap(is_full, Ordering::Relaxed) == is_full {
            return;
        }
        for folder in ["metrics", "state"] {
            let (folder, aside) = (self.home.path(folder), self.home.path(&format!("{folder}-aside")));
            if is_full {
                _ = fs::rename(&folder, &aside);
                fs::write(&folder, "").unwrap();
            } else {
                fs::remove_file(&folder).unwrap();
                _ = fs::rename(&aside, &folder);
            }
        }
    }

    /// Makes a disturbance happen before a poll. Returns the command that the service gets for it, if any.
    fn disturb(&mut self, disturbance: Disturbance) -> Option<Command> {
        *self.happened.entry(disturbance).or_default() += 1;
        match disturbance {
            Disturbance::Reload => {
                self.interval = HOUR * [2, 3, 4][usize::try_from(self.below(3)).unwrap()];
                return Some(Command::Reload);
            }
            Disturbance::Restart => return Some(Command::Stop),
            Disturbance::ClockSet => {
                let wrong = TimeDelta::seconds(i64::try_from(self.below(6 * 3_600)).unwrap() - 3 * 3_600);
                self.clock.set(self.true_time() + wrong);
            }
            Disturbance::Suspend => {
                let asleep = TimeDelta::seconds(i64::try_from(self.below(9 * 3_600)).unwrap());
                self.asleep += asleep;
                self.clock.set(self.clock.now() + asleep);
            }
            Disturbance::Kill => {
                let write = 1 + u32::try_from(self.below(5)).unwrap();
                self.disk.kill_in.store(write, Ordering::Relaxed);
            }
            Disturbance::FullDisk => {
                self.full_until = self.polls.len() + 1 + usize::try_from(self.below(5)).unwrap();
                self.fill_disk(true);
            }
            Disturbance::PortInUse => {}
        }
        None
    }

    /// Runs one process of the service until it stops or is killed. Returns whether the year continues.
    async fn process(&mut self, end: Duration) -> bool {
        let paths = self.paths();
        let status = Arc::new(Status::new(self.clock.now(), 500, Limits::default()).unwrap());
        status.recall(recorded_runs::records(&paths.metrics_dir, self.clock.now()));
        status.note_evidence(&health::read_evidence(&paths.health_file), None);
        let (schedule, poll_interval) = self.rhythm();
        let last_run = fs::read(&paths.health_file).ok().and_then(|text| {
            let health: Value = serde_json::from_slice(&text).unwrap();
            Some(health["last_run"].as_str()?.parse().unwrap())
        });
        let last_run = last_run.filter(|last| *last <= self.clock.now());
        let mut watch = Watch::new(self.clock.clone(), schedule, poll_interval, status.clone(), last_run);
        let (sender, mut commands) = unbounded_channel();
        let disk = self.disk.clone();
        loop {
            let collector = self.collector();
            let mut ended = false;
            let poll = async || {
                let number = self.polls.len();
                self.polls.push((self.clock.elapsed(), self.interval));
                if number == self.full_until {
                    self.fill_disk(false);
                }
                self.feed.advance_to(self.true_time());
                let response = self.feed.full_response();
                let ids: BTreeSet<u64> = response.events().iter().map(|event| event.id()).collect();
                self.shown.extend(&ids);
                fs::write(self.home.path("feed.json"), response.compact()).unwrap();
                let mut port = None;
                while let Some((_, disturbance)) = self.coming.pop_if(|(poll, _)| *poll <= number) {
                    if let Some(command) = self.disturb(disturbance) {
                        sender.send(command).unwrap();
                    }
                    if disturbance == Disturbance::PortInUse {
                        port = Some(TcpListener::bind("127.0.0.1:0").unwrap());
                    }
                }
                let report = match port {
                    Some(port) => poll_beside(port, &status, &self.paths(), &self.clock, &collector).await,
                    None => collector.run().await,
                };
                if report.result.as_ref().is_ok_and(|deposit| deposit.outcome == Outcome::Stored) {
                    self.settled.extend(&ids);
                }
                ended = self.clock.elapsed() > end;
                if ended {
                    sender.send(Command::Stop).unwrap();
                }
                report
            };
            let said = tokio::select! {
                said = watch.run(poll, &mut commands) => Some(said),
                () = disk.killed.notified() => None,
            };
            self.disk.kill_in.store(0, Ordering::Relaxed);
            match said {
                Some(Command::Reload) => {
                    let (schedule, poll_interval) = self.rhythm();
                    watch.set(schedule, poll_interval);
                }
                Some(Command::Stop) | None => return !ended,
            }
        }
    }
}

/// Polls while the port of the pages is in use, which is reported, and shows them once it is free.
async fn poll_beside(
    port: TcpListener,
    status: &Arc<Status>,
    paths: &RecordPaths,
    clock: &Arc<VirtualClock>,
    collector: &Collector,
) -> collector::run::RunReport {
    let address = port.local_addr().unwrap();
    let pages =
        Pages { status: status.clone(), health_file: paths.health_file.clone(), clock: clock.clone() };
    let changed = Arc::new(Notify::new());
    let notify = changed.clone();
    let shown = tokio::spawn(listener::show(address, pages, move || notify.notify_one()));
    changed.notified().await;
    assert!(status.view(1).listen_error.unwrap().contains("in use"));
    let report = collector.run().await;
    drop(port);
    changed.notified().await;
    assert_eq!(status.view(1).listen_error, None);
    shown.abort();
    _ = shown.await;
    report
}

// Time of the runtime stands still while there is work, so that the pause before listening again takes no time.
#[tokio::test(start_paused = true)]
async fn a_year_with_200_disturbances_polls_as_due_and_loses_nothing() {
    let mut year = Year::new(1, 210, 2_100);
    let end = HOUR * 24 * 365;
    while year.process(end).await {}
    year.fill_disk(false);
    for disturbance in ALL {
        assert_eq!(year.happened.get(&disturbance), Some(&30), "{disturbance:?}");
    }
    for pair in year.polls.windows(2) {
        // A reload during the first poll decides on the interval after it, which the second poll names.
        let longest = pair[0].1.max(pair[1].1) + Duration::from_mins(2);
        assert!(pair[1].0.saturating_sub(pair[0].0) <= longest, "{pair:?}");
    }

    // What the last process left is finished by the next one.
    year.clock.sleep(HOUR).await;
    let report = year.collector().run().await;
    assert!(report.result.is_ok(), "{:?}", report.result);
    let archive = year.collector().archive;
    let findings = archive.audit(|_, _| {}).await.unwrap().findings;
    assert!(findings.is_sound(), "{findings:?}");
    let mut stored = BTreeSet::new();
    for listed in year.disk.list("events/").await.unwrap() {
        let object = year.disk.get(&listed.key).await.unwrap().unwrap();
        for line in object.bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).unwrap();
            assert!(stored.insert(event["id"].as_u64().unwrap()), "{} is stored twice", event["id"]);
        }
    }
    let lost: Vec<_> = year.settled.difference(&stored).collect();
    assert!(lost.is_empty(), "polls succeeded, but {lost:?} are not stored");
    assert!(stored.is_subset(&year.shown));
    // An event is lost only if it was withdrawn before a poll succeeded again.
    let missed = year.shown.difference(&stored).count();
    assert!(missed < 10 && stored.len() > 20_000, "{missed} of {}", stored.len());
}
