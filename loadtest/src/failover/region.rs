//! The store of a simulated region: requests take virtual time, and from a chosen request on the region fails in one of several ways.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use collector::clock::{Clock as _, VirtualClock};
use collector::store::{
    Head, Key, Listed, MemoryStore, Object, Operation, SharedStore, Store, StoreError, Version, Write,
};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;

/// Latency of a request, drawn from this range in milliseconds.
const LATENCY_MS: (u64, u64) = (20, 180);
/// Factor on the latency of a slow region.
const SLOWNESS: u64 = 50;
/// How long a request to a region waits that does not answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Writes of this time before a failure are lost with it, where the region loses writes.
const LOST: TimeDelta = TimeDelta::seconds(10);

/// In which way a region fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No process reaches it.
    Unreachable,
    /// Its own collector reaches it, and no other process does.
    Partitioned,
    /// Requests take fifty times as long.
    Slow,
    /// It refuses writes.
    ReadOnly,
    /// It lists only what existed when it failed.
    StaleListing,
    /// No process reaches it, and what was written in the last ten seconds is gone.
    LosesWrites,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unreachable,
        Self::Partitioned,
        Self::Slow,
        Self::ReadOnly,
        Self::StaleListing,
        Self::LosesWrites,
    ];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Partitioned => "partitioned",
            Self::Slow => "slow",
            Self::ReadOnly => "read-only",
            Self::StaleListing => "stale listing",
            Self::LosesWrites => "loses writes",
        }
    }
}

#[derive(Debug)]
struct State {
    rng: Pcg64Mcg,
    failed: Option<Failure>,
    /// Requests until it fails, and how.
    fails_after: Option<(u64, Failure)>,
    failed_at: Option<DateTime<Utc>>,
    /// What was listed when it failed.
    listed: BTreeSet<Key>,
    /// What recent writes replaced, the latest last.
    undo: Vec<(DateTime<Utc>, Key, Option<Vec<u8>>)>,
    requests: u64,
}

/// A region.
#[derive(Debug)]
pub(super) struct Region {
    name: &'static str,
    clock: Arc<VirtualClock>,
    objects: MemoryStore,
    state: Mutex<State>,
}

/// A region as somebody reaches it.
#[derive(Debug)]
struct Reached {
    region: Arc<Region>,
    is_inside: bool,
}

impl Region {
    pub(super) fn new(name: &'static str, clock: Arc<VirtualClock>, seed: u64) -> Arc<Self> {
        let state = State {
            rng: Pcg64Mcg::seed_from_u64(seed),
            failed: None,
            fails_after: None,
            failed_at: None,
            listed: BTreeSet::new(),
            undo: Vec::new(),
            requests: 0,
        };
        Arc::new(Self { name, clock, objects: MemoryStore::default(), state: Mutex::new(state) })
    }

    /// The store of the region for a collector in it, or for somebody elsewhere.
    pub(super) fn reached(self: &Arc<Self>, is_inside: bool) -> SharedStore {
        Arc::new(Reached { region: Arc::clone(self), is_inside })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets it fail after a number of requests.
    pub(super) fn fail_after(&self, requests: u64, failure: Failure) {
        self.state().fails_after = Some((requests, failure));
    }

    /// Lets it fail now, unless it has failed.
    pub(super) async fn fail_now(&self) -> Result<(), StoreError> {
        let due = self.state().fails_after.take();
        if let Some((_, failure)) = due {
            self.fail(failure).await?;
        }
        Ok(())
    }

    /// Ends the failure.
    pub(super) fn recover(&self) {
        self.state().failed = None;
    }

    /// When it failed.
    pub(super) fn failed_at(&self) -> Option<DateTime<Utc>> {
        self.state().failed_at
    }

    /// The number of requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.state().requests
    }

