//! Polls on schedule for years, and says how that goes.
//!
//! One poll at a time. When the next one is due follows from the schedule and the pace; both are pure. What polls did is kept in
//! a [`Status`], which others read: the pages of [`http`], the metrics. Time comes from the clock that is passed in, so that a
//! week can pass in a moment.

mod dashboard;
pub mod http;
pub mod listener;
pub mod metrics;
pub mod poll_interval;
pub mod recorded_runs;
pub mod schedule;
pub mod status;
pub mod summary;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{error, info, warn};

use crate::archive::{Deposit, Outcome};
use crate::clock::SharedClock;
use crate::quantity::Quantity;
use crate::run::RunReport;
use poll_interval::{PollInterval, Reason, RunOutcome};
use schedule::{Moment, Schedule};
use status::{MOST_RUNS, Status};

/// The clock is looked at this often: it may have been set, or the machine may have slept.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);
/// Maximum time for a poll to end after the service was asked to stop. The next run completes a poll that was broken off.
const GRACE: Duration = Duration::from_secs(10);

/// What the service is asked to do while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// End, after the poll at hand if that does not take long.
    Stop,
    /// Return, so that the settings can be read again.
    Reload,
}

/// A service that polls.
#[derive(Debug)]
pub struct Watch {
    clock: SharedClock,
    schedule: Schedule,
    poll_interval: PollInterval,
    status: Arc<Status>,
    last: Option<Moment>,
    /// When a run last succeeded, by [`crate::clock::Clock::elapsed`].
    succeeded: Option<Duration>,
}

impl Watch {
    /// A service that has not polled yet. `last_run`: when an earlier process did; what the status recalls of it counts for the
    /// pace.
    #[must_use]
    pub fn new(
        clock: SharedClock,
        schedule: Schedule,
        poll_interval: PollInterval,
        status: Arc<Status>,
        last_run: Option<DateTime<Utc>>,
    ) -> Self {
        let at = Moment { now: clock.now(), elapsed: clock.elapsed() };
        let last = last_run.map(|now| Moment { now, ..at }).filter(|last| !schedule.is_overdue(*last, at));
        let poll_interval = poll_interval.after(&status.view(MOST_RUNS).runs);
        Self { clock, schedule, poll_interval, status, last, succeeded: None }
    }

    /// Continues with other settings.
    pub fn set(&mut self, schedule: Schedule, poll_interval: PollInterval) {
        self.schedule = schedule;
        self.poll_interval = poll_interval.after(&self.status.view(MOST_RUNS).runs);
    }

    fn now(&self) -> Moment {
        Moment { now: self.clock.now(), elapsed: self.clock.elapsed() }
    }

    /// Polls whenever it is time, until something else is said.
    pub async fn run(
        &mut self,
        mut poll: impl AsyncFnMut() -> RunReport,
        commands: &mut UnboundedReceiver<Command>,
    ) -> Command {
        loop {
            let schedule = self.schedule.every(self.poll_interval.interval().0);
            let at = self.now();
            let wait = schedule.wait(self.last, at);
            self.status.plan(self.poll_interval.plan(schedule.next(self.last, at)));
            if !wait.is_zero() {
                tokio::select! {
                    biased;
                    command = commands.recv() => return command.unwrap_or(Command::Stop),
                    () = self.clock.sleep(wait.min(LONGEST_SLEEP)) => continue,
                }
            }
            self.last = Some(at);
            self.status.begin(at.now);
            let (report, command) = finish(&mut poll, commands).await;
            if let Some(report) = report {
                self.note(&report);
            }
            if let Some(command) = command {
                return command;
            }
        }
    }

    fn note(&mut self, report: &RunReport) {
        let now = self.clock.elapsed();
        let before = self.poll_interval.interval();
        let ran = match &report.result {
            Ok(deposit) => {
                let since = self.succeeded.replace(now).map(|before| now.saturating_sub(before));
                RunOutcome::Succeeded { new_events: deposit.count(Quantity::NewEventsCount), since }
            }
            Err(_) => RunOutcome::Failed,
        };
        self.poll_interval.note(ran);
        self.status.note(&report.record);
        self.status.note_evidence(&report.evidence, report.health_error.as_ref());
        log_result(report);
        report.log_unhealthy(self.clock.now(), &self.status.limits());
        let (interval, reason) = self.poll_interval.interval();
        if (interval, reason) != before {
            let minutes = interval.as_secs_f64() / 60.0;
            match reason {
                Reason::AsConfigured => info!(minutes, "polling as configured again"),
                Reason::BufferFills => {
                    warn!(minutes, "many events come between two polls; polling more often");
                }
                Reason::Failing => {
                    warn!(
                        minutes,
                        failures = self.poll_interval.failures(),
                        "polls fail; polling less often"
                    );
                }
            }
        }
    }
}

fn log_result(report: &RunReport) {
    let took_s = report.record.get(Quantity::TotalTime);
    match &report.result {
        Ok(Deposit { outcome: Outcome::LeftToAnother { owner, .. }, .. }) => {
            info!(%owner, took_s, "another run is at work; it was left to that one");
        }
        Ok(deposit) => {
            let new = deposit.count(Quantity::NewEventsCount);
            let revised = deposit.count(Quantity::RevisionsCount);
            if deposit.quantities.is_set(Quantity::PossibleGap) {
                warn!(new, revised, took_s, "polled; events may have been missed before");
            } else {
                let known = deposit.count(Quantity::BufferOverlap);
                info!(new, revised, known, took_s, "polled");
            }
        }
        Err(error) => error!(%error, took_s, "the poll failed"),
    }
}

/// Polls once. Returns the report and the command that arrived meanwhile; after [`Command::Stop`] a poll has [`GRACE`] left.
async fn finish(
    poll: &mut impl AsyncFnMut() -> RunReport,
    commands: &mut UnboundedReceiver<Command>,
) -> (Option<RunReport>, Option<Command>) {
    let mut running = pin!(poll());
    let mut said = None;
    loop {
        tokio::select! {
            report = &mut running => return (Some(report), said),
            command = commands.recv() => match command.unwrap_or(Command::Stop) {
                Command::Reload => said = Some(Command::Reload),
                Command::Stop => break,
            },
        }
    }
    info!("stopping when the poll at hand is done, in {} s at most", GRACE.as_secs());
    let report = tokio::time::timeout(GRACE, running).await.ok();
    if report.is_none() {
        warn!("the poll was broken off; the next run takes up what it left");
    }
    (report, Some(Command::Stop))
}
