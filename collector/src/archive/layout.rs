//! Where things are: the names of an archive's objects.

use std::fmt;

use chrono::{Datelike, NaiveDate};

use crate::store::Key;

/// What an object holds, and so the folder it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Events, each id once, by the event's day.
    Events,
    /// Later versions of events, by the version's day.
    Revisions,
    /// Elements that are not valid events, by the day of the run.
    Rejected,
    /// Events that vanished from the feed, by the day of the run.
    Withdrawn,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Events, Self::Revisions, Self::Rejected, Self::Withdrawn];

    /// The folder's name, which is also how the names of its objects begin.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Revisions => "revisions",
            Self::Rejected => "rejected",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// How the names of all objects of a day begin.
    #[must_use]
    pub fn day_prefix(self, day: NaiveDate) -> String {
        format!("{}/{:04}/{:02}/{:02}/", self.name(), day.year(), day.month(), day.day())
    }

    /// The name of an object of a run: `events/2026/01/02/events-1767362400.jsonl`, and from the second one
    /// of that run and day on `events-1767362400-2.jsonl`.
    pub(crate) fn key(self, day: NaiveDate, run_second: i64, ordinal: u32) -> Key {
        let (prefix, name) = (self.day_prefix(day), self.name());
        Key::of_parts(match ordinal {
            0 | 1 => format!("{prefix}{name}-{run_second}.jsonl"),
            _ => format!("{prefix}{name}-{run_second}-{ordinal}.jsonl"),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What an object's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// What it holds.
    pub kind: Kind,
    /// Its day.
    pub day: NaiveDate,
}

impl Place {
    /// The place that a name states; nothing if it is no object of a partition.
    #[must_use]
    pub fn of(key: &str) -> Option<Self> {
        let mut segments = key.split('/');
        let mut next = || segments.next();
        let (folder, year, month, day, file) = (next()?, next()?, next()?, next()?, next()?);
        let are_digits = [year, month, day].concat().bytes().all(|byte| byte.is_ascii_digit());
        if next().is_some() || (year.len(), month.len(), day.len()) != (4, 2, 2) || !are_digits {
            return None;
        }
        file.strip_suffix(".jsonl")?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == folder)?;
        let day = NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
        Some(Self { kind, day })
    }
}

impl Place {
    /// The place of a day's objects, by the prefix of their names.
    pub(crate) fn of_prefix(prefix: &str) -> Option<Self> {
        Self::of(&format!("{prefix}.jsonl"))
    }
}

/// The ledger's name.
#[must_use]
pub fn ledger_key() -> Key {
    Key::of_parts("metadata/last_seen.json".to_owned())
}
