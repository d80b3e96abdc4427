//! Where a series of measurements changes its level: E-divisive means with a deterministic test.
//!
//! Matteson and James, "A Nonparametric Approach for Multiple Change Point Analysis of Multivariate Data"
//! (<https://doi.org/10.48550/arXiv.1306.4933>), divide a series where the energy distance between its parts is largest, for
//! as long as that is significant. Fleming et al., "Hunter: Using Change Point Detection to Hunt for Performance
//! Regressions" (<https://doi.org/10.1145/3578244.3583719>), and Apache Otava after them, do so within windows, test with
//! Student's t instead of permutations, so that the same series always gives the same points, and then take away again what
//! does not hold between its neighbours. With [`Retest::AsOtava`] and the same settings this gives the points that Otava gives
//! (`scripts/e2e 75-reports`).

use std::ops::Range;

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// When a change counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Points that are looked at together; the more, the smaller the changes that are found, and the longer it takes.
    pub windows: Vec<usize>,
    /// The largest chance, by Student's t test, that both sides of a change are of one level.
    pub max_p_value: f64,
    /// The least relative change.
    pub min_magnitude: f64,
    /// A level between two changes that has fewer points is none.
    pub min_length: usize,
    /// When a change is taken away, those on both sides of it have other neighbours and are tested again. Otava 0.8 tests the
    /// two after it and not the one before, which may then stay although it does not hold: for comparison only.
    pub retest: Retest,
}

/// Which changes are tested again when one is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retest {
    /// The one before and the one after.
    BothSides,
    /// The two after it.
    AsOtava,
}

impl Settings {
    /// The settings for a number of records of runs: one false change in a hundred series of noise, or fewer (see the tests).
    #[must_use]
    pub fn for_length(points: usize) -> Self {
        /// More points than that would take seconds in large windows.
        const FEW: usize = 20_000;
        let max_p_value = (0.01 / points.max(1) as f64).min(1e-5);
        let windows = if points <= FEW { vec![100, 800] } else { vec![100] };
        Self { windows, max_p_value, min_magnitude: 0.0, min_length: 12, retest: Retest::BothSides }
    }
}

/// A change of level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChangePoint {
    /// The first point of the new level.
    pub index: usize,
    /// The mean from the change before to here.
    pub mean_before: f64,
    /// The mean from here to the next change.
    pub mean_after: f64,
    /// The chance that both are of one level, by Student's t test.
    pub p_value: f64,
}

impl ChangePoint {
    /// By how much the level changes, as a share of the old one.
    #[must_use]
    pub fn relative_change(&self) -> f64 {
        relative(self.mean_before, self.mean_after)
    }

    /// The larger of the changes relative to either level.
    fn magnitude(&self) -> f64 {
        self.relative_change().abs().max(relative(self.mean_after, self.mean_before).abs())
    }

    fn test(series: &[f64], left: Range<usize>, right: Range<usize>) -> Self {
        let index = right.start;
        let (left, right) = (&series[left], &series[right]);
        let (mean_before, mean_after) = (mean(left), mean(right));
        Self { index, mean_before, mean_after, p_value: p_value(left, right) }
    }
}

fn relative(from: f64, to: f64) -> f64 {
    if from == 0.0 { 0.0 } else { to / from - 1.0 }
}

/// The changes of level of a series, in its order.
#[must_use]
pub fn change_points(series: &[f64], settings: &Settings) -> Vec<ChangePoint> {
    // The first pass is generous: what is weak within a window may be strong between its neighbours.
    let first_pass = match settings.max_p_value {
        strict if strict < 0.05 => strict * 10.0,
        loose if loose < 0.5 => loose * 2.0,
        any => any,
    };
    let by_windows = settings.windows.iter().map(|&window| divide_by_windows(series, window, first_pass));
    let mut found: Vec<usize> = by_windows.flatten().collect();
    found.sort_unstable();
    found.dedup();
    merge(series, &found, settings)
}

/// Divides window after window; each begins at the last change of the one before, or half a window on.
fn divide_by_windows(series: &[f64], window: usize, max_p_value: f64) -> Vec<usize> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < series.len() {
        let end = (start + window).min(series.len());
        let within = divide(&series[start..end], max_p_value);
        let last = within.last().map_or(0, |last| start + last);
        found.extend(within.into_iter().map(|index| start + index));
        start = last.max(start + (window / 2).max(1));
    }
    found
}

