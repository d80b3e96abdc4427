//! Metrics for Prometheus: since the service began, or from run to run in a file.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};
use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, Opts, Registry, TextEncoder,
};

use super::pace::Plan;
use super::summary::{Ended, RunSummary};
use crate::files::{self, output};
use crate::record::{Evidence, Limits, ProcessUse, RunRecord, resident_bytes};

/// How all names of ours begin.
pub const PREFIX: &str = "polisen_collector";
const EVENT_KINDS: [&str; 5] = ["new", "revised", "rejected", "withdrawn", "returned"];
const BUCKETS_S: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A textfile that is read is not larger.
const TEXTFILE_LIMIT_BYTES: u64 = 1 << 20;

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    runs: IntCounterVec,
    failures: IntCounterVec,
    events: IntCounterVec,
    possible_gaps: IntCounter,
    sparse_responses: IntCounter,
    response_bytes: IntCounter,
    wire_bytes: IntCounter,
    written_bytes: IntCounter,
    written_objects: IntCounter,
    response_events: IntGauge,
    response_valid: IntGauge,
    overlap: IntGauge,
    ledger_events: IntGauge,
    rejected_share: Gauge,
    clock_offset: Gauge,
    run_duration: Histogram,
    step_duration: HistogramVec,
    last_run: Gauge,
    last_run_duration: Gauge,
    last_success: Gauge,
    last_valid_response: Gauge,
    last_response_with_events: Gauge,
    last_settled: Gauge,
    last_possible_gap: Gauge,
    next_poll: Gauge,
    interval: Gauge,
    consecutive_failures: IntGauge,
    healthy: IntGauge,
    memory: IntGauge,
    cpu: Counter,
}

