//! `metrics/metrics_YYYYMMDD_HHMMSS.json`: the record of one run.
//!
//! Its first members are those of the documented collector, in its words and units.

use std::borrow::Cow;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{ProcessUse, stage};
use crate::archive::{Deposit, StepTimes};
use crate::clock::iso;
use crate::feed::{HttpReport, Phases};
use crate::text::printable;

/// How a run ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything new is stored, or another run is at it.
    #[default]
    Success,
    /// Something went wrong; what it stored is sound.
    Failed,
}

/// The record of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// When it began, in seconds since 1970 (UTC).
    pub start_time: f64,
    /// The same in ISO 8601.
    pub timestamp: String,
    /// How long its steps took; those it did not take are missing.
    pub timings: Timings,
    /// What it counted.
    pub counts: Counts,
    /// What went wrong.
    pub errors: Vec<ErrorEntry>,
    /// How long it took, in seconds.
    pub total_time: f64,
    /// When it ended, in ISO 8601.
    pub end_timestamp: String,
    /// How it ended.
    pub status: Status,
    /// Events may have been missed before this run.
    pub possible_gap: bool,
    /// The response was spread over months and says nothing about gaps.
    pub sparse_response: bool,
    /// Another run was at work, and this one left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_to: Option<String>,
    /// What the process used.
    pub process: ProcessUse,
    /// How the response was fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpUse>,
    /// Which version wrote this.
    pub collector_version: Cow<'static, str>,
}

/// How long the steps of a run took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// Fetching the response, waits and repetitions included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_fetch: Option<f64>,
    /// Of the last call: finding the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_dns: Option<f64>,
    /// Of the last call: TCP and TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_connect_tls: Option<f64>,
    /// Of the last call: from the connection to the head of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_first_byte: Option<f64>,
    /// Of the last call: the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_body: Option<f64>,
    /// Reading the ledger, while the response is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_fetch: Option<f64>,
    /// Finding the events in the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parse: Option<f64>,
    /// Deciding by the ledger what is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deduplication: Option<f64>,
    /// Looking up in the archive what the ledger could not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_lookup: Option<f64>,
    /// Finishing what a dead run had claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub takeover: Option<f64>,
    /// Claiming what is to be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<f64>,
    /// Writing the objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_events: Option<f64>,
    /// Committing the ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_update: Option<f64>,
}

/// What a run counted. What it did not come to is missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Elements of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_events_total: Option<usize>,
    /// Valid events among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_events_valid: Option<usize>,
    /// Its size, decompressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_response_bytes: Option<usize>,
    /// The same in KiB, with two decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_response_kb: Option<f64>,
    /// Members that only a run with a deposit has.
    #[serde(flatten)]
    pub deposit: Option<DepositCounts>,
}

/// What the archive's part of a run counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositCounts {
    /// Events the ledger remembered at the start.
    pub seen_ids_count: usize,
    /// New events, stored.
    pub new_events_count: usize,
    /// Events of the response that were known before.
    pub buffer_overlap: usize,
    /// New versions of known events, stored.
    pub revisions_count: usize,
    /// Elements that are no events, stored as such.
    pub rejected_count: usize,
    /// Elements of the response that are no events, those stored before included.
    pub rejected_in_response: usize,
    /// Events found withdrawn.
    pub withdrawn_count: usize,
    /// Withdrawn events that came back.
    pub returned_count: usize,
    /// Days looked up in the archive.
    pub days_looked_up: usize,
    /// Objects written, without the ledger.
    pub objects_written: usize,
    /// Their size.
    pub bytes_written: usize,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEntry {
    /// A short name of its kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// One sentence.
    pub message: String,
    /// When, in ISO 8601.
    pub timestamp: String,
}

/// How the response was fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpUse {
    /// Calls made, repetitions included.
    pub attempts: u32,
    /// The last status.
    pub status: Option<u16>,
    /// The body's encoding.
    pub encoding: Option<String>,
    /// Bytes of the body as they were sent.
    pub wire_bytes: u64,
    /// Seconds by which the clock of this machine was ahead of the server's, if the server sent its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_s: Option<i64>,
}

