//! A quantity from run to run: what stands out once, and where its level changes for good.

use std::mem;

use chrono::{DateTime, NaiveDate, TimeDelta, Timelike as _, Utc};

use super::change_points::{ChangePoint, Settings, change_points};
use super::statistics::Sorted;
use crate::quantity::Quantity;
use crate::record::compact::{CompactRun, RunSlice};

/// Points that are taken for usual together, and how many on either side of them as well.
const BLOCK: usize = 24;
/// A point this many spreads away from the median is an outlier.
const FAR: f64 = 6.0;
/// Nor is it far if it is less than this share of the median.
const LEAST_FAR: f64 = 0.1;
/// More in a row are no single outliers but a change.
const MOST_IN_A_ROW: usize = 2;
/// Half hours of a day.
const SLOTS: u8 = 48;
/// The minimum number of days for a rhythm.
const LEAST_DAYS: usize = 7;
/// The minimum relative change that is reported.
const LEAST_CHANGE: f64 = 0.02;

/// A quantity over time.
#[derive(Debug, Clone, Default)]
pub struct Series {
    times: Vec<DateTime<Utc>>,
    values: Vec<f64>,
}

/// One value that is unlike those about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlier {
    /// When.
    pub time: DateTime<Utc>,
    /// What it was.
    pub value: f64,
    /// What is usual about then.
    pub usual: f64,
}

/// A change for good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelChange {
    /// The first value of the new level.
    pub time: DateTime<Utc>,
    /// Between which values it lies with 95 % confidence.
    pub between: [DateTime<Utc>; 2],
    /// From which level to which, and how sure that is.
    pub point: ChangePoint,
}

impl Series {
    /// A quantity of all runs that have it.
    #[must_use]
    pub fn new(runs: RunSlice<'_>, quantity: Quantity) -> Self {
        // Growing would take twice the memory.
        let mut series =
            Self { times: Vec::with_capacity(runs.len()), values: Vec::with_capacity(runs.len()) };
        for (time, value) in runs.iter().filter_map(|run| Some((run.start, run.get(quantity)?))) {
            series.times.push(time);
            series.values.push(value);
        }
        series
    }

    /// Any points, in the order of their times.
    #[must_use]
    pub fn from_points(points: impl IntoIterator<Item = (DateTime<Utc>, f64)>) -> Self {
        let (times, values) = points.into_iter().unzip();
        Self { times, values }
    }

    /// Its points.
    pub fn points(&self) -> impl Iterator<Item = (DateTime<Utc>, f64)> {
        self.times.iter().copied().zip(self.values.iter().copied())
    }

    /// Its values without their times.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Values that are unlike those about them, one or two in a row; and changes for good, those and the rhythm of the day left
    /// out.
    #[must_use]
    pub fn deviations(mut self) -> (Vec<Outlier>, Vec<LevelChange>) {
        let blocks = self.usual();
        let mut outliers = Vec::new();
        for at in self.outlying(&blocks) {
            let usual = blocks[at / BLOCK].0;
            let value = mem::replace(&mut self.values[at], usual);
            outliers.push(Outlier { time: self.times[at], value, usual });
        }
        self.take_out_rhythm();
        (outliers, self.level_changes())
    }

    /// The median and the spread about each block of values.
    fn usual(&self) -> Vec<(f64, f64)> {
        let blocks = (0..self.values.len()).step_by(BLOCK).map(|start| {
            let about = start.saturating_sub(BLOCK)..(start + 2 * BLOCK).min(self.values.len());
            let sorted = Sorted::new(self.values[about].iter().copied());
            (sorted.median().unwrap_or(0.0), sorted.spread().unwrap_or(0.0))
        });
        blocks.collect()
    }

    fn outlying(&self, usual: &[(f64, f64)]) -> Vec<usize> {
        let is_far = |at: usize| {
            let (median, spread) = usual[at / BLOCK];
            spread > 0.0 && (self.values[at] - median).abs() > (FAR * spread).max(LEAST_FAR * median.abs())
        };
        let far: Vec<usize> = (0..self.values.len()).filter(|&at| is_far(at)).collect();
        let in_a_row = far.chunk_by(|one, next| one + 1 == *next);
        in_a_row.filter(|row| row.len() <= MOST_IN_A_ROW).flatten().copied().collect()
    }

    fn level_changes(&self) -> Vec<LevelChange> {
        let settings = Settings { min_magnitude: LEAST_CHANGE, ..Settings::for_length(self.values.len()) };
        let points = change_points(&self.values, &settings);
        let edges: Vec<usize> = [0]
            .into_iter()
            .chain(points.iter().map(|point| point.index))
            .chain([self.values.len()])
            .collect();
        let located = points.into_iter().enumerate().map(|(number, point)| {
            let (from, to) = (edges[number], edges[number + 2]);
            let [first, best, last] = locate(&self.values[from..to]).map(|at| self.times[from + at]);
            LevelChange { time: best, between: [first, last], point }
        });
        located.collect()
    }

