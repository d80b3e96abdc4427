//! Two stores in two regions, collectors, updates of a replica, fail-overs and splits: no event is lost or stored twice.
//!
//! A seed decides everything. Variables: `REGIONS_SEEDS`, the number of simulated schedules (10,000 by default) from seed
//! `REGIONS_FIRST` (0) on, and `REGIONS_SEED`, one schedule whose steps are printed:
//!
//! ```text
//! REGIONS_SEED=4711 cargo test -p polisen-events-collector --test regions whole -- --nocapture
//! REGIONS_SEEDS=1000000 cargo test --release -p polisen-events-collector --test regions whole
//! ```

#![expect(clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "a test fails by panicking")]

mod process;
#[path = "../simulation/rng.rs"]
mod rng;
mod schedule;
#[path = "../simulation/seeds.rs"]
mod seeds;
mod store;
#[path = "../simulation/tape.rs"]
mod tape;

use std::ops::Range;
use std::sync::OnceLock;

use schedule::Schedule;
use seeds::{first_failure, number};
use store::Guard;
use tape::Tape;

const TAPES: u64 = 24;
const RESPONSES: usize = 40;
const SEEDS: u64 = 10_000;

fn tape_of(seed: u64) -> &'static Tape {
    static ALL: OnceLock<Vec<Tape>> = OnceLock::new();
    let tapes = ALL.get_or_init(|| (0..TAPES).map(|seed| Tape::record(seed, RESPONSES)).collect());
    &tapes[usize::try_from(seed % TAPES).unwrap()]
}

/// The lowest seed that breaks a promise, and which one.
fn first_violation(seeds: Range<u64>, broken: Option<Guard>) -> Option<(u64, String)> {
    first_failure(seeds, |seed| Schedule::new(seed, tape_of(seed), broken, false).run())
}

fn replay(seed: u64, broken: Option<Guard>) -> String {
    let mut schedule = Schedule::new(seed, tape_of(seed), broken, true);
    let result = schedule.run();
    format!("{}seed {seed}: {result:?}", schedule.into_log())
}

#[test]
fn the_whole_keeps_every_promise() {
    if let Some(seed) = number("REGIONS_SEED") {
        let log = replay(seed, None);
        assert!(log.ends_with("Ok(())"), "{log}");
        return;
    }
    let (seeds, first) = (number("REGIONS_SEEDS").unwrap_or(SEEDS), number("REGIONS_FIRST").unwrap_or(0));
    if let Some((seed, promise)) = first_violation(first..first + seeds, None) {
        panic!("{}\n{promise}", replay(seed, None));
    }
}

/// Without the guard a promise is broken within 10,000 seeds: the simulation can fail.
#[track_caller]
fn assert_needed(guard: Guard) {
    let found = first_violation(0..SEEDS, Some(guard));
    let (seed, promise) =
        found.unwrap_or_else(|| panic!("without {guard:?} nothing went wrong in {SEEDS} schedules"));
    println!("without {guard:?}: seed {seed}: {promise}");
    assert!(!replay(seed, Some(guard)).ends_with("Ok(())"), "seed {seed} does not repeat itself");
}

#[test]
fn without_the_condition_of_the_ledger_a_promise_is_broken() {
    assert_needed(Guard::Claim);
}

#[test]
fn without_conditional_creation_a_promise_is_broken() {
    assert_needed(Guard::Create);
}

#[test]
fn without_objects_before_the_ledger_a_promise_is_broken() {
    assert_needed(Guard::ObjectsFirst);
}

#[test]
fn without_the_fence_of_the_claim_a_promise_is_broken() {
    assert_needed(Guard::Fence);
}

#[test]
fn without_the_fence_of_the_old_primary_a_promise_is_broken() {
    assert_needed(Guard::OldPrimary);
}
