//! One update of a replica: claim, objects, records, in as many rounds as their number asks for; then the ledger.

use std::collections::{BTreeSet, VecDeque};

use futures_util::FutureExt as _;
use futures_util::stream::TryStreamExt as _;
use tokio::sync::OnceCell;
use tracing::{debug, warn};

use super::copy::{Latest, Outcome};
use super::rate::Rate;
use super::role::role_key;
use super::{Interruption, Mirror, MirrorError, MirrorReport};
use crate::archive::compare::tally_of;
use crate::archive::journal::journal_key;
use crate::archive::ledger_file::{Snapshot, Swap};
use crate::archive::owner::ActiveRun;
use crate::archive::{ArchiveError, Kind, Place};
use crate::concurrency::buffered;
use crate::ledger::{
    ClaimedObject, CommitKind, CommitRecord, CommittedObject, Ledger, SIZE_LIMIT_BYTES, Tally,
};
use crate::store::{Key, Listed, Write};

/// Room that stays free in the document of a ledger with a claim.
const SPARE_BYTES: usize = 4 * 1024;
/// What a claim says of an object beside its name.
const NAMED_BYTES: usize = 12;
/// Maximum number of objects of a round.
const ROUND_OBJECTS: usize = 1_000;
/// Maximum size of the objects of a round, so that a claim does not expire under way.
const ROUND_BYTES: u64 = 32 * 1024 * 1024;
/// Number of records that are read together.
const RECORDS: u64 = 64;

/// How an update ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The replica covers all that the source had committed.
    Complete,
    /// Objects are not what they have to be. The ledger of the replica is what it was.
    Conflicting,
}

pub(super) struct Session<'a, P> {
    pub(super) mirror: &'a Mirror,
    run: &'a ActiveRun,
    /// The ledger of the source.
    pub(super) source: Ledger,
    /// The ledger of the replica as it was written last.
    held: Snapshot,
    /// The ledger of the replica with all objects counted that were copied since.
    counted: Ledger,
    pub(super) report: &'a mut MirrorReport,
    progress: &'a mut P,
    pub(super) rate: Rate,
    /// The last commit of the replica when this began.
    pub(super) from: u64,
    pub(super) latest: OnceCell<Latest>,
    /// Objects that the journal of the source names as replaced.
    replaced: Vec<CommittedObject>,
    is_repaired: bool,
    /// What an update that was broken off had claimed, and may still arrive.
    inherited: Vec<ClaimedObject>,
}

/// Objects that are copied under one claim, and the records that are complete with them.
#[derive(Default)]
struct Round {
    objects: Vec<CommittedObject>,
    records: Vec<CommitRecord>,
    claim_bytes: usize,
    bytes: u64,
}

impl Round {
    fn is_full(&self, room_bytes: usize, max_bytes: u64) -> bool {
        self.claim_bytes >= room_bytes || self.objects.len() >= ROUND_OBJECTS || self.bytes >= max_bytes
    }

    fn claimed(&self) -> Vec<ClaimedObject> {
        let objects = self.objects.iter().map(|object| object.key.clone());
        let records = self.records.iter().map(|record| journal_key(record.sequence).to_string());
        // The role shows whose claim it is: that of an update, and not of a run.
        objects.chain(records).chain([role_key().to_string()]).map(named).collect()
    }
}

fn named(key: String) -> ClaimedObject {
    ClaimedObject { key, ids: Vec::new(), fingerprints: Vec::new() }
}

impl<'a, P: FnMut(usize) + Send + Sync> Session<'a, P> {
    pub(super) fn new(
        mirror: &'a Mirror,
        run: &'a ActiveRun,
        source: Ledger,
        held: Snapshot,
        report: &'a mut MirrorReport,
        progress: &'a mut P,
    ) -> Self {
        let (from, counted) = (held.ledger.lineage.sequence(), held.ledger.without_claim());
        let rate = Rate::new(mirror.options.max_rate);
        Self {
            mirror,
            run,
            source,
            held,
            counted,
            report,
            progress,
            rate,
            from,
            latest: OnceCell::new(),
            replaced: Vec::new(),
            is_repaired: false,
            inherited: Vec::new(),
        }
    }

