//! The promises of the archive on an Object Storage that misbehaves: lost answers, cut connections, requests that are
//! carried out late, buckets that seem not to be there; and collectors that are killed in the middle of it.
//!
//! `OBJECT_STORAGE_SEEDS` sets the number of simulated schedules, `OBJECT_STORAGE_SEED` simulates one.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::env;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use collector::archive::{Archive, ArchiveError, ArchiveOptions, Liveness, Outcome};
use collector::clock::{Clock as _, VirtualClock};
use collector::event::{Event, Response, parse_line};
use collector::store::SharedStore;
use fixtures::{Feed, FeedConfig};
use loadtest::oci::Faults;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use support::Simulated;
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};

const SEEDS: u64 = 24;
const STEPS: usize = 60;
const BUFFER: usize = 40;

/// Knows who was killed.
#[derive(Debug, Clone)]
struct Census {
    name: String,
    dead: Arc<Mutex<BTreeSet<String>>>,
}

impl Liveness for Census {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_gone(&self, owner: &str) -> bool {
        self.dead.lock().unwrap().contains(owner)
    }
}

struct Schedule {
    rng: Pcg64Mcg,
    simulated: Simulated,
    /// Whether the service keeps the conditions that all rests on.
    conditions: bool,
    feed: Feed,
    clock: Arc<VirtualClock>,
    dead: Arc<Mutex<BTreeSet<String>>>,
    /// Whether the others learn of a death before the lease is over.
    one_machine: bool,
    started: usize,
    running: Vec<(String, JoinHandle<Vec<i64>>)>,
    /// Ids of which a run said that they are stored.
    promised: BTreeSet<i64>,
}

impl Schedule {
    async fn new(seed: u64, conditions: bool) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let config = FeedConfig {
            seed,
            buffer: BUFFER,
            corrections: 0.15,
            withdrawals: 0.05,
            returns: 0.5,
            sparse: 0.1,
            log: false,
            ..FeedConfig::default()
        };
        let feed = Feed::new(config);
        let simulated = Simulated::start(Faults::many(seed)).await;
        if !conditions {
            simulated.service.ignore_conditions();
        }
        Self {
            simulated,
            conditions,
            clock: Arc::new(VirtualClock::at(feed.now())),
            feed,
            dead: Arc::default(),
            one_machine: rng.next_u32().is_multiple_of(2),
            rng,
            started: 0,
            running: Vec::new(),
            promised: BTreeSet::new(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.next_u32()).unwrap() % bound
    }

    fn pass(&mut self, time: TimeDelta) {
        self.feed.advance_by(time);
        self.clock.set(self.clock.now() + time);
    }

    fn store(&self) -> SharedStore {
        self.simulated.store("archive")
    }

    fn archive(&mut self) -> (String, Archive) {
        self.started += 1;
        let name = format!("c{}", self.started);
        let options = ArchiveOptions {
            buffer: BUFFER,
            capacity: 2 * BUFFER,
            single_writer: !self.conditions,
            ..ArchiveOptions::default()
        };
        let census = Census { name: name.clone(), dead: Arc::clone(&self.dead) };
        let archive = Archive::new(self.store(), self.clock.clone(), options);
        (name, archive.with_liveness(Arc::new(census)))
    }

    fn start(&mut self) {
        let (name, archive) = self.archive();
        let (body, now) = (self.feed.response().compact(), self.clock.now());
        let run = async move {
            let response = Response::parse(&body).unwrap();
            let Ok(snapshot) = archive.open().await else { return Vec::new() };
            match archive.deposit(&response, snapshot, now).await {
                Ok((deposit, _)) if deposit.outcome == Outcome::Stored => ids(&response),
                _ => Vec::new(),
            }
        };
        self.running.push((name, spawn_local(run)));
    }

    /// Continues until this number of further requests was answered, or no collector runs.
    async fn go_on(&self, requests: u64) {
        let answered = || {
            let asked = self.simulated.service.requests();
            asked.get + asked.head + asked.put + asked.list + asked.delete
        };
        let until = answered() + requests;
        while answered() < until && !self.running.iter().all(|(_, run)| run.is_finished()) {
            yield_now().await;
        }
    }

