//! One run: the steps, in their order. Each is a span, for those who trace them.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, debug_span, error, warn};

use crate::archive::{Archive, ArchiveError, Deposit, Outcome, Snapshot};
use crate::clock::{CLOCK_TOLERANCE, SharedClock, iso};
use crate::event::{EventId, ParseLimits, Response, ResponseError};
use crate::feed::{Feed, FeedError, FetchFailure, Fetched, HttpReport};
use crate::files::descriptors;
use crate::http_span;
use crate::quantity::Quantity;
use crate::record::{Evidence, FeedGone, Limits, RecordPaths, RunRecord, events_in, health};
use crate::text::printable;

/// Number of threads for file operations. Each has memory of its own, and a run has little use for more.
const BLOCKING_THREADS: usize = 2;

/// The runtime of a collector: one thread for the network, and others only while a file operation blocks.
///
/// # Errors
/// If the system gives no resources for it.
pub fn runtime() -> io::Result<Runtime> {
    runtime_with(BLOCKING_THREADS)
}

/// A runtime of one thread, and at most as many others while file operations block.
///
/// # Errors
/// If the system gives no resources for it; also if the limit of open files is too low.
pub fn runtime_with(max_blocking_threads: usize) -> io::Result<Runtime> {
    descriptors::require()?;
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(max_blocking_threads.min(descriptors::spare()))
        .thread_keep_alive(Duration::from_secs(1))
        .build()
}

/// Why a run failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// No response could be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchFailure),
    /// What was fetched is not a valid response.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// It could not be stored.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl RunError {
    /// A short name of the kind, for records.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fetch(failure) => failure.error.kind(),
            Self::Response(ResponseError::Deadline) | Self::Archive(ArchiveError::Deadline(_)) => "deadline",
            Self::Response(_) => "response",
            Self::Archive(ArchiveError::Store(_)) => "store",
            Self::Archive(
                ArchiveError::Ledger { .. }
                | ArchiveError::AnotherArchive { .. }
                | ArchiveError::Journal { .. },
            ) => "ledger",
            Self::Archive(ArchiveError::Incomplete { .. } | ArchiveError::Vanished { .. }) => {
                "missing_objects"
            }
            Self::Archive(ArchiveError::Busy { .. } | ArchiveError::Interrupted) => "busy",
            Self::Archive(ArchiveError::Untrusted { .. }) => "untrusted_store",
            Self::Archive(ArchiveError::Missing(_)) => "no_archive",
            Self::Archive(ArchiveError::Replica { .. } | ArchiveError::TakenOver { .. }) => "not_primary",
        }
    }
}

/// Fetches, decides, stores, records.
#[derive(Debug)]
pub struct Collector {
    /// Where responses come from.
    pub feed: Feed,
    /// Where events go.
    pub archive: Archive,
    /// Where the run's record goes.
    pub paths: RecordPaths,
    /// What time it is.
    pub clock: SharedClock,
}

/// What a run did.
#[derive(Debug)]
pub struct RunReport {
    /// Its record, as it was written.
    pub record: RunRecord,
    /// Where the record was written, if that was possible.
    pub record_file: Option<PathBuf>,
    /// What it stored, or why it failed.
    pub result: Result<Deposit, RunError>,
    /// What all runs so far have shown, this one included.
    pub evidence: Evidence,
    /// Why the health file could not be written, if it could not.
    pub health_error: Option<io::Error>,
}

impl RunReport {
    /// Logs why the health check would fail now, beyond the run's own error.
    pub fn log_unhealthy(&self, now: DateTime<Utc>, limits: &Limits) {
        if let Some(error) = &self.health_error {
            error!(%error, "the health file could not be written");
        }
        for reason in self.evidence.judge(now, limits) {
            let lines = reason.to_string();
            let (reason, hint) = lines.split_once("\nHINT: ").unwrap_or((&lines, ""));
            warn!(reason = reason.trim_start_matches("ERROR: "), hint, "the evidence does not show health");
        }
    }
}

