//! What the service did and is about to do: the last month of runs, and metrics since it began.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use tracing::{debug, error};

use super::metrics::Metrics;
use super::poll_interval::Plan;
use super::summary::{Ended, RunSummary};
use crate::mirror::state::MirrorState;
use crate::mirror::{MirrorError, MirrorReport};
use crate::publish::MessageKind;
use crate::record::check::{self, HealthCheck};
use crate::record::{Evidence, Limits, RunRecord};
use crate::text::printable;

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
    /// Why the pages cannot be shown, while that is so.
    pub listen_error: Option<String>,
    /// Why the last reload was refused, while the settings before it are in use.
    pub settings_error: Option<String>,
    /// How the replica is, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorState>,
    /// Runs, the latest first.
    pub runs: Vec<RunSummary>,
}

/// What was published when the last commit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// When it was reached.
    pub at: DateTime<Utc>,
    /// Number of messages by kind since the last time.
    pub messages: [(MessageKind, u64); 3],
}

/// The service in one line, for `systemctl status`.
impl Display for View {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        match self.runs.first() {
            None => formatter.write_str("no poll so far")?,
            Some(RunSummary { start, ended: Ended::Failed, error, .. }) => {
                let error = error.as_deref().unwrap_or_default();
                write!(formatter, "poll at {} failed: {}", time(*start), printable(error))?;
            }
            Some(RunSummary { start, new, .. }) => {
                write!(formatter, "poll at {} succeeded: {new} new events", time(*start))?;
            }
        }
        if let Some(error) = &self.settings_error {
            write!(formatter, "; reload failed, the earlier settings are in use: {}", printable(error))?;
        }
        if let Some(error) = self.mirror.as_ref().and_then(|mirror| mirror.error.as_ref()) {
            write!(formatter, "; the replica is behind: {}", printable(error))?;
        }
        if let Some(error) = &self.listen_error {
            write!(formatter, "; pages not available: {}", printable(error))?;
        }
        Ok(())
    }
}

/// What the service did and is about to do.
#[derive(Debug)]
pub struct Status {
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    /// How many events a full response holds.
    buffer: usize,
    limits: Limits,
    started: DateTime<Utc>,
    polling_since: Option<DateTime<Utc>>,
    last_success: Option<DateTime<Utc>>,
    plan: Option<Plan>,
    runs: VecDeque<RunSummary>,
    /// Why the last run could not write the health file.
    health_error: Option<String>,
    listen_error: Option<String>,
    settings_error: Option<String>,
    mirror: Option<MirrorState>,
}

impl Status {
    /// No run yet.
    ///
    /// # Errors
    /// If the library refuses a name of a metric, which is a fault of this program.
    pub fn new(started: DateTime<Utc>, buffer: usize, limits: Limits) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::new(started)?;
        metrics.note_limits(buffer, &limits);
        let state = State {
            buffer,
            limits,
            started,
            polling_since: None,
            last_success: None,
            plan: None,
            runs: VecDeque::new(),
            health_error: None,
            listen_error: None,
            settings_error: None,
            mirror: None,
        };
        Ok(Self { state: Mutex::new(state), metrics })
    }

    /// Takes over the result of a reload: the settings that this depends on, or why the earlier ones stay in use.
    pub fn note_reload(&self, settings: Result<(usize, Limits), String>) {
        self.metrics.note_reload(settings.is_ok());
        let mut state = self.state();
        match settings {
            Ok((buffer, limits)) => {
                self.metrics.note_limits(buffer, &limits);
                (state.buffer, state.limits, state.settings_error) = (buffer, limits, None);
            }
            Err(error) => state.settings_error = Some(error),
        }
    }

    /// Takes over whether the address of the pages could be listened on, and why not. Returns whether that changed.
    pub(super) fn note_listening(&self, result: Result<(), String>) -> bool {
        if result.is_err() {
            self.metrics.note_listen_failure();
        }
        let error = result.err();
        let before = std::mem::replace(&mut self.state().listen_error, error.clone());
        before != error
    }

    /// Takes an update of the replica into account, after a run that stored a number of objects, and keeps how the replica is
    /// beside the health file.
    pub fn note_mirror(
        &self,
        updated: &Result<MirrorReport, MirrorError>,
        stored: usize,
        health_file: &Path,
        now: DateTime<Utc>,
    ) {
        let (before, started) = {
            let mut state = self.state();
            (state.mirror.take(), state.started)
        };
        let kept = || MirrorState::read(health_file).unwrap_or_else(|_| MirrorState::new(started));
        let mut mirror = before.unwrap_or_else(kept);
        mirror.note(updated.as_ref(), stored, now);
        self.metrics.note_mirror(&mirror, now);
        if let Some(error) = &mirror.error {
            error!(error, lag_objects = mirror.lag_objects, "the replica is behind");
        } else {
            debug!("the replica holds everything");
        }
        if let Err(error) = mirror.write(health_file) {
            error!(%error, "the state of the replica cannot be kept beside the health file");
        }
        self.state().mirror = Some(mirror);
    }

    /// Takes over when everything was published and how many messages, or nothing if publishing failed or only begins. Collecting is
    /// as healthy as before.
    pub fn note_publishing(&self, published: Option<Published>) {
        self.metrics.note_publishing(published);
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
        self.state().buffer
    }

    /// What evidence is compared with.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.state().limits
    }

    /// The result of the health check on a health file. A file that the last run could not write does not count; the replica counts,
    /// if there is one.
    pub fn check_health(&self, health_file: &Path, now: DateTime<Utc>) -> HealthCheck {
        let mut verdict = check::check(health_file, now, &self.limits());
        let faults = {
            let state = self.state();
            let unwritten = state.health_error.as_ref().map(|error| {
                format!("ERROR: The health file {} could not be written: {error}\n", health_file.display())
            });
            [
                unwritten,
                state.mirror.as_ref().and_then(|mirror| mirror.fault(now, state.limits.max_age_minutes)),
            ]
        };
        for fault in faults.into_iter().flatten() {
            verdict.add_fault(fault);
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
            listen_error: state.listen_error.clone(),
            settings_error: state.settings_error.clone(),
            mirror: state.mirror.clone(),
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
