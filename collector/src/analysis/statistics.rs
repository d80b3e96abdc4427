//! What is said of numbers: quantiles, shares with their bounds, and whether two groups differ.

use serde::Serialize;
use statrs::function::erf::erfc;

/// Numbers in their order, of which quantiles can be asked.
#[derive(Debug, Clone, Default)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts numbers.
    #[must_use]
    pub fn new(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_unstable_by(f64::total_cmp);
        Self(numbers)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value below which a share of the numbers lies, between the two nearest by their distance (as R's type 7 and
    /// Python's `statistics.quantiles(…, method="inclusive")`).
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let last = self.0.len().checked_sub(1)?;
        let at = share.clamp(0.0, 1.0) * last as f64;
        let (below, part) = (at.floor() as usize, at.fract());
        let above = (below + 1).min(last);
        Some(self.0[below] + (self.0[above] - self.0[below]) * part)
    }

    /// The quantile of one half.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.iter().sum::<f64>() / self.0.len() as f64)
    }

    /// The 95 % confidence interval of the mean, for many numbers.
    #[must_use]
    pub fn mean_bounds(&self) -> Option<[f64; 2]> {
        let (mean, count) = (self.mean()?, self.0.len() as f64);
        let squares: f64 = self.0.iter().map(|number| (number - mean).powi(2)).sum();
        let half = Z95 * (squares / (count - 1.0) / count).sqrt();
        (self.0.len() >= 6).then_some([mean - half, mean + half])
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        self.0.last().copied()
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> Option<f64> {
        self.0.first().copied()
    }

    /// Between which of the numbers the true median lies with 95 % confidence, by their order alone; nothing for fewer
    /// than six.
    #[must_use]
    pub fn median_bounds(&self) -> Option<[f64; 2]> {
        let count = self.0.len() as f64;
        // The number of values below the median is binomial; its normal approximation, a step to the safe side.
        let low = (count / 2.0 - Z95 * count.sqrt() / 2.0).floor() - 1.0;
        (self.0.len() >= 6 && low >= 0.0).then(|| {
            let low = low as usize;
            [self.0[low], self.0[self.0.len() - 1 - low]]
        })
    }

    /// The median distance from the median, scaled to the standard deviation of normal noise.
    #[must_use]
    pub fn spread(&self) -> Option<f64> {
        /// The standard deviation of normal noise for each unit of its median distance.
        const SCALE: f64 = 1.482_602_218_505_602;
        let median = self.median()?;
        Some(SCALE * Self::new(self.0.iter().map(|number| (number - median).abs())).median()?)
    }
}

/// Of the normal distribution, 97.5 %.
const Z95: f64 = 1.959_963_984_540_054;

/// A share of successes, and between which bounds the true one lies with 95 % confidence (Wilson's interval).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// As counted.
    pub value: f64,
    /// Not less.
    pub low: f64,
    /// Not more.
    pub high: f64,
}

impl Share {
    /// The number of successes in a number of tries.
    #[must_use]
    pub fn new(successes: usize, tries: usize) -> Self {
        if tries == 0 {
            return Self { value: 0.0, low: 0.0, high: 1.0 };
        }
        let (tries, value) = (tries as f64, successes as f64 / tries as f64);
        let scale = 1.0 + Z95 * Z95 / tries;
        let center = (value + Z95 * Z95 / (2.0 * tries)) / scale;
        let half = Z95 / scale * (value * (1.0 - value) / tries + Z95 * Z95 / (4.0 * tries * tries)).sqrt();
        Self { value, low: (center - half).max(0.0), high: (center + half).min(1.0) }
    }
}

/// The chance that two groups as different as these come from one source: the test of Mann and Whitney, two-sided, by its
/// normal approximation with ties. Nothing if a group has fewer than eight numbers.
#[must_use]
pub fn mann_whitney(before: &[f64], after: &[f64]) -> Option<f64> {
    const LEAST: usize = 8;
    if before.len() < LEAST || after.len() < LEAST {
        return None;
    }
    let mut all: Vec<(f64, bool)> = before
        .iter()
        .map(|&number| (number, false))
        .chain(after.iter().map(|&number| (number, true)))
        .collect();
    all.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    let (mut ranks_after, mut ties, mut done) = (0.0, 0.0, 0.0);
    for equal in all.chunk_by(|one, other| one.0.total_cmp(&other.0).is_eq()) {
        let count = equal.len() as f64;
        let rank = done + f64::midpoint(count, 1.0);
        ranks_after += rank * equal.iter().filter(|(_, is_after)| *is_after).count() as f64;
        ties += count.powi(3) - count;
        done += count;
    }
    let (before, after) = (before.len() as f64, after.len() as f64);
    let u = ranks_after - after * (after + 1.0) / 2.0;
    let variance = before * after / 12.0 * (done + 1.0 - ties / (done * (done - 1.0)));
    if variance <= 0.0 {
        return Some(1.0);
    }
    let distance = ((u - before * after / 2.0).abs() - 0.5).max(0.0);
    Some(erfc(distance / (2.0 * variance).sqrt()))
}

