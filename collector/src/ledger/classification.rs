//! Classifies the elements of a response by the ledger: new, known, or to be looked up in the archive.

use chrono::{DateTime, NaiveDate, Utc};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Ledger, REJECTED_CAPACITY, WindowReport};
use crate::event::{Element, Event, EventId, Fingerprint, Response};

/// Why an element has to be compared with what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Not remembered, and of a day for which the ledger is not complete.
    Late,
    /// Remembered with another content.
    Changed {
        /// The day it was remembered with.
        home: Option<NaiveDate>,
    },
    /// The id stands a second time in this response, with another content.
    Repeated {
        /// The position of the first one.
        first: usize,
    },
}

/// An element to be compared with what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubtful {
    /// Its position in the response.
    pub position: usize,
    /// What it claims to be.
    pub event: Event,
    /// Why it is doubtful.
    pub doubt: Doubt,
}

/// What the archive says of a doubtful element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Not stored: a new event.
    New,
    /// A version that is stored already.
    Stored,
    /// An event that is stored, but not in this version.
    Revised,
}

/// What a response brings. Positions are those of [`Response::elements`].
#[derive(Debug, Clone, Default)]
pub struct Classification {
    /// New events.
    pub events: Vec<usize>,
    /// New versions of known events.
    pub revisions: Vec<usize>,
    /// Elements that are not valid events and have not been stored as such.
    pub rejected: Vec<usize>,
    /// Elements that only the archive can judge.
    pub doubtful: Vec<Doubtful>,
    /// Events that were known before.
    pub known: usize,
    /// Elements that are not valid events, those stored before included.
    pub rejected_total: usize,
    /// Known contents that are to be remembered, since they differ from what the ledger holds.
    pub refreshed: Vec<Event>,
    /// What the response says as a whole.
    pub window: WindowReport,
}

