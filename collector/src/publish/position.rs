//! Where a message stands in the history of an archive. Every message carries its position, so that the broker
//! alone knows what was published.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::archive::Cursor;

/// Number of digits of an object's digest that a position holds.
const DIGEST_DIGITS: usize = 16;

/// The position of a line: its commit, its object among those of the commit, and its number in the object.
///
/// It is written as `ARCHIVE:SEQUENCE:COMMIT+OBJECT.LINE.LINES.DIGEST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub(super) cursor: Cursor,
    /// The number of the object among those of the commit that are published, from 0.
    pub(super) object: u32,
    /// The number of the line in the object, from 0.
    pub(super) line: u32,
    /// How many lines the object has.
    pub(super) lines: u32,
    /// The beginning of the SHA-256 digest of the lines of the object.
    pub(super) digest: String,
}

impl Position {
    pub(super) fn new(cursor: Cursor, object: u32, (line, lines): (u32, u32), digest: &str) -> Self {
        Self { cursor, object, line, lines, digest: digest.chars().take(DIGEST_DIGITS).collect() }
    }

    /// The commit.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Its place in the order of an archive.
    pub(super) fn order(&self) -> (u64, u32, u32) {
        (self.cursor.sequence(), self.object, self.line)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cursor, object, line, lines, digest } = self;
        write!(formatter, "{cursor}+{object}.{line}.{lines}.{digest}")
    }
}

impl serde::Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is not a [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a position, which reads ARCHIVE:SEQUENCE:COMMIT+OBJECT.LINE.LINES.DIGEST")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (cursor, place) = text.split_once('+').ok_or(InvalidPosition)?;
        let mut parts = place.splitn(4, '.');
        let mut next = || parts.next().ok_or(InvalidPosition);
        let (object, line, lines, digest) = (next()?, next()?, next()?, next()?);
        let number = |text: &str| text.parse().map_err(|_| InvalidPosition);
        let is_digest = digest.len() == DIGEST_DIGITS && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let cursor: Cursor = cursor.parse().map_err(|_| InvalidPosition)?;
        if !is_digest || cursor.sequence() == 0 {
            return Err(InvalidPosition);
        }
        let (object, line, lines) = (number(object)?, number(line)?, number(lines)?);
        if line >= lines {
            return Err(InvalidPosition);
        }
        Ok(Self { cursor, object, line, lines, digest: digest.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef:7:fedcba9876543210+3.17.18.0011223344556677";

    #[test]
    fn position_survives_its_text() {
        let position: Position = TEXT.parse().unwrap();
        assert_eq!(position.order(), (7, 3, 17));
        assert_eq!(position.to_string(), TEXT);
    }

    #[test]
    fn other_texts_are_refused() {
        let before_any = TEXT.replace(":7:fedcba9876543210", ":0:");
        let beyond_end = TEXT.replace(".18.", ".17.");
        for text in
            ["", "+", "a:1:b+0.0.1.c", &beyond_end, &TEXT[..TEXT.len() - 1], &format!("{TEXT}0"), &before_any]
        {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text}");
        }
    }
}