    pub(super) async fn copy(&mut self) -> Result<Ended, Interruption> {
        // An archive that was fenced has not written its last record yet, and its ledger is about to be replaced.
        let lineage = &self.held.ledger.lineage;
        if !self.mirror.target.flush_journal(lineage).await? {
            let (location, sequence) = (self.mirror.target.store().location(), lineage.sequence());
            return Err(MirrorError::Diverged { location, sequence }.into());
        }
        if self.held.ledger.claim.is_some() && !self.finish_round_of_another().await? {
            return self.let_go().await;
        }
        if !self.copy_records().await? {
            return self.let_go().await;
        }
        let replaced = std::mem::take(&mut self.replaced);
        for object in &replaced {
            self.replace(object).await?;
        }
        if self.is_repaired || self.from == 0 {
            self.copy_repaired().await?;
        }
        if self.report.conflicts_total > 0 {
            return self.let_go().await;
        }
        self.compare_days().await?;
        self.publish_ledger().await?;
        Ok(Ended::Complete)
    }

    /// Copies what an update claimed that was broken off. Its writes may still be on their way, so nothing else is claimed before
    /// all of them are there; its records stay claimed. Whether all objects are there.
    async fn finish_round_of_another(&mut self) -> Result<bool, Interruption> {
        let claim = self.held.ledger.claim.iter();
        let objects: Vec<ClaimedObject> = claim.flat_map(|claim| claim.objects.clone()).collect();
        debug!(objects = objects.len(), "finishing an update that was broken off");
        self.claim(objects.clone()).await?;
        self.inherited.clone_from(&objects);
        let is_object = |object: &ClaimedObject| Place::of(&object.key).is_some();
        let objects = objects.into_iter().filter(is_object).map(|object| CommittedObject {
            key: object.key,
            size_bytes: 0,
            digest: String::new(),
            replaces: None,
        });
        let objects: Vec<_> = objects.collect();
        if !self.copy_objects(&objects).await? {
            return Ok(false);
        }
        self.inherited.retain(|object| Place::of(&object.key).is_none());
        Ok(true)
    }

    /// Copies the objects of all commits that the replica does not cover, and the records. Whether all of them are there.
    async fn copy_records(&mut self) -> Result<bool, Interruption> {
        let last = self.source.lineage.sequence();
        let mut round = Round::default();
        let mut next = self.from + 1;
        let max_bytes = self.max_round_bytes();
        while next <= last {
            let records = self.source_records(next, last).await?;
            next += records.len() as u64;
            for mut record in records {
                let mut objects: VecDeque<_> = std::mem::take(&mut record.objects).into();
                let all = objects.clone();
                while let Some(object) = objects.pop_front() {
                    if round.is_full(self.room_bytes(), max_bytes)
                        && !self.finish_round(std::mem::take(&mut round)).await?
                    {
                        return Ok(false);
                    }
                    self.add(object, &mut round);
                }
                record.objects = all.into();
                self.is_repaired |= record.kind == CommitKind::Repair;
                round.claim_bytes += journal_key(record.sequence).as_str().len() + NAMED_BYTES;
                round.records.push(record);
            }
        }
        let is_empty = round.records.is_empty() && round.objects.is_empty();
        Ok(is_empty || self.finish_round(round).await?)
    }

    fn add(&mut self, object: CommittedObject, round: &mut Round) {
        if Place::of(&object.key).is_none() {
            warn!(key = object.key, "a record names an object that no archive has; it is passed over");
        } else if object.replaces.is_some() {
            self.replaced.push(object);
        } else {
            self.counted.count_object(&object.key, object.size_bytes);
            round.claim_bytes += object.key.len() + NAMED_BYTES;
            round.bytes += object.size_bytes;
            round.objects.push(object);
        }
    }

    /// What a claim can hold beside the ledger of the replica.
    fn room_bytes(&self) -> usize {
        let ledger = self.held.ledger.without_claim().to_document().len();
        let inherited: usize = self.inherited.iter().map(|object| object.key.len() + NAMED_BYTES).sum();
        (SIZE_LIMIT_BYTES - SPARE_BYTES).saturating_sub(ledger + inherited)
    }

    fn max_round_bytes(&self) -> u64 {
        let lease_s = super::third(self.mirror.target.lease()).as_secs().max(1);
        self.mirror.options.max_rate.map_or(ROUND_BYTES, |rate| ROUND_BYTES.min(rate.saturating_mul(lease_s)))
    }

