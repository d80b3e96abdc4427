//! `metrics/metrics_YYYYMMDD_HHMMSS.json`: the record of one run.
//!
//! The first members are those of the documented collector. Measured and counted values are [`Quantities`], whose keys
//! `quantity` defines; this module knows the other members, and writes the file. Records are read by `record::parse`.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize, Serializer};

use super::{ProcessUse, stage};
use crate::archive::Deposit;
use crate::clock::iso;
use crate::feed::HttpReport;
use crate::quantity::{CallKind, Quantities, Quantity, Section};
use crate::text::{printable, without_credentials};

/// How a run ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything new is stored, or another run is doing it.
    #[default]
    Success,
    /// Something went wrong; what was stored is sound.
    Failed,
}

/// The record of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// When the run began.
    pub start: DateTime<Utc>,
    /// When the run ended. In a record that was read: the start and `total_time`.
    pub end: DateTime<Utc>,
    /// How the run ended.
    pub status: Status,
    /// The owner of the claim because of which this run stopped, if another run was at work.
    pub left_to: Option<String>,
    /// What was measured and counted.
    pub quantities: Quantities,
    /// What went wrong, in its order.
    pub errors: Vec<ErrorEntry>,
    /// How the response was fetched. Not read from files.
    pub http: Option<HttpUse>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorEntry {
    /// Short name of its kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// One sentence.
    pub message: String,
    /// When it happened, in ISO 8601.
    pub timestamp: String,
}

/// How the response was fetched, beside the quantities of [`Section::Http`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HttpUse {
    /// The last status.
    pub status: Option<u16>,
    /// The content encoding of the body.
    pub encoding: Option<String>,
}

/// The members of a record in their order.
#[derive(Serialize)]
struct Document<'a, S: Serialize> {
    start_time: f64,
    timestamp: String,
    timings: S,
    counts: S,
    errors: &'a [ErrorEntry],
    #[serde(flatten)]
    record: S,
    end_timestamp: String,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_to: Option<&'a str>,
    process: S,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<HttpDocument<'a, S>>,
    collector_version: &'static str,
}

#[derive(Serialize)]
struct HttpDocument<'a, S: Serialize> {
    #[serde(flatten)]
    quantities: S,
    #[serde(flatten)]
    http: &'a HttpUse,
}

impl Serialize for RunRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let section = |section| self.quantities.section(section);
        Document {
            start_time: self.start_time(),
            timestamp: iso(self.start),
            timings: section(Section::Timings),
            counts: section(Section::Counts),
            errors: &self.errors,
            record: section(Section::Record),
            end_timestamp: iso(self.end),
            status: self.status,
            left_to: self.left_to.as_deref(),
            process: section(Section::Process),
            http: self.http.as_ref().map(|http| HttpDocument { quantities: section(Section::Http), http }),
            collector_version: env!("CARGO_PKG_VERSION"),
        }
        .serialize(serializer)
    }
}

impl RunRecord {
    /// The record of a run that begins.
    #[must_use]
    pub fn new(start: DateTime<Utc>) -> Self {
        let mut quantities = Quantities::default();
        quantities.set(Quantity::PossibleGap, false);
        quantities.set(Quantity::SparseResponse, false);
        let (status, left_to, errors, http) = (Status::default(), None, Vec::new(), None);
        Self { start, end: start, status, left_to, quantities, errors, http }
    }

    /// A measured or counted value, if the run has it.
    #[must_use]
    pub fn get(&self, quantity: Quantity) -> Option<f64> {
        self.quantities.get(quantity)
    }

    /// Whether the run failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.status == Status::Failed
    }

    /// Start in seconds since 1970.
    #[must_use]
    pub fn start_time(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 have 51 bits until 2041")]
        let micros = self.start.timestamp_micros() as f64;
        micros / 1e6
    }

    /// Takes over how the response was fetched.
    pub fn note_fetch(&mut self, report: &HttpReport) {
        let HttpReport { attempts, status, encoding, wire_bytes, clock_offset, phases } = report.clone();
        phases.add_to(&mut self.quantities, CallKind::Feed);
        self.quantities.set(Quantity::Attempts, u64::from(attempts));
        self.quantities.set(Quantity::WireBytes, wire_bytes);
        if let Some(offset) = clock_offset {
            self.quantities.set(Quantity::ClockOffset, offset.as_seconds_f64().trunc());
        }
        self.http = Some(HttpUse { status, encoding });
    }

    /// Takes over the size of a body.
    pub fn note_body(&mut self, size_bytes: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a body has at most 64 MiB")]
        let kib = size_bytes as f64 / 1024.0;
        self.quantities.set(Quantity::ApiResponseBytes, size_bytes);
        self.quantities.set(Quantity::ApiResponseKb, (kib * 100.0).round() / 100.0);
    }

    /// Takes over what the archive did.
    pub fn note_deposit(&mut self, deposit: &Deposit) {
        self.quantities.extend(&deposit.quantities);
    }

    /// Notes what went wrong.
    pub fn note_error(&mut self, kind: &str, message: impl Display, now: DateTime<Utc>) {
        self.status = Status::Failed;
        let message = without_credentials(&printable(message).to_string()).into_owned();
        self.errors.push(ErrorEntry { kind: kind.to_owned(), message, timestamp: iso(now) });
    }

    /// Closes the record.
    pub fn finish(&mut self, took: Duration, now: DateTime<Utc>) {
        self.end = now;
        self.quantities.set(Quantity::TotalTime, took);
        let used = ProcessUse::so_far();
        self.quantities.set(Quantity::PeakMemory, used.peak_memory_bytes);
        self.quantities.set(Quantity::CpuUser, used.cpu_user_s);
        self.quantities.set(Quantity::CpuSystem, used.cpu_system_s);
        self.derive();
    }

    /// When a run that was read ended.
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
    pub(super) fn start_and_total_time(&self) -> DateTime<Utc> {
        let took_s = self.get(Quantity::TotalTime).unwrap_or(0.0);
        self.start.checked_add_signed(TimeDelta::microseconds((took_s * 1e6) as i64)).unwrap_or(self.start)
    }

    /// Sets the quantities that follow from other members.
    pub(super) fn derive(&mut self) {
        if let Some((user, system)) = self.get(Quantity::CpuUser).zip(self.get(Quantity::CpuSystem)) {
            self.quantities.set(Quantity::CpuTime, user);
            self.quantities.add(Quantity::CpuTime, system);
        }
        self.quantities.set(Quantity::Failed, self.has_failed());
        self.quantities.set(Quantity::Errors, self.errors.len());
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
