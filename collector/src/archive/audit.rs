//! Reads a whole archive and says whether it keeps its promises.
//!
//! Changes nothing, and may run beside a collector: the ledger is read before and after the objects, and
//! each of its promises is held against the reading that makes it safe to judge.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use super::inventory::Inventory;
use super::journal::committed;
use super::layout::{Kind, Place, ledger_key};
use super::partition::{RejectedLine, WithdrawnLine};
use super::{Archive, ArchiveError};
use crate::concurrency::buffered;
use crate::event::{self, Event, EventId, Fingerprint};
use crate::ledger::{CommittedObject, Ledger, LedgerDocument};
use crate::store::{Foreign, Key, Listed, StoreError};

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineAt {
    /// The object's position in [`Audit::objects`].
    pub object: u32,
    /// The line's number in it, from 0.
    pub line: u32,
}

/// A line under `events/` that must not stay where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its id stands in another line already.
    Duplicate,
    /// It belongs into another day.
    Misplaced,
    /// It is no event.
    Unreadable,
}

/// Something that is wrong, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The object.
    pub object: String,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What is wrong.
    pub problem: String,
}

/// What an archive holds, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Lines under `events/` that hold an event.
    pub events: usize,
    /// Different ids among them.
    pub unique_ids: usize,
    /// Lines that hold an id once more.
    pub duplicates: usize,
    /// Events and revisions outside their day's folder.
    pub misplaced: usize,
    /// Lines of any kind that cannot be read.
    pub unreadable: usize,
    /// Objects looked at.
    pub objects: usize,
    /// Lines under `revisions/`.
    pub revisions: usize,
    /// Lines under `rejected/`.
    pub rejected: usize,
    /// Lines under `withdrawn/`.
    pub withdrawn: usize,
    /// Versions under `revisions/` that are stored already.
    pub repeated_versions: usize,
    /// Contradictions between the ledger and the objects.
    pub disagreements: usize,
    /// Objects that a run has claimed and not committed. Nothing is wrong with that: the next run finishes it.
    pub claimed: usize,
    /// Ids that another collector vouched for and that are in no object. Nothing can be done about them.
    pub vouched_for: usize,
    /// Entries that are not objects of the archive, such as a FIFO or a link that leads nowhere. They are not read.
    pub foreign: usize,
    /// What is wrong, the first [`MOST_PROBLEMS`] of it.
    pub problems: Vec<Problem>,
}

/// Most problems that are told one by one.
pub const MOST_PROBLEMS: usize = 1_000;

impl Findings {
    /// What there is to report where there is no archive.
    #[must_use]
    pub fn of_missing_archive(location: &str) -> Self {
        let mut findings = Self::default();
        findings.blame(location, None, "there is no archive");
        findings
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    pub(super) fn blame(
        &mut self,
        key: &(impl ToString + ?Sized),
        line: Option<u32>,
        problem: impl Into<String>,
    ) {
        if self.problems.len() < MOST_PROBLEMS {
            let line = line.map(|line| line + 1);
            self.problems.push(Problem { object: key.to_string(), line, problem: problem.into() });
        }
    }
}

/// An archive that was read.
#[derive(Debug, Default)]
pub struct Audit {
    /// What is in it and wrong with it.
    pub findings: Findings,
    /// Every object, in the order of their names.
    pub objects: Vec<Key>,
    /// The lines under `events/` that cannot stay, in the order of their places.
    pub faults: Vec<(LineAt, Fault)>,
    /// Whether the ledger has to be made anew. The list of problems is cut, this is not.
    pub ledger_is_wrong: bool,
    /// Objects that are not as they were committed, as a commit would name them now.
    pub(super) altered: Vec<CommittedObject>,
    /// Whether records of the journal are absent or cannot be read.
    pub(super) journal_is_broken: bool,
    /// The numbers of absent records between those that are there.
    pub(super) journal_gaps: Vec<u64>,
    pub(super) events: FxHashMap<EventId, Home>,
    /// The versions under `revisions/`.
    pub(super) revisions: FxHashSet<(EventId, Fingerprint)>,
}

/// The line that is taken for an event's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    at: LineAt,
    day: NaiveDate,
    placed: bool,
    pub(super) fingerprint: Fingerprint,
}