    async fn reap(&mut self, number: usize, kill: bool) {
        let (name, run) = self.running.swap_remove(number);
        if kill {
            run.abort();
        }
        if let Ok(stored) = run.await {
            self.promised.extend(stored);
        }
        if self.one_machine {
            self.dead.lock().unwrap().insert(name);
        }
    }

    async fn step(&mut self) {
        let requests = self.below(8);
        self.go_on(u64::try_from(requests).unwrap()).await;
        let running = self.running.len();
        match self.below(10) {
            0..4 if running < 3 => self.start(),
            4 | 5 if running > 0 => {
                let number = self.below(running);
                self.reap(number, true).await;
            }
            6..8 if running > 0 => {
                let number = self.below(running);
                self.reap(number, false).await;
            }
            8 => {
                let minutes = self.below(120);
                self.pass(TimeDelta::minutes(i64::try_from(minutes).unwrap()));
            }
            _ => {}
        }
    }

    /// Runs the schedule. Returns the guarantee that was violated, if one was.
    async fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step().await;
        }
        self.end_well().await
    }

    /// Once it is quiet, a collector succeeds, and the archive is sound and whole.
    async fn end_well(&mut self) -> Result<(), String> {
        while !self.running.is_empty() {
            self.reap(0, false).await;
        }
        self.simulated.service.deliver_late();
        self.simulated.service.calm();
        self.pass(TimeDelta::hours(1));
        let (_, archive) = self.archive();
        let body = self.feed.response().compact();
        let response = Response::parse(&body).unwrap();
        let failed = |error: ArchiveError| format!("an undisturbed collector does not succeed: {error}");
        let snapshot = archive.open().await.map_err(failed)?;
        let (deposit, _) = archive.deposit(&response, snapshot, self.clock.now()).await.map_err(failed)?;
        if deposit.outcome != Outcome::Stored {
            return Err("a collector that is alone leaves it to another".to_owned());
        }
        self.promised.extend(ids(&response));
        let audit = archive.audit(|_, _| {}).await.map_err(failed)?;
        if !audit.findings.is_sound() {
            return Err(format!("verify finds {:?}", audit.findings.problems));
        }
        let stored = stored_ids(&self.store()).await;
        let lost: Vec<_> = self.promised.difference(&stored).copied().collect();
        if lost.is_empty() { Ok(()) } else { Err(format!("lost: {lost:?}")) }
    }
}

fn ids(response: &Response<'_>) -> Vec<i64> {
    response.elements().iter().filter_map(|element| Some(number_of(element.event.as_ref().ok()?))).collect()
}

fn number_of(event: &Event) -> i64 {
    event.id.to_string().parse().unwrap()
}

async fn stored_ids(store: &SharedStore) -> BTreeSet<i64> {
    let mut found = BTreeSet::new();
    for listed in store.list("events/").await.unwrap() {
        let object = store.get(&listed.key).await.unwrap().unwrap();
        let lines = object.bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        found.extend(lines.map(|line| number_of(&parse_line(line).unwrap())));
    }
    found
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

/// The first of these schedules that violates a guarantee, and the guarantee.
async fn first_violation(seeds: Range<u64>, conditions: bool) -> Option<String> {
    let mut promised = 0;
    for seed in seeds {
        let mut schedule = Schedule::new(seed, conditions).await;
        if let Err(promise) = LocalSet::new().run_until(schedule.run()).await {
            return Some(format!("seed {seed}: {promise}"));
        }
        promised += schedule.promised.len();
    }
    assert!(promised > 0);
    None
}

#[tokio::test]
async fn object_storage_that_misbehaves_keeps_every_promise() {
    let all = || 0..number("OBJECT_STORAGE_SEEDS").unwrap_or(SEEDS);
    let seeds = number("OBJECT_STORAGE_SEED").map_or_else(all, |seed| seed..seed + 1);
    assert_eq!(first_violation(seeds, true).await, None);
}

#[tokio::test]
async fn without_the_service_s_conditions_a_promise_is_broken() {
    assert!(first_violation(0..SEEDS, false).await.is_some(), "these schedules cannot fail");
}
