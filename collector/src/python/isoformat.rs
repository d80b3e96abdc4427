//! `datetime.fromisoformat`: which texts are dates, and what is wrong with the others.
//!
//! It takes far more than ISO 8601 has: any character between date and time, and some odd times.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc, Weekday};

use super::Exception;
use super::value::repr;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// A `datetime`, with an offset ("aware") or without ("naive").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    local: NaiveDateTime,
    /// East of Greenwich, in microseconds.
    offset: Option<i64>,
}

impl Moment {
    /// `datetime.fromisoformat(text)`.
    ///
    /// # Errors
    /// If the text is no date, or a number in it is out of range.
    pub(crate) fn parse(text: &str) -> Result<Self, Exception> {
        let invalid = || Exception::value(format!("Invalid isoformat string: {}", repr(text)));
        if text.chars().count() < 7 {
            return Err(invalid());
        }
        let bytes = text.as_bytes();
        let separator = find_separator(bytes).ok_or_else(invalid)?;
        let [year, month, day] = parse_date(bytes, separator).ok_or_else(invalid)?;
        let (time, offset) = if bytes.len() > separator {
            let width = match at(bytes, separator) {
                ..0x80 => 1,
                0xe0..0xf0 => 3,
                0xf0.. => 4,
                _ => 2,
            };
            parse_time(bytes.get(separator + width..).unwrap_or_default()).ok_or_else(invalid)?
        } else {
            (Time::default(), None)
        };
        let offset = offset.map(checked_offset).transpose()?;
        let local = checked_date(year, month, day)?.and_time(chrono::NaiveTime::MIN) + time.checked()?;
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
        let then = self.local.and_utc().timestamp_micros() - offset;
        Ok((now.timestamp_micros() - then).div_euclid(60 * MICROS_PER_SECOND))
    }
}

/// A byte, or 0 after the end.
fn at(bytes: &[u8], index: usize) -> u8 {
    bytes.get(index).copied().unwrap_or(0)
}

/// Where the date ends.
fn find_separator(text: &[u8]) -> Option<usize> {
    let length = text.len();
    if length == 7 {
        return Some(7);
    }
    match (at(text, 4), at(text, 5)) {
        (b'-', b'W') if length > 8 && at(text, 8) == b'-' => match length {
            9 => None,
            // Either 2026-W01-1 and a digit between date and time, or 2026-W01 and a hyphen.
            _ if at(text, 10).is_ascii_digit() => Some(8),
            _ => Some(10),
        },
        (b'-', b'W') => Some(8),
        (b'-', _) => Some(10),
        (b'W', _) => {
            let digits = text.iter().skip(7).take_while(|byte| byte.is_ascii_digit()).count();
            Some(match 7 + digits {
                end @ ..9 => end,
                end if end.is_multiple_of(2) => 7,
                _ => 8,
            })
        }
        _ => Some(8),
    }
}

/// Digits at a place, all of them ASCII.
fn digits(text: &[u8], start: usize, count: usize) -> Option<u32> {
    (start..start + count).try_fold(0, |value, index| {
        let digit = at(text, index);
        digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0'))
    })
}

/// Year, month and day as they are written, in range or not.
fn parse_date(text: &[u8], length: usize) -> Option<[u32; 3]> {
    let year = digits(text, 0, 4)?;
    let dashed = at(text, 4) == b'-';
    let dash = usize::from(dashed);
    let mut place = 4 + dash;
    if at(text, place) == b'W' {
        let week = digits(text, place + 1, 2)?;
        place += 3;
        let mut weekday = 1;
        if place < length {
            if dashed && at(text, place) != b'-' {
                return None;
            }
            weekday = digits(text, place + dash, 1)?;
        }
        return from_week(year, week, weekday);
    }
    let month = digits(text, place, 2)?;
    place += 2;
    if dashed && at(text, place) != b'-' {
        return None;
    }
    Some([year, month, digits(text, place + dash, 2)?])
}

fn from_week(year: u32, week: u32, weekday: u32) -> Option<[u32; 3]> {
    use chrono::Datelike as _;
    let weekday = Weekday::try_from(u8::try_from(weekday.checked_sub(1)?).ok()?).ok()?;
    let date = NaiveDate::from_isoywd_opt(i32::try_from(year).ok()?, week, weekday)?;
    // Python computes no month for weeks of the year 0.
    Some(if year == 0 { [1, 0, 0] } else { [u32::try_from(date.year()).ok()?, date.month(), date.day()] })
}

#[derive(Debug, Default, Clone, Copy)]
struct Time {
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
}