    /// Claims the objects and records of a round and copies them. Whether all of them are there.
    async fn finish_round(&mut self, round: Round) -> Result<bool, Interruption> {
        self.claim(round.claimed()).await?;
        if !self.copy_objects(&round.objects).await? {
            return Ok(false);
        }
        let writes = round.records.iter().map(|record| self.write_record(record).boxed());
        let writes = buffered(self.mirror.target.parallel(), writes.collect::<Vec<_>>());
        let written: Vec<bool> = writes.try_collect().await?;
        for (record, is_written) in round.records.into_iter().zip(written) {
            if !is_written {
                let key = journal_key(record.sequence);
                self.report.blame(key.as_str(), "the replica has another record of that number");
                return Ok(false);
            }
            if self.held.ledger.replica.as_ref().is_some_and(|replica| !replica.complete) {
                self.held.ledger.lineage.follow(record);
            }
        }
        Ok(true)
    }

    async fn claim(&mut self, mut objects: Vec<ClaimedObject>) -> Result<(), Interruption> {
        for inherited in &self.inherited {
            if objects.iter().all(|object| object.key != inherited.key) {
                objects.push(inherited.clone());
            }
        }
        let claim = self.mirror.target.claim_of_run(self.run, objects);
        self.change(self.held.ledger.with_claim(claim)).await
    }

    async fn change(&mut self, ledger: Ledger) -> Result<(), Interruption> {
        match self.mirror.target.swap(&self.held, ledger).await? {
            Swap::Done(held) => {
                self.held = *held;
                Ok(())
            }
            Swap::Lost => Err(Interruption::Changed),
        }
    }

    /// Ends with the ledger that was there, since not everything could be copied. What may still arrive stays claimed.
    async fn let_go(&mut self) -> Result<Ended, Interruption> {
        let mut absent = Vec::new();
        for object in std::mem::take(&mut self.inherited) {
            let Ok(key) = Key::new(object.key.as_str()) else { continue };
            if key == role_key() || self.mirror.target.store().head(&key).await?.is_none() {
                absent.push(object);
            }
        }
        if absent.len() > 1 {
            self.claim(absent).await?;
        } else if self.held.ledger.claim.is_some() {
            self.change(self.held.ledger.without_claim()).await?;
        }
        Ok(Ended::Conflicting)
    }

    /// Copies objects. Whether all of them are there now with the content of the source. Who finds a revision takes its event
    /// for stored, so revisions come after all events.
    async fn copy_objects(&mut self, objects: &[CommittedObject]) -> Result<bool, Interruption> {
        let is_revision = |object: &&CommittedObject| {
            Place::of(&object.key).is_some_and(|place| place.kind == Kind::Revisions)
        };
        let (later, first): (Vec<_>, Vec<_>) = objects.iter().partition(is_revision);
        let are_there = self.copy_together(&first).await? && self.copy_together(&later).await?;
        (self.progress)(self.report.objects + self.report.present);
        Ok(are_there)
    }

    /// Copies objects, several at a time.
    async fn copy_together(&mut self, objects: &[&CommittedObject]) -> Result<bool, Interruption> {
        let this = &*self;
        let copies: Vec<_> = objects.iter().map(|object| this.copy_object(object).boxed()).collect();
        let mut copies = buffered(self.mirror.target.parallel(), copies);
        let mut results = Vec::with_capacity(objects.len());
        while let Some(result) = copies.try_next().await? {
            results.push(result);
        }
        drop(copies);
        let mut are_there = true;
        for (object, outcome) in objects.iter().zip(results) {
            match outcome {
                Outcome::Written(bytes) => {
                    self.report.objects += 1;
                    self.report.bytes += bytes;
                }
                Outcome::Present => self.report.present += 1,
                Outcome::Gone => {}
                Outcome::Conflict(problem) => {
                    self.report.blame(&object.key, problem);
                    are_there = false;
                }
            }
        }
        Ok(are_there)
    }

    /// Records of the source from one number on, at least one.
    async fn source_records(&self, next: u64, last: u64) -> Result<Vec<CommitRecord>, MirrorError> {
        let lineage = &self.source.lineage;
        let unwritten = lineage.unwritten().filter(|record| record.sequence == last);
        let end = (next + RECORDS).min(if unwritten.is_some() { last } else { last + 1 });
        let mut records = self.mirror.source.records(next..end).await?;
        let missing = next + records.len() as u64;
        if missing < end {
            let reason =
                "it is missing; `collector repair` puts a record without objects in its place".to_owned();
            return Err(ArchiveError::Journal { key: journal_key(missing), reason }.into());
        }
        if end == last {
            records.extend(unwritten.cloned());
        }
        Ok(records)
    }

