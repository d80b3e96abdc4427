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

mod values;

pub use values::{Amount, Quantities};
pub(crate) use values::{QuantitySet, seconds};

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
    /// It is a part of other steps: a phase of HTTP calls of this kind.
    Phase(CallKind),
}

impl StepKind {
    /// Whether the step is a part of other steps.
    #[must_use]
    pub fn is_phase(self) -> bool {
        matches!(self, Self::Phase(_))
    }
}

/// What an HTTP call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallKind {
    /// Fetching the response of the feed.
    Feed,
    /// Reading an object of the store, or looking whether it is there.
    StoreRead,
    /// Reading a page of a listing of the store.
    StoreList,
    /// Writing or deleting an object of the store.
    StoreWrite,
}

impl CallKind {
    /// All kinds of calls.
    pub const ALL: [Self; 4] = [Self::Feed, Self::StoreRead, Self::StoreList, Self::StoreWrite];

    /// The kinds of calls to the store.
    pub const STORE: [Self; 3] = [Self::StoreRead, Self::StoreList, Self::StoreWrite];

    /// Short name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::StoreRead => "store, read",
            Self::StoreList => "store, list",
            Self::StoreWrite => "store, write",
        }
    }

    /// The number of calls.
    #[must_use]
    pub fn calls(self) -> Quantity {
        match self {
            Self::Feed => Quantity::Attempts,
            Self::StoreRead => Quantity::StoreReadCalls,
            Self::StoreList => Quantity::StoreListCalls,
            Self::StoreWrite => Quantity::StoreWriteCalls,
        }
    }

    /// The time of its phases: name, TCP, TLS, request, first byte, body. None where it is not measured apart.
    #[must_use]
    pub fn phases(self) -> [Option<Quantity>; 6] {
        use Quantity as Q;
        match self {
            Self::Feed => [
                Some(Q::ApiDns),
                Some(Q::ApiConnect),
                Some(Q::ApiTls),
                None,
                Some(Q::ApiFirstByte),
                Some(Q::ApiBody),
            ],
            Self::StoreRead => [
                Some(Q::StoreReadDns),
                Some(Q::StoreReadConnect),
                Some(Q::StoreReadTls),
                None,
                Some(Q::StoreReadFirstByte),
                Some(Q::StoreReadBody),
            ],
            Self::StoreList => [
                Some(Q::StoreListDns),
                Some(Q::StoreListConnect),
                Some(Q::StoreListTls),
                None,
                Some(Q::StoreListFirstByte),
                Some(Q::StoreListBody),
            ],
            Self::StoreWrite => [
                Some(Q::StoreWriteDns),
                Some(Q::StoreWriteConnect),
                Some(Q::StoreWriteTls),
                Some(Q::StoreWriteRequest),
                Some(Q::StoreWriteFirstByte),
                Some(Q::StoreWriteBody),
            ],
        }
    }
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

    /// The time of a phase of calls to the store, summed over the calls of a run.
    const fn store_phase(key: &'static str, call: CallKind, label: &'static str) -> Self {
        Self { metric: None, ..Self::step(key, StepKind::Phase(call), label) }
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

use CallKind::{StoreList, StoreRead, StoreWrite};
use Definition as D;
use Section::{Counts, Derived, Http, Process, Record};
use StepKind::{Cpu, Io};

const FEED_PHASE: StepKind = StepKind::Phase(CallKind::Feed);

quantities! {
    /// Time that the run took
    TotalTime = D::new(Record, "total_time", Unit::Seconds).gauge("last_run_duration_seconds");
    /// Fetching the response, waits and repetitions included
    ApiFetch = D::step("api_fetch", Io, "fetch");
    /// Resolving the name of the server, in the last call
    ApiDns = D::step("api_dns", FEED_PHASE, "dns");
    /// Opening the TCP connection, in the last call
    ApiConnect = D::step("api_connect", FEED_PHASE, "TCP");
    /// TLS handshake, in the last call
    ApiTls = D::step("api_tls", FEED_PHASE, "TLS");
    /// TCP and TLS handshakes together, in records of earlier versions
    ApiConnectTls = D { metric: None, ..D::step("api_connect_tls", FEED_PHASE, "TCP and TLS") };
    /// From the connection to the head of the response, in the last call
    ApiFirstByte = D::step("api_first_byte", FEED_PHASE, "first byte");
    /// Receiving the body, in the last call
    ApiBody = D::step("api_body", FEED_PHASE, "body");
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
    /// Resolving the name of the store, in calls that read objects
    StoreReadDns = D::store_phase("store_read_dns", StoreRead, "dns");
    /// Opening TCP connections to the store, in calls that read objects
    StoreReadConnect = D::store_phase("store_read_connect", StoreRead, "TCP");
    /// TLS handshakes with the store, in calls that read objects
    StoreReadTls = D::store_phase("store_read_tls", StoreRead, "TLS");
    /// From the request to the head of the response, in calls that read objects
    StoreReadFirstByte = D::store_phase("store_read_first_byte", StoreRead, "first byte");
    /// Receiving the body of the response, in calls that read objects
    StoreReadBody = D::store_phase("store_read_body", StoreRead, "body");
    /// Resolving the name of the store, in calls that list objects
    StoreListDns = D::store_phase("store_list_dns", StoreList, "dns");
    /// Opening TCP connections to the store, in calls that list objects
    StoreListConnect = D::store_phase("store_list_connect", StoreList, "TCP");
    /// TLS handshakes with the store, in calls that list objects
    StoreListTls = D::store_phase("store_list_tls", StoreList, "TLS");
    /// From the request to the head of the response, in calls that list objects
    StoreListFirstByte = D::store_phase("store_list_first_byte", StoreList, "first byte");
    /// Receiving the body of the response, in calls that list objects
    StoreListBody = D::store_phase("store_list_body", StoreList, "body");
    /// Resolving the name of the store, in calls that write objects
    StoreWriteDns = D::store_phase("store_write_dns", StoreWrite, "dns");
    /// Opening TCP connections to the store, in calls that write objects
    StoreWriteConnect = D::store_phase("store_write_connect", StoreWrite, "TCP");
    /// TLS handshakes with the store, in calls that write objects
    StoreWriteTls = D::store_phase("store_write_tls", StoreWrite, "TLS");
    /// Sending the body of the request, in calls that write objects
    StoreWriteRequest = D::store_phase("store_write_request", StoreWrite, "request");
    /// From the request to the head of the response, in calls that write objects
    StoreWriteFirstByte = D::store_phase("store_write_first_byte", StoreWrite, "first byte");
    /// Receiving the body of the response, in calls that write objects
    StoreWriteBody = D::store_phase("store_write_body", StoreWrite, "body");
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
    /// Calls of the store that read objects, repetitions included
    StoreReadCalls = D::count("store_read_calls");
    /// Calls of the store that list objects, repetitions included
    StoreListCalls = D::count("store_list_calls");
    /// Calls of the store that write objects, repetitions included
    StoreWriteCalls = D::count("store_write_calls");
    /// Connections that were opened to the store; the other calls used an open one
    StoreConnections = D::count("store_connections");
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
