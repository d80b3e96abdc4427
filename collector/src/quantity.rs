//! The quantities of a run, each defined once: what a run measures and counts.
//!
//! The key in the run's record, the unit, the Prometheus metric with its help, the place in reports, and the entries of
//! `docs/run-record.schema.json` and `docs/run-record.md` all derive from one entry of the list below. To add a quantity:
//!
//! 1. add an entry here,
//! 2. call [`Quantities::add`] or [`Quantities::set`] where it is counted,
//! 3. run `UPDATE_DOCS=1 cargo test -p polisen-events-collector --test it quantities::`, which writes both files.
//!
//! The module depends on no other. `archive` and `run` fill [`Quantities`], `record` writes and reads them, `watch` and
//! `analysis` show them.

use std::fmt;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// What a quantity is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Whole seconds, which may be negative.
    SignedSeconds,
    /// Bytes.
    Bytes,
    /// Kibibytes, with two decimals.
    Kibibytes,
    /// Events, calls or objects.
    Count,
    /// False or true in a run, a share of all runs.
    Share,
}

/// The member of a run's record in which a quantity stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The record itself.
    Record,
    /// `timings`.
    Timings,
    /// `counts`.
    Counts,
    /// `process`.
    Process,
    /// `http`.
    Http,
    /// None: it follows from other members.
    Derived,
}

/// What a step of a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// The network or the store.
    Io,
    /// The processor.
    Cpu,
    /// It is a part of `api_fetch`.
    Phase,
}

/// A step of a run, whose quantity is the time it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Short name, as `collector run` prints it.
    pub label: &'static str,
    /// What the step waits for.
    pub kind: StepKind,
}

