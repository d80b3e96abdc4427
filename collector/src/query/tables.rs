//! Answers from the tables what they hold, and the rest from objects: the same events in the same order.
//!
//! The tables are derived, so nothing rests on them: where the manifest, a file or the journal does not fit, objects are read, and
//! the account says so.

mod parallel;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tracing::warn;

use super::plan::Days;
use super::{Account, Filter, Found, Item, Query, Revisions, until_found};
use crate::archive::reading::Read;
use crate::archive::{Archive, Kind, Place, content_digest};
use crate::cache::{Content, Origin};
use crate::concurrency::buffered;
use crate::event::EventId;
use crate::store::{CachedStore, Key, Listed, PageStart, SharedStore};
use crate::tables::Month;
use crate::tables::file::Reader;
use crate::tables::manifest::{Found as Manifested, Manifest, MonthEntry, manifest_key};
use crate::tables::month::Table;
use crate::tables::source::Since;
use parallel::{Message, flattened, in_thread, in_turn, threads};
use table::TableScan;

/// Maximum size of the files that are fetched at a time, in bytes, unless it is one.
const BYTES_AHEAD: u64 = 64 * 1024 * 1024;
/// Maximum number of files that are fetched at a time.
const FILES_AHEAD: u64 = 12;

/// Tables that fit the archive.
pub(super) struct Usable {
    store: SharedStore,
    /// Whether the cache is that of this store.
    is_cached: bool,
    manifest: Manifest,
    since: Since,
    /// Objects that a run has claimed: they may exist.
    claimed: Vec<Key>,
}

/// What is asked, and who counts.
#[derive(Clone)]
struct Asked {
    days: Days,
    query: Query,
    account: Account,
}

impl Asked {
    /// The objects of a month, because its table cannot be used.
    fn without_table(&self, month: Month, reason: &str) -> Part {
        let reason = format!("{}: {reason}", month.key(Table::Revisions));
        warn!(reason, "a table is not used; reading objects instead");
        self.account.note_tables(|used| used.not_used.push(reason));
        let (first, last) = month.days();
        Part::Objects(self.days.within(Some(first), Some(last)))
    }
}

/// A segment whose files are there.
enum Part {
    Objects(Days),
    Table(Month, Box<Reader>, Vec<Beside>),
}

/// An object that is read beside a table.
type Beside = (Place, Key, Read);

/// A part of the days.
enum Segment {
    Objects(Days),
    Table(Month, Box<MonthEntry>, Vec<Listed>, Vec<Key>),
}

impl Archive {
    /// The tables, if there are any and they fit the archive.
    pub(super) async fn usable_tables(&self, account: &Account) -> Option<Arc<Usable>> {
        let store = self.tables.clone()?;
        match self.open_tables(store, account).await {
            Ok(usable) => Some(Arc::new(usable)),
            Err(reason) => {
                if reason != NO_TABLES {
                    warn!(reason, "the tables are not used; reading objects instead");
                }
                account.note_tables(|tables| tables.not_used.push(reason));
                None
            }
        }
    }

    async fn open_tables(&self, store: SharedStore, account: &Account) -> Result<Usable, String> {
        let cached = self.cached().filter(|_| store.identity() == self.store().identity());
        if let Some(cached) = cached {
            // A bucket without tables is not asked for them again and again.
            let (page, origin) =
                cached.page("tables/", &PageStart::First).await.map_err(|error| error.to_string())?;
            account.change(|cost| {
                cost.listings += 1;
                cost.listings_from_cache += usize::from(origin.is_cache());
            });
            if page.objects.iter().all(|listed| listed.key != manifest_key()) {
                return Err(NO_TABLES.to_owned());
            }
        }
        let stored = Manifest::read(&*store).await;
        let manifest = match stored.map_err(|error| error.to_string())?.found {
            Manifested::Usable(manifest) => *manifest,
            Manifested::Absent => return Err(NO_TABLES.to_owned()),
            Manifested::Future(format) => {
                return Err(format!("they have format {format}, of a later version of this program"));
            }
            Manifested::Damaged(reason) => return Err(format!("their manifest is damaged: {reason}")),
        };
        let cursor = manifest.cursor().ok_or("they were never completed")?;
        let (head, since) = futures_util::join!(self.head_of_journal(), Since::read(self, &cursor));
        let (since, (_, claimed)) =
            (since.map_err(|error| error.to_string())?, head.map_err(|error| error.to_string())?);
        // The manifest, the ledger once for the claim and once for the journal, and the journal.
        account.change(|cost| cost.objects_read += 3 + since.commits);
        let is_cached = cached.is_some();
        Ok(Usable { store, is_cached, manifest, since, claimed })
    }