    /// Every record of the source after the last one that the replica covers.
    pub(super) async fn later_records(&self) -> Result<Vec<CommitRecord>, MirrorError> {
        let last = self.source.lineage.sequence();
        let mut all = Vec::new();
        while let next = self.from + 1 + all.len() as u64
            && next <= last
        {
            all.extend(self.source_records(next, last).await?);
        }
        Ok(all)
    }

    /// Objects without content are named by no commit, and count for the days they are in. Where a day of the source holds more
    /// than was copied, they are copied as well.
    async fn compare_days(&mut self) -> Result<(), Interruption> {
        let days: Vec<(String, Tally)> = self.source.tallies.clone().into_iter().collect();
        let differing = days.into_iter().filter(|(day, tally)| self.counted.expected(day) != Some(*tally));
        let differing: Vec<_> = differing.collect();
        let this = &*self;
        let compared = differing.into_iter().map(|(day, tally)| this.compare_day(day, tally).boxed());
        let compared = buffered(self.mirror.target.parallel(), compared.collect::<Vec<_>>());
        let compared: Vec<Option<String>> = compared.try_collect().await?;
        let Some(day) = compared.into_iter().flatten().next() else { return Ok(()) };
        // The source may have changed since its ledger was read.
        let (now, _) = self.mirror.source.peek_ledger().await?.unwrap_or_default();
        if now.writes != self.source.writes {
            return Err(Interruption::Changed);
        }
        let location = self.mirror.source.store().location();
        Err(MirrorError::SourceDisagrees { location, day }.into())
    }

    /// Copies the empty objects of a day. The day, if it does not hold then what the ledger of the source says.
    async fn compare_day(&self, day: String, tally: Tally) -> Result<Option<String>, MirrorError> {
        let (source, target) = (self.mirror.source.store(), self.mirror.target.store());
        let (mut of_source, of_target) = tokio::try_join!(source.list(&day), target.list(&day))?;
        // What a run is about to do, or has left behind, is not counted before its claim is finished.
        let claimed = self.source.claim.iter().flat_map(|claim| &claim.objects);
        let claimed: BTreeSet<&str> = claimed.map(|object| object.key.as_str()).collect();
        let others = of_source.iter().filter(|listed| !claimed.contains(listed.key.as_str()));
        let others: Vec<Listed> = others.cloned().collect();
        if tally_of(&others) == tally {
            of_source = others;
        }
        let position = |key: &Key| of_target.binary_search_by(|listed| listed.key.cmp(key)).ok();
        let mut held: Vec<Listed> = Vec::new();
        for listed in of_source {
            match position(&listed.key) {
                Some(at) => held.push(of_target[at].clone()),
                None if listed.size_bytes == 0 => {
                    if let Write::Refused = target.create(&listed.key, b"").await? {
                        continue;
                    }
                    held.push(listed);
                }
                None => {}
            }
        }
        Ok((tally_of(&held) != tally).then_some(day))
    }

    /// Puts the ledger of the source into the replica. Everything that it covers is there.
    async fn publish_ledger(&mut self) -> Result<(), Interruption> {
        let (source, store) = (&self.source, self.mirror.target.store());
        let (mut ledger, held) = (source.without_claim(), &self.held.ledger);
        ledger.conditions.clone_from(&held.conditions);
        // A promotion that is under way has raised one of them.
        ledger.lineage.epoch = source.lineage.epoch.max(held.lineage.epoch);
        let epoch = held.replica.as_ref().map_or(0, |replica| replica.epoch).max(source.lineage.epoch);
        ledger.replica = Some(self.mirror.replica(epoch, true));
        ledger.writes = self.held.ledger.writes;
        ledger.lineage.note_written();
        let sequence = source.lineage.sequence();
        if ledger != self.held.ledger {
            self.change(ledger).await?;
        }
        self.report.sequence = sequence;
        self.report.behind_objects = 0;
        self.report.committed_at = self.source.last_commit_at();
        self.mirror.role(&self.source, sequence).publish(store).await?;
        Ok(())
    }
}
