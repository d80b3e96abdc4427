//! The documented trend report as text.

use std::io::{self, Write};

use super::{Compact, OPERATIONS, Runs, Sample};
use crate::python::statistics::{max, mean, median, min, stdev, sum};
use crate::python::{Number, fixed};
use crate::text::printable;

/// The documented trend report.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    runs: &'a Runs,
}

impl<'a> Report<'a> {
    /// The report over these runs.
    #[must_use]
    pub fn new(runs: &'a Runs) -> Self {
        Self { runs }
    }

    /// Writes it: first the records that were skipped, then the trends.
    ///
    /// # Errors
    /// If `out` refuses it.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Runs { samples, skipped } = self.runs;
        for skipped in skipped {
            writeln!(out, "Error loading {}: {}", printable(&skipped.place), printable(&skipped.reason))?;
        }
        if samples.is_empty() {
            return writeln!(out, "No metrics data found");
        }
        let rule = "=".repeat(80);
        writeln!(out, "{rule}\nPERFORMANCE TREND ANALYSIS\n{rule}")?;
        writeln!(out, "Total runs analyzed: {}\n", samples.len())?;

        let total_times = series(samples, |sample| sample.total_time.as_ref());
        let total_times: Vec<_> = total_times.iter().collect();
        write_times(out, "Total Execution Time", &total_times)?;
        if let Some(deviation) = stdev(&total_times) {
            writeln!(out, "  StdDev: {}s", fixed(deviation, 4))?;
        }
        end_block(out, &total_times)?;
        for (index, operation) in OPERATIONS.into_iter().enumerate() {
            let times = series(samples, |sample| sample.timings.get(index)?.as_ref());
            let times: Vec<_> = times.iter().collect();
            write_times(out, operation, &times)?;
            end_block(out, &times)?;
        }
        let new_events = series(samples, |sample| sample.new_events.as_ref());
        let new_events: Vec<_> = new_events.iter().collect();
        write_counts(out, &new_events)?;
        end_block(out, &new_events)?;
        write_errors(out, samples)
    }
}

/// One number of each run that has it.
fn series(samples: &[Sample], number: impl Fn(&Sample) -> Option<&Compact>) -> Vec<Number> {
    samples.iter().filter_map(number).map(Number::from).collect()
}

fn write_times(out: &mut impl Write, title: &str, times: &[&Number]) -> io::Result<()> {
    let (Some(least), Some(most)) = (min(times), max(times)) else { return Ok(()) };
    writeln!(out, "{title}:")?;
    for (name, seconds) in [
        ("Mean:  ", mean(times)),
        ("Median:", median(times)),
        ("Min:   ", least.to_f64()),
        ("Max:   ", most.to_f64()),
    ] {
        writeln!(out, "  {name} {}s", fixed(seconds, 4))?;
    }
    Ok(())
}

fn write_counts(out: &mut impl Write, counts: &[&Number]) -> io::Result<()> {
    let (Some(least), Some(most)) = (min(counts), max(counts)) else { return Ok(()) };
    writeln!(out, "New Events per Run:")?;
    writeln!(out, "  Mean:   {}", fixed(mean(counts), 2))?;
    writeln!(out, "  Median: {}", fixed(median(counts), 2))?;
    writeln!(out, "  Min:    {least}\n  Max:    {most}\n  Total:  {}", sum(counts))
}

/// Says nothing where nothing went wrong.
fn write_errors(out: &mut impl Write, samples: &[Sample]) -> io::Result<()> {
    let total: usize = samples.iter().map(|sample| sample.errors).sum();
    if total == 0 {
        return Ok(());
    }
    let affected = samples.iter().filter(|sample| sample.errors > 0).count();
    #[expect(clippy::cast_precision_loss, reason = "no folder holds 2^53 files")]
    let rate = affected as f64 / samples.len() as f64 * 100.0;
    writeln!(out, "Errors: {total} errors across {} runs", samples.len())?;
    writeln!(out, "  Error rate: {}%\n", fixed(rate, 2))
}

/// An empty line after a block, which is there if it has values.
fn end_block(out: &mut impl Write, values: &[&Number]) -> io::Result<()> {
    if values.is_empty() { Ok(()) } else { writeln!(out) }
}
