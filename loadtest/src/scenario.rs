//! One scenario: a feed at some rate, the real collector that polls it, and what came of it.
//!
//! The feed is called over HTTP on this machine; collector and feed share a clock on which a week passes in seconds.
//! What was published is counted at the feed and what was stored in the archive, neither by what the collector says.

mod setup;
mod tally;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use chrono::{DateTime, TimeDelta, Utc};
use clap::ValueEnum;
use collector::archive::Outcome;
use collector::quantity::Quantity;
use collector::run::RunReport;
use fixtures::{Feed, FeedConfig};
use serde::Serialize;

use crate::clock::PollClock;
use crate::feed::faults::{Fault, FaultPlan, Outage};
use crate::feed::recording::Recording;
use crate::feed::wire::WireServer;
use crate::feed::{SimulatedFeed, Source, Usage};
pub(crate) use setup::Setup;
pub use tally::{Fill, Gaps, LossAt};
use tally::{Poll, Tally, Timings};

/// How long the collector of a scenario waits for an answer. Scenarios without timeouts never wait that long.
const PATIENCE: Duration = Duration::from_secs(2);
/// The number of polls after which the server forgets them, so that it does not grow.
const CALLS_KEPT: i32 = 200;
/// A feed's slots for events, as the real one has.
pub const BUFFER: usize = 500;

/// In what rhythm events come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// Random, at every hour alike (Poisson).
    Flat,
    /// With the day's and the week's rhythm and the morning batch of the real feed.
    Daily,
    /// As recorded, played faster by the rate.
    History(PathBuf),
}

/// Where the archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In this process.
    Memory,
    /// In a folder that is removed afterwards.
    Local,
    /// In a simulated Object Storage, over HTTP.
    Oci,
}

/// What is played.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// How many times more events than at the base rate.
    pub rate: f64,
    /// Events an hour at rate 1.
    pub base_rate: f64,
    /// The rhythm.
    pub traffic: Traffic,
    /// Between two polls.
    pub interval: TimeDelta,
    /// From the first poll to the last.
    pub days: f64,
    /// Everything follows from it.
    pub seed: u64,
    /// Where events are stored.
    pub store: StoreKind,
    /// Share of the calls that fail.
    pub fault_rate: f64,
    /// In which ways.
    pub faults: Vec<Fault>,
    /// Times without a feed.
    pub outages: Vec<Outage>,
    /// Polls missed in a row, every day in its busiest hour.
    pub miss_polls: u32,
    /// How often a failed call is repeated.
    pub retries: u32,
    /// Whether compressed responses are asked for.
    pub compression: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            rate: 1.0,
            base_rate: fixtures::DOCUMENTED_EVENTS_PER_HOUR,
            traffic: Traffic::Daily,
            interval: TimeDelta::minutes(30),
            days: 7.0,
            seed: 42,
            store: StoreKind::Memory,
            fault_rate: 0.0,
            faults: Vec::new(),
            outages: Vec::new(),
            miss_polls: 0,
            retries: 3,
            compression: true,
        }
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Played {
    /// How many times more events than at the base rate.
    pub rate: f64,
    /// Events an hour at rate 1.
    pub base_rate: f64,
    /// The rhythm.
    pub traffic: Traffic,
    /// Between two polls, in seconds.
    pub interval_s: i64,
    /// From the first poll to the last.
    pub days: f64,
    /// Everything follows from it.
    pub seed: u64,
    /// Events that stood in the feed when a poll was due or since the one before: what a collector can see.
    pub published: usize,
    /// Of these, those that are in the archive.
    pub stored: usize,
    /// Of these, those that are not.
    pub lost: usize,
    /// Not counted as published: what still stands in the feed after a last poll that failed or was missed.
    pub waiting: usize,
    /// Ids that stand in more than one line of the archive.
    pub duplicates: usize,
    /// Events in the archive that were published before the first poll and brought back by a sparse response.
    pub stored_earlier: usize,
    /// Bytes of all lines under `events/`, those of the first poll included.
    pub stored_bytes: u64,
    /// Withdrawn before the next poll was due: no poll could have seen them.
    pub withdrawn_unseen: usize,
    /// Polls that were made.
    pub polls: usize,
    /// Polls that did not succeed.
    pub failed_polls: usize,
    /// Polls that were not made.
    pub missed_polls: usize,
    /// The maximum of new events in one poll, the first one left out.
    pub max_new_per_poll: usize,
    /// The fewest known events in a full response, sparse ones and the first left out.
    pub min_overlap: Option<usize>,
    /// How reports of possible gaps compare with what was lost.
    pub gaps: Gaps,
    /// When lost events were published, by the hour of the day in Stockholm.
    pub lost_by_hour: Vec<LossAt>,
    /// How the feed was used.
    pub feed: Usage,
    /// How full the buffer was of events that were new, over time.
    pub fill: Vec<Fill>,
    /// The most memory that this process ever had, in bytes.
    pub peak_rss_bytes: u64,
    /// CPU time of this process during the scenario, feed included, in seconds.
    pub cpu_s: f64,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
    /// How long the steps of a run took, in seconds.
    pub timings: Timings,
}