impl Collector {
    /// Runs once. Whatever happens is in the report, in the record and in the health file.
    pub async fn run(&self) -> RunReport {
        let span = debug_span!(
            "run",
            new = Empty,
            revised = Empty,
            known = Empty,
            possible_gap = Empty,
            left_to = Empty,
            error.type = Empty,
            otel.status_description = Empty
        );
        let report = self.run_once().instrument(span.clone()).await;
        note_result(&span, &report.result);
        report
    }

    async fn run_once(&self) -> RunReport {
        let (start, began) = (self.clock.now(), self.clock.elapsed());
        let mut record = RunRecord::new(start);
        let mut evidence = health::read_evidence(&self.paths.health_file);
        let result = self.collect(start, &mut record, &mut evidence).await;
        match &result {
            Ok(deposit) => {
                record.note_deposit(deposit);
                if let Outcome::LeftToAnother { owner, .. } = &deposit.outcome {
                    record.left_to = Some(printable(owner).to_string());
                }
                evidence.feed_gone = None;
                if deposit.quantities.is_set(Quantity::PossibleGap) {
                    evidence.last_possible_gap = Some(start);
                }
            }
            Err(error) => {
                evidence.note_failure();
                evidence.feed_gone = self.feed_gone(error, start);
                record.note_error(error.kind(), error, self.clock.now());
            }
        }
        record.quantities.extend(&self.archive.store().take_calls());
        record.finish(self.clock.since(began), self.clock.now());
        let record_file = self.write_record(&record, start, &mut evidence);
        let health_error = health::write(&self.paths.health_file, &record, &evidence).err();
        RunReport { record, record_file, result, evidence, health_error }
    }

    async fn collect(
        &self,
        start: DateTime<Utc>,
        record: &mut RunRecord,
        evidence: &mut Evidence,
    ) -> Result<Deposit, RunError> {
        // The ledger is read while the response is on its way.
        let ((fetched, fetch_time), (snapshot, ledger_time)) = tokio::join!(
            self.timed(debug_span!("fetch"), self.feed.fetch()),
            self.timed(debug_span!("read_ledger"), self.archive.open())
        );
        record.quantities.set(Quantity::ApiFetch, fetch_time);
        record.quantities.set(Quantity::MetadataFetch, ledger_time);
        let body = note_fetched(fetched, record)?;

        let is_over = self.archive.deadline_from(self.clock.elapsed());
        let limits = ParseLimits { max_elements: self.archive.max_elements(), is_over: &is_over };
        let parsed = self.timed(debug_span!("parse"), async { Response::parse_within(&body, &limits) });
        let (response, parse_time) = parsed.await;
        record.quantities.set(Quantity::Parse, parse_time);
        let response = response?;
        let (elements, events) = (response.elements().len(), events_in(&response).count());
        record.quantities.set(Quantity::ApiEventsTotal, elements);
        record.quantities.set(Quantity::ApiEventsValid, events);
        evidence.note_response(start, elements, events);

        let deposited = self.deposit(&response, snapshot, start).await;
        let stored = stored_before(&self.archive, &deposited, &evidence.unsettled_events).await;
        note_deposited(&deposited, &response, start, &stored, evidence);
        Ok(deposited?.0)
    }

    async fn deposit(
        &self,
        response: &Response<'_>,
        snapshot: Result<Snapshot, ArchiveError>,
        start: DateTime<Utc>,
    ) -> Result<(Deposit, Snapshot), ArchiveError> {
        let deposit = self.archive.deposit(response, snapshot?, start);
        deposit.instrument(debug_span!("deposit")).await
    }

    async fn timed<T>(&self, span: Span, step: impl Future<Output = T>) -> (T, Duration) {
        let since = self.clock.elapsed();
        let result = step.instrument(span).await;
        (result, self.clock.since(since))
    }

