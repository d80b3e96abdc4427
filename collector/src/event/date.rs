//! Reads the feed's `datetime`: the event's local day and time, as the text states them with their offset.

use chrono::NaiveDate;

/// A `datetime`, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// The local day.
    pub day: NaiveDate,
    /// The local time since midnight, in microseconds.
    pub micros: i64,
    /// How far local time is ahead of UTC, in minutes.
    pub offset_minutes: i32,
}

/// The local day of a `datetime` such as `2026-01-02 9:38:09 +01:00`, or nothing if it is none.
///
/// The feed writes a one-digit hour before ten. `T` as separator, a fraction of a second, no space before
/// the offset, `Z` and `+0100` are taken as well, since they are as clear. A day or time that does not
/// exist, and a time without an offset, is no `datetime`.
#[must_use]
pub fn local_day(text: &str) -> Option<NaiveDate> {
    local_time(text).map(|time| time.day)
}

/// The local day and time of such a `datetime`. A fraction of a second is cut to microseconds.
#[must_use]
pub fn local_time(text: &str) -> Option<LocalTime> {
    let mut rest = Cursor(text.as_bytes());
    let year = rest.digits(4, 4)?;
    rest.byte(b"-")?;
    let month = rest.digits(2, 2)?;
    rest.byte(b"-")?;
    let day = rest.digits(2, 2)?;
    rest.byte(b" T")?;
    let hour = rest.digits(1, 2)?;
    rest.byte(b":")?;
    let minute = rest.digits(2, 2)?;
    rest.byte(b":")?;
    let second = rest.digits(2, 2)?;
    let mut micros = 0;
    if rest.byte(b".").is_some() {
        let length = rest.0.len();
        let fraction = rest.digits(1, 9)?;
        let digits = u32::try_from(length - rest.0.len()).ok()?;
        micros = i64::from(fraction) * 1_000_000 / 10_i64.pow(digits);
    }
    let _ = rest.byte(b" ");
    let offset_minutes = rest.offset()?;
    let exists = rest.0.is_empty() && hour < 24 && minute < 60 && second <= 60;
    let day = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day).filter(|_| exists)?;
    let micros = i64::from(hour * 3_600 + minute * 60 + second) * 1_000_000 + micros;
    Some(LocalTime { day, micros, offset_minutes })
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn byte(&mut self, choices: &[u8]) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        if !choices.contains(&first) {
            return None;
        }
        self.0 = rest;
        Some(first)
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<u32> {
        let count = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
    }

    fn offset(&mut self) -> Option<i32> {
        if self.byte(b"Zz").is_some() {
            return Some(0);
        }
        let sign = if self.byte(b"+-")? == b'-' { -1 } else { 1 };
        let hours = self.digits(2, 2)?;
        let _ = self.byte(b":");
        let minutes = self.digits(2, 2)?;
        let total = i32::try_from(hours * 60 + minutes).ok()?;
        (hours < 24 && minutes < 60).then_some(sign * total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_feed_writes() {
        for (text, day) in [
            ("2026-01-02 19:56:53 +01:00", "2026-01-02"),
            ("2026-01-02 9:38:09 +01:00", "2026-01-02"),
            ("2026-07-02 0:05:09 +02:00", "2026-07-02"),
            ("2024-02-29 23:59:59 +01:00", "2024-02-29"),
            ("2026-01-02T09:38:09.123+0100", "2026-01-02"),
            ("2026-01-02T09:38:09Z", "2026-01-02"),
        ] {
            assert_eq!(local_day(text).map(|found| found.to_string()).as_deref(), Some(day), "{text}");
        }
    }

    #[test]
    fn time_and_offset_are_read_as_written() {
        let read = |text: &str| local_time(text).map(|it| (it.micros, it.offset_minutes)).unwrap();
        assert_eq!(read("2026-01-02 9:38:09 +01:00"), ((9 * 3_600 + 38 * 60 + 9) * 1_000_000, 60));
        assert_eq!(read("2026-01-02T00:00:00.5Z"), (500_000, 0));
        assert_eq!(read("2026-01-02 00:00:01.123456789 -0330"), (1_123_456, -210));
        assert_eq!(read("2016-12-31 23:59:60 +00:00"), (86_400 * 1_000_000, 0));
    }

    #[test]
    fn refuses_what_does_not_exist_or_is_unclear() {
        for text in [
            "",
            "2026-02-30 10:00:00 +01:00",
            "2025-02-29 10:00:00 +01:00",
            "2026-13-01 10:00:00 +01:00",
            "2026-01-02 24:00:00 +01:00",
            "2026-01-02 10:60:00 +01:00",
            "2026-01-02 10:00:61 +01:00",
            "2026-01-02 10:00:00",
            "2026-01-02 10:00:00 +1:00",
            "2026-01-02 10:00:00 +24:00",
            "2026-01-02 10:00:00 +01:00 ",
            "2026-1-2 10:00:00 +01:00",
            "02026-01-02 10:00:00 +01:00",
            "2026-01-02",
            "igår 10:00:00 +01:00",
        ] {
            assert_eq!(local_day(text), None, "{text}");
        }
    }
}
