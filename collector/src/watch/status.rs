//! What the service did and is about to do: the last month of runs, and figures since it began.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::metrics::Metrics;
use super::pace::Reason;
use crate::record::{self, RunRecord};

/// A month of half hours.
pub const MOST_RUNS: usize = 31 * 48;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Everything new is stored.
    Success,
    /// Another run was at work.
    LeftToAnother,
    /// It failed.
    Failed,
}

impl Ended {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Success, Self::LeftToAnother, Self::Failed];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::LeftToAnother => "left_to_another",
            Self::Failed => "failed",
        }
    }
}

/// A run in few words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSummary {
    /// When it began.
    pub start: DateTime<Utc>,
    /// How long it took, in seconds.
    pub total_s: f64,
    /// How it ended.
    pub ended: Ended,
    /// Why it failed.
    pub error: Option<String>,
    /// Elements of the response.
    pub events: Option<usize>,
    /// New events.
    pub new: usize,
    /// New versions of known events.
    pub revised: usize,
    /// Elements that are no events.
    pub rejected: usize,
    /// Events of the response that were known.
    pub overlap: Option<usize>,
    /// Whether events may have been missed before it.
    pub possible_gap: bool,
    /// Whether the response was spread over months.
    pub sparse: bool,
}

impl RunSummary {
    fn of(record: &RunRecord) -> Self {
        let RunRecord { total_time, counts, errors, possible_gap, sparse_response, .. } = record;
        let ended = match (record.status, &record.left_to) {
            (record::Status::Failed, _) => Ended::Failed,
            (record::Status::Success, Some(_)) => Ended::LeftToAnother,
            (record::Status::Success, None) => Ended::Success,
        };
        let deposit = counts.deposit.filter(|_| ended == Ended::Success);
        #[expect(clippy::cast_possible_truncation, reason = "microseconds since 1970")]
        let start = DateTime::from_timestamp_micros((record.start_time * 1e6) as i64);
        Self {
            start: start.unwrap_or_default(),
            total_s: *total_time,
            ended,
            error: errors.last().map(|error| error.message.clone()),
            events: counts.api_events_total,
            new: deposit.map_or(0, |counts| counts.new_events_count),
            revised: deposit.map_or(0, |counts| counts.revisions_count),
            rejected: deposit.map_or(0, |counts| counts.rejected_count),
            overlap: deposit.map(|counts| counts.buffer_overlap),
            possible_gap: *possible_gap,
            sparse: *sparse_response,
        }
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Plan {
    /// When the next poll is.
    pub next_poll: DateTime<Utc>,
    /// The time between two polls now, in seconds.
    pub interval_s: f64,
    /// Why it is that.
    pub reason: Reason,
    /// Polls that failed one after the other.
    pub failures: u32,
}

/// What can be seen at a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// When the service began.
    pub started: DateTime<Utc>,
    /// When the poll at hand began.
    pub polling_since: Option<DateTime<Utc>>,
    /// When a run last succeeded.
    pub last_success: Option<DateTime<Utc>>,
    /// What comes next.
    pub plan: Option<Plan>,
    /// Runs, the latest first.
    pub runs: Vec<RunSummary>,
}

/// What the service did and is about to do.
#[derive(Debug)]
pub struct Status {
    state: Mutex<State>,
    metrics: Metrics,
    /// How many events a full response holds.
    buffer: usize,
}

#[derive(Debug)]
struct State {
    started: DateTime<Utc>,
    polling_since: Option<DateTime<Utc>>,
    last_success: Option<DateTime<Utc>>,
    plan: Option<Plan>,
    runs: VecDeque<RunSummary>,
}

impl Status {
    /// Nothing was done yet.
    ///
    /// # Errors
    /// If the library refuses a name of a metric, which is a fault of this program.
    pub fn new(started: DateTime<Utc>, buffer: usize) -> Result<Self, prometheus::Error> {
        let (polling_since, last_success, plan, runs) = (None, None, None, VecDeque::new());
        let metrics = Metrics::new(started)?;
        let state = Mutex::new(State { started, polling_since, last_success, plan, runs });
        Ok(Self { state, metrics, buffer })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures, for Prometheus.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How many events a full response holds.
    #[must_use]
    pub fn buffer(&self) -> usize {
        self.buffer
    }

    pub(super) fn plan(&self, next_poll: DateTime<Utc>, interval: Duration, reason: Reason, failures: u32) {
        let plan = Plan { next_poll, interval_s: interval.as_secs_f64(), reason, failures };
        self.metrics.note_plan(&plan);
        self.state().plan = Some(plan);
    }

    pub(super) fn begin(&self, now: DateTime<Utc>) {
        self.state().polling_since = Some(now);
    }

    /// Takes a run into account.
    pub fn note(&self, record: &RunRecord) {
        let summary = RunSummary::of(record);
        self.metrics.note_run(record, &summary);
        self.state().remember(summary);
    }

    /// Takes over what earlier processes did, the oldest run first. What is counted since the service began does not count them.
    pub fn recall(&self, records: impl IntoIterator<Item = RunRecord>) {
        for record in records {
            let summary = RunSummary::of(&record);
            self.metrics.note_last(&record, &summary);
            self.state().remember(summary);
        }
    }

    /// What can be seen now, with the last runs.
    #[must_use]
    pub fn view(&self, most_runs: usize) -> View {
        let state = self.state();
        View {
            started: state.started,
            polling_since: state.polling_since,
            last_success: state.last_success,
            plan: state.plan,
            runs: state.runs.iter().take(most_runs).cloned().collect(),
        }
    }
}

impl State {
    fn remember(&mut self, run: RunSummary) {
        self.polling_since = None;
        if run.ended == Ended::Success {
            self.last_success = Some(run.start);
        }
        if self.runs.len() == MOST_RUNS {
            self.runs.pop_back();
        }
        self.runs.push_front(run);
    }
}
