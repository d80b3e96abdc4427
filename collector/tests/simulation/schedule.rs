//! A simulated schedule: several collectors, one store, one feed, and steps drawn from a seed.

mod hostile;
mod work;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::{Archive, ArchiveOptions, Liveness};
use collector::event::Event;

use crate::disk::{Fault, FaultKind, SimulatedDisk};
use crate::machine::{Machine, TrueClock};
use crate::promises::Promises;
use crate::restore::Backups;
use crate::rng::SeededRng;
use crate::store::{Guard, Reply, Request, ScheduledStore};
use crate::tape::Tape;
use work::{Said, collect, import, repair};

const MOST_COLLECTORS: usize = 3;

/// Knows the dead, or knows nothing of them, as on another machine.
#[derive(Debug)]
struct Census {
    name: String,
    dead: Arc<Mutex<BTreeSet<String>>>,
}

impl Liveness for Census {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_gone(&self, owner: &str) -> bool {
        self.dead.lock().unwrap().contains(owner)
    }
}

struct Process {
    name: String,
    machine: usize,
    store: ScheduledStore,
    /// Steps for which it is not scheduled: it is stopped, and then continues.
    stopped: u32,
    work: Pin<Box<dyn Future<Output = ()>>>,
    said: Arc<Mutex<Vec<Said>>>,
}