impl Archive {
    /// Reads everything. `progress` is told how many of how many objects are read.
    ///
    /// # Errors
    /// [`ArchiveError`] if the store cannot be read; a ledger that cannot be is a problem among the findings.
    pub async fn audit(&self, mut progress: impl FnMut(usize, usize)) -> Result<Audit, ArchiveError> {
        let before = self.read_ledger().await?;
        let mut audit = Audit::default();
        // Revisions are held against events, so those come first.
        let mut listed: Vec<Listed> = Vec::new();
        for kind in Kind::ALL {
            listed.extend(self.store.list(&format!("{kind}/")).await?);
        }
        audit.objects = listed.into_iter().map(|it| it.key).collect();
        for kind in Kind::ALL {
            for Foreign { name, reason } in self.store.foreign(kind.name()).await? {
                audit.findings.foreign += 1;
                audit.findings.blame(&name, None, format!("not an object of the archive: {reason}"));
            }
        }
        let keys = audit.objects.clone();
        let reads = keys.iter().map(|key| {
            async move {
                // What lies outside the layout may be of any size and is not read.
                let is_ours = Place::of(key.as_str()).is_some();
                let object = if is_ours { self.store.get(key).await? } else { None };
                Ok::<_, StoreError>((key, object))
            }
            .boxed()
        });
        let mut reads = buffered(self.parallel(), reads);
        let mut inventory = Inventory::new();
        let total = keys.len() + before.records();
        for number in 0..keys.len() {
            let Some(read) = reads.next().await else { break };
            let (key, object) = read?;
            audit.take_object(number, key, object.as_ref().map(|object| &*object.bytes));
            if let Some(object) = object {
                inventory.insert(key.as_str().to_owned(), committed(key, &object.bytes));
            }
            progress(number + 1, total);
        }
        audit.faults.sort_unstable_by_key(|&(at, _)| at);
        audit.findings.objects = keys.len();
        audit.findings.unique_ids = audit.events.len();
        let after = self.read_ledger().await?;
        let of_journal = |record: u64| {
            let read = keys.len() + usize::try_from(record).unwrap_or_default();
            progress(read, total.max(read));
        };
        audit.hold_commits(self, (&before, &after), &inventory, of_journal).await?;
        audit.hold_against(before, after);
        Ok(audit)
    }

    /// The ledger as it is written; nothing is rebuilt.
    pub(super) async fn read_ledger(&self) -> Result<LedgerState, ArchiveError> {
        let stored = match self.read_stored().await {
            Err(error @ ArchiveError::AnotherArchive { .. }) => {
                return Ok(LedgerState::Unusable(error.to_string()));
            }
            stored => stored?,
        };
        let Some(bytes) = stored.bytes else { return Ok(LedgerState::Missing) };
        Ok(match LedgerDocument::parse(&bytes) {
            Ok(LedgerDocument::Own(ledger)) => LedgerState::Own(ledger),
            Ok(LedgerDocument::Foreign { ids, .. }) => LedgerState::Foreign(ids),
            Err(error) => LedgerState::Unusable(error.to_string()),
        })
    }
}

/// What stands where the ledger belongs.
#[derive(Debug)]
pub(super) enum LedgerState {
    Missing,
    Own(Box<Ledger>),
    /// Ids of the documented collector.
    Foreign(Vec<EventId>),
    Unusable(String),
}

impl LedgerState {
    /// Number of records in the journal.
    fn records(&self) -> usize {
        let Self::Own(ledger) = self else { return 0 };
        usize::try_from(ledger.lineage.sequence()).unwrap_or_default()
    }
}

