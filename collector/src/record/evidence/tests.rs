//! The judgement over random histories of runs.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;

/// How a run ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    NoAnswer,
    LeftToAnother,
    StoreFails,
    Stored,
}

/// What happens before a run and in it.
#[derive(Debug, Clone)]
struct Step {
    minutes: i64,
    published: usize,
    withdrawn: usize,
    ending: Ending,
}

fn step() -> impl Strategy<Value = Step> {
    let ending = prop_oneof![
        Just(Ending::NoAnswer),
        Just(Ending::LeftToAnother),
        Just(Ending::StoreFails),
        Just(Ending::Stored),
        Just(Ending::Stored),
    ];
    (0_i64..40, 0_usize..3, 0_usize..3, ending).prop_map(|(minutes, published, withdrawn, ending)| Step {
        minutes,
        published,
        withdrawn,
        ending,
    })
}

/// A feed, an archive, and what a collector saw of the one and put into the other.
#[derive(Default)]
struct Fixture {
    feed: Vec<EventId>,
    published: EventId,
    durable: BTreeSet<EventId>,
    first_seen: BTreeMap<EventId, DateTime<Utc>>,
    evidence: Evidence,
}

impl Fixture {
    fn take(&mut self, step: &Step, now: DateTime<Utc>) {
        for _ in 0..step.published {
            self.published += 1;
            self.feed.push(self.published);
        }
        self.feed.drain(..step.withdrawn.min(self.feed.len()));
        let evidence = &mut self.evidence;
        if !matches!(step.ending, Ending::NoAnswer) {
            evidence.note_response(now, self.feed.len(), self.feed.len());
            for &id in &self.feed {
                self.first_seen.entry(id).or_insert(now);
            }
        }
        let durable = &mut self.durable;
        let fetched = self.feed.iter().map(|&id| (id, NaiveDate::MIN));
        match step.ending {
            Ending::NoAnswer => evidence.note_failure(),
            Ending::LeftToAnother => {
                evidence.note_left(now, "another");
                evidence.note_unsettled(now, fetched.filter(|(id, _)| !durable.contains(id)));
            }
            Ending::StoreFails => {
                durable.extend(self.feed.iter().take(1));
                evidence.note_unsettled(now, fetched);
                evidence.note_failure();
            }
            Ending::Stored => {
                durable.extend(&self.feed);
                evidence.note_settled(now, |id, _| durable.contains(&id));
            }
        }
    }
}

proptest! {
    /// No health while an event that was seen longer ago than the limit is not durable.
    #[test]
    fn health_is_never_false(steps in proptest::collection::vec(step(), 1..40), later in 0_i64..60) {
        let limits = Limits::default();
        let (mut fixture, mut now) = (Fixture::default(), DateTime::UNIX_EPOCH);
        for step in &steps {
            now += TimeDelta::minutes(step.minutes);
            fixture.take(step, now);
            for now in [now, now + TimeDelta::minutes(later)] {
                let is_lost = |(id, seen): (&EventId, &DateTime<Utc>)| {
                    (now - *seen).num_minutes() > limits.max_age_minutes && !fixture.durable.contains(id)
                };
                let reasons = fixture.evidence.judge(now, &limits);
                prop_assert!(!reasons.is_empty() || !fixture.first_seen.iter().any(is_lost), "{step:?} {now}");
            }
        }
    }

    /// Good runs that follow each other within the limit are healthy, whatever came before.
    #[test]
    fn health_returns(steps in proptest::collection::vec(step(), 0..20)) {
        let (mut fixture, mut now) = (Fixture::default(), DateTime::UNIX_EPOCH);
        // Nothing is withdrawn before it is stored, so nothing is lost.
        for step in steps.iter().map(|step| Step { withdrawn: 0, published: step.published, ..*step }) {
            now += TimeDelta::minutes(step.minutes);
            fixture.take(&step, now);
        }
        fixture.take(&Step { minutes: 0, published: 1, withdrawn: 0, ending: Ending::Stored }, now);
        prop_assert_eq!(fixture.evidence.judge(now + TimeDelta::minutes(45), &Limits::default()), []);
    }
}

#[test]
fn memory_of_unsettled_events_is_bounded() {
    let mut evidence = Evidence::default();
    evidence.note_unsettled(DateTime::UNIX_EPOCH, (0..5_000).map(|id| (id, NaiveDate::MIN)));
    assert_eq!(evidence.unsettled_events.len(), MAX_UNSETTLED);
    evidence.note_left(DateTime::UNIX_EPOCH, &"\u{202e}\n".repeat(60_000));
    let owner = evidence.unresolved_claim_owner.unwrap();
    assert!(owner.len() <= MAX_OWNER_CHARS && owner.is_ascii(), "{owner}");
}

#[test]
fn claim_of_the_same_owner_is_as_old_as_when_it_was_first_met() {
    let at = |minutes| DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes);
    let mut evidence = Evidence::default();
    evidence.note_left(at(0), "one");
    evidence.note_left(at(30), "one");
    assert_eq!(evidence.unresolved_claim_since, Some(at(0)));
    evidence.note_left(at(60), "two");
    assert_eq!(evidence.unresolved_claim_since, Some(at(60)));
    let held = evidence.judge(at(106), &Limits::default());
    assert!(held.iter().any(|reason| matches!(reason, Reason::ClaimHeld { age: 46, .. })), "{held:?}");
}
