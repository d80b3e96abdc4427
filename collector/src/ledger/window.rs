//! What a response says as a whole: a gap, a sparse response, events that vanished from its middle.

use chrono::{DateTime, NaiveDate, Utc};
use rustc_hash::FxHashSet;

use super::Ledger;
use crate::event::EventId;

/// An ordinary response spans a week, a sparse one four to six months (FEED: 33 of 29,327). Between the
/// tenth and the ninetieth per cent of its days, so that a few events edited long after do not count.
const SPARSE_SPAN_DAYS: i64 = 30;
/// So many events that stood behind one in the last response must still be there before its absence means
/// that it was withdrawn: at the end of the window the order jitters by a few places.
const WITHDRAWN_DEPTH: usize = 25;

/// What a response says as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowReport {
    /// Its events are spread over months: it is no image of the last days.
    pub sparse: bool,
    /// It shows the window as it is now: not sparse, and of a later run than all that the ledger knows of.
    pub latest: bool,
    /// Known events that have gone from its middle since the last ordinary response.
    pub withdrawn: Vec<EventId>,
    /// Events recorded as withdrawn that are back.
    pub returned: Vec<EventId>,
}

/// Whether days as spread as these are no image of the last days.
fn is_sparse(days: &mut [NaiveDate]) -> bool {
    if days.len() < 2 {
        return false;
    }
    days.sort_unstable();
    let tenth = days.len() / 10;
    let span = days[days.len() - 1 - tenth] - days[tenth];
    span.num_days() > SPARSE_SPAN_DAYS
}

impl Ledger {
    /// Holds the ids of a response, fetched at `at`, against those of the last ordinary one.
    #[must_use]
    pub fn inspect_window(
        &self,
        present: &FxHashSet<EventId>,
        days: &mut [NaiveDate],
        at: DateTime<Utc>,
    ) -> WindowReport {
        let sparse = is_sparse(days);
        // An import that is repeated, or that fills a hole of the past, says nothing about what is gone now.
        let in_order = self.last_updated.is_none_or(|last| at > last);
        let mut report = WindowReport { sparse, latest: in_order && !sparse, ..WindowReport::default() };
        if in_order {
            report.returned = self.withdrawn.iter().copied().filter(|id| present.contains(id)).collect();
        }
        if report.latest {
            report.withdrawn = self.gone_from_the_middle(present);
        }
        report
    }

    fn gone_from_the_middle(&self, present: &FxHashSet<EventId>) -> Vec<EventId> {
        let mut behind = 0;
        let mut gone = Vec::new();
        for id in self.window.iter().rev() {
            if present.contains(id) {
                behind += 1;
            } else if behind >= WITHDRAWN_DEPTH && !self.withdrawn.contains(id) {
                gone.push(*id);
            }
        }
        gone.reverse();
        gone
    }

    /// Notes withdrawn events and forgets those that are back.
    pub fn note_withdrawn(&mut self, gone: &[EventId], back: &[EventId]) {
        self.withdrawn.retain(|id| !back.contains(id));
        self.withdrawn.extend(gone.iter().filter(|id| !back.contains(id)));
        let excess = self.withdrawn.len().saturating_sub(super::WITHDRAWN_CAPACITY);
        self.withdrawn.drain(..excess);
    }

    /// Whether the event is noted as withdrawn.
    #[must_use]
    pub fn is_withdrawn(&self, id: EventId) -> bool {
        self.withdrawn.contains(&id)
    }
}
