//! `statistics.mean`, `median` and `stdev`, and `min`, `max` and `sum`.
//!
//! Mean and deviation are computed exactly and rounded once, in multiples of 2^-1074 as integers.

use std::cmp::Ordering;

use num_bigint::{BigInt, BigUint};

use super::Number;
use super::number::{UNIT_BITS, quotient};

/// `statistics.mean` as a `float`; 0 without values.
pub(crate) fn mean(values: &[&Number]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let Some(sum) = sum_of_units(values) else {
        return values.iter().map(|value| value.to_f64()).filter(|value| !value.is_finite()).sum();
    };
    quotient(&sum, &(BigUint::from(values.len()) << UNIT_BITS))
}

/// `statistics.median` as a `float`; NaN if a value is, 0 without values.
pub(crate) fn median(values: &[&Number]) -> f64 {
    let mut sorted = values.to_vec();
    if sorted.iter().any(|value| value.to_f64().is_nan()) {
        return f64::NAN;
    }
    sorted.sort_by(|one, another| one.compare(another).unwrap_or(Ordering::Equal));
    let middle = sorted.len() / 2;
    let (Some(upper), lower) = (sorted.get(middle), sorted.get(middle.wrapping_sub(1))) else { return 0.0 };
    match lower {
        Some(lower) if sorted.len().is_multiple_of(2) => match (lower.to_int(), upper.to_int()) {
            (Some(lower), Some(upper)) => quotient(&(lower + upper), &BigUint::from(2_u8)),
            _ => (lower.to_f64() + upper.to_f64()) * 0.5,
        },
        _ => upper.to_f64(),
    }
}

/// `statistics.stdev`, of a sample; none for fewer than two values or if one is infinite or NaN.
pub(crate) fn stdev(values: &[&Number]) -> Option<f64> {
    let count = BigUint::from(values.len());
    let freedom = BigUint::from(values.len().checked_sub(1).filter(|&freedom| freedom > 0)?);
    let sum = sum_of_units(values)?;
    let mut squares = BigUint::ZERO;
    for value in values {
        let units = value.to_units()?;
        squares += units.magnitude() * units.magnitude();
    }
    // Never negative (Cauchy-Schwarz).
    let numerator = squares * &count - sum.magnitude() * sum.magnitude();
    Some(root(&numerator, &(count * freedom)))
}

/// The root of a fraction of squared units, rounded once.
fn root(numerator: &BigUint, denominator: &BigUint) -> f64 {
    // At least 59 bits of the root, so that its last one can tell whether anything follows.
    let shift = (120 + denominator.bits()).saturating_sub(numerator.bits()).div_ceil(2);
    let dividend = numerator << (2 * shift);
    let mut whole = (&dividend / denominator).sqrt();
    if &whole * &whole * denominator != dividend {
        whole.set_bit(0, true);
    }
    quotient(&whole.into(), &(BigUint::from(1_u8) << (u64::from(UNIT_BITS) + shift)))
}

/// `min(values)`: the first of the least.
pub(crate) fn min<'a>(values: &[&'a Number]) -> Option<&'a Number> {
    first(values, Ordering::Less)
}

/// `max(values)`: the first of the greatest.
pub(crate) fn max<'a>(values: &[&'a Number]) -> Option<&'a Number> {
    first(values, Ordering::Greater)
}

fn first<'a>(values: &[&'a Number], wanted: Ordering) -> Option<&'a Number> {
    let better = |best: &'a Number, value: &'a Number| {
        if value.compare(best) == Some(wanted) { value } else { best }
    };
    values.iter().copied().reduce(better)
}

/// `sum(values)`: exact until a `float` comes, and from then on with `float`s, from left to right.
pub(crate) fn sum(values: &[&Number]) -> Number {
    let mut exact = BigInt::ZERO;
    let mut rest = values.iter();
    for value in rest.by_ref() {
        let Some(int) = value.to_int() else {
            let start = Number::Int(exact).to_f64() + value.to_f64();
            return Number::Float(rest.fold(start, |sum, value| sum + value.to_f64()));
        };
        exact += int;
    }
    Number::Int(exact)
}

fn sum_of_units(values: &[&Number]) -> Option<BigInt> {
    values.iter().try_fold(BigInt::ZERO, |sum, value| Some(sum + value.to_units()?))
}
