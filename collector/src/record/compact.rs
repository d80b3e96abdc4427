//! Many runs in little memory, for reports over years of records.
//!
//! A run takes a row and 4 bytes for each of its quantities that is not 0; as a [`RunRecord`] it takes four times as much.
//! Nothing is lost: numbers that do not fit take 8 bytes, and a run is read back as it was pushed. Reports look at a
//! [`RunSlice`], one quantity after the other.

use std::mem;
use std::ops::Range;

use chrono::{DateTime, Utc};
use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

use super::run_record::{ErrorEntry, RunRecord, Status};
use crate::quantity::{Quantity, QuantitySet, Unit};

/// Runs, in the order in which they were pushed or sorted.
#[derive(Debug, Clone, Default)]
pub struct CompactRuns {
    rows: Vec<Row>,
    /// Quantities of all runs that are not 0: in [`steps`] of their units, or the halves of a double.
    numbers: Vec<u32>,
    /// Which there are: few, because most runs do the same.
    patterns: IndexSet<Pattern, FxBuildHasher>,
}

#[derive(Debug, Clone)]
struct Row {
    start: DateTime<Utc>,
    /// The position of its pattern.
    pattern: u32,
    /// Where its numbers begin.
    first: usize,
    rare: Option<Box<Rare>>,
}

/// What the numbers of a run stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Pattern {
    present: QuantitySet,
    /// Those that are not 0.
    set: QuantitySet,
    /// Whether one of them does not fit into 4 bytes, so that each takes 8.
    is_wide: bool,
}

/// What few runs have.
#[derive(Debug, Clone)]
struct Rare {
    status: Status,
    left_to: Option<String>,
    errors: Vec<ErrorEntry>,
}

/// Runs that follow one another.
#[derive(Debug, Clone, Copy)]
pub struct RunSlice<'a> {
    rows: &'a [Row],
    runs: &'a CompactRuns,
}

/// One of the runs.
#[derive(Debug, Clone, Copy)]
pub struct CompactRun<'a> {
    /// When it began.
    pub start: DateTime<Utc>,
    row: &'a Row,
    runs: &'a CompactRuns,
}

impl CompactRuns {
    /// Adds a run. How its response was fetched is left out, as it is by who reads records.
    pub fn push(&mut self, run: RunRecord) {
        let RunRecord { start, status, left_to, quantities, errors, end: _, http: _ } = run;
        let numbers = &mut self.numbers;
        let first = numbers.len();
        let not_zero = || quantities.iter().filter(|(_, value)| value.to_bits() != 0);
        let set = not_zero().map(|(quantity, _)| quantity).collect();
        let is_wide = not_zero().any(|(quantity, value)| compact(value, quantity.unit()).is_none());
        if is_wide {
            numbers.extend(not_zero().flat_map(|(_, value)| halves(value)));
        } else {
            numbers.extend(not_zero().filter_map(|(quantity, value)| compact(value, quantity.unit())));
        }
        let is_rare = status == Status::Failed || left_to.is_some() || !errors.is_empty();
        let rare = is_rare.then(|| Box::new(Rare { status, left_to, errors }));
        let pattern = Pattern { present: quantities.present(), set, is_wide };
        #[expect(clippy::cast_possible_truncation, reason = "2^32 patterns take 200 GB of memory")]
        let pattern = self.patterns.insert_full(pattern).0 as u32;
        self.rows.push(Row { start, pattern, first, rare });
    }

    /// All runs.
    #[must_use]
    pub fn all(&self) -> RunSlice<'_> {
        RunSlice { rows: &self.rows, runs: self }
    }

    /// Brings them into the order of their starts; those of the same start keep theirs.
    pub fn sort(&mut self) {
        self.rows.sort_by_key(|row| row.start);
    }

    /// Removes each run that is the same as the one before it.
    pub fn dedup_by(&mut self, is_same: impl Fn(CompactRun<'_>, CompactRun<'_>) -> bool) {
        // The rows are taken out meanwhile, so that they can be looked at with all else.
        let mut rows = mem::take(&mut self.rows);
        rows.dedup_by(|one, other| is_same(CompactRun::new(one, self), CompactRun::new(other, self)));
        self.rows = rows;
    }

    /// Keeps the runs that began at such times.
    pub fn retain(&mut self, is_kept: impl Fn(DateTime<Utc>) -> bool) {
        self.rows.retain(|row| is_kept(row.start));
    }
}