/// Simulates a scenario. `progress` is called for each poll.
///
/// # Errors
/// If something cannot be set up, or the archive cannot be read in the end.
pub async fn simulate(scenario: &Scenario, progress: impl Fn()) -> anyhow::Result<Played> {
    let began = std::time::Instant::now();
    let cpu_before_s = crate::process::cpu_s();
    let source = source_of(scenario)?;
    let start = start_of(&source);
    let clock = Arc::new(PollClock::at(start));
    let plan = FaultPlan::new(start, scenario.fault_rate, &scenario.faults, &scenario.outages, scenario.seed);
    let feed = SimulatedFeed::new(source, plan);
    let server = WireServer::start(feed.clone(), clock.clone(), 2 * PATIENCE).await;
    let setup = Setup::new(scenario, &server.uri(), clock.clone()).await?;

    let mut tally = Tally::new(start, scenario.rate);
    for number in 0..i32::try_from(scenario.poll_count())? {
        let due = start + scenario.interval * number;
        clock.advance_to(due);
        feed.advance_to(due);
        feed.look(|source| tally.note_due(source, due));
        if is_missed(scenario, number, due) {
            tally.missed_polls += 1;
        } else {
            let report = setup.collector.run().await;
            let poll = poll_of(&report, due);
            feed.look(|source| tally.note_poll(&poll, source, &report.record.quantities));
        }
        if number % CALLS_KEPT == 0 {
            server.forget_calls().await;
        }
        progress();
    }
    let stored = setup.stored_ids().await.context("the archive cannot be read")?;
    let verdict = tally.judge(&stored, &feed.look(|source| source.ids()));
    Ok(Played {
        rate: scenario.rate,
        base_rate: scenario.base_rate,
        traffic: scenario.traffic.clone(),
        interval_s: scenario.interval.num_seconds(),
        days: scenario.days,
        seed: scenario.seed,
        published: verdict.published,
        stored: verdict.stored,
        lost: verdict.lost,
        waiting: verdict.waiting,
        duplicates: stored.duplicates,
        stored_earlier: verdict.stored_earlier,
        stored_bytes: stored.bytes,
        withdrawn_unseen: tally.withdrawn_unseen,
        polls: tally.polls,
        failed_polls: tally.failed_polls,
        missed_polls: tally.missed_polls,
        max_new_per_poll: tally.max_new_per_poll,
        min_overlap: tally.min_overlap,
        gaps: tally.gaps,
        lost_by_hour: verdict.lost_by_hour,
        feed: feed.usage(),
        fill: tally.fill(),
        peak_rss_bytes: crate::process::peak_rss_bytes(),
        cpu_s: crate::process::cpu_s() - cpu_before_s,
        elapsed_s: began.elapsed().as_secs_f64(),
        timings: tally.timings(),
    })
}

fn source_of(scenario: &Scenario) -> anyhow::Result<Source> {
    let traffic = match &scenario.traffic {
        Traffic::Flat => fixtures::Traffic::Flat,
        Traffic::Daily => fixtures::Traffic::Daily,
        Traffic::History(folder) => return Ok(Source::Recorded(Recording::open(folder, scenario.rate)?)),
    };
    let config = FeedConfig {
        seed: scenario.seed,
        buffer: BUFFER,
        events_per_hour: scenario.base_rate,
        rate: scenario.rate,
        traffic,
        ..FeedConfig::default()
    };
    Ok(Source::Simulated(Box::new(Feed::new(config))))
}

fn start_of(source: &Source) -> DateTime<Utc> {
    match source {
        Source::Simulated(feed) => feed.now(),
        Source::Recorded(recording) => recording.start(),
    }
}

impl Scenario {
    /// How many polls there are, the first one included.
    #[must_use]
    pub fn poll_count(&self) -> u64 {
        let polls = self.days * 86_400.0 / self.interval.num_seconds() as f64;
        polls.floor() as u64 + 1
    }
}

/// Simulates scenarios, as many at a time as there are processors; the results are in their order.
///
/// `progress` hears of every poll.
///
/// # Errors
/// The first of the scenarios that fails.
pub fn play_all(scenarios: &[Scenario], progress: impl Fn() + Sync) -> anyhow::Result<Vec<Played>> {
    let next = Mutex::new(scenarios.iter().enumerate());
    let done = Mutex::new(Vec::new());
    let play_one = |scenario: &Scenario| -> anyhow::Result<Played> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(simulate(scenario, &progress))
    };
    let work = || {
        while let Some((number, scenario)) = next.lock().ok().and_then(|mut next| next.next()) {
            let result = play_one(scenario);
            if let Ok(mut done) = done.lock() {
                done.push((number, result));
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(scenarios.len());
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().map_err(|_| anyhow!("a scenario broke off"))?;
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Whether a poll falls into the time of day when polls are missed: from 7 o'clock, as many as asked for.
fn is_missed(scenario: &Scenario, number: i32, due: DateTime<Utc>) -> bool {
    let since_seven =
        fixtures::stockholm::local(due).time() - chrono::NaiveTime::from_hms_opt(7, 0, 0).unwrap_or_default();
    let missed = scenario.interval * i32::try_from(scenario.miss_polls).unwrap_or(i32::MAX);
    number > 0 && since_seven >= TimeDelta::zero() && since_seven < missed
}

fn poll_of(report: &RunReport, due: DateTime<Utc>) -> Poll {
    let deposit = report.result.as_ref().ok().filter(|deposit| deposit.outcome == Outcome::Stored);
    Poll {
        due,
        succeeded: deposit.is_some(),
        total: report.record.quantities.count(Quantity::ApiEventsTotal).unwrap_or(0),
        new: deposit.map_or(0, |deposit| deposit.count(Quantity::NewEventsCount)),
        overlap: deposit.map_or(0, |deposit| deposit.count(Quantity::BufferOverlap)),
        possible_gap: deposit.is_some_and(|deposit| deposit.quantities.is_set(Quantity::PossibleGap)),
        sparse: deposit.is_some_and(|deposit| deposit.quantities.is_set(Quantity::SparseResponse)),
    }
}
