//! What must hold after every step, whatever happened.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use collector::archive::{Kind, Place};
use collector::event::{self, Event, EventId, Fingerprint};
use collector::ledger::{LedgerDocument, SIZE_LIMIT_BYTES};

use crate::disk::SimulatedDisk;

type Version = (EventId, Fingerprint);

/// What is stored, and what must be.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    lines: BTreeMap<String, Vec<(Kind, Event)>>,
    events: BTreeMap<EventId, String>,
    versions: BTreeMap<Version, String>,
    promised: BTreeSet<Version>,
    /// How many runs reported success.
    pub(crate) made: usize,
}

impl Promises {
    /// An object was written.
    pub(crate) fn look_at(&mut self, disk: &SimulatedDisk, key: &str, capacity: usize) -> Result<(), String> {
        let path = std::path::Path::new("s").join(key);
        let bytes = collector::store::disk::Disk::read(disk, &path).unwrap_or_default();
        if key == "metadata/last_seen.json" {
            return check_ledger(&bytes, capacity);
        }
        self.forget(key);
        self.take(key, &bytes)
    }

    /// Everything may have changed. What a restore took away is not promised until it is back.
    pub(crate) fn look_at_all(&mut self, disk: &SimulatedDisk, forgives: bool) -> Result<(), String> {
        self.lines.clear();
        self.events.clear();
        self.versions.clear();
        for (path, bytes) in disk.files() {
            self.take(path.strip_prefix("s").unwrap().to_str().unwrap(), &bytes)?;
        }
        if forgives {
            let (events, versions) = (&self.events, &self.versions);
            self.promised.retain(|it| events.contains_key(&it.0) && versions.contains_key(it));
        }
        self.check_promised()
    }

    /// Whether an event is stored.
    pub(crate) fn is_stored(&self, id: EventId) -> bool {
        self.events.contains_key(&id)
    }

    /// The events that are stored.
    pub(crate) fn stored(&self) -> impl Iterator<Item = Event> + '_ {
        let lines = self.lines.values().flatten();
        lines.filter(|(kind, _)| *kind == Kind::Events).map(|&(_, event)| event)
    }

    fn forget(&mut self, key: &str) {
        for (kind, event) in self.lines.remove(key).unwrap_or_default() {
            if kind == Kind::Events {
                self.events.remove(&event.id);
            }
            self.versions.remove(&(event.id, event.fingerprint));
        }
    }

    fn take(&mut self, key: &str, bytes: &[u8]) -> Result<(), String> {
        let Some(Place { kind: kind @ (Kind::Events | Kind::Revisions), day }) = Place::of(key) else {
            return Ok(());
        };
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let event =
                event::parse_line(line).map_err(|error| format!("{key} holds a line that is {error}"))?;
            self.take_line(key, kind, day, event)?;
            self.lines.entry(key.to_owned()).or_default().push((kind, event));
        }
        Ok(())
    }

    fn take_line(&mut self, key: &str, kind: Kind, day: NaiveDate, event: Event) -> Result<(), String> {
        let id = event.id;
        if event.day != day {
            return Err(format!("event {id} of {} is stored in {key}", event.day));
        }
        if kind == Kind::Events
            && let Some(other) = self.events.insert(id, key.to_owned())
        {
            return Err(format!("event {id} is stored twice: in {other} and in {key}"));
        }
        match self.versions.insert((id, event.fingerprint), key.to_owned()) {
            Some(other) => Err(format!("a version of event {id} is stored twice: in {other} and in {key}")),
            None => Ok(()),
        }
    }

    /// A run reported success.
    pub(crate) fn promise(&mut self, events: &[Event]) -> Result<(), String> {
        self.made += 1;
        self.promised.extend(events.iter().map(|event| (event.id, event.fingerprint)));
        self.check_promised()
    }

    fn check_promised(&self) -> Result<(), String> {
        for version in &self.promised {
            if !self.events.contains_key(&version.0) {
                return Err(format!("event {} was reported to be stored and is lost", version.0));
            }
            if !self.versions.contains_key(version) {
                return Err(format!(
                    "a version of event {} was reported to be stored and is lost",
                    version.0
                ));
            }
        }
        Ok(())
    }
}

fn check_ledger(bytes: &[u8], capacity: usize) -> Result<(), String> {
    if bytes.len() > SIZE_LIMIT_BYTES {
        return Err(format!("the ledger has {} bytes", bytes.len()));
    }
    match LedgerDocument::parse(bytes) {
        Ok(LedgerDocument::Own(ledger)) if ledger.len() <= capacity => Ok(()),
        Ok(LedgerDocument::Own(ledger)) => Err(format!("the ledger remembers {} events", ledger.len())),
        other => Err(format!("the ledger is no more: {other:?}")),
    }
}
