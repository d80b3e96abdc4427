//! What an event says, for those who read the archive. A run never needs it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

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
}
