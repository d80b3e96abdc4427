//! An archive under collection whose ledger and objects are put back to random moments, apart from each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use collector::archive::{Archive, ArchiveError, ArchiveOptions, Deposit, ProcessMemory};
use collector::clock::VirtualClock;
use collector::event::Response;
use collector::quantity::Quantity;
use collector::store::{Key, LocalStore, MemoryStore, SharedStore};
use fixtures::{Feed, FeedConfig};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Number of restores, unless the variable `RESTORES` is set.
const RESTORES: u64 = 200;
/// Number of restores after which a new archive is begun.
const RESTORES_PER_ARCHIVE: u64 = 20;
/// Number of moments that can be restored.
const BACKUPS: usize = 6;

/// The objects of a store, or of a part of it.
type Objects = BTreeMap<String, Vec<u8>>;

struct Site {
    store: SharedStore,
    _folder: TempDir,
    memory: Arc<ProcessMemory>,
    feed: Feed,
    /// The response of this moment, and the ids in it.
    body: Vec<u8>,
    ids: BTreeSet<i64>,
    random: Pcg64Mcg,
    backups: Vec<Objects>,
    /// The ids of all responses that a run has settled and that no restore took away.
    settled: BTreeSet<i64>,
    runtime: Runtime,
}

/// What the restores came to.
#[derive(Debug, Default)]
struct Report {
    failed_runs: usize,
    healed: usize,
    /// Sound as to events, with a journal that does not fit.
    found_by_verify: usize,
    found_within_a_day: usize,
    lost_events: usize,
    silent: Vec<String>,
}

fn is_metadata(key: &str) -> bool {
    key.starts_with("metadata/")
}

impl Site {
    fn new(seed: u64) -> Self {
        let config = FeedConfig {
            seed,
            buffer: 60,
            corrections: 0.1,
            withdrawals: 0.05,
            returns: 0.5,
            log: false,
            ..FeedConfig::default()
        };
        let folder = tempfile::tempdir().unwrap();
        // One kind replaces objects atomically, the other keeps its ledger as generations.
        let store: SharedStore = if seed.is_multiple_of(2) {
            Arc::new(LocalStore::new(folder.path()))
        } else {
            Arc::new(MemoryStore::default())
        };
        Self {
            store,
            _folder: folder,
            memory: Arc::default(),
            feed: Feed::new(config),
            body: Vec::new(),
            ids: BTreeSet::new(),
            random: Pcg64Mcg::seed_from_u64(seed),
            backups: vec![Objects::new()],
            settled: BTreeSet::new(),
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random.next_u32()).unwrap() % limit
    }

    fn archive(&self) -> Archive {
        let clock = Arc::new(VirtualClock::at(self.feed.now()));
        let options = ArchiveOptions { buffer: 60, ..ArchiveOptions::default() };
        Archive::new(Arc::clone(&self.store), clock, options).with_memory(self.memory.clone())
    }

    /// Lets time pass and takes the next response.
    fn advance(&mut self, time: TimeDelta) {
        self.feed.advance_by(time);
        let response = self.feed.response();
        self.body = response.compact();
        self.ids = response.events().iter().map(|event| i64::try_from(event.id()).unwrap()).collect();
    }

    fn advance_a_little(&mut self) {
        let minutes = 5 + i64::try_from(self.below(120)).unwrap();
        self.advance(TimeDelta::minutes(minutes));
    }

    /// Collects the response of this moment.
    fn collect(&mut self) -> Result<Deposit, ArchiveError> {
        let response = Response::parse(&self.body).unwrap();
        let archive = self.archive();
        let deposit = self.runtime.block_on(async {
            let snapshot = archive.open().await?;
            Ok::<_, ArchiveError>(archive.deposit(&response, snapshot, self.feed.now()).await?.0)
        })?;
        self.settled.extend(&self.ids);
        Ok(deposit)
    }

    fn objects(&self) -> Objects {
        self.runtime.block_on(async {
            let mut found = Objects::new();
            for listed in self.store.list("").await.unwrap() {
                let object = self.store.get(&listed.key).await.unwrap().unwrap();
                found.insert(listed.key.to_string(), object.bytes);
            }
            found
        })
    }

    fn stored(&self) -> BTreeSet<i64> {
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_i64().unwrap();
        let objects = self.objects();
        let events = objects.iter().filter(|(key, _)| key.starts_with("events/"));
        events.flat_map(|(_, bytes)| std::str::from_utf8(bytes).unwrap().lines()).map(id).collect()
    }

