//! Makes the files of a month: the table of revisions from the one before and new objects, the table of events from it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDate, NaiveTime};
use futures_util::stream::{Stream, StreamExt as _};
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use rustc_hash::{FxHashMap, FxHashSet};

use super::file::{Built, Reader, Writer};
use super::line::{EventRow, Line, Lines, rank};
use super::manifest::{MonthEntry, Withdrawal};
use super::month::Table;
use super::{Month, TablesError};
use crate::archive::{Kind, Place};
use crate::event::EventId;
use crate::store::{Key, Listed};

/// Lines of events that are stored in several months or days.
pub(super) type Elsewhere = FxHashMap<EventId, Vec<Line>>;

/// An object of the archive that was read.
pub(super) type ObjectRead = std::result::Result<(Key, Place, Vec<u8>), TablesError>;

impl Reader {
    /// The lines of a table of revisions, group by group.
    pub(super) fn lines(&self) -> impl Iterator<Item = Result<Vec<Line>>> + '_ {
        (0..self.groups()).map(|group| self.lines_of(group))
    }

    fn lines_of(&self, group: usize) -> Result<Vec<Line>> {
        let group = self.group(group)?;
        let [ids, datetimes, locals, seen] =
            ["id", "datetime", "local_datetime", "seen_at"].map(|column| group.int64s(column));
        let (ids, datetimes, locals, seen) = (ids?, datetimes?, locals?, seen?);
        let [offsets, dates, numbers] =
            ["utc_offset_minutes", "date", "line"].map(|column| group.int32s(column));
        let (offsets, dates, numbers) = (offsets?, dates?, numbers?);
        let (lats, lons) = (group.doubles("lat")?, group.doubles("lon")?);
        let (raws, objects) = (group.required_texts("raw")?, group.required_texts("object")?);
        let mut texts = Vec::new();
        for column in ["name", "summary", "url", "type", "location_name"] {
            texts.push(group.texts(column)?);
        }
        let line = |at: usize| Line {
            id: ids[at],
            datetime: datetimes[at],
            local_datetime: locals[at],
            utc_offset_minutes: offsets[at],
            date: dates[at],
            texts: std::array::from_fn(|column| texts[column][at].clone()),
            lat: lats[at],
            lon: lons[at],
            seen_at: seen[at],
            raw: raws[at].clone(),
            object: objects[at].clone(),
            number: numbers[at],
        };
        Ok((0..group.rows).map(line).collect())
    }
}

/// A table of revisions that was made.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) built: Built,
    /// Everything of the month's entry but the files.
    pub(super) entry: MonthEntry,
}

/// Writes lines in the order of their objects, and keeps account of them.
struct MirrorWriter {
    writer: Writer,
    entry: MonthEntry,
    last_object: ByteArray,
    events: FxHashSet<EventId>,
    revisions: BTreeSet<EventId>,
}

impl MirrorWriter {
    fn push(&mut self, line: &Line) -> Result<()> {
        if self.entry.objects == 0 || line.object != self.last_object {
            self.last_object = line.object.clone();
            self.entry.first_id = if self.entry.objects == 0 { line.id } else { self.entry.first_id };
            self.entry.last_id = if self.entry.objects == 0 { line.id } else { self.entry.last_id };
            self.entry.objects += 1;
        }
        self.entry.first_id = self.entry.first_id.min(line.id);
        self.entry.last_id = self.entry.last_id.max(line.id);
        if line.is_revision() {
            self.revisions.insert(line.id);
        } else {
            self.events.insert(line.id);
        }
        self.writer.push(line.cells())?;
        Ok(())
    }

    fn push_object(&mut self, key: &Key, bytes: &[u8]) -> Result<()> {
        let Lines { found, odd_values, unreadable } = Lines::of(key, bytes);
        self.entry.odd_values += odd_values;
        self.entry.unreadable += unreadable;
        found.iter().try_for_each(|line| self.push(line))
    }
}

/// Makes a table of revisions of an earlier one and the objects that are not in it, in the order of the archive.
pub(super) async fn mirror(
    before: Option<(&Reader, &MonthEntry)>,
    objects: impl Stream<Item = ObjectRead>,
) -> std::result::Result<Mirror, TablesError> {
    let mut made = MirrorWriter {
        writer: Writer::new(Table::Revisions)?,
        entry: MonthEntry::default(),
        last_object: ByteArray::default(),
        events: FxHashSet::default(),
        revisions: BTreeSet::new(),
    };
    if let Some((_, entry)) = before {
        (made.entry.odd_values, made.entry.unreadable) = (entry.odd_values, entry.unreadable);
    }
    let mut objects = std::pin::pin!(objects.peekable());
    let mut known = ByteArray::default();
    for lines in before.iter().flat_map(|(reader, _)| reader.lines()) {
        for line in lines? {
            if line.object != known {
                known = line.object.clone();
                let at = line.object().map(|(key, place)| rank(place, &key));
                let precedes = |object: &ObjectRead| match object {
                    Ok((key, place, _)) => at.as_ref().is_none_or(|at| rank(*place, key) <= *at),
                    Err(_) => true,
                };
                while let Some(object) = objects.as_mut().next_if(precedes).await {
                    let (key, _, bytes) = object?;
                    if key.as_str().as_bytes() != known.data() {
                        made.push_object(&key, &bytes)?;
                    }
                }
            }
            made.push(&line)?;
        }
    }
    while let Some(object) = objects.next().await {
        let (key, _, bytes) = object?;
        made.push_object(&key, &bytes)?;
    }
    let MirrorWriter { writer, mut entry, events, revisions, .. } = made;
    entry.strays = revisions.into_iter().filter(|id| !events.contains(id)).collect();
    let built = writer.finish()?;
    entry.revisions = built.entry.clone();
    Ok(Mirror { built, entry })
}

