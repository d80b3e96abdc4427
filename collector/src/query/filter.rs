//! Which events are wanted, by what they say.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::event::EventId;

/// What an event must be; what is left empty may be anything. Letters are compared without their case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these kinds.
    pub types: Vec<String>,
    /// In a place of this name.
    pub location: Option<String>,
    /// With this number.
    pub id: Option<EventId>,
    /// With this text in its name, summary, kind or place.
    pub text: Option<String>,
}

/// What an event says; empty where it says nothing, or something that is no text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// Its number.
    pub id: EventId,
    /// Its local date and time with the offset.
    pub datetime: Cow<'a, str>,
    /// Its title.
    pub name: Cow<'a, str>,
    /// What happened.
    pub summary: Cow<'a, str>,
    /// The path of its page.
    pub url: Cow<'a, str>,
    /// Its kind.
    pub kind: Cow<'a, str>,
    /// Where it happened.
    pub location: Cow<'a, str>,
    /// That place's latitude and longitude.
    pub gps: Cow<'a, str>,
}

/// An event as it usually is.
#[derive(Deserialize)]
struct Usual<'a> {
    id: EventId,
    #[serde(borrow)]
    datetime: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    summary: Cow<'a, str>,
    #[serde(borrow, default)]
    url: Cow<'a, str>,
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    location: UsualLocation<'a>,
}

#[derive(Default, Deserialize)]
struct UsualLocation<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    gps: Cow<'a, str>,
}

impl<'a> Fields<'a> {
    /// Reads an event.
    ///
    /// # Errors
    /// If the text is no JSON.
    pub fn of(json: &'a str) -> serde_json::Result<Self> {
        if let Ok(Usual { id, datetime, name, summary, url, kind, location }) = serde_json::from_str(json) {
            let UsualLocation { name: location, gps } = location;
            return Ok(Self { id, datetime, name, summary, url, kind, location, gps });
        }
        let event: Value = serde_json::from_str(json)?;
        let text = |value: &Value| Cow::Owned(value.as_str().unwrap_or_default().to_owned());
        Ok(Self {
            id: event["id"].as_i64().unwrap_or_default(),
            datetime: text(&event["datetime"]),
            name: text(&event["name"]),
            summary: text(&event["summary"]),
            url: text(&event["url"]),
            kind: text(&event["type"]),
            location: text(&event["location"]["name"]),
            gps: text(&event["location"]["gps"]),
        })
    }

    /// The hour of its day, by its own `datetime`.
    #[must_use]
    pub fn hour(&self) -> Option<u8> {
        let (_, time) = self.datetime.split_once([' ', 'T'])?;
        time.trim_start().split(':').next()?.parse().ok().filter(|hour| *hour < 24)
    }
}

fn lowercase(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

/// Whether a text holds another one, letters compared without their case.
fn contains(text: &str, wanted: &str) -> bool {
    let begins_here = |rest: &str| {
        let mut letters = lowercase(rest);
        lowercase(wanted).all(|letter| letters.next() == Some(letter))
    };
    wanted.is_empty() || text.char_indices().any(|(at, _)| begins_here(&text[at..]))
}

impl Filter {
    /// Whether an event is wanted.
    #[must_use]
    pub fn accepts(&self, event: &Fields<'_>) -> bool {
        let is = |one: &str, other: &str| one == other || lowercase(one).eq(lowercase(other));
        let has_text = |wanted: &str| {
            [&event.name, &event.summary, &event.kind, &event.location]
                .into_iter()
                .any(|text| contains(text, wanted))
        };
        self.id.is_none_or(|id| id == event.id)
            && (self.types.is_empty() || self.types.iter().any(|kind| is(kind, &event.kind)))
            && self.location.as_deref().is_none_or(|location| is(location, &event.location))
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
        assert!(accepts(|filter| filter.location = Some("VÄSTERÅS".to_owned())));
        assert!(accepts(|filter| filter.types = vec!["Brand".to_owned(), "trafikolycka".to_owned()]));
        assert!(accepts(|filter| filter.text = Some("HUSBIL".to_owned())));
        assert!(accepts(|filter| filter.text = Some("västerås".to_owned())));
        assert!(!accepts(|filter| filter.text = Some("gps".to_owned())));
        assert!(!accepts(|filter| filter.location = Some("Väster".to_owned())));
        assert!(!accepts(|filter| filter.id = Some(8)));
    }

    #[test]
    fn an_event_that_says_little_or_something_else_is_read_too() {
        let event =
            Fields::of(r#"{"id":1,"datetime":"2026-01-02 09:06:02 +01:00","name":5,"location":null}"#)
                .unwrap();
        assert_eq!((&*event.name, &*event.location, event.hour()), ("", "", Some(9)));
        assert!(Fields::of("{").is_err());
    }
}
