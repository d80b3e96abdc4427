//! The values of one run, and their form in its record.

use std::fmt;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::{Definition, Quantity, Section, Unit};

/// The quantities of one run. Those that the run did not come to are missing.
#[derive(Clone, Default)]
pub struct Quantities {
    present: QuantitySet,
    /// The values, in the order of the quantities.
    values: Vec<f64>,
}

/// Which quantities a run has: a bit for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct QuantitySet(u128);

const _: () = assert!(Quantity::ALL.len() <= u128::BITS as usize);

impl QuantitySet {
    /// The place of a quantity's value among those that the run has, if it has this one.
    pub(crate) fn position(self, quantity: Quantity) -> Option<usize> {
        (self.0 & bit(quantity) != 0).then(|| self.count_before(quantity))
    }

    /// The number of quantities.
    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    fn count_before(self, quantity: Quantity) -> usize {
        (self.0 & (bit(quantity) - 1)).count_ones() as usize
    }
}

impl FromIterator<Quantity> for QuantitySet {
    fn from_iter<I: IntoIterator<Item = Quantity>>(quantities: I) -> Self {
        Self(quantities.into_iter().fold(0, |bits, quantity| bits | bit(quantity)))
    }
}

impl Quantities {
    /// A value, if the run has it.
    #[must_use]
    pub fn get(&self, quantity: Quantity) -> Option<f64> {
        self.values.get(self.present.position(quantity)?).copied()
    }

    /// Which values the run has.
    pub(crate) fn present(&self) -> QuantitySet {
        self.present
    }

    /// A number of things, if the run has it.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    pub fn count(&self, quantity: Quantity) -> Option<usize> {
        self.get(quantity).map(|count| count as usize)
    }

    /// Whether the run has the value, and it is not 0.
    #[must_use]
    pub fn is_set(&self, quantity: Quantity) -> bool {
        self.get(quantity).is_some_and(|value| value != 0.0)
    }

    /// The values that the run has.
    pub fn iter(&self) -> impl Iterator<Item = (Quantity, f64)> {
        Quantity::ALL.into_iter().filter_map(|quantity| Some((quantity, self.get(quantity)?)))
    }

    /// Sets a value. One that is not finite, or is negative where that is impossible, is ignored.
    pub fn set(&mut self, quantity: Quantity, value: impl Into<Amount>) {
        let Amount(value) = value.into();
        if value.is_finite() && (value >= 0.0 || quantity.unit() == Unit::SignedSeconds) {
            if let Some(position) = self.present.position(quantity) {
                self.values[position] = value;
            } else {
                self.values.insert(self.present.count_before(quantity), value);
                self.present.0 |= bit(quantity);
            }
        }
    }

    /// Adds to a value; a missing one counts as 0.
    pub fn add(&mut self, quantity: Quantity, value: impl Into<Amount>) {
        let Amount(value) = value.into();
        let sum = self.get(quantity).unwrap_or(0.0) + value;
        self.set(quantity, if quantity.unit() == Unit::Seconds { to_microseconds(sum) } else { sum });
    }

    /// Removes a value.
    pub fn remove(&mut self, quantity: Quantity) {
        if let Some(position) = self.present.position(quantity) {
            self.values.remove(position);
            self.present.0 &= !bit(quantity);
        }
    }

    /// Takes over the values of another part of the run.
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|(quantity, value)| self.set(quantity, value));
    }

    /// The values of a section of the record, as JSON.
    pub(crate) fn section(&self, section: Section) -> impl Serialize + '_ {
        SectionOf { quantities: self, section }
    }
}

fn bit(quantity: Quantity) -> u128 {
    1 << quantity as u32
}

impl PartialEq for Quantities {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Quantities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter().map(|(quantity, value)| (quantity.key(), value))).finish()
    }
}

/// A value of a quantity, in its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Amount(f64);

impl From<f64> for Amount {
    fn from(value: f64) -> Self {
        Self(value)
    }
}

impl From<usize> for Amount {
    #[expect(clippy::cast_precision_loss, reason = "counts and sizes are below 2^53")]
    fn from(count: usize) -> Self {
        Self(count as f64)
    }
}

impl From<u64> for Amount {
    #[expect(clippy::cast_precision_loss, reason = "counts and sizes are below 2^53")]
    fn from(count: u64) -> Self {
        Self(count as f64)
    }
}

impl From<bool> for Amount {
    fn from(flag: bool) -> Self {
        Self(f64::from(u8::from(flag)))
    }
}

impl From<Duration> for Amount {
    fn from(time: Duration) -> Self {
        Self(seconds(time))
    }
}

/// A length of time in seconds, to the microsecond.
pub(crate) fn seconds(time: Duration) -> f64 {
    to_microseconds(time.as_secs_f64())
}

fn to_microseconds(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

struct SectionOf<'a> {
    quantities: &'a Quantities,
    section: Section,
}

impl Serialize for SectionOf<'_> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers below 2^53")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (quantity, value) in self.quantities.iter() {
            let &Definition { key, section, unit, .. } = quantity.definition();
            if section != self.section {
                continue;
            }
            match unit {
                Unit::Seconds | Unit::Kibibytes => map.serialize_entry(key, &value)?,
                Unit::SignedSeconds => map.serialize_entry(key, &(value as i64))?,
                Unit::Bytes | Unit::Count => map.serialize_entry(key, &(value as u64))?,
                Unit::Share => map.serialize_entry(key, &(value != 0.0))?,
            }
        }
        map.end()
    }
}
