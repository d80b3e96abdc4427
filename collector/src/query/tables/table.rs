//! Reads the rows of a table as if they were the lines of its objects, with the objects beside it in their places.

use std::collections::BTreeMap;
use std::ops::Range;

use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use rustc_hash::FxHashMap;

use super::Beside;
use crate::archive::{Kind, Place};
use crate::event::{EventId, Fields};
use crate::query::plan::Days;
use crate::query::scan::Scan;
use crate::query::{Account, Filter, Item, Query, Revisions, Unreadable};
use crate::store::Key;
use crate::tables::file::{Group, Reader};

/// Where an object's lines are.
enum Source {
    /// Ranges of rows of row groups.
    Rows(Vec<Rows>),
    Beside(Box<Beside>),
}

/// Rows of a row group, with its number.
type Rows = (usize, Range<usize>);

/// The rows of a table, object by object.
pub(super) struct TableScan {
    reader: Reader,
    /// In the order in which they are returned; the last one comes first.
    objects: Vec<(Place, Key, Source)>,
    /// The groups that were read last.
    groups: BTreeMap<usize, Loaded>,
    query: Query,
    scan: Scan,
    account: Account,
}

impl TableScan {
    pub(super) fn new(
        reader: Reader,
        beside: Vec<Beside>,
        days: &Days,
        query: Query,
        scan: Scan,
        account: Account,
    ) -> Result<Self> {
        let mut objects: BTreeMap<_, (Place, Key, Source)> = BTreeMap::new();
        let is_wanted = |place: Place, key: &Key| {
            let is_kind = place.kind == Kind::Events || query.revisions != Revisions::None;
            let is_behind = query.after.as_ref().is_none_or(|after| query.is_wanted(after, place, key));
            is_kind && is_behind && days.contain(place.day)
        };
        for (place, key, read) in beside {
            if is_wanted(place, &key) {
                let source = Source::Beside(Box::new((place, key.clone(), read)));
                objects.insert(query.rank(place, &key), (place, key, source));
            }
        }
        for (key, rows) in objects_of(&reader)? {
            let Some(place) = Place::of(key.as_str()) else { continue };
            if is_wanted(place, &key) {
                objects.insert(query.rank(place, &key), (place, key, Source::Rows(rows)));
            }
        }
        let objects = objects.into_values().rev().collect();
        Ok(Self { reader, objects, groups: BTreeMap::new(), query, scan, account })
    }

    fn rows(&mut self, place: Place, key: &Key, rows: Vec<Rows>) -> Result<Vec<Item>> {
        let returned = self.scan.begin_object(place, key);
        let mut found = Vec::new();
        for (group, rows) in rows {
            self.account.change(|cost| cost.lines += rows.len());
            let loaded = self.load(group)?;
            let is_any = rows.clone().any(|row| loaded.accepted[row]);
            if !is_any {
                continue;
            }
            self.load_raw(group)?;
            let Some(loaded) = self.groups.get(&group) else { continue };
            for row in rows.filter(|row| loaded.accepted[*row]) {
                let number = usize::try_from(loaded.lines[row]).unwrap_or_default().saturating_sub(1);
                if number < returned {
                    continue;
                }
                let event = loaded.event(row);
                let json = loaded.raws.get(row).map(text).unwrap_or_default();
                let taken = self.scan.take_event(place, key, number, (json, event));
                found.extend(taken.map_err(|error| ParquetError::General(error.to_string()))?.map(Ok));
            }
        }
        Ok(found)
    }

    /// Reads what filters look at.
    fn load(&mut self, number: usize) -> Result<&Loaded> {
        if !self.groups.contains_key(&number) {
            // Objects of one day may lie in two groups.
            self.groups.retain(|known, _| number.abs_diff(*known) <= 1);
            let group = self.reader.group(number)?;
            // Which version counts is known only when all were read.
            let filter = (self.query.revisions != Revisions::Latest).then_some(&self.query.filter);
            self.groups.insert(number, Loaded::new(&group, filter, &self.query.filter)?);
        }
        self.groups.get(&number).ok_or_else(|| ParquetError::General("a row group is absent".to_owned()))
    }