/// A metric for Prometheus, named without its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The sum over all runs.
    Counter(&'static str),
    /// The sum over all runs, as `events_total` with this `kind`.
    EventsOfKind(&'static str),
    /// The value of the last run that has one.
    Gauge(&'static str),
    /// The distribution over all runs, as `step_duration_seconds` with the key as `step`.
    StepDuration,
}

/// What is known about a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// The name in records and reports.
    pub key: &'static str,
    /// Where it stands in records.
    pub section: Section,
    /// What it is counted in.
    pub unit: Unit,
    /// What it means, in a few words without a full stop.
    pub description: &'static str,
    /// The metric that shows it, if any.
    pub metric: Option<Metric>,
    /// The step that it times, if any.
    pub step: Option<Step>,
    /// Whether reports show it.
    pub is_reported: bool,
}

impl Definition {
    const fn new(section: Section, key: &'static str, unit: Unit) -> Self {
        Self { key, section, unit, description: "", metric: None, step: None, is_reported: true }
    }

    /// The time of a step.
    const fn step(key: &'static str, kind: StepKind, label: &'static str) -> Self {
        Self {
            metric: Some(Metric::StepDuration),
            step: Some(Step { label, kind }),
            ..Self::new(Section::Timings, key, Unit::Seconds)
        }
    }

    const fn count(key: &'static str) -> Self {
        Self::new(Counts, key, Unit::Count)
    }

    const fn bytes(key: &'static str) -> Self {
        Self::new(Counts, key, Unit::Bytes)
    }

    const fn metric(self, metric: Metric) -> Self {
        Self { metric: Some(metric), ..self }
    }

    const fn counter(self, name: &'static str) -> Self {
        self.metric(Metric::Counter(name))
    }

    const fn gauge(self, name: &'static str) -> Self {
        self.metric(Metric::Gauge(name))
    }

    /// Reports leave it out, because another quantity says the same.
    const fn unreported(self) -> Self {
        Self { is_reported: false, ..self }
    }

    const fn described(self, description: &'static str) -> Self {
        let description = description.trim_ascii();
        Self { description, ..self }
    }
}

/// From `/// Description` and `Name = definition;`: the variants of [`Quantity`] and their definitions.
macro_rules! quantities {
    ($($(#[doc = $description:literal])+ $name:ident = $definition:expr;)*) => {
        /// A quantity of a run.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Quantity {
            $($(#[doc = $description])+ $name),*
        }

        impl Quantity {
            /// All quantities, in the order of records and reports.
            pub const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];
        }

        static DEFINITIONS: [Definition; Quantity::ALL.len()] =
            [$($definition.described(concat!($($description),+))),*];
    };
}

use Definition as D;
use Section::{Counts, Derived, Http, Process, Record};
use StepKind::{Cpu, Io, Phase};

quantities! {
    /// Time that the run took
    TotalTime = D::new(Record, "total_time", Unit::Seconds).gauge("last_run_duration_seconds");
    /// Fetching the response, waits and repetitions included
    ApiFetch = D::step("api_fetch", Io, "fetch");
    /// Resolving the name of the server, in the last call
    ApiDns = D::step("api_dns", Phase, "dns");
    /// TCP and TLS handshakes, in the last call
    ApiConnectTls = D::step("api_connect_tls", Phase, "connect and TLS");
    /// From the connection to the head of the response, in the last call
    ApiFirstByte = D::step("api_first_byte", Phase, "first byte");
    /// Receiving the body, in the last call
    ApiBody = D::step("api_body", Phase, "body");
    /// Reading the ledger, while the response is fetched
    MetadataFetch = D::step("metadata_fetch", Io, "ledger");
    /// Finding the events in the response
    Parse = D::step("parse", Cpu, "parse");
    /// Comparing the response with the ledger
    Deduplication = D::step("deduplication", Cpu, "compare");
    /// Looking up in the archive what the ledger does not remember
    ArchiveLookup = D::step("archive_lookup", Io, "look up");
    /// Finishing what an interrupted run had claimed
    Takeover = D::step("takeover", Io, "take over");
    /// Claiming what is to be written
    Claim = D::step("claim", Io, "claim");
    /// Writing the objects
    SaveEvents = D::step("save_events", Io, "save");
    /// Committing the ledger
    MetadataUpdate = D::step("metadata_update", Io, "commit");
    /// Elements of the response
    ApiEventsTotal = D::count("api_events_total").gauge("response_events");
    /// Valid events in the response
    ApiEventsValid = D::count("api_events_valid").gauge("response_valid_events");
    /// Size of the response, decompressed
    ApiResponseBytes = D::bytes("api_response_bytes").counter("response_bytes_total");
    /// Size of the response, decompressed, with two decimals
    ApiResponseKb = D::new(Counts, "api_response_kb", Unit::Kibibytes).unreported();
    /// Events that the ledger remembered at the start
    SeenIdsCount = D::count("seen_ids_count").gauge("ledger_events");
    /// New events, stored
    NewEventsCount = D::count("new_events_count").metric(Metric::EventsOfKind("new"));
    /// Events of the response that were known before
    BufferOverlap = D::count("buffer_overlap").gauge("buffer_overlap_events");
    /// New versions of known events, stored
    RevisionsCount = D::count("revisions_count").metric(Metric::EventsOfKind("revised"));
    /// Elements that are not valid events, stored as such
    RejectedCount = D::count("rejected_count").metric(Metric::EventsOfKind("rejected"));
    /// Elements of the response that are not valid events, those stored before included
    RejectedInResponse = D::count("rejected_in_response");
    /// Events found withdrawn
    WithdrawnCount = D::count("withdrawn_count").metric(Metric::EventsOfKind("withdrawn"));
    /// Withdrawn events that came back
    ReturnedCount = D::count("returned_count").metric(Metric::EventsOfKind("returned"));
    /// Days looked up in the archive
    DaysLookedUp = D::count("days_looked_up");
    /// Objects written, without the ledger
    ObjectsWritten = D::count("objects_written").counter("written_objects_total");
    /// Size of the objects written
    BytesWritten = D::bytes("bytes_written").counter("written_bytes_total");
    /// Times that the ledger did not know all that is stored, and was healed from the archive
    LedgerHealed = D::count("ledger_healed").counter("ledger_healed_total");
    /// Times that another run changed the ledger meanwhile, and the run started over
    LedgerConflicts = D::count("ledger_conflicts").counter("ledger_conflicts_total");
    /// Calls of the feed, repetitions included
    Attempts = D::new(Http, "attempts", Unit::Count);
    /// Size of the body as it was sent
    WireBytes = D::new(Http, "wire_bytes", Unit::Bytes).counter("wire_bytes_total");
    /// Time by which the clock of this machine was ahead of the server's, if the server stated a time
    ClockOffset = D::new(Http, "clock_offset_s", Unit::SignedSeconds).gauge("clock_offset_seconds").unreported();
    /// Largest resident set of the process
    PeakMemory = D::new(Process, "peak_memory_bytes", Unit::Bytes);
    /// Processor time in user mode
    CpuUser = D::new(Process, "cpu_user_s", Unit::Seconds).unreported();
    /// Processor time in the kernel
    CpuSystem = D::new(Process, "cpu_system_s", Unit::Seconds).unreported();
    /// Processor time
    CpuTime = D::new(Derived, "cpu", Unit::Seconds);
    /// The run failed
    Failed = D::new(Derived, "failed", Unit::Share);
    /// Events may have been missed before the run
    PossibleGap = D::new(Record, "possible_gap", Unit::Share).counter("possible_gaps_total");
    /// The response was spread over months and says nothing about gaps
    SparseResponse = D::new(Record, "sparse_response", Unit::Share).counter("sparse_responses_total");
    /// Errors of the run
    Errors = D::new(Derived, "errors", Unit::Count);
}

impl Quantity {
    /// What is known about it.
    #[must_use]
    pub fn definition(self) -> &'static Definition {
        &DEFINITIONS[self as usize]
    }

    /// The name in records and reports.
    #[must_use]
    pub fn key(self) -> &'static str {
        self.definition().key
    }

    /// What it is counted in.
    #[must_use]
    pub fn unit(self) -> Unit {
        self.definition().unit
    }

    /// The quantities that reports show.
    pub fn reported() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|quantity| quantity.definition().is_reported)
    }

    /// The steps of a run.
    pub fn steps() -> impl Iterator<Item = (Self, Step)> {
        Self::ALL.into_iter().filter_map(|quantity| Some((quantity, quantity.definition().step?)))
    }

    /// Whether it differs between morning and night, so that only whole days can be compared.
    #[must_use]
    pub fn follows_the_day(self) -> bool {
        matches!(self.unit(), Unit::Count | Unit::Share) || self == Self::BytesWritten
    }
}

