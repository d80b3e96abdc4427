//! One drill.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{Archive, ArchiveError, ArchiveOptions, Deposit, Liveness, Outcome};
use collector::clock::{Clock as _, VirtualClock};
use collector::event::{Response, parse_line};
use collector::mirror::adopt::{Adoption, OldPrimary, adopt};
use collector::mirror::{Mirror, MirrorError, MirrorOptions};
use collector::quantity::Quantity;
use collector::store::SharedStore;
use fixtures::{Feed, FeedConfig, Traffic, What};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;

use super::region::{Failure, Region};
use crate::scenario::BUFFER;

/// How often a command is repeated, an interval later each time, until a drill counts as failed.
const TRIES: u32 = 8;

/// What came of a drill.
#[derive(Debug, Clone, Serialize)]
pub struct Drilled {
    /// Everything follows from it.
    pub seed: u64,
    /// How many times more events than at the base rate.
    pub rate: f64,
    /// Between two polls, in seconds.
    pub interval_s: i64,
    /// How the region failed.
    pub failure: Failure,
    /// From the failure to the promotion, in seconds: how long it took to notice and to decide.
    pub outage_s: f64,
    /// Whether everything that was published since the last commit of the replica was still in the feed at the first run.
    pub is_within: bool,
    /// Age of the last commit of the replica when the region failed, in seconds.
    pub recovery_point_s: f64,
    /// Time of the promotion and the first run, in seconds.
    pub recovery_time_s: f64,
    /// Whether the old primary was fenced by the promotion.
    pub is_fenced: bool,
    /// Events that were published and not withdrawn at once.
    pub published: usize,
    /// Of these, those that are not stored in the end.
    pub lost: usize,
    /// Events or versions that stand twice in an archive.
    pub duplicates: usize,
    /// Whether a run reported a possible gap.
    pub is_gap_reported: bool,
    /// Commits that only the old primary had when both were reconciled.
    pub split_commits: u64,
    /// Requests to both regions.
    pub requests: u64,
    /// What does not hold in the end.
    pub problems: Vec<String>,
}

impl Drilled {
    /// What went wrong, if anything did that an outage within the tolerance may not cause.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let mut faults = self.problems.clone();
        if self.lost > 0 && self.is_within {
            faults.push(format!("{} events are lost", self.lost));
        }
        if self.lost > 0 && !self.is_within && !self.is_gap_reported {
            faults.push(format!("{} events are lost, and no run reported a possible gap", self.lost));
        }
        if self.duplicates > 0 {
            faults.push(format!("{} duplicates", self.duplicates));
        }
        (!faults.is_empty()).then(|| faults.join("; "))
    }
}

