//! What a response says as a whole: a gap, a sparse response, events that vanished from its middle.

use chrono::{DateTime, NaiveDate, Utc};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Ledger;
use crate::event::{Event, EventId};

/// An ordinary response spans a week, a sparse one four to six months (FEED: 33 of 29,327). Between the
/// tenth and the ninetieth per cent of its days, so that a few events edited long after do not count.
const SPARSE_SPAN_DAYS: i64 = 30;
/// Minimum number of events behind one in the last response that must still be there before its absence means
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

/// Common events at the end that prove an overlap in any order of the response.
const ENOUGH_IN_ANY_ORDER: usize = 4;
/// Common events in a response for each that must stand at its end in addition to the first: the more events
/// were edited, the more of them stand at the end by accident.
const COMMON_PER_TRAILING: usize = 16;

/// Whether so few of `whole` are missing from `part` that edits and withdrawals between two polls explain it.
fn is_nearly_all(part: usize, whole: usize) -> bool {
    whole > 0 && part * 4 >= whole * 3
}

/// Whether a response is in the feed's order, last published or edited first. Ids are taken in the order of
/// writing, so most ids in the first half are above those half a response later; in random order, half of them.
fn is_newest_first(elements: &[Option<Event>]) -> bool {
    let half = elements.len() / 2;
    let pairs = elements.iter().zip(&elements[half..]).take(half);
    let falling = pairs.filter(|(earlier, later)| {
        earlier.zip(**later).is_some_and(|(earlier, later)| earlier.id > later.id)
    });
    falling.count() * 5 >= half * 3
}

impl Ledger {
    /// Whether a full response reaches back to the last ordinary one, so that no event was missed between.
    /// `elements` are the elements of the response in order, without repeated ids, `None` for a rejected one;
    /// `known` of them were known before; `latest` states that the last ordinary response is the earlier one.
    ///
    /// Known events alone prove nothing: an edit moves an event to the front, beside the new ones. The feed
    /// lists what was published or edited last first, and drops events at the end. Hence, if an event was
    /// published after the last response and dropped before this one, every event of this response was
    /// published or edited in between. If none was dropped, this response ends where the last one began: for
    /// some `n`, its last `n` elements are the first `n` of the last response, except for a few that were
    /// edited or withdrawn. This is the criterion. Edits meet it by accident only if they arrange events in
    /// the order of the last response at the very end of this one, or if they bring back three quarters of a
    /// response. So it holds in any order of the response: an order that does not show the overlap leads to a
    /// report. `n` covers all events at the end that the last response held, so that events sorted to the end
    /// because they are old do not count one by one.
    ///
    /// An event whose content changed was edited and has moved; it counts on neither side. Where the last
    /// ordinary response is unknown, of later date, or much shorter than this one, three quarters of the
    /// elements must be known.
    #[must_use]
    pub fn is_reached_by(&self, elements: &[Option<Event>], known: usize, latest: bool) -> bool {
        let edited = self.edited_in(elements);
        let unedited = self.window.iter().filter(|id| !edited.contains(id));
        let places: FxHashMap<EventId, usize> =
            unedited.enumerate().map(|(place, &id)| (id, place)).collect();
        if !latest || places.len() * 5 < elements.len() * 4 {
            return is_nearly_all(known, elements.len());
        }
        let was_there = |element: &&Option<Event>| {
            element.is_some_and(|event| places.contains_key(&event.id) || edited.contains(&event.id))
        };
        let trailing = elements.iter().rev().take_while(was_there).count();
        // From which `n` on a common event counts: it is in both stretches.
        let mut counts_from = vec![0; places.len().max(elements.len())];
        for (from_end, element) in elements.iter().rev().enumerate() {
            if let Some(&place) = element.as_ref().and_then(|event| places.get(&event.id)) {
                counts_from[place.max(from_end)] += 1;
            }
        }
        let least = 1 + counts_from.iter().sum::<usize>() / COMMON_PER_TRAILING;
        let least = if is_newest_first(elements) { least } else { least.max(ENOUGH_IN_ANY_ORDER) };
        let mut common = 0;
        (1..).zip(counts_from).any(|(n, more)| {
            common += more;
            n >= trailing && common >= least && is_nearly_all(common, n)
        })
    }

    /// The events whose content is another one than the ledger remembers.
    fn edited_in(&self, elements: &[Option<Event>]) -> FxHashSet<EventId> {
        let is_edited = |event: &&Event| {
            let seen = self.get(event.id).map(|seen| seen.fingerprint);
            seen.is_some_and(|seen| seen.is_known() && seen != event.fingerprint)
        };
        elements.iter().flatten().filter(is_edited).map(|event| event.id).collect()
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

    /// What another archive has recorded of withdrawals, as far as it is news here. It says nothing else about the window.
    pub(crate) fn absorbed_window(&self, withdrawn: &[EventId], returned: &[EventId]) -> WindowReport {
        let is_news = |id: &&EventId| !self.is_withdrawn(**id) && !self.window.contains(*id);
        WindowReport {
            sparse: true,
            latest: false,
            withdrawn: withdrawn.iter().filter(is_news).copied().collect(),
            returned: returned.iter().copied().filter(|id| self.is_withdrawn(*id)).collect(),
        }
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
