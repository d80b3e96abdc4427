//! The days that an import works on, in memory: what is stored of them, and what is about to be.
//!
//! It holds as long as no other process writes. That is certain whenever a claim succeeds: the ledger is then the one that was
//! written last.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use rustc_hash::FxHashMap;

use super::layout::{Kind, Place};
use super::lookup::{Versions, Wanted};
use super::partition::Draft;
use super::{Archive, ArchiveError};
use crate::event::{self, EventId};
use crate::ledger::{Ledger, Tallies, Tally};

/// Memory that days take before the oldest ones are forgotten, in bytes of content.
const LIMIT_BYTES: usize = 8 * 1024 * 1024;
/// Memory that a version takes beside its content, about.
const VERSION_BYTES: usize = 100;

/// Days of events.
#[derive(Debug, Default)]
pub(super) struct Window {
    days: BTreeMap<NaiveDate, Day>,
    size_bytes: usize,
    /// What listings showed since the last claim.
    pub(super) listed: Tallies,
}

#[derive(Debug, Default)]
struct Day {
    /// Whether all that is stored is here, and not only what was added.
    is_complete: bool,
    versions: FxHashMap<EventId, Vec<Vec<u8>>>,
}

impl Window {
    /// The versions of the wanted events. Days that are not complete are read.
    pub(super) async fn versions(
        &mut self,
        archive: &Archive,
        wanted: &Wanted,
    ) -> Result<Versions, ArchiveError> {
        let is_complete = |day: &NaiveDate| self.days.get(day).is_some_and(|day| day.is_complete);
        let unread: Vec<NaiveDate> = wanted.keys().copied().filter(|day| !is_complete(day)).collect();
        if !unread.is_empty() {
            let tallies = archive
                .read_whole_days(unread.clone(), |day, id, line| self.add(day, id, event::content(line)))
                .await?;
            self.listed.extend(tallies);
            for day in unread {
                self.days.entry(day).or_default().is_complete = true;
            }
        }
        let mut versions = Versions::default();
        for (day, ids) in wanted {
            let Some(day) = self.days.get(day) else { continue };
            for id in ids {
                if let Some(stored) = day.versions.get(id) {
                    versions.contents.entry(*id).or_default().extend(stored.iter().cloned());
                }
            }
        }
        Ok(versions)
    }

    fn add(&mut self, day: NaiveDate, id: EventId, content: Vec<u8>) {
        self.size_bytes += content.len() + VERSION_BYTES;
        self.days.entry(day).or_default().versions.entry(id).or_default().push(content);
    }

    /// Adds what is about to be written, beside a ledger without it.
    pub(super) fn add_drafts(&mut self, drafts: &[Draft], before: &Ledger) {
        for Draft { place: Place { kind, day }, events, bytes, .. } in drafts {
            if !matches!(kind, Kind::Events | Kind::Revisions) {
                continue;
            }
            let is_empty = |kind: Kind| before.expected(&kind.day_prefix(*day)) == Some(Tally::default());
            if !self.days.contains_key(day) {
                let is_complete = is_empty(Kind::Events) && is_empty(Kind::Revisions);
                self.days.insert(*day, Day { is_complete, ..Day::default() });
            }
            for (event, line) in events.iter().zip(bytes.split(|&byte| byte == b'\n')) {
                self.add(*day, event.id, event::content(line));
            }
        }
    }

    /// Forgets listings, and the oldest days if they take too much memory. Nothing is about to be written any more.
    pub(super) fn settle(&mut self) {
        self.listed.clear();
        while self.size_bytes > LIMIT_BYTES
            && let Some((_, day)) = self.days.pop_first()
        {
            let contents = day.versions.into_values().flatten();
            self.size_bytes -= contents.map(|content| content.len() + VERSION_BYTES).sum::<usize>();
        }
    }
}
