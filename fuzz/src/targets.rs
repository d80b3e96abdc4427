//! The targets, by what they parse.

mod archive;
mod event;
mod feed;
mod listing;
mod query;
mod record;
mod settings;

use std::hash::Hasher as _;

use chrono::{DateTime, Utc};
use twox_hash::XxHash3_64;

use crate::Target;

/// Every target.
#[must_use]
pub fn all() -> Vec<&'static Target> {
    let groups = [
        event::TARGETS,
        archive::TARGETS,
        feed::TARGETS,
        listing::TARGETS,
        query::TARGETS,
        record::TARGETS,
        settings::TARGETS,
    ];
    groups.into_iter().flatten().collect()
}

/// The target of a name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Target> {
    all().into_iter().find(|target| target.name == name)
}

/// The time at which inputs are judged: 2026-01-02 12:00:00 UTC.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_355_200, 0).unwrap_or_default()
}

/// The input as text; invalid bytes are replaced.
fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

/// Fails with a reason unless a condition holds.
fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason()) }
}

/// A number for a message, without its digits and what it quotes: they differ between inputs of the same kind.
fn kind_of(message: &str) -> u64 {
    let quotes = ['"', '`', '\'', '<', '>'];
    let before = message.split(quotes).next().unwrap_or_default();
    // A message that was cut ends within a quotation.
    let after = message.rsplit(quotes).next().filter(|after| !after.ends_with('…')).unwrap_or_default();
    let mut hasher = XxHash3_64::default();
    for byte in before.bytes().chain(after.bytes()).filter(|byte| !byte.is_ascii_digit()) {
        hasher.write_u8(byte);
    }
    hasher.finish()
}

/// A number for the kind of a result.
fn kind_of_result<T, E: ToString>(result: &Result<T, E>, ok: impl FnOnce(&T) -> u64) -> u64 {
    match result {
        Ok(value) => ok(value),
        Err(error) => kind_of(&error.to_string()),
    }
}

/// The number of bits of a count: inputs that are twice as large are of another kind.
fn size_of(count: impl TryInto<u64>) -> u64 {
    u64::from(u64::BITS - count.try_into().unwrap_or(u64::MAX).leading_zeros())
}