impl FromIterator<RunRecord> for CompactRuns {
    fn from_iter<I: IntoIterator<Item = RunRecord>>(runs: I) -> Self {
        let mut all = Self::default();
        runs.into_iter().for_each(|run| all.push(run));
        all
    }
}

impl<'a> RunSlice<'a> {
    /// The number of runs.
    #[must_use]
    pub fn len(self) -> usize {
        self.rows.len()
    }

    /// Whether it holds no run.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.rows.is_empty()
    }

    /// The first run.
    #[must_use]
    pub fn first(self) -> Option<CompactRun<'a>> {
        self.iter().next()
    }

    /// The last run.
    #[must_use]
    pub fn last(self) -> Option<CompactRun<'a>> {
        self.iter().next_back()
    }

    /// The number of runs that failed.
    #[must_use]
    pub fn failed(self) -> usize {
        self.iter().filter(CompactRun::has_failed).count()
    }

    /// Run by run.
    #[must_use]
    pub fn iter(self) -> impl DoubleEndedIterator<Item = CompactRun<'a>> {
        self.rows.iter().map(move |row| CompactRun::new(row, self.runs))
    }

    /// The values of a quantity, of the runs that have it.
    pub fn values(self, quantity: Quantity) -> impl Iterator<Item = f64> + use<'a> {
        self.iter().filter_map(move |run| run.get(quantity))
    }

    /// Each run and the one after it.
    pub fn pairs(self) -> impl Iterator<Item = [CompactRun<'a>; 2]> {
        self.iter().zip(self.iter().skip(1)).map(|(one, next)| [one, next])
    }

    /// All but the first run.
    #[must_use]
    pub fn without_first(self) -> Self {
        Self { rows: self.rows.get(1..).unwrap_or_default(), ..self }
    }

    /// Slices of this number of runs, the last of which may be shorter.
    pub fn chunks(self, size: usize) -> impl Iterator<Item = Self> {
        self.rows.chunks(size).map(move |rows| Self { rows, ..self })
    }

    /// Slices of runs that have the same key.
    pub fn chunk_by<K: PartialEq>(self, key: impl Fn(DateTime<Utc>) -> K) -> impl Iterator<Item = Self> {
        let chunks = self.rows.chunk_by(move |one, next| key(one.start) == key(next.start));
        chunks.map(move |rows| Self { rows, ..self })
    }

    /// Of runs in the order of their starts those that began in a period.
    #[must_use]
    pub fn between(self, period: Range<DateTime<Utc>>) -> Self {
        let [from, to] =
            [period.start, period.end].map(|time| self.rows.partition_point(|row| row.start < time));
        Self { rows: self.rows.get(from..to).unwrap_or_default(), ..self }
    }
}

impl<'a> CompactRun<'a> {
    fn new(row: &'a Row, runs: &'a CompactRuns) -> Self {
        Self { start: row.start, row, runs }
    }

    /// A measured or counted value, if the run has it.
    #[must_use]
    pub fn get(&self, quantity: Quantity) -> Option<f64> {
        let (Pattern { present, set, is_wide }, first) = (self.pattern(), self.row.first);
        let Some(position) = set.position(quantity) else {
            return present.position(quantity).map(|_| 0.0);
        };
        let number = |at: usize| self.runs.numbers.get(at).copied();
        if is_wide {
            let at = first + 2 * position;
            Some(f64::from_bits(u64::from(number(at)?) << 32 | u64::from(number(at + 1)?)))
        } else {
            Some(expanded(number(first + position)?, quantity.unit()))
        }
    }

    /// The number of quantities that the run has.
    #[must_use]
    pub fn quantity_count(&self) -> usize {
        self.pattern().present.len()
    }

    fn pattern(&self) -> Pattern {
        self.runs.patterns[self.row.pattern as usize]
    }

    /// Whether the run has the value, and it is not 0.
    #[must_use]
    pub fn is_set(&self, quantity: Quantity) -> bool {
        self.get(quantity).is_some_and(|value| value != 0.0)
    }

