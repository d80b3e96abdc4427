//! A simulated schedule: two regions, the link between them, and steps drawn from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use collector::archive::{Archive, ArchiveOptions, Kind, Place, ProcessMemory};
use collector::clock::{Clock as _, VirtualClock};
use collector::ledger::{Ledger, LedgerDocument};
use collector::store::StoreError;
use futures_util::FutureExt as _;

use crate::process::{Census, Process, Said, Task, work};
use crate::rng::SeededRng;
use crate::store::{Guard, Region, Reply, Request, ScheduledStore, Version};
use crate::tape::Tape;

const MOST_PROCESSES: usize = 3;
const LEASE: Duration = Duration::from_hours(1);

pub(crate) struct Schedule {
    rng: SeededRng,
    tape: &'static Tape,
    clock: Arc<VirtualClock>,
    regions: [Region; 2],
    memories: [Arc<ProcessMemory>; 2],
    broken: Option<Guard>,
    is_atomic: [bool; 2],
    options: ArchiveOptions,
    /// Whether the regions reach each other.
    is_linked: bool,
    /// Whether the dead are known to be dead.
    one_machine: bool,
    trouble: u32,
    dead: Arc<Mutex<BTreeSet<String>>>,
    processes: Vec<Process>,
    /// Writes that were given up and are on their way all the same.
    late: Vec<(usize, Arc<Request>)>,
    started: usize,
    /// From which process on no run may succeed in a region: it is known to be fenced.
    fenced_from: [Option<usize>; 2],
    /// How many processes had begun when a promotion of a region was last at work.
    promoted_until: [usize; 2],
    promised: BTreeSet<Version>,
    log: Option<String>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, tape: &'static Tape, broken: Option<Guard>, log: bool) -> Self {
        let mut rng = SeededRng::of(seed);
        let first = rng.index(tape.answers.len() / 2);
        let options = ArchiveOptions {
            buffer: tape.buffer,
            capacity: tape.buffer * 2,
            parallel: 1 + rng.index(3),
            deadline: Duration::from_mins(30),
            lease: LEASE,
            ..ArchiveOptions::default()
        };
        Self {
            tape,
            clock: Arc::new(VirtualClock::at(tape.answers[first].at)),
            regions: Default::default(),
            memories: Default::default(),
            broken,
            is_atomic: if broken == Some(Guard::Claim) {
                [true; 2]
            } else {
                [rng.chance(600), rng.chance(600)]
            },
            options,
            is_linked: true,
            one_machine: rng.chance(500),
            trouble: [0, 30, 100, 250][rng.index(4)],
            rng,
            dead: Arc::default(),
            processes: Vec::new(),
            late: Vec::new(),
            started: 0,
            fenced_from: [None; 2],
            promoted_until: [0; 2],
            promised: BTreeSet::new(),
            log: log.then(String::new),
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    fn pass(&self, seconds: u32) {
        self.clock.sleep(Duration::from_secs(seconds.into())).now_or_never().unwrap();
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now();
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{}  {}", now.format("%d %H:%M:%S"), what());
        }
    }

    pub(crate) fn into_log(self) -> String {
        self.log.unwrap_or_default()
    }

