//! What an event says, for those who read the archive. A run never needs it.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::EventId;

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

/// The members of an object, the last one of each name. Their values are not read into numbers, because some numbers
/// fit no type.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Members<'a>(#[serde(borrow)] HashMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Members<'a> {
    fn read<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }
}

impl<'a> Fields<'a> {
    /// Reads an event.
    ///
    /// # Errors
    /// If the text is not JSON.
    pub fn of(json: &'a str) -> serde_json::Result<Self> {
        if let Ok(Usual { id, datetime, name, summary, url, kind, location }) = serde_json::from_str(json) {
            let UsualLocation { name: location, gps } = location;
            return Ok(Self { id, datetime, name, summary, url, kind, location, gps });
        }
        let event: Members<'_> = serde_json::from_str(json)?;
        let location = event.read::<Members<'_>>("location").unwrap_or_default();
        let text = |members: &Members<'_>, name| Cow::Owned(members.read(name).unwrap_or_default());
        Ok(Self {
            id: event.read("id").unwrap_or_default(),
            datetime: text(&event, "datetime"),
            name: text(&event, "name"),
            summary: text(&event, "summary"),
            url: text(&event, "url"),
            kind: text(&event, "type"),
            location: text(&location, "name"),
            gps: text(&location, "gps"),
        })
    }

    /// The hour of its day, by its own `datetime`.
    #[must_use]
    pub fn hour(&self) -> Option<u8> {
        let (_, time) = self.datetime.split_once([' ', 'T'])?;
        time.trim_start().split(':').next()?.parse().ok().filter(|hour| *hour < 24)
    }
}

/// What an event says, where a text that is absent differs from an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values<'a> {
    /// The texts that the event holds; empty where it holds none.
    fields: Fields<'a>,
    /// The members that are absent or hold something else than a text, in the order of [`Values::texts`].
    absent: [bool; 6],
    /// Number of members that hold something else than a text; `null` is none of them.
    pub odd: usize,
}

impl<'a> Values<'a> {
    /// Reads an event.
    ///
    /// # Errors
    /// If the text is not JSON.
    pub fn of(json: &'a str) -> serde_json::Result<Self> {
        let mut values = Self { fields: Fields::of(json)?, ..Self::default() };
        if values.slots().iter().all(|text| !text.is_empty()) {
            return Ok(values);
        }
        let event: Members<'_> = serde_json::from_str(json)?;
        let location = event.read::<Members<'_>>("location");
        let is_odd = |value: Option<&&RawValue>| {
            value.is_some_and(|value| !value.get().starts_with('"') && value.get() != "null")
        };
        let is_text = |value: Option<&&RawValue>| value.is_some_and(|value| value.get().starts_with('"'));
        let outer = ["name", "summary", "url", "type"].map(|name| event.0.get(name));
        let inner = ["name", "gps"].map(|name| location.as_ref().and_then(|it| it.0.get(name)));
        for (absent, value) in values.absent.iter_mut().zip(outer.into_iter().chain(inner)) {
            *absent = !is_text(value);
            values.odd += usize::from(is_odd(value));
        }
        let place = event.0.get("location").map(|value| value.get());
        values.odd += usize::from(place.is_some_and(|place| !place.starts_with('{') && place != "null"));
        Ok(values)
    }

    fn slots(&self) -> [&Cow<'a, str>; 6] {
        let Fields { name, summary, url, kind, location, gps, .. } = &self.fields;
        [name, summary, url, kind, location, gps]
    }

    /// The number of the event and its `datetime`.
    #[must_use]
    pub fn id_and_datetime(&self) -> (EventId, &str) {
        (self.fields.id, &self.fields.datetime)
    }

    /// `name`, `summary`, `url`, `type`, and of its location `name` and `gps`, each only if it is a text.
    #[must_use]
    pub fn texts(&self) -> [Option<&str>; 6] {
        let mut absent = self.absent.into_iter();
        self.slots().map(|text| if absent.next() == Some(true) { None } else { Some(&**text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_says_little_or_something_else_is_read_too() {
        let event =
            Fields::of(r#"{"id":1,"datetime":"2026-01-02 09:06:02 +01:00","name":5,"location":null}"#)
                .unwrap();
        assert_eq!((&*event.name, &*event.location, event.hour()), ("", "", Some(9)));
        assert!(Fields::of("{").is_err());
    }

    #[test]
    fn absent_text_differs_from_empty_one() {
        let event = r#"{"id":1,"datetime":"d","name":"","summary":5,"url":null,"location":{"gps":["a"]}}"#;
        let values = Values::of(event).unwrap();
        assert_eq!(values.texts(), [Some(""), None, None, None, None, None]);
        assert_eq!((values.id_and_datetime(), values.odd), ((1, "d"), 2));
        let values = Values::of(r#"{"id":1,"datetime":"d","location":"Falun"}"#).unwrap();
        assert_eq!((values.texts(), values.odd), ([None; 6], 1));
        let usual = r#"{"id":1,"datetime":"d","name":"n","summary":"s","url":"u","type":"t","location":{"name":"l","gps":"g"}}"#;
        let values = Values::of(usual).unwrap();
        assert_eq!((values.texts(), values.odd), (["n", "s", "u", "t", "l", "g"].map(Some), 0));
    }

    #[test]
    fn number_beyond_a_double_and_repeated_member_are_read() {
        let event = Fields::of(
            r#"{"id":1,"name":"a","name":"b","type":5,"x":1e999,"location":{"name":"c","name":"d"}}"#,
        );
        let event = event.unwrap();
        assert_eq!((event.id, &*event.name, &*event.kind, &*event.location), (1, "b", "", "d"));
    }
}