impl Audit {
    fn take_object(&mut self, number: usize, key: &Key, bytes: Option<&[u8]>) {
        let Some(place) = Place::of(key.as_str()) else {
            self.findings.blame(key, None, "no object of an archive is named like this");
            return;
        };
        let Some(bytes) = bytes else {
            self.findings.blame(key, None, "the store lists it and does not find it");
            return;
        };
        if bytes.last().is_some_and(|&last| last != b'\n') {
            self.findings.blame(key, None, "it ends inside a line");
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an archive of four thousand million objects or lines cannot be read in one go"
        )]
        let at = |line: usize| LineAt { object: number as u32, line: line as u32 };
        let lines = bytes.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        for (number, line) in lines {
            let at = at(number);
            match place.kind {
                Kind::Events => self.take_event(key, place.day, at, line),
                Kind::Revisions => self.take_revision(key, place.day, at, line),
                Kind::Rejected => self.take_rejected(key, at, line),
                Kind::Withdrawn => self.take_withdrawn(key, at, line),
            }
        }
    }

    fn take_event(&mut self, key: &Key, day: NaiveDate, at: LineAt, line: &[u8]) {
        let event = match event::parse_line(line) {
            Ok(event) => event,
            Err(error) => {
                self.faults.push((at, Fault::Unreadable));
                return self.unreadable(key, at, &error.to_string());
            }
        };
        self.findings.events += 1;
        let placed = event.day == day;
        if !placed {
            self.findings.misplaced += 1;
            self.findings.blame(key, Some(at.line), format!("event {} belongs to {}", event.id, event.day));
        }
        let own = Home { at, day: event.day, placed, fingerprint: event.fingerprint };
        let Some(first) = self.events.insert(event.id, own) else {
            if !placed {
                self.faults.push((at, Fault::Misplaced));
            }
            return;
        };
        self.findings.duplicates += 1;
        let other = &self.objects[first.at.object as usize];
        let problem = format!("event {} stands in {other} line {} already", event.id, first.at.line + 1);
        self.findings.blame(key, Some(at.line), problem);
        // The first one stays, but one in its own day before one that is not.
        let (stays, goes) = if placed && !first.placed { (own, first) } else { (first, own) };
        self.events.insert(event.id, stays);
        if !goes.placed {
            self.faults.retain(|&(at, _)| at != goes.at);
        }
        self.faults.push((goes.at, Fault::Duplicate));
    }

    fn take_revision(&mut self, key: &Key, day: NaiveDate, at: LineAt, line: &[u8]) {
        let Event { id, day: own, fingerprint } = match event::parse_line(line) {
            Ok(event) => event,
            Err(error) => return self.unreadable(key, at, &error.to_string()),
        };
        self.findings.revisions += 1;
        if own != day {
            self.findings.misplaced += 1;
            self.findings.blame(key, Some(at.line), format!("this version of event {id} belongs to {own}"));
        }
        let event = self.events.get(&id);
        if event.is_none() {
            self.findings.disagreements += 1;
            self.findings.blame(key, Some(at.line), format!("event {id} itself is not stored"));
        }
        let first = event.is_some_and(|event| event.fingerprint == fingerprint);
        if first || !self.revisions.insert((id, fingerprint)) {
            self.findings.repeated_versions += 1;
            self.findings.blame(key, Some(at.line), format!("this version of event {id} is stored already"));
        }
    }

    fn take_rejected(&mut self, key: &Key, at: LineAt, line: &[u8]) {
        if serde_json::from_slice::<RejectedLine>(line).is_ok() {
            self.findings.rejected += 1;
        } else {
            self.unreadable(key, at, "no reason and element");
        }
    }

    fn take_withdrawn(&mut self, key: &Key, at: LineAt, line: &[u8]) {
        if serde_json::from_slice::<WithdrawnLine>(line).is_ok() {
            self.findings.withdrawn += 1;
        } else {
            self.unreadable(key, at, "no id and time");
        }
    }

    fn unreadable(&mut self, key: &Key, at: LineAt, why: &str) {
        self.findings.unreadable += 1;
        self.findings.blame(key, Some(at.line), format!("the line cannot be read: {why}"));
    }

    fn hold_against(&mut self, before: LedgerState, after: LedgerState) {
        match before {
            LedgerState::Own(ledger) => self.hold_remembered(&ledger),
            LedgerState::Foreign(ids) => {
                self.findings.vouched_for = ids.iter().filter(|id| !self.events.contains_key(id)).count();
            }
            LedgerState::Missing | LedgerState::Unusable(_) => {}
        }
        match after {
            LedgerState::Own(ledger) => self.hold_complete(&ledger),
            LedgerState::Foreign(_) => {}
            LedgerState::Missing if self.events.is_empty() => {}
            LedgerState::Missing => self.disagree("there is none, but events are; the next run rebuilds it"),
            LedgerState::Unusable(why) => self.disagree(&format!("{why}; `collector repair` rebuilds it")),
        }
    }

    /// What the ledger remembers must be stored.
    fn hold_remembered(&mut self, ledger: &Ledger) {
        let mut missing = BTreeSet::new();
        for (id, seen) in ledger.iter().filter(|(id, _)| !self.events.contains_key(id)) {
            if seen.fingerprint.is_known() {
                missing.insert(id);
            } else {
                self.findings.vouched_for += 1;
            }
        }
        for id in missing {
            self.disagree(&format!("it remembers event {id}, which is not stored"));
        }
    }

    /// What is stored of the days for which it is complete must be remembered, or claimed.
    fn hold_complete(&mut self, ledger: &Ledger) {
        let objects = ledger.claim.iter().flat_map(|claim| &claim.objects);
        let claimed: FxHashSet<EventId> =
            objects.clone().flat_map(|object| object.ids.iter().copied()).collect();
        self.findings.claimed = objects.count();
        let unknown = self.events.iter().filter(|&(id, home)| {
            !ledger.is_late(home.day) && ledger.get(*id).is_none() && !claimed.contains(id)
        });
        let forgotten: BTreeSet<EventId> = unknown.map(|(&id, _)| id).collect();
        for id in forgotten {
            self.disagree(&format!("it does not remember event {id}, though it is complete for its day"));
        }
    }

    /// The ledger contradicts the objects.
    pub(super) fn disagree(&mut self, problem: &str) {
        self.ledger_is_wrong = true;
        self.findings.disagreements += 1;
        self.findings.blame(&ledger_key(), None, problem);
    }
}
