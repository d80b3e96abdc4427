//! One run: the steps, in their order. Each is a span, for those who trace them.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use thiserror::Error;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, debug_span, warn};

use crate::archive::{Archive, ArchiveError, Deposit, Outcome, Snapshot};
use crate::clock::SharedClock;
use crate::event::{Response, ResponseError};
use crate::feed::{Feed, FetchFailure, Fetched};
use crate::http_span;
use crate::record::{RecordPaths, RunRecord, health};
use crate::text::printable;

/// Why a run failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// No response could be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchFailure),
    /// What was fetched is no response.
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
            Self::Response(_) => "response",
            Self::Archive(ArchiveError::Store(_)) => "store",
            Self::Archive(ArchiveError::Ledger { .. }) => "ledger",
            Self::Archive(ArchiveError::Deadline(_)) => "deadline",
            Self::Archive(ArchiveError::Busy { .. } | ArchiveError::Interrupted) => "busy",
            Self::Archive(ArchiveError::Untrusted { .. }) => "untrusted_store",
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
        let mut record = RunRecord::begin(start);
        let result = self.collect(start, &mut record).await;
        match &result {
            Ok(deposit) => {
                record.note_deposit(deposit);
                if let Outcome::LeftToAnother { owner, .. } = &deposit.outcome {
                    record.left_to = Some(printable(owner).to_string());
                }
            }
            Err(error) => record.note_error(error.kind(), error, self.clock.now()),
        }
        record.finish(self.clock.since(began), self.clock.now());
        RunReport { record_file: self.write_down(&record, start), record, result }
    }

    async fn collect(&self, start: DateTime<Utc>, record: &mut RunRecord) -> Result<Deposit, RunError> {
        // The ledger is read while the response is on its way.
        let ((fetched, fetch_time), (snapshot, ledger_time)) = tokio::join!(
            self.timed(debug_span!("fetch"), self.feed.fetch()),
            self.timed(debug_span!("read_ledger"), self.archive.open())
        );
        record.timings.api_fetch = Some(crate::record::seconds(fetch_time));
        record.timings.metadata_fetch = Some(crate::record::seconds(ledger_time));
        let body = note_fetched(fetched, record)?;
        let snapshot: Snapshot = snapshot?;

        let (response, parse_time) = self.timed(debug_span!("parse"), async { Response::parse(&body) }).await;
        record.timings.parse = Some(crate::record::seconds(parse_time));
        let response = response?;
        record.counts.api_events_total = Some(response.elements().len());

        let deposit = self.archive.deposit(&response, snapshot, start);
        let (deposit, _) = deposit.instrument(debug_span!("deposit")).await?;
        Ok(deposit)
    }

    async fn timed<T>(&self, span: Span, step: impl Future<Output = T>) -> (T, Duration) {
        let since = self.clock.elapsed();
        let result = step.instrument(span).await;
        (result, self.clock.since(since))
    }

    /// Writes record and health file. Neither may fail a run.
    fn write_down(&self, record: &RunRecord, start: DateTime<Utc>) -> Option<PathBuf> {
        let RecordPaths { metrics_dir, health_file } = &self.paths;
        if let Err(error) = health::write(health_file, record) {
            warn!(path = %health_file.display(), %error, "the health file could not be written");
        }
        match record.save(metrics_dir, start) {
            Ok(path) => Some(path),
            Err(error) => {
                warn!(folder = %metrics_dir.display(), %error, "the run's record could not be written");
                None
            }
        }
    }
}

fn note_result(span: &Span, result: &Result<Deposit, RunError>) {
    match result {
        Ok(Deposit { outcome: Outcome::LeftToAnother { owner, .. }, .. }) => {
            span.record("left_to", owner.as_str());
        }
        Ok(deposit) => {
            span.record("new", deposit.events);
            span.record("revised", deposit.revisions);
            span.record("known", deposit.overlap);
            span.record("possible_gap", deposit.possible_gap);
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
                record.note_fetch(report);
            }
            record.note_body(body.len());
            Ok(body)
        }
        Err(failure) => {
            if failure.report.attempts > 0 {
                record.note_fetch(&failure.report);
            }
            Err(failure.into())
        }
    }
}
