//! Finds events of which only the numbers are known, with few reads.
//!
//! An object's name says its day and its run, and not its numbers. The ledger knows the days of the last thousand. The others
//! are closed in on: numbers grow with time, though not strictly, so a look into one run's object says on which side of it
//! a number is likely to be, and then the objects around are read, the nearest first, until all are found. Only a number that
//! nowhere stands takes reading everything.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::ops::Range;

use chrono::NaiveDate;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use rustc_hash::FxHashMap;

use super::scan::Scan;
use super::{Account, Cost, Filter, Found, Query, Unreadable, prefixes};
use crate::archive::{Archive, Kind, Names, Packed, Place};
use crate::cache::Origin;
use crate::event::{self, EventId};
use crate::store::{Key, Listed, PageStart};

/// Maximum number of objects that are read without narrowing the search further.
const CLOSE: usize = 4;

/// What was found of the events that were asked for.
#[derive(Debug, Default)]
pub struct LookUp {
    /// Those that are in the archive, as they were when they were new.
    pub found: BTreeMap<EventId, Found>,
    /// What could not be read on the way; while not all are found, it may hold them.
    pub unreadable: Vec<Unreadable>,
    /// What it cost.
    pub cost: Cost,
}

impl Archive {
    /// Events by their numbers: many at once take fewer reads than one after the other.
    pub async fn get_many(&self, ids: impl IntoIterator<Item = EventId>) -> LookUp {
        let account = Account::default();
        let mut looked_up = self.look_for(&ids.into_iter().collect(), &account).await;
        account.change(|cost| {
            cost.found = looked_up.found.len();
            cost.unreadable = looked_up.unreadable.len();
        });
        looked_up.cost = account.read();
        looked_up
    }

    pub(super) async fn look_for(&self, ids: &BTreeSet<EventId>, account: &Account) -> LookUp {
        let filter = Filter { ids: ids.clone(), ..Filter::default() };
        let scan = Scan::new(Query { filter, ..Query::default() }, account.clone());
        let search = Search {
            archive: self,
            account,
            missing: ids.clone(),
            scan,
            seen: FxHashMap::default(),
            result: LookUp::default(),
        };
        search.run().await
    }

    /// The days of events, as far as the ledger knows.
    async fn remembered_days(&self, ids: &BTreeSet<EventId>, account: &Account) -> BTreeSet<NaiveDate> {
        let Ok(Some((ledger, size_bytes))) = self.peek_ledger().await else { return BTreeSet::new() };
        account.note_object(Origin::Source, size_bytes);
        ids.iter().filter_map(|&id| ledger.get(id).and_then(|seen| seen.day)).collect()
    }
}

/// An object that may hold what is missing.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    name: Packed,
    /// The size in bytes; nothing once the object was read.
    size_bytes: Option<NonZeroU64>,
}

/// The objects of all days: by their day, and of a day as they were written.
#[derive(Debug, Default)]
struct Candidates {
    names: Names,
    objects: Vec<Candidate>,
}

impl Candidates {
    fn push(&mut self, listed: &Listed, is_read: bool) {
        let name = self.names.intern(&listed.key);
        // An object without content holds no event.
        let size_bytes = NonZeroU64::new(listed.size_bytes).filter(|_| !is_read);
        self.objects.push(Candidate { name, size_bytes });
    }

    fn sort(&mut self) {
        let Self { names, objects } = self;
        objects.sort_unstable_by_key(|candidate| names.written(candidate.name));
    }

    /// The object at a position, if it was not taken before.
    fn take(&mut self, position: usize) -> Option<(Place, Listed)> {
        let candidate = self.objects.get_mut(position)?;
        let size_bytes = candidate.size_bytes.take()?.get();
        let key = self.names.key(candidate.name)?;
        Some((Place::of(key.as_str())?, Listed { key, size_bytes }))
    }
}

struct Search<'a> {
    archive: &'a Archive,
    account: &'a Account,
    missing: BTreeSet<EventId>,
    scan: Scan,
    /// Objects of remembered days that were read, and the number in the middle of each.
    seen: FxHashMap<Key, Option<EventId>>,
    result: LookUp,
}

impl<'a> Search<'a> {
    async fn run(mut self) -> LookUp {
        if self.missing.is_empty() {
            return self.result;
        }
        let days = self.archive.remembered_days(&self.missing, self.account).await;
        if !days.is_empty() {
            let prefixes = prefixes::of_days(Kind::Events, &days);
            let mut objects = Vec::new();
            self.list(prefixes, |place, listed| {
                if days.contains(&place.day) {
                    objects.push((place, listed));
                }
            })
            .await;
            let keys: Vec<Key> = objects.iter().map(|(_, listed)| listed.key.clone()).collect();
            let mut numbers = Vec::new();
            self.read(stream::iter(objects).boxed(), |number| numbers.push(number)).await;
            self.seen = keys.into_iter().zip(numbers).collect();
        }
        if !self.missing.is_empty() {
            self.search_everywhere().await;
        }
        self.result
    }

    async fn list(&mut self, prefixes: Vec<String>, mut take: impl FnMut(Place, Listed) + Send) {
        let listings = prefixes.into_iter().map(|prefix| (prefix, PageStart::First)).collect();
        let mut listed = self.archive.listed(listings, self.account);
        while let Some(step) = listed.next().await {
            match step {
                Ok((place, listed)) => take(place, listed),
                Err(error) => self.result.unreadable.push(error),
            }
        }
    }