    /// Runs the schedule. Returns the promise that was broken, if one was.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for _ in 0..60 + self.rng.below(240) {
            self.step()?;
        }
        self.end_well()
    }

    fn step(&mut self) -> Result<(), String> {
        if self.rng.chance(12) {
            self.is_linked = !self.is_linked;
            let is_linked = self.is_linked;
            self.note(|| format!("the regions reach each other: {is_linked}"));
        }
        if !self.late.is_empty() && self.rng.chance(60) {
            return self.deliver_late();
        }
        if self.processes.len() < MOST_PROCESSES
            && self.rng.chance(if self.processes.is_empty() { 1_000 } else { 60 })
        {
            let wait = self.rng.below(3 * 3_600);
            self.pass(wait);
            let task = self.choose();
            return self.start(task);
        }
        let seconds = self.rng.below(20);
        self.pass(seconds);
        let number = self.rng.index(self.processes.len());
        let waiting: Vec<_> = self.processes[number]
            .stores
            .iter()
            .flat_map(|store| {
                store.waiting().into_iter().map(move |(call, request)| (store.clone(), call, request))
            })
            .collect();
        let (store, call, request) = waiting[self.rng.index(waiting.len())].clone();
        self.carry_out(number, &store, call, &request)
    }

    fn choose(&mut self) -> Task {
        let region = self.rng.index(2);
        match self.rng.below(10) {
            0..5 => Task::Collect(region),
            5..8 => Task::Update(region, 1 - region),
            8 => Task::Adopt(region),
            _ => Task::Reconcile(region, 1 - region),
        }
    }

    fn start(&mut self, task: Task) -> Result<(), String> {
        self.started += 1;
        // Nothing is collected before there is something to copy, so that both regions do not begin archives of their own.
        let has_ledger = |region: usize| self.ledger(region).is_some();
        let task = match task {
            Task::Collect(1) if !has_ledger(1) && !has_ledger(0) => Task::Collect(0),
            Task::Collect(region) if !has_ledger(region) && has_ledger(1 - region) => {
                Task::Update(1 - region, region)
            }
            task => task,
        };
        if let Task::Adopt(region) = task {
            (self.fenced_from[region], self.promoted_until[region]) = (None, self.started);
        }
        let name = format!("p{}", self.started);
        self.note(|| format!("{name} starts: {task:?}"));
        let stores = [0, 1].map(|region| ScheduledStore::new(region, self.is_atomic[region]));
        let archives = [0, 1].map(|region| {
            let liveness = Census { name: name.clone(), dead: Arc::clone(&self.dead) };
            Archive::new(Arc::new(stores[region].clone()), self.clock.clone(), self.options.clone())
                .with_liveness(Arc::new(liveness))
                .with_memory(self.memories[region].clone())
        });
        let work = work(task, archives, self.tape, self.now());
        self.processes.push(Process { name, task, started: self.started, stores, work });
        self.proceed(self.processes.len() - 1)
    }

    fn carry_out(
        &mut self,
        number: usize,
        store: &ScheduledStore,
        call: u64,
        request: &Arc<Request>,
    ) -> Result<(), String> {
        let (name, task) = (self.processes[number].name.clone(), self.processes[number].task);
        let what = |how: &str| format!("{name} {how}: region {} {request:.60?}", store.region);
        let home = match task {
            Task::Collect(region)
            | Task::Adopt(region)
            | Task::Update(region, _)
            | Task::Reconcile(region, _) => region,
        };
        if !self.is_linked && store.region != home {
            self.note(|| what("does not reach"));
            store.answer(call, Err(request.failure(request.is_write(), "unreachable")));
            return self.proceed(number);
        }
        let event = if self.rng.chance(self.trouble) { 1 + self.rng.below(5) } else { 0 };
        match event {
            1 => {
                self.note(|| what("is refused"));
                store.answer(call, Err(request.failure(false, "refused")));
            }
            2 => {
                self.note(|| what("loses the answer to"));
                let _ = self.apply(store.region, request, task)?;
                store.answer(call, Err(request.failure(true, "lost")));
            }
            3 => {
                self.note(|| what("gives up, and on its way is"));
                if request.is_write() {
                    self.late.push((store.region, Arc::clone(request)));
                }
                store.answer(call, Err(request.failure(true, "timeout")));
            }
            4 => {
                self.note(|| what("is killed before"));
                self.reap(number);
                return Ok(());
            }
            5 => {
                self.note(|| what("is killed, and on its way are"));
                // All that it was waiting for may arrive.
                for store in self.processes[number].stores.clone() {
                    let waiting = store.waiting().into_iter().map(|(_, request)| request);
                    self.late.extend(waiting.filter(|it| it.is_write()).map(|it| (store.region, it)));
                }
                self.reap(number);
                return Ok(());
            }
            _ => {
                self.note(|| what("does"));
                let result = self.apply(store.region, request, task)?;
                store.answer(call, result);
            }
        }
        self.proceed(number)
    }

    fn apply(
        &mut self,
        region: usize,
        request: &Arc<Request>,
        task: Task,
    ) -> Result<Result<Reply, StoreError>, String> {
        if let (Some(Guard::ObjectsFirst), Task::Update(..), Request::Create(key, _)) =
            (self.broken, task, &**request)
            && Place::of(key.as_str()).is_some()
        {
            self.late.push((region, Arc::clone(request)));
            return Ok(Ok(Reply::Wrote(collector::store::Write::Done(Region::version()))));
        }
        if let (Some(Guard::OldPrimary), Task::Adopt(adopted)) = (self.broken, task)
            && region != adopted
            && request.is_write()
        {
            return Ok(Ok(Reply::Wrote(collector::store::Write::Done(Region::version()))));
        }
        // Only a promotion fences for the sake of this guard.
        let broken = self.broken.filter(|guard| *guard != Guard::Fence || matches!(task, Task::Adopt(_)));
        let result = self.regions[region].apply(request, broken);
        if request.is_write() {
            self.check_region(region)?;
            if self.rng.chance(100) {
                self.check_soundness(region)?;
            }
        }
        Ok(result)
    }

    fn deliver_late(&mut self) -> Result<(), String> {
        let (region, request) = self.late.swap_remove(self.rng.index(self.late.len()));
        self.note(|| format!("arrives late: region {region} {request:.60?}"));
        let _ = self.regions[region].apply(&request, None);
        self.check_region(region)?;
        Ok(())
    }

    fn reap(&mut self, number: usize) {
        let process = self.processes.swap_remove(number);
        if let Task::Adopt(region) = process.task {
            self.promoted_until[region] = self.started;
        }
        if self.one_machine {
            self.dead.lock().unwrap().insert(process.name);
        }
    }

    /// Lets a process work until it waits again, and hears what it reports.
    fn proceed(&mut self, number: usize) -> Result<(), String> {
        let Some(said) = self.processes[number].poll() else { return Ok(()) };
        let (name, task, started) = (
            self.processes[number].name.clone(),
            self.processes[number].task,
            self.processes[number].started,
        );
        self.note(|| format!("{name}: {said:?}"));
        self.reap(number);
        match (said, task) {
            (Said::Stored(answer), Task::Collect(region)) => {
                if self.fenced_from[region].is_some_and(|fenced| started > fenced) {
                    return Err(format!(
                        "a run succeeds in region {region}, which was fenced before it began"
                    ));
                }
                let events = &self.tape.answers[answer].events;
                self.promised.extend(events.iter().map(|event| (event.id, event.fingerprint)));
            }
            (Said::Failed(reason), Task::Update(..)) if reason.contains("not empty") => {
                return Err(format!(
                    "an update takes what another one has begun for something else: {reason}"
                ));
            }
            (Said::Adopted(is_fenced), Task::Adopt(region)) => {
                // A promotion of the other region at the same time may have been later.
                let other = 1 - region;
                let is_promoted = self.processes.iter().any(|it| it.task == Task::Adopt(other));
                if is_fenced && !is_promoted && self.promoted_until[other] < started {
                    self.fenced_from[other] = Some(self.started);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// No event and no version stands twice in a region.
    fn check_region(&self, region: usize) -> Result<BTreeSet<Version>, String> {
        let (mut events, mut versions) = (BTreeMap::new(), BTreeSet::new());
        for (key, kind, version) in self.regions[region].lines() {
            let id = version.0;
            if kind == Kind::Events
                && let Some(other) = events.insert(id, key)
            {
                return Err(format!("event {id} stands twice in region {region}: {other}, {key}"));
            }
            if !versions.insert(version) {
                return Err(format!("a version of event {id} stands twice in region {region}: {key}"));
            }
        }
        Ok(versions)
    }

    fn ledger(&self, region: usize) -> Option<Ledger> {
        let objects = self.regions[region].objects("metadata/");
        let states = objects.iter().filter(|(key, _)| key.as_str().starts_with("metadata/ledger/"));
        let published = objects.iter().find(|(key, _)| key.as_str() == "metadata/last_seen.json");
        let newest = states.max_by_key(|(key, _)| key.clone()).or(published)?;
        match LedgerDocument::parse(&newest.1) {
            Ok(LedgerDocument::Own(ledger)) => Some(*ledger),
            other => panic!("{other:?}"),
        }
    }

    fn check_soundness(&mut self, region: usize) -> Result<(), String> {
        let store = ScheduledStore::new(region, self.is_atomic[region]);
        let archive = Archive::new(Arc::new(store.clone()), self.clock.clone(), self.options.clone());
        let mut audit = Box::pin(async move { archive.audit(|_, _| {}).await });
        loop {
            if let Some(audit) = (&mut audit).now_or_never() {
                let findings = audit.map_err(|error| error.to_string())?.findings;
                return if findings.is_sound() {
                    Ok(())
                } else {
                    Err(format!("verify finds in region {region}: {:?}", findings.problems))
                };
            }
            for (call, request) in store.waiting() {
                store.answer(call, self.regions[region].apply(&request, None));
            }
        }
    }

    /// Whatever happened: once it is quiet, one region is the primary, the other one follows, and both hold everything.
    fn end_well(&mut self) -> Result<(), String> {
        while !self.processes.is_empty() {
            self.reap(0);
        }
        while !self.late.is_empty() {
            self.deliver_late()?;
        }
        (self.trouble, self.is_linked) = (0, true);
        self.note(|| "it is quiet".to_owned());
        self.pass(30 * 3_600);
        if self.ledger(0).is_none() && self.ledger(1).is_none() {
            return Ok(());
        }
        if self.primary().is_none() {
            let region = self.latest();
            self.undisturbed(Task::Adopt(region))?;
        }
        let mut primary = self.primary().ok_or("no region accepts runs")?;
        let epoch = |region: usize| self.ledger(region).map(|ledger| ledger.lineage.epoch);
        if epoch(1 - primary) > epoch(primary) {
            // A promotion was broken off after it raised the epoch: it has to be finished.
            primary = 1 - primary;
            self.undisturbed(Task::Adopt(primary))?;
        }
        // A run makes the ledger agree with what arrived late, so that it can be copied.
        self.undisturbed(Task::Collect(primary))?;
        self.undisturbed(Task::Reconcile(primary, 1 - primary))?;
        self.pass(30 * 3_600);
        self.undisturbed(Task::Collect(primary))?;
        self.undisturbed(Task::Update(primary, 1 - primary))?;
        for region in [0, 1] {
            self.check_soundness(region)?;
            let versions = self.check_region(region)?;
            if let Some((id, _)) = self.promised.iter().find(|version| !versions.contains(version)) {
                return Err(format!("event {id} was reported to be stored and is lost in region {region}"));
            }
        }
        Ok(())
    }

    /// The region of the latest epoch that accepts runs.
    fn primary(&self) -> Option<usize> {
        let accepts = |region: &usize| self.ledger(*region).is_some_and(|ledger| ledger.replica.is_none());
        [0, 1]
            .into_iter()
            .filter(accepts)
            .max_by_key(|&region| self.ledger(region).map(|it| it.lineage.epoch))
    }

    /// The region whose ledger has come furthest, where none accepts runs: a promotion was broken off.
    fn latest(&self) -> usize {
        let state = |region: usize| {
            let ledger = self.ledger(region)?;
            let replica = ledger.replica?;
            let is_whole = replica.complete && replica.rejoining.is_none();
            Some((is_whole, ledger.lineage.epoch, ledger.lineage.sequence()))
        };
        usize::from(state(1) > state(0))
    }

    fn undisturbed(&mut self, task: Task) -> Result<(), String> {
        for _ in 0..4 {
            let log_from = self.started;
            self.start(task)?;
            let mut outcome = None;
            while let Some(process) = self.processes.first() {
                let stores = process.stores.clone();
                let waiting =
                    stores.iter().find_map(|store| Some((store.clone(), store.waiting().first()?.clone())));
                let Some((store, (call, request))) = waiting else {
                    return Err(format!("{task:?} waits for nothing"));
                };
                self.pass(1);
                let result = self.apply(store.region, &request, task)?;
                store.answer(call, result);
                outcome = self.processes[0].poll();
                if let Some(said) = &outcome {
                    let text = format!("{said:?}");
                    self.note(|| text);
                    self.reap(0);
                }
            }
            debug_assert!(self.started > log_from);
            match outcome {
                Some(Said::Failed(reason)) => return Err(format!("undisturbed, {task:?} fails: {reason}")),
                Some(Said::LeftToAnother | Said::Updated(false)) => self.pass(2 * 3_600),
                _ => return Ok(()),
            }
        }
        Err(format!("undisturbed, {task:?} does not succeed"))
    }
}
