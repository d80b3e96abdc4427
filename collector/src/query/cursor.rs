//! Where an answer continues: behind the object and the line that were returned last.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::archive::Place;
use crate::store::Key;

/// A place in an archive, written as `events/2026/01/02/events-1767362400.jsonl:17`. Objects never change, so it stays good;
/// what is stored later for a day that was returned already is not found behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    key: Key,
    place: Place,
    /// Lines of the object that were returned.
    lines: usize,
}

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a cursor as an earlier answer gave it, such as events/2026/01/02/events-1767362400.jsonl:17")]
pub struct InvalidCursor;

impl Cursor {
    pub(super) fn new(key: Key, place: Place, lines: usize) -> Self {
        Self { key, place, lines }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn lines(&self) -> usize {
        self.lines
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.key, self.lines)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (key, lines) = text.rsplit_once(':').ok_or(InvalidCursor)?;
        let place = Place::of(key).ok_or(InvalidCursor)?;
        let key = Key::new(key).map_err(|_| InvalidCursor)?;
        Ok(Self { key, place, lines: lines.parse().map_err(|_| InvalidCursor)? })
    }
}
