//! Names of objects.

use std::fmt;

use thiserror::Error;

/// An object's name: segments of letters, digits, `.`, `_`, `-` and `=`, parted by `/`.
///
/// No segment begins with a dot, so that no name leads out of a folder or hides in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// A text that is no [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no name for an object")]
pub struct InvalidKey(String);

impl Key {
    /// Checks a name.
    ///
    /// ```
    /// use collector::store::Key;
    /// assert!(Key::new("events/2026/01/02/events-1767362400.jsonl").is_ok());
    /// assert!(Key::new("events/../../etc/passwd").is_err());
    /// ```
    ///
    /// # Errors
    /// [`InvalidKey`] if it has empty segments, other characters, or a segment that begins with a dot.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidKey> {
        let name = name.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'=');
        let fits =
            |segment: &str| !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(allowed);
        if name.split('/').all(fits) { Ok(Self(name)) } else { Err(InvalidKey(name)) }
    }

    /// For names that the program itself composes of checked parts.
    pub(crate) fn of_parts(name: String) -> Self {
        debug_assert!(Self::new(name.as_str()).is_ok(), "{name}");
        Self(name)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
