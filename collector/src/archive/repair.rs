//! Makes an archive sound again without deleting a byte.
//!
//! It holds a claim on nothing while it works, so that collectors leave. What cannot stay under `events/`
//! is first stored where it belongs (its own day, or `revisions/` if its content differs), then copied to
//! `repaired/` as it is, and only then taken out of its object. Whatever moment it stops at, every line is
//! still somewhere, and it may be started again.

use std::collections::BTreeMap;

use serde::Serialize;
use tracing::debug;

use super::audit::{Audit, Fault, LedgerState, MOST_PROBLEMS};
use super::inventory::is_gone;
use super::journal::{committed, content_digest};
use super::layout::{Kind, Place};
use super::ledger_file::{Agreement, Snapshot, Swap};
use super::owner::ActiveRun;
use super::{Archive, ArchiveError};
use crate::event::{self, Event};
use crate::ledger::{ClaimedObject, CommitKind, CommittedObject, Ledger};
use crate::store::{Key, Write};

/// What a repair did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Objects that a dead run had claimed, settled now.
    pub claimed: usize,
    /// Lines moved out of `events/`.
    pub moved: usize,
    /// Of these, the ones whose id stands in another line.
    pub duplicates: usize,
    /// Of these, the ones stored anew in the day they belong to.
    pub replaced: usize,
    /// Of these, the ones that cannot be read.
    pub unreadable: usize,
    /// Versions among the duplicates that were not stored as revisions and are now.
    pub revisions: usize,
    /// Objects that were rewritten.
    pub objects: usize,
    /// Objects that were committed and are not stored. Their loss is noted in the journal.
    pub absent: usize,
    /// Objects that are not as they were committed. Their content is noted in the journal.
    pub altered: usize,
    /// The names of both, the first [`MOST_PROBLEMS`] of them.
    pub noted_objects: Vec<String>,
    /// Records of the journal that were missing and are written anew. `changes` does not return the objects that they named.
    pub journal_records: usize,
    /// Whether the ledger was made anew from the archive.
    pub ledger_rebuilt: bool,
}

/// Maximum number of objects in one claim or commit of a repair.
const OBJECTS_PER_COMMIT: usize = 40;

/// What is to be done with the lines of one object that cannot stay.
type Plan = BTreeMap<Key, BTreeMap<u32, Fault>>;

impl Archive {
    /// Repairs the archive, or reports what it would change. `progress` is called with the objects read and their total.
    ///
    /// # Errors
    /// [`ArchiveError::Busy`] if a collector is at work; another if the store fails. Nothing is lost then, and
    /// the repair may be started again.
    pub async fn repair(
        &self,
        dry_run: bool,
        progress: impl FnMut(usize, usize),
    ) -> Result<Repair, ArchiveError> {
        let mut repair = Repair { dry_run, ..Repair::default() };
        if dry_run {
            let audit = self.audit(progress).await?;
            repair.claimed = audit.findings.claimed;
            let foreign = matches!(self.read_ledger().await?, LedgerState::Foreign(_));
            repair.ledger_rebuilt = foreign || audit.ledger_is_wrong;
            repair.survey(&audit);
            let mut relocated = Relocated { only_counts: true, ..Relocated::default() };
            for (key, faults) in plan(&audit) {
                self.relocate(&key, &faults, &audit, &mut relocated, &mut repair).await?;
            }
            return Ok(repair);
        }
        let mut hold = Hold::take(self, &mut repair).await?;
        self.remove_day_indexes().await?;
        let audit = self.audit(progress).await?;
        repair.survey(&audit);
        self.fill_gaps(&hold.held.ledger.lineage, &audit.journal_gaps).await?;
        // What is not as it was committed goes into the journal as it is, before it is changed once more.
        for objects in audit.altered.chunks(OBJECTS_PER_COMMIT) {
            hold.commit(objects.to_vec()).await?;
        }
        let plan = plan(&audit);
        let mut relocated = Relocated::default();
        for (key, faults) in &plan {
            hold.renew().await?;
            self.relocate(key, faults, &audit, &mut relocated, &mut repair).await?;
        }
        self.store_relocated(relocated, &mut hold).await?;
        let mut replaced = Vec::new();
        for (key, faults) in &plan {
            hold.renew().await?;
            replaced.extend(self.take_out(key, faults).await?);
            if replaced.len() >= OBJECTS_PER_COMMIT {
                hold.commit(std::mem::take(&mut replaced)).await?;
            }
        }
        hold.commit(replaced).await?;
        hold.let_go(&mut repair, audit.ledger_is_wrong).await?;
        Ok(repair)
    }

