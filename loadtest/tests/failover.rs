//! Drills of a second region: what a fail-over loses, and whether both regions hold the same in the end.

use loadtest::failover::{Question, measure};

/// Each failure at each rate.
#[test]
fn drills_within_the_tolerable_outage_lose_nothing() {
    let question = Question { seeds: 18, first: 0, base_rate: fixtures::DOCUMENTED_EVENTS_PER_HOUR };
    let answer = measure(&question, || ()).unwrap();
    assert!(answer.is_sound(), "{:?} {:?}", answer.rows, answer.faults);
    assert!(answer.rows.iter().map(|row| row.drills).sum::<usize>() >= 12, "{:?}", answer.rows);
}
