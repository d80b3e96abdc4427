//! `metadata/last_seen.json`: how a ledger is written and read.
//!
//! The first three members are those of the documented collector, so that its file is continued and its
//! tools can still read ours. Parallel arrays keep a thousand events in some 35 KiB.

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use rustc_hash::{FxBuildHasher, FxHashMap};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::lineage::MAX_NUMBER;
use super::{Claim, Ledger, Lineage, Replica, Seen, Tallies};
use crate::clock::iso;
use crate::event::{EventId, Fingerprint};
use crate::json::from_object;

/// A ledger's document stays below this, its claim included.
///
/// What its parts take at most, in KiB: 31 for 1,000 events (ids 8, days 9, fingerprints 12, window 2), 12 for 1,000
/// rejected elements, 2 for withdrawn ids, 5 for tallies, 5 for the last commits. The rest is left to claims.
pub const SIZE_LIMIT_BYTES: usize = 64 * 1024;
/// What is larger than this is not read as a ledger. Other collectors may track more than 1,000 ids.
pub const READ_LIMIT_BYTES: usize = 1024 * 1024;
/// Format 1 had neither lineage nor tallies.
const FORMAT: u32 = 2;

/// Why a document is no ledger. Nothing is stored on such a one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// No JSON, or members of other kinds.
    #[error("it is not readable: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Lists that belong together are not equally long, or a date does not exist.
    #[error("it contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// Written by a later version.
    #[error("its format is {0}, this program knows formats up to {FORMAT}")]
    Format(u32),
    /// It is larger than any ledger.
    #[error("it has {0} bytes, a ledger has at most {READ_LIMIT_BYTES}")]
    TooLarge(usize),
}

/// What a document turned out to be.
#[derive(Debug)]
pub enum LedgerDocument {
    /// A ledger of this program.
    Own(Box<Ledger>),
    /// The three documented members only: ids that another collector has stored.
    Foreign {
        /// The ids it lists.
        ids: Vec<EventId>,
        /// When it was written, if it says so.
        last_updated: Option<DateTime<Utc>>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(expecting = "an object with the list `seen_ids`")]
struct Document {
    seen_ids: Vec<EventId>,
    #[serde(default)]
    last_updated: String,
    #[serde(default)]
    total_tracked: usize,
    #[serde(default)]
    writes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<u32>,
    /// Every stored event of a later day is listed; `YYYYMMDD`, 0 for "every stored event".
    #[serde(default)]
    complete_after: u32,
    /// For each of `seen_ids` its day, `YYYYMMDD`; 0 if not known.
    #[serde(default)]
    days: Vec<u32>,
    /// For each of `seen_ids` its content; all zeros if not known.
    #[serde(default, with = "packed")]
    fingerprints: Vec<Fingerprint>,
    /// The last ordinary response, in its order: positions in `seen_ids`.
    #[serde(default)]
    window: Vec<usize>,
    /// The rejected elements that were stored last, the latest one last.
    #[serde(default, with = "packed")]
    rejected: Vec<Fingerprint>,
    #[serde(default)]
    withdrawn: Vec<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conditions: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<Claim>,
    #[serde(default)]
    lineage: Lineage,
    #[serde(default)]
    tallies: Tallies,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replica: Option<Replica>,
}

/// Fingerprints in one text, which saves a fifth of their space; format 1 had a list of texts.
mod packed {
    use std::fmt::Write as _;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::event::Fingerprint;

