//! Finds what is wanted in object after object.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::NaiveDate;
use rustc_hash::FxHashMap;

use super::{Cost, Cursor, Fields, Found, Query, Revisions, Unreadable};
use crate::archive::{Kind, Place};
use crate::event::EventId;
use crate::store::{Key, Object, StoreError};

/// What is known while objects are taken in their order.
pub(super) struct Scan {
    query: Query,
    latest: Latest,
    cost: Arc<Mutex<Cost>>,
}

/// The last version of each event of a day.
#[derive(Default)]
struct Latest {
    day: Option<NaiveDate>,
    /// By event: when it was written, and its JSON.
    versions: FxHashMap<EventId, ((i64, u32), Box<str>)>,
}

impl Scan {
    pub(super) fn new(query: Query, cost: Arc<Mutex<Cost>>) -> Self {
        Self { query, latest: Latest::default(), cost }
    }

    /// What is wanted of an object that was read.
    pub(super) fn take(
        &mut self,
        place: Place,
        key: &Key,
        object: Result<Option<Object>, StoreError>,
    ) -> Vec<Result<Found, Unreadable>> {
        let mut cost = Cost::default();
        let found = match object {
            // Repair has moved it since it was listed; its events are elsewhere.
            Ok(None) => Vec::new(),
            Ok(Some(object)) => {
                cost.objects_read = 1;
                cost.bytes_read = object.bytes.len() as u64;
                self.lines_of(place, key, &object.bytes, &mut cost)
            }
            Err(error) => vec![Err(Unreadable { place: key.to_string(), reason: error.into() })],
        };
        cost.found = found.iter().filter(|found| found.is_ok()).count();
        cost.unreadable = found.len() - cost.found;
        let mut all = self.cost.lock().unwrap_or_else(PoisonError::into_inner);
        all.objects_read += cost.objects_read;
        all.bytes_read += cost.bytes_read;
        all.lines += cost.lines;
        all.found += cost.found;
        all.unreadable += cost.unreadable;
        drop(all);
        found
    }

    fn lines_of(
        &mut self,
        place: Place,
        key: &Key,
        bytes: &[u8],
        cost: &mut Cost,
    ) -> Vec<Result<Found, Unreadable>> {
        if self.latest.day != Some(place.day) {
            self.latest = Latest { day: Some(place.day), ..Latest::default() };
        }
        let told = self.query.after.as_ref().filter(|after| after.key() == key).map_or(0, Cursor::lines);
        let mut found = Vec::new();
        let lines = bytes.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        for (number, line) in lines {
            cost.lines += 1;
            if number < told {
                continue;
            }
            match self.take_line(place, key, number, line) {
                Ok(None) => {}
                Ok(Some(event)) => found.push(Ok(event)),
                Err(reason) => {
                    found.push(Err(Unreadable { place: format!("{key}, line {}", number + 1), reason }));
                }
            }
        }
        found
    }

    fn take_line(
        &mut self,
        place: Place,
        key: &Key,
        number: usize,
        line: &[u8],
    ) -> Result<Option<Found>, Box<dyn std::error::Error + Send + Sync>> {
        let json = std::str::from_utf8(line)?;
        let event = Fields::of(json)?;
        let is_revision = place.kind == Kind::Revisions;
        if is_revision && self.query.revisions == Revisions::Latest {
            let when = written(key);
            let newer = self.latest.versions.get(&event.id).is_none_or(|(known, _)| *known <= when);
            if newer {
                self.latest.versions.insert(event.id, (when, json.into()));
            }
            return Ok(None);
        }
        let later = self.latest.versions.get(&event.id).map(|(_, json)| &**json);
        let (told, event) = match later {
            Some(later) => (later, Fields::of(later)?),
            None => (json, event),
        };
        Ok(self.query.filter.accepts(&event).then(|| Found {
            id: event.id,
            day: place.day,
            is_revision: is_revision || later.is_some(),
            json: told.into(),
            cursor: Cursor::new(key.clone(), place, number + 1),
        }))
    }
}

/// When the run that wrote an object began, in seconds, and which of that second's objects it is: as its name says.
fn written(key: &Key) -> (i64, u32) {
    let name = key.as_str().rsplit('/').next().unwrap_or_default();
    let mut numbers = name.split(['-', '.']).skip(1);
    let second = numbers.next().and_then(|second| second.parse().ok()).unwrap_or(0);
    let ordinal = numbers.next().and_then(|ordinal| ordinal.parse().ok()).unwrap_or(1);
    (second, ordinal)
}
