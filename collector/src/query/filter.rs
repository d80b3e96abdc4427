//! Which events are wanted, by what they say.

use std::collections::BTreeSet;

#[cfg(feature = "tables")]
use rustc_hash::FxHashMap;

use crate::event::{EventId, Fields};
use crate::text::{composed, is_same_ignoring_case, lowercase};

/// What an event must be; what is left empty may be anything. Letters are compared without their case, and a letter
/// with a separate combining mark is the same as the composed letter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these kinds.
    pub types: Vec<String>,
    /// In a place of one of these names.
    pub locations: Vec<String>,
    /// With one of these numbers.
    pub ids: BTreeSet<EventId>,
    /// With this text in its name, summary, kind or place.
    pub text: Option<String>,
}

/// Of a kind and a place: whether they fit the filter but for its text, and whether they fit it with its text.
#[cfg(feature = "tables")]
pub(super) type Known = FxHashMap<Box<str>, FxHashMap<Box<str>, (bool, bool)>>;

/// Whether a text holds another one, letters compared without their case.
fn contains(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (composed(text), composed(wanted));
    let begins_here = |rest: &str| {
        let mut letters = lowercase(rest);
        lowercase(&wanted).all(|letter| letters.next() == Some(letter))
    };
    wanted.is_empty() || text.char_indices().any(|(at, _)| begins_here(&text[at..]))
}

impl Filter {
    /// The same of an event's JSON.
    pub(super) fn accepts_json(&self, json: &str) -> bool {
        Fields::of(json).is_ok_and(|event| self.accepts(&event))
    }

    /// The same as [`Filter::accepts`] for many events, of which few differ in their kind and place.
    #[cfg(feature = "tables")]
    pub(super) fn accepts_with(&self, event: &Fields<'_>, known: &mut Known) -> bool {
        if !(self.ids.is_empty() || self.ids.contains(&event.id)) {
            return false;
        }
        let pair = (&*event.kind, &*event.location);
        let of_kind = known.get(pair.0).and_then(|places| places.get(pair.1)).copied();
        let (fits, has_text) = of_kind.unwrap_or_else(|| {
            let alone = Fields { kind: pair.0.into(), location: pair.1.into(), ..Fields::default() };
            let any_id = Self { ids: BTreeSet::new(), ..self.clone() };
            let without_text = Self { text: None, ..any_id.clone() };
            let judged = (without_text.accepts(&alone), any_id.accepts(&alone));
            known.entry(pair.0.into()).or_default().insert(pair.1.into(), judged);
            judged
        });
        let in_texts = |wanted: &str| contains(&event.name, wanted) || contains(&event.summary, wanted);
        fits && (has_text || self.text.as_deref().is_some_and(in_texts))
    }

    /// Whether an event is wanted.
    #[must_use]
    pub fn accepts(&self, event: &Fields<'_>) -> bool {
        let has_text = |wanted: &str| {
            [&event.name, &event.summary, &event.kind, &event.location]
                .into_iter()
                .any(|text| contains(text, wanted))
        };
        (self.ids.is_empty() || self.ids.contains(&event.id))
            && (self.types.is_empty()
                || self.types.iter().any(|kind| is_same_ignoring_case(kind, &event.kind)))
            && (self.locations.is_empty()
                || self.locations.iter().any(|name| is_same_ignoring_case(name, &event.location)))
            && self.text.as_deref().is_none_or(has_text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"id":7,"datetime":"2026-01-02 8:06:02 +01:00","name":"02 januari 07.54, Trafikolycka, V\u00e4ster\u00e5s","summary":"En husbil","type":"Trafikolycka","location":{"name":"Västerås","gps":"1,2"}}"#;

    #[test]
    fn letters_are_compared_without_their_case() {
        let event = Fields::of(EVENT).unwrap();
        assert_eq!((event.id, event.hour()), (7, Some(8)));
        let accepts = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter.accepts(&event)
        };
        assert!(accepts(|_| ()));
        assert!(accepts(|filter| filter.locations = vec!["Falun".to_owned(), "VÄSTERÅS".to_owned()]));
        assert!(accepts(|filter| filter.types = vec!["Brand".to_owned(), "trafikolycka".to_owned()]));
        assert!(accepts(|filter| filter.text = Some("HUSBIL".to_owned())));
        assert!(accepts(|filter| filter.text = Some("västerås".to_owned())));
        assert!(accepts(|filter| filter.text = Some("va\u{308}sterA\u{30a}s".to_owned())));
        assert!(accepts(|filter| filter.locations = vec!["Va\u{308}stera\u{30a}s".to_owned()]));
        assert!(!accepts(|filter| filter.text = Some("gps".to_owned())));
        assert!(!accepts(|filter| filter.locations = vec!["Väster".to_owned()]));
        assert!(!accepts(|filter| filter.ids = BTreeSet::from([8])));
    }
}
