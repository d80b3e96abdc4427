//! Metrics for Prometheus: since the service began, or from run to run in a file.
//!
//! The metrics of a run's quantities derive from `quantity`; those of evidence, health and schedule are defined here.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>.

mod publishing;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, Opts, Registry, TextEncoder,
};

use super::poll_interval::Plan;
use super::status::Published;
use super::summary::{Ended, RunSummary};
use crate::files::{self, output};
use crate::mirror::state::MirrorState;
use crate::quantity::{Definition, Metric, Quantity};
use crate::record::{Evidence, Limits, ProcessUse, RunRecord, resident_bytes};
use publishing::Publishing;

/// How all names of ours begin.
pub const PREFIX: &str = "polisen_collector";
const BUCKETS_S: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A textfile that is read is not larger.
const TEXTFILE_LIMIT_BYTES: u64 = 1 << 20;

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    runs: IntCounterVec,
    failures: IntCounterVec,
    quantities: Vec<(Quantity, QuantityMetric)>,
    rejected_share: Gauge,
    run_duration: Histogram,
    step_duration: HistogramVec,
    last_run: Gauge,
    last_success: Gauge,
    last_valid_response: Gauge,
    last_response_with_events: Gauge,
    last_settled: Gauge,
    last_possible_gap: Gauge,
    next_poll: Gauge,
    interval: Gauge,
    consecutive_failures: IntGauge,
    healthy: IntGauge,
    feed_gone: Gauge,
    buffer_size: IntGauge,
    rejected_share_limit: Gauge,
    max_age: IntGauge,
    reload_successful: IntGauge,
    listen_failures: IntCounter,
    mirror_last_success: Gauge,
    mirror_lag: Gauge,
    mirror_lag_objects: IntGauge,
    mirror_conflicts: IntGauge,
    memory: IntGauge,
    cpu: Counter,
    /// Registered when something is published.
    publishing: OnceLock<Publishing>,
}

