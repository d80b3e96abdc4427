//! The documents' scalability matrix and their table of headroom, with what was computed and simulated beside.

use chrono::TimeDelta;
use serde::Serialize;

use super::{Limit, plain_limit};
use crate::scenario::Played;

/// A row of the scalability matrix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixRow {
    /// How many times more events.
    pub rate: f64,
    /// Between two polls, in seconds.
    pub interval_s: i64,
    /// What the documents say.
    pub documented: &'static str,
    /// By which factor the plain formula leaves room.
    pub computed: f64,
    /// By which factor the simulated months with the real rhythm leave room.
    pub simulated: f64,
    /// What to do.
    pub verdict: String,
}

/// The documents' rows: rate, interval in minutes, what they say.
const DOCUMENTED: [(f64, i64, &str); 5] = [
    (1.0, 30, "no change, OK"),
    (10.0, 30, "no change, 30x headroom, OK"),
    (50.0, 15, "poll every 15 min, 6x headroom, OK"),
    (50.0, 30, "(not said)"),
    (100.0, 30, "architectural changes, API limit"),
];

/// Holds the documents' matrix against the limits.
#[must_use]
pub fn matrix(base_rate: f64, limits: &[Limit]) -> Vec<MatrixRow> {
    let daily = |interval_s: i64| {
        let mut limits = limits.iter().filter(|limit| limit.traffic == "daily" && limit.missed_polls == 0);
        limits.find(|limit| limit.interval_s == interval_s).map(|limit| limit.max_rate_simulated)
    };
    let enough = |rate: f64| {
        let daily = limits.iter().filter(|limit| limit.traffic == "daily" && limit.missed_polls == 0);
        daily.filter(|limit| limit.max_rate_simulated >= rate).map(|limit| limit.interval_s).max()
    };
    let rows = DOCUMENTED.into_iter().filter_map(|(rate, minutes, documented)| {
        let interval = TimeDelta::minutes(minutes);
        let simulated = daily(interval.num_seconds())? / rate;
        let verdict = match (simulated >= 1.0, enough(rate)) {
            (true, _) if simulated < 2.0 => "nothing lost, but a missed poll may lose events".to_owned(),
            (true, _) => "nothing lost".to_owned(),
            (false, Some(interval_s)) => {
                format!("events are lost; a poll every {} min is enough", interval_s / 60)
            }
            (false, None) => "events are lost at every interval".to_owned(),
        };
        Some(MatrixRow {
            rate,
            interval_s: interval.num_seconds(),
            documented,
            computed: plain_limit(base_rate, interval, 0) / rate,
            simulated,
            verdict,
        })
    });
    rows.collect()
}

/// A row of the table of resources.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResourceRow {
    /// The documents' name for it.
    pub resource: &'static str,
    /// What the documents say: current, maximum, headroom.
    pub documented: &'static str,
    /// What follows from the values.
    pub computed: String,
    /// What was measured in a simulated day.
    pub simulated: String,
    /// Whether it limits anything.
    pub verdict: String,
}

/// Holds the documents' headroom against a day at rate 1 that was played, a poll every half hour.
#[must_use]
pub fn resources(base_rate: f64, day: &Played, stored_bytes: u64, limits: &[Limit]) -> Vec<ResourceRow> {
    let polls = day.polls.max(1) as f64;
    let cpu_share = day.cpu_s / polls * 48.0 / 86_400.0;
    let wire = day.feed.wire_bytes as f64 / polls;
    let a_day = 48.0;
    let buffer = limits
        .iter()
        .find(|limit| (limit.traffic, limit.interval_s, limit.missed_polls) == ("daily", 1_800, 0))
        .map_or(f64::NAN, |limit| limit.max_rate_simulated);
    let megabytes = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
    let row = |resource, documented, computed: String, simulated: String, verdict: &str| ResourceRow {
        resource,
        documented,
        computed,
        simulated,
        verdict: verdict.to_owned(),
    };
    vec![
        row(
            "CPU",
            "<1%, 100%, 100x",
            "–".to_owned(),
            format!("{:.4} % of one CPU, simulated feed included", cpu_share * 100.0),
            "no limit",
        ),
        row(
            "Memory",
            "50 MB, 8 GB, 160x",
            "–".to_owned(),
            format!("{} in this process, feed and archive included", megabytes(day.peak_rss_bytes as f64)),
            "no limit: it does not grow with the rate beyond the buffer",
        ),
        row(
            "API rate limit",
            "48/day, 1,440/day, 30x",
            "48 of 1,440 calls a day: 30x".to_owned(),
            format!("{} calls in a day, {} refused", day.feed.calls, day.feed.too_often),
            "a limit: the interval cannot fall below one minute",
        ),
        row(
            "API buffer",
            "1.8/poll, 500/poll, 277x",
            format!("{:.0}x for an even flow", plain_limit(base_rate, TimeDelta::minutes(30), 0)),
            format!("{buffer:.0}x with the real rhythm"),
            "THE limit, by the morning and not by the mean",
        ),
        row(
            "Network",
            "0.01%, 100 Mbit/s, 10,000x",
            format!("{:.5} % of 100 Mbit/s", wire * a_day * 8.0 / 86_400.0 / 1e8 * 100.0),
            format!("{} a day, compressed", megabytes(wire * a_day)),
            "no limit",
        ),
        row(
            "Storage",
            "unlimited",
            "–".to_owned(),
            format!("{} a year at rate 1", megabytes(stored_bytes as f64 * 365.0)),
            "no limit",
        ),
    ]
}
