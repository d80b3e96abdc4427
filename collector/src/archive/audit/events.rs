//! The lines under `events/` that an audit has read, 24 bytes each.

use chrono::NaiveDate;
use rustc_hash::FxHashMap;

use super::LineAt;
use crate::event::{EventId, Fingerprint};

/// A line that holds an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    id: EventId,
    at: LineAt,
    /// The fingerprint, and in the lowest bit whether the line is in the day it belongs to.
    content: u64,
}

/// An id that stands in two lines.
pub(super) struct Repeated {
    pub(super) id: EventId,
    /// The later line.
    pub(super) at: LineAt,
    /// The line that was taken for the event's own until then.
    pub(super) first: LineAt,
    /// The one of the two that must not stay.
    pub(super) goes: LineAt,
}

/// Lines in the order in which they were read; once settled one line of each event, by id.
#[derive(Debug, Default)]
pub(in super::super) struct Events {
    entries: Vec<Entry>,
    /// The days to which lines belong that are in another one.
    misplaced: FxHashMap<LineAt, NaiveDate>,
}

impl Entry {
    fn is_placed(self) -> bool {
        self.content & 1 == 1
    }
}

impl Events {
    pub(super) fn push(
        &mut self,
        id: EventId,
        at: LineAt,
        fingerprint: Fingerprint,
        misplaced: Option<NaiveDate>,
    ) {
        let content = fingerprint.to_bits() << 1 | u64::from(misplaced.is_none());
        self.entries.push(Entry { id, at, content });
        if let Some(day) = misplaced {
            self.misplaced.insert(at, day);
        }
    }

    /// Keeps one line of each id: the first one, but one in its own day before one that is not.
    pub(super) fn settle(&mut self, mut repeated: impl FnMut(Repeated)) {
        self.entries.sort_unstable();
        self.entries.dedup_by(|own, first| {
            if own.id != first.id {
                return false;
            }
            let at = own.at;
            let first_at = first.at;
            if own.is_placed() && !first.is_placed() {
                std::mem::swap(own, first);
            }
            repeated(Repeated { id: own.id, at, first: first_at, goes: own.at });
            true
        });
        self.entries.shrink_to_fit();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, id: EventId) -> Option<&Entry> {
        let position = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.entries.get(position)
    }

    pub(super) fn contains(&self, id: EventId) -> bool {
        self.find(id).is_some()
    }

    /// The content of an event's own line.
    pub(in super::super) fn fingerprint(&self, id: EventId) -> Option<Fingerprint> {
        Some(Fingerprint::from_bits(self.find(id)?.content >> 1))
    }

    /// Each event's own line, and the day to which it belongs if it is in another one.
    pub(super) fn iter(&self) -> impl Iterator<Item = (EventId, LineAt, Option<NaiveDate>)> + '_ {
        self.entries.iter().map(|entry| (entry.id, entry.at, self.misplaced.get(&entry.at).copied()))
    }
}
