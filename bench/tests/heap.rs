//! Budgets of the heap: what an ordinary run allocates, and that it hardly grows with the number of events.

use bench::counts::{of_an_ordinary_run, of_steps};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

// One test: the profiler counts for the whole process.
#[test]
fn an_ordinary_run_allocates_little_and_hardly_more_for_more_events() {
    let steps = of_steps().unwrap();
    let of = |name, events| steps.iter().find(|it| (it.name, it.events) == (name, events)).unwrap().heap;
    let [ordinary, tenfold, hundredfold] = [500, 5_000, 50_000].map(|events| of("all_seen", events).blocks);
    assert!((1..=16).contains(&ordinary), "{ordinary} blocks for 500 known events");
    // A vector that doubles allocates once more for twice the events: three or four times for ten times as many.
    let growth = 5 * 4;
    assert!(tenfold <= ordinary + growth, "{ordinary} blocks, then {tenfold}");
    assert!(hundredfold <= tenfold + growth, "{tenfold} blocks, then {hundredfold}");
    let peak = of("all_seen", 500).peak;
    assert!(
        (1..150_000).contains(&peak),
        "{peak} bytes at the peak for 500 known events, the response left out"
    );

    let (once, twice) = (of_an_ordinary_run().unwrap(), of_an_ordinary_run().unwrap());
    assert_eq!(once, twice, "what is counted does not depend on the moment");
    assert_eq!(
        once["run/all_seen/500: requests"], 2,
        "nothing new: the ledger is read, and the last object looked at"
    );
    assert_eq!(once["run/two_new/500: puts"], 4, "claim, journal, write, commit");
}
