//! The evidence for health: what runs have achieved so far, and the judgement that follows from it.
//!
//! Pure: no file, no network, no clock. A run adds facts; [`Evidence::judge`] compares them with the time. Facts only become
//! better by evidence: a run that fails, or that leaves the archive to another run, carries the older facts over. What each
//! fact means, and what it cannot know: `docs/decisions/0010-evidence.md`.

use std::fmt::{self, Display, Write as _};
use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize, Serializer};

use crate::clock::{CLOCK_TOLERANCE, iso};
use crate::event::{EventId, Response};
use crate::text::printable;

/// Maximum number of events whose storage is followed up from run to run.
pub const MAX_UNSETTLED: usize = 1_000;
/// Maximum number of characters that are kept of a claim's owner.
const MAX_OWNER_CHARS: usize = 200;
/// Maximum number of ids in a message.
const IDS_SHOWN: usize = 5;

/// The facts that health rests on. Members of the health file, beside the documented ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Start of the last run that fetched a JSON array.
    #[serde(serialize_with = "iso_or_null")]
    pub last_valid_response: Option<DateTime<Utc>>,
    /// Start of the last run that fetched at least one valid event.
    #[serde(serialize_with = "iso_or_null")]
    pub last_response_with_events: Option<DateTime<Utc>>,
    /// Start of the last run that fetched events after which every one of them was durable, new or known.
    #[serde(serialize_with = "iso_or_null")]
    pub last_settled: Option<DateTime<Utc>>,
    /// Start of the last run before which events may have been missed.
    #[serde(serialize_with = "iso_or_null")]
    pub last_possible_gap: Option<DateTime<Utc>>,
    /// When a run first left the archive to the claim of another one that is still there.
    #[serde(serialize_with = "iso_or_null")]
    pub unresolved_claim_since: Option<DateTime<Utc>>,
    /// Who holds that claim.
    pub unresolved_claim_owner: Option<String>,
    /// When the oldest of `unsettled_events` was first seen.
    #[serde(serialize_with = "iso_or_null")]
    pub unsettled_since: Option<DateTime<Utc>>,
    /// Events that a run fetched and did not store, with their local day; at most [`MAX_UNSETTLED`].
    pub unsettled_events: Vec<(EventId, NaiveDate)>,
    /// Elements of the last valid response.
    pub elements_in_last_response: Option<usize>,
    /// Valid events among them.
    pub events_in_last_response: Option<usize>,
    /// Runs that failed in a row.
    pub consecutive_failures: u32,
    /// What the last run could not write beside the archive, and why.
    pub unwritten: Option<String>,
    /// That the feed answered HTTP 404, if it did: it is not called again.
    pub feed_gone: Option<FeedGone>,
}

/// An answer HTTP 404 of the feed, which the provider's rules call permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedGone {
    /// When it came.
    pub since: DateTime<Utc>,
    /// Where this machine remembers it.
    pub state_dir: PathBuf,
}

/// What is compared with the evidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Maximum age of a fact, in whole minutes: the interval plus a grace period.
    pub max_age_minutes: i64,
    /// Maximum share of a response that may be rejected, from 0 to 1.
    pub max_rejected_share: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_age_minutes: 45, max_rejected_share: 0.2 }
    }
}

/// A fact that has a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// [`Evidence::last_valid_response`]
    ValidResponse,
    /// [`Evidence::last_response_with_events`]
    ResponseWithEvents,
    /// [`Evidence::last_settled`]
    SettledResponse,
    /// [`Evidence::unresolved_claim_since`]
    UnresolvedClaim,
    /// [`Evidence::unsettled_since`]
    UnsettledEvents,
}