impl Metrics {
    /// All at nothing.
    ///
    /// # Errors
    /// If the library refuses a name, which is a fault of this program.
    pub fn new(started: DateTime<Utc>, buffer: usize, limits: &Limits) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = Registrar(&registry);
        new.build_info()?;
        new.gauge("rejected_share_limit", "Maximum share of a response that may be rejected.")?
            .set(limits.max_rejected_share);
        new.whole("buffer_size_events", "Events that a full response holds.")?.set(whole(buffer));
        let start =
            new.gauge("process_start_time_seconds", "When the process began, in seconds since 1970.")?;
        start.set(seconds_of(started));
        let metrics = Self {
            runs: new.counters("runs_total", "Runs, by how they ended.", "result")?,
            failures: new.counters(
                "run_failures_total",
                "Runs that failed, by the kind of error.",
                "kind",
            )?,
            events: new.counters("events_total", "What runs stored, by kind.", "kind")?,
            possible_gaps: new
                .counter("possible_gaps_total", "Runs before which events may have been missed.")?,
            sparse_responses: new
                .counter("sparse_responses_total", "Responses that were spread over months.")?,
            response_bytes: new.counter("response_bytes_total", "Bytes of responses, decompressed.")?,
            wire_bytes: new.counter("wire_bytes_total", "Bytes of responses as they were sent.")?,
            written_bytes: new.counter("written_bytes_total", "Bytes of objects that were written.")?,
            written_objects: new.counter("written_objects_total", "Objects that were written.")?,
            response_events: new.whole("response_events", "Elements of the last response.")?,
            response_valid: new.whole("response_valid_events", "Valid events in the last response.")?,
            overlap: new
                .whole("buffer_overlap_events", "Events of the last response that were known before.")?,
            ledger_events: new
                .whole("ledger_events", "Events that the ledger held at the start of the last run.")?,
            rejected_share: new
                .gauge("rejected_share", "Share of the last response that is not valid events, 0 to 1.")?,
            clock_offset: new.gauge(
                "clock_offset_seconds",
                "How far the clock was ahead of the feed's, by the last answer that stated a time.",
            )?,
            run_duration: new.histogram("run_duration_seconds", "How long runs took.")?,
            step_duration: new.histograms(
                "step_duration_seconds",
                "How long the steps of runs took.",
                "step",
            )?,
            last_run: new.gauge("last_run_timestamp_seconds", "When the last run ended.")?,
            last_run_duration: new.gauge("last_run_duration_seconds", "How long the last run took.")?,
            last_success: new.gauge("last_success_timestamp_seconds", "When the last good run ended.")?,
            last_valid_response: new
                .gauge("last_valid_response_timestamp_seconds", "When a JSON array was last fetched.")?,
            last_response_with_events: new.gauge(
                "last_response_with_events_timestamp_seconds",
                "When a valid event was last fetched.",
            )?,
            last_settled: new.gauge(
                "last_settled_timestamp_seconds",
                "When events were last fetched of which every one is stored now.",
            )?,
            last_possible_gap: new.gauge(
                "last_possible_gap_timestamp_seconds",
                "When events may last have been missed; 0 if never.",
            )?,
            next_poll: new.gauge("next_poll_timestamp_seconds", "When the next poll is due.")?,
            interval: new.gauge("poll_interval_seconds", "The time between two polls now.")?,
            consecutive_failures: new
                .whole("consecutive_failures", "Runs that failed one after the other.")?,
            healthy: new.whole("healthy", "Whether the health check succeeds: 1 or 0.")?,
            memory: new.whole("process_resident_memory_bytes", "Memory of the process.")?,
            cpu: new.cpu()?,
            registry,
        };
        // What has not happened yet is 0 and not missing, or the first time would not be seen as an increase.
        for ended in Ended::ALL {
            metrics.runs.with_label_values(&[ended.name()]);
        }
        for kind in EVENT_KINDS {
            metrics.events.with_label_values(&[kind]);
        }
        Ok(metrics)
    }

    pub(super) fn note_plan(&self, plan: &Plan) {
        self.next_poll.set(seconds_of(plan.next_poll));
        self.interval.set(plan.interval_s);
    }

    /// Takes over what all runs so far have shown.
    pub(super) fn note_evidence(&self, evidence: &Evidence) {
        let last_success = self.last_success.get();
        for (gauge, time) in [
            (&self.last_valid_response, evidence.last_valid_response),
            (&self.last_response_with_events, evidence.last_response_with_events),
            (&self.last_settled, evidence.last_settled),
            (&self.last_possible_gap, evidence.last_possible_gap),
        ] {
            gauge.set(time.map_or(0.0, seconds_of));
        }
        // A process of its own that failed knows the last good run from the evidence only.
        self.last_success.set(if last_success > 0.0 { last_success } else { self.last_settled.get() });
        self.response_valid.set(whole(evidence.events_in_last_response.unwrap_or(0)));
        self.rejected_share.set(evidence.rejected_share());
        self.consecutive_failures.set(i64::from(evidence.consecutive_failures));
    }

    /// Takes a run into account.
    pub fn note_run(&self, record: &RunRecord, summary: &RunSummary) {
        self.runs.with_label_values(&[summary.ended.name()]).inc();
        if let Some(error) = record.errors.last() {
            self.failures.with_label_values(&[&error.kind]).inc();
        }
        self.note_last(record, summary);
        self.run_duration.observe(record.total_time);
        for (step, seconds) in steps(record) {
            self.step_duration.with_label_values(&[&step]).observe(seconds);
        }
        self.possible_gaps.inc_by(u64::from(summary.possible_gap));
        self.sparse_responses.inc_by(u64::from(summary.sparse));
        self.response_bytes.inc_by(record.counts.api_response_bytes.unwrap_or(0) as u64);
        self.wire_bytes.inc_by(record.http.as_ref().map_or(0, |http| http.wire_bytes));
        let Some(counts) = record.counts.deposit.filter(|_| summary.ended == Ended::Success) else { return };
        let stored = [
            counts.new_events_count,
            counts.revisions_count,
            counts.rejected_count,
            counts.withdrawn_count,
            counts.returned_count,
        ];
        for (kind, count) in EVENT_KINDS.into_iter().zip(stored) {
            self.events.with_label_values(&[kind]).inc_by(count as u64);
        }
        self.written_bytes.inc_by(counts.bytes_written as u64);
        self.written_objects.inc_by(counts.objects_written as u64);
    }

    /// Takes a run for the last one, without counting it.
    pub(super) fn note_last(&self, record: &RunRecord, summary: &RunSummary) {
        let ended_at = record.start_time + record.total_time;
        self.last_run.set(ended_at);
        self.last_run_duration.set(record.total_time);
        if summary.ended == Ended::Success {
            self.last_success.set(ended_at);
        }
        if let Some(events) = summary.events {
            self.response_events.set(whole(events));
        }
        if let Some(overlap) = summary.overlap {
            self.overlap.set(whole(overlap));
        }
        if let Some(counts) = record.counts.deposit {
            self.ledger_events.set(whole(counts.seen_ids_count));
        }
        if let Some(offset_s) = record.http.as_ref().and_then(|http| http.clock_offset_s) {
            #[expect(clippy::cast_precision_loss, reason = "seconds")]
            self.clock_offset.set(offset_s as f64);
        }
    }

    /// Notes how healthy it is now.
    pub fn note_health(&self, is_healthy: bool) {
        self.healthy.set(i64::from(is_healthy));
    }

    /// All figures, in the text format of Prometheus.
    #[must_use]
    pub fn to_text(&self) -> String {
        let used = ProcessUse::so_far();
        self.cpu.inc_by((used.cpu_user_s + used.cpu_system_s - self.cpu.get()).max(0.0));
        self.memory.set(i64::try_from(resident_bytes().unwrap_or(0)).unwrap_or(0));
        let mut text = Vec::new();
        // Writing plain figures into memory cannot fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Takes over from the file of an earlier run what a run without a response does not set.
    pub fn resume(&self, path: &Path) {
        let text = read_textfile(path);
        for (name, value) in text.lines().filter_map(figure) {
            #[expect(clippy::cast_possible_truncation, reason = "counts of events")]
            match name.strip_prefix(PREFIX).unwrap_or_default() {
                "_response_events" => self.response_events.set(value as i64),
                "_buffer_overlap_events" => self.overlap.set(value as i64),
                "_ledger_events" => self.ledger_events.set(value as i64),
                "_clock_offset_seconds" => self.clock_offset.set(value),
                "_last_success_timestamp_seconds" => self.last_success.set(value),
                _ => {}
            }
        }
    }

    /// Writes them into a file for the textfile collector of `node_exporter`, whole or not at all. What counts goes on from what
    /// stands there, since each run is a process of its own; distributions and what only a service has are left out.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_to(&self, path: &Path) -> io::Result<()> {
        let before = read_textfile(path);
        let before: BTreeMap<&str, f64> = before.lines().filter_map(figure).collect();
        let mut text = String::new();
        let (mut is_counter, mut is_wanted) = (false, true);
        for line in self.to_text().lines() {
            if let Some(header) = line.strip_prefix("# HELP ") {
                let name = header.split(' ').next().unwrap_or_default();
                is_wanted = !is_of_service(name);
            }
            if let Some(header) = line.strip_prefix("# TYPE ") {
                is_counter = header.ends_with(" counter");
            }
            if !is_wanted {
                continue;
            }
            match figure(line).filter(|_| is_counter) {
                Some((name, value)) => {
                    let sum = value + before.get(name).copied().unwrap_or(0.0);
                    let _ = writeln!(text, "{name} {sum}");
                }
                None => _ = writeln!(text, "{line}"),
            }
        }
        // A kind of failure that this run did not have still counts.
        for (name, value) in &before {
            if name.contains("_total{") && !text.contains(name) {
                let _ = writeln!(text, "{name} {value}");
            }
        }
        output::write(path, text.as_bytes())
    }
}

