//! What an update has to make: read from the manifest, from what was committed since, and from the files that are there.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::{OnStore, Update};
use crate::archive::{ArchiveError, ChangesError, Cursor, Kind};
use crate::event::EventId;
use crate::store::{Key, Listed};
use crate::tables::build;
use crate::tables::file::Reader;
use crate::tables::manifest::{FORMAT, Found, Manifest, MonthEntry, Stored};
use crate::tables::month::Table;
use crate::tables::source::Since;
use crate::tables::{Attempts, Month, Months, Tables, TablesError, TablesOptions, TablesReport};

/// What is made.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent choice of the caller")]
pub(super) struct Plan {
    /// The manifest as it was read.
    pub(super) before: Manifest,
    /// Months that are made of their objects alone, with these objects.
    pub(super) from_objects: BTreeMap<Month, Vec<Listed>>,
    /// New objects of other months.
    pub(super) added: BTreeMap<Month, Vec<Listed>>,
    /// Further months whose table of events may have other rows.
    pub(super) affected: BTreeSet<Month>,
    /// All of these months.
    pub(super) months: BTreeSet<Month>,
    pub(super) dry_run: bool,
    full: bool,
    /// Whether the tables are made as they were when they were made last.
    is_check: bool,
    /// Objects that are left out.
    pub(super) left_out: BTreeSet<Key>,
    /// The months that are made if they have to be.
    range: Months,
    /// Whether something that is covered is not made.
    is_partial: bool,
}

impl<'a> Update<'a> {
    /// Plans with a manifest, and with what was committed since. A check makes what was made the last time.
    pub(in crate::tables) async fn begin(
        tables: &'a Tables,
        options: &TablesOptions,
        is_check: bool,
        attempts: &'a mut Attempts,
        stored: Stored,
    ) -> Result<Self, TablesError> {
        let manifest = match stored.found {
            Found::Usable(manifest) => *manifest,
            Found::Future(format) if !options.full => {
                return Err(TablesError::Future { location: tables.store.location(), format });
            }
            Found::Damaged(reason) => {
                warn!(reason, "the manifest of the tables cannot be used; all tables are made anew");
                Manifest::default()
            }
            Found::Absent | Found::Future(_) => Manifest::default(),
        };
        let plan = Plan {
            before: manifest.clone(),
            dry_run: options.dry_run,
            full: options.full,
            is_check,
            range: if is_check { manifest.covers } else { options.months },
            ..Plan::default()
        };
        let report = TablesReport { dry_run: options.dry_run, ..TablesReport::default() };
        let (version, is_announced, recent) = (stored.version, false, None);
        let mut update = Self { tables, plan, attempts, manifest, version, is_announced, recent, report };
        let since = match update.manifest.cursor() {
            Some(cursor) => update.since(&cursor).await?,
            None => None,
        };
        match since {
            Some(since) => update.plan_since(since).await?,
            None => update.plan_all().await?,
        }
        let plan = &mut update.plan;
        plan.months =
            plan.from_objects.keys().chain(plan.added.keys()).chain(&plan.affected).copied().collect();
        Ok(update)
    }