/// Knows of no process whether it has ended, as on another machine.
#[derive(Debug)]
struct Elsewhere(&'static str);

impl Liveness for Elsewhere {
    fn name(&self) -> String {
        self.0.to_owned()
    }

    fn is_gone(&self, _: &str) -> bool {
        false
    }
}

struct Drill {
    clock: Arc<VirtualClock>,
    interval: TimeDelta,
    due: DateTime<Utc>,
    rng: Pcg64Mcg,
    feed: Feed,
    regions: [Arc<Region>; 2],
    /// The archives as the collectors in the regions reach them.
    inside: [Archive; 2],
    /// The archives as mirrors and people reach them.
    outside: [Archive; 2],
    /// When each event was published that a collector can have seen.
    published: BTreeMap<u64, DateTime<Utc>>,
    is_gap_reported: bool,
    problems: Vec<String>,
}

/// Carries out a drill.
pub(super) async fn carry_out(
    seed: u64,
    rate: f64,
    base_rate: f64,
    interval: TimeDelta,
    failure: Failure,
) -> anyhow::Result<Drilled> {
    let mut drill = Drill::new(seed, rate, base_rate, interval);
    let polls = 10 + drill.below(30);
    for _ in 0..polls {
        drill.poll(0).await;
        drill.mirror(0, 1).await;
        drill.wait();
    }
    // In the middle of a run, of an update, or between them.
    let after = drill.below(80);
    drill.regions[0].fail_after(after, failure);
    drill.poll(0).await;
    drill.mirror(0, 1).await;
    drill.regions[0].fail_now().await?;
    let failed_at = drill.regions[0].failed_at().context("the region did not fail")?;
    let longest = if rate < 5.0 { 96 } else { 12 };
    for _ in 0..drill.below(longest) {
        drill.wait();
        drill.poll(0).await;
        drill.mirror(0, 1).await;
    }
    let split = drill.below(1_000) < 500;
    drill.wait();

    let outage_s = seconds(drill.clock.now() - failed_at);
    let began = drill.clock.elapsed();
    let adopted = drill.promote(1, 0).await.context("the replica cannot be promoted")?;
    let covered_at = adopted.committed_at.unwrap_or(failed_at);
    let is_within = drill.is_within(covered_at);
    drill.poll(1).await;
    let recovery_time_s = drill.clock.since(began).as_secs_f64();

    for _ in 0..=drill.below(8) {
        drill.wait();
        if split {
            drill.poll(0).await;
        }
        drill.poll(1).await;
    }
    drill.regions[0].recover();
    for _ in 0..=drill.below(8) {
        drill.wait();
        if split {
            drill.poll(0).await;
        }
        drill.poll(1).await;
    }
    let split_commits = drill.come_back().await;
    let (lost, duplicates) = drill.judge().await?;
    let requests = drill.regions.iter().map(|region| region.requests()).sum();
    Ok(Drilled {
        seed,
        rate,
        interval_s: interval.num_seconds(),
        failure,
        outage_s,
        is_within,
        recovery_point_s: seconds(failed_at - covered_at).max(0.0),
        recovery_time_s,
        is_fenced: adopted.fence == OldPrimary::Fenced,
        published: drill.published.len(),
        lost,
        duplicates,
        is_gap_reported: drill.is_gap_reported,
        split_commits,
        requests,
        problems: drill.problems,
    })
}

fn seconds(delta: TimeDelta) -> f64 {
    delta.as_seconds_f64()
}

impl Drill {
    fn new(seed: u64, rate: f64, base_rate: f64, interval: TimeDelta) -> Self {
        let config = FeedConfig {
            seed,
            buffer: BUFFER,
            events_per_hour: base_rate,
            rate,
            traffic: Traffic::Daily,
            ..FeedConfig::default()
        };
        let mut feed = Feed::new(config);
        // What lies before the start is in the buffer, or was never seen.
        feed.drain_log();
        let clock = Arc::new(VirtualClock::at(feed.now()));
        let regions = [("a", 1), ("b", 2)].map(|(name, salt)| Region::new(name, clock.clone(), seed ^ salt));
        let archive = |store: SharedStore, who: &'static str| {
            Archive::new(store, clock.clone(), ArchiveOptions::default())
                .with_liveness(Arc::new(Elsewhere(who)))
        };
        let inside = [("collector of a", 0), ("collector of b", 1)]
            .map(|(who, region)| archive(regions[region].reached(true), who));
        let outside = [0, 1].map(|region| archive(regions[region].reached(false), "operator"));
        Self {
            due: feed.now(),
            rng: Pcg64Mcg::seed_from_u64(seed),
            published: feed.full_response().events().iter().map(|event| (event.id(), feed.now())).collect(),
            clock,
            interval,
            feed,
            regions,
            inside,
            outside,
            is_gap_reported: false,
            problems: Vec::new(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    /// Until the next poll is due.
    fn wait(&mut self) {
        self.due += self.interval;
        self.clock.set(self.clock.now().max(self.due));
    }

    /// Lets everything happen in the feed that happens until now.
    fn advance(&mut self) {
        self.feed.advance_to(self.clock.now());
        for change in self.feed.drain_log() {
            match change.what {
                What::Published | What::Restored => {
                    self.published.entry(change.event.id()).or_insert(change.at);
                }
                // A collector may not have seen it.
                What::Withdrawn => _ = self.published.remove(&change.event.id()),
                What::Corrected | What::Touched => {}
            }
        }
    }

    /// One run in a region. It may fail, if the region does.
    async fn poll(&mut self, region: usize) {
        self.advance();
        let body = self.feed.response().compact();
        if let Ok(Ok(deposit)) = self.run(region, &body).await
            && deposit.quantities.is_set(Quantity::PossibleGap)
        {
            self.is_gap_reported = true;
        }
    }

    /// A run on a body; the inner error is that of the archive.
    async fn run(&self, region: usize, body: &[u8]) -> anyhow::Result<Result<Deposit, ArchiveError>> {
        let archive = &self.inside[region];
        let (start, response) = (self.clock.now(), Response::parse(body).context("the feed is not valid")?);
        let stored = async {
            let snapshot = archive.open().await?;
            Ok(archive.deposit(&response, snapshot, start).await?.0)
        };
        Ok(stored.await)
    }

    fn mirror_of(&self, from: usize, to: usize) -> Mirror {
        Mirror::new(self.outside[from].clone(), self.outside[to].clone(), MirrorOptions::default())
    }

    async fn mirror(&mut self, from: usize, to: usize) {
        if let Ok(report) = self.mirror_of(from, to).update(|_| {}).await
            && report.conflicts_total > 0
        {
            self.problems.push(format!("conflicts: {:?}", report.conflicts));
        }
    }

    /// Whether everything that was published since a moment is still in the feed.
    fn is_within(&mut self, since: DateTime<Utc>) -> bool {
        self.advance();
        let in_feed: BTreeSet<u64> =
            self.feed.full_response().events().iter().map(|event| event.id()).collect();
        self.published.iter().filter(|(_, at)| **at >= since).all(|(id, _)| in_feed.contains(id))
    }

    async fn promote(&mut self, region: usize, old: usize) -> Result<Adoption, MirrorError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let adopted = adopt(&self.outside[region], Some(&self.outside[old]), None, false).await;
            match adopted {
                Err(_) if tries < TRIES => self.wait(),
                adopted => return adopted,
            }
        }
    }

    /// Reconciles both, exchanges the roles again, and lets both hold the same. Number of commits that only the old one had.
    async fn come_back(&mut self) -> u64 {
        let mut tries = 0;
        let split_commits = loop {
            tries += 1;
            match self.mirror_of(1, 0).reconcile(|_| {}).await {
                Ok(reconciled) if reconciled.mirror.is_complete() => break reconciled.commits,
                Ok(reconciled) if tries == TRIES => {
                    self.problems.push(format!("not reconciled: {:?}", reconciled.mirror));
                    break reconciled.commits;
                }
                Err(error) if tries == TRIES => {
                    self.problems.push(format!("not reconciled: {error}"));
                    break 0;
                }
                _ => self.wait(),
            }
        };
        self.wait();
        self.poll(1).await;
        if let Err(error) = self.promote(0, 1).await {
            self.problems.push(format!("roles not exchanged: {error}"));
            return split_commits;
        }
        self.advance();
        let body = self.feed.full_response().compact();
        for _ in 0..TRIES {
            match self.run(0, &body).await {
                Ok(Ok(deposit)) if deposit.outcome == Outcome::Stored => break,
                _ => self.wait(),
            }
        }
        match self.mirror_of(0, 1).update(|_| {}).await {
            Ok(report) if report.is_complete() => {}
            other => self.problems.push(format!("not mirrored in the end: {other:?}")),
        }
        split_commits
    }

    /// Events that are lost, and events and versions that stand twice.
    async fn judge(&mut self) -> anyhow::Result<(usize, usize)> {
        let (mut stored, mut duplicates) = (Vec::new(), 0);
        for region in 0..2 {
            let findings = self.outside[region].audit(|_, _| {}).await?.findings;
            if !findings.is_sound() {
                self.problems.push(format!("region {region} is not sound: {:?}", findings.problems));
            }
            let (ids, of_region) = read(&self.regions[region].reached(true)).await?;
            duplicates += of_region;
            stored.push(ids);
        }
        if stored[0] != stored[1] {
            self.problems.push("the regions do not hold the same events".to_owned());
        }
        let lost = self.published.keys().filter(|&&id| !stored[0].contains(&id)).count();
        Ok((lost, duplicates))
    }
}

/// The ids under `events/`, and how many events or versions stand there more than once.
async fn read(store: &SharedStore) -> anyhow::Result<(BTreeSet<u64>, usize)> {
    let (mut ids, mut versions, mut duplicates) = (BTreeSet::new(), BTreeSet::new(), 0);
    for folder in ["events/", "revisions/"] {
        for listed in store.list(folder).await? {
            let Some(object) = store.get(&listed.key).await? else { continue };
            for line in object.bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                let event = parse_line(line).with_context(|| format!("{}", listed.key))?;
                let is_new_event = folder != "events/" || ids.insert(u64::try_from(event.id)?);
                let is_new_version = versions.insert((event.id, event.fingerprint));
                duplicates += usize::from(!is_new_event || !is_new_version);
            }
        }
    }
    Ok((ids, duplicates))
}
