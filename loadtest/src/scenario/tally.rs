//! Counts what was published, seen and lost, independently of the collector.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Timelike as _, Utc};
use collector::quantity::{Quantities, Quantity};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::BUFFER;
use super::setup::Stored;
use crate::feed::Source;
use crate::feed::changes::Changes;
use crate::latency::{self, Percentiles};

/// Points of a chart of the buffer's fill.
const MOST_FILL_POINTS: usize = 400;

/// One poll, as the collector reports it.
pub(super) struct Poll {
    pub(super) due: DateTime<Utc>,
    pub(super) succeeded: bool,
    /// Elements of the response.
    pub(super) total: usize,
    pub(super) new: usize,
    pub(super) overlap: usize,
    pub(super) possible_gap: bool,
    pub(super) sparse: bool,
}

/// Highest rate at which a false report counts as a defect.
const MAX_RATE_WITHOUT_FALSE_REPORT: f64 = 100.0;

/// How `possible_gap` compares with what the feed really did, poll by poll.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// Polls before which events left the buffer unseen.
    pub polls_after_loss: usize,
    /// Of these, those that reported `possible_gap`. Fewer than all of them is a defect.
    #[serde(rename = "told")]
    pub reported: usize,
    /// Of these, those whose response held known events all the same, because they had been edited meanwhile.
    pub beside_edits: usize,
    /// False reports: polls without a loss that reported `possible_gap` although an event of the poll before still
    /// stood in its place. More than none is a defect.
    #[serde(rename = "told_in_vain")]
    pub false_reports: usize,
    /// The same at rates above 100, where the response may not show the overlap.
    pub false_reports_beyond: usize,
}

impl Gaps {
    /// Whether every loss was reported, and no report was false.
    #[must_use]
    pub fn are_right(&self) -> bool {
        self.reported == self.polls_after_loss && self.false_reports == 0
    }
}

/// Lost events of one hour of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LossAt {
    /// 0 to 23, in Stockholm.
    pub hour: u32,
    /// How many events that were published in it are lost.
    pub lost: usize,
}

/// How many of the buffer's slots a poll found new.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fill {
    /// Days since the first poll.
    pub day: f64,
    /// The maximum of new events in a poll about then, lost ones included.
    pub new: usize,
}

#[derive(Debug)]
pub(super) struct Tally {
    start: DateTime<Utc>,
    rate: f64,
    /// When events were published.
    published: BTreeMap<u64, DateTime<Utc>>,
    /// Published since the last poll that succeeded, and not withdrawn since.
    unseen: BTreeSet<u64>,
    /// In the feed at the last poll that succeeded, and not moved since.
    in_place: BTreeSet<u64>,
    /// Whether a poll has succeeded with a full response.
    has_response: bool,
    pub(super) withdrawn_unseen: usize,
    pub(super) polls: usize,
    pub(super) failed_polls: usize,
    pub(super) missed_polls: usize,
    pub(super) max_new_per_poll: usize,
    pub(super) min_overlap: Option<usize>,
    pub(super) gaps: Gaps,
    fill: Vec<(DateTime<Utc>, usize)>,
    times: BTreeMap<&'static str, Histogram<u64>>,
}

/// What the counting comes to.
pub(super) struct Verdict {
    pub(super) published: usize,
    pub(super) stored: usize,
    pub(super) lost: usize,
    pub(super) waiting: usize,
    pub(super) stored_earlier: usize,
    pub(super) lost_by_hour: Vec<LossAt>,
}

/// By the names that records give the steps.
pub(super) type Timings = BTreeMap<&'static str, Percentiles>;

impl Tally {
    pub(super) fn new(start: DateTime<Utc>, rate: f64) -> Self {
        Self {
            start,
            rate,
            published: BTreeMap::new(),
            unseen: BTreeSet::new(),
            in_place: BTreeSet::new(),
            has_response: false,
            withdrawn_unseen: 0,
            polls: 0,
            failed_polls: 0,
            missed_polls: 0,
            max_new_per_poll: 0,
            min_overlap: None,
            gaps: Gaps::default(),
            fill: Vec::new(),
            times: BTreeMap::new(),
        }
    }

    /// A poll is due: what appeared since the last one and was not withdrawn could be seen.
    pub(super) fn note_due(&mut self, source: &mut Source, due: DateTime<Utc>) {
        if due == self.start {
            source.changes();
            let standing = source.ids().into_iter().map(|id| (id, due)).collect();
            self.note(&Changes { appeared: standing, ..Changes::default() });
            return;
        }
        let changes = source.changes();
        let never_seen = changes.withdrawn.iter().filter(|id| !self.published.contains_key(id)).count();
        self.withdrawn_unseen += never_seen;
        self.note(&changes);
    }

