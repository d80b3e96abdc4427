//! What happens around an archive in the field: wrong clocks, lost memories, listings that lie, restores.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use collector::archive::Memory as _;
use collector::event::{Event, EventId};
use collector::record::Limits;
use collector::store::Listed;

use super::Schedule;
use crate::restore::{Part, ledger, vouched_for};
use crate::store::{Reply, Request, ScheduledStore};

impl Schedule {
    /// What happens around an archive in the field.
    pub(super) fn be_hostile(&mut self) -> Result<(), String> {
        match self.rng.below(4) {
            0 | 1 => {
                let machine = self.rng.index(self.machines.len());
                let seconds =
                    [0, 0, 60, -60, 7_200, -7_200, 400 * 86_400, -4_000 * 86_400][self.rng.index(8)];
                self.note(|| format!("the clock of machine {machine} is wrong by {seconds} s"));
                self.machines[machine].set_clock(TimeDelta::seconds(seconds));
                self.seen[machine] = None;
                Ok(())
            }
            2 => {
                let machine = self.rng.index(self.machines.len());
                self.note(|| format!("machine {machine} loses its memory"));
                self.machines[machine].forget();
                self.backups.note_forgotten();
                self.seen[machine] = None;
                Ok(())
            }
            _ => self.back_up_or_restore(),
        }
    }

    fn back_up_or_restore(&mut self) -> Result<(), String> {
        let is_incomplete = self.backups.is_incomplete();
        if !is_incomplete && (self.backups.is_empty() || self.rng.chance(600)) {
            // On a bucket one object a run is looked at: a cut through the last commit is found within a few runs.
            if self.is_atomic && ledger(&self.disk).is_some_and(|ledger| ledger.claim.is_some()) {
                return Ok(());
            }
            self.note(|| "a backup is made".to_owned());
            self.backups.take(&self.disk);
            return Ok(());
        }
        // As the documentation asks, collectors are stopped first.
        while !self.processes.is_empty() {
            self.reap(0);
        }
        self.late.clear();
        if is_incomplete {
            self.note(|| "what was missing arrives".to_owned());
            self.backups.complete(&self.disk);
        } else {
            let part = [Part::Ledger, Part::Metadata, Part::Objects][self.rng.index(3)];
            self.note(|| format!("the backup of {part:?} is restored"));
            self.backups.restore(&self.disk, part);
        }
        self.promises.look_at_all(&self.disk, self.backups.is_incomplete())
    }

    /// A listing that lacks an object of a day for which the ledger vouches.
    pub(super) fn lie(&mut self, store: &ScheduledStore, request: &Request) -> Option<Vec<Listed>> {
        let Request::List(prefix) = request else { return None };
        if prefix.starts_with("metadata/") {
            return None;
        }
        let Ok(Reply::Listed(mut listed)) = store.apply(request) else { return None };
        let vouched_for = vouched_for(&self.disk, &listed);
        if vouched_for.is_empty() {
            return None;
        }
        let hidden = vouched_for[self.rng.index(vouched_for.len())].clone();
        listed.retain(|object| object.key != hidden);
        Some(listed)
    }

    /// No machine reports health while an event that it saw longer ago than the limit is not stored.
    pub(super) fn check_health(&mut self) -> Result<(), String> {
        let (now, limits) = (self.clock.now(), Limits::default());
        let stored = &self.promises;
        for (number, machine) in self.machines.iter_mut().enumerate() {
            if let Some(id) = machine.false_health(now, &limits, |id| stored.is_stored(id)) {
                return Err(format!("machine {number} reports health while event {id} is not stored"));
            }
        }
        Ok(())
    }

    /// Success is not reported over a ledger that lacks what this machine has seen committed within a day.
    pub(super) fn check_memory(&mut self, machine: usize) -> Result<(), String> {
        let now = self.clock.now();
        // What is claimed is stored before the ledger knows it, and is not committed where a restore takes the claim away.
        let Some(ledger) = ledger(&self.disk).filter(|ledger| ledger.claim.is_none()) else { return Ok(()) };
        let committed = self.promises.stored().filter(|event| ledger.get(event.id).is_some()).collect();
        let known = self.machines[machine].memory.recall("simulation");
        let seen = if known.last().is_some_and(|known| known.mark == ledger.lineage.mark()) {
            self.seen[machine].replace((now, committed))
        } else {
            // Another machine has committed since this one read the ledger.
            self.seen[machine].clone()
        };
        let Some((then, events)) = seen else { return Ok(()) };
        let stored: BTreeSet<EventId> = self.promises.stored().map(|event| event.id).collect();
        let is_unknown = |event: &&Event| !ledger.is_late(event.day) && ledger.get(event.id).is_none();
        let unknown = events.iter().filter(is_unknown).find(|event| stored.contains(&event.id));
        match unknown.filter(|_| now - then < TimeDelta::hours(20)) {
            Some(event) => {
                Err(format!("success is reported over a ledger that does not know event {}", event.id))
            }
            None => Ok(()),
        }
    }
}
