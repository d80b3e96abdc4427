//! Finds what is wanted in object after object.

use chrono::NaiveDate;
use rustc_hash::FxHashMap;

use super::filter::Needle;
use super::{Account, Cursor, Found, Item, Line, Query, Revisions, Unreadable};
use crate::archive::reading::Read;
use crate::archive::{Kind, Place};
use crate::event::{self, EventId, Fields};
use crate::store::Key;

/// What is known while objects are taken in their order.
pub(super) struct Scan {
    query: Query,
    needle: Option<Needle>,
    latest: Latest,
    account: Account,
}

/// The last version of each event of a day.
#[derive(Default)]
struct Latest {
    day: Option<NaiveDate>,
    versions: FxHashMap<EventId, Version>,
}

/// A later version of an event.
struct Version {
    line: Box<Line>,
    json: Box<str>,
}

impl Scan {
    pub(super) fn new(query: Query, account: Account) -> Self {
        Self { needle: query.filter.needle(), query, latest: Latest::default(), account }
    }

    /// What is wanted of an object that was read.
    pub(super) fn take(&mut self, place: Place, key: &Key, content: Read) -> Vec<Item> {
        match content {
            // Repair has moved it since it was listed; its events are elsewhere.
            Ok((None, _)) => Vec::new(),
            Ok((Some(content), origin)) => {
                self.account.note_object(origin, content.len() as u64);
                self.lines_of(place, key, &content)
            }
            Err(error) => vec![Err(Unreadable::new(key.to_string(), error))],
        }
    }

    /// Forgets what belongs to another day. Number of lines of the object that were returned before.
    pub(super) fn begin_object(&mut self, place: Place, key: &Key) -> usize {
        if self.latest.day != Some(place.day) {
            self.latest = Latest { day: Some(place.day), ..Latest::default() };
        }
        self.query.after.as_ref().filter(|after| after.key() == key).map_or(0, Cursor::lines)
    }

    fn lines_of(&mut self, place: Place, key: &Key, bytes: &[u8]) -> Vec<Item> {
        let returned = self.begin_object(place, key);
        let (mut found, mut count) = (Vec::new(), 0);
        let lines = bytes.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        for (number, line) in lines {
            count += 1;
            if number < returned {
                continue;
            }
            match self.take_line(place, key, number, line) {
                Ok(None) => {}
                Ok(Some(event)) => found.push(Ok(event)),
                Err(reason) => {
                    found.push(Err(Unreadable::new(format!("{key}, line {}", number + 1), reason)));
                }
            }
        }
        self.account.change(|cost| cost.lines += count);
        found
    }

    fn take_line(
        &mut self,
        place: Place,
        key: &Key,
        number: usize,
        line: &[u8],
    ) -> Result<Option<Found>, Box<dyn std::error::Error + Send + Sync>> {
        // Where only ids are asked for, most lines need not be read further than to theirs.
        let ids = &self.query.filter.ids;
        if self.query.revisions == Revisions::None
            && !ids.is_empty()
            && event::parse_line(line).is_ok_and(|event| !ids.contains(&event.id))
        {
            return Ok(None);
        }
        let json = std::str::from_utf8(line)?;
        Ok(self.take_event(place, key, number, (json, Fields::of(json)?))?)
    }

    /// What is wanted of an event that was read.
    pub(super) fn take_event(
        &mut self,
        place: Place,
        key: &Key,
        number: usize,
        (json, event): (&str, Fields<'_>),
    ) -> serde_json::Result<Option<Found>> {
        let is_revision = place.kind == Kind::Revisions;
        if is_revision && self.query.revisions == Revisions::Latest {
            let known = self.latest.versions.get(&event.id);
            if known.is_none_or(|known| known.line.object.run() <= key.run()) {
                let line = Box::new(Line { object: key.clone(), number: number + 1 });
                self.latest.versions.insert(event.id, Version { line, json: json.into() });
            }
            return Ok(None);
        }
        let later = self.latest.versions.get(&event.id);
        let (json, event) = match later {
            Some(later) => (&*later.json, Fields::of(&later.json)?),
            None => (json, event),
        };
        Ok(self.query.filter.accepts_with(self.needle.as_ref(), &event).then(|| Found {
            id: event.id,
            day: place.day,
            is_revision: is_revision || later.is_some(),
            json: json.into(),
            cursor: Cursor::new(key.clone(), place, number + 1),
            version: later.map(|later| later.line.clone()),
        }))
    }
}