    fn note(&mut self, Changes { appeared, withdrawn, moved }: &Changes) {
        self.in_place.retain(|id| !moved.contains(id) && !appeared.contains_key(id));
        self.unseen.retain(|id| !withdrawn.contains(id));
        for (&id, &at) in appeared {
            if let Entry::Vacant(first) = self.published.entry(id) {
                first.insert(at);
                self.unseen.insert(id);
            }
        }
    }

    /// A poll was made. Until its response was sent, the feed may have changed since the poll was due.
    pub(super) fn note_poll(&mut self, poll: &Poll, source: &mut Source, quantities: &Quantities) {
        self.note(&source.changes());
        let in_feed = source.ids();
        self.polls += 1;
        self.note_times(quantities);
        if !poll.succeeded {
            self.failed_polls += 1;
            return;
        }
        if poll.sparse {
            // It shows little of what stands in the feed.
            return;
        }
        self.compare(poll, &in_feed);
        if poll.due > self.start {
            self.max_new_per_poll = self.max_new_per_poll.max(poll.new);
            self.fill.push((poll.due, self.unseen.len()));
            if poll.total >= BUFFER {
                self.min_overlap =
                    Some(self.min_overlap.map_or(poll.overlap, |least| least.min(poll.overlap)));
            }
        }
        self.unseen.clear();
        self.in_place = in_feed;
        self.has_response = true;
    }

    /// Compares what a poll reported with what left the feed.
    fn compare(&mut self, poll: &Poll, in_feed: &BTreeSet<u64>) {
        let gaps = &mut self.gaps;
        if !self.has_response {
            // Before its first response, an archive has nothing that shows a loss.
        } else if self.unseen.iter().any(|id| !in_feed.contains(id)) {
            gaps.polls_after_loss += 1;
            gaps.reported += usize::from(poll.possible_gap);
            gaps.beside_edits += usize::from(poll.overlap > 0);
        } else if poll.possible_gap && self.in_place.iter().any(|id| in_feed.contains(id)) {
            let within = self.rate <= MAX_RATE_WITHOUT_FALSE_REPORT;
            *if within { &mut gaps.false_reports } else { &mut gaps.false_reports_beyond } += 1;
        }
    }

    fn note_times(&mut self, quantities: &Quantities) {
        let steps = Quantity::steps().filter(|(_, step)| !step.kind.is_phase());
        for (quantity, seconds) in
            steps.filter_map(|(quantity, _)| Some((quantity, quantities.get(quantity)?)))
        {
            let histogram = self.times.entry(quantity.key()).or_insert_with(latency::histogram);
            histogram.saturating_record(latency::nanoseconds(seconds));
        }
    }

    /// What is not stored is lost, unless the next poll would still find it in the feed.
    pub(super) fn judge(&self, stored: &Stored, in_feed: &BTreeSet<u64>) -> Verdict {
        let missing = || self.published.iter().filter(|(id, _)| !stored.ids.contains(id));
        let mut by_hour: BTreeMap<u32, usize> = BTreeMap::new();
        let mut lost = 0;
        for (_, at) in missing().filter(|(id, _)| !in_feed.contains(id)) {
            lost += 1;
            let hour = fixtures::stockholm::local(*at).hour();
            *by_hour.entry(hour).or_default() += 1;
        }
        let known = stored.ids.iter().filter(|id| self.published.contains_key(id)).count();
        let waiting = missing().count() - lost;
        Verdict {
            published: self.published.len() - waiting,
            stored: known,
            lost,
            waiting,
            stored_earlier: stored.ids.len() - known,
            lost_by_hour: by_hour.into_iter().map(|(hour, lost)| LossAt { hour, lost }).collect(),
        }
    }

    /// The fill over time, thinned to what a chart can show; of each group the highest.
    pub(super) fn fill(&self) -> Vec<Fill> {
        let group = self.fill.len().div_ceil(MOST_FILL_POINTS).max(1);
        let highest = self.fill.chunks(group).filter_map(|polls| polls.iter().max_by_key(|(_, new)| *new));
        let day = |due: DateTime<Utc>| (due - self.start).as_seconds_f64() / 86_400.0;
        highest.map(|&(due, new)| Fill { day: day(due), new }).collect()
    }

    pub(super) fn timings(&self) -> Timings {
        self.times.iter().map(|(&name, times)| (name, latency::percentiles(times))).collect()
    }
}
