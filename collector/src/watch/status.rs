//! What the service did and is about to do: the last month of runs, and metrics since it began.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::metrics::Metrics;
use super::pace::Plan;
use super::summary::{Ended, RunSummary};
use crate::record::check::{self, HealthCheck};
use crate::record::{Evidence, Limits, RunRecord};

/// A month of half hours.
pub const MOST_RUNS: usize = 31 * 48;

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
    limits: Limits,
}

#[derive(Debug)]
struct State {
    started: DateTime<Utc>,
    polling_since: Option<DateTime<Utc>>,
    last_success: Option<DateTime<Utc>>,
    plan: Option<Plan>,
    runs: VecDeque<RunSummary>,
    /// Why the last run could not write the health file.
    health_error: Option<String>,
}

impl Status {
    /// No run yet.
    ///
    /// # Errors
    /// If the library refuses a name of a metric, which is a fault of this program.
    pub fn new(started: DateTime<Utc>, buffer: usize, limits: Limits) -> Result<Self, prometheus::Error> {
        let (polling_since, last_success, plan, runs) = (None, None, None, VecDeque::new());
        let metrics = Metrics::new(started, buffer, &limits)?;
        let state = State { started, polling_since, last_success, plan, runs, health_error: None };
        Ok(Self { state: Mutex::new(state), metrics, buffer, limits })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metrics, for Prometheus.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How many events a full response holds.
    #[must_use]
    pub fn buffer(&self) -> usize {
        self.buffer
    }

    /// What evidence is compared with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The result of the health check on a health file. A file that the last run could not write does not count.
    pub fn check_health(&self, health_file: &Path, now: DateTime<Utc>) -> HealthCheck {
        let mut verdict = check::check(health_file, now, &self.limits);
        if let Some(error) = &self.state().health_error {
            let line =
                format!("ERROR: The health file {} could not be written: {error}\n", health_file.display());
            let lines = if verdict.healthy { line } else { line + &verdict.lines };
            verdict = HealthCheck { healthy: false, lines };
        }
        self.metrics.note_health(verdict.healthy);
        verdict
    }

    pub(super) fn plan(&self, plan: Plan) {
        self.metrics.note_plan(&plan);
        self.state().plan = Some(plan);
    }

    pub(super) fn begin(&self, now: DateTime<Utc>) {
        self.state().polling_since = Some(now);
    }

    /// Takes a run into account.
    pub fn note(&self, record: &RunRecord) {
        let summary = RunSummary::new(record);
        self.metrics.note_run(record, &summary);
        self.state().remember(summary);
    }

    /// Takes over what all runs so far have shown, and whether the last one could write that down.
    pub fn note_evidence(&self, evidence: &Evidence, health_error: Option<&io::Error>) {
        self.metrics.note_evidence(evidence);
        self.state().health_error = health_error.map(ToString::to_string);
    }

    /// Takes over what earlier processes did, the oldest run first. What is counted since the service began does not count them.
    pub fn recall(&self, records: impl IntoIterator<Item = RunRecord>) {
        for record in records {
            let summary = RunSummary::new(&record);
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