/// The chance that values without a trend rise or fall as steadily as these, in their order: the test of Mann and Kendall,
/// two-sided, by its normal approximation without ties. Nothing for fewer than ten values.
#[must_use]
pub fn trend(values: &[f64]) -> Option<f64> {
    let rising: f64 = values
        .iter()
        .enumerate()
        .flat_map(|(number, one)| {
            values[number + 1..].iter().map(move |other| (other - one).partial_cmp(&0.0))
        })
        .map(|order| order.map_or(0.0, |order| f64::from(order as i8)))
        .sum();
    let count = values.len() as f64;
    let variance = count * (count - 1.0) * (2.0 * count + 5.0) / 18.0;
    let distance = (rising.abs() - 1.0).max(0.0);
    (values.len() >= 10).then(|| erfc(distance / (2.0 * variance).sqrt()))
}

/// The slope of points, with the bounds that hold it with 95 % confidence: `[low, slope, high]`. The median of the slopes
/// between all pairs (Theil 1950, Sen 1968), which single points cannot spoil. Nothing for fewer than ten points.
#[must_use]
pub fn slope(points: &[(f64, f64)]) -> Option<[f64; 3]> {
    /// All pairs of more points would take long; then the means of groups are taken.
    const MOST: usize = 1_000;
    let group = points.len().div_ceil(MOST).max(1);
    let mean = |group: &[(f64, f64)]| {
        let count = group.len() as f64;
        let sum = group.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / count, sum.1 / count)
    };
    let points: Vec<(f64, f64)> = points.chunks(group).map(mean).collect();
    let pairs = points.iter().enumerate().flat_map(|(number, one)| {
        points[number + 1..].iter().map(move |other| (other.1 - one.1) / (other.0 - one.0))
    });
    let slopes = Sorted::new(pairs.filter(|slope| slope.is_finite()));
    let count = points.len() as f64;
    // Kendall's number of pairs in order, without ties.
    let width =
        Z95 * (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt() / slopes.len().max(1) as f64;
    let bound = |share: f64| slopes.quantile(share);
    (points.len() >= 10)
        .then(|| Some([bound(0.5 - width / 2.0)?, bound(0.5)?, bound(0.5 + width / 2.0)?]))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trend_is_as_tables_of_kendall_give_it() {
        let rising: Vec<f64> = (0..10).map(f64::from).collect();
        // S = 45, and its variance is 125.
        assert!((trend(&rising).unwrap() - 8.3e-5).abs() < 1e-6, "{:?}", trend(&rising));
        let falling: Vec<f64> = rising.iter().map(|value| -value).collect();
        assert_eq!(trend(&rising), trend(&falling));
        let up_and_down: Vec<f64> = (0..40).map(|value| f64::from(value % 2)).collect();
        assert!(trend(&up_and_down).unwrap() > 0.5);
        assert_eq!(trend(&rising[..9]), None);
    }

    #[test]
    fn quantiles_lie_between_the_nearest_numbers() {
        let numbers = Sorted::new([4.0, 1.0, 3.0, 2.0]);
        let at = |share| numbers.quantile(share).unwrap();
        assert!((at(0.0) - 1.0).abs() < 1e-12 && (at(1.0) - 4.0).abs() < 1e-12);
        assert!((at(0.5) - 2.5).abs() < 1e-12 && (at(0.9) - 3.7).abs() < 1e-12);
        assert_eq!(Sorted::default().median(), None);
        assert_eq!(numbers.median_bounds(), None);
        let many = Sorted::new((0..100).map(f64::from));
        assert_eq!(many.median_bounds(), Some([39.0, 60.0]));
    }

    #[test]
    fn bounds_hold_the_share_and_narrow_with_the_number_of_tries() {
        let (few, many) = (Share::new(95, 100), Share::new(9_500, 10_000));
        assert!(few.low < 0.95 && 0.95 < few.high && few.high - few.low > many.high - many.low);
        assert!((Share::new(95, 100).low - 0.8882).abs() < 0.0005, "{few:?}");
        let all = Share::new(100, 100);
        assert!((all.value - 1.0).abs() < 1e-12 && all.low > 0.95 && all.low < 0.97, "{all:?}");
    }

    #[test]
    fn a_slope_is_found_in_spite_of_a_point_that_lies_elsewhere() {
        let mut points: Vec<(f64, f64)> =
            (0..50_i32).map(|x| (f64::from(x), f64::from(2 * x + x * 7 % 5))).collect();
        points[20].1 = 1e6;
        let [low, slope, high] = slope(&points).unwrap();
        assert!(1.9 < low && low <= slope && slope <= high && high < 2.1, "{low} {slope} {high}");
        assert_eq!(super::slope(&points[..9]), None);
    }

    #[test]
    fn groups_are_told_apart_as_scipy_tells_them() {
        // scipy.stats.mannwhitneyu(before, after, method="asymptotic").pvalue
        let before = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let after = [5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0];
        let p = mann_whitney(&before, &after).unwrap();
        assert!((p - 0.026_419_587_880_975_66).abs() < 1e-9, "{p}");
        assert_eq!(mann_whitney(&before[..7], &after), None);
        assert_eq!(mann_whitney(&[1.0; 9], &[1.0; 9]), Some(1.0));
    }
}
