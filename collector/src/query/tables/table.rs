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
use crate::query::{Account, CountBy, Filter, Item, Query, Revisions, Unreadable};
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
    /// What rows are counted by instead of being returned.
    counted: Option<CountBy>,
    counts: FxHashMap<Box<str>, u64>,
    scan: Scan,
    account: Account,
}

impl TableScan {
    pub(super) fn new(
        reader: Reader,
        beside: Vec<Beside>,
        days: &Days,
        query: Query,
        account: Account,
    ) -> Result<Self> {
        let is_wanted = |place: Place, key: &Key| {
            let is_kind = place.kind == Kind::Events || query.revisions != Revisions::None;
            let is_behind = query.after.as_ref().is_none_or(|after| query.is_wanted(after, place, key));
            is_kind && is_behind && days.contain(place.day)
        };
        let mut objects: Vec<(Place, Key, Source)> = Vec::new();
        for (key, rows) in objects_of(&reader, &query.filter)? {
            objects.extend(Place::of(key.as_str()).map(|place| (place, key, Source::Rows(rows))));
        }
        for (place, key, read) in beside {
            let source = Source::Beside(Box::new((place, key.clone(), read)));
            objects.push((place, key, source));
        }
        objects.retain(|(place, key, _)| is_wanted(*place, key));
        objects.sort_by(|one, other| query.rank(one.0, &one.1).cmp(&query.rank(other.0, &other.1)));
        // An object that is in the table is not read beside it.
        objects.dedup_by(|one, before| one.1 == before.1);
        objects.reverse();
        let scan = Scan::new(query.clone(), account.clone());
        let counted = account.by.filter(|by| query.is_counted_in_columns(*by));
        let (groups, counts) = (BTreeMap::new(), FxHashMap::default());
        Ok(Self { reader, objects, groups, query, counted, counts, scan, account })
    }

    fn rows(&mut self, place: Place, key: &Key, rows: Vec<Rows>) -> Result<Vec<Item>> {
        let returned = self.scan.begin_object(place, key);
        let mut found = Vec::new();
        for (group, rows) in rows {
            self.account.change(|cost| cost.lines += rows.len());
            let loaded = self.load(group)?;
            let is_wanted =
                |loaded: &Loaded, row: usize| loaded.accepted[row] && loaded.number(row) >= returned;
            let wanted: Vec<usize> = rows.filter(|row| is_wanted(loaded, *row)).collect();
            if wanted.is_empty() {
                continue;
            }
            if let Some(by) = self.counted {
                self.count(by, place, group, &wanted);
                continue;
            }
            self.load_raw(group)?;
            let Some(loaded) = self.groups.get(&group) else { continue };
            for row in wanted {
                let json = loaded.raws.get(row).and_then(Option::as_ref).map(text).unwrap_or_default();
                let event = loaded.event(row);
                let taken = self.scan.take_event(place, key, loaded.number(row), (json, event));
                found.extend(taken.map_err(|error| ParquetError::General(error.to_string()))?.map(Ok));
            }
        }
        Ok(found)
    }

    /// Counts rows of a day.
    fn count(&mut self, by: CountBy, place: Place, group: usize, rows: &[usize]) {
        let Some(loaded) = self.groups.get(&group) else { return };
        let day = if by == CountBy::Day { place.day.to_string() } else { String::new() };
        for row in rows {
            let value = match by {
                CountBy::Type => loaded.cell(0, *row),
                CountBy::Location => loaded.cell(1, *row),
                CountBy::Day | CountBy::Hour => &day,
            };
            match self.counts.get_mut(value) {
                Some(count) => *count += 1,
                None => _ = self.counts.insert(value.into(), 1),
            }
        }
    }

    /// Reads what filters look at.
    fn load(&mut self, number: usize) -> Result<&Loaded> {
        if !self.groups.contains_key(&number) {
            // Objects of one day may lie in two groups.
            self.groups.retain(|known, _| number.abs_diff(*known) <= 1);
            let group = self.reader.group(number)?;
            self.groups.insert(number, Loaded::new(&group, &self.query, self.counted)?);
        }
        self.groups.get(&number).ok_or_else(|| ParquetError::General("a row group is absent".to_owned()))
    }

    fn load_raw(&mut self, number: usize) -> Result<()> {
        if let Some(loaded) = self.groups.get_mut(&number).filter(|loaded| loaded.raws.is_empty()) {
            loaded.raws = self.reader.group(number)?.texts("raw")?;
            keep_accepted(&mut loaded.raws, &loaded.accepted);
        }
        Ok(())
    }
}

impl Iterator for TableScan {
    type Item = Vec<Item>;

    fn next(&mut self) -> Option<Vec<Item>> {
        let Some((place, key, source)) = self.objects.pop() else {
            self.account.add_counts(std::mem::take(&mut self.counts));
            return None;
        };
        Some(match source {
            Source::Beside(beside) => self.scan.take(place, &key, beside.2),
            Source::Rows(rows) => self
                .rows(place, &key, rows)
                .unwrap_or_else(|error| vec![Err(Unreadable::new(key.to_string(), error))]),
        })
    }
}