    /// That the feed is not called again, if this error says so.
    fn feed_gone(&self, error: &RunError, start: DateTime<Utc>) -> Option<FeedGone> {
        let RunError::Fetch(FetchFailure { error, .. }) = error else { return None };
        let since = match error {
            FeedError::Status { status: 404, .. } => start,
            FeedError::Gone { since } => DateTime::parse_from_rfc3339(since).map_or(start, Into::into),
            _ => return None,
        };
        let state_dir = self.feed.state_dir()?;
        let state_dir = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_path_buf());
        Some(FeedGone { since, state_dir })
    }

    /// Writes the record. If that fails, the evidence shows it, and so does the health file.
    fn write_record(
        &self,
        record: &RunRecord,
        start: DateTime<Utc>,
        evidence: &mut Evidence,
    ) -> Option<PathBuf> {
        let folder = &self.paths.metrics_dir;
        let saved = record.save(folder, start);
        evidence.unwritten = saved.as_ref().err().map(|error| {
            error!(folder = %folder.display(), %error, "the run's record could not be written");
            format!("The record of the run could not be written to {}: {error}", folder.display())
        });
        saved.ok()
    }
}

/// Notes in the evidence for health which events of a response are durable. `stored` names events that earlier runs saw and
/// that [`stored_before`] found.
pub fn note_deposited(
    deposited: &Result<(Deposit, Snapshot), ArchiveError>,
    response: &Response<'_>,
    start: DateTime<Utc>,
    stored: &BTreeSet<EventId>,
    evidence: &mut Evidence,
) {
    match deposited {
        Ok((Deposit { outcome: Outcome::Stored, .. }, Snapshot { ledger, .. })) => {
            let present: BTreeSet<EventId> = events_in(response).map(|(id, _)| id).collect();
            evidence.note_settled(start, |id, _| {
                ledger.get(id).is_some() || present.contains(&id) || stored.contains(&id)
            });
        }
        Ok((Deposit { outcome: Outcome::LeftToAnother { owner, .. }, .. }, Snapshot { ledger, .. })) => {
            evidence.note_left(start, owner);
            evidence.note_unsettled(start, events_in(response).filter(|(id, _)| ledger.get(*id).is_none()));
        }
        Err(_) => evidence.note_unsettled(start, events_in(response)),
    }
}

/// Those of the unsettled events that are stored, where the ledger does not remember them. What cannot be read is not known
/// to be stored.
pub async fn stored_before(
    archive: &Archive,
    deposited: &Result<(Deposit, Snapshot), ArchiveError>,
    unsettled: &[(EventId, NaiveDate)],
) -> BTreeSet<EventId> {
    let Ok((_, Snapshot { ledger, .. })) = deposited else { return BTreeSet::new() };
    let unknown: Vec<_> = unsettled.iter().copied().filter(|(id, _)| ledger.get(*id).is_none()).collect();
    archive.stored_among(&unknown).await.unwrap_or_default()
}

fn note_result(span: &Span, result: &Result<Deposit, RunError>) {
    match result {
        Ok(Deposit { outcome: Outcome::LeftToAnother { owner, .. }, .. }) => {
            span.record("left_to", owner.as_str());
        }
        Ok(deposit) => {
            span.record("new", deposit.count(Quantity::NewEventsCount));
            span.record("revised", deposit.count(Quantity::RevisionsCount));
            span.record("known", deposit.count(Quantity::BufferOverlap));
            span.record("possible_gap", deposit.quantities.is_set(Quantity::PossibleGap));
        }
        Err(error) => {
            http_span::note_error(span, error.kind(), error);
        }
    }
}

fn note_fetched(fetched: Result<Fetched, FetchFailure>, record: &mut RunRecord) -> Result<Vec<u8>, RunError> {
    match fetched {
        Ok(Fetched { body, http }) => {
            if let Some(report) = &http {
                note_http(report, record);
            }
            record.note_body(body.len());
            Ok(body)
        }
        Err(failure) => {
            if failure.report.attempts > 0 {
                note_http(&failure.report, record);
            }
            Err(failure.into())
        }
    }
}

/// Takes over how a response was fetched. A clock that differs from the server's shifts every time that is recorded.
fn note_http(report: &HttpReport, record: &mut RunRecord) {
    record.note_fetch(report);
    if let Some(offset) = report.clock_offset.filter(|offset| offset.abs() > CLOCK_TOLERANCE) {
        let offset_s = offset.num_seconds();
        warn!(offset_s, local = %iso(record.start), "the clock of this machine differs from that of the feed");
    }
}