/// Why the evidence does not show health. `Display` gives whole lines: the reason and what to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// It never happened.
    Never(Fact),
    /// It happened too long ago.
    TooOld {
        /// What happened.
        fact: Fact,
        /// When.
        at: DateTime<Utc>,
        /// Its age in minutes.
        age: i64,
        /// The maximum age in minutes.
        max_age: i64,
    },
    /// It is dated later than now.
    InTheFuture {
        /// What is dated so.
        fact: Fact,
        /// Its date.
        at: DateTime<Utc>,
        /// The time of this machine.
        now: DateTime<Utc>,
    },
    /// Another run has held the archive for too long.
    ClaimHeld {
        /// Who holds it.
        owner: String,
        /// Since when it is known to be held.
        since: DateTime<Utc>,
        /// For how many minutes.
        age: i64,
    },
    /// Events were seen too long ago and are not known to be stored.
    NotStored {
        /// Their ids.
        ids: Vec<EventId>,
        /// When the oldest was first seen.
        since: DateTime<Utc>,
        /// How many minutes ago.
        age: i64,
    },
    /// The last response held no valid event.
    NoEvents {
        /// Its elements.
        elements: usize,
        /// When there were events for the last time.
        before: Option<DateTime<Utc>>,
    },
    /// Too many elements of the last response are not valid events.
    Rejected {
        /// How many.
        rejected: usize,
        /// Of how many.
        elements: usize,
        /// The maximum share.
        limit: f64,
    },
    /// The run's record or metrics could not be written.
    Unwritten(String),
    /// The feed answered HTTP 404 and is not called again.
    FeedGone(FeedGone),
}

impl Evidence {
    /// Adds a response that is a JSON array, fetched by a run that started at `at`.
    pub fn note_response(&mut self, at: DateTime<Utc>, elements: usize, events: usize) {
        self.last_valid_response = Some(at);
        self.elements_in_last_response = Some(elements);
        self.events_in_last_response = Some(events);
        if events > 0 {
            self.last_response_with_events = Some(at);
        }
    }

    /// Notes that every event of a response is durable. `is_settled` decides about an event that an earlier run could not
    /// store: whether it is durable now, or cannot be judged.
    pub fn note_settled(&mut self, at: DateTime<Utc>, is_settled: impl Fn(EventId, NaiveDate) -> bool) {
        if self.events_in_last_response.is_some_and(|events| events > 0) {
            self.last_settled = Some(at);
        }
        (self.unresolved_claim_since, self.unresolved_claim_owner) = (None, None);
        self.unsettled_events.retain(|&(id, day)| !is_settled(id, day));
        if self.unsettled_events.is_empty() {
            self.unsettled_since = None;
        }
        self.consecutive_failures = 0;
    }

    /// Notes that a run left the archive to another one. That is not a failure, and no evidence of anything stored.
    pub fn note_left(&mut self, at: DateTime<Utc>, owner: &str) {
        let owner: String = printable(owner).to_string().chars().take(MAX_OWNER_CHARS).collect();
        if self.unresolved_claim_owner.as_ref() != Some(&owner) {
            self.unresolved_claim_since = Some(at);
        }
        self.unresolved_claim_owner = Some(owner);
    }

    /// Notes that a run failed.
    pub fn note_failure(&mut self) {
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
    }

    /// Notes events that a run at `at` fetched and that are not known to be stored.
    pub fn note_unsettled(
        &mut self,
        at: DateTime<Utc>,
        events: impl IntoIterator<Item = (EventId, NaiveDate)>,
    ) {
        for event in events {
            if self.unsettled_events.len() >= MAX_UNSETTLED {
                return;
            }
            if !self.unsettled_events.iter().any(|(id, _)| *id == event.0) {
                self.unsettled_events.push(event);
                self.unsettled_since.get_or_insert(at);
            }
        }
    }

    /// Elements of the last response that are not valid events.
    #[must_use]
    pub fn rejected_in_last_response(&self) -> usize {
        let (elements, events) = (self.elements_in_last_response, self.events_in_last_response);
        elements.unwrap_or(0).saturating_sub(events.unwrap_or(0))
    }