impl Metrics {
    /// All at nothing.
    ///
    /// # Errors
    /// If the library refuses a name, which is a fault of this program.
    pub fn new(started: DateTime<Utc>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = Registrar(&registry);
        new.build_info()?;
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
            quantities: new.quantities()?,
            rejected_share: new
                .gauge("rejected_share", "Share of the last response that is not valid events, 0 to 1.")?,
            run_duration: new.histogram("run_duration_seconds", "How long runs took.")?,
            step_duration: new.histograms(
                "step_duration_seconds",
                "How long the steps of runs took.",
                "step",
            )?,
            last_run: new.gauge("last_run_timestamp_seconds", "When the last run ended.")?,
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
            feed_gone: new.gauge(
                "feed_gone_timestamp_seconds",
                "When the feed answered HTTP 404, after which it is not called again; 0 if it did not.",
            )?,
            buffer_size: new.whole("buffer_size_events", "Events that a full response holds.")?,
            rejected_share_limit: new
                .gauge("rejected_share_limit", "Maximum share of a response that may be rejected.")?,
            max_age: new.whole("max_age_seconds", "Age of the last run at which the health check fails.")?,
            reload_successful: new.whole(
                "config_last_reload_successful",
                "Whether the settings were valid when they were last read: 1 or 0.",
            )?,
            listen_failures: new
                .counter("listen_failures_total", "Attempts to listen for these pages that failed.")?,
            mirror_last_success: new.gauge(
                "mirror_last_success_timestamp_seconds",
                "When the replica last held everything, or when the service began; 0 without a replica.",
            )?,
            mirror_lag: new.gauge(
                "mirror_lag_seconds",
                "How long before the last update of the replica it last held everything.",
            )?,
            mirror_lag_objects: new
                .whole("mirror_lag_objects", "Objects that runs stored and the replica lacks.")?,
            mirror_conflicts: new
                .whole("mirror_conflicts", "Objects of the replica that are not what they have to be.")?,
            publishing: OnceLock::new(),
            memory: new.whole("process_resident_memory_bytes", "Memory of the process.")?,
            cpu: new.cpu()?,
            registry,
        };
        // What has not happened yet is 0 and not missing, or the first time would not be seen as an increase.
        for ended in Ended::ALL {
            metrics.runs.with_label_values(&[ended.name()]);
        }
        metrics.note_reload(true);
        Ok(metrics)
    }

    pub(super) fn note_limits(&self, buffer: usize, limits: &Limits) {
        self.buffer_size.set(whole(buffer));
        self.rejected_share_limit.set(limits.max_rejected_share);
        self.max_age.set(limits.max_age_minutes.saturating_mul(60));
    }

    pub(super) fn note_reload(&self, is_successful: bool) {
        self.reload_successful.set(i64::from(is_successful));
    }

    pub(super) fn note_listen_failure(&self) {
        self.listen_failures.inc();
    }

    pub(super) fn note_mirror(&self, state: &MirrorState, now: DateTime<Utc>) {
        self.mirror_last_success.set(seconds_of(state.last_success));
        self.mirror_lag.set(seconds_of(now) - seconds_of(state.last_success));
        self.mirror_lag_objects.set(whole(state.lag_objects));
        self.mirror_conflicts.set(whole(state.conflicts));
    }

    /// Publishing has come to the last commit, or has failed or only begins. The metrics do not exist before.
    pub(super) fn note_publishing(&self, published: Option<Published>) {
        let publishing = match self.publishing.get() {
            Some(publishing) => publishing,
            None => match Publishing::new(&Registrar(&self.registry)) {
                Ok(new) => self.publishing.get_or_init(|| new),
                // Another thread was faster; it notes the next time.
                Err(_) => return,
            },
        };
        publishing.note(published);
    }

    pub(super) fn note_plan(&self, plan: &Plan) {
        self.next_poll.set(seconds_of(plan.next_poll));
        self.interval.set(plan.interval_s);
    }

    /// Sets the time between two runs, where a timer starts them.
    pub fn note_interval(&self, interval: Duration) {
        self.interval.set(interval.as_secs_f64());
    }

    /// Takes over what all runs so far have shown.
    pub(super) fn note_evidence(&self, evidence: &Evidence) {
        let last_success = self.last_success.get();
        for (gauge, time) in [
            (&self.last_valid_response, evidence.last_valid_response),
            (&self.last_response_with_events, evidence.last_response_with_events),
            (&self.last_settled, evidence.last_settled),
            (&self.last_possible_gap, evidence.last_possible_gap),
            (&self.feed_gone, evidence.feed_gone.as_ref().map(|gone| gone.since)),
        ] {
            gauge.set(time.map_or(0.0, seconds_of));
        }
        // A process of its own that failed knows the last good run from the evidence only.
        self.last_success.set(if last_success > 0.0 { last_success } else { self.last_settled.get() });
        let valid = u32::try_from(evidence.events_in_last_response.unwrap_or(0)).unwrap_or(u32::MAX);
        self.set_gauge(Quantity::ApiEventsValid, valid.into());
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
        self.run_duration.observe(summary.total_s);
        for (quantity, seconds) in Quantity::steps().filter_map(|(step, _)| Some((step, record.get(step)?))) {
            self.step_duration.with_label_values(&[quantity.key()]).observe(seconds);
        }
        for (quantity, metric) in &self.quantities {
            if let (QuantityMetric::Counter(counter), Some(count)) =
                (metric, record.quantities.count(*quantity))
            {
                counter.inc_by(count as u64);
            }
        }
        if let Some(publishing) = self.publishing.get() {
            publishing.note_run(record);
        }
    }

    /// Takes a run for the last one, without counting it.
    pub(super) fn note_last(&self, record: &RunRecord, summary: &RunSummary) {
        let ended_at = record.start_time() + summary.total_s;
        self.last_run.set(ended_at);
        if summary.ended == Ended::Success {
            self.last_success.set(ended_at);
        }
        for (quantity, value) in record.quantities.iter() {
            self.set_gauge(quantity, value);
        }
    }

    fn set_gauge(&self, quantity: Quantity, value: f64) {
        let metric = self.quantities.iter().find(|(known, _)| *known == quantity);
        if let Some((_, QuantityMetric::Gauge(gauge))) = metric {
            gauge.set(value);
        }
    }

    /// Notes how healthy it is now.
    pub fn note_health(&self, is_healthy: bool) {
        self.healthy.set(i64::from(is_healthy));
    }

    /// All metrics, in the text format of Prometheus.
    #[must_use]
    pub fn to_text(&self) -> String {
        let used = ProcessUse::so_far();
        self.cpu.inc_by((used.cpu_user_s + used.cpu_system_s - self.cpu.get()).max(0.0));
        self.memory.set(i64::try_from(resident_bytes().unwrap_or(0)).unwrap_or(0));
        let mut text = Vec::new();
        // Writing metrics into memory cannot fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Takes over from the file of an earlier run what a run without a response does not set.
    pub fn resume(&self, path: &Path) {
        let text = read_textfile(path);
        let before: BTreeMap<&str, f64> = text.lines().filter_map(sample).collect();
        let value_of = |name: &str| before.get(full_name(name).as_str()).copied();
        for quantity in Quantity::ALL {
            if let Some(Metric::Gauge(name)) = quantity.definition().metric
                && let Some(value) = value_of(name)
            {
                self.set_gauge(quantity, value);
            }
        }
        if let Some(value) = value_of("last_success_timestamp_seconds") {
            self.last_success.set(value);
        }
    }

    /// Writes them into a file for the textfile collector of `node_exporter`, whole or not at all. Counters continue from what
    /// stands there, since each run is a process of its own; distributions and what only a service has are left out.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_to(&self, path: &Path) -> io::Result<()> {
        let before = read_textfile(path);
        let before: BTreeMap<&str, f64> = before.lines().filter_map(sample).collect();
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
            match sample(line).filter(|_| is_counter) {
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

/// The metric of a quantity.
#[derive(Debug)]
enum QuantityMetric {
    Counter(IntCounter),
    Gauge(Gauge),
}

/// Makes metrics and registers them.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn add<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// The metrics of all quantities that have one of their own. Steps share `step_duration_seconds`.
    fn quantities(&self) -> Result<Vec<(Quantity, QuantityMetric)>, prometheus::Error> {
        let events =
            self.counters("events_total", "Elements of responses that runs stored, by kind.", "kind")?;
        let mut metrics = Vec::new();
        for quantity in Quantity::ALL {
            let Definition { metric, description, .. } = quantity.definition();
            let metric = match metric {
                Some(Metric::Counter(name)) => QuantityMetric::Counter(
                    self.counter(name, &format!("{description}: sum over all runs."))?,
                ),
                Some(Metric::EventsOfKind(kind)) => {
                    QuantityMetric::Counter(events.with_label_values(&[kind]))
                }
                Some(Metric::Gauge(name)) => QuantityMetric::Gauge(
                    self.gauge(name, &format!("{description}: value of the last run."))?,
                ),
                Some(Metric::StepDuration) | None => continue,
            };
            metrics.push((quantity, metric));
        }
        Ok(metrics)
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

fn named(name: &str, help: &str) -> Opts {
    Opts::new(full_name(name), help)
}

/// A name with the prefix of this program, unless all programs share it.
fn full_name(name: &str) -> String {
    if name.starts_with("process_") { name.to_owned() } else { format!("{PREFIX}_{name}") }
}

fn durations(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts { common_opts: named(name, help), buckets: BUCKETS_S.to_vec() }
}

/// What an earlier run has left; nothing where there is no regular file.
fn read_textfile(path: &Path) -> String {
    let text = files::read_regular(path, TEXTFILE_LIMIT_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// The name with labels and the value in a line of the text format.
pub(crate) fn sample(line: &str) -> Option<(&str, f64)> {
    let (name, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    Some((name, value.parse().ok()?))
}

/// Whether a metric is of no use from a process that ends at once.
fn is_of_service(name: &str) -> bool {
    let own = name.strip_prefix(PREFIX).map_or(name, |rest| rest.trim_start_matches('_'));
    matches!(
        own,
        "next_poll_timestamp_seconds"
            | "run_duration_seconds"
            | "step_duration_seconds"
            | "process_start_time_seconds"
            | "process_resident_memory_bytes"
            | "process_cpu_seconds_total"
            | "config_last_reload_successful"
            | "listen_failures_total"
    )
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970")]
fn seconds_of(time: DateTime<Utc>) -> f64 {
    time.timestamp_millis() as f64 / 1e3
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