    /// Finds out where the lines that cannot stay belong.
    async fn relocate(
        &self,
        key: &Key,
        faults: &BTreeMap<u32, Fault>,
        audit: &Audit,
        relocated: &mut Relocated,
        repair: &mut Repair,
    ) -> Result<(), ArchiveError> {
        let Some(object) = self.store.get(key).await? else { return Ok(()) };
        for (line, fault) in faulty_lines(&object.bytes, faults) {
            let Ok(event) = event::parse_line(line) else { continue };
            match fault {
                Fault::Misplaced => relocated.add(Kind::Events, event, line),
                Fault::Duplicate if relocated.is_new_version(event, audit) => {
                    repair.revisions += 1;
                    relocated.add(Kind::Revisions, event, line);
                }
                Fault::Duplicate | Fault::Unreadable => {}
            }
        }
        Ok(())
    }

    /// Stores lines where they belong. The objects are claimed as those of a run are, so that they can be fenced.
    async fn store_relocated(&self, relocated: Relocated, hold: &mut Hold<'_>) -> Result<(), ArchiveError> {
        let second = self.clock.now().timestamp();
        let mut waiting = relocated.objects.into_iter().peekable();
        while waiting.peek().is_some() {
            let mut batch = Vec::new();
            for (place, bytes) in waiting.by_ref().take(OBJECTS_PER_COMMIT) {
                batch.push((self.free_name(place, second).await?, bytes));
            }
            let claimed = batch.iter().map(|(key, _)| ClaimedObject {
                key: key.as_str().to_owned(),
                ids: Vec::new(),
                fingerprints: Vec::new(),
            });
            hold.claim(claimed.collect()).await?;
            for (key, bytes) in &batch {
                match self.store.create(key, bytes).await? {
                    Write::Done(_) => {}
                    Write::Refused => return Err(ArchiveError::Interrupted),
                }
            }
            hold.commit(batch.iter().map(|(key, bytes)| committed(key, bytes)).collect()).await?;
        }
        Ok(())
    }

    async fn free_name(&self, place: Place, second: i64) -> Result<Key, ArchiveError> {
        for ordinal in 1.. {
            let key = place.kind.key(place.day, second, ordinal);
            if self.store.head(&key).await?.is_none() {
                return Ok(key);
            }
        }
        Err(ArchiveError::Interrupted)
    }

    /// Takes lines out of an object, after they are safe under `repaired/`. How the commit names the object.
    async fn take_out(
        &self,
        key: &Key,
        faults: &BTreeMap<u32, Fault>,
    ) -> Result<Option<CommittedObject>, ArchiveError> {
        let Some(object) = self.store.get(key).await? else { return Ok(None) };
        let removed: Vec<u8> =
            faulty_lines(&object.bytes, faults).flat_map(|(line, _)| [line, b"\n"].concat()).collect();
        self.keep_aside(key, &removed).await?;
        let kept: Vec<u8> = numbered_lines(&object.bytes)
            .filter(|(number, line)| !faults.contains_key(number) && !line.is_empty())
            .flat_map(|(_, line)| [line, b"\n"].concat())
            .collect();
        match self.store.replace(key, &kept, &object.version).await? {
            Write::Done(_) => {
                debug!(%key, lines = faults.len(), "moved to repaired/");
                let replaces = Some(content_digest(&object.bytes));
                Ok(Some(CommittedObject { replaces, ..committed(key, &kept) }))
            }
            Write::Refused => Err(ArchiveError::Interrupted),
        }
    }

