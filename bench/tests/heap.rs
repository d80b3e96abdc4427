//! Budgets of the heap: what an ordinary run allocates, and that it hardly grows with the number of events.

use bench::Case;
use bench::counts::{Heap, of_an_ordinary_run};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Blocks and peak bytes of one pass over a response of so many known events.
fn all_seen(events: usize) -> (u64, usize) {
    let case = Case::new(events, 0);
    let before = dhat::HeapStats::get();
    let objects = case.objects();
    let after = dhat::HeapStats::get();
    assert_eq!(objects.len(), 0);
    (after.total_blocks - before.total_blocks, after.max_bytes.saturating_sub(before.curr_bytes))
}

// One test: the profiler counts for the whole process.
#[test]
fn an_ordinary_run_allocates_little_and_hardly_more_for_more_events() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let (ordinary, _) = all_seen(500);
    dhat::assert!(ordinary <= 16, "{ordinary} blocks for 500 known events");
    let tenfold = all_seen(5_000).0;
    let hundredfold = all_seen(50_000).0;
    // A vector that doubles allocates once more for twice the events: three or four times for ten times as many.
    let growth = 5 * 4;
    dhat::assert!(tenfold <= ordinary + growth, "{ordinary} blocks, then {tenfold}");
    dhat::assert!(hundredfold <= tenfold + growth, "{tenfold} blocks, then {hundredfold}");

    let heap = || {
        let stats = dhat::HeapStats::get();
        Heap { blocks: stats.total_blocks, bytes: stats.total_bytes, held: stats.curr_bytes as u64 }
    };
    let (once, twice) = (of_an_ordinary_run(heap).unwrap(), of_an_ordinary_run(heap).unwrap());
    dhat::assert_eq!(&once, &twice, "what is counted does not depend on the moment");
    dhat::assert_eq!(
        once["run/all_seen/500: requests"],
        1,
        "nothing new: the ledger is read, and that is all"
    );
    dhat::assert_eq!(once["run/two_new/500: puts"], 3, "claim, write, commit");
}
