//! Reads one record, of this collector or of the documented one.
//!
//! The only reader: reports, the service, packing and the documented report go through it. Only a record's time is required.
//! Members that no quantity has are passed over.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::run_record::{ErrorEntry, RunRecord, Status};
use crate::quantity::{Quantities, Quantity, Section, Unit};
use crate::text::ParseError;

/// 2000-01-01: a machine without a battery-backed clock starts in 1970.
const EARLIEST: i64 = 946_684_800;

impl RunRecord {
    /// Reads a record. `now` shows whose clock was wrong.
    ///
    /// # Errors
    /// Why the text is not a record.
    pub fn parse(text: &[u8], now: DateTime<Utc>) -> Result<Self, ParseError> {
        let members: Members = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let start = members.start()?;
        if start.timestamp() < EARLIEST || start > now + TimeDelta::days(1) {
            return Err(format!("its clock was wrong: {}", start.format("%Y-%m-%d %H:%M")).into());
        }
        let has_failed = match &members.status {
            Some(status) => status != "success",
            // The documented collector does not state it.
            None => !members.errors.is_empty(),
        };
        let mut record = Self::new(start);
        record.status = if has_failed { Status::Failed } else { Status::Success };
        record.left_to = members.left_to;
        record.quantities.extend(&members.quantities);
        record.end = record.start_and_total_time();
        record.errors = members.errors.into_iter().map(ErrorEntry::from).collect();
        record.derive();
        Ok(record)
    }
}

/// What is read of a record.
#[derive(Default)]
struct Members {
    start_time: Option<f64>,
    timestamp: Option<String>,
    status: Option<String>,
    left_to: Option<String>,
    errors: Vec<RawError>,
    quantities: Quantities,
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
impl Members {
    /// By the timestamp: the documented collector's `start_time` counts from when its machine was started.
    fn start(&self) -> Result<DateTime<Utc>, String> {
        let Some(text) = self.timestamp.as_deref() else {
            let seconds = self.start_time.ok_or("it does not say when the run was")?;
            let start = DateTime::from_timestamp_micros((seconds * 1e6) as i64);
            return start.ok_or_else(|| format!("its start_time is {seconds}"));
        };
        let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        let local = || text.parse::<NaiveDateTime>().map(|time| time.and_utc());
        zoned.or_else(|_| local()).map_err(|_| format!("its timestamp is `{text}`"))
    }

    fn reader(&mut self, section: Section) -> SectionReader<'_> {
        SectionReader { section, quantities: &mut self.quantities }
    }

    /// What follows from what was read, of records of earlier versions and of the documented collector.
    fn complete(&mut self) {
        let quantities = &mut self.quantities;
        if quantities.get(Quantity::ApiResponseBytes).is_none()
            && let Some(kib) = quantities.get(Quantity::ApiResponseKb)
        {
            quantities.set(Quantity::ApiResponseBytes, kib * 1024.0);
        }
        // Such a run compared nothing, and earlier versions wrote 0.
        if self.left_to.is_some() && !quantities.is_set(Quantity::BufferOverlap) {
            quantities.remove(Quantity::BufferOverlap);
        }
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RecordVisitor)
    }
}

struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = Members;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the record of a run")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Members::default();
        while let Some(Key(key)) = map.next_key()? {
            match &*key {
                "start_time" => members.start_time = map.next_value()?,
                "timestamp" => members.timestamp = map.next_value()?,
                "status" => members.status = map.next_value()?,
                "left_to" => members.left_to = map.next_value()?,
                "errors" => members.errors = map.next_value()?,
                "timings" => map.next_value_seed(members.reader(Section::Timings))?,
                "counts" => map.next_value_seed(members.reader(Section::Counts))?,
                "process" => map.next_value_seed(members.reader(Section::Process))?,
                "http" => map.next_value_seed(members.reader(Section::Http))?,
                key => {
                    let quantity = find(Section::Record, key, 0);
                    read_value(&mut map, quantity, &mut members.quantities)?;
                }
            }
        }
        members.complete();
        Ok(members)
    }
}

/// Reads a section into the quantities.
struct SectionReader<'a> {
    section: Section,
    quantities: &'a mut Quantities,
}

impl<'de> DeserializeSeed<'de> for SectionReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SectionReader<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of quantities")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut first = 0;
        while let Some(Key(key)) = map.next_key()? {
            let quantity = find(self.section, &key, first);
            first = quantity.map_or(first, |quantity| quantity as usize + 1);
            read_value(&mut map, quantity, self.quantities)?;
        }
        Ok(())
    }
}

/// The quantity of a key. Keys mostly come in the order of the quantities, so that the search begins behind the last one.
fn find(section: Section, key: &str, first: usize) -> Option<Quantity> {
    let (before, after) = Quantity::ALL.split_at(first.min(Quantity::ALL.len()));
    after.iter().chain(before).copied().find(|quantity| {
        let definition = quantity.definition();
        definition.section == section && definition.key == key
    })
}

fn read_value<'de, A: MapAccess<'de>>(
    map: &mut A,
    quantity: Option<Quantity>,
    quantities: &mut Quantities,
) -> Result<(), A::Error> {
    let Some(quantity) = quantity else {
        map.next_value::<IgnoredAny>()?;
        return Ok(());
    };
    if quantity.unit() == Unit::Share {
        quantities.set(quantity, map.next_value::<Option<bool>>()?.unwrap_or(false));
    } else if let Some(value) = map.next_value::<Option<f64>>()? {
        quantities.set(quantity, value);
    }
    Ok(())
}

/// A name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct RawError {
    #[serde(rename = "type")]
    kind: Option<String>,
    message: Option<String>,
    timestamp: Option<String>,
}

impl From<RawError> for ErrorEntry {
    fn from(RawError { kind, message, timestamp }: RawError) -> Self {
        Self {
            kind: kind.unwrap_or_else(|| "unknown".to_owned()),
            message: message.unwrap_or_default(),
            timestamp: timestamp.unwrap_or_default(),
        }
    }
}
