//! Turns what is new into objects: JSON Lines, one object a kind and day.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

use super::layout::{Kind, Place};
use crate::event::{Event, EventId, Fingerprint, RejectReason, Response, content};
use crate::ledger::{ClaimedObject, Classification};
use crate::store::Key;

/// Most events of one object, so that a claim on it stays small.
const EVENTS_PER_OBJECT: usize = 250;

/// An object about to be written.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its place.
    pub place: Place,
    /// Its name.
    pub key: Key,
    /// Its content: lines, each ended by a line feed.
    pub bytes: Vec<u8>,
    /// The events it holds or is about.
    pub events: Vec<Event>,
    /// The events it is about, where there is no [`Event`] of them.
    pub ids: Vec<EventId>,
    /// The rejected elements it holds.
    pub fingerprints: Vec<Fingerprint>,
}

impl Draft {
    /// How a claim names it.
    pub(crate) fn claimed(&self) -> ClaimedObject {
        let ids = self.events.iter().map(|event| event.id).chain(self.ids.iter().copied());
        ClaimedObject {
            key: self.key.as_str().to_owned(),
            ids: ids.collect(),
            fingerprints: self.fingerprints.clone(),
        }
    }
}

/// The names a run has used. A name that was claimed once is not claimed again.
#[derive(Debug)]
pub(crate) struct Names {
    run_second: i64,
    /// How many names of each kind and day are used.
    used: BTreeMap<Place, u32>,
}

impl Names {
    pub(crate) fn of_run(start: DateTime<Utc>) -> Self {
        Self { run_second: start.timestamp(), used: BTreeMap::new() }
    }

    fn next(&mut self, place: Place) -> Key {
        let used = self.used.entry(place).or_default();
        *used += 1;
        place.kind.key(place.day, self.run_second, *used)
    }
}

/// The objects that hold what is new in a response, as a run that started at `start` names them first.
///
/// `last_seen` is when the feed was looked at before, for events that are gone from it.
#[must_use]
pub fn objects_of(
    response: &Response<'_>,
    classified: &Classification,
    start: DateTime<Utc>,
    last_seen: &str,
) -> Vec<Draft> {
    let names = &mut Names::of_run(start);
    let Ok(drafts) = drafts(response, classified, names, start, last_seen, || Ok::<_, Infallible>(()));
    drafts
}

/// The objects that hold what is new in a response. `check` is called before each object; its error ends the work.
pub(crate) fn drafts<E>(
    response: &Response<'_>,
    classified: &Classification,
    names: &mut Names,
    now: DateTime<Utc>,
    last_seen: &str,
    check: impl FnMut() -> Result<(), E>,
) -> Result<Vec<Draft>, E> {
    let mut drafts = Drafts { open: BTreeMap::new(), full: Vec::new(), names, check };
    for (kind, positions) in [(Kind::Events, &classified.events), (Kind::Revisions, &classified.revisions)] {
        for &position in positions {
            let element = &response.elements()[position];
            if let Ok(event) = element.event {
                let draft = drafts.at(kind, event.day)?;
                draft.bytes.extend_from_slice(&response.line(element));
                draft.bytes.push(b'\n');
                draft.events.push(event);
            }
        }
    }
    let today = now.date_naive();
    for &position in &classified.rejected {
        let element = &response.elements()[position];
        if let Err(reason) = element.event {
            let draft = drafts.at(Kind::Rejected, today)?;
            draft.push_line(&RejectedLine::new(&response.line(element), reason));
            draft.fingerprints.push(response.rejected_fingerprint(element));
        }
    }
    for (ids, returned) in
        [(&classified.window.withdrawn, None), (&classified.window.returned, Some(now.to_rfc3339()))]
    {
        for &id in ids {
            let draft = drafts.at(Kind::Withdrawn, today)?;
            draft.push_line(&WithdrawnLine {
                id,
                last_seen: last_seen.to_owned(),
                returned: returned.clone(),
            });
            draft.ids.push(id);
        }
    }
    Ok(drafts.finish())
}