    pub(super) fn serialize<S: Serializer>(list: &[Fingerprint], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(list.len() * Fingerprint::DIGITS);
        for fingerprint in list {
            let _ = write!(text, "{fingerprint}");
        }
        serializer.serialize_str(&text)
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Packed(String),
        List(Vec<Fingerprint>),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Fingerprint>, D::Error> {
        match Either::deserialize(deserializer)? {
            Either::List(list) => Ok(list),
            Either::Packed(text) => {
                let (parts, rest) = text.as_bytes().as_chunks::<{ Fingerprint::DIGITS }>();
                let parsed = parts.iter().map(|digits| str::from_utf8(digits).ok()?.parse().ok());
                let parsed = parsed.collect::<Option<_>>().filter(|_| rest.is_empty());
                parsed.ok_or_else(|| D::Error::custom("fingerprints are groups of twelve hexadecimal digits"))
            }
        }
    }
}

impl LedgerDocument {
    /// Reads a document.
    ///
    /// # Errors
    /// [`LedgerError`] if it cannot be trusted in every member.
    pub fn parse(bytes: &[u8]) -> Result<Self, LedgerError> {
        if bytes.len() > READ_LIMIT_BYTES {
            return Err(LedgerError::TooLarge(bytes.len()));
        }
        let document: Document = from_object(bytes)?;
        match document.format {
            Some(1..=FORMAT) => Ok(Self::Own(Box::new(Ledger::from_document(document)?))),
            Some(format) => Err(LedgerError::Format(format)),
            None => Ok(Self::Foreign { ids: document.seen_ids, last_updated: time(&document.last_updated) }),
        }
    }
}

impl Ledger {
    /// Writes the document: compact JSON with a line break at its end.
    #[must_use]
    pub fn to_document(&self) -> Vec<u8> {
        let mut seen: Vec<(EventId, Seen)> = self.iter().collect();
        seen.sort_unstable_by_key(|&(id, _)| std::cmp::Reverse(id));
        let positions: FxHashMap<EventId, usize> =
            seen.iter().enumerate().map(|(position, &(id, _))| (id, position)).collect();
        let document = Document {
            seen_ids: seen.iter().map(|&(id, _)| id).collect(),
            last_updated: self.last_updated.map_or_else(String::new, iso),
            total_tracked: seen.len(),
            writes: self.writes,
            format: Some(FORMAT),
            complete_after: if self.complete_after == NaiveDate::MIN {
                0
            } else {
                number(self.complete_after)
            },
            days: seen.iter().map(|(_, seen)| seen.day.map_or(0, number)).collect(),
            fingerprints: seen.iter().map(|(_, seen)| seen.fingerprint).collect(),
            window: self.window.iter().filter_map(|id| positions.get(id).copied()).collect(),
            rejected: self.rejected.clone(),
            withdrawn: self.withdrawn.clone(),
            conditions: self.conditions.clone(),
            claim: self.claim.clone(),
            lineage: self.lineage.clone(),
            tallies: self.tallies.clone(),
            replica: self.replica.clone(),
        };
        let mut bytes = serde_json::to_vec(&document).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    fn from_document(document: Document) -> Result<Self, LedgerError> {
        let Document { seen_ids, days, fingerprints, window, .. } = document;
        if seen_ids.len() != days.len() || seen_ids.len() != fingerprints.len() {
            return Err(LedgerError::Inconsistent("`seen_ids`, `days` and `fingerprints` differ in length"));
        }
        let window = window.iter().map(|&position| seen_ids.get(position).copied()).collect::<Option<_>>();
        let window = window.ok_or(LedgerError::Inconsistent("`window` names positions that do not exist"))?;
        let mut seen = FxHashMap::with_capacity_and_hasher(seen_ids.len(), FxBuildHasher);
        for ((&id, &day), &fingerprint) in seen_ids.iter().zip(&days).zip(&fingerprints) {
            let day = (day != 0).then(|| date(day)).transpose()?;
            seen.insert(id, Seen { day, fingerprint });
        }
        if seen.len() != seen_ids.len() {
            return Err(LedgerError::Inconsistent("`seen_ids` lists an id twice"));
        }
        if document.writes > MAX_NUMBER {
            return Err(LedgerError::Inconsistent("`writes` is too large"));
        }
        document.lineage.check().map_err(LedgerError::Inconsistent)?;
        if document.replica.as_ref().is_some_and(|replica| replica.epoch > MAX_NUMBER) {
            return Err(LedgerError::Inconsistent("the epoch of `replica` is too large"));
        }
        Ok(Self {
            seen,
            complete_after: if document.complete_after == 0 {
                NaiveDate::MIN
            } else {
                date(document.complete_after)?
            },
            window,
            rejected: document.rejected,
            withdrawn: document.withdrawn,
            capacity: super::CAPACITY,
            last_updated: time(&document.last_updated),
            writes: document.writes,
            conditions: document.conditions,
            claim: document.claim,
            lineage: document.lineage,
            tallies: document.tallies,
            replica: document.replica,
        })
    }
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

/// `YYYYMMDD`. Days of the feed have four digits of year; what has more is kept at the border.
fn number(day: NaiveDate) -> u32 {
    u32::try_from(day.year().clamp(0, 9999)).unwrap_or(0) * 10_000 + day.month() * 100 + day.day()
}

fn date(number: u32) -> Result<NaiveDate, LedgerError> {
    // A later year could not be written again.
    let year = i32::try_from(number / 10_000).ok().filter(|&year| year <= 9999).unwrap_or(i32::MAX);
    NaiveDate::from_ymd_opt(year, number / 100 % 100, number % 100)
        .ok_or(LedgerError::Inconsistent("a day does not exist"))
}
