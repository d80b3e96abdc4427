//! What is followed from run to run, by the names that records give it.

use super::runs::Run;

/// In what something is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Events, calls or objects.
    Count,
    /// None: a share, 0 or 1 in each run.
    Share,
}

/// What the network, the processor or the disk does, or all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Waits for the network or the store.
    Io,
    /// Computes.
    Cpu,
    /// A part of `api_fetch`.
    Phase,
}

/// The operations of a run, in their order: the name in records, what it is, what it does.
pub const OPERATIONS: [(&str, &str, Kind); 13] = [
    ("api_fetch", "fetch the response", Kind::Io),
    ("api_dns", "find the address", Kind::Phase),
    ("api_connect_tls", "connect, TLS", Kind::Phase),
    ("api_first_byte", "wait for the first byte", Kind::Phase),
    ("api_body", "receive the body", Kind::Phase),
    ("metadata_fetch", "read the ledger", Kind::Io),
    ("parse", "find the events", Kind::Cpu),
    ("deduplication", "decide what is new", Kind::Cpu),
    ("archive_lookup", "look up in the archive", Kind::Io),
    ("takeover", "finish for a dead run", Kind::Io),
    ("claim", "claim what is to be written", Kind::Io),
    ("save_events", "write the events", Kind::Io),
    ("metadata_update", "commit the ledger", Kind::Io),
];

/// A figure that each record may have.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    /// As records name it.
    pub name: &'static str,
    /// In what it is counted.
    pub unit: Unit,
    of: fn(&Run) -> Option<f64>,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Quantity {
    /// The value in a record; none if it is negative or too large, which no quantity can be.
    pub(super) fn of(self, run: &Run) -> Option<f64> {
        (self.of)(run).filter(|value| value.is_finite() && *value >= 0.0)
    }

    /// The quantity of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        QUANTITIES.into_iter().find(|quantity| quantity.name == name)
    }

    /// Whether it is another one in the morning than at night, so that only days can be compared.
    #[must_use]
    pub fn follows_the_day(self) -> bool {
        matches!(self.unit, Unit::Count | Unit::Share) || self.name == "bytes_written"
    }
}

macro_rules! quantities {
    ($($name:literal, $unit:ident, $of:expr;)*) => {
        [$(Quantity { name: $name, unit: Unit::$unit, of: $of }),*]
    };
}

/// All that is followed.
pub const QUANTITIES: [Quantity; 28] = quantities![
    "total_time", Seconds, |run| run.total_time;
    "api_fetch", Seconds, |run| run.timings[0];
    "api_dns", Seconds, |run| run.timings[1];
    "api_connect_tls", Seconds, |run| run.timings[2];
    "api_first_byte", Seconds, |run| run.timings[3];
    "api_body", Seconds, |run| run.timings[4];
    "metadata_fetch", Seconds, |run| run.timings[5];
    "parse", Seconds, |run| run.timings[6];
    "deduplication", Seconds, |run| run.timings[7];
    "archive_lookup", Seconds, |run| run.timings[8];
    "takeover", Seconds, |run| run.timings[9];
    "claim", Seconds, |run| run.timings[10];
    "save_events", Seconds, |run| run.timings[11];
    "metadata_update", Seconds, |run| run.timings[12];
    "cpu", Seconds, |run| run.cpu_s;
    "api_events_total", Count, |run| run.counts.api_events_total;
    "new_events_count", Count, |run| run.counts.new_events_count;
    "buffer_overlap", Count, |run| run.counts.buffer_overlap;
    "revisions_count", Count, |run| run.counts.revisions_count;
    "objects_written", Count, |run| run.counts.objects_written;
    "attempts", Count, |run| run.attempts;
    "api_response_bytes", Bytes, |run| run.counts.response_bytes();
    "wire_bytes", Bytes, |run| run.wire_bytes;
    "bytes_written", Bytes, |run| run.counts.bytes_written;
    "peak_memory_bytes", Bytes, |run| run.memory_bytes;
    "failed", Share, |run| Some(f64::from(u8::from(run.failed)));
    "possible_gap", Share, |run| Some(f64::from(u8::from(run.possible_gap)));
    "errors", Count, |run| Some(run.errors.len() as f64);
];
