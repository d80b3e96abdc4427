//! The PERFORMANCE SUMMARY that ends the log of a run, in the words of the documented collector; as fields where the log is JSON.
//! And the same for a person who asks for it: `--timings`.

use std::fmt::Write as _;

use tracing::{info, warn};

use super::logging::LogFormat;
use super::output::duration;
use crate::quantity::{CallKind, Quantity, Section, StepKind};
use crate::record::RunRecord;

const WIDTH: usize = 60;

/// Logs where the time of a run went, and what it counted.
pub(crate) fn log(record: &RunRecord, format: LogFormat) {
    match format {
        LogFormat::Text => log_lines(record),
        LogFormat::Json => log_fields(record),
    }
}

/// A step, the seconds that it took, and their percentage of the run.
fn steps(record: &RunRecord) -> impl Iterator<Item = (&'static str, f64, f64)> {
    let total = total(record);
    let steps = Quantity::steps().filter(|(_, step)| !step.kind.is_phase());
    steps.filter_map(move |(quantity, _)| {
        let seconds = record.get(quantity)?;
        Some((quantity.key(), seconds, percent(seconds, total)))
    })
}

fn total(record: &RunRecord) -> f64 {
    record.get(Quantity::TotalTime).unwrap_or(0.0)
}

fn percent(seconds: f64, total: f64) -> f64 {
    if total > 0.0 { seconds / total * 100.0 } else { 0.0 }
}

fn counts(record: &RunRecord) -> impl Iterator<Item = (Quantity, f64)> {
    record.quantities.iter().filter(|(quantity, _)| quantity.definition().section == Section::Counts)
}

fn log_lines(record: &RunRecord) {
    let rule = "=".repeat(WIDTH);
    info!("{rule}");
    info!("PERFORMANCE SUMMARY");
    info!("{rule}");
    info!("Total execution time: {:.4}s", total(record));
    info!("Timing breakdown:");
    for (step, seconds, percent) in steps(record) {
        info!("  {step}: {seconds:.4}s ({percent:.1}%)");
    }
    info!("Counts:");
    for (quantity, value) in counts(record) {
        info!("  {}: {value}", quantity.key());
    }
    if !record.errors.is_empty() {
        warn!("Errors encountered: {}", record.errors.len());
    }
    info!("{rule}");
}

fn log_fields(record: &RunRecord) {
    for (step, seconds, percent) in steps(record) {
        info!(step, seconds, percent = (percent * 10.0).round() / 10.0, "PERFORMANCE SUMMARY");
    }
    for (quantity, value) in counts(record) {
        info!(count = quantity.key(), value, "PERFORMANCE SUMMARY");
    }
    let errors = record.errors.len();
    let total_time = total(record);
    if errors == 0 {
        info!(total_time, errors, "PERFORMANCE SUMMARY");
    } else {
        warn!(total_time, errors, "PERFORMANCE SUMMARY");
    }
}

/// Every step with its share of the run, and below it the phases of the calls that it made.
pub(crate) fn timings(record: &RunRecord) -> String {
    let whole = total(record);
    let mut text = format!("  {:<28}{:>10}{:>9}\n", "step", "time", "share");
    let mut row = |name: &str, seconds: f64| {
        let share = format!("{:.1} %", percent(seconds, whole));
        let _ = writeln!(text, "  {name:<28}{:>10}{share:>9}", duration(seconds));
    };
    for (quantity, step) in Quantity::steps().filter(|(_, step)| !step.kind.is_phase()) {
        if let Some(seconds) = record.get(quantity) {
            row(step.label, seconds);
        }
    }
    row("total", whole);
    for kind in CallKind::ALL {
        let Some(calls) = record.get(kind.calls()).filter(|calls| *calls > 0.0) else { continue };
        let plural = if calls > 1.0 { "s" } else { "" };
        // The feed's phases are those of its last call.
        let of = if kind == CallKind::Feed && calls > 1.0 { ", the last one" } else { "" };
        let _ = writeln!(text, "  {}, {calls} call{plural}{of}", kind.name());
        for (quantity, step) in Quantity::steps().filter(|(_, step)| step.kind == StepKind::Phase(kind)) {
            if let Some(seconds) = record.get(quantity) {
                let share = format!("{:.1} %", percent(seconds, whole));
                let _ = writeln!(text, "    {:<26}{:>10}{share:>9}", step.label, duration(seconds));
            }
        }
    }
    text + &connections(record)
}

/// Which calls opened a connection, and which used one that was open.
fn connections(record: &RunRecord) -> String {
    let mut text = String::new();
    if record.get(Quantity::ApiFirstByte).is_some() {
        let kind = if record.get(Quantity::ApiConnect).is_some() { "cold" } else { "warm" };
        let _ = writeln!(text, "  feed connection: {kind}");
    }
    let calls: f64 = CallKind::STORE.into_iter().filter_map(|kind| record.get(kind.calls())).sum();
    if let Some(opened) = record.get(Quantity::StoreConnections) {
        let _ = writeln!(text, "  store connections: {opened} cold calls, {} warm calls", calls - opened);
    }
    text
}