    /// Answers a query from tables, and from objects where those do not reach.
    pub(super) async fn answer_from(
        &self,
        tables: Arc<Usable>,
        query: Query,
        account: Account,
    ) -> BoxStream<'_, Item> {
        if !query.knows_only_numbers() {
            let days = Days::between(query.from, query.to, self.now());
            return self.read_segments(tables, &days, query, account);
        }
        let filter = Filter { ids: query.filter.ids.clone(), ..Filter::default() };
        let by_ids = Query { filter, ..Query::default() };
        let everywhere = Days::between(None, None, self.now());
        let items = self.read_segments(Arc::clone(&tables), &everywhere, by_ids, account.clone());
        let items: Vec<Item> = items.collect().await;
        let (mut found, mut unreadable) = (Vec::<Found>::new(), Vec::new());
        for item in items {
            match item {
                Ok(event) => found.push(event),
                Err(error) => unreadable.push(Err(error)),
            }
        }
        let unreadable = stream::iter(unreadable);
        if query.revisions == Revisions::None {
            found.retain(|event| query.filter.accepts_json(&event.json));
            return Box::pin(unreadable.chain(stream::iter(found.into_iter().map(Ok))));
        }
        let days = Days::These(found.iter().map(|event| event.day).collect());
        Box::pin(unreadable.chain(self.read_segments(tables, &days, query, account)))
    }

    fn read_segments(
        &self,
        tables: Arc<Usable>,
        days: &Days,
        query: Query,
        account: Account,
    ) -> BoxStream<'_, Item> {
        let segments = tables.segments(days, &query, &account);
        let largest = segments.iter().map(Segment::size_bytes).max().unwrap_or_default().max(1);
        let ahead = usize::try_from((BYTES_AHEAD / largest).clamp(1, FILES_AHEAD)).unwrap_or(1);
        let ids = query.ids_to_find();
        let asked = Asked { days: days.clone(), query, account };
        let begun = asked.clone();
        let parts = segments.into_iter().map(move |segment| {
            let (tables, asked) = (Arc::clone(&tables), asked.clone());
            async move { self.fetch(&tables, segment, asked).await }.boxed()
        });
        let parts = buffered(ahead, parts);
        let found = flattened(parts, threads(), move |part| self.begin_part(part, &begun));
        if ids.is_empty() { found } else { until_found(found, ids) }
    }

    /// Reads the files of a segment.
    async fn fetch(&self, tables: &Usable, segment: Segment, asked: Asked) -> Part {
        let (month, entry, added, claimed) = match segment {
            Segment::Objects(days) => return Part::Objects(days),
            Segment::Table(month, entry, added, claimed) => (month, entry, added, claimed),
        };
        let account = &asked.account;
        let cached = self.cached().filter(|_| tables.is_cached);
        let reader = tables.read_file(month, &entry, cached, account);
        let (reader, beside) = futures_util::join!(reader, self.read_beside(added, claimed));
        account.note_tables(|used| used.objects_since += beside.len());
        match reader {
            Ok(reader) => Part::Table(month, Box::new(reader), beside),
            Err(reason) => asked.without_table(month, &reason),
        }
    }

    fn begin_part(&self, part: Part, asked: &Asked) -> BoxStream<'_, Item> {
        let (month, reader, beside) = match part {
            Part::Objects(days) => {
                return self.read_partitions(&days, asked.query.clone(), asked.account.clone());
            }
            Part::Table(month, reader, beside) => (month, reader, beside),
        };
        let (scanned, asked) = (asked.clone(), asked.clone());
        let scan = move || {
            TableScan::new(*reader, beside, &scanned.days, scanned.query, scanned.account)
                .map_err(|error| error.to_string())
        };
        // Where every row is returned, handing it over takes longer than decoding it.
        let returns_all = asked.query.filter == Filter::default() && asked.account.by.is_none();
        let messages = if returns_all { in_turn(scan) } else { in_thread(scan) };
        messages
            .flat_map(move |message| match message {
                Message::Begun => {
                    asked.account.note_tables(|used| used.months.push(month.to_string()));
                    stream::empty().boxed()
                }
                Message::Found(items) => stream::iter(items).boxed(),
                Message::NotUsed(reason) => {
                    let part = asked.without_table(month, &reason);
                    self.begin_part(part, &asked)
                }
            })
            .boxed()
    }

    /// Reads the objects that are not in a table yet.
    async fn read_beside(&self, added: Vec<Listed>, claimed: Vec<Key>) -> Vec<Beside> {
        let mut beside = Vec::new();
        let mut reads = self.read_in_order(self.cached(), stream::iter(added).boxed(), |listed| Some(listed));
        while let Some((listed, read)) = reads.next().await {
            if let (Some(place), Some(read)) = (Place::of(listed.key.as_str()), read) {
                beside.push((place, listed.key, read));
            }
        }
        drop(reads);
        for key in claimed {
            let read = self.store().get(&key).await;
            let read = read.map(|object| (object.map(|it| Content::new(it.bytes)), Origin::Source));
            if let Some(place) = Place::of(key.as_str()).filter(|_| !matches!(read, Ok((None, _)))) {
                beside.push((place, key, read));
            }
        }
        beside
    }
}

