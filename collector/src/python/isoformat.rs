//! `datetime.fromisoformat` of what `datetime.isoformat` writes, and what is wrong with other texts.
//!
//! Left out: compact dates (`20260102`), dates by week (`2026-W01-5`) and fractions of hours and minutes, which Python 3.11
//! takes as well. No collector writes them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

use super::Exception;
use super::value::repr;

const DAY_S: i64 = 86_400;
/// Length of a date, in characters.
const DATE_CHARS: usize = 10;

/// A `datetime`, with an offset ("aware") or without ("naive").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    local: NaiveDateTime,
    /// East of Greenwich.
    offset: Option<TimeDelta>,
}

impl Moment {
    /// `datetime.fromisoformat(text)`: `2026-01-02`, any character, `12:00`, `12:00:00` or `12:00:00.123456`, and an offset.
    ///
    /// # Errors
    /// If the text is not a date, or a number in it is out of range.
    pub(crate) fn parse(text: &str) -> Result<Self, Exception> {
        let invalid = || Exception::value(format!("Invalid isoformat string: {}", repr(text)));
        let (date, time) = match text.char_indices().nth(DATE_CHARS) {
            Some((at, separator)) => (&text[..at], Some(&text[at + separator.len_utf8()..])),
            None => (text, None),
        };
        let date = date_fields(date).ok_or_else(invalid)?;
        let (time, offset) = match time {
            Some(time) => time_and_offset(time).ok_or_else(invalid)?,
            None => (Clock::default(), None),
        };
        let offset = offset.map(checked_offset).transpose()?;
        let local = checked_date(date)?.and_time(NaiveTime::MIN) + time.checked()?;
        Ok(Self { local, offset })
    }

    /// Whole minutes from then till `now`, rounded down.
    ///
    /// # Errors
    /// If it has no offset.
    pub(crate) fn minutes_till(self, now: DateTime<Utc>) -> Result<i64, Exception> {
        let offset = self
            .offset
            .ok_or_else(|| Exception::other("can't subtract offset-naive and offset-aware datetimes"))?;
        let passed = now.naive_utc() - self.local + offset;
        Ok(passed.num_microseconds().unwrap_or(i64::MAX).div_euclid(60_000_000))
    }
}

/// Parses a number with exactly the given number of digits.
fn number(text: &str, digits: usize) -> Option<u32> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// Year, month and day as they are written, in range or not.
fn date_fields(text: &str) -> Option<[u32; 3]> {
    let mut fields = text.split('-');
    let mut field = |digits| number(fields.next()?, digits);
    let date = [field(4)?, field(2)?, field(2)?];
    fields.next().is_none().then_some(date)
}

/// A time of day or an offset, as it is written.
#[derive(Debug, Default, Clone, Copy)]
struct Clock {
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
}

impl Clock {
    /// `HH[:MM[:SS[.ffffff]]]`
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(':');
        let hour = number(fields.next()?, 2)?;
        let minute = fields.next().map_or(Some(0), |minute| number(minute, 2))?;
        let (second, micros) = match fields.next() {
            Some(field) => match field.split_once(['.', ',']) {
                Some((second, fraction)) => (number(second, 2)?, micros(fraction)?),
                None => (number(field, 2)?, 0),
            },
            None => (0, 0),
        };
        fields.next().is_none().then_some(Self { hour, minute, second, micros })
    }

    fn length(self) -> TimeDelta {
        let seconds = self.hour * 3600 + self.minute * 60 + self.second;
        TimeDelta::seconds(seconds.into()) + TimeDelta::microseconds(self.micros.into())
    }

    fn checked(self) -> Result<TimeDelta, Exception> {
        for (name, value, last) in
            [("hour", self.hour, 23), ("minute", self.minute, 59), ("second", self.second, 59)]
        {
            if value > last {
                return Err(Exception::value(format!("{name} must be in 0..{last}")));
            }
        }
        Ok(self.length())
    }
}

/// Digits behind a point as microseconds; those beyond the sixth are dropped.
fn micros(fraction: &str) -> Option<u32> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    Some(digits.fold(0, |micros, digit| micros * 10 + u32::from(digit - b'0')))
}

fn time_and_offset(text: &str) -> Option<(Clock, Option<TimeDelta>)> {
    let Some(at) = text.find(['Z', '+', '-']) else { return Some((Clock::parse(text)?, None)) };
    let (time, zone) = text.split_at(at);
    let offset = match zone.split_at(1) {
        ("Z", "") => TimeDelta::zero(),
        ("+", offset) => Clock::parse(offset)?.length(),
        ("-", offset) => -Clock::parse(offset)?.length(),
        _ => return None,
    };
    Some((Clock::parse(time)?, Some(offset)))
}

