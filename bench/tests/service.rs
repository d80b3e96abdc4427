//! The budget of a service that runs for years: a year of runs is remembered as a month.

use bench::counts::Heap;
use chrono::{DateTime, TimeDelta};
use collector::quantity::Quantity;
use collector::record::{Limits, RunRecord};
use collector::watch::status::{MOST_RUNS, Status};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const YEAR: i32 = 365 * 48;

#[test]
fn a_year_of_runs_takes_no_more_memory_than_a_month() {
    let start = DateTime::from_timestamp(1_767_362_400, 0).unwrap();
    let after = |runs: i32| {
        let (status, heap) = Heap::of(|| {
            let status = Status::new(start, 500, Limits::default()).unwrap();
            for run in 0..runs {
                let mut record = RunRecord::new(start + TimeDelta::minutes(30) * run);
                record.quantities.set(Quantity::NewEventsCount, 2_usize);
                record.quantities.set(Quantity::BufferOverlap, 498_usize);
                if run % 10 == 0 {
                    record.note_error("http_status", "the feed answered HTTP 503".repeat(4), start);
                }
                status.note(&record);
            }
            let _ = status.metrics().to_text();
            status
        });
        assert_eq!(status.view(usize::MAX).runs.len(), MOST_RUNS.min(runs.try_into().unwrap()));
        heap.held
    };
    let (month, year) = (after(31 * 48), after(YEAR));
    assert!(year < month + month / 50, "{month} bytes after a month, {year} after a year");
    assert!((50_000..1_000_000).contains(&year), "{year} bytes after a year");
}
