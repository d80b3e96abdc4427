//! Reads a whole archive and says whether it keeps its promises.
//!
//! Changes nothing, and may run beside a collector: the ledger is read before and after the objects, and
//! each of its promises is held against the reading that makes it safe to judge.

mod events;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use chrono::NaiveDate;
use futures_util::stream::{self, StreamExt as _};
use rustc_hash::FxHashSet;
use serde::Serialize;

pub(super) use self::events::Events;
use self::events::Repeated;
use super::inventory::Inventory;
use super::layout::{Kind, Place, ledger_key};
use super::partition::{RejectedLine, WithdrawnLine};
use super::{Archive, ArchiveError};
use crate::event::{self, Event, EventId, Fingerprint};
use crate::ledger::{CommittedObject, Ledger, LedgerDocument};
use crate::store::{Foreign, Key, Listed, PageStart, StoreError};

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineAt {
    /// The position of the object in the order in which they were read.
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
    /// It is not a valid event.
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
    /// Objects of a replica that its ledger does not cover yet. Nothing is wrong with that.
    pub ahead: usize,
    /// Entries that are not objects of the archive, such as a FIFO or a link that leads nowhere. They are not read.
    pub foreign: usize,
    /// What is wrong, the first [`MOST_PROBLEMS`] of it.
    pub problems: Vec<Problem>,
}

/// Maximum number of problems that are reported one by one.
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
    pub(super) inventory: Inventory,
    pub(super) events: Events,
    /// The versions under `revisions/`.
    pub(super) revisions: FxHashSet<(EventId, Fingerprint)>,
    /// Where the problems of `events/` are, as long as those are read.
    places: Vec<(u32, Option<u32>)>,
}

impl Archive {
    /// Reads everything. `progress` receives the number of objects read and the number listed so far.
    ///
    /// # Errors
    /// [`ArchiveError`] if the store cannot be read; a ledger that cannot be is a problem among the findings.
    pub async fn audit(&self, mut progress: impl FnMut(usize, usize)) -> Result<Audit, ArchiveError> {
        let before = self.read_ledger().await?;
        let covered = self.covered_by(&before).await?;
        let mut audit = Audit::default();
        let (listed, foreign) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        // Revisions are held against events, so those come first.
        for kind in Kind::ALL {
            let location = self.store.location();
            let pages = self.pages(None, format!("{kind}/"), PageStart::First);
            let objects = pages.flat_map(|page| {
                let page = page.and_then(|(page, _)| page.complete(&location));
                let objects = page.map(|page| {
                    foreign.lock().unwrap_or_else(PoisonError::into_inner).extend(page.foreign);
                    page.objects
                });
                listed.fetch_add(objects.as_ref().map_or(0, Vec::len), Ordering::Relaxed);
                stream::iter(match objects {
                    Ok(objects) => objects.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                })
            });
            let mut reads = self.read_in_order(None, objects.boxed(), own_object);
            while let Some((object, read)) = reads.next().await {
                let content = read.transpose()?.and_then(|(content, _)| content);
                let object = object?;
                if covered.as_ref().is_some_and(|covered| covered.is_ahead(&object.key)) {
                    audit.findings.ahead += usize::from(object.size_bytes > 0);
                    continue;
                }
                audit.take_object(&object.key, content.as_ref().map(|content| content.as_slice()));
                progress(audit.inventory.len(), listed.load(Ordering::Relaxed) + before.records());
            }
            drop(reads);
            if kind == Kind::Events {
                audit.settle_events();
            }
        }
        audit.take_foreign(foreign.into_inner().unwrap_or_else(PoisonError::into_inner));
        audit.inventory.index();
        audit.findings.objects = audit.inventory.len();
        audit.findings.unique_ids = audit.events.len();
        // What a replica has got since is judged by nothing.
        let after = if covered.is_some() { before.clone() } else { self.read_ledger().await? };
        let (objects, total) = (audit.inventory.len(), audit.inventory.len() + before.records());
        let of_journal = |record: u64| {
            let read = objects + usize::try_from(record).unwrap_or_default();
            progress(read, total.max(read));
        };
        audit.hold_commits(self, (&before, &after), of_journal).await?;
        audit.hold_against(before, after);
        Ok(audit)
    }