    async fn search_everywhere(&mut self) {
        let mut candidates = Candidates::default();
        let seen = std::mem::take(&mut self.seen);
        self.list(prefixes::of_period(Kind::Events, None, NaiveDate::MAX), |_, listed| {
            candidates.push(&listed, seen.contains_key(&listed.key));
        })
        .await;
        // By the event's day first: what is published late has the number of its time.
        candidates.sort();
        let marks = Marks::new(&self.close_in(&mut candidates, &seen).await);
        let (mut radius, count) = (0, candidates.objects.len());
        let mut covered = 0;
        while !self.missing.is_empty() && covered < count {
            let around = |&id: &EventId| {
                let (before, after) = marks.between(id, count);
                before.saturating_sub(radius)..(after + radius + 1).min(count)
            };
            let near = merged(self.missing.iter().map(around).collect());
            covered = near.iter().map(ExactSizeIterator::len).sum();
            let objects = near.into_iter().flatten().filter_map(|at| candidates.take(at));
            let objects: BoxStream<'_, _> = stream::iter(objects).boxed();
            self.read(objects, |_| ()).await;
            radius = (2 * radius).max(CLOSE);
        }
    }

    /// Looks into objects until each number lies between two that are close. A number by position, as it stands there.
    async fn close_in(
        &mut self,
        candidates: &mut Candidates,
        seen: &FxHashMap<Key, Option<EventId>>,
    ) -> BTreeMap<usize, EventId> {
        let (mut marks, mut blanks) = (BTreeMap::new(), BTreeSet::new());
        let count = candidates.objects.len();
        loop {
            let known = Marks::new(&marks);
            // In the middle, or as near to it as there is one that says something.
            let middle = |&id: &EventId| {
                let (before, after) = known.between(id, count);
                let middle = before + (after - before) / 2;
                let mut nearest = (middle..after).chain((before + 1..middle).rev());
                nearest.find(|at| !blanks.contains(at)).filter(|_| after - before > CLOSE)
            };
            let wanted: BTreeSet<usize> = self.missing.iter().filter_map(middle).collect();
            if wanted.is_empty() {
                return marks;
            }
            let (mut places, mut objects) = (Vec::new(), Vec::new());
            for at in wanted {
                if let Some(object) = candidates.take(at) {
                    places.push(at);
                    objects.push(object);
                    continue;
                }
                let name = candidates.objects.get(at).map(|candidate| candidate.name);
                let key = name.and_then(|name| candidates.names.key(name));
                match key.and_then(|key| seen.get(&key).copied().flatten()) {
                    Some(number) => _ = marks.insert(at, number),
                    None => _ = blanks.insert(at),
                }
            }
            let mut numbers = Vec::new();
            self.read(stream::iter(objects).boxed(), |number| numbers.push(number)).await;
            for (at, number) in places.into_iter().zip(numbers) {
                match number {
                    Some(number) => _ = marks.insert(at, number),
                    None => _ = blanks.insert(at),
                }
            }
        }
    }

    /// Reads objects, several at a time, until nothing is missing. `note` takes the number in the middle of each.
    async fn read<'o>(
        &mut self,
        objects: BoxStream<'o, (Place, Listed)>,
        mut note: impl FnMut(Option<EventId>) + Send,
    ) where
        'a: 'o,
    {
        let archive = self.archive;
        let mut reads = archive.read_in_order(archive.cached(), objects, |(_, listed)| Some(listed));
        while !self.missing.is_empty()
            && let Some(((place, listed), content)) = reads.next().await
        {
            let Some(content) = content else { continue };
            note(content.as_ref().ok().and_then(|(content, _)| middle_number(content.as_ref()?)));
            for result in self.scan.take(place, &listed.key, content) {
                match result {
                    Ok(found) => {
                        self.missing.remove(&found.id);
                        self.result.found.entry(found.id).or_insert(found);
                    }
                    Err(error) => self.result.unreadable.push(error),
                }
            }
        }
    }
}

/// Numbers by the positions of the objects that hold them.
struct Marks {
    positions: Vec<usize>,
    /// The least number at each of the positions or behind it.
    least_behind: Vec<EventId>,
}

impl Marks {
    fn new(marks: &BTreeMap<usize, EventId>) -> Self {
        let positions = marks.keys().copied().collect();
        let mut least = EventId::MAX;
        let mut least_behind: Vec<EventId> = marks
            .values()
            .rev()
            .map(|&mark| {
                least = least.min(mark);
                least
            })
            .collect();
        least_behind.reverse();
        Self { positions, least_behind }
    }

    /// The positions between which a number is likely to be: the last one that is marked with no more, and the next one, which
    /// is marked with more.
    fn between(&self, id: EventId, count: usize) -> (usize, usize) {
        let next = self.least_behind.partition_point(|&least| least <= id);
        let before = next.checked_sub(1).and_then(|last| self.positions.get(last)).copied().unwrap_or(0);
        (before, self.positions.get(next).copied().unwrap_or(count))
    }
}

/// The same positions in ranges that do not overlap.
fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn middle_number(content: &[u8]) -> Option<EventId> {
    let lines = content.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let mut numbers: Vec<EventId> = lines.filter_map(|line| Some(event::parse_line(line).ok()?.id)).collect();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied()
}
