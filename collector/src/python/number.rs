//! `int`, `float` and `bool`: printed, compared and converted as Python does.

use std::cmp::Ordering;
use std::fmt::{self, Display};

use num_bigint::{BigInt, BigUint, Sign};

/// The exponent of the smallest `float`, 2^-1074, of which every finite one is a multiple.
pub(super) const UNIT_BITS: u32 = 1074;

/// A number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Number {
    Bool(bool),
    Int(BigInt),
    Float(f64),
}

impl Number {
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
        }
    }

    /// `float(number)`; infinite where Python raises an `OverflowError`.
    pub(crate) fn to_f64(&self) -> f64 {
        match self {
            Self::Bool(flag) => f64::from(u8::from(*flag)),
            Self::Int(number) => quotient(number, &BigUint::from(1_u8)),
            Self::Float(number) => *number,
        }
    }

    /// Whether it is an `int` too large for `float(number)`.
    pub(crate) fn overflows(&self) -> bool {
        matches!(self, Self::Int(_)) && self.to_f64().is_infinite()
    }

    /// The number as an `int`, if it is one.
    pub(super) fn to_int(&self) -> Option<BigInt> {
        match self {
            Self::Bool(flag) => Some(BigInt::from(*flag)),
            Self::Int(number) => Some(number.clone()),
            Self::Float(_) => None,
        }
    }

    /// The exact number in multiples of 2^-1074, or none if it is infinite or NaN.
    pub(super) fn to_units(&self) -> Option<BigInt> {
        let Self::Float(number) = self else { return self.to_int().map(|number| number << UNIT_BITS) };
        if !number.is_finite() {
            return None;
        }
        let bits = number.to_bits();
        let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
        let (mantissa, shift) =
            if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) };
        let magnitude = BigInt::from(mantissa) << shift;
        Some(if number.is_sign_negative() { -magnitude } else { magnitude })
    }

    /// Compares exactly; none with NaN.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Float(one), Self::Float(another)) => one.partial_cmp(another),
            (Self::Int(one), Self::Int(another)) => Some(one.cmp(another)),
            _ => match (self.to_units(), other.to_units()) {
                (Some(one), Some(another)) => Some(one.cmp(&another)),
                // Of an int only the sign matters here, and that it is finite.
                (Some(_), None) => 0.0.partial_cmp(&other.to_f64()),
                (None, Some(_)) => self.to_f64().partial_cmp(&0.0),
                (None, None) => self.to_f64().partial_cmp(&other.to_f64()),
            },
        }
    }
}

/// `str(number)`.
impl Display for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(true) => out.write_str("True"),
            Self::Bool(false) => out.write_str("False"),
            Self::Int(number) => write!(out, "{number}"),
            Self::Float(number) => out.write_str(&float_repr(*number)),
        }
    }
}

/// `f"{number:.{decimals}f}"`.
pub(crate) fn fixed(number: f64, decimals: usize) -> String {
    if number.is_nan() { "nan".to_owned() } else { format!("{number:.decimals$}") }
}

/// `repr(number)`: the shortest digits that read back as the same number, and of those the nearest.
fn float_repr(number: f64) -> String {
    if !number.is_finite() {
        return fixed(number, 0);
    }
    let shortest = format!("{number:e}");
    let fraction = shortest.split_once('e').map_or("", |(mantissa, _)| mantissa).split_once('.');
    // Between two that are equally near, this takes the even one.
    let nearest = format!("{number:.*e}", fraction.map_or(0, |(_, digits)| digits.len()));
    let chosen = if nearest.parse() == Ok(number) { nearest } else { shortest };
    let (mantissa, exponent) = chosen.split_once('e').unwrap_or((&chosen, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits = mantissa.replace('.', "");
    match usize::try_from(exponent) {
        Ok(places @ 0..16) if digits.len() <= places + 1 => {
            format!("{sign}{digits:0<width$}.0", width = places + 1)
        }
        Ok(places @ 0..16) => {
            let (whole, fraction) = digits.split_at(places + 1);
            format!("{sign}{whole}.{fraction}")
        }
        Err(_) if exponent >= -4 => {
            let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
            format!("{sign}0.{zeros}{digits}")
        }
        _ => {
            let direction = if exponent < 0 { '-' } else { '+' };
            format!("{sign}{mantissa}e{direction}{:02}", exponent.unsigned_abs())
        }
    }
}

/// The `float` nearest to a fraction, ties to even; infinite if it is beyond all.
///
/// Not exact below 2^-1020, where a `float` has fewer digits.
pub(super) fn quotient(numerator: &BigInt, denominator: &BigUint) -> f64 {
    let magnitude = numerator.magnitude();
    if magnitude.bits() == 0 || denominator.bits() == 0 {
        return 0.0;
    }
    // 55 or 56 bits: 53 that stay, one to round by, and a last one for whether anything follows.
    let shift = 55 + i64::try_from(denominator.bits()).unwrap_or(i64::MAX)
        - i64::try_from(magnitude.bits()).unwrap_or(i64::MAX);
    let (dividend, divisor) = (shifted(magnitude, shift), shifted(denominator, -shift));
    let whole = &dividend / &divisor;
    let sticky = u64::from(&whole * &divisor != dividend);
    let digits = whole.iter_u64_digits().next().unwrap_or(0) | sticky;
    #[expect(clippy::cast_precision_loss, reason = "this is the rounding")]
    let rounded = digits as f64;
    let exponent = i32::try_from(-shift).unwrap_or(if shift > 0 { i32::MIN } else { i32::MAX });
    // In two steps, since 2^exponent alone may be no float where the product is one.
    let half = exponent.clamp(-1400, 1400) / 2;
    let nearest = rounded * power_of_two(half) * power_of_two(exponent.clamp(-1400, 1400) - half);
    if numerator.sign() == Sign::Minus { -nearest } else { nearest }
}

fn shifted(number: &BigUint, bits: i64) -> BigUint {
    number << u64::try_from(bits).unwrap_or(0)
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::from((exponent + 1023).unsigned_abs()) << 52)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floats_are_printed_as_python_prints_them() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-12.5, "-12.5"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (22.093_765_258_789_062, "22.093765258789062"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(Number::Float(number).to_string(), text);
        }
        assert_eq!(Number::Bool(true).to_string(), "True");
        for (number, text) in [(0.125, "0.12"), (0.375, "0.38"), (-0.001, "-0.00"), (f64::NAN, "nan")] {
            assert_eq!(fixed(number, 2), text);
        }
    }

    proptest! {
        #[test]
        fn a_printed_float_reads_back(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            prop_assert_eq!(Number::Float(number).to_string().parse(), Ok(number));
        }

        #[test]
        fn integers_become_the_float_that_rust_makes_of_them(int in any::<i128>(), digits in 0..127_u32) {
            let int = int >> digits;
            #[expect(clippy::cast_precision_loss, reason = "this is what is compared")]
            let expected = int as f64;
            prop_assert_eq!(Number::Int(int.into()).to_f64().to_bits(), expected.to_bits());
        }

        #[test]
        fn integers_and_floats_are_compared_exactly(int in any::<i64>(), near in -2..3_i64) {
            #[expect(clippy::cast_precision_loss, reason = "any float will do")]
            let float = int.saturating_add(near) as f64;
            #[expect(clippy::cast_possible_truncation, reason = "an i128 holds it")]
            let expected = i128::from(int).cmp(&(float as i128));
            prop_assert_eq!(Number::Int(int.into()).compare(&Number::Float(float)), Some(expected));
            prop_assert_eq!(Number::Float(float).compare(&Number::Int(int.into())), Some(expected.reverse()));
        }
    }
}
