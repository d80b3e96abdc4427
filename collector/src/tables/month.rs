//! A calendar month: what one file of a table holds.

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike as _, NaiveDate};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::archive::Kind;
use crate::store::Key;

/// A calendar month, written as `2026-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i32,
    month: u32,
}

impl From<NaiveDate> for Month {
    fn from(day: NaiveDate) -> Self {
        Self { year: day.year(), month: day.month() }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = InvalidMonth;

    fn from_str(text: &str) -> Result<Self, InvalidMonth> {
        let fits = text.len() == 7 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let fits = fits && !text.starts_with('-');
        let day = fits.then(|| format!("{text}-01").parse::<NaiveDate>().ok()).flatten();
        day.map(Self::from).ok_or(InvalidMonth)
    }
}

/// A text that is not a [`Month`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a month such as 2026-01")]
pub struct InvalidMonth;

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Month {
    /// The name of the file of a table for this month.
    pub(crate) fn key(self, table: Table) -> Key {
        Key::of_parts(format!("tables/{0}/month={self}/{0}.parquet", table.name()))
    }

    /// Its first and its last day.
    pub(crate) fn days(self) -> (NaiveDate, NaiveDate) {
        let first = NaiveDate::from_ymd_opt(self.year, self.month, 1).unwrap_or_default();
        let next = first.checked_add_months(chrono::Months::new(1)).and_then(|next| next.pred_opt());
        (first, next.unwrap_or(NaiveDate::MAX))
    }

    /// How the names of all objects of a kind begin that lie in this month.
    pub(crate) fn prefix(self, kind: Kind) -> String {
        format!("{kind}/{:04}/{:02}/", self.year, self.month)
    }
}

/// Months from one to another, both included; an absent end is unbounded. The first is never after the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Ends")]
pub struct Months {
    pub(crate) from: Option<Month>,
    pub(crate) to: Option<Month>,
}

/// The form of [`Months`] in the manifest, before it is checked.
#[derive(Deserialize)]
struct Ends {
    #[serde(default)]
    from: Option<Month>,
    #[serde(default)]
    to: Option<Month>,
}

impl TryFrom<Ends> for Months {
    type Error = String;

    fn try_from(Ends { from, to }: Ends) -> Result<Self, String> {
        Self::new(from, to).ok_or_else(|| "the first month is after the last".to_owned())
    }
}

impl Months {
    /// The months between two ends. Without `from` they begin with the earliest month in the archive, without `to` they end with
    /// the latest. Returns `None` if `from` is after `to`.
    #[must_use]
    pub fn new(from: Option<Month>, to: Option<Month>) -> Option<Self> {
        let is_reversed = from.zip(to).is_some_and(|(from, to)| from > to);
        (!is_reversed).then_some(Self { from, to })
    }

    /// Whether a month is one of them.
    #[must_use]
    pub fn contain(&self, month: Month) -> bool {
        self.from.is_none_or(|from| from <= month) && self.to.is_none_or(|to| month <= to)
    }

    /// Both, and what lies between them.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self {
            from: self.from.zip(other.from).map(|(one, other)| one.min(other)),
            to: self.to.zip(other.to).map(|(one, other)| one.max(other)),
        }
    }
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// Each event once, in its latest version.
    Events,
    /// Every version, in the order of the archive.
    Revisions,
}

impl Table {
    pub(crate) const ALL: [Self; 2] = [Self::Events, Self::Revisions];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Revisions => "revisions",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn month_is_read_as_it_is_written() {
        assert_eq!("2026-01".parse::<Month>().unwrap().to_string(), "2026-01");
        for text in ["", "2026-1", "2026-13", "2026-00", "+026-01", "2026-01-02", "2026/01", "202é-1"] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
        let [january, march, may] = ["2026-01", "2026-03", "2026-05"].map(|text| text.parse().unwrap());
        let months = |from, to| Months::new(Some(from), Some(to));
        let spring = months(march, may).unwrap();
        assert_eq!(months(may, march), None);
        assert!(spring.contain(march) && spring.contain(may) && !spring.contain(january));
        assert_eq!(spring.hull(months(january, january).unwrap()).from, Some(january));
        assert_eq!(spring.hull(Months::default()), Months::default());
        let key = "2026-01".parse::<Month>().unwrap().key(Table::Events);
        assert_eq!(key.as_str(), "tables/events/month=2026-01/events.parquet");
    }
}
