//! How often a run succeeds, with retries and without, and what is lost when it does not.

use chrono::TimeDelta;
use collector::analysis::statistics::Share;
use serde::Serialize;

use crate::feed::faults::{Fault, Outage};
use crate::scenario::{Played, Scenario, Traffic, play_all};
use crate::timeline;

/// How often a failed call is repeated where it is.
pub const RETRIES: u32 = 3;
/// Between two polls.
const INTERVAL: TimeDelta = TimeDelta::minutes(30);

/// What is measured.
#[derive(Debug, Clone)]
pub struct Question {
    /// Shares of the calls that fail, each by itself.
    pub fault_rates: Vec<f64>,
    /// Runs for each of them.
    pub runs: u32,
    /// In which ways calls fail.
    pub faults: Vec<Fault>,
    /// Everything follows from it.
    pub seed: u64,
}

/// One experiment: the same faults with and without retries.
#[derive(Debug, Clone, Serialize)]
pub struct Experiment {
    /// What goes wrong.
    pub what: String,
    /// Runs that succeed, each failed call given up.
    pub without_retries: Share,
    /// Runs that succeed, each failed call repeated three times.
    pub with_retries: Share,
    /// Events lost without and with retries.
    pub lost: [usize; 2],
}

/// A row of the documents' expected results.
#[derive(Debug, Clone, Serialize)]
pub struct Expected {
    /// The documents' name for it.
    pub metric: &'static str,
    /// What the documents say: before, after.
    pub documented: [&'static str; 2],
    /// What was measured: compression and retries off, on.
    pub measured: [String; 2],
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// With and without retries.
    pub experiments: Vec<Experiment>,
    /// The documents' table.
    pub expected_results: Vec<Expected>,
}

/// How many polls that takes, for those who wait.
#[must_use]
pub fn poll_count(question: &Question) -> u64 {
    scenarios(question).iter().map(|(_, pair)| pair.iter().map(Scenario::poll_count).sum::<u64>()).sum()
}

/// Measures it. `progress` hears of every poll.
///
/// # Errors
/// If a scenario cannot be played.
pub fn measure(question: &Question, progress: impl Fn() + Sync) -> anyhow::Result<Answer> {
    let (names, pairs): (Vec<String>, Vec<[Scenario; 2]>) = scenarios(question).into_iter().unzip();
    let all: Vec<Scenario> = pairs.into_iter().flatten().collect();
    let played = play_all(&all, progress)?;
    let pairs = played.chunks_exact(2).zip(names);
    let experiments: Vec<Experiment> = pairs
        .map(|(pair, what)| Experiment {
            what,
            without_retries: success(&pair[0]),
            with_retries: success(&pair[1]),
            lost: [pair[0].lost, pair[1].lost],
        })
        .collect();
    Ok(Answer { expected_results: expected_results(question)?, experiments })
}

fn success(played: &Played) -> Share {
    Share::new(played.polls - played.failed_polls, played.polls)
}

/// What is played, without and with retries.
fn scenarios(question: &Question) -> Vec<(String, [Scenario; 2])> {
    let days = f64::from(question.runs) * INTERVAL.as_seconds_f64() / 86_400.0;
    let pair = |days: f64, fault_rate: f64, outages: &[Outage]| {
        [0, RETRIES].map(|retries| Scenario {
            traffic: Traffic::Daily,
            interval: INTERVAL,
            days,
            seed: question.seed,
            fault_rate,
            faults: question.faults.clone(),
            outages: outages.to_vec(),
            retries,
            ..Scenario::default()
        })
    };
    let mut all: Vec<_> = question
        .fault_rates
        .iter()
        .map(|&rate| (format!("{} % of the calls fail", rate * 100.0), pair(days, rate, &[])))
        .collect();
    for hours in [2, 12] {
        let outage = Outage { after: TimeDelta::hours(30), lasts: TimeDelta::hours(hours) };
        let what = format!("an outage of {hours} h in three days, and 5 % of the calls fail");
        all.push((what, pair(3.0, 0.05, &[outage])));
    }
    all
}

/// Simulates the documents' case, 5 % of the calls failing, with everything off and everything on.
fn expected_results(question: &Question) -> anyhow::Result<Vec<Expected>> {
    let days = f64::from(question.runs) * INTERVAL.as_seconds_f64() / 86_400.0;
    let [off, on] = [false, true].map(|improved| Scenario {
        interval: INTERVAL,
        days,
        seed: question.seed,
        fault_rate: 0.05,
        faults: question.faults.clone(),
        retries: if improved { RETRIES } else { 0 },
        compression: improved,
        ..Scenario::default()
    });
    let played = play_all(&[off, on], || {})?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let plain = runtime.block_on(timeline::run_and_fetch_s(false))?;
    let compressed = runtime.block_on(timeline::run_and_fetch_s(true))?;
    let monthly = |played: &Played| {
        let a_response = played.feed.wire_bytes as f64 / played.feed.responses.max(1) as f64;
        format!("{:.0} MB", a_response * 48.0 * 30.0 / 1e6)
    };
    let percent = |played: &Played| {
        let Share { value, low, high } = success(played);
        format!("{:.1} % ({:.1} to {:.1})", value * 100.0, low * 100.0, high * 100.0)
    };
    let seconds = |seconds: f64| format!("{seconds:.2} s");
    let row = |metric, documented, measured| Expected { metric, documented, measured };
    Ok(vec![
        row("Execution Time", ["3.12s", "2.82s"], [seconds(plain.0), seconds(compressed.0)]),
        row("API Fetch Time", ["1.5s", "1.2s"], [seconds(plain.1), seconds(compressed.1)]),
        row("Reliability", ["~95%", "99.7%"], [percent(&played[0]), percent(&played[1])]),
        row("Monthly Bandwidth", ["474 MB", "237 MB"], [monthly(&played[0]), monthly(&played[1])]),
    ])
}
