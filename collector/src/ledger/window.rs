//! What a response says as a whole: a gap, a sparse response, events that vanished from its middle.

use chrono::{DateTime, NaiveDate, Utc};
use rustc_hash::{FxHashMap, FxHashSet};

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

/// Whether a response is in the feed's order, last published or edited first: the ids fall from quarter to quarter,
/// though not from one to the next.
fn is_newest_first(ids: &[EventId]) -> bool {
    let median = |quarter: &[EventId]| {
        let mut quarter = quarter.to_vec();
        let middle = quarter.len() / 2;
        *quarter.select_nth_unstable(middle).1
    };
    let medians: Vec<EventId> = ids.chunks_exact((ids.len() / 4).max(1)).take(4).map(median).collect();
    medians.len() == 4 && medians.is_sorted_by(|earlier, later| earlier > later)
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

/// Known events in a full response beyond this share are more than edits bring back.
const BEYOND_EDITS: usize = 4;
/// How many places at the end of a response are looked at for one that was there before: the order jitters.
const END_OF_WINDOW: usize = 25;

impl Ledger {
    /// Whether a full response reaches back to the last ordinary one, so that nothing was missed between.
    ///
    /// That it holds known events is not enough: one that is edited moves to the front, and stands beside the
    /// new ones when all that was in the feed has left it. But events leave in their order. So if one near
    /// the end of the response has kept its place, all that stood before it in the last response are there
    /// still, but for a few that were withdrawn; if it was edited, most of them have gone.
    #[must_use]
    pub fn is_reached_by(&self, ids: &[EventId], known: usize) -> bool {
        if known * BEYOND_EDITS > ids.len() || !is_newest_first(ids) || self.window.is_empty() {
            return known > 0;
        }
        let places: FxHashMap<EventId, usize> =
            self.window.iter().enumerate().map(|(place, &id)| (id, place)).collect();
        let present: FxHashSet<EventId> = ids.iter().copied().collect();
        let has_kept_its_place = |(from_end, id): (usize, &EventId)| {
            let Some(&place) = places.get(id) else { return false };
            let before = &self.window[..place];
            let there = before.iter().filter(|id| present.contains(id)).count();
            if place == 0 { from_end == 0 } else { there * 4 >= place * 3 }
        };
        ids.iter().rev().take(END_OF_WINDOW).enumerate().any(has_kept_its_place)
    }

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