    /// Their share, from 0 to 1; 0 for an empty response.
    #[must_use]
    pub fn rejected_share(&self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a response of 64 MiB has far fewer than 2^53 elements"
        )]
        let share = self.rejected_in_last_response() as f64
            / self.elements_in_last_response.unwrap_or(0).max(1) as f64;
        share
    }

    /// Why this does not show health at `now`; nothing if it does.
    #[must_use]
    pub fn judge(&self, now: DateTime<Utc>, limits: &Limits) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = self.feed_gone.clone().map(Reason::FeedGone).into_iter().collect();
        let max_age = limits.max_age_minutes;
        for (fact, at) in [
            (Fact::ValidResponse, self.last_valid_response),
            (Fact::ResponseWithEvents, self.last_response_with_events),
            (Fact::SettledResponse, self.last_settled),
        ] {
            match at.map(|at| (at, age(fact, at, now))) {
                None => reasons.push(Reason::Never(fact)),
                Some((_, Err(future))) => reasons.push(future),
                Some((at, Ok(age))) if age > max_age => {
                    reasons.push(Reason::TooOld { fact, at, age, max_age });
                }
                Some(_) => {}
            }
        }
        // A damaged file may lack the time of what it names.
        let unknown = |is_named: bool| is_named.then_some(DateTime::UNIX_EPOCH);
        let claim_since = self.unresolved_claim_since.or(unknown(self.unresolved_claim_owner.is_some()));
        if let Some(since) = claim_since {
            let owner = self.unresolved_claim_owner.clone().unwrap_or_default();
            reasons.extend(too_old(Fact::UnresolvedClaim, since, now, max_age, |age| Reason::ClaimHeld {
                owner,
                since,
                age,
            }));
        }
        if let Some(since) = self.unsettled_since.or(unknown(!self.unsettled_events.is_empty())) {
            let ids = self.unsettled_events.iter().map(|(id, _)| *id).collect();
            reasons.extend(too_old(Fact::UnsettledEvents, since, now, max_age, |age| Reason::NotStored {
                ids,
                since,
                age,
            }));
        }
        reasons.extend(self.judge_response(limits));
        reasons.extend(self.unwritten.clone().map(Reason::Unwritten));
        reasons
    }

    fn judge_response(&self, limits: &Limits) -> Option<Reason> {
        self.last_valid_response?;
        let elements = self.elements_in_last_response.unwrap_or(0);
        if elements == 0 || self.events_in_last_response.unwrap_or(0) == 0 {
            return Some(Reason::NoEvents { elements, before: self.last_response_with_events });
        }
        let rejected = self.rejected_in_last_response();
        let limit = limits.max_rejected_share;
        (self.rejected_share() > limit).then_some(Reason::Rejected { rejected, elements, limit })
    }
}

/// The valid events of a response.
pub(crate) fn events_in<'a>(response: &'a Response<'_>) -> impl Iterator<Item = (EventId, NaiveDate)> + 'a {
    response.elements().iter().filter_map(|element| element.event.ok()).map(|event| (event.id, event.day))
}

/// Whether a time cannot be explained by clocks that differ a little.
#[must_use]
pub fn is_in_the_future(time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    time - now > CLOCK_TOLERANCE
}

/// Whole minutes since a fact, rounded down as the documented check rounds.
fn age(fact: Fact, at: DateTime<Utc>, now: DateTime<Utc>) -> Result<i64, Reason> {
    if is_in_the_future(at, now) {
        return Err(Reason::InTheFuture { fact, at, now });
    }
    Ok((now - at).num_seconds().div_euclid(60))
}

fn too_old(
    fact: Fact,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
    max_age: i64,
    reason: impl FnOnce(i64) -> Reason,
) -> Option<Reason> {
    match age(fact, at, now) {
        Ok(age) => (age > max_age).then(|| reason(age)),
        Err(future) => Some(future),
    }
}