impl RunRecord {
    /// The record of a run that begins.
    #[must_use]
    pub fn begin(start: DateTime<Utc>) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 have 51 bits until 2041")]
        let start_time = start.timestamp_micros() as f64 / 1e6;
        Self {
            start_time,
            timestamp: iso(start),
            collector_version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            ..Self::default()
        }
    }

    /// When the run began.
    #[must_use]
    pub fn start(&self) -> DateTime<Utc> {
        #[expect(clippy::cast_possible_truncation, reason = "microseconds since 1970")]
        let micros = (self.start_time * 1e6) as i64;
        // A number that no date has, such as infinity, is later than any date.
        DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Takes over how the response was fetched.
    pub fn note_fetch(&mut self, report: &HttpReport) {
        let HttpReport { attempts, status, encoding, wire_bytes, clock_offset, phases } = report.clone();
        let Phases { dns, connect_tls, first_byte, body } = phases;
        self.timings.api_dns = dns.map(seconds);
        self.timings.api_connect_tls = connect_tls.map(seconds);
        self.timings.api_first_byte = first_byte.map(seconds);
        self.timings.api_body = body.map(seconds);
        let clock_offset_s = clock_offset.map(|offset| offset.num_seconds());
        self.http = Some(HttpUse { attempts, status, encoding, wire_bytes, clock_offset_s });
    }

    /// Takes over the size of a body.
    pub fn note_body(&mut self, size_bytes: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a body has at most 64 MiB")]
        let kib = size_bytes as f64 / 1024.0;
        self.counts.api_response_bytes = Some(size_bytes);
        self.counts.api_response_kb = Some((kib * 100.0).round() / 100.0);
    }

    /// Takes over what the archive did.
    pub fn note_deposit(&mut self, deposit: &Deposit) {
        let StepTimes { deduplication, lookup, takeover, claim, save, commit } = deposit.times;
        let if_any = |time: Duration| (!time.is_zero()).then(|| seconds(time));
        self.timings.deduplication = Some(seconds(deduplication));
        self.timings.archive_lookup = (deposit.days_looked_up > 0).then(|| seconds(lookup));
        self.timings.takeover = if_any(takeover);
        self.timings.claim = if_any(claim);
        self.timings.save_events = if_any(save);
        self.timings.metadata_update = if_any(commit);
        self.possible_gap = deposit.possible_gap;
        self.sparse_response = deposit.sparse;
        self.counts.deposit = Some(DepositCounts {
            seen_ids_count: deposit.seen_ids,
            new_events_count: deposit.events,
            buffer_overlap: deposit.overlap,
            revisions_count: deposit.revisions,
            rejected_count: deposit.rejected,
            rejected_in_response: deposit.rejected_total,
            withdrawn_count: deposit.withdrawn,
            returned_count: deposit.returned,
            days_looked_up: deposit.days_looked_up,
            objects_written: deposit.objects.len(),
            bytes_written: deposit.objects.iter().map(|(_, size)| size).sum(),
        });
    }

    /// Notes what went wrong.
    pub fn note_error(&mut self, kind: &str, message: impl Display, now: DateTime<Utc>) {
        self.status = Status::Failed;
        let message = printable(message).to_string();
        self.errors.push(ErrorEntry { kind: kind.to_owned(), message, timestamp: iso(now) });
    }

    /// Closes the record.
    pub fn finish(&mut self, took: Duration, now: DateTime<Utc>) {
        self.total_time = seconds(took);
        self.end_timestamp = iso(now);
        self.process = ProcessUse::so_far();
    }

    /// Writes it into `folder` under the name of its start, with a suffix if that is taken.
    ///
    /// # Errors
    /// If the folder or the file cannot be made.
    pub fn save(&self, folder: &Path, start: DateTime<Utc>) -> io::Result<PathBuf> {
        let name = start.format("metrics_%Y%m%d_%H%M%S");
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let mut path = folder.join(format!("{name}.json"));
        let mut staged = stage(&path, &text)?;
        for ordinal in 2_u32.. {
            match staged.persist_noclobber(&path) {
                Ok(_) => break,
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => staged = error.file,
                Err(error) => return Err(error.error),
            }
            path = folder.join(format!("{name}_{ordinal:02}.json"));
        }
        Ok(path)
    }
}

/// A length of time in seconds, to the microsecond.
pub(crate) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}
