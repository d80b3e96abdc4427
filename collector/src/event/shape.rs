//! Reads an event straight, if it is spelled exactly as the feed has spelled every event so far.
//!
//! Compact, these seven members in this order, no escape: then nothing has to be decided byte by byte.
//! Anything else is not judged here but left to the general walk, which must find the same for what this
//! module takes (a property test holds the two against each other).

use chrono::NaiveDate;

use super::EventId;
use super::date::local_day;
use super::scan::plain_length;

/// An event in the feed's own spelling.
pub(crate) struct Shaped {
    pub(crate) id: EventId,
    pub(crate) day: NaiveDate,
    /// How many bytes it takes.
    pub(crate) length: usize,
}

/// The event at the beginning of `text`, or nothing if it is not spelled so.
pub(crate) fn read(text: &[u8]) -> Option<Shaped> {
    let (id, rest) = number(text.strip_prefix(br#"{"id":"#)?)?;
    let (datetime, rest) = string(rest.strip_prefix(br#","datetime":"#)?)?;
    let (_, rest) = string(rest.strip_prefix(br#","name":"#)?)?;
    let (_, rest) = string(rest.strip_prefix(br#","summary":"#)?)?;
    let (_, rest) = string(rest.strip_prefix(br#","url":"#)?)?;
    let (_, rest) = string(rest.strip_prefix(br#","type":"#)?)?;
    let (_, rest) = string(rest.strip_prefix(br#","location":{"name":"#)?)?;
    let (_, rest) = string(rest.strip_prefix(br#","gps":"#)?)?;
    let rest = rest.strip_prefix(b"}}")?;
    let day = local_day(std::str::from_utf8(datetime).ok()?)?;
    Some(Shaped { id, day, length: text.len() - rest.len() })
}

/// A positive integer that fits for certain.
fn number(text: &[u8]) -> Option<(EventId, &[u8])> {
    let count = text.iter().take(19).take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(count);
    if count > 18 || digits.first().is_none_or(|&first| first == b'0') {
        return None;
    }
    Some((digits.iter().fold(0, |number, digit| number * 10 + EventId::from(digit - b'0')), rest))
}

/// A string without escapes: what is between its quotes, and what stands behind them.
#[inline]
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let (inside, rest) = text.split_at(plain_length(text));
    Some((inside, rest.strip_prefix(b"\"")?))
}
