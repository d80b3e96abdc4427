//! The provider's filters: `DateTime`, `locationname`, `type`.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

/// What a call asks for. Written apart from the collector, by the provider's page.
#[derive(Debug, Default)]
pub(super) struct Selection {
    time: Option<String>,
    locations: Option<Vec<String>>,
    types: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Shown {
    datetime: String,
    #[serde(rename = "type")]
    kind: String,
    location: Place,
}

#[derive(Deserialize)]
struct Place {
    name: String,
}

impl Selection {
    /// The filters of an address's query.
    pub(super) fn of(query: &str) -> Self {
        let mut selection = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8_lossy().into_owned();
            let names = || Some(value.split(';').map(str::to_owned).collect());
            match name {
                "DateTime" => selection.time = Some(value),
                "locationname" => selection.locations = names(),
                "type" => selection.types = names(),
                _ => {}
            }
        }
        selection
    }

    pub(super) fn is_everything(&self) -> bool {
        self.time.is_none() && self.locations.is_none() && self.types.is_none()
    }

    /// The events of a response that are asked for.
    pub(super) fn apply(&self, body: &[u8]) -> Vec<u8> {
        let events: Vec<&RawValue> = serde_json::from_slice(body).unwrap_or_default();
        let wanted = events.into_iter().filter(|event| self.accepts(event.get()));
        let wanted: Vec<&str> = wanted.map(RawValue::get).collect();
        format!("[{}]", wanted.join(",")).into_bytes()
    }

    fn accepts(&self, event: &str) -> bool {
        let Ok(Shown { datetime, kind, location }) = serde_json::from_str(event) else { return false };
        // Before ten o'clock the hour has one digit.
        let is_short = datetime.as_bytes().get(12) == Some(&b':');
        let datetime = if is_short { datetime.replacen(' ', " 0", 1) } else { datetime };
        let is_one = |names: &Option<Vec<String>>, name: &str| {
            names.as_ref().is_none_or(|names| names.iter().any(|one| one == name))
        };
        self.time.as_ref().is_none_or(|time| datetime.starts_with(time))
            && is_one(&self.locations, &location.name)
            && is_one(&self.types, &kind)
    }
}