    /// Whether the run failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.row.rare.as_ref().is_some_and(|rare| rare.status == Status::Failed)
    }

    /// What went wrong, in its order.
    #[must_use]
    pub fn errors(&self) -> &'a [ErrorEntry] {
        self.row.rare.as_ref().map_or(&[], |rare| &rare.errors)
    }

    /// The record that was pushed.
    #[must_use]
    pub fn to_record(&self) -> RunRecord {
        let mut record = RunRecord::new(self.start);
        for quantity in Quantity::ALL {
            if let Some(value) = self.get(quantity) {
                record.quantities.set(quantity, value);
            }
        }
        record.end = record.start_and_total_time();
        if let Some(rare) = &self.row.rare {
            let Rare { status, left_to, errors } = (**rare).clone();
            (record.status, record.left_to, record.errors) = (status, left_to, errors);
        }
        record
    }
}

/// Into how many steps a number of 4 bytes divides the unit: records state times to the microsecond.
fn steps(unit: Unit) -> f64 {
    match unit {
        Unit::Seconds => 1e6,
        Unit::Kibibytes => 100.0,
        Unit::SignedSeconds | Unit::Bytes | Unit::Count | Unit::Share => 1.0,
    }
}

/// The number of 4 bytes that stands for exactly this value, if there is one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what the cast changes is found by comparing"
)]
fn compact(value: f64, unit: Unit) -> Option<u32> {
    let number = match unit {
        Unit::SignedSeconds => (value as i32).cast_unsigned(),
        _ => (value * steps(unit)).round() as u32,
    };
    (expanded(number, unit).to_bits() == value.to_bits()).then_some(number)
}

fn expanded(number: u32, unit: Unit) -> f64 {
    match unit {
        Unit::SignedSeconds => f64::from(number.cast_signed()),
        _ => f64::from(number) / steps(unit),
    }
}

fn halves(value: f64) -> [u32; 2] {
    let bits = value.to_bits();
    #[expect(clippy::cast_possible_truncation, reason = "the other half is kept beside it")]
    [(bits >> 32) as u32, bits as u32]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values as they are measured and counted, and others.
    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            (0_u32..=u32::MAX).prop_map(|micros| f64::from(micros) / 1e6),
            (0_u32..=u32::MAX).prop_map(f64::from),
            (-5_i32..5).prop_map(f64::from),
            any::<f64>(),
        ]
    }

    fn run() -> impl Strategy<Value = RunRecord> {
        let values = prop::collection::vec((0..Quantity::ALL.len(), value()), 0..40);
        let left_to = prop::option::weighted(0.1, "[a-z]{1,5}");
        let failure = prop::option::weighted(0.2, "[a-z ]{0,9}");
        (0_i64..5, values, left_to, failure).prop_map(|(start_s, values, left_to, failure)| {
            let start = DateTime::from_timestamp(start_s, 0).unwrap();
            let mut run = RunRecord::new(start);
            for (quantity, value) in values {
                run.quantities.set(Quantity::ALL[quantity], value);
            }
            run.left_to = left_to;
            if let Some(message) = failure {
                run.note_error("store", message, start);
            }
            run.end = run.start_and_total_time();
            run
        })
    }

    proptest! {
        #[test]
        fn runs_are_read_back_as_they_were_pushed(mut runs in prop::collection::vec(run(), 0..20)) {
            let mut all: CompactRuns = runs.iter().cloned().collect();
            let read = |all: &CompactRuns| all.all().iter().map(|run| run.to_record()).collect::<Vec<_>>();
            prop_assert_eq!(&read(&all), &runs);
            for (run, compact) in runs.iter().zip(all.all().iter()) {
                prop_assert_eq!(run.has_failed(), compact.has_failed());
                prop_assert_eq!(&run.errors[..], compact.errors());
                prop_assert_eq!(run.quantities.iter().count(), compact.quantity_count());
            }
            all.sort();
            runs.sort_by_key(|run| run.start);
            prop_assert_eq!(read(&all), runs);
        }
    }

    #[test]
    fn usual_values_take_four_bytes() {
        let mut run = RunRecord::new(DateTime::from_timestamp(0, 0).unwrap());
        for (quantity, value) in
            [(Quantity::TotalTime, 3.123_457), (Quantity::PeakMemory, 3e9), (Quantity::ClockOffset, -2.0)]
        {
            run.quantities.set(quantity, value);
        }
        run.note_body(312_345);
        let all: CompactRuns = [run.clone()].into_iter().collect();
        let not_zero = run.quantities.iter().filter(|(_, value)| *value != 0.0);
        assert_eq!(all.numbers.len(), not_zero.count());
    }
}
