//! The feed's own filters: what a call can ask for instead of everything.
//!
//! Source: <https://polisen.se/om-polisen/om-webbplatsen/oppna-data/api-over-polisens-handelser/>. Others found that the
//! answers are not always exact, so what comes back has to be checked ([`Selection::accepts`]).

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike as _, NaiveDate};
use reqwest::Url;
use thiserror::Error;

use crate::event::Fields;
use crate::text::{composed, is_same_ignoring_case};

/// A month, a day or an hour, in the feed's local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum When {
    /// A month; the day is its first.
    Month(NaiveDate),
    /// A day.
    Day(NaiveDate),
    /// An hour of a day, 0 to 23.
    Hour(NaiveDate, u8),
}

/// A text that names no month, day or hour.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a month, a day or an hour such as 2026-01, 2026-01-02 or `2026-01-02 21`")]
pub struct InvalidWhen;

impl FromStr for When {
    type Err = InvalidWhen;

    fn from_str(text: &str) -> Result<Self, InvalidWhen> {
        let date = |text: &str| {
            // chrono also takes a sign before the year.
            let is_written_out =
                text.len() == "2026-01-02".len() && text.starts_with(|first: char| first.is_ascii_digit());
            text.parse::<NaiveDate>().ok().filter(|_| is_written_out).ok_or(InvalidWhen)
        };
        if let Some((day, hour)) = text.split_once([' ', 'T']) {
            let digits = hour.len() <= 2 && hour.bytes().all(|byte| byte.is_ascii_digit());
            let hour = hour.parse().ok().filter(|hour| *hour < 24 && digits).ok_or(InvalidWhen)?;
            return Ok(Self::Hour(date(day)?, hour));
        }
        if text.len() == "2026-01".len() {
            return Ok(Self::Month(date(&format!("{text}-01"))?));
        }
        Ok(Self::Day(date(text)?))
    }
}

impl fmt::Display for When {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Month(day) => write!(formatter, "{:04}-{:02}", day.year(), day.month()),
            Self::Day(day) => write!(formatter, "{day}"),
            Self::Hour(day, hour) => write!(formatter, "{day} {hour:02}"),
        }
    }
}

impl When {
    fn contains(self, day: NaiveDate, hour: Option<u8>) -> bool {
        match self {
            Self::Month(first) => (first.year(), first.month()) == (day.year(), day.month()),
            Self::Day(wanted) => wanted == day,
            Self::Hour(wanted, at) => wanted == day && hour == Some(at),
        }
    }
}

/// What one call asks for. What is left empty may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selection {
    /// From this time.
    pub when: Option<When>,
    /// From one of these places, by name.
    pub locations: Vec<String>,
    /// Of one of these types.
    pub types: Vec<String>,
}

impl Selection {
    /// The address that asks for it.
    #[must_use]
    pub fn address(&self, feed: &Url) -> Url {
        let mut address = feed.clone();
        let wanted = [
            ("DateTime", self.when.map(|when| when.to_string())),
            ("locationname", (!self.locations.is_empty()).then(|| self.locations.join(";"))),
            ("type", (!self.types.is_empty()).then(|| self.types.join(";"))),
        ];
        for (name, value) in wanted {
            if let Some(value) = value {
                address.query_pairs_mut().append_pair(name, &composed(&value));
            }
        }
        // A blank as the provider's page writes it; a plus in a value is `%2B` already.
        let query = address.query().map(|query| query.replace('+', "%20"));
        address.set_query(query.as_deref());
        address
    }

    /// Whether an event is what was asked for. Letters are compared without their case.
    #[must_use]
    pub fn accepts(&self, day: NaiveDate, event: &Fields<'_>) -> bool {
        let is_one_of = |wanted: &[String], text: &str| {
            wanted.is_empty() || wanted.iter().any(|one| is_same_ignoring_case(one, text))
        };
        self.when.is_none_or(|when| when.contains(day, event.hour()))
            && is_one_of(&self.locations, &event.location)
            && is_one_of(&self.types, &event.kind)
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = self.when.map(|when| when.to_string());
        let parts = [when.as_slice(), &self.locations, &self.types].concat();
        formatter.write_str(&if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(when: &str, locations: &[&str], types: &[&str]) -> Selection {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Selection { when: when.parse().ok(), locations: owned(locations), types: owned(types) }
    }

    #[test]
    fn addresses_are_those_of_the_providers_page() {
        let feed: Url = "https://polisen.se/api/events".parse().unwrap();
        let address = |selection: Selection| selection.address(&feed).to_string();
        assert_eq!(address(Selection::default()), "https://polisen.se/api/events");
        assert_eq!(
            address(selection("2026-01-02 21", &["Stockholm", "Järfälla"], &["Trafikolycka, vilt"])),
            "https://polisen.se/api/events?DateTime=2026-01-02%2021&locationname=Stockholm%3BJ%C3%A4rf%C3%A4lla\
             &type=Trafikolycka%2C%20vilt"
        );
        assert_eq!(
            address(selection("2026-01", &[], &["a+b"])).split('?').nth(1),
            Some("DateTime=2026-01&type=a%2Bb")
        );
    }

    #[test]
    fn times_are_read_strictly() {
        for wrong in [
            "",
            "2026",
            "2026-13",
            "2026-1-2",
            "2026-02-30",
            "2026-01-02 24",
            "2026-01-02 +1",
            "-226-01-02",
            "+226-01-02",
            "x",
        ] {
            assert_eq!(wrong.parse::<When>(), Err(InvalidWhen), "{wrong}");
        }
        for right in ["2026-01", "2026-01-02", "2026-01-02 09"] {
            assert_eq!(right.parse::<When>().unwrap().to_string(), right);
        }
    }

    #[test]
    fn an_hour_of_one_digit_is_the_same_hour() {
        let event = Fields::of(
            r#"{"id":1,"datetime":"2026-01-02 9:38:09 +01:00","type":"Brand","location":{"name":"Falun"}}"#,
        )
        .unwrap();
        let day = "2026-01-02".parse().unwrap();
        assert!(selection("2026-01-02 09", &["FALUN"], &["Rån", "brand"]).accepts(day, &event));
        assert!(!selection("2026-01-02 10", &[], &[]).accepts(day, &event));
        assert!(!selection("2026-02", &[], &[]).accepts(day, &event));
        assert!(!selection("2026-01", &["Fal"], &[]).accepts(day, &event));
    }
}