struct Drafts<'a, C> {
    open: BTreeMap<Place, Draft>,
    full: Vec<Draft>,
    names: &'a mut Names,
    check: C,
}

impl<E, C: FnMut() -> Result<(), E>> Drafts<'_, C> {
    /// The draft to add a line to.
    fn at(&mut self, kind: Kind, day: NaiveDate) -> Result<&mut Draft, E> {
        let place = Place { kind, day };
        if self.open.get(&place).is_some_and(Draft::is_full) {
            self.full.extend(self.open.remove(&place));
        }
        Ok(match self.open.entry(place) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(vacant) => {
                (self.check)()?;
                vacant.insert(Draft {
                    place,
                    key: self.names.next(place),
                    bytes: Vec::new(),
                    events: Vec::new(),
                    ids: Vec::new(),
                    fingerprints: Vec::new(),
                })
            }
        })
    }

    fn finish(self) -> Vec<Draft> {
        self.full.into_iter().chain(self.open.into_values()).collect()
    }
}

impl Draft {
    fn is_full(&self) -> bool {
        self.events.len() + self.ids.len() + self.fingerprints.len() >= EVENTS_PER_OBJECT
    }

    fn push_line(&mut self, line: &impl Serialize) {
        // Writing plain members into memory cannot fail.
        let _ = serde_json::to_writer(&mut self.bytes, line);
        self.bytes.push(b'\n');
    }
}

/// A line under `rejected/`.
#[derive(Serialize, serde::Deserialize)]
pub(crate) struct RejectedLine {
    reason: String,
    /// The element as it was sent. It is never read into numbers: there are some that no program can hold.
    element: Box<RawValue>,
}

/// A line under `withdrawn/`.
#[derive(Serialize, serde::Deserialize)]
pub(crate) struct WithdrawnLine {
    pub(crate) id: EventId,
    /// When the feed's window was last recorded with the event in it.
    pub(crate) last_seen: String,
    /// When it was back; the withdrawal is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) returned: Option<String>,
}

impl RejectedLine {
    pub(crate) fn new(line: &[u8], reason: RejectReason) -> Self {
        let source = String::from_utf8_lossy(line).into_owned();
        let source = if KEPT_AS_TEXT.contains(&reason) {
            serde_json::to_string(&source).unwrap_or_default()
        } else {
            source
        };
        let element = RawValue::from_string(source).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self { reason: reason.to_string(), element }
    }

    /// The fingerprint of the element, as [`Response::rejected_fingerprint`] gives it.
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_canonical(&content(self.source().as_bytes()))
    }

    /// The element as the feed sent it.
    fn source(&self) -> String {
        let stored = self.element.get();
        let is_text = KEPT_AS_TEXT.iter().any(|reason| reason.to_string() == self.reason);
        let source = is_text.then(|| serde_json::from_str::<String>(stored).ok()).flatten();
        source.unwrap_or_else(|| stored.to_owned())
    }
}

/// The rejected elements that an object holds, as the feed sent them.
pub(crate) fn rejected_elements(bytes: &[u8]) -> Vec<String> {
    let lines = bytes.split(|&byte| byte == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice::<RejectedLine>(line).ok());
    lines.map(|line| line.source()).collect()
}

/// Elements that many readers refuse as JSON are stored as a string of their source.
const KEPT_AS_TEXT: [RejectReason; 2] = [RejectReason::HalfSurrogate, RejectReason::TooDeep];

/// The fingerprints of the rejected elements that an object holds.
pub(crate) fn rejected_in(bytes: &[u8]) -> impl Iterator<Item = Fingerprint> {
    let lines = bytes.split(|&byte| byte == b'\n');
    lines.filter_map(|line| Some(serde_json::from_slice::<RejectedLine>(line).ok()?.fingerprint()))
}
