//! How long what takes.

use std::time::Duration;

use axum::http::Method;

/// How long the service thinks before it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// Reading an object, or learning of it.
    pub get: Duration,
    /// Writing an object.
    pub put: Duration,
    /// Writing an object under `metadata/`.
    pub put_metadata: Duration,
    /// A page of a listing, and anything else.
    pub other: Duration,
}

impl Latency {
    /// As the analysis of the documented collector measured them: a read 0.5 s, events 0.8 s, metadata 0.3 s.
    pub const DOCUMENTED: Self = Self {
        get: Duration::from_millis(500),
        put: Duration::from_millis(800),
        put_metadata: Duration::from_millis(300),
        other: Duration::from_millis(500),
    };

    /// The same for each answer.
    #[must_use]
    pub fn uniform(latency: Duration) -> Self {
        Self { get: latency, put: latency, put_metadata: latency, other: latency }
    }

    /// How long a request takes; `path` as it was sent, with `/` in names as `%2F`.
    pub(super) fn of(&self, method: &Method, path: &str) -> Duration {
        let name = path.rsplit('/').next().unwrap_or_default();
        match *method {
            Method::GET | Method::HEAD => self.get,
            Method::PUT if name.contains("metadata%2F") => self.put_metadata,
            Method::PUT => self.put,
            _ => self.other,
        }
    }
}
