//! What must not be: `p95(api_fetch) > 2s`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::document::Cell;
use super::statistics::Sorted;
use crate::quantity::{Quantity, Unit};
use crate::record::compact::RunSlice;
use crate::text::ParseError;

/// A value of a quantity over runs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Figure {
    Quantile(f64),
    Mean,
    Least,
    Most,
    Sum,
    Last,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// A condition under which a report fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    text: String,
    figure: Figure,
    quantity: Quantity,
    comparison: Comparison,
    bound: f64,
}

/// The comparisons as they are written, longer ones first.
const COMPARISONS: [(&str, Comparison); 4] = [
    (">=", Comparison::GreaterOrEqual),
    ("<=", Comparison::LessOrEqual),
    (">", Comparison::Greater),
    ("<", Comparison::Less),
];

impl FromStr for Condition {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong =
            || format!("`{text}` is no condition such as `p95(api_fetch) > 2s` or `mean(failed) > 5%`");
        let (at, sign, comparison) = COMPARISONS
            .into_iter()
            .filter_map(|(sign, comparison)| Some((text.find(sign)?, sign, comparison)))
            .min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())))
            .ok_or_else(wrong)?;
        let (left, right) = (text[..at].trim(), text[at + sign.len()..].trim());
        let (figure, name) =
            left.strip_suffix(')').and_then(|left| left.split_once('(')).ok_or_else(wrong)?;
        let quantity =
            Quantity::reported().find(|quantity| quantity.key() == name.trim()).ok_or_else(|| {
                let names: Vec<&str> = Quantity::reported().map(Quantity::key).collect();
                format!("there is no `{}`; there are {}", name.trim(), names.join(", "))
            })?;
        let figure = match figure.trim() {
            "mean" => Figure::Mean,
            "min" => Figure::Least,
            "max" => Figure::Most,
            "sum" => Figure::Sum,
            "last" => Figure::Last,
            other => match other.strip_prefix('p').and_then(|percent| percent.parse::<f64>().ok()) {
                Some(percent) if (0.0..=100.0).contains(&percent) => Figure::Quantile(percent / 100.0),
                _ => return Err(format!("`{other}` is none of p0 to p100, mean, min, max, sum, last").into()),
            },
        };
        let bound = bound(right, quantity.unit())?;
        Ok(Self { text: text.trim().to_owned(), figure, quantity, comparison, bound })
    }
}

/// A number with a unit that suits.
fn bound(text: &str, unit: Unit) -> Result<f64, String> {
    let split = text
        .find(|letter: char| !letter.is_ascii_digit() && !matches!(letter, '.' | '-' | '+'))
        .unwrap_or(text.len());
    let (number, suffix) = (text[..split].trim(), text[split..].trim());
    let value: f64 = number.parse().map_err(|_| format!("`{text}` has no number"))?;
    // Divided, not multiplied by a fraction: 70 % is then the number that `0.70` is.
    Ok(match (unit, suffix) {
        (Unit::Seconds | Unit::SignedSeconds, "s")
        | (Unit::Bytes, "B")
        | (Unit::Kibibytes, "KiB")
        | (Unit::Count | Unit::Share, "") => value,
        (Unit::Seconds, "ms") => value / 1e3,
        (Unit::Seconds, "us" | "µs") => value / 1e6,
        (Unit::Seconds, "min") => value * 60.0,
        (Unit::Bytes, "KB" | "kB") => value * 1e3,
        (Unit::Bytes, "MB") => value * 1e6,
        (Unit::Bytes, "GB") => value * 1e9,
        (Unit::Share, "%") => value / 100.0,
        (Unit::Seconds | Unit::SignedSeconds, _) => {
            return Err(format!("`{text}` is not a time such as 2s or 150ms"));
        }
        (Unit::Bytes | Unit::Kibibytes, _) => return Err(format!("`{text}` is not a size such as 12MB")),
        (Unit::Share, _) => return Err(format!("`{text}` is not a share such as 5%")),
        (Unit::Count, _) => return Err(format!("`{text}` is not a number")),
    })
}

/// A condition cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{condition}: no run states {quantity}")]
pub struct NoRuns {
    condition: String,
    quantity: &'static str,
}

/// A condition that holds, and what it found.
#[derive(Debug, Clone, PartialEq)]
pub struct Met<'a> {
    condition: &'a Condition,
    found: f64,
}

impl fmt::Display for Met<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Cell::new(Some(self.found), self.condition.quantity.unit());
        write!(formatter, "{}: it is {found}", self.condition.text)
    }
}

impl Condition {
    /// Whether it holds.
    ///
    /// # Errors
    /// If no run says anything about the quantity: that is no reason to be content.
    pub fn judge(&self, runs: RunSlice<'_>) -> Result<Option<Met<'_>>, NoRuns> {
        let values: Vec<f64> = runs.values(self.quantity).collect();
        let last = values.last().copied();
        let sum = values.iter().sum();
        let sorted = Sorted::new(values);
        let found = match self.figure {
            Figure::Quantile(share) => sorted.quantile(share),
            Figure::Mean => sorted.mean(),
            Figure::Least => sorted.min(),
            Figure::Most => sorted.max(),
            Figure::Sum => last.map(|_| sum),
            Figure::Last => last,
        };
        let found =
            found.ok_or_else(|| NoRuns { condition: self.text.clone(), quantity: self.quantity.key() })?;
        let holds = match self.comparison {
            Comparison::Greater => found > self.bound,
            Comparison::GreaterOrEqual => found >= self.bound,
            Comparison::Less => found < self.bound,
            Comparison::LessOrEqual => found <= self.bound,
        };
        Ok(holds.then_some(Met { condition: self, found }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentage_is_the_share_of_the_same_value() {
        for percent in 0..=100 {
            let share = f64::from(percent) / 100.0;
            assert_eq!(bound(&format!("{percent}%"), Unit::Share), bound(&share.to_string(), Unit::Share));
        }
    }

    #[test]
    fn conditions_are_read_with_their_units() {
        let condition: Condition = "p95(api_fetch) > 2s".parse().unwrap();
        assert_eq!(condition.figure, Figure::Quantile(0.95));
        assert_eq!(condition.comparison, Comparison::Greater);
        assert!((condition.bound - 2.0).abs() < 1e-12);
        let bound = |text: &str| text.parse::<Condition>().unwrap().bound;
        assert!((bound("mean(failed)>=5%") - 0.05).abs() < 1e-12);
        assert!((bound("max(peak_memory_bytes) <= 16 MB") - 16e6).abs() < 1e-6);
        assert!((bound("p99.9(total_time) < 150ms") - 0.15).abs() < 1e-12);
        for wrong in [
            "",
            "p95",
            "p95(api_fetch)",
            "p95(x) > 2s",
            "p95(api_fetch) > 2",
            "p101(api_fetch) > 2s",
            "min(errors) > 2s",
            "mean(failed) > x%",
        ] {
            assert!(wrong.parse::<Condition>().is_err(), "{wrong}");
        }
    }
}