impl Time {
    fn micros(self) -> i64 {
        let seconds = self.hour * 3600 + self.minute * 60 + self.second;
        i64::from(seconds) * MICROS_PER_SECOND + i64::from(self.micros)
    }

    fn checked(self) -> Result<TimeDelta, Exception> {
        for (name, value, last) in
            [("hour", self.hour, 23), ("minute", self.minute, 59), ("second", self.second, 59)]
        {
            if value > last {
                return Err(Exception::value(format!("{name} must be in 0..{last}")));
            }
        }
        Ok(TimeDelta::microseconds(self.micros()))
    }
}

/// A time with or without an offset in microseconds.
fn parse_time(text: &[u8]) -> Option<(Time, Option<i64>)> {
    let zone = text.iter().position(|byte| matches!(byte, b'Z' | b'+' | b'-'));
    let (time, complete) = parse_clock(text, zone.unwrap_or(text.len()))?;
    let Some(zone) = zone else { return complete.then_some((time, None)) };
    if at(text, zone) == b'Z' {
        return (at(text, zone + 1) == 0).then_some((time, Some(0)));
    }
    let zone_text = text.get(zone + 1..).unwrap_or_default();
    let (offset, complete) = parse_clock(zone_text, zone_text.len())?;
    let sign = if at(text, zone) == b'-' { -1 } else { 1 };
    // Less than a second counts as nothing.
    let micros = if offset.micros() < MICROS_PER_SECOND { 0 } else { sign * offset.micros() };
    complete.then_some((time, Some(micros)))
}

/// `HH[:MM[:SS[.ffffff]]]`, colons or none, and whether it was all of the text.
fn parse_clock(text: &[u8], end: usize) -> Option<(Time, bool)> {
    let mut time = Time::default();
    let mut place = 0;
    let mut colons = true;
    for part in 0..3 {
        let value = digits(text, place, 2)?;
        match part {
            0 => time.hour = value,
            1 => time.minute = value,
            _ => time.second = value,
        }
        let next = at(text, place + 2);
        place += 3;
        if part == 0 {
            colons = next == b':';
        }
        match next {
            _ if place >= end => return Some((time, next == 0)),
            b':' if colons => {}
            b'.' | b',' => break,
            _ if colons => return None,
            _ => place -= 1,
        }
    }
    let count = (end - place).min(6);
    time.micros = digits(text, place, count)? * 10_u32.pow(6 - u32::try_from(count).ok()?);
    place += count;
    place += text.iter().skip(place).take_while(|byte| byte.is_ascii_digit()).count();
    Some((time, at(text, place) == 0))
}

fn checked_date(year: u32, month: u32, day: u32) -> Result<NaiveDate, Exception> {
    if !(1..=9999).contains(&year) {
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

fn checked_offset(micros: i64) -> Result<i64, Exception> {
    if micros.abs() < MICROS_PER_DAY {
        return Ok(micros);
    }
    let seconds = micros.rem_euclid(MICROS_PER_DAY) / MICROS_PER_SECOND;
    let parts = [
        ("days", micros.div_euclid(MICROS_PER_DAY)),
        ("seconds", seconds),
        ("microseconds", micros.rem_euclid(MICROS_PER_SECOND)),
    ];
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
    fn takes_what_python_takes() {
        for (text, age) in [
            ("2026-01-02T11:30:00.000000+00:00", 30),
            ("2026-01-02T11:29:59.999999Z", 30),
            ("2026-01-02 12:30:00.000001+01:00", 29),
            ("2026-01-02é12:00Z", 0),
            ("20260102T1200Z", 0),
            ("2026-W01-5T12Z", 0),
            ("2026W015T12,5Z", -1),
            ("2026W01T10Z", 4 * 1440 + 120),
            ("2026-01-02T12:00:00,123456789Z", -1),
            ("2026-01-02T12:00:00-23:59:59.999999", -1440),
        ] {
            assert_eq!(minutes(text), Ok(age), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, words) in [
            ("2026-01-02T", "Invalid isoformat string: '2026-01-02T'"),
            ("2026-1-2", "Invalid isoformat string: '2026-1-2'"),
            ("2026-01-02T12:00z", "Invalid isoformat string: '2026-01-02T12:00z'"),
            ("2026-W54-1", "Invalid isoformat string: '2026-W54-1'"),
            ("2026-02-29T00Z", "day is out of range for month"),
            ("2026-00-01T00Z", "month must be in 1..12"),
            ("0000-01-01T00Z", "year 0 is out of range"),
            ("9999-W52-7T00Z", "year 10000 is out of range"),
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