    fn load_raw(&mut self, number: usize) -> Result<()> {
        if let Some(loaded) = self.groups.get_mut(&number).filter(|loaded| loaded.raws.is_empty()) {
            loaded.raws = self.reader.group(number)?.required_texts("raw")?;
        }
        Ok(())
    }
}

impl Iterator for TableScan {
    type Item = Vec<Item>;

    fn next(&mut self) -> Option<Vec<Item>> {
        let (place, key, source) = self.objects.pop()?;
        Some(match source {
            Source::Beside(beside) => self.scan.take(place, &key, beside.2),
            Source::Rows(rows) => self
                .rows(place, &key, rows)
                .unwrap_or_else(|error| vec![Err(Unreadable::new(key.to_string(), error))]),
        })
    }
}

/// The objects whose lines a table holds, with their rows.
fn objects_of(reader: &Reader) -> Result<Vec<(Key, Vec<Rows>)>> {
    let mut found: Vec<(Key, Vec<Rows>)> = Vec::new();
    let mut last = ByteArray::default();
    for number in 0..reader.groups() {
        let mut row = 0;
        for rows in reader.group(number)?.required_texts("object")?.chunk_by(|one, other| one == other) {
            let range = (number, row..row + rows.len());
            row += rows.len();
            if let Some((_, ranges)) = found.last_mut().filter(|_| rows[0] == last) {
                ranges.push(range);
                continue;
            }
            last = rows[0].clone();
            let key = Key::new(text(&last)).map_err(|error| ParquetError::General(error.to_string()))?;
            found.push((key, vec![range]));
        }
    }
    Ok(found)
}

fn text(value: &ByteArray) -> &str {
    value.as_utf8().unwrap_or_default()
}

/// What a row group holds, as far as it was read.
struct Loaded {
    ids: Vec<i64>,
    lines: Vec<i32>,
    /// Of `type`, `location_name`, `name` and `summary`, as far as the filter looks at them.
    texts: [Vec<Option<ByteArray>>; 4],
    /// Rows that may be wanted.
    accepted: Vec<bool>,
    raws: Vec<ByteArray>,
}

const TEXTS: [&str; 4] = ["type", "location_name", "name", "summary"];

impl Loaded {
    fn new(group: &Group<'_>, filter: Option<&Filter>, whole: &Filter) -> Result<Self> {
        let range = group.ids().filter(|_| filter.is_some() && !whole.ids.is_empty());
        let may_hold = |(first, last): (EventId, EventId)| whole.ids.range(first..=last).next().is_some();
        let mut loaded = Self {
            ids: Vec::new(),
            lines: Vec::new(),
            texts: Default::default(),
            accepted: vec![range.is_none_or(may_hold); group.rows],
            raws: Vec::new(),
        };
        if group.rows == 0 || !loaded.accepted[0] {
            return Ok(loaded);
        }
        let has_text = whole.text.is_some();
        let is_read = [!whole.types.is_empty(), !whole.locations.is_empty(), false, false];
        loaded.ids = group.int64s("id")?;
        loaded.lines = group.int32s("line")?;
        for ((texts, column), is_read) in loaded.texts.iter_mut().zip(TEXTS).zip(is_read) {
            if is_read || has_text {
                *texts = group.texts(column)?;
            }
        }
        if let Some(filter) = filter.filter(|filter| **filter != Filter::default()) {
            let mut known = FxHashMap::default();
            for row in 0..group.rows {
                let event = loaded.event(row);
                loaded.accepted[row] = filter.accepts_with(&event, &mut known);
            }
        }
        Ok(loaded)
    }

    /// The event of a row, as far as the filter looks at it.
    fn event(&self, row: usize) -> Fields<'_> {
        let text = |column: usize| {
            let value = self.texts[column].get(row).and_then(Option::as_ref);
            value.map(text).unwrap_or_default().into()
        };
        let id = self.ids.get(row).copied().unwrap_or_default();
        Fields { id, kind: text(0), location: text(1), name: text(2), summary: text(3), ..Fields::default() }
    }
}