    /// Keeps lines of an object under `repaired/`: under the first name that is free, or holds these bytes already.
    pub(crate) async fn keep_aside(&self, key: &Key, bytes: &[u8]) -> Result<(), ArchiveError> {
        for ordinal in 1.. {
            let stem = key.as_str().trim_end_matches(".jsonl");
            let suffix = if ordinal > 1 { format!("-{ordinal}") } else { String::new() };
            let key = Key::of_parts(format!("repaired/{stem}{suffix}.jsonl"));
            if matches!(self.store.create(&key, bytes).await?, Write::Done(_)) {
                break;
            }
            if self.store.get(&key).await?.is_some_and(|object| object.bytes == bytes) {
                break;
            }
        }
        Ok(())
    }
}

impl Repair {
    fn survey(&mut self, audit: &Audit) {
        let count = |wanted| audit.faults.iter().filter(|&&(_, fault)| fault == wanted).count();
        self.moved = audit.faults.len();
        self.duplicates = count(Fault::Duplicate);
        self.replaced = count(Fault::Misplaced);
        self.unreadable = count(Fault::Unreadable);
        self.objects = plan(audit).len();
        self.absent = audit.altered.iter().filter(|object| is_gone(object)).count();
        self.altered = audit.altered.len() - self.absent;
        self.noted_objects =
            audit.altered.iter().take(MOST_PROBLEMS).map(|object| object.key.clone()).collect();
        self.journal_records = audit.journal_gaps.len();
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let noted = self.absent + self.altered + self.journal_records;
        self.moved + self.claimed + noted == 0 && !self.ledger_rebuilt
    }
}

fn plan(audit: &Audit) -> Plan {
    let mut plan = Plan::new();
    for &(at, fault) in &audit.faults {
        if let Some(key) = audit.key(at.object) {
            plan.entry(key).or_default().insert(at.line, fault);
        }
    }
    plan
}

fn numbered_lines(bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    (0..).zip(bytes.split(|&byte| byte == b'\n'))
}

fn faulty_lines<'a>(
    bytes: &'a [u8],
    faults: &'a BTreeMap<u32, Fault>,
) -> impl Iterator<Item = (&'a [u8], Fault)> {
    numbered_lines(bytes).filter_map(|(number, line)| Some((line, *faults.get(&number)?)))
}

/// Lines that are stored anew somewhere else.
#[derive(Debug, Default)]
struct Relocated {
    /// Whether the lines are not kept.
    only_counts: bool,
    objects: BTreeMap<Place, Vec<u8>>,
    versions: std::collections::BTreeSet<(i64, String)>,
}

impl Relocated {
    fn add(&mut self, kind: Kind, event: Event, line: &[u8]) {
        if self.only_counts {
            return;
        }
        let bytes = self.objects.entry(Place { kind, day: event.day }).or_default();
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
    }

    /// Whether this content is neither the event's own line nor a revision.
    fn is_new_version(&mut self, event: Event, audit: &Audit) -> bool {
        let own = audit.events.fingerprint(event.id) == Some(event.fingerprint);
        !own && !audit.revisions.contains(&(event.id, event.fingerprint))
            && self.versions.insert((event.id, event.fingerprint.to_string()))
    }
}

/// A claim on nothing, under which no collector works.
struct Hold<'a> {
    archive: &'a Archive,
    run: ActiveRun,
    /// The ledger with the claim.
    held: Snapshot,
    /// Whether the ledger that was found is to be replaced by one made from the archive.
    rebuild: bool,
    /// Objects that changed while the journal and the ledger had different histories.
    uncommitted: Vec<CommittedObject>,
}

