//! Which events are wanted, by what they say.

use std::collections::BTreeSet;

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

/// A text that is searched for in many others.
#[derive(Debug, Clone)]
pub(super) struct Needle {
    /// Composed and in lower case.
    letters: Vec<char>,
    /// The bytes of each letter in lower and in upper case, if all of them are letters of Latin-1.
    latin: Option<Vec<[u8; 2]>>,
}

/// The first byte of the letters behind Latin-1, in UTF-8.
const BEHIND_LATIN: u8 = 0xc4;

impl Needle {
    pub(super) fn new(wanted: &str) -> Self {
        let letters: Vec<char> = lowercase(&composed(wanted)).collect();
        let bytes = |letter: &char| {
            let other = letter.to_uppercase().next().filter(|it| it.to_lowercase().eq([*letter]));
            let upper = other.filter(|it| u32::from(*it) <= 0xff).unwrap_or(*letter);
            letter
                .to_string()
                .into_bytes()
                .into_iter()
                .zip(upper.to_string().into_bytes())
                .map(<[u8; 2]>::from)
        };
        let is_latin = letters.iter().all(|letter| u32::from(*letter) <= 0xff);
        let latin = is_latin.then(|| letters.iter().flat_map(bytes).collect());
        Self { letters, latin }
    }

    /// Whether a text holds it, letters compared without their case.
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.is_in_bytes(text.as_bytes())
    }

    /// The same of a text in UTF-8.
    pub(super) fn is_in_bytes(&self, bytes: &[u8]) -> bool {
        // Letters of Latin-1 are composed, and in lower case they have as many bytes.
        if bytes.iter().fold(0, |highest, byte| highest.max(*byte)) < BEHIND_LATIN {
            return self.latin.as_ref().is_some_and(|wanted| is_in_latin(wanted, bytes));
        }
        let text = composed(std::str::from_utf8(bytes).unwrap_or_default());
        let begins_here = |rest: &str| {
            let mut letters = lowercase(rest);
            self.letters.iter().all(|letter| letters.next() == Some(*letter))
        };
        self.letters.is_empty() || text.char_indices().any(|(at, _)| begins_here(&text[at..]))
    }
}

/// Whether a text of Latin-1 in UTF-8 holds one of which each byte has two forms.
fn is_in_latin(wanted: &[[u8; 2]], text: &[u8]) -> bool {
    let Some((first, behind)) = wanted.split_first() else { return true };
    let fits = |byte: &u8, forms: &[u8; 2]| forms.contains(byte);
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| fits(byte, first)) {
        rest = &rest[at + 1..];
        if rest.len() >= behind.len() && rest.iter().zip(behind).all(|(byte, forms)| fits(byte, forms)) {
            return true;
        }
    }
    false
}

impl Filter {
    pub(super) fn needle(&self) -> Option<Needle> {
        self.text.as_deref().map(Needle::new)
    }

    /// The same of an event's JSON.
    pub(super) fn accepts_json(&self, json: &str) -> bool {
        Fields::of(json).is_ok_and(|event| self.accepts(&event))
    }

    /// Whether an event is wanted.
    #[must_use]
    pub fn accepts(&self, event: &Fields<'_>) -> bool {
        self.accepts_with(self.needle().as_ref(), event)
    }

    /// The same, with what [`Filter::needle`] returned.
    pub(super) fn accepts_with(&self, needle: Option<&Needle>, event: &Fields<'_>) -> bool {
        let has_text = |needle: &Needle| {
            [&event.name, &event.summary, &event.kind, &event.location]
                .into_iter()
                .any(|text| needle.is_in(text))
        };
        (self.ids.is_empty() || self.ids.contains(&event.id))
            && self.accepts_kind(&event.kind)
            && self.accepts_location(&event.location)
            && needle.is_none_or(has_text)
    }

    pub(super) fn accepts_kind(&self, kind: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|wanted| is_same_ignoring_case(wanted, kind))
    }

    pub(super) fn accepts_location(&self, location: &str) -> bool {
        self.locations.is_empty() || self.locations.iter().any(|it| is_same_ignoring_case(it, location))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// Texts of few letters, of which many fold to each other, some only with other lengths.
    fn letters() -> impl Strategy<Value = String> {
        let letters = vec![
            "a", "A", "å", "Å", "a\u{30a}", "\u{30a}", "ß", "ẞ", "ÿ", "Ÿ", "µ", "×", "÷", "K", "k",
            "\u{212a}", "İ", "i", "\u{307}", "ſ", "s", "€", "C", "\u{a0}",
        ];
        prop::collection::vec(prop::sample::select(letters), 0..6).prop_map(|letters| letters.concat())
    }

    proptest! {
        /// As each begin of the composed text says, letter by letter.
        #[test]
        fn needle_is_found_where_letters_are_the_same(text in letters(), wanted in letters()) {
            let (whole, part) = (composed(&text), composed(&wanted));
            let begins_here = |rest: &str| {
                let mut letters = lowercase(rest);
                lowercase(&part).all(|letter| letters.next() == Some(letter))
            };
            let expected = part.is_empty() || whole.char_indices().any(|(at, _)| begins_here(&whole[at..]));
            prop_assert_eq!(Needle::new(&wanted).is_in(&text), expected);
        }
    }
}