    /// Takes the usual course of a day out of values, if it is known: the median of each half hour.
    fn take_out_rhythm(&mut self) {
        let days = self.times.chunk_by(|one, next| one.date_naive() == next.date_naive()).count();
        if days < LEAST_DAYS {
            return;
        }
        let slot = |time: &DateTime<Utc>| (time.num_seconds_from_midnight() / 1_800) as u8 % SLOTS;
        let slots: Vec<u8> = self.times.iter().map(slot).collect();
        let Some(median) = Sorted::new(self.values.iter().copied()).median() else { return };
        let rhythm = (0..SLOTS).map(|wanted| {
            let of_slot = self.values.iter().zip(&slots).filter(|(_, slot)| **slot == wanted);
            let sorted = Sorted::new(of_slot.map(|(value, _)| *value));
            let usual = sorted.median().filter(|_| sorted.len() >= LEAST_DAYS);
            usual.unwrap_or(median) - median
        });
        let rhythm: Vec<f64> = rhythm.collect();
        for (value, slot) in self.values.iter_mut().zip(slots) {
            *value -= rhythm[usize::from(slot)];
        }
    }

    /// The mean of each whole day.
    #[must_use]
    pub fn by_day(&self) -> Self {
        let days: Vec<(NaiveDate, &[f64])> = self.days().collect();
        let usual = Sorted::new(days.iter().map(|(_, values)| values.len() as f64)).median().unwrap_or(0.0);
        let whole = days.into_iter().filter(|(_, values)| values.len() as f64 > usual / 2.0);
        Self::from_points(whole.map(|(day, values)| {
            (day.and_time(chrono::NaiveTime::MIN).and_utc(), values.iter().sum::<f64>() / values.len() as f64)
        }))
    }

    /// The sum of each day.
    #[must_use]
    pub fn sums_by_day(&self) -> Self {
        self.of_each_day(|values| values.iter().sum())
    }

    /// The least of each day.
    #[must_use]
    pub fn least_by_day(&self) -> Self {
        self.of_each_day(|values| values.iter().copied().fold(f64::INFINITY, f64::min))
    }

    fn of_each_day(&self, figure: impl Fn(&[f64]) -> f64) -> Self {
        let days = self.days();
        Self::from_points(
            days.map(|(day, values)| (day.and_time(chrono::NaiveTime::MIN).and_utc(), figure(values))),
        )
    }

    /// Values day by day.
    pub fn days(&self) -> impl Iterator<Item = (NaiveDate, &[f64])> {
        let mut from = 0;
        let days = self.times.chunk_by(|one, next| one.date_naive() == next.date_naive());
        days.filter_map(move |times| {
            let values = &self.values[from..from + times.len()];
            from += times.len();
            Some((times.first()?.date_naive(), values))
        })
    }

    /// At most this number of points, each the median of those it stands for.
    #[must_use]
    pub fn thinned(&self, most: usize) -> Vec<(DateTime<Utc>, f64)> {
        let group = self.values.len().div_ceil(most.max(1)).max(1);
        let groups = self.times.chunks(group).zip(self.values.chunks(group));
        groups
            .filter_map(|(times, values)| Some((*times.first()?, Sorted::new(values.to_vec()).median()?)))
            .collect()
    }
}

/// Where the level of a series changes, by least squares, and between which places that lies with 95 % confidence (by the
/// likelihood ratio; Hansen, "Sample Splitting and Threshold Estimation", 2000).
fn locate(values: &[f64]) -> [usize; 3] {
    const RATIO_95: f64 = 7.35;
    let count = values.len() as f64;
    let (sum, squares) =
        values.iter().fold((0.0, 0.0), |(sum, squares), value| (sum + value, squares + value * value));
    let mut left = 0.0;
    let costs: Vec<f64> = (1..values.len())
        .map(|at| {
            left += values[at - 1];
            let (before, right) = (at as f64, sum - left);
            squares - left * left / before - right * right / (count - before)
        })
        .collect();
    let Some((best, lowest)) =
        costs.iter().copied().enumerate().min_by(|one, other| one.1.total_cmp(&other.1))
    else {
        return [0; 3];
    };
    let bound = lowest.max(f64::MIN_POSITIVE) * (RATIO_95 / count).exp();
    let earliest = costs.iter().position(|cost| *cost <= bound).unwrap_or(best);
    let latest = costs.iter().rposition(|cost| *cost <= bound).unwrap_or(best);
    [earliest + 1, best + 1, latest + 1]
}

/// How far apart runs usually are, and where runs are missing.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Between the starts of two runs, usually.
    pub interval: TimeDelta,
    /// From a run to the next, and how many are missing between them.
    pub gaps: Vec<(DateTime<Utc>, DateTime<Utc>, usize)>,
}

impl Schedule {
    /// As the starts of runs have it; nothing for fewer than three.
    #[must_use]
    pub fn new(runs: RunSlice<'_>, interval: Option<TimeDelta>) -> Option<Self> {
        let apart = || runs.pairs().map(|[one, next]| (next.start - one.start).as_seconds_f64());
        let usual = Sorted::new(apart()).median().filter(|_| runs.len() > 2);
        let seconds = interval.map(TimeDelta::as_seconds_f64).or(usual).filter(|seconds| *seconds >= 1.0)?;
        let missing = |[one, next]: [CompactRun<'_>; 2]| {
            let intervals = (next.start - one.start).as_seconds_f64() / seconds;
            (intervals > 1.5).then(|| (one.start, next.start, intervals.round() as usize - 1))
        };
        let gaps = runs.pairs().filter_map(missing).filter(|(.., count)| *count > 0).collect();
        Some(Self { interval: TimeDelta::milliseconds((seconds * 1e3) as i64), gaps })
    }

    /// How many runs are missing.
    #[must_use]
    pub fn missed(&self) -> usize {
        self.gaps.iter().map(|(.., count)| count).sum()
    }
}
