//! The rows of the tables: versions of events, and events made of them.

use std::cmp::Ordering;
use std::collections::HashSet;

use chrono::{DateTime, NaiveDate};
use parquet::data_type::ByteArray;

use super::Month;
use super::file::Cell;
use crate::archive::{Kind, Place};
use crate::event::{self, EventId, LocalTime, Values, local_time};
use crate::store::Key;

const MICROS: i64 = 1_000_000;

/// A version of an event: one line of the archive.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) id: EventId,
    /// Microseconds since 1970, UTC.
    pub(super) datetime: i64,
    /// The same of the local time.
    pub(super) local_datetime: i64,
    pub(super) utc_offset_minutes: i32,
    /// Days since 1970.
    pub(super) date: i32,
    /// `name`, `summary`, `url`, `type` and the name of the location.
    pub(super) texts: [Option<ByteArray>; 5],
    pub(super) lat: Option<f64>,
    pub(super) lon: Option<f64>,
    /// Microseconds since 1970, UTC: when the run began that stored it.
    pub(super) seen_at: i64,
    pub(super) raw: ByteArray,
    /// The name of the object.
    pub(super) object: ByteArray,
    /// The number of the line in it, from 1.
    pub(super) number: i32,
}

/// What an object holds.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) found: Vec<Line>,
    pub(super) odd_values: u64,
    pub(super) unreadable: u64,
}

impl Lines {
    /// The versions of events in an object.
    pub(super) fn of(key: &Key, bytes: &[u8]) -> Self {
        let mut found = Self::default();
        let (object, seen_at) = (ByteArray::from(key.as_str()), seen_at(key));
        let numbered = (1_i32..).zip(bytes.split(|&byte| byte == b'\n'));
        for (number, raw) in numbered.filter(|(_, raw)| !raw.is_empty()) {
            let Some((line, odd)) = Line::new(raw, object.clone(), number, seen_at) else {
                found.unreadable += 1;
                continue;
            };
            found.odd_values += odd;
            found.found.push(line);
        }
        found
    }
}

/// When the run began that wrote an object, in microseconds since 1970, UTC.
pub(super) fn seen_at(key: &Key) -> i64 {
    key.run().0.saturating_mul(MICROS)
}

impl Line {
    /// The version in a line, and how many of its values are of another type than expected.
    pub(super) fn new(raw: &[u8], object: ByteArray, line: i32, seen_at: i64) -> Option<(Self, u64)> {
        event::parse_line(raw).ok()?;
        let values = Values::of(std::str::from_utf8(raw).ok()?).ok()?;
        let (id, datetime) = values.id_and_datetime();
        let LocalTime { day, micros, offset_minutes } = local_time(datetime)?;
        let [texts @ .., gps] = values.texts();
        let place = gps.and_then(coordinates);
        let odd = values.odd as u64 + u64::from(gps.is_some_and(|gps| !gps.is_empty() && place.is_none()));
        let date = days_since_1970(day);
        let local_datetime = i64::from(date) * 86_400 * MICROS + micros;
        let line = Self {
            id,
            datetime: local_datetime - i64::from(offset_minutes) * 60 * MICROS,
            local_datetime,
            utc_offset_minutes: offset_minutes,
            date,
            texts: texts.map(|text| text.map(ByteArray::from)),
            lat: place.map(|(lat, _)| lat),
            lon: place.map(|(_, lon)| lon),
            seen_at,
            raw: ByteArray::from(raw.to_vec()),
            object,
            number: line,
        };
        Some((line, odd))
    }

    pub(super) fn is_revision(&self) -> bool {
        self.object.data().starts_with(b"revisions/")
    }

    /// The name of its object, and the place that it states.
    pub(super) fn object(&self) -> Option<(Key, Place)> {
        let key = Key::new(self.object.as_utf8().ok()?).ok()?;
        let place = Place::of(key.as_str())?;
        Some((key, place))
    }

    /// Versions in the order in which they were seen. An event comes before its versions.
    fn order_seen(&self, other: &Self) -> Ordering {
        let ordinal = |line: &Self| line.object().map_or(0, |(key, _)| key.run().1);
        (self.seen_at, self.is_revision(), ordinal(self), self.number).cmp(&(
            other.seen_at,
            other.is_revision(),
            ordinal(other),
            other.number,
        ))
    }

    fn content_cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let texts = self.texts.iter().map(|text| text.as_ref().map_or(Cell::Null, Cell::Text));
        let time = [
            Cell::Int64(self.id),
            Cell::Int64(self.datetime),
            Cell::Int64(self.local_datetime),
            Cell::Int32(self.utc_offset_minutes),
            Cell::Int32(self.date),
        ];
        let place = [self.lat, self.lon].map(|value| value.map_or(Cell::Null, Cell::Double));
        time.into_iter().chain(texts).chain(place)
    }

    /// Its row in the table of revisions.
    pub(super) fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let rest = [
            Cell::Int64(self.seen_at),
            Cell::Text(&self.raw),
            Cell::Text(&self.object),
            Cell::Int32(self.number),
        ];
        self.content_cells().chain(rest)
    }
}

/// An event in its latest version.
#[derive(Debug, Clone)]
pub(super) struct EventRow {
    pub(super) latest: Line,
    first_seen: i64,
    versions: i32,
    pub(super) month: Option<Month>,
}

impl EventRow {
    /// The event of these versions; nothing if none of them stands under `events/`.
    pub(super) fn new(mut lines: Vec<Line>) -> Option<Self> {
        if lines.iter().all(Line::is_revision) {
            return None;
        }
        if lines.len() > 1 {
            lines.sort_by(Line::order_seen);
            let mut contents = HashSet::new();
            lines.retain(|line| contents.insert(event::content(line.raw.data())));
        }
        let (first_seen, versions) = (lines.first()?.seen_at, i32::try_from(lines.len()).ok()?);
        let latest = lines.pop()?;
        let month = latest.object().map(|(_, place)| Month::from(place.day));
        Some(Self { latest, first_seen, versions, month })
    }

    /// Its row in the table of events.
    pub(super) fn cells(&self, withdrawn: Option<i64>) -> impl Iterator<Item = Cell<'_>> {
        let withdrawn = withdrawn.map_or(Cell::Null, |at| Cell::Int64(at.saturating_mul(MICROS)));
        let rest = [
            Cell::Int64(self.first_seen),
            Cell::Int32(self.versions),
            withdrawn,
            Cell::Text(&self.latest.raw),
        ];
        self.latest.content_cells().chain(rest)
    }
}

/// Where objects stand in the archive: by day, events before revisions.
pub(super) fn rank(place: Place, key: &Key) -> (NaiveDate, Kind, Key) {
    (place.day, place.kind, key.clone())
}

fn days_since_1970(day: NaiveDate) -> i32 {
    let days = day.signed_duration_since(DateTime::UNIX_EPOCH.date_naive()).num_days();
    i32::try_from(days).unwrap_or_default()
}

/// Latitude and longitude, as in `59.329324,18.068581`.
fn coordinates(text: &str) -> Option<(f64, f64)> {
    let (lat, lon) = text.split_once(',')?;
    let number = |text: &str| text.trim().parse().ok().filter(|number: &f64| number.is_finite());
    Some((number(lat)?, number(lon)?))
}