/// Divides a series where it differs most, again and again, for as long as that is significant.
fn divide(series: &[f64], max_p_value: f64) -> Vec<usize> {
    let distances = Distances::new(series);
    let candidate = |part: Range<usize>| (distances.best_division(part.clone()), part);
    let mut parts = vec![candidate(0..series.len())];
    loop {
        let best =
            parts.iter().enumerate().filter_map(|(number, (division, _))| Some((number, (*division)?)));
        let best = best.reduce(|best, next| if next.1.strength > best.1.strength { next } else { best });
        let Some((number, Division { at, .. })) = best else { break };
        let part = parts[number].1.clone();
        let test = ChangePoint::test(series, part.start..at, at..part.end);
        // Not a number where all are equal.
        if test.p_value.is_nan() || test.p_value > max_p_value {
            break;
        }
        parts[number] = candidate(part.start..at);
        parts.insert(number + 1, candidate(at..part.end));
    }
    parts.iter().skip(1).map(|(_, part)| part.start).collect()
}

/// Takes away the weakest change until all that are left hold between their neighbours.
fn merge(series: &[f64], found: &[usize], settings: &Settings) -> Vec<ChangePoint> {
    let mut edges: Vec<usize> =
        std::iter::once(0).chain(found.iter().copied()).chain([series.len()]).collect();
    let test = |edges: &[usize], number: usize| {
        ChangePoint::test(series, edges[number]..edges[number + 1], edges[number + 1]..edges[number + 2])
    };
    let remove = |weakest: usize, points: &mut Vec<ChangePoint>, edges: &mut Vec<usize>| {
        points.remove(weakest);
        edges.remove(weakest + 1);
        let again = match settings.retest {
            Retest::BothSides => [weakest.checked_sub(1), Some(weakest)],
            Retest::AsOtava => [Some(weakest), Some(weakest + 1)],
        };
        for neighbour in again.into_iter().flatten() {
            if neighbour < points.len() {
                points[neighbour] = test(edges, neighbour);
            }
        }
    };
    let mut points: Vec<ChangePoint> = (0..found.len()).map(|number| test(&edges, number)).collect();
    loop {
        if let Some(weaker) = edge_of_a_short_level(&points, settings.min_length) {
            remove(weaker, &mut points, &mut edges);
            continue;
        }
        let by = |key: fn(&ChangePoint) -> f64, points: &[ChangePoint]| {
            let numbered = points.iter().map(key).enumerate();
            numbered.reduce(|best, next| if next.1 > best.1 { next } else { best })
        };
        let Some((mut weakest, p_value)) = by(|point| point.p_value, &points) else { break };
        if p_value < settings.max_p_value {
            let Some((least, magnitude)) = by(|point| -point.magnitude(), &points) else { break };
            if -magnitude > settings.min_magnitude {
                break;
            }
            weakest = least;
        }
        remove(weakest, &mut points, &mut edges);
    }
    points
}

/// The weaker edge of a level, between two others, that is too short to be one.
fn edge_of_a_short_level(points: &[ChangePoint], min_length: usize) -> Option<usize> {
    let lengths = points.windows(2).enumerate().map(|(number, pair)| (pair[1].index - pair[0].index, number));
    let (length, number) = lengths.min()?;
    let weaker = if points[number].p_value > points[number + 1].p_value { number } else { number + 1 };
    (length < min_length).then_some(weaker)
}

/// Where a part differs most from what follows it.
#[derive(Debug, Clone, Copy)]
struct Division {
    at: usize,
    strength: f64,
}

/// Distances of each point to the others, summed up.
struct Distances {
    /// The sums of the distances of each point to the first 0, 1, 2, … points: a row for each number of those.
    sums: Vec<f64>,
    /// The sum of the distances of each point to all before it.
    to_earlier: Vec<f64>,
}

impl Distances {
    fn new(series: &[f64]) -> Self {
        let count = series.len();
        let mut sums = vec![0.0; count];
        for (number, other) in series.iter().enumerate() {
            sums.extend_from_within(number * count..);
            let row = &mut sums[(number + 1) * count..];
            row.iter_mut().zip(series).for_each(|(sum, point)| *sum += (point - other).abs());
        }
        let to_earlier = (0..count).map(|point| sums[point * count + point]).collect();
        Self { sums, to_earlier }
    }

    /// The sums of the distances of some points to the first ones.
    fn to_first(&self, number: usize, points: Range<usize>) -> &[f64] {
        let row = number * self.to_earlier.len();
        &self.sums[row + points.start..row + points.end]
    }

