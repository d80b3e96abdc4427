//! A short number for the content of an event or of a rejected element.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twox_hash::XxHash3_64;

/// 48 bits of the XXH3 hash of a [content](super::content()).
///
/// Two contents share a fingerprint once in 2.8e14, so it may distinguish *changed* from *same* under one id;
/// whether a changed content is a version that is stored already is decided by comparing contents.
/// Zero stands for "not known". Source of the hash: <https://xxhash.com>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The content is not known (an id taken over from another collector).
    pub const UNKNOWN: Self = Self(0);
    const BITS: u64 = (1 << 48) - 1;
    /// Number of hexadecimal digits that it is written with.
    pub(crate) const DIGITS: usize = 12;

    /// The fingerprint of a content. Never [`Fingerprint::UNKNOWN`].
    #[must_use]
    pub fn of_canonical(bytes: &[u8]) -> Self {
        Self((XxHash3_64::oneshot(bytes) & Self::BITS).max(1))
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits & Self::BITS)
    }

    /// Whether the content is known.
    #[must_use]
    pub fn is_known(self) -> bool {
        self != Self::UNKNOWN
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:012x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let is_hexadecimal = text.len() == Self::DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_hexadecimal);
        number.map(Self).ok_or(InvalidFingerprint)
    }
}

/// A text that is not a [`Fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not twelve hexadecimal digits")]
pub struct InvalidFingerprint;

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hexadecimal;
        impl Visitor<'_> for Hexadecimal {
            type Value = Fingerprint;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("twelve hexadecimal digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Fingerprint, E> {
                text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Hexadecimal)
    }
}