    async fn fail(&self, failure: Failure) -> Result<(), StoreError> {
        let now = self.clock.now();
        let listed = self.objects.list("").await?.into_iter().map(|listed| listed.key).collect();
        let undo = {
            let mut state = self.state();
            (state.failed, state.failed_at, state.listed) = (Some(failure), Some(now), listed);
            std::mem::take(&mut state.undo)
        };
        if failure != Failure::LosesWrites {
            return Ok(());
        }
        for (_, key, before) in undo.into_iter().rev().filter(|(at, ..)| now - *at <= LOST) {
            let Some(found) = self.objects.get(&key).await? else { continue };
            match before {
                Some(bytes) => _ = self.objects.replace(&key, &bytes, &found.version).await?,
                None => self.objects.delete(&key).await?,
            }
        }
        Ok(())
    }

    /// Takes the time of a request, and fails it if the region does.
    async fn ask(&self, operation: Operation, key: &str, is_inside: bool) -> Result<(), StoreError> {
        let is_due = {
            let mut state = self.state();
            state.requests += 1;
            match &mut state.fails_after {
                Some((0, failure)) => Some(*failure),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some(failure) = is_due {
            self.state().fails_after = None;
            self.fail(failure).await?;
        }
        let (failed, latency) = {
            let mut state = self.state();
            let (least, most) = LATENCY_MS;
            let latency = least + state.rng.next_u64() % (most - least);
            (state.failed, latency)
        };
        let is_write = !matches!(operation, Operation::Get | Operation::List);
        let refused = |why: &'static str, outcome_unknown| {
            let target = format!("{}/{key}", self.name);
            Err(StoreError { operation, target, outcome_unknown, source: why.into() })
        };
        let is_away = match failed {
            Some(Failure::Unreachable | Failure::LosesWrites) => true,
            Some(Failure::Partitioned) => !is_inside,
            _ => false,
        };
        if is_away {
            self.clock.sleep(TIMEOUT).await;
            return refused("the region does not answer", is_write);
        }
        let factor = if failed == Some(Failure::Slow) { SLOWNESS } else { 1 };
        self.clock.sleep(Duration::from_millis(latency * factor)).await;
        if is_write && failed == Some(Failure::ReadOnly) {
            return refused("the region accepts no writes", false);
        }
        Ok(())
    }

    /// Remembers what a write is about to replace.
    async fn note(&self, key: &Key) -> Result<(), StoreError> {
        let before = self.objects.get(key).await?.map(|object| object.bytes);
        let now = self.clock.now();
        let mut state = self.state();
        state.undo.retain(|(at, ..)| now - *at <= LOST);
        state.undo.push((now, key.clone(), before));
        Ok(())
    }
}

#[async_trait]
impl Store for Reached {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.region.ask(Operation::Get, key.as_str(), self.is_inside).await?;
        self.region.objects.get(key).await
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>, StoreError> {
        self.region.ask(Operation::Get, key.as_str(), self.is_inside).await?;
        self.region.objects.head(key).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Write, StoreError> {
        self.region.ask(Operation::Create, key.as_str(), self.is_inside).await?;
        if self.region.objects.get(key).await?.is_none() {
            self.region.note(key).await?;
        }
        self.region.objects.create(key, bytes).await
    }

    async fn replace(&self, key: &Key, bytes: &[u8], expected: &Version) -> Result<Write, StoreError> {
        self.region.ask(Operation::Replace, key.as_str(), self.is_inside).await?;
        if self.region.objects.get(key).await?.is_some_and(|found| found.version == *expected) {
            self.region.note(key).await?;
        }
        self.region.objects.replace(key, bytes, expected).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.region.ask(Operation::List, prefix, self.is_inside).await?;
        let mut listed = self.region.objects.list(prefix).await?;
        let state = self.region.state();
        if state.failed == Some(Failure::StaleListing) {
            listed.retain(|object| state.listed.contains(&object.key));
        }
        Ok(listed)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.region.ask(Operation::Delete, key.as_str(), self.is_inside).await?;
        self.region.note(key).await?;
        self.region.objects.delete(key).await
    }

    fn location(&self) -> String {
        self.region.name.to_owned()
    }

    fn is_sound_by_construction(&self) -> bool {
        true
    }

    fn proves_content(&self) -> bool {
        true
    }
}