/// The objects whose lines a table holds, with their rows in the groups that may hold the ids that are asked for.
fn objects_of(reader: &Reader, filter: &Filter) -> Result<Vec<(Key, Vec<Rows>)>> {
    let mut found: Vec<(Key, Vec<Rows>)> = Vec::new();
    let mut last = ByteArray::default();
    for number in 0..reader.groups() {
        if !filter.ids.is_empty() && !reader.may_hold(number, &filter.ids)? {
            continue;
        }
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
    raws: Vec<Option<ByteArray>>,
}

/// Frees the pages of a column of which few rows are wanted, so that the next ones are decoded into the same memory.
fn keep_accepted(column: &mut [Option<ByteArray>], accepted: &[bool]) {
    if accepted.iter().filter(|accepted| **accepted).count() * 4 > accepted.len() {
        return;
    }
    for (value, is_accepted) in column.iter_mut().zip(accepted) {
        *value = value.take().filter(|_| *is_accepted).map(|value| value.data().to_vec().into());
    }
}

const TEXTS: [&str; 4] = ["type", "location_name", "name", "summary"];

impl Loaded {
    fn new(group: &Group<'_>, query: &Query, counted: Option<CountBy>) -> Result<Self> {
        let mut loaded = Self {
            ids: Vec::new(),
            lines: Vec::new(),
            texts: Default::default(),
            accepted: Vec::new(),
            raws: Vec::new(),
        };
        let filter = &query.filter;
        if counted.is_none() || !filter.ids.is_empty() {
            loaded.ids = group.int64s("id")?;
        }
        if counted.is_none() || query.after.is_some() {
            loaded.lines = group.int32s("line")?;
        }
        let is_read = [
            !filter.types.is_empty() || counted == Some(CountBy::Type),
            !filter.locations.is_empty() || counted == Some(CountBy::Location),
            false,
            false,
        ];
        for ((texts, column), is_read) in loaded.texts.iter_mut().zip(TEXTS).zip(is_read) {
            if is_read || filter.text.is_some() {
                *texts = group.texts(column)?;
            }
        }
        // Which version counts is known only when all were read.
        let is_undecided = query.revisions == Revisions::Latest || *filter == Filter::default();
        loaded.accepted =
            if is_undecided { vec![true; group.rows] } else { loaded.accepted(filter, group.rows) };
        loaded.texts.iter_mut().for_each(|column| keep_accepted(column, &loaded.accepted));
        Ok(loaded)
    }

    /// Of each row, whether it is wanted.
    fn accepted(&self, filter: &Filter, rows: usize) -> Vec<bool> {
        let needle = filter.needle();
        let has_text = |text: &str| needle.as_ref().is_none_or(|needle| needle.is_in(text));
        let is_in = |column: usize, row: usize| {
            needle.as_ref().is_some_and(|needle| needle.is_in_bytes(self.bytes(column, row)))
        };
        // Few types and places differ.
        let (mut kinds, mut places) = (FxHashMap::default(), FxHashMap::default());
        let accepts = |row: usize| {
            let (kind, place) = (self.cell(0, row), self.cell(1, row));
            let of_kind = || (filter.accepts_kind(kind), has_text(kind));
            let of_place = || (filter.accepts_location(place), has_text(place));
            let (is_kind, kind_has_it) = *kinds.entry(kind).or_insert_with(of_kind);
            let (is_place, place_has_it) = *places.entry(place).or_insert_with(of_place);
            (filter.ids.is_empty() || filter.ids.contains(&self.id(row)))
                && (is_kind && is_place)
                && (kind_has_it || place_has_it || is_in(2, row) || is_in(3, row))
        };
        (0..rows).map(accepts).collect()
    }

    fn id(&self, row: usize) -> EventId {
        self.ids.get(row).copied().unwrap_or_default()
    }

    /// The number of the line, from 0.
    fn number(&self, row: usize) -> usize {
        let line = self.lines.get(row).and_then(|line| usize::try_from(*line).ok());
        line.map_or(usize::MAX, |line| line.saturating_sub(1))
    }

    /// A text of a row; empty if it is null or was not read.
    fn cell(&self, column: usize, row: usize) -> &str {
        std::str::from_utf8(self.bytes(column, row)).unwrap_or_default()
    }

    fn bytes(&self, column: usize, row: usize) -> &[u8] {
        self.texts[column].get(row).and_then(Option::as_ref).map(ByteArray::data).unwrap_or_default()
    }

    /// The event of a row, as far as the filter looks at it.
    fn event(&self, row: usize) -> Fields<'_> {
        let [kind, location, name, summary] = [0, 1, 2, 3].map(|column| self.cell(column, row).into());
        Fields { id: self.id(row), kind, location, name, summary, ..Fields::default() }
    }
}