/// Makes metrics and registers them.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn add<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::with_opts(named(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(named(name, help), &[label])?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.add(Gauge::with_opts(named(name, help))?)
    }

    fn whole(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::with_opts(named(name, help))?)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        self.add(Histogram::with_opts(durations(name, help))?)
    }

    fn histograms(&self, name: &str, help: &str, label: &str) -> Result<HistogramVec, prometheus::Error> {
        self.add(HistogramVec::new(durations(name, help), &[label])?)
    }

    fn cpu(&self) -> Result<Counter, prometheus::Error> {
        self.add(Counter::with_opts(named("process_cpu_seconds_total", "Processor time of the process."))?)
    }

    fn build_info(&self) -> Result<(), prometheus::Error> {
        let opts = named("build_info", "1, with the version of the collector as a label.");
        self.add(IntGauge::with_opts(opts.const_label("version", env!("CARGO_PKG_VERSION")))?)?.set(1);
        Ok(())
    }
}

/// A name of ours, but for those that all programs share.
fn named(name: &str, help: &str) -> Opts {
    Opts::new(if name.starts_with("process_") { name.to_owned() } else { format!("{PREFIX}_{name}") }, help)
}

fn durations(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts { common_opts: named(name, help), buckets: BUCKETS_S.to_vec() }
}

/// What an earlier run has left; nothing where there is no regular file.
fn read_textfile(path: &Path) -> String {
    let text = files::read_regular(path, TEXTFILE_LIMIT_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// A line's name with its labels, and its figure.
pub(crate) fn figure(line: &str) -> Option<(&str, f64)> {
    let (name, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    Some((name, value.parse().ok()?))
}

/// Whether a figure is of no use from a process that ends at once.
fn is_of_service(name: &str) -> bool {
    let own = name.strip_prefix(PREFIX).map_or(name, |rest| rest.trim_start_matches('_'));
    matches!(
        own,
        "next_poll_timestamp_seconds"
            | "poll_interval_seconds"
            | "run_duration_seconds"
            | "step_duration_seconds"
            | "process_start_time_seconds"
            | "process_resident_memory_bytes"
            | "process_cpu_seconds_total"
    )
}

/// The steps that a record times, by their names in it.
fn steps(record: &RunRecord) -> Vec<(String, f64)> {
    let timings = serde_json::to_value(record.timings).unwrap_or_default();
    let timings = timings.as_object().into_iter().flatten();
    timings.filter_map(|(step, seconds)| Some((step.clone(), seconds.as_f64()?))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970")]
fn seconds_of(time: DateTime<Utc>) -> f64 {
    time.timestamp_millis() as f64 / 1e3
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
