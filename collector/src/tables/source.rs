//! What the archive holds for the tables: the objects of months, and what was committed since a cursor.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::build::ObjectRead;
use super::manifest::Withdrawal;
use super::{Month, TablesError};
use crate::archive::{Archive, ChangesError, Cursor, Kind, Place};
use crate::event::EventId;
use crate::ledger::CommitKind;
use crate::store::{Key, Listed, Operation, StoreError};

/// Number of months that are listed one by one; for more, everything is listed.
const FEW_MONTHS: usize = 4;
/// Number of changes that are read at a time.
const CHANGES: usize = 1_000;

/// The kinds of objects that become rows.
pub(super) const OF_ROWS: [Kind; 2] = [Kind::Events, Kind::Revisions];

/// What was committed since a cursor.
#[derive(Debug)]
pub(crate) struct Since {
    /// New objects of events and revisions, by month.
    pub(crate) added: BTreeMap<Month, Vec<Listed>>,
    /// Months in which objects were changed or are gone.
    pub(crate) altered: BTreeSet<Month>,
    /// New objects of withdrawals.
    pub(crate) withdrawn: Vec<Listed>,
    /// Whether objects of withdrawals were changed.
    pub(crate) withdrawals_altered: bool,
    pub(crate) cursor: Cursor,
    /// Number of commits that were read.
    pub(crate) commits: usize,
}

impl Since {
    pub(crate) async fn read(archive: &Archive, cursor: &Cursor) -> Result<Self, ChangesError> {
        let mut since = Self {
            added: BTreeMap::new(),
            altered: BTreeSet::new(),
            withdrawn: Vec::new(),
            withdrawals_altered: false,
            cursor: cursor.clone(),
            commits: 0,
        };
        let mut last = 0;
        loop {
            let page = archive.changes(Some(&since.cursor), CHANGES).await?;
            for change in page.changes {
                since.commits += usize::from(change.sequence != last);
                last = change.sequence;
                let (Some(place), Ok(key)) = (Place::of(&change.key), Key::new(change.key)) else { continue };
                let month = Month::from(place.day);
                let is_altered = change.kind == CommitKind::Repair
                    || change.replaces.is_some()
                    || (change.size_bytes == 0 && change.digest.is_none());
                let listed = Listed { key, size_bytes: change.size_bytes };
                match place.kind {
                    Kind::Rejected => {}
                    Kind::Withdrawn if is_altered => since.withdrawals_altered = true,
                    Kind::Withdrawn => since.withdrawn.push(listed),
                    _ if is_altered => _ = since.altered.insert(month),
                    _ => since.added.entry(month).or_default().push(listed),
                }
            }
            since.cursor = page.cursor;
            if page.complete {
                return Ok(since);
            }
        }
    }
}

impl Archive {
    /// The objects of months that become rows, each month's in the order of the archive; of all months that `wanted` accepts, or
    /// of the named ones only.
    pub(super) async fn objects_of_months(
        &self,
        named: Option<&BTreeSet<Month>>,
        wanted: impl Fn(Month) -> bool,
    ) -> Result<BTreeMap<Month, Vec<Listed>>, StoreError> {
        let mut found: BTreeMap<Month, Vec<Listed>> = BTreeMap::new();
        for kind in OF_ROWS {
            let prefixes: Vec<String> = match named {
                Some(named) if named.len() <= FEW_MONTHS => {
                    named.iter().map(|month| month.prefix(kind)).collect()
                }
                _ => vec![format!("{kind}/")],
            };
            for prefix in prefixes {
                for listed in self.store().list(&prefix).await? {
                    let Some(place) = Place::of(listed.key.as_str()) else { continue };
                    let month = Month::from(place.day);
                    if listed.size_bytes > 0
                        && named.is_none_or(|named| named.contains(&month))
                        && wanted(month)
                    {
                        found.entry(month).or_default().push(listed);
                    }
                }
            }
        }
        Ok(found)
    }

    /// The contents of objects, in the order of the archive.
    pub(super) fn contents(&self, mut objects: Vec<Listed>) -> BoxStream<'_, ObjectRead> {
        objects.sort_by_cached_key(|listed| {
            let place = Place::of(listed.key.as_str());
            (place.map(|place| (place.day, place.kind)), listed.key.clone())
        });
        objects.dedup_by(|one, other| one.key == other.key);
        let reads = self.read_in_order(None, stream::iter(objects).boxed(), |listed| Some(listed));
        reads
            .filter_map(async move |(listed, read)| {
                let place = Place::of(listed.key.as_str())?;
                Some(match read? {
                    Ok((Some(content), _)) => Ok((listed.key, place, content.to_vec())),
                    Ok((None, _)) => Err(absent(self, &listed.key).into()),
                    Err(error) => Err(error.into()),
                })
            })
            .boxed()
    }

    /// Adds what objects report of withdrawn events.
    pub(super) async fn add_withdrawals(
        &self,
        objects: Vec<Listed>,
        known: &mut BTreeMap<EventId, Withdrawal>,
    ) -> Result<(), TablesError> {
        let mut contents = self.contents(objects);
        while let Some(read) = contents.next().await {
            let (key, _, bytes) = read?;
            let at = key.run().0;
            for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                let Ok(line) = serde_json::from_slice::<crate::archive::partition::WithdrawnLine>(line)
                else {
                    continue;
                };
                let report = Withdrawal { at, returned: line.returned.is_some() };
                if known.get(&line.id).is_none_or(|before| *before < report) {
                    known.insert(line.id, report);
                }
            }
        }
        Ok(())
    }
}

fn absent(archive: &Archive, key: &Key) -> StoreError {
    StoreError {
        operation: Operation::Get,
        target: format!("{}/{key}", archive.store().location()),
        outcome_unknown: false,
        source: "it was committed and does not exist; `collector verify` checks the archive".into(),
    }
}