/// The objects whose lines are not in a table of revisions.
pub(super) fn without_known(reader: &Reader, mut objects: Vec<Listed>) -> Result<Vec<Listed>> {
    let mut known = FxHashSet::default();
    for group in 0..reader.groups() {
        for object in reader.group(group)?.required_texts("object")?.chunk_by(|one, other| one == other) {
            known.insert(object[0].data().to_vec());
        }
    }
    objects.retain(|listed| !known.contains(listed.key.as_str().as_bytes()));
    Ok(objects)
}

/// The lines of these events in a table of revisions.
pub(super) fn lines_of(reader: &Reader, wanted: &BTreeSet<EventId>, found: &mut Elsewhere) -> Result<()> {
    for lines in reader.lines() {
        for line in lines? {
            if wanted.contains(&line.id) {
                found.entry(line.id).or_default().push(line);
            }
        }
    }
    Ok(())
}

/// Ids of events with a version in another day than their own: those cannot be put together day by day.
fn moved(reader: &Reader) -> Result<BTreeSet<EventId>> {
    let (mut days, mut revisions) = (FxHashMap::default(), Vec::new());
    let (mut last, mut place) = (ByteArray::default(), None);
    for group in 0..reader.groups() {
        let group = reader.group(group)?;
        let (ids, objects) = (group.int64s("id")?, group.required_texts("object")?);
        for (id, object) in ids.into_iter().zip(objects) {
            if object != last {
                place = object.as_utf8().ok().and_then(Place::of);
                last = object;
            }
            match place {
                Some(Place { kind: Kind::Events, day }) => {
                    // An event that is stored in two days, which `verify` reports, is put together as well.
                    if days.insert(id, day).is_some_and(|before| before != day) {
                        revisions.push((id, None));
                    }
                }
                place => revisions.push((id, place.map(|place| place.day))),
            }
        }
    }
    let is_moved = |(id, day): &(EventId, Option<NaiveDate>)| days.get(id).copied() != *day;
    Ok(revisions.into_iter().filter(is_moved).map(|(id, _)| id).collect())
}

/// Puts the events of a month together day by day and writes them by their time.
struct EventsWriter<'a> {
    writer: Writer,
    withdrawn: &'a BTreeMap<EventId, Withdrawal>,
    /// The versions of the events of the day that is read.
    of_day: FxHashMap<EventId, Vec<Line>>,
    /// Events that one of a later day may precede.
    waiting: Vec<EventRow>,
}

impl EventsWriter<'_> {
    /// Writes what no event of a day after `day` can precede; without a day, everything.
    fn end_day(&mut self, day: Option<NaiveDate>) -> Result<()> {
        self.waiting.extend(self.of_day.drain().filter_map(|(_, lines)| EventRow::new(lines)));
        self.waiting.sort_unstable_by_key(|row| (row.latest.datetime, row.latest.id));
        // Local time is less than a day ahead of UTC, so that an event of the next day happens after this day began.
        let micros = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc().timestamp_micros();
        let safe = day.map_or(i64::MAX, micros);
        let count = self.waiting.partition_point(|row| row.latest.datetime < safe);
        let withdrawn = self.withdrawn;
        for row in self.waiting.drain(..count) {
            let reported = withdrawn.get(&row.latest.id).filter(|report| !report.returned);
            self.writer.push(row.cells(reported.map(|report| report.at)))?;
        }
        Ok(())
    }
}

/// Makes a table of events of a table of revisions. `elsewhere` holds the lines of other months' tables whose events have lines
/// in this one.
pub(super) fn events(
    month: Month,
    reader: &Reader,
    mut elsewhere: Elsewhere,
    withdrawn: &BTreeMap<EventId, Withdrawal>,
) -> Result<Built> {
    let mut apart = moved(reader)?;
    apart.extend(elsewhere.keys());
    if !apart.is_empty() {
        lines_of(reader, &apart, &mut elsewhere)?;
    }
    let mut moved: BTreeMap<NaiveDate, Vec<EventRow>> = BTreeMap::new();
    for row in elsewhere.into_values().filter_map(EventRow::new) {
        if row.month == Some(month)
            && let Some((_, place)) = row.latest.object()
        {
            moved.entry(place.day).or_default().push(row);
        }
    }
    let mut made = EventsWriter {
        writer: Writer::new(Table::Events)?,
        withdrawn,
        of_day: FxHashMap::default(),
        waiting: Vec::new(),
    };
    let (mut object, mut today) = (ByteArray::default(), None);
    for lines in reader.lines() {
        for line in lines? {
            if line.object != object {
                object = line.object.clone();
                let day = line.object().map(|(_, place)| place.day);
                if day != today {
                    if today.is_some() {
                        made.end_day(today)?;
                    }
                    today = day;
                    made.waiting.extend(day.and_then(|day| moved.remove(&day)).unwrap_or_default());
                }
            }
            if !apart.contains(&line.id) {
                made.of_day.entry(line.id).or_default().push(line);
            }
        }
    }
    made.end_day(None)?;
    made.writer.finish()
}
