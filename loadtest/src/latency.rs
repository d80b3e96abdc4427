//! How long things take, in histograms.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The upper limit of the histogram, in nanoseconds: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Percentiles of how long a step took, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of all took no longer.
    pub p50: f64,
    /// 95 % took no longer.
    pub p95: f64,
    /// 99 % took no longer.
    pub p99: f64,
}

/// An empty histogram of nanoseconds with three digits that count.
pub(crate) fn histogram() -> Histogram<u64> {
    // These bounds are sound, so that the smaller one is never needed.
    Histogram::new_with_bounds(1, LONGEST_NS, 3)
        .or_else(|_| Histogram::new(3))
        .unwrap_or_else(|_| unreachable!("three digits are allowed"))
}

pub(crate) fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    let at = |share| seconds(histogram.value_at_quantile(share));
    Percentiles { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}

pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    u64::try_from(Duration::try_from_secs_f64(seconds).unwrap_or_default().as_nanos()).unwrap_or(LONGEST_NS)
}

pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}