    /// The ledger as it is written; nothing is rebuilt.
    pub(crate) async fn read_ledger(&self) -> Result<LedgerState, ArchiveError> {
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

/// An object that is read: what lies outside the layout may be of any size.
fn own_object(listed: &Result<Listed, StoreError>) -> Option<&Listed> {
    listed.as_ref().ok().filter(|listed| Place::of(listed.key.as_str()).is_some())
}

/// What stands where the ledger belongs.
#[derive(Debug, Clone)]
pub(crate) enum LedgerState {
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
    /// The name of an object, by its position in the order in which they were read.
    pub(super) fn key(&self, object: u32) -> Option<Key> {
        self.inventory.key(object as usize)
    }

    fn take_object(&mut self, key: &Key, bytes: Option<&[u8]>) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an archive of four thousand million objects or lines cannot be read in one go"
        )]
        let at = |object: usize, line: usize| LineAt { object: object as u32, line: line as u32 };
        let object = self.inventory.len();
        self.inventory.push(key, bytes);
        let Some(place) = Place::of(key.as_str()) else {
            return self.blame(key, at(object, 0).object, None, "no object of an archive is named like this");
        };
        let Some(bytes) = bytes else {
            return self.blame(key, at(object, 0).object, None, "the store lists it and does not find it");
        };
        // The original Python collector writes no line feed at the end. A line that was cut is not valid JSON, and of an object of
        // the journal the digest is compared.
        let lines = bytes.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        for (number, line) in lines {
            let at = at(object, number);
            match place.kind {
                Kind::Events => self.take_event(key, place.day, at, line),
                Kind::Revisions => self.take_revision(key, place.day, at, line),
                Kind::Rejected => self.take_rejected(key, at, line),
                Kind::Withdrawn => self.take_withdrawn(key, at, line),
            }
        }
    }

    fn blame(&mut self, key: &Key, object: u32, line: Option<u32>, problem: impl Into<String>) {
        self.findings.blame(key, line, problem);
        if self.places.len() < MOST_PROBLEMS {
            self.places.push((object, line));
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
        let misplaced = Some(event.day).filter(|own| *own != day);
        if let Some(own) = misplaced {
            self.findings.misplaced += 1;
            self.blame(key, at.object, Some(at.line), format!("event {} belongs to {own}", event.id));
        }
        self.events.push(event.id, at, event.fingerprint, misplaced);
    }

    /// What is not an object comes before all other problems.
    fn take_foreign(&mut self, mut foreign: Vec<Foreign>) {
        foreign.sort();
        self.findings.foreign = foreign.len();
        let problems = std::mem::take(&mut self.findings.problems);
        for Foreign { name, reason } in foreign {
            self.findings.blame(&name, None, format!("not an object of the archive: {reason}"));
        }
        let room = MOST_PROBLEMS - self.findings.problems.len();
        self.findings.problems.extend(problems.into_iter().take(room));
    }

    /// Every line under `events/` is read: finds the ids that stand in several of them.
    fn settle_events(&mut self) {
        let mut repeated = Vec::new();
        self.events.settle(|it| repeated.push(it));
        self.findings.duplicates = repeated.len();
        let duplicates = repeated.iter().map(|it| (it.goes, Fault::Duplicate));
        self.faults.extend(duplicates);
        let misplaced = self.events.iter().filter(|(.., day)| day.is_some());
        self.faults.extend(misplaced.map(|(_, at, _)| (at, Fault::Misplaced)));
        self.faults.sort_unstable_by_key(|&(at, _)| at);
        self.faults.shrink_to_fit();
        // The problems in the order of their lines, as far as they are kept.
        repeated.sort_unstable_by_key(|it| it.at);
        repeated.truncate(MOST_PROBLEMS);
        let of_lines = std::mem::take(&mut self.findings.problems);
        let mut problems: Vec<_> = std::mem::take(&mut self.places).into_iter().zip(of_lines).collect();
        for Repeated { id, at, first, .. } in repeated {
            let name = |object| self.key(object).map_or_else(String::new, |key| key.to_string());
            let problem =
                format!("event {id} stands in {} line {} already", name(first.object), first.line + 1);
            let problem = Problem { object: name(at.object), line: Some(at.line + 1), problem };
            problems.push(((at.object, Some(at.line)), problem));
        }
        problems.sort_by_key(|(place, _)| *place);
        problems.truncate(MOST_PROBLEMS);
        self.findings.problems = problems.into_iter().map(|(_, problem)| problem).collect();
    }

    fn take_revision(&mut self, key: &Key, day: NaiveDate, at: LineAt, line: &[u8]) {
        let Event { id, day: belongs, fingerprint } = match event::parse_line(line) {
            Ok(event) => event,
            Err(error) => return self.unreadable(key, at, &error.to_string()),
        };
        self.findings.revisions += 1;
        if belongs != day {
            self.findings.misplaced += 1;
            let problem = format!("this version of event {id} belongs to {belongs}");
            self.findings.blame(key, Some(at.line), problem);
        }
        let own = self.events.fingerprint(id);
        if own.is_none() {
            self.findings.disagreements += 1;
            self.findings.blame(key, Some(at.line), format!("event {id} itself is not stored"));
        }
        if own == Some(fingerprint) || !self.revisions.insert((id, fingerprint)) {
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
        self.blame(key, at.object, Some(at.line), format!("the line cannot be read: {why}"));
    }

    fn hold_against(&mut self, before: LedgerState, after: LedgerState) {
        match before {
            LedgerState::Own(ledger) => self.hold_remembered(&ledger),
            LedgerState::Foreign(ids) => {
                self.findings.vouched_for = ids.iter().filter(|id| !self.events.contains(**id)).count();
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
        for (id, seen) in ledger.iter().filter(|(id, _)| !self.events.contains(*id)) {
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
        let unknown = self.events.iter().filter(|(id, at, day)| {
            let day = day.or_else(|| Some(Place::of(self.key(at.object)?.as_str())?.day));
            day.is_some_and(|day| !ledger.is_late(day)) && ledger.get(*id).is_none() && !claimed.contains(id)
        });
        let forgotten: BTreeSet<EventId> = unknown.map(|(id, ..)| id).collect();
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