impl Classification {
    /// Judges a response, fetched at `at`, by the ledger alone.
    #[must_use]
    pub fn find(response: &Response<'_>, ledger: &Ledger, at: DateTime<Utc>) -> Self {
        let mut classified = Self::default();
        let elements = response.elements();
        let mut first_at = FxHashMap::with_capacity_and_hasher(elements.len(), rustc_hash::FxBuildHasher);
        let mut days = Vec::with_capacity(elements.len());
        let mut rejected: Option<FxHashSet<Fingerprint>> = None;
        for (position, element) in elements.iter().enumerate() {
            let Ok(event) = element.event else {
                classified.rejected_total += 1;
                let known = rejected.get_or_insert_with(|| ledger.rejected.iter().copied().collect());
                if known.insert(response.rejected_fingerprint(element)) {
                    classified.rejected.push(position);
                }
                continue;
            };
            days.push(event.day);
            match first_at.entry(event.id) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(position);
                    classified.judge(position, event, ledger);
                }
                std::collections::hash_map::Entry::Occupied(entry) => {
                    classified.judge_repeated(position, event, *entry.get(), elements);
                }
            }
        }
        let present: FxHashSet<EventId> = first_at.into_keys().collect();
        classified.window = ledger.inspect_window(&present, &mut days, at);
        classified
    }

    #[inline]
    fn judge(&mut self, position: usize, event: Event, ledger: &Ledger) {
        let Some(seen) = ledger.get(event.id) else {
            if ledger.is_late(event.day) {
                self.doubtful.push(Doubtful { position, event, doubt: Doubt::Late });
            } else {
                self.events.push(position);
            }
            return;
        };
        self.known += 1;
        if seen.fingerprint == event.fingerprint {
            return;
        }
        if seen.fingerprint.is_known() {
            self.doubtful.push(Doubtful { position, event, doubt: Doubt::Changed { home: seen.day } });
        } else if seen.day != Some(event.day) {
            // Another collector vouches for the id; which content it stored is not known.
            self.refreshed.push(Event { fingerprint: Fingerprint::UNKNOWN, ..event });
        }
    }

    fn judge_repeated(&mut self, position: usize, event: Event, first: usize, elements: &[Element]) {
        if elements[first].event.is_ok_and(|earlier| earlier.fingerprint != event.fingerprint) {
            self.doubtful.push(Doubtful { position, event, doubt: Doubt::Repeated { first } });
        }
    }

    /// Takes the archive's verdict on a doubtful element.
    pub fn settle(&mut self, doubtful: Doubtful, comparison: Comparison) {
        let Doubtful { position, event, doubt } = doubtful;
        match comparison {
            Comparison::New => self.events.push(position),
            Comparison::Revised => self.revisions.push(position),
            Comparison::Stored => {}
        }
        if comparison == Comparison::New || matches!(doubt, Doubt::Repeated { .. }) {
            return;
        }
        self.known += usize::from(doubt == Doubt::Late);
        self.refreshed.push(event);
    }

    /// Whether nothing has to be stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.revisions.is_empty()
            && self.rejected.is_empty()
            && self.window.withdrawn.is_empty()
            && self.window.returned.is_empty()
    }

    /// Whether events may have been missed before this response: it fills the buffer, events were known before
    /// it, and it does not reach back to them ([`Ledger::is_reached_by`]). A sparse response says nothing about
    /// this; a gap before it is reported with the next ordinary response.
    #[must_use]
    pub fn possible_gap(&self, response: &Response<'_>, ledger: &Ledger, buffer: usize) -> bool {
        if response.elements().len() < buffer || ledger.is_empty() || self.window.sparse {
            return false;
        }
        let mut present = FxHashSet::default();
        let elements = response.elements().iter().map(|element| element.event.ok());
        let unique = elements.filter(|element| element.is_none_or(|event| present.insert(event.id)));
        !ledger.is_reached_by(&unique.collect::<Vec<_>>(), self.known, self.window.latest)
    }

    /// The ledger once everything is stored, by a run at `at`.
    #[must_use]
    pub fn apply(&self, response: &Response<'_>, ledger: &Ledger, at: DateTime<Utc>) -> Ledger {
        let mut next = ledger.clone();
        let in_order = ledger.last_updated.is_none_or(|last| at > last);
        for event in self.stored_events(response) {
            // What can be looked up must not push out the last days.
            if self.window.latest || !ledger.is_late(event.day) {
                next.remember(event);
            }
        }
        for &event in self.refreshed.iter().filter(|_| in_order) {
            if self.window.latest || ledger.get(event.id).is_some() {
                next.remember(event);
            }
        }
        if self.window.latest {
            next.take_window(response);
        }
        if !self.rejected.is_empty() {
            let fingerprint =
                |position: &usize| response.rejected_fingerprint(&response.elements()[*position]);
            let rejected = response.elements().iter().filter(|element| element.event.is_err());
            let present = rejected.map(|element| response.rejected_fingerprint(element)).collect();
            next.extend_rejected(self.rejected.iter().map(fingerprint), &present);
        }
        next.note_withdrawn(&self.window.withdrawn, &self.window.returned);
        next.forget_oldest_outside_window();
        next.last_updated = ledger.last_updated.max(Some(at));
        next
    }

    fn stored_events<'a>(&'a self, response: &'a Response<'_>) -> impl Iterator<Item = Event> + 'a {
        self.events.iter().filter_map(|&position| response.elements()[position].event.ok())
    }
}

impl Ledger {
    /// Makes this the last ordinary response.
    fn take_window(&mut self, response: &Response<'_>) {
        let mut unique = FxHashSet::default();
        self.window.clear();
        let ids = response.elements().iter().filter_map(|element| Some(element.event.ok()?.id));
        self.window.extend(ids.filter(|&id| unique.insert(id)));
        self.window.truncate(self.capacity);
    }

    /// Adds rejected elements that are stored now. Beyond the capacity the oldest ones are forgotten, but first those
    /// that `present` does not hold.
    pub fn extend_rejected(
        &mut self,
        fingerprints: impl IntoIterator<Item = Fingerprint>,
        present: &FxHashSet<Fingerprint>,
    ) {
        let mut known: FxHashSet<Fingerprint> = self.rejected.iter().copied().collect();
        self.rejected.extend(fingerprints.into_iter().filter(|&fingerprint| known.insert(fingerprint)));
        let mut excess = self.rejected.len().saturating_sub(REJECTED_CAPACITY);
        self.rejected.retain(|fingerprint| {
            let forget = excess > 0 && !present.contains(fingerprint);
            excess -= usize::from(forget);
            !forget
        });
        self.rejected.drain(..excess);
    }
}