impl Fact {
    fn words(self) -> &'static str {
        match self {
            Self::ValidResponse => "valid response",
            Self::ResponseWithEvents => "response with events",
            Self::SettledResponse => "settled response (every event stored)",
            Self::UnresolvedClaim => "claim of another run",
            Self::UnsettledEvents => "response with events that are not stored",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::ValidResponse => {
                "The feed does not answer, or not with a JSON array; `collector doctor` tries it"
            }
            Self::ResponseWithEvents => "The address or the format of the feed may have changed",
            _ => "The store does not take what the feed sends; `collector doctor` tries it",
        }
    }
}

const HINT_CLOCK: &str =
    "The clock of this machine is wrong, or was; compare it with a time server, then run the collector again";
const HINT_FORMAT: &str =
    "The format of the feed may have changed; rejected elements are kept under rejected/ with the reason";
const HINT_CLAIM: &str =
    "`collector doctor` shows the claim; if its process is dead, `collector repair` finishes it";
const HINT_LOSS: &str = "`collector doctor` tries feed and store; what the feed no longer shows can only come from a recording \
     (`collector import`); to accept the loss, remove the health file";
const HINT_SPACE: &str = "Check free space, permissions and mount options";

impl Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, hint) = match self {
            Self::Never(fact) => (format!("There was no {} so far", fact.words()), fact.hint()),
            Self::TooOld { fact, at, age, max_age } => {
                let at = iso(*at);
                let words = fact.words();
                let what =
                    format!("Last {words} was {age} minutes ago, at {at} (threshold: {max_age} minutes)");
                (what, fact.hint())
            }
            Self::InTheFuture { fact, at, now } => {
                (future(&format!("Last {}", fact.words()), &iso(*at), *now), HINT_CLOCK)
            }
            Self::ClaimHeld { owner, since, age } => {
                let since = iso(*since);
                let what =
                    format!("Another run ({owner}) has held the archive since {since}, for {age} minutes");
                (what, HINT_CLAIM)
            }
            Self::NotStored { ids, since, age } => {
                let mut what = format!(
                    "Events not stored: {} seen {age} minutes ago, at {}: id",
                    ids.len(),
                    iso(*since)
                );
                for id in ids.iter().take(IDS_SHOWN) {
                    let _ = write!(what, " {id}");
                }
                (what + if ids.len() > IDS_SHOWN { " …" } else { "" }, HINT_LOSS)
            }
            Self::NoEvents { elements, before } => {
                let before =
                    before.map_or_else(String::new, |at| format!("; the last events came at {}", iso(at)));
                let what = if *elements == 0 {
                    format!("Last response was empty{before}")
                } else {
                    format!("Last response held no valid event among {elements} elements{before}")
                };
                (what, HINT_FORMAT)
            }
            Self::Rejected { rejected, elements, limit } => {
                let limit = limit * 100.0;
                let what = format!(
                    "Last response held {rejected} invalid elements of {elements} (limit: {limit} %)"
                );
                (what, HINT_FORMAT)
            }
            Self::Unwritten(what) => (what.clone(), HINT_SPACE),
            Self::FeedGone(FeedGone { since, state_dir }) => {
                let what = format!(
                    "The feed answered HTTP 404 at {}; the provider's rules call that permanent, so it is not called again",
                    iso(*since)
                );
                let hint = format!(
                    "Check the address of the feed; then `collector run --force --state-dir {}` calls it once more",
                    printable(state_dir.display())
                );
                return write!(formatter, "ERROR: {}\nHINT: {hint}", printable(what));
            }
        };
        write!(formatter, "ERROR: {}\nHINT: {hint}", printable(what))
    }
}

/// The two lines about a time in the future, as the check prints them for the documented members.
pub(super) fn future_lines(what: &str, at: &str, now: DateTime<Utc>) -> String {
    format!("ERROR: {}\nHINT: {HINT_CLOCK}\n", printable(future(what, at, now)))
}

fn future(what: &str, at: &str, now: DateTime<Utc>) -> String {
    format!("{what} is dated {at}, but the clock of this machine shows {}", iso(now))
}

#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn iso_or_null<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(iso).serialize(serializer)
}

#[cfg(test)]
mod tests;
