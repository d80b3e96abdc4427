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
    fn number_beyond_a_double_and_repeated_member_are_read() {
        let event = Fields::of(
            r#"{"id":1,"name":"a","name":"b","type":5,"x":1e999,"location":{"name":"c","name":"d"}}"#,
        );
        let event = event.unwrap();
        assert_eq!((event.id, &*event.name, &*event.kind, &*event.location), (1, "b", "", "d"));
    }
}
