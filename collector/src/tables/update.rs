//! Brings the tables up to date: decides which months are made, makes them one after the other, and writes what changed.

mod plan;

use std::collections::BTreeSet;

use bytes::Bytes;

use super::build::{self, Elsewhere, Mirror};
use super::file::{Built, Reader};
use super::manifest::{FileEntry, Manifest, MonthEntry, replace};
use super::month::Table;
use super::{Attempts, Month, Tables, TablesError, TablesReport};
use crate::archive::content_digest;
use crate::event::EventId;
use crate::store::{Listed, Object, Version};
use plan::Plan;

/// An update under way.
pub(super) struct Update<'a> {
    tables: &'a Tables,
    plan: Plan,
    attempts: &'a mut Attempts,
    manifest: Manifest,
    version: Option<Version>,
    /// Whether the stored manifest names the months as pending.
    is_announced: bool,
    /// The table of revisions that was made last, which the table of events is made of.
    recent: Option<(Month, Bytes)>,
    report: TablesReport,
}

impl Update<'_> {
    /// Number of months that the tables hold.
    pub(super) fn covered(&self) -> usize {
        self.plan.before.months.len()
    }

    /// Number of objects that are left out.
    pub(super) fn left_out(&self) -> usize {
        self.plan.left_out.len()
    }

    /// Makes the months, and writes the manifest.
    pub(super) async fn carry_out(mut self) -> Result<TablesReport, TablesError> {
        let mut affected = std::mem::take(&mut self.plan.affected);
        let from_objects = std::mem::take(&mut self.plan.from_objects);
        let added = std::mem::take(&mut self.plan.added);
        let made: BTreeSet<Month> = from_objects.keys().chain(added.keys()).copied().collect();
        for (month, objects) in from_objects {
            self.make_revisions(month, None, objects).await?;
        }
        for (month, objects) in added {
            let entry = self.manifest.months.get(&month).cloned();
            self.make_revisions(month, entry, objects).await?;
        }
        affected.extend(self.months_beside(&made));
        affected.extend(made);
        for month in affected.into_iter().rev() {
            self.make_events(month).await?;
            self.report.months.push(month);
        }
        self.report.months.sort_unstable();
        self.finish().await
    }

    /// The months of events that have versions in another month and lines in one of these, before or now. Such an event moves
    /// to another month when its latest version is in another one, wherever that line was added.
    fn months_beside(&self, made: &BTreeSet<Month>) -> BTreeSet<Month> {
        let states = [&self.plan.before.months, &self.manifest.months];
        let entries_made: Vec<&MonthEntry> =
            states.iter().flat_map(|months| made.iter().filter_map(|month| months.get(month))).collect();
        let strays = states.iter().flat_map(|months| months.values()).flat_map(|entry| &entry.strays);
        let strays: BTreeSet<EventId> =
            strays.filter(|id| entries_made.iter().any(|entry| entry.may_hold(**id))).copied().collect();
        let holds = |entry: &MonthEntry| strays.iter().any(|id| entry.may_hold(*id));
        self.manifest.months.iter().filter(|(_, entry)| holds(entry)).map(|(month, _)| *month).collect()
    }

    async fn finish(mut self) -> Result<TablesReport, TablesError> {
        self.manifest.owner.clear();
        self.manifest.pending.retain(|month| !self.report.months.contains(month));
        for entry in self.manifest.months.values() {
            self.report.events += entry.events.rows;
            self.report.revisions += entry.revisions.rows;
            self.report.size_bytes += entry.events.size_bytes + entry.revisions.size_bytes;
            self.report.odd_values += entry.odd_values;
            self.report.unreadable += entry.unreadable;
        }
        let differs = self.version.is_none() || self.is_announced || self.plan.before != self.manifest;
        if differs && !self.plan.dry_run {
            self.manifest.write(&*self.tables.store, self.version.as_ref()).await?;
        }
        Ok(self.report)
    }

    async fn get(&self, month: Month, table: Table) -> Result<Option<Object>, TablesError> {
        Ok(self.tables.store.get(&month.key(table)).await?)
    }

    /// Makes the table of revisions of a month: of the one before and new objects, or of its objects alone.
    async fn make_revisions(
        &mut self,
        month: Month,
        before: Option<MonthEntry>,
        objects: Vec<Listed>,
    ) -> Result<(), TablesError> {
        let archive = &self.tables.archive;
        let stored = self.get(month, Table::Revisions).await?;
        let on_store = OnStore::new(stored.as_ref());
        let known = self.manifest.months.get(&month).cloned();
        // An earlier table that is not as it was written is not used.
        let is_intact = before.as_ref().is_some_and(|entry| on_store.is(&entry.revisions));
        let bytes = stored.filter(|_| is_intact).map(|object| Bytes::from(object.bytes));
        let reader = bytes.and_then(|bytes| Reader::new(bytes, Table::Revisions).ok());
        let objects = match (&before, &reader) {
            (Some(_), None) => self.objects_of(month).await?,
            _ => objects,
        };
        self.report.objects_read += objects.len();
        let made = match (&reader, &before) {
            (Some(reader), Some(entry)) => {
                let missing = build::without_known(reader, objects)?;
                build::mirror(Some((reader, entry)), archive.contents(missing)).await?
            }
            _ => build::mirror(None, archive.contents(objects)).await?,
        };
        drop(reader);
        let Mirror { built, mut entry } = made;
        let is_empty = built.entry.rows == 0 && entry.unreadable == 0;
        entry.events = known.as_ref().map(|known| known.events.clone()).unwrap_or_default();
        let known = known.map(|known| known.revisions);
        self.recent =
            Some((month, self.put(month, Table::Revisions, built, known, on_store, is_empty).await?));
        if is_empty {
            self.manifest.months.remove(&month);
        } else {
            self.manifest.months.insert(month, entry);
        }
        Ok(())
    }

    /// Makes the table of events of a month.
    async fn make_events(&mut self, month: Month) -> Result<(), TablesError> {
        let on_store = OnStore::new(self.get(month, Table::Events).await?.as_ref());
        let entry = self.manifest.months.get(&month).cloned();
        let is_empty = entry.is_none();
        let known = entry.map(|entry| entry.events).filter(|known| !known.digest.is_empty());
        let reader = self.revisions(month).await?;
        let elsewhere = self.elsewhere(month).await?;
        let built = build::events(month, &reader, elsewhere, &self.manifest.withdrawn)?;
        drop(reader);
        let entry = built.entry.clone();
        self.put(month, Table::Events, built, known, on_store, is_empty).await?;
        if let Some(of_month) = self.manifest.months.get_mut(&month) {
            of_month.events = entry;
        }
        Ok(())
    }

    /// The table of revisions of a month, as it is now.
    async fn revisions(&mut self, month: Month) -> Result<Reader, TablesError> {
        if let Some((_, bytes)) = self.recent.take().filter(|(recent, _)| *recent == month) {
            return Ok(Reader::new(bytes, Table::Revisions)?);
        }
        let entry = self.manifest.months.get(&month).map(|entry| &entry.revisions);
        let stored = self.get(month, Table::Revisions).await?;
        if let Some(object) =
            stored.filter(|object| entry.is_some_and(|it| OnStore::new(Some(object)).is(it)))
        {
            return Ok(Reader::new(object.bytes, Table::Revisions)?);
        }
        // It is damaged, or another process replaced it, or nothing is written.
        let objects = self.objects_of(month).await?;
        let made = build::mirror(None, self.tables.archive.contents(objects)).await?;
        if !self.plan.dry_run && entry.is_some_and(|entry| entry.digest != made.built.entry.digest) {
            self.attempts.dirty.insert(month);
            return Err(TablesError::Contended);
        }
        Ok(Reader::new(made.built.bytes, Table::Revisions)?)
    }

    async fn objects_of(&self, month: Month) -> Result<Vec<Listed>, TablesError> {
        let months = BTreeSet::from([month]);
        let found = self.tables.archive.objects_of_months(Some(&months), |_| true).await?;
        let objects = found.into_values().flatten();
        Ok(objects.filter(|listed| !self.plan.left_out.contains(&listed.key)).collect())
    }

    /// The lines of other months that belong to events with lines in this one.
    async fn elsewhere(&mut self, month: Month) -> Result<Elsewhere, TablesError> {
        let mut found = Elsewhere::default();
        let months = &self.manifest.months;
        let Some(own) = months.get(&month) else { return Ok(found) };
        let strays = months.values().flat_map(|entry| entry.strays.iter().copied());
        let wanted: BTreeSet<EventId> = strays.filter(|id| own.may_hold(*id)).collect();
        let others = months
            .iter()
            .filter(|(other, entry)| **other != month && wanted.iter().any(|id| entry.may_hold(*id)));
        let others: Vec<Month> = others.map(|(other, _)| *other).collect();
        for other in others {
            let reader = self.revisions(other).await?;
            build::lines_of(&reader, &wanted, &mut found)?;
        }
        Ok(found)
    }

    /// Writes a file if its rows are others than those on the store. The bytes that stand for it now.
    async fn put(
        &mut self,
        month: Month,
        table: Table,
        built: Built,
        known: Option<FileEntry>,
        on_store: OnStore,
        is_empty: bool,
    ) -> Result<Bytes, TablesError> {
        let key = month.key(table);
        let bytes = Bytes::from(built.bytes);
        if is_empty {
            if on_store.version.is_some() {
                self.report.removed.push(key.to_string());
                self.announce(month).await?;
                if !self.plan.dry_run {
                    self.tables.store.delete(&key).await?;
                }
            }
            return Ok(bytes);
        }
        let has_rows = known.is_some_and(|it| it.rows_digest == built.entry.rows_digest && on_store.is(&it));
        if has_rows || on_store.is(&built.entry) {
            return Ok(bytes);
        }
        self.report.replaced.push(key.to_string());
        if !self.plan.dry_run {
            self.announce(month).await?;
            self.attempts.dirty.insert(month);
            replace(&*self.tables.store, &key, &bytes, on_store.version.as_ref()).await?;
        }
        Ok(bytes)
    }

    /// Names the months that are made as pending before the first file is replaced.
    async fn announce(&mut self, month: Month) -> Result<(), TablesError> {
        if self.is_announced || self.plan.dry_run {
            return Ok(());
        }
        let mut announced = self.plan.before.clone();
        announced.format = super::manifest::FORMAT;
        announced.owner = self.tables.archive.owner();
        announced.pending.extend(self.plan.months.iter().chain([&month]));
        self.version = Some(announced.write(&*self.tables.store, self.version.as_ref()).await?);
        self.attempts.announced.clone_from(&self.version);
        self.is_announced = true;
        Ok(())
    }
}

/// The state of a file.
struct OnStore {
    version: Option<Version>,
    digest: String,
}

impl OnStore {
    fn new(object: Option<&Object>) -> Self {
        let digest = object.map(|object| content_digest(&object.bytes)).unwrap_or_default();
        Self { version: object.map(|object| object.version.clone()), digest }
    }

    /// Whether it holds what was written.
    fn is(&self, entry: &FileEntry) -> bool {
        self.version.is_some() && self.digest == entry.digest
    }
}