const NO_TABLES: &str = "there are none";

impl Segment {
    fn size_bytes(&self) -> u64 {
        match self {
            Self::Objects(_) => 0,
            Self::Table(_, entry, ..) => entry.revisions.size_bytes,
        }
    }
}

impl Usable {
    /// The table of revisions of a month, if it is as the manifest says.
    async fn read_file(
        &self,
        month: Month,
        entry: &MonthEntry,
        cached: Option<&CachedStore>,
        account: &Account,
    ) -> Result<Reader, String> {
        let key = month.key(Table::Revisions);
        let is_named = |bytes: &[u8]| content_digest(bytes) == entry.revisions.digest;
        if let Some(cached) = cached {
            let listed = Listed { key: key.clone(), size_bytes: entry.revisions.size_bytes };
            // A file of another time may have the same size.
            if let Ok((Some(content), origin)) = cached.content(&listed).await
                && is_named(&content)
            {
                account.note_object(origin, content.len() as u64);
                return Reader::new(content.to_vec(), Table::Revisions).map_err(|error| error.to_string());
            }
        }
        let stored = self.store.get(&key).await.map_err(|error| error.to_string())?;
        let bytes = stored.ok_or("it does not exist")?.bytes;
        account.note_object(Origin::Source, bytes.len() as u64);
        if !is_named(&bytes) {
            return Err("it is not the file that the manifest names".to_owned());
        }
        Reader::new(bytes, Table::Revisions).map_err(|error| error.to_string())
    }

    /// What is read for these days, in their order.
    fn segments(&self, days: &Days, query: &Query, account: &Account) -> Vec<Segment> {
        let covers = self.manifest.covers;
        let mut segments = Vec::new();
        if let Some(first) = covers.from {
            segments.push(Segment::Objects(days.within(None, first.days().0.pred_opt())));
        }
        for month in self.months() {
            let (first, last) = month.days();
            let is_returned = query.after.as_ref().is_some_and(|after| after.place().day > last);
            if is_returned || !covers.contain(month) || days.within(Some(first), Some(last)).is_empty() {
                continue;
            }
            segments.extend(self.segment(month, days, &query.filter.ids, account));
        }
        if let Some(last) = covers.to {
            segments.push(Segment::Objects(days.within(last.days().1.succ_opt(), None)));
        }
        segments
    }

    /// Months that hold something.
    fn months(&self) -> BTreeSet<Month> {
        let claimed = self.claimed.iter().filter_map(|key| Place::of(key.as_str()));
        let known = self.manifest.months.keys().chain(self.since.added.keys()).chain(&self.since.altered);
        known.copied().chain(claimed.map(|place| Month::from(place.day))).collect()
    }

    fn segment(
        &self,
        month: Month,
        days: &Days,
        ids: &BTreeSet<EventId>,
        account: &Account,
    ) -> Option<Segment> {
        let (first, last) = month.days();
        let entry = self.manifest.months.get(&month);
        let is_usable = |entry: &&MonthEntry| {
            let is_as_made = !self.manifest.pending.contains(&month) && !self.since.altered.contains(&month);
            is_as_made && entry.unreadable == 0
        };
        let Some(entry) = entry.filter(is_usable) else {
            if entry.is_some() {
                account.note_tables(|used| used.not_used.push(format!("{month} has to be made again")));
            }
            return Some(Segment::Objects(days.within(Some(first), Some(last))));
        };
        let is_of_rows = |key: &Key| {
            let place =
                Place::of(key.as_str()).filter(|it| matches!(it.kind, Kind::Events | Kind::Revisions));
            place.is_some_and(|place| Month::from(place.day) == month && days.contain(place.day))
        };
        let added = self.since.added.get(&month).into_iter().flatten();
        let added: BTreeMap<&Key, &Listed> =
            added.filter(|listed| is_of_rows(&listed.key)).map(|listed| (&listed.key, listed)).collect();
        let claimed: Vec<Key> =
            self.claimed.iter().filter(|key| is_of_rows(key) && !added.contains_key(key)).cloned().collect();
        let added: Vec<Listed> = added.into_values().cloned().collect();
        let may_hold = ids.is_empty() || ids.iter().any(|id| entry.may_hold(*id));
        let is_needed = may_hold || !added.is_empty() || !claimed.is_empty();
        is_needed.then(|| Segment::Table(month, Box::new(entry.clone()), added, claimed))
    }
}

impl Days {
    fn is_empty(&self) -> bool {
        match self {
            Self::Between(from, to) => from.is_some_and(|from| from > *to),
            Self::These(days) => days.is_empty(),
        }
    }
}