    /// What was committed since; nothing if the cursor is not part of the history of the archive.
    async fn since(&self, cursor: &Cursor) -> Result<Option<Since>, TablesError> {
        match Since::read(&self.tables.archive, cursor).await {
            Ok(since) => Ok(Some(since)),
            Err(
                error @ (ChangesError::OtherArchive { .. }
                | ChangesError::BeyondEnd { .. }
                | ChangesError::Diverged(_)
                | ChangesError::Archive(ArchiveError::Journal { .. })),
            ) => {
                warn!(%error, "the tables do not fit the archive; they are made anew");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Everything is made from the objects.
    async fn plan_all(&mut self) -> Result<(), TablesError> {
        let archive = &self.tables.archive;
        // Read before the objects: what is committed meanwhile is read again the next time.
        let (cursor, _) = archive.head_of_journal().await?;
        archive.require_complete().await?;
        let range = self.plan.range;
        self.manifest = Manifest {
            format: FORMAT,
            cursor: Some(cursor.to_string()),
            covers: range,
            ..Manifest::default()
        };
        self.plan.from_objects = archive.objects_of_months(None, |month| range.contain(month)).await?;
        // Files of months that hold nothing any more are removed.
        for month in self.tables.files().await?.into_keys().filter(|month| range.contain(*month)) {
            self.plan.from_objects.entry(month).or_default();
        }
        let withdrawn = archive.store().list(&format!("{}/", Kind::Withdrawn)).await?;
        self.report.objects_read += withdrawn.len();
        archive.add_withdrawals(withdrawn, &mut self.manifest.withdrawn).await
    }

    /// What was committed since the last time is added.
    async fn plan_since(&mut self, mut since: Since) -> Result<(), TablesError> {
        if self.plan.is_check {
            let mut left_out = std::mem::take(&mut since.withdrawn);
            for (month, objects) in std::mem::take(&mut since.added) {
                left_out.extend(self.not_in_table(month, objects).await?);
            }
            self.plan.left_out = left_out.into_iter().map(|listed| listed.key).collect();
            since.cursor = self.manifest.cursor().unwrap_or(since.cursor);
        }
        let covers = self.manifest.covers;
        let hull = covers.hull(self.plan.range);
        let grows = hull != covers;
        if grows {
            self.plan.range = hull;
            self.manifest.covers = hull;
        }
        let (range, full) = (self.plan.range, self.plan.full);
        if full {
            // The tables may be the last copy of what is lost.
            self.tables.archive.require_complete().await?;
        }
        let mut anew = since.altered;
        anew.extend(self.differing_files().await?);
        anew.extend(self.manifest.pending.iter().chain(&self.attempts.dirty));
        let months = &self.manifest.months;
        let is_unreadable = |month: &&Month| months.get(month).is_some_and(|it| it.unreadable > 0);
        anew.extend(since.added.keys().filter(is_unreadable));
        anew.retain(|month| self.manifest.covers.contain(*month));
        let is_left = |month: &Month| self.manifest.covers.contain(*month) && !range.contain(*month);
        self.plan.is_partial = anew.iter().chain(since.added.keys()).any(is_left);
        anew.retain(|month| range.contain(*month));
        let named = (!full && !grows).then_some(&anew);
        let archive = &self.tables.archive;
        let mut found = archive.objects_of_months(named, |month| range.contain(month)).await?;
        if full {
            anew.extend(months.keys().filter(|month| range.contain(**month)));
        }
        for objects in found.values_mut() {
            objects.retain(|it| !self.plan.left_out.contains(&it.key));
        }
        found.retain(|month, _| full || anew.contains(month) || !months.contains_key(month));
        for month in anew {
            found.entry(month).or_default();
        }
        self.plan.added = since.added;
        self.plan.added.retain(|month, _| range.contain(*month) && !found.contains_key(month));
        self.plan.from_objects = found;
        self.plan_withdrawals(since.withdrawn, since.withdrawals_altered || full).await?;
        if !self.plan.is_partial {
            self.manifest.cursor = Some(since.cursor.to_string());
        }
        Ok(())
    }

    /// Those of the objects that did not go into the table of a month. An update of some months adds to them before the cursor moves.
    async fn not_in_table(&self, month: Month, objects: Vec<Listed>) -> Result<Vec<Listed>, TablesError> {
        let stored = self.get(month, Table::Revisions).await?;
        let entry = self.manifest.months.get(&month);
        if !entry.is_some_and(|entry| OnStore::new(stored.as_ref()).is(&entry.revisions)) {
            return Ok(objects);
        }
        let reader = stored.and_then(|object| Reader::new(object.bytes, Table::Revisions).ok());
        Ok(match reader {
            Some(reader) => build::without_known(&reader, objects)?,
            None => objects,
        })
    }

    /// Adds what was reported of withdrawn events. All of it is read again if `anew`.
    async fn plan_withdrawals(&mut self, new: Vec<Listed>, anew: bool) -> Result<(), TablesError> {
        let archive = &self.tables.archive;
        let before = self.manifest.withdrawn.clone();
        let objects = if anew {
            self.manifest.withdrawn.clear();
            archive.store().list(&format!("{}/", Kind::Withdrawn)).await?
        } else {
            new
        };
        let objects: Vec<Listed> =
            objects.into_iter().filter(|it| !self.plan.left_out.contains(&it.key)).collect();
        self.report.objects_read += objects.len();
        archive.add_withdrawals(objects, &mut self.manifest.withdrawn).await?;
        let known = &self.manifest.withdrawn;
        let differ = |id: &&EventId| known.get(id) != before.get(id);
        let ids: BTreeSet<EventId> = known.keys().chain(before.keys()).filter(differ).copied().collect();
        let may_hold = |entry: &MonthEntry| ids.iter().any(|id| entry.may_hold(*id));
        for (month, _) in self.manifest.months.iter().filter(|(_, entry)| may_hold(entry)) {
            if self.plan.range.contain(*month) {
                self.plan.affected.insert(*month);
            } else {
                self.plan.is_partial = true;
            }
        }
        if self.plan.is_partial {
            // They are added again with what the months that are left need.
            self.manifest.withdrawn = before;
        }
        Ok(())
    }

    /// Months that have not the files that the manifest names, by their sizes.
    async fn differing_files(&self) -> Result<BTreeSet<Month>, TablesError> {
        let files = self.tables.files().await?;
        let sizes = |entry: &MonthEntry| [entry.events.size_bytes, entry.revisions.size_bytes].map(Some);
        let named: BTreeMap<Month, _> =
            self.manifest.months.iter().map(|(month, entry)| (*month, sizes(entry))).collect();
        let months = files.keys().chain(named.keys());
        Ok(months.filter(|month| files.get(month) != named.get(month)).copied().collect())
    }
}

impl Tables {
    /// Sizes of the files of each month: of the table of events, and of revisions.
    async fn files(&self) -> Result<BTreeMap<Month, [Option<u64>; 2]>, TablesError> {
        let mut found: BTreeMap<Month, [Option<u64>; 2]> = BTreeMap::new();
        for listed in self.store.list("tables/").await? {
            let part = listed.key.as_str().split('/').nth(2).and_then(|part| part.strip_prefix("month="));
            let Some(month) = part.and_then(|part| part.parse::<Month>().ok()) else { continue };
            let Some(at) = Table::ALL.iter().position(|table| month.key(*table) == listed.key) else {
                continue;
            };
            found.entry(month).or_default()[at] = Some(listed.size_bytes);
        }
        Ok(found)
    }
}