/// The quantities of one run. Those that the run did not come to are missing.
#[derive(Clone, Copy)]
pub struct Quantities([f64; Quantity::ALL.len()]);

impl Default for Quantities {
    fn default() -> Self {
        Self([f64::NAN; Quantity::ALL.len()])
    }
}

impl Quantities {
    /// A value, if the run has it.
    #[must_use]
    pub fn get(&self, quantity: Quantity) -> Option<f64> {
        Some(self.0[quantity as usize]).filter(|value| !value.is_nan())
    }

    /// A number of things, if the run has it.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    pub fn count(&self, quantity: Quantity) -> Option<usize> {
        self.get(quantity).map(|count| count as usize)
    }

    /// Whether the run has the value, and it is not 0.
    #[must_use]
    pub fn is_set(&self, quantity: Quantity) -> bool {
        self.get(quantity).is_some_and(|value| value != 0.0)
    }

    /// The values that the run has.
    pub fn iter(&self) -> impl Iterator<Item = (Quantity, f64)> {
        Quantity::ALL.into_iter().filter_map(|quantity| Some((quantity, self.get(quantity)?)))
    }

    /// Sets a value. One that is not finite, or is negative where that is impossible, is ignored.
    pub fn set(&mut self, quantity: Quantity, value: impl Into<Amount>) {
        let Amount(value) = value.into();
        if value.is_finite() && (value >= 0.0 || quantity.unit() == Unit::SignedSeconds) {
            self.0[quantity as usize] = value;
        }
    }

    /// Adds to a value; a missing one counts as 0.
    pub fn add(&mut self, quantity: Quantity, value: impl Into<Amount>) {
        let Amount(value) = value.into();
        let sum = self.get(quantity).unwrap_or(0.0) + value;
        self.set(quantity, if quantity.unit() == Unit::Seconds { to_microseconds(sum) } else { sum });
    }

    /// Removes a value.
    pub fn remove(&mut self, quantity: Quantity) {
        self.0[quantity as usize] = f64::NAN;
    }

    /// Takes over the values of another part of the run.
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|(quantity, value)| self.set(quantity, value));
    }

    /// The values of a section of the record, as JSON.
    pub(crate) fn section(&self, section: Section) -> impl Serialize + '_ {
        SectionOf { quantities: self, section }
    }
}

impl PartialEq for Quantities {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Quantities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter().map(|(quantity, value)| (quantity.key(), value))).finish()
    }
}

/// A value of a quantity, in its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Amount(f64);

impl From<f64> for Amount {
    fn from(value: f64) -> Self {
        Self(value)
    }
}

impl From<usize> for Amount {
    #[expect(clippy::cast_precision_loss, reason = "counts and sizes are below 2^53")]
    fn from(count: usize) -> Self {
        Self(count as f64)
    }
}

impl From<u64> for Amount {
    #[expect(clippy::cast_precision_loss, reason = "counts and sizes are below 2^53")]
    fn from(count: u64) -> Self {
        Self(count as f64)
    }
}

impl From<bool> for Amount {
    fn from(flag: bool) -> Self {
        Self(f64::from(u8::from(flag)))
    }
}

impl From<Duration> for Amount {
    fn from(time: Duration) -> Self {
        Self(seconds(time))
    }
}

/// A length of time in seconds, to the microsecond.
pub(crate) fn seconds(time: Duration) -> f64 {
    to_microseconds(time.as_secs_f64())
}

fn to_microseconds(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

struct SectionOf<'a> {
    quantities: &'a Quantities,
    section: Section,
}

impl Serialize for SectionOf<'_> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers below 2^53")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (quantity, value) in self.quantities.iter() {
            let &Definition { key, section, unit, .. } = quantity.definition();
            if section != self.section {
                continue;
            }
            match unit {
                Unit::Seconds | Unit::Kibibytes => map.serialize_entry(key, &value)?,
                Unit::SignedSeconds => map.serialize_entry(key, &(value as i64))?,
                Unit::Bytes | Unit::Count => map.serialize_entry(key, &(value as u64))?,
                Unit::Share => map.serialize_entry(key, &(value != 0.0))?,
            }
        }
        map.end()
    }
}
