//! What belongs to a machine: its clock, and what it remembers of archives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use collector::archive::ProcessMemory;
use collector::clock::{CLOCK_TOLERANCE, Clock};
use collector::event::{Event, EventId};
use collector::record::{Evidence, Limits};

/// The true time.
#[derive(Debug, Clone)]
pub(crate) struct TrueClock(Arc<Mutex<(DateTime<Utc>, Duration)>>);

impl TrueClock {
    pub(crate) fn at(now: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new((now, Duration::ZERO))))
    }

    pub(crate) fn pass(&self, time: TimeDelta) {
        let mut state = self.0.lock().unwrap();
        state.0 += time;
        state.1 += time.to_std().unwrap();
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.0.lock().unwrap().0
    }
}

/// The clock of a machine, which may be wrong.
#[derive(Debug, Clone)]
pub(crate) struct MachineClock {
    truth: TrueClock,
    offset: Arc<Mutex<TimeDelta>>,
}

impl MachineClock {
    pub(crate) fn offset(&self) -> TimeDelta {
        *self.offset.lock().unwrap()
    }

    fn set_offset(&self, offset: TimeDelta) {
        *self.offset.lock().unwrap() = offset;
    }
}

#[async_trait]
impl Clock for MachineClock {
    fn now(&self) -> DateTime<Utc> {
        self.truth.now() + self.offset()
    }

    fn elapsed(&self) -> Duration {
        self.truth.0.lock().unwrap().1
    }

    /// Time passes with the steps of the simulation.
    async fn sleep(&self, _: Duration) {}
}

/// A machine on which collectors run.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) clock: MachineClock,
    pub(crate) memory: Arc<ProcessMemory>,
    pub(crate) evidence: Arc<Mutex<Evidence>>,
    /// When it first saw each event that is not known to be stored, by the true time.
    seen: BTreeMap<EventId, DateTime<Utc>>,
    /// Whether its clock was set back. Then old facts look fresh, and only the time that the feed states, which is not
    /// simulated, shows it.
    was_set_back: bool,
}

impl Machine {
    pub(crate) fn new(truth: &TrueClock) -> Self {
        let clock = MachineClock { truth: truth.clone(), offset: Arc::default() };
        let memory = Arc::new(ProcessMemory::default());
        Self { clock, memory, evidence: Arc::default(), seen: BTreeMap::new(), was_set_back: false }
    }

    pub(crate) fn note_seen(&mut self, events: &[Event], now: DateTime<Utc>) {
        for event in events {
            self.seen.entry(event.id).or_insert(now);
        }
    }

    /// Sets how far its clock is ahead of the true time.
    pub(crate) fn set_clock(&mut self, offset: TimeDelta) {
        self.was_set_back |= offset < self.clock.offset();
        self.clock.set_offset(offset);
    }

    /// An event that it saw longer ago than the limit and that is not stored, while it reports health.
    pub(crate) fn false_health(
        &mut self,
        now: DateTime<Utc>,
        limits: &Limits,
        is_stored: impl Fn(EventId) -> bool,
    ) -> Option<EventId> {
        self.seen.retain(|id, _| !is_stored(*id));
        if self.was_set_back {
            return None;
        }
        let limit = TimeDelta::minutes(limits.max_age_minutes + 1) + CLOCK_TOLERANCE;
        let (id, _) = self.seen.iter().find(|(_, seen)| now - **seen > limit)?;
        self.evidence.lock().unwrap().judge(self.clock.now(), limits).is_empty().then_some(*id)
    }

    pub(crate) fn forget(&mut self) {
        self.memory = Arc::new(ProcessMemory::default());
    }
}
