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
    // At least 59 bits of the root, so that its last one shows whether anything follows.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = Number> {
        let exact =
            prop_oneof![(-1e6..1e6), prop::num::f64::NORMAL.prop_filter("a square", |f| f.abs() > 1e-140)];
        prop_oneof![
            6 => exact.prop_map(Number::Float),
            2 => (-1000..1000_i32).prop_map(|int| Number::Int(int.into())),
            1 => any::<i128>().prop_map(|int| Number::Int(int.into())),
            1 => any::<bool>().prop_map(Number::Bool),
        ]
    }

    fn numbers() -> impl Strategy<Value = Vec<Number>> {
        prop::collection::vec(number(), 1..20)
    }

    fn units(number: f64) -> BigInt {
        Number::Float(number).to_units().unwrap()
    }

    /// Twice the places in the middle between a number and the next ones.
    fn middles(number: f64) -> (BigInt, BigInt) {
        let middle = |next: f64| units(number) + units(next);
        (middle(number.next_down()), middle(number.next_up()))
    }

    fn references(numbers: &[Number]) -> Vec<&Number> {
        numbers.iter().collect()
    }

    proptest! {
        #[test]
        fn no_float_is_nearer_to_the_mean(numbers in numbers()) {
            let mean = mean(&references(&numbers));
            let count = BigInt::from(numbers.len());
            let twice_the_sum: BigInt = numbers.iter().map(|number| number.to_units().unwrap() * 2).sum();
            let (below, above) = middles(mean);
            prop_assert!(below * &count <= twice_the_sum && twice_the_sum <= above * &count, "{mean}");
        }

        #[test]
        fn no_float_is_nearer_to_the_deviation(numbers in numbers()) {
            let deviation = stdev(&references(&numbers));
            prop_assert_eq!(deviation.is_none(), numbers.len() == 1);
            if let Some(deviation) = deviation.filter(|deviation| deviation.is_finite()) {
                // The sum of squared distances between all pairs is another way to the variance.
                let units: Vec<_> = numbers.iter().map(|number| number.to_units().unwrap()).collect();
                let pairs = units.iter().flat_map(|one| units.iter().map(move |another| one - another));
                let squares: BigInt = pairs.map(|distance| &distance * &distance).sum();
                let count = numbers.len();
                let (below, above) = middles(deviation);
                let square = |twice: BigInt| if twice < BigInt::ZERO { BigInt::ZERO } else { &twice * &twice };
                let (low, high) = (square(below), square(above));
                let scale = BigInt::from(count * (count - 1));
                prop_assert!(low * &scale <= &squares * 2 && squares * 2 <= high * scale, "{deviation}");
            }
        }

        #[test]
        fn half_of_the_values_lie_on_each_side_of_the_median(numbers in numbers()) {
            let median = Number::Float(median(&references(&numbers)));
            let beyond = |side| numbers.iter().filter(|number| {
                let float = Number::Float(number.to_f64());
                float.compare(&median) == Some(side)
            }).count();
            prop_assert!(beyond(Ordering::Less) * 2 <= numbers.len());
            prop_assert!(beyond(Ordering::Greater) * 2 <= numbers.len());
        }

        #[test]
        fn nothing_lies_outside_least_and_greatest(numbers in numbers()) {
            let all = references(&numbers);
            let (least, most) = (min(&all).unwrap(), max(&all).unwrap());
            for number in &all {
                prop_assert_ne!(number.compare(least), Some(Ordering::Less));
                prop_assert_ne!(number.compare(most), Some(Ordering::Greater));
            }
        }

        #[test]
        fn sums_of_integers_are_exact(numbers in prop::collection::vec(any::<i64>(), 0..20)) {
            let exact: i128 = numbers.iter().copied().map(i128::from).sum();
            let numbers: Vec<_> = numbers.into_iter().map(|number| Number::Int(number.into())).collect();
            prop_assert_eq!(sum(&references(&numbers)), Number::Int(exact.into()));
        }
    }

    #[test]
    fn ties_go_to_the_even_neighbour() {
        let numbers = [1, 9_007_199_254_740_992_i64].map(|int| Number::Int(int.into()));
        let two = [&numbers[0], &numbers[1]];
        assert!((mean(&two) - 4_503_599_627_370_496.5).abs() < f64::EPSILON);
        let odd = Number::Int(9_007_199_254_740_993_i64.into());
        assert!((odd.to_f64() - 9_007_199_254_740_992.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_not_finite_spreads() {
        let [one, infinite, nan] = [1.0, f64::INFINITY, f64::NAN].map(Number::Float);
        assert!(mean(&[&one, &infinite]).is_infinite());
        assert!(mean(&[&one, &infinite, &nan]).is_nan());
        assert!(median(&[&nan, &one, &infinite]).is_nan());
        assert_eq!(stdev(&[&one, &infinite]), None);
        assert_eq!(max(&[&one, &Number::Int(BigInt::from(10).pow(300)), &infinite]), Some(&infinite));
    }
}
