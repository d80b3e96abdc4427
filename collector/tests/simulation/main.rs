//! Several collectors, one store, one feed, virtual time: whatever goes wrong, the archive keeps its promises.
//!
//! A seed decides everything. Variables: `SIMULATION_SEEDS`, the number of simulated schedules (10,000 by default) from seed
//! `SIMULATION_FIRST` (0) on, and `SIMULATION_SEED`, one schedule whose steps are printed:
//!
//! ```text
//! SIMULATION_SEED=4711 cargo test -p polisen-events-collector --test simulation whole -- --nocapture
//! SIMULATION_SEEDS=1000000 cargo test --release -p polisen-events-collector --test simulation whole
//! ```

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod machine;
mod promises;
mod publishing;
mod restore;
mod rng;
mod schedule;
mod seeds;
mod store;
mod tape;

use std::ops::Range;
use std::sync::OnceLock;

use schedule::Schedule;
use seeds::{first_failure, number};
use store::Guard;
use tape::Tape;

const TAPES: u64 = 48;
const RESPONSES: usize = 40;
const SEEDS: u64 = 10_000;

/// The tapes, made by the first who needs them.
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
    if let Some(seed) = number("SIMULATION_SEED") {
        let log = replay(seed, None);
        assert!(log.ends_with("Ok(())"), "{log}");
        return;
    }
    let seeds = number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let first = number("SIMULATION_FIRST").unwrap_or(0);
    if let Some((seed, promise)) = first_violation(first..first + seeds, None) {
        panic!(
            "{}\n{promise}\nonce more: SIMULATION_SEED={seed} cargo test -p polisen-events-collector --test simulation whole",
            replay(seed, None)
        );
    }
}

/// Without the guard a promise is broken within 10,000 seeds: the simulation can fail.
#[track_caller]
fn assert_needed(guard: Guard) {
    let found = first_violation(0..SEEDS, Some(guard));
    let (seed, _) =
        found.unwrap_or_else(|| panic!("without {guard:?} nothing went wrong in {SEEDS} schedules"));
    let log = replay(seed, Some(guard));
    assert!(!log.ends_with("Ok(())"), "seed {seed} does not repeat itself");
}

#[test]
fn without_the_claim_a_promise_is_broken() {
    assert_needed(Guard::Claim);
}

#[test]
fn without_conditional_creation_a_promise_is_broken() {
    assert_needed(Guard::Create);
}

#[test]
fn without_syncing_a_promise_is_broken() {
    assert_needed(Guard::Sync);
}

#[test]
fn without_looking_up_a_promise_is_broken() {
    assert_needed(Guard::LookUp);
}

#[test]
fn without_generations_a_promise_is_broken() {
    assert_needed(Guard::Generations);
}

#[test]
fn without_fences_a_promise_is_broken() {
    assert_needed(Guard::Fence);
}