pub(crate) struct Schedule {
    rng: SeededRng,
    tape: &'static Tape,
    clock: TrueClock,
    machines: Vec<Machine>,
    disk: SimulatedDisk,
    broken: Option<Guard>,
    /// Whether the store replaces in one step, as buckets do.
    is_atomic: bool,
    /// Whether clocks are wrong, listings lie, and archives are restored.
    is_hostile: bool,
    backups: Backups,
    /// What each machine has seen stored when it last succeeded, unless it forgot that.
    seen: Vec<Option<(DateTime<Utc>, Vec<Event>)>>,
    options: ArchiveOptions,
    /// Whether the dead are known to be dead.
    one_machine: bool,
    /// How often something goes wrong, per mille of operations.
    trouble: u32,
    dead: Arc<Mutex<BTreeSet<String>>>,
    processes: Vec<Process>,
    /// Writes that were given up and are on their way all the same.
    late: Vec<(ScheduledStore, Request)>,
    started: usize,
    promises: Promises,
    /// The log, if it is enabled.
    log: Option<String>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, tape: &'static Tape, broken: Option<Guard>, log: bool) -> Self {
        let mut rng = SeededRng::of(seed);
        let disk = SimulatedDisk::new(broken != Some(Guard::Sync));
        let first = rng.index(tape.answers.len() / 2);
        let clock = TrueClock::at(tape.answers[first].at);
        let machines = (0..2).map(|_| Machine::new(&clock)).collect();
        let options = ArchiveOptions {
            buffer: tape.buffer,
            capacity: tape.buffer * 2,
            unindexed_objects: usize::try_from(seed % 4).unwrap(),
            parallel: 1 + rng.index(3),
            // Each step takes up to 20 seconds.
            deadline: Duration::from_mins(30),
            lease: Duration::from_hours(1),
            ..ArchiveOptions::default()
        };
        Self {
            tape,
            clock,
            machines,
            disk,
            broken,
            is_atomic: rng.chance(500),
            is_hostile: rng.chance(600),
            backups: Backups::default(),
            seen: vec![None; 2],
            options,
            one_machine: rng.chance(500),
            trouble: [0, 50, 150, 400][rng.index(4)],
            rng,
            dead: Arc::default(),
            processes: Vec::new(),
            late: Vec::new(),
            started: 0,
            promises: Promises::default(),
            log: log.then(String::new),
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.clock.now();
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{}  {}", now.format("%d %H:%M:%S"), what());
        }
    }

    /// What happened, if it was logged.
    pub(crate) fn into_log(self) -> String {
        self.log.unwrap_or_default()
    }

    /// Runs the schedule. Returns the guarantee that was violated, if one was.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let steps = 40 + self.rng.below(160);
        for _ in 0..steps {
            self.step()?;
        }
        self.end_well()
    }

    fn step(&mut self) -> Result<(), String> {
        let pause = match self.rng.below(100) {
            0..90 => i64::from(self.rng.below(20)),
            90..98 => i64::from(self.rng.below(3_600)),
            _ => i64::from(self.rng.below(86_400)),
        };
        self.clock.pass(TimeDelta::seconds(pause));
        if !self.late.is_empty() && self.rng.chance(150) {
            self.deliver_late()?;
        }
        let idle = self.processes.is_empty();
        if self.processes.len() < MOST_COLLECTORS && (idle || self.rng.chance(150)) {
            self.start();
        }
        if self.rng.chance(self.trouble / 40) {
            return self.lose_power();
        }
        if self.is_hostile && self.rng.chance(20) {
            self.be_hostile()?;
        }
        for process in &mut self.processes {
            process.stopped = process.stopped.saturating_sub(1);
        }
        let running: Vec<usize> =
            (0..self.processes.len()).filter(|&number| self.processes[number].stopped == 0).collect();
        self.check_health()?;
        match running.len() {
            0 => Ok(()),
            count => {
                let number = running[self.rng.index(count)];
                self.advance(number)
            }
        }
    }

    fn start(&mut self) {
        let machine = self.rng.index(self.machines.len());
        let repairs = self.is_hostile && !self.backups.is_incomplete() && self.rng.chance(60);
        self.start_on(machine, repairs);
    }

    fn start_on(&mut self, machine: usize, repairs: bool) {
        self.started += 1;
        let name = format!("c{}", self.started);
        let store = ScheduledStore::new(self.disk.for_another_process(), self.broken, self.is_atomic);
        let census = Census { name: name.clone(), dead: Arc::clone(&self.dead) };
        let Machine { clock, memory, evidence, .. } = self.machines[machine].clone();
        let archive = Archive::new(Arc::new(store.clone()), Arc::new(clock.clone()), self.options.clone())
            .with_liveness(Arc::new(census))
            .with_memory(memory);
        let said = Arc::new(Mutex::new(Vec::new()));
        let runs = if self.rng.chance(300) { 3 } else { 1 };
        let work: Pin<Box<dyn Future<Output = ()>>> = if repairs {
            Box::pin(repair(archive, Arc::clone(&said)))
        } else if self.rng.chance(250) {
            let end = self.tape.at(self.clock.now()) + 1;
            let begin = end.saturating_sub(1 + self.rng.index(12));
            Box::pin(import(archive, self.tape, begin..end, Arc::clone(&said)))
        } else {
            let (truth, tape, said) = (self.clock.clone(), self.tape, Arc::clone(&said));
            Box::pin(collect(archive, clock, truth, tape, runs, evidence, said))
        };
        let mut process = Process { name: name.clone(), machine, store, stopped: 0, work, said };
        self.note(|| {
            format!("{name} starts on machine {machine}{}", if repairs { " to repair" } else { "" })
        });
        process.poll();
        self.processes.push(process);
    }

    /// Decides what becomes of one operation of one process.
    fn advance(&mut self, number: usize) -> Result<(), String> {
        let process = &self.processes[number];
        let (name, store) = (process.name.clone(), process.store.clone());
        let waiting = store.waiting();
        let (call, request) = waiting[self.rng.index(waiting.len())].clone();
        let outcome = if self.rng.chance(self.trouble) { self.rng.below(9) } else { 9 };
        let what = |outcome: &str| format!("{name} {outcome}: {request:?}");
        match outcome {
            0 => {
                self.note(|| what("is refused"));
                store.answer(call, Err(request.failure(false, "refused")));
            }
            1 | 2 => {
                // The answer is lost, or the request is: the collector cannot know.
                self.note(|| what(if outcome == 1 { "hears nothing of" } else { "sends in vain" }));
                if outcome == 1 {
                    let _ = self.apply(&store, &request)?;
                }
                store.answer(call, Err(request.failure(request.is_write(), "no answer")));
            }
            3 => {
                self.note(|| what("gives up, though on its way is"));
                if request.is_write() {
                    self.late.push((store.clone(), request.clone()));
                }
                store.answer(call, Err(request.failure(request.is_write(), "no answer")));
            }
            4 | 5 => {
                self.note(|| what("meets a failing disk in"));
                let after = self.rng.below(request.calls());
                store.disk.set_fault(Some(Fault { after, kind: FaultKind::InputOutput }));
                let result = self.apply(&store, &request)?;
                store.disk.set_fault(None);
                store.answer(call, result);
            }
            6 => {
                self.note(|| what("is killed within"));
                let after = self.rng.below(request.calls());
                store.disk.set_fault(Some(Fault { after, kind: FaultKind::Killed }));
                let _ = self.apply(&store, &request)?;
                self.reap(number);
                return Ok(());
            }
            7 => {
                self.note(|| what("is killed, though on its way is"));
                if request.is_write() {
                    self.late.push((store, request.clone()));
                }
                self.reap(number);
                return Ok(());
            }
            8 => {
                self.note(|| what("is stopped before"));
                if self.rng.chance(500) {
                    self.processes[number].stopped = self.rng.below(60);
                }
                self.clock.pass(TimeDelta::seconds(i64::from(self.rng.below(7_200))));
                return Ok(());
            }
            9 if self.is_hostile && self.rng.chance(10) => {
                let Some(listed) = self.lie(&store, &request) else {
                    return self.obey(number, call, &store, &request);
                };
                self.note(|| what("is lied to about"));
                store.answer(call, Ok(Reply::Listed(listed)));
            }
            _ => return self.obey(number, call, &store, &request),
        }
        self.go_on(number)
    }

    fn obey(
        &mut self,
        number: usize,
        call: u64,
        store: &ScheduledStore,
        request: &Request,
    ) -> Result<(), String> {
        let name = self.processes[number].name.clone();
        self.note(|| format!("{name} does: {request:?}"));
        let result = self.apply(store, request)?;
        store.answer(call, result);
        self.go_on(number)
    }

    fn apply(
        &mut self,
        store: &ScheduledStore,
        request: &Request,
    ) -> Result<Result<Reply, collector::store::StoreError>, String> {
        let result = store.apply(request);
        for key in request.keys().into_iter().filter(|_| request.is_write()) {
            if result.is_ok() || self.promises_may_have_changed(key) {
                self.promises.look_at(&self.disk, key.as_str(), self.options.capacity)?;
            }
        }
        Ok(result)
    }

    /// Whether a failed write left something to look at.
    fn promises_may_have_changed(&self, key: &collector::store::Key) -> bool {
        let path = std::path::Path::new("s").join(key.as_str());
        collector::store::disk::Disk::read(&self.disk, &path).is_ok()
    }

    fn deliver_late(&mut self) -> Result<(), String> {
        let (store, request) = self.late.swap_remove(self.rng.index(self.late.len()));
        // Its sender may be dead; it is carried out all the same.
        store.disk.set_fault(None);
        self.note(|| format!("arrives late: {request:?}"));
        let _ = self.apply(&store, &request)?;
        Ok(())
    }

    fn lose_power(&mut self) -> Result<(), String> {
        self.note(|| "the power fails".to_owned());
        while !self.processes.is_empty() {
            self.reap(0);
        }
        // What is on its way over a network arrives; what was on its way to the disk is gone with the machine.
        self.late.clear();
        self.disk.lose_power(&mut self.rng);
        self.promises.look_at_all(&self.disk, false)
    }

    fn reap(&mut self, number: usize) {
        let process = self.processes.swap_remove(number);
        process.store.disk.set_fault(Some(Fault { after: 0, kind: FaultKind::Killed }));
        if self.one_machine {
            self.dead.lock().unwrap().insert(process.name.clone());
        }
    }

    /// Lets a process work until it waits again, and hears what it says.
    fn go_on(&mut self, number: usize) -> Result<(), String> {
        let process = &mut self.processes[number];
        let ended = process.poll();
        let said: Vec<_> = process.said.lock().unwrap().drain(..).collect();
        let (name, machine) = (process.name.clone(), process.machine);
        for word in said {
            self.note(|| format!("{name}: {word:?}"));
            match word {
                Said::Stored(answer) => {
                    self.promises.promise(&self.tape.answers[answer].events)?;
                    self.check_memory(machine)?;
                }
                Said::Fetched(answer) => {
                    self.machines[machine].note_seen(&self.tape.answers[answer].events, self.clock.now());
                }
                _ => {}
            }
        }
        if ended {
            self.reap(number);
        }
        Ok(())
    }

    /// Whatever happened: once it is quiet, a collector succeeds, and the archive is sound.
    fn end_well(&mut self) -> Result<(), String> {
        while !self.processes.is_empty() {
            self.reap(0);
        }
        while !self.late.is_empty() {
            self.deliver_late()?;
        }
        // By then ledger and objects have to be compared once more.
        self.clock.pass(TimeDelta::hours(30));
        self.trouble = 0;
        self.is_hostile = false;
        self.machines.iter_mut().for_each(|machine| machine.set_clock(TimeDelta::zero()));
        // Where the only machine that saw a commit has lost its memory, only `repair` finds what a restored journal lacks.
        if self.backups.is_incomplete() || self.backups.took_claim() || self.backups.may_be_forgotten() {
            self.undisturbed(0, true)?;
        }
        let before = self.promises_kept();
        // Each machine, since only one that saw a commit can miss it in a restored ledger.
        for machine in 0..self.machines.len() {
            self.undisturbed(machine, false)?;
        }
        if self.promises_kept() == before {
            return Err("an undisturbed collector does not succeed".to_owned());
        }
        self.check_soundness()
    }

    fn undisturbed(&mut self, machine: usize, repairs: bool) -> Result<(), String> {
        self.start_on(machine, repairs);
        while let Some(process) = self.processes.first() {
            let waiting = process.store.waiting();
            let Some((call, request)) = waiting.first().cloned() else {
                return Err("a collector waits for nothing".to_owned());
            };
            let store = process.store.clone();
            // Time passes, so that a run that never gets anywhere meets its deadline.
            self.clock.pass(TimeDelta::seconds(1));
            let result = self.apply(&store, &request)?;
            store.answer(call, result);
            self.go_on(0)?;
        }
        Ok(())
    }

    fn promises_kept(&self) -> usize {
        self.promises.made
    }

    fn check_soundness(&mut self) -> Result<(), String> {
        let store = ScheduledStore::new(self.disk.for_another_process(), None, self.is_atomic);
        let clock = Arc::new(self.machines[0].clock.clone());
        let archive = Archive::new(Arc::new(store.clone()), clock, self.options.clone());
        let mut audit = Box::pin(async move { archive.audit(|_, _| {}).await });
        loop {
            let polled = audit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            match polled {
                Poll::Ready(Ok(audit)) if audit.findings.is_sound() => return Ok(()),
                Poll::Ready(Ok(audit)) => return Err(format!("verify finds {:?}", audit.findings.problems)),
                Poll::Ready(Err(error)) => return Err(error.to_string()),
                Poll::Pending => {
                    let (call, request) = store.waiting().swap_remove(0);
                    store.answer(call, store.apply(&request));
                }
            }
        }
    }
}

impl Process {
    /// Whether its work is done.
    fn poll(&mut self) -> bool {
        self.work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}
