//! Medians and between which bounds they lie, without a guess at how the data are distributed.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Deserializer, Serialize};

/// A value and bounds for the true one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// As measured.
    pub value: f64,
    /// Lower bound; in JSON, `null` means unbounded.
    #[serde(deserialize_with = "low")]
    pub low: f64,
    /// Upper bound, likewise.
    #[serde(deserialize_with = "high")]
    pub high: f64,
}

fn low<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NEG_INFINITY))
}

fn high<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
}

impl Interval {
    /// The same, each number changed by a function that keeps the order.
    #[must_use]
    pub fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self { value: change(self.value), low: change(self.low), high: change(self.high) }
    }
}

/// The median of some numbers; not a number if there are none.
#[must_use]
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The median and, from the order of the numbers alone, bounds that hold the true one but with a chance of at most
/// `error`. Unbounded if there are too few numbers for that.
#[must_use]
pub fn median_interval(numbers: &[f64], error: f64) -> Interval {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let value = median(&sorted);
    // The chance that at most `k` of `n` numbers lie below the median, k = 0, 1, ….
    let count = sorted.len();
    let (mut outside, mut term) = (0.0, 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX)));
    let mut cut = None;
    for k in 0..count / 2 {
        outside += term;
        if 2.0 * outside > error {
            break;
        }
        cut = Some(k);
        term *= (count - k) as f64 / (k + 1) as f64;
    }
    match cut {
        Some(cut) => Interval { value, low: sorted[cut], high: sorted[count - 1 - cut] },
        None => Interval { value, low: f64::NEG_INFINITY, high: f64::INFINITY },
    }
}

/// The ratio of two medians of numbers that are not paired, by drawing again and again from them (bootstrap).
#[must_use]
pub fn ratio_of_medians(before: &[f64], after: &[f64], error: f64) -> Interval {
    const DRAWS: usize = 4_000;
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let mut drawn_median = |numbers: &[f64]| {
        let draw = |_| numbers[rng.next_u32() as usize % numbers.len().max(1)];
        median(&(0..numbers.len()).map(draw).collect::<Vec<_>>())
    };
    let mut ratios: Vec<f64> = (0..DRAWS).map(|_| drawn_median(after) / drawn_median(before)).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((DRAWS - 1) as f64 * share).round() as usize];
    Interval { value: median(after) / median(before), low: at(error / 2.0), high: at(1.0 - error / 2.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_come_from_the_order_of_the_numbers() {
        let numbers: Vec<f64> = (1..=12).map(f64::from).collect();
        // Outside of the second and the eleventh of twelve with a chance of 2 * 13 / 4096.
        let interval = median_interval(&numbers, 0.01);
        assert_eq!((interval.value, interval.low, interval.high), (6.5, 2.0, 11.0));
        let strict = median_interval(&numbers, 0.001);
        assert_eq!((strict.low, strict.high), (1.0, 12.0));
        assert!(median_interval(&numbers[..4], 0.01).low.is_infinite());
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_ratio_lies_within_its_bounds() {
        let before: Vec<f64> = (0..100).map(|number| 100.0 + f64::from(number % 7)).collect();
        let after: Vec<f64> = before.iter().map(|time| time * 1.2).collect();
        let ratio = ratio_of_medians(&before, &after, 0.01);
        assert!((ratio.value - 1.2).abs() < 1e-9 && ratio.low > 1.15 && ratio.high < 1.25, "{ratio:?}");
    }
}
