//! What the documented words of the health check and of the trend report take from Python 3.11.
//!
//! Both texts are fixed character for character, and parts of them are Python's own: how a number or a value
//! is printed, what a broken file is called, which dates are dates, and statistics that are computed with
//! fractions and rounded once. [`json`] reads as `json.load` does, [`value`] prints as `str` and `repr` do,
//! [`number`] and [`statistics`] compute, [`isoformat`] reads what `datetime.isoformat` writes, and [`mod@file`] has
//! pathlib's spelling of paths and the texts of `OSError`.
//!
//! Left out on purpose: half of a surrogate pair in a string becomes U+FFFD, since no output could carry it,
//! and the median of values one of which is NaN is NaN, where Python's depends on the order of the values.

mod file;
mod isoformat;
mod json;
mod number;
pub(crate) mod statistics;
mod value;

use std::fmt::{self, Display};

pub(crate) use file::{normalise, os_error, parse, read};
pub(crate) use isoformat::Moment;
pub(crate) use number::{Number, fixed};
pub(crate) use value::{Dict, Value};

/// An exception: its text, and the kinds that the documented words distinguish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exception {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

/// Kinds of exceptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `json.JSONDecodeError`.
    Syntax,
    /// `KeyError`.
    Key,
    /// Any other `ValueError`.
    Value,
    /// Anything else.
    Other,
}

impl Exception {
    pub(crate) fn key(name: &str) -> Self {
        Self { kind: Kind::Key, message: value::repr(name) }
    }

    pub(crate) fn value(message: impl Into<String>) -> Self {
        Self { kind: Kind::Value, message: message.into() }
    }

    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self { kind: Kind::Other, message: message.into() }
    }
}

impl Display for Exception {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}