    /// The largest energy distance between the beginning of a part and what follows it, up to any end.
    fn best_division(&self, part: Range<usize>) -> Option<Division> {
        let mut best: Option<Division> = None;
        let mut within_left = 0.0;
        let mean_within = |sum: f64, count: f64| if count > 1.0 { sum / (count - 1.0) } else { 0.0 };
        for at in part.start + 1..part.end {
            within_left += self.to_earlier[at - 1] - self.to_first(part.start, at - 1..at)[0];
            let (left, mut right) = ((at - part.start) as f64, 0.0);
            let mean_left = mean_within(within_left, left);
            let (mut between, mut within_right) = (0.0, 0.0);
            let points = at..part.end;
            let before_part = self.to_first(part.start, points.clone());
            let before_division = self.to_first(at, points.clone());
            for ((before_part, before_division), earlier) in
                before_part.iter().zip(before_division).zip(&self.to_earlier[points])
            {
                right += 1.0;
                between += before_division - before_part;
                within_right += earlier - before_division;
                let strength = 2.0 / (left + right)
                    * (between - right * mean_left - left * mean_within(within_right, right));
                if best.is_none_or(|best| strength > best.strength) {
                    best = Some(Division { at, strength });
                }
            }
        }
        best
    }
}

fn mean(points: &[f64]) -> f64 {
    points.iter().sum::<f64>() / points.len() as f64
}

/// Two-sided, both sides taken to be equally spread.
fn p_value(left: &[f64], right: &[f64]) -> f64 {
    let (left_count, right_count) = (left.len() as f64, right.len() as f64);
    let freedom = left_count + right_count - 2.0;
    if freedom < 1.0 {
        return 1.0;
    }
    let (left_mean, right_mean) = (mean(left), mean(right));
    // As Otava: the mean of the squares, not divided by one less.
    let variance = |points: &[f64], mean: f64| {
        points.iter().map(|point| (point - mean).powi(2)).sum::<f64>() / points.len() as f64
    };
    let pooled = ((left_count - 1.0) * variance(left, left_mean)
        + (right_count - 1.0) * variance(right, right_mean))
        / freedom;
    let t = (left_mean - right_mean) / (pooled * (1.0 / left_count + 1.0 / right_count)).sqrt();
    match StudentsT::new(0.0, 1.0, freedom) {
        Ok(student) if t.is_finite() => 2.0 * student.sf(t.abs()),
        _ if t.is_nan() => f64::NAN,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use rand_pcg::Pcg64Mcg;
    use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    /// Normal noise, by Box and Muller.
    fn noise(seed: u64, count: usize) -> Vec<f64> {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let normal = |(one, other): (f64, f64)| {
            (-2.0 * (1.0 - one).ln()).sqrt() * (2.0 * std::f64::consts::PI * other).cos()
        };
        (0..count).map(|_| normal((uniform(), uniform()))).collect()
    }

    fn found(series: &[f64]) -> Vec<ChangePoint> {
        change_points(series, &Settings::for_length(series.len()))
    }

    /// Noise about a level, and about another from `at` on, which differ by a number of standard deviations.
    fn step(seed: u64, count: usize, at: usize, by: f64) -> Vec<f64> {
        let level = |index: usize| if index < at { 20.0 } else { 20.0 + by };
        noise(seed, count).into_iter().enumerate().map(|(index, noise)| level(index) + noise).collect()
    }

    #[test]
    fn noise_is_called_a_change_in_less_than_one_series_of_a_hundred() {
        for count in [50, 336, 1_440] {
            let called = (0..200).filter(|&seed| !found(&step(seed, count, count, 0.0)).is_empty()).count();
            assert!(called <= 1, "{called} of 200 series of {count}");
        }
    }

    #[test]
    fn a_step_of_one_and_a_half_deviations_is_found_where_it_is() {
        for (count, at) in [(100, 50), (336, 84), (336, 296), (1_440, 720)] {
            let (mut near, mut alone) = (0, 0);
            for seed in 0..100 {
                let found = found(&step(seed, count, at, 1.5));
                near += usize::from(found.iter().any(|point| point.index.abs_diff(at) <= 3));
                alone += usize::from(found.len() == 1);
            }
            assert!(alone >= 97, "found once in {alone} of 100 series of {count}");
            // Nine of ten is what the likeliest place has that can be computed from such noise.
            assert!(near >= 83, "within three of {at} in {near} of 100 series of {count}");
        }
    }

    #[test]
    fn a_level_too_short_to_be_one_is_left_out() {
        let mut series = step(1, 400, 200, 5.0);
        series[100..106].iter_mut().for_each(|value| *value += 8.0);
        let found = found(&series);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].index.abs_diff(200) <= 1 && (found[0].relative_change() - 0.25).abs() < 0.03);
    }

    #[test]
    fn what_does_not_vary_has_no_changes() {
        for count in 0..20 {
            assert_eq!(found(&vec![5.0; count]), []);
        }
        let both = [vec![5.0; 60], vec![7.0; 60]].concat();
        assert_eq!(found(&both).iter().map(|point| point.index).collect::<Vec<_>>(), [60]);
    }
}