fn checked_date([year, month, day]: [u32; 3]) -> Result<NaiveDate, Exception> {
    if year == 0 {
        return Err(Exception::value(format!("year {year} is out of range")));
    }
    if !(1..=12).contains(&month) {
        return Err(Exception::value("month must be in 1..12"));
    }
    i32::try_from(year)
        .ok()
        .and_then(|year| NaiveDate::from_ymd_opt(year, month, day))
        .ok_or_else(|| Exception::value("day is out of range for month"))
}

fn checked_offset(offset: TimeDelta) -> Result<TimeDelta, Exception> {
    let seconds = offset.num_seconds();
    if seconds.abs() < DAY_S {
        return Ok(offset);
    }
    let parts = [("days", seconds.div_euclid(DAY_S)), ("seconds", seconds.rem_euclid(DAY_S))];
    let parts = parts.into_iter().filter(|(_, value)| *value != 0);
    let parts: Vec<_> = parts.map(|(name, value)| format!("{name}={value}")).collect();
    Err(Exception::value(format!(
        "offset must be a timedelta strictly between -timedelta(hours=24) and timedelta(hours=24), not \
         datetime.timedelta({}).",
        parts.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, TimeZone as _};
    use proptest::prelude::*;

    use super::*;

    fn minutes(text: &str) -> Result<i64, String> {
        let now = Utc.with_ymd_and_hms(2026, 1, 2, 12, 0, 0).unwrap();
        Moment::parse(text).and_then(|moment| moment.minutes_till(now)).map_err(|error| error.message)
    }

    #[test]
    fn what_isoformat_writes_is_read() {
        for (text, age) in [
            ("2026-01-02T11:30:00.000000+00:00", 30),
            ("2026-01-02T11:29:59.999999Z", 30),
            ("2026-01-02 12:30:00.000001+01:00", 29),
            ("2026-01-02é12:00Z", 0),
            ("2026-01-02T12Z", 0),
            ("2026-01-02T12:00:00,123456789Z", -1),
            ("2026-01-02T12:00:00-23:59:59.999999", -1440),
        ] {
            assert_eq!(minutes(text), Ok(age), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_in_pythons_words() {
        for (text, words) in [
            ("2026-01-02T", "Invalid isoformat string: '2026-01-02T'"),
            ("2026-1-2", "Invalid isoformat string: '2026-1-2'"),
            ("2026-01-02T12:00z", "Invalid isoformat string: '2026-01-02T12:00z'"),
            ("2026-W01-1", "Invalid isoformat string: '2026-W01-1'"),
            ("2026-01-02T12:00:00.Z", "Invalid isoformat string: '2026-01-02T12:00:00.Z'"),
            ("2026-02-29T00Z", "day is out of range for month"),
            ("2026-00-01T00Z", "month must be in 1..12"),
            ("0000-01-01T00Z", "year 0 is out of range"),
            ("2026-01-01T24:00Z", "hour must be in 0..23"),
            ("2026-01-01T23:60Z", "minute must be in 0..59"),
            ("2026-01-01T23:59:60Z", "second must be in 0..59"),
            ("2026-01-02", "can't subtract offset-naive and offset-aware datetimes"),
        ] {
            assert_eq!(minutes(text), Err(words.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_time_is_read_as_the_same(micros in 0..250_000_000_000_000_000_i64, offset in -86_399..86_400) {
            let written = Utc.timestamp_micros(micros - 60_000_000_000_000_000).unwrap();
            let there = written.with_timezone(&FixedOffset::east_opt(offset).unwrap());
            let text = there.format("%Y-%m-%dT%H:%M:%S%.6f%::z").to_string();
            let moment = Moment::parse(&text).unwrap();
            prop_assert_eq!(moment.minutes_till(written), Ok(0), "{}", text);
            prop_assert_eq!(moment.minutes_till(written - TimeDelta::microseconds(1)), Ok(-1));
        }

        #[test]
        fn any_text_gets_an_answer(text in "[0-9WTZé:.,+-]{0,30}|\\PC*", cut in 0..40_usize) {
            let _ = minutes(&text);
            let nearly: String = "2026-01-02T12:34:56.123456+00:00".chars().take(cut).chain(text.chars()).collect();
            let _ = minutes(&nearly);
        }
    }
}