    /// Collects, and backs up the archive as a copy during the run finds it: each object before or after it.
    fn collect_and_back_up(&mut self) {
        self.advance_a_little();
        let mut backup = self.objects();
        self.collect().unwrap();
        let moment = self.below(3);
        for (key, bytes) in self.objects() {
            let is_copied_later = match moment {
                0 => is_metadata(&key),
                1 => !is_metadata(&key),
                _ => self.below(2) == 0,
            };
            if is_copied_later {
                backup.insert(key, bytes);
            }
        }
        self.backups.push(backup);
        if self.backups.len() > BACKUPS {
            self.backups.remove(0);
        }
    }

    /// Puts metadata or objects back to one of the backups.
    fn put_back(&mut self, metadata: bool) {
        let number = self.below(self.backups.len());
        self.runtime.block_on(async {
            for listed in self.store.list("").await.unwrap() {
                if is_metadata(listed.key.as_str()) == metadata {
                    self.store.delete(&listed.key).await.unwrap();
                }
            }
            for (key, bytes) in self.backups[number].iter().filter(|(key, _)| is_metadata(key) == metadata) {
                let _ = self.store.create(&Key::new(key.as_str()).unwrap(), bytes).await.unwrap();
            }
        });
    }

    fn restore(&mut self, report: &mut Report) {
        let parts = self.below(3);
        if parts != 1 {
            self.put_back(true);
        }
        if parts != 0 {
            self.put_back(false);
        }
        // Another machine continues. Where both parts are older it cannot know what was between.
        if parts != 2 && self.below(5) == 0 {
            self.memory = Arc::default();
        }
        let before = self.stored();
        self.advance_a_little();
        let (expected, mut is_reported) = (self.settled.clone(), false);
        let outcome = self.collect();
        let story = format!("{}, parts {parts}: {outcome:?}", self.store.location());
        match outcome {
            Ok(deposit) => {
                is_reported |= deposit.count(Quantity::LedgerHealed) > 0;
                report.healed += deposit.count(Quantity::LedgerHealed);
            }
            Err(error) => {
                is_reported = true;
                report.failed_runs += 1;
                let archive = self.archive();
                self.runtime.block_on(archive.repair(false, |_, _| {})).unwrap();
                self.collect().unwrap_or_else(|after| panic!("{error}; after the repair: {after}"));
            }
        }
        let archive = self.archive();
        let audit = self.runtime.block_on(archive.audit(|_, _| {})).unwrap();
        let after = self.stored();
        assert!(audit.findings.duplicates == 0 && audit.findings.unreadable == 0, "{:?}", audit.findings);
        assert!(before.is_subset(&after), "a stored event is gone; {story}");
        let absent: Vec<i64> = self.ids.difference(&after).copied().collect();
        if !absent.is_empty() {
            // A run looks at few objects of the last commit. The others are found at the daily comparison.
            report.found_within_a_day += 1;
            self.advance(TimeDelta::hours(24));
            assert!(self.collect().is_err(), "{absent:?} {story}");
            self.runtime.block_on(self.archive().repair(false, |_, _| {})).unwrap();
            self.settled = self.stored();
            return;
        }
        let lost = expected.difference(&after).count();
        report.lost_events += lost;
        if lost > 0 && !is_reported {
            report.silent.push(format!("parts {parts}, {lost} lost: {:?}", audit.findings.problems));
        }
        if !audit.findings.is_sound() {
            // The journal and the objects are of different histories. No event is lost by it.
            report.found_by_verify += 1;
            self.runtime.block_on(self.archive().repair(false, |_, _| {})).unwrap();
            let repaired = self.runtime.block_on(self.archive().audit(|_, _| {})).unwrap();
            assert!(repaired.findings.is_sound(), "{:?}: {:?}", audit.findings, repaired.findings);
        }
        self.settled = after;
    }
}

#[test]
fn restores_of_random_moments_duplicate_nothing_and_no_loss_is_silent() {
    let wanted = std::env::var("RESTORES").map_or(RESTORES, |text| text.parse().unwrap());
    let mut report = Report::default();
    for seed in 0..wanted.div_ceil(RESTORES_PER_ARCHIVE) {
        let mut site = Site::new(seed);
        for _ in 0..RESTORES_PER_ARCHIVE {
            for _ in 0..=site.below(3) {
                site.collect_and_back_up();
            }
            site.restore(&mut report);
        }
    }
    println!("{report:?}");
    assert_eq!(report.silent, Vec::<String>::new(), "{report:?}");
    assert!(report.failed_runs > 0 && report.healed > 0, "{report:?}");
}