impl<'a> Hold<'a> {
    async fn take(archive: &'a Archive, repair: &mut Repair) -> Result<Self, ArchiveError> {
        let run = ActiveRun::begin(archive.clock.now());
        loop {
            let state = archive.read_ledger().await?;
            let (snapshot, rebuild) = match state {
                LedgerState::Own(_) => (archive.read_snapshot().await?, false),
                LedgerState::Missing => {
                    let snapshot = archive.read_snapshot().await?;
                    let holds_something = !snapshot.ledger.is_empty();
                    (snapshot, holds_something)
                }
                LedgerState::Foreign(_) => (archive.read_snapshot().await?, true),
                LedgerState::Unusable(_) => (archive.in_place_of_unusable().await?, true),
            };
            if let Some(claim) = &snapshot.ledger.claim {
                if !archive.may_take_over(claim, &run) {
                    return Err(ArchiveError::busy(claim));
                }
                repair.claimed += claim.objects.len();
                let ours = archive.claim_of_run(&run, claim.objects.clone());
                archive.finish(&snapshot, ours).await?;
                continue;
            }
            let claim = archive.claim_of_run(&run, Vec::new());
            let mut ledger = snapshot.ledger.with_claim(claim);
            if !ledger.lineage.is_known() {
                // Before anything is journaled, or a repair that was taken over would begin another history.
                ledger.lineage = archive.begin_lineage().await?;
            }
            let swap = archive.swap(&snapshot, ledger).await?;
            if let Swap::Done(held) = swap {
                return Ok(Self { archive, run, held: *held, rebuild, uncommitted: Vec::new() });
            }
        }
    }

    /// Keeps others away for another lease once a third of it is over.
    async fn renew(&mut self) -> Result<(), ArchiveError> {
        let until = self.held.ledger.claim.as_ref().map_or(0, |claim| claim.until);
        let lease = i64::try_from(self.archive.options.lease.as_secs()).unwrap_or(i64::MAX);
        if until - self.archive.clock.now().timestamp() > lease / 3 * 2 {
            return Ok(());
        }
        self.claim(Vec::new()).await
    }

    async fn claim(&mut self, objects: Vec<ClaimedObject>) -> Result<(), ArchiveError> {
        let claim = self.archive.claim_of_run(&self.run, objects);
        self.change(self.held.ledger.with_claim(claim)).await
    }

    /// Appends to the journal what was written, and keeps the claim.
    async fn commit(&mut self, objects: Vec<CommittedObject>) -> Result<(), ArchiveError> {
        if objects.is_empty() {
            return Ok(());
        }
        let mut ledger = self.held.ledger.with_claim(self.archive.claim_of_run(&self.run, Vec::new()));
        if !ledger.lineage.is_known() || !self.archive.flush_journal(&ledger.lineage).await? {
            // Which history this is becomes clear when the ledger is made anew. What was added is found then.
            self.rebuild = true;
            self.uncommitted.extend(objects.into_iter().filter(|object| object.replaces.is_some()));
            return self.change(ledger).await;
        }
        let added = objects.iter().filter(|object| object.replaces.is_none());
        added.for_each(|object| ledger.count_object(&object.key, object.size_bytes));
        let at = self.archive.clock.now().timestamp();
        ledger.commit(CommitKind::Repair, self.run.name(), at, objects);
        self.change(ledger).await
    }

    async fn change(&mut self, ledger: Ledger) -> Result<(), ArchiveError> {
        match self.archive.swap(&self.held, ledger).await? {
            Swap::Done(held) => {
                self.held = *held;
                Ok(())
            }
            Swap::Lost => Err(ArchiveError::Interrupted),
        }
    }

    /// Lets collectors work again, with a ledger made anew if the one there is wrong.
    async fn let_go(mut self, repair: &mut Repair, ledger_is_wrong: bool) -> Result<(), ArchiveError> {
        let held = self.held.ledger.without_claim();
        let mut ledger = None;
        if !self.rebuild && !ledger_is_wrong {
            ledger = match self.archive.reconciled(held.clone()).await {
                Err(ArchiveError::Incomplete { .. } | ArchiveError::AnotherArchive { .. }) => None,
                reconciled => Some(reconciled?),
            };
        }
        repair.ledger_rebuilt = ledger.is_none();
        let mut ledger = match ledger {
            Some(ledger) => ledger,
            None => self.archive.rebuild_after(&held).await?,
        };
        let uncommitted = std::mem::take(&mut self.uncommitted);
        self.archive.append_to_journal(&mut ledger.lineage, CommitKind::Repair, &uncommitted).await?;
        self.change(ledger).await
    }
}

impl Archive {
    /// A ledger made from the archive, to be put where one stands that cannot be used.
    async fn in_place_of_unusable(&self) -> Result<Snapshot, ArchiveError> {
        let version = self.read_version().await?;
        Ok(Snapshot::new(self.rebuild().await?, version, Agreement::Open))
    }
}
