//! How many objects each day holds, so that a listing can be checked against the ledger.
//!
//! A tally is a count and a digest of names and sizes. It does not depend on the order in which objects were added,
//! so it can be continued without reading anything.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::NaiveDate;
use rustc_hash::FxHashSet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twox_hash::XxHash3_64;

use super::{CommitKind, CommittedObject, Ledger};

/// Count and digest of a set of objects. Two sets of the same count have the same digest once in 4.3e9.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of objects.
    pub objects: u32,
    digest: u32,
}

impl Tally {
    /// Adds an object.
    pub fn add(&mut self, key: &str, size_bytes: u64) {
        self.objects = self.objects.saturating_add(1);
        let hash = XxHash3_64::oneshot_with_seed(size_bytes, key.as_bytes());
        self.digest ^= u32::try_from(hash >> 32).unwrap_or_default();
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{:08x}", self.objects, self.digest)
    }
}

impl FromStr for Tally {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (objects, digest) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self { objects: objects.parse()?, digest: u32::from_str_radix(digest, 16)? })
    }
}

impl Serialize for Tally {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Tally {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The tallies of days, by the prefix that the names of their objects share, such as `events/2026/01/02/`.
pub type Tallies = BTreeMap<String, Tally>;

/// Number of days of runs for which rejected elements and withdrawals are vouched for.
pub const RUN_DAYS: usize = 31;
/// Maximum number of days of events, so that a sparse archive does not outgrow the ledger.
const EVENT_DAYS: usize = 100;

/// The prefix of a day's objects that an object belongs to.
#[must_use]
pub fn prefix_of(key: &str) -> &str {
    key.rfind('/').map_or("", |end| &key[..=end])
}

fn day_of(prefix: &str) -> Option<NaiveDate> {
    let (_, day) = prefix.trim_end_matches('/').split_once('/')?;
    NaiveDate::parse_from_str(day, "%Y/%m/%d").ok()
}

/// Whether a prefix is that of a day of events, and not of runs.
fn is_of_events(prefix: &str) -> bool {
    prefix.starts_with("events/") || prefix.starts_with("revisions/")
}

/// Whether a prefix is that of a day, of events or of runs.
fn is_known(prefix: &str) -> bool {
    ["events/", "revisions/", "rejected/", "withdrawn/"].iter().any(|folder| prefix.starts_with(folder))
        && day_of(prefix).is_some()
}

impl Ledger {
    /// What a day must hold. Nothing if the ledger does not vouch for it.
    #[must_use]
    pub fn expected(&self, prefix: &str) -> Option<Tally> {
        if let Some(&tally) = self.tallies.get(prefix) {
            return Some(tally);
        }
        let day = day_of(prefix).filter(|_| self.lineage.is_known())?;
        let covered = if is_of_events(prefix) {
            !self.is_late(day)
        } else {
            let (folder, _) = prefix.split_once('/')?;
            let mut days = self.tallies.keys().filter(|known| known.starts_with(folder)).rev();
            days.nth(RUN_DAYS - 1).is_none_or(|oldest| prefix > oldest.as_str())
        };
        covered.then(Tally::default)
    }

    /// Counts an object of the archive.
    pub fn count_object(&mut self, key: &str, size_bytes: u64) {
        self.tallies.entry(prefix_of(key).to_owned()).or_default().add(key, size_bytes);
    }

    /// Makes a commit of these objects the last one. They have been counted.
    pub fn commit(&mut self, kind: CommitKind, run: &str, at: i64, objects: Vec<CommittedObject>) {
        if !objects.is_empty() {
            self.lineage.append(kind, run, at, objects);
        }
    }

    /// Forgets the tallies of days that the ledger does not vouch for, so that it stays small.
    pub(crate) fn prune_tallies(&mut self) {
        let remembered: FxHashSet<NaiveDate> = self.seen.values().filter_map(|seen| seen.day).collect();
        let vouched_for = |day: NaiveDate| day > self.complete_after || remembered.contains(&day);
        let mut tallies = std::mem::take(&mut self.tallies);
        tallies.retain(|prefix, _| {
            is_known(prefix) && (!is_of_events(prefix) || day_of(prefix).is_some_and(vouched_for))
        });
        for folder in ["rejected/", "withdrawn/"] {
            let days: Vec<String> = tallies.keys().filter(|it| it.starts_with(folder)).cloned().collect();
            for day in &days[..days.len().saturating_sub(RUN_DAYS)] {
                tallies.remove(day);
            }
        }
        for folder in ["events/", "revisions/"] {
            let days: Vec<String> = tallies.keys().filter(|it| it.starts_with(folder)).cloned().collect();
            for prefix in &days[..days.len().saturating_sub(EVENT_DAYS)] {
                tallies.remove(prefix);
                // What is not counted has to be looked up.
                self.complete_after = self.complete_after.max(day_of(prefix).unwrap_or(NaiveDate::MIN));
            }
        }
        self.tallies = tallies;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_adding_is_insignificant_and_names_and_sizes_are_not() {
        let tally = |objects: &[(&str, u64)]| {
            let mut tally = Tally::default();
            for &(key, size) in objects {
                tally.add(key, size);
            }
            tally
        };
        let two = tally(&[("a", 1), ("b", 2)]);
        assert_eq!(two, tally(&[("b", 2), ("a", 1)]));
        assert_ne!(two, tally(&[("a", 1), ("b", 3)]));
        assert_ne!(two, tally(&[("a", 1), ("c", 2)]));
        assert_eq!(two.to_string().parse(), Ok(two));
        assert!("".parse::<Tally>().is_err());
    }
}
