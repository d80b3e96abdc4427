//! A simulated feed of the police's events, apart from how it is carried: what it answers, and what it did.
//!
//! It keeps the provider's rules in virtual time (403 without a contact in the User-Agent header, 429 for too many calls),
//! holds a buffer of 500 events, compresses, and fails on request.

pub mod changes;
pub mod faults;
pub mod recording;
mod rules;
mod selection;
pub mod source;
pub mod web;

pub mod wire;

use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use faults::{Fault, FaultPlan};
use rules::Rules;
use selection::Selection;
pub use source::Source;

/// What a call says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The `User-Agent` header.
    pub user_agent: Option<&'a str>,
    /// Whether a gzipped body is taken.
    pub takes_gzip: bool,
    /// What stands behind the `?` of the address.
    pub query: &'a str,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A status and its reason.
    Refused {
        /// 403, 429, 500 or 503.
        status: u16,
        /// Seconds to wait, for 429.
        retry_after_s: Option<i64>,
    },
    /// A response.
    Events {
        /// The body as it is sent.
        body: Arc<[u8]>,
        /// Whether it is gzipped.
        gzip: bool,
    },
    /// No answer: the connection is cut.
    Reset,
    /// An answer that comes too late for every client.
    Silence,
}

/// How the feed was used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Calls of all kinds.
    pub calls: u64,
    /// Refused with 403: no contact in the User-Agent header.
    pub anonymous: u64,
    /// Refused with 429: too many calls, or too soon.
    pub too_often: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Responses given.
    pub responses: u64,
    /// Bytes of their bodies as they were sent.
    pub wire_bytes: u64,
}

/// A feed at work.
#[derive(Debug, Clone)]
pub struct SimulatedFeed(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    source: Source,
    rules: Rules,
    faults: FaultPlan,
    usage: Usage,
    /// The last body and its compressed form: many calls get the same.
    last: Option<Packed>,
}

/// A body and its compressed form.
#[derive(Debug)]
struct Packed {
    plain: Arc<[u8]>,
    packed: Arc<[u8]>,
}

impl SimulatedFeed {
    /// A feed that publishes what its source says.
    #[must_use]
    pub fn new(source: Source, faults: FaultPlan) -> Self {
        let state = State { source, rules: Rules::default(), faults, usage: Usage::default(), last: None };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The same, that lets everybody call as often as they like.
    #[must_use]
    pub fn without_rules(self) -> Self {
        self.state().rules = Rules::none();
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everything happen that happens until then.
    pub fn advance_to(&self, now: DateTime<Utc>) {
        self.state().source.advance_to(now);
    }

    /// How it was used so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.state().usage
    }

    /// Looks at the source without a call.
    pub fn look<T>(&self, look: impl FnOnce(&mut Source) -> T) -> T {
        look(&mut self.state().source)
    }

    /// Answers a call at a time.
    #[must_use]
    pub fn answer(&self, call: Call<'_>, now: DateTime<Utc>) -> Answer {
        self.state().answer(call, now)
    }
}

impl State {
    fn answer(&mut self, call: Call<'_>, now: DateTime<Utc>) -> Answer {
        self.source.advance_to(now);
        self.usage.calls += 1;
        if call.user_agent.is_none_or(|agent| agent.trim().is_empty()) {
            self.usage.anonymous += 1;
            return Answer::Refused { status: 403, retry_after_s: None };
        }
        if let Some(wait) = self.rules.wait(now) {
            self.usage.too_often += 1;
            return Answer::Refused { status: 429, retry_after_s: Some(whole_seconds(wait)) };
        }
        let fault = self.faults.next(now);
        self.usage.faults += u64::from(fault.is_some());
        match fault {
            Some(Fault::Error) => Answer::Refused { status: 500, retry_after_s: None },
            Some(Fault::Outage) => Answer::Refused { status: 503, retry_after_s: None },
            Some(Fault::Reset) => Answer::Reset,
            Some(Fault::Timeout) => Answer::Silence,
            Some(Fault::Cut) => {
                let (body, gzip) = self.body(call);
                Answer::Events { body: body[..body.len() / 2].into(), gzip }
            }
            None => {
                let (body, gzip) = self.body(call);
                self.usage.responses += 1;
                self.usage.wire_bytes += body.len() as u64;
                Answer::Events { body, gzip }
            }
        }
    }

    fn body(&mut self, call: Call<'_>) -> (Arc<[u8]>, bool) {
        let mut body: Arc<[u8]> = self.source.response().into();
        let selection = Selection::of(call.query);
        if !selection.is_everything() {
            body = selection.apply(&body).into();
        }
        if !call.takes_gzip {
            return (body, false);
        }
        if let Some(Packed { plain, packed }) = &self.last
            && *plain == body
        {
            return (Arc::clone(packed), true);
        }
        let Ok(packed) = compress(&body) else { return (body, false) };
        let packed: Arc<[u8]> = packed.into();
        self.last = Some(Packed { plain: body, packed: Arc::clone(&packed) });
        (packed, true)
    }
}

/// A body as web servers compress it.
pub(crate) fn compress(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body)?;
    encoder.finish()
}

/// Rounded up: who waits so long has waited enough.
fn whole_seconds(wait: TimeDelta) -> i64 {
    wait.num_seconds() + i64::from(wait.subsec_nanos() > 0)
}
