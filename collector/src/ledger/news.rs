//! Holds a response against the ledger: what is new, what is known, what only the archive can tell.

use chrono::NaiveDate;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Ledger, REJECTED_CAPACITY, WindowReport, is_sparse};
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
pub enum Verdict {
    /// Not stored: a new event.
    New,
    /// A version that is stored already.
    Stored,
    /// An event that is stored, but not in this version.
    Revised,
}

/// What a response brings. Positions are those of [`Response::elements`].
#[derive(Debug, Clone, Default)]
pub struct News {
    /// New events.
    pub events: Vec<usize>,
    /// New versions of known events.
    pub revisions: Vec<usize>,
    /// Elements that are no events and have not been stored as such.
    pub rejected: Vec<usize>,
    /// Elements that only the archive can judge.
    pub doubtful: Vec<Doubtful>,
    /// Events that were known before.
    pub known: usize,
    /// Elements that are no events, those stored before included.
    pub rejected_total: usize,
    /// Known contents that are to be remembered, since they differ from what the ledger holds.
    pub refreshed: Vec<Event>,
    /// What the response says as a whole.
    pub window: WindowReport,
}

impl News {
    /// Judges a response by the ledger alone.
    #[must_use]
    pub fn find(response: &Response<'_>, ledger: &Ledger) -> Self {
        let mut news = Self::default();
        let elements = response.elements();
        let mut first_at = FxHashMap::with_capacity_and_hasher(elements.len(), rustc_hash::FxBuildHasher);
        let mut days = Vec::with_capacity(elements.len());
        for (position, element) in elements.iter().enumerate() {
            let Ok(event) = element.event else {
                news.reject(position, response.rejected_fingerprint(element), ledger);
                continue;
            };
            days.push(event.day);
            match first_at.entry(event.id) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(position);
                    news.judge(position, event, ledger);
                }
                std::collections::hash_map::Entry::Occupied(entry) => {
                    news.judge_repeated(position, event, *entry.get(), elements);
                }
            }
        }
        let present: FxHashSet<EventId> = first_at.into_keys().collect();
        news.window = ledger.inspect_window(&present, is_sparse(&mut days));
        news
    }

    fn reject(&mut self, position: usize, fingerprint: Fingerprint, ledger: &Ledger) {
        self.rejected_total += 1;
        if !ledger.rejected.contains(&fingerprint) {
            self.rejected.push(position);
        }
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
    pub fn settle(&mut self, doubtful: Doubtful, verdict: Verdict) {
        let Doubtful { position, event, doubt } = doubtful;
        match verdict {
            Verdict::New => self.events.push(position),
            Verdict::Revised => self.revisions.push(position),
            Verdict::Stored => {}
        }
        if verdict == Verdict::New || matches!(doubt, Doubt::Repeated { .. }) {
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

    /// Whether events may have been missed: the response is full, something was known before, nothing in it
    /// was. A sparse response says nothing about that.
    #[must_use]
    pub fn possible_gap(&self, response: &Response<'_>, ledger: &Ledger, buffer: usize) -> bool {
        response.elements().len() >= buffer && !ledger.is_empty() && self.known == 0 && !self.window.sparse
    }

    /// The ledger once everything is stored.
    #[must_use]
    pub fn apply(&self, response: &Response<'_>, ledger: &Ledger) -> Ledger {
        let mut next = ledger.clone();
        let elements = response.elements();
        let event_at = |&position: &usize| elements[position].event.ok();
        for event in self.events.iter().filter_map(event_at).chain(self.refreshed.iter().copied()) {
            // A sparse response brings back what can be looked up; it must not push out the last days.
            if !self.window.sparse || !ledger.is_late(event.day) || ledger.get(event.id).is_some() {
                next.remember(event);
            }
        }
        let ids = || elements.iter().filter_map(|element| element.event.ok()).map(|event| event.id);
        if self.window.sparse {
            next.extend_rejected(
                self.rejected.iter().map(|&at| response.rejected_fingerprint(&elements[at])),
            );
        } else {
            let mut unique = FxHashSet::default();
            next.set_window(ids().filter(|&id| unique.insert(id)));
            let rejected = elements.iter().filter(|element| element.event.is_err());
            next.rejected =
                rejected.take(REJECTED_CAPACITY).map(|it| response.rejected_fingerprint(it)).collect();
        }
        next.note_withdrawn(&self.window.withdrawn, &self.window.returned);
        next.forget_oldest_outside_window();
        next
    }
}

impl Ledger {
    /// Adds rejected elements that are stored now.
    pub fn extend_rejected(&mut self, fingerprints: impl Iterator<Item = Fingerprint>) {
        for fingerprint in fingerprints {
            if !self.rejected.contains(&fingerprint) && self.rejected.len() < REJECTED_CAPACITY {
                self.rejected.push(fingerprint);
            }
        }
    }
}
