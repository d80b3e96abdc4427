//! Finds events of which only the numbers are known, with few reads.
//!
//! An object's name says its day and its run, and not its numbers. The ledger knows the days of the last thousand. The others
//! are closed in on: numbers grow with time, though not strictly, so a look into one run's object says on which side of it
//! a number is likely to be, and then the objects around are read, the nearest first, until all are found. Only a number that
//! nowhere stands takes reading everything.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;
use rustc_hash::FxHashMap;

use super::scan::{Scan, written};
use super::{Account, Cost, Filter, Found, Query, Unreadable, cover};
use crate::archive::{Archive, Kind, Place};
use crate::cache::Origin;
use crate::concurrency::buffered;
use crate::event::{self, EventId};
use crate::store::{Key, Listed};

/// So few objects are not told apart any further, but read.
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

/// Objects by their day, and of a day as they were written; none where one was read.
type Unread = Vec<Option<(Place, Listed)>>;

struct Search<'a> {
    archive: &'a Archive,
    account: &'a Account,
    missing: BTreeSet<EventId>,
    scan: Scan,
    /// Objects that were read, and the number in the middle of each.
    seen: FxHashMap<Key, Option<EventId>>,
    result: LookUp,
}

impl Search<'_> {
    async fn run(mut self) -> LookUp {
        if self.missing.is_empty() {
            return self.result;
        }
        let days = self.archive.remembered_days(&self.missing, self.account).await;
        if !days.is_empty() {
            let objects = self.list(cover::prefixes_of(Kind::Events, &days)).await;
            let objects = objects.into_iter().filter(|(place, _)| days.contains(&place.day)).collect();
            self.read(objects).await;
        }
        if !self.missing.is_empty() {
            self.search_everywhere().await;
        }
        self.result
    }

    async fn list(&mut self, prefixes: Vec<String>) -> Vec<(Place, Listed)> {
        let (objects, unreadable) = self.archive.list_all(prefixes, self.account).await;
        self.result.unreadable.extend(unreadable);
        objects
    }

    async fn search_everywhere(&mut self) {
        let mut objects = self.list(cover::prefixes(Kind::Events, None, NaiveDate::MAX)).await;
        // By the event's day first: what is published late has the number of its time.
        objects.sort_by_cached_key(|(place, listed)| (place.day, written(&listed.key)));
        let mut unread: Unread = objects.into_iter().map(Some).collect();
        let marks = self.close_in(&mut unread).await;
        let mut radius = 0;
        while !self.missing.is_empty() && unread.iter().any(Option::is_some) {
            let mut near = BTreeSet::new();
            for &id in &self.missing {
                let (before, after) = between(&marks, id, unread.len());
                near.extend(before.saturating_sub(radius)..(after + radius + 1).min(unread.len()));
            }
            let objects = near.into_iter().filter_map(|at| unread[at].take()).collect();
            self.read(objects).await;
            radius = (2 * radius).max(CLOSE);
        }
    }

    /// Looks into objects until each number lies between two that are close. A number by position, as it stands there.
    async fn close_in(&mut self, unread: &mut Unread) -> BTreeMap<usize, EventId> {
        let (mut marks, mut blanks) = (BTreeMap::new(), BTreeSet::new());
        loop {
            // In the middle, or as near to it as there is one that says something.
            let middle = |&id: &EventId| {
                let (before, after) = between(&marks, id, unread.len());
                let middle = before + (after - before) / 2;
                let mut nearest = (middle..after).chain((before + 1..middle).rev());
                nearest.find(|at| !blanks.contains(at)).filter(|_| after - before > CLOSE)
            };
            let wanted: BTreeSet<usize> = self.missing.iter().filter_map(middle).collect();
            if wanted.is_empty() {
                return marks;
            }
            let objects = wanted.iter().filter_map(|&at| unread[at].take()).collect();
            let numbers = self.read(objects).await;
            for (at, number) in wanted.into_iter().zip(numbers) {
                match number {
                    Some(number) => _ = marks.insert(at, number),
                    None => _ = blanks.insert(at),
                }
            }
        }
    }

    /// Reads those that were not read yet, several at a time. The number in the middle of each.
    async fn read(&mut self, objects: Vec<(Place, Listed)>) -> Vec<Option<EventId>> {
        let archive = self.archive;
        let mut numbers = Vec::new();
        let reads = objects.into_iter().map(|(place, listed)| {
            let is_new = !self.seen.contains_key(&listed.key);
            async move {
                let content = if is_new { Some(archive.content(&listed).await) } else { None };
                (place, listed.key, content)
            }
            .boxed()
        });
        let reads: Vec<_> = reads.collect();
        let mut reads = buffered(archive.parallel(), reads);
        while let Some((place, key, content)) = reads.next().await {
            let Some(content) = content else {
                numbers.push(self.seen.get(&key).copied().flatten());
                continue;
            };
            let held = content.as_ref().ok().and_then(|(content, _)| Some(middle_number(content.as_ref()?)));
            self.seen.insert(key.clone(), held.flatten());
            numbers.push(held.flatten());
            for told in self.scan.take(place, &key, content) {
                match told {
                    Ok(found) => {
                        self.missing.remove(&found.id);
                        self.result.found.entry(found.id).or_insert(found);
                    }
                    Err(error) => self.result.unreadable.push(error),
                }
            }
        }
        numbers
    }
}

/// The positions between which a number is likely to be: the last one that is marked with no more, and the next one that is
/// marked with more.
fn between(marks: &BTreeMap<usize, EventId>, id: EventId, count: usize) -> (usize, usize) {
    let before = marks.iter().rev().find(|&(_, &mark)| mark <= id).map_or(0, |(&at, _)| at);
    let after = marks.range(before..).find(|&(_, &mark)| mark > id).map_or(count, |(&at, _)| at);
    (before, after)
}

fn middle_number(content: &[u8]) -> Option<EventId> {
    let lines = content.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let mut numbers: Vec<EventId> = lines.filter_map(|line| Some(event::parse_line(line).ok()?.id)).collect();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied()
}
