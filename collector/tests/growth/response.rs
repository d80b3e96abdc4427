//! What a response costs that has far more elements than the feed sends.

use std::sync::atomic::{AtomicUsize, Ordering};

use allocation_counter::measure;
use chrono::DateTime;
use collector::archive::objects_of;
use collector::event::{ParseLimits, Response, ResponseError};
use collector::ledger::{Classification, Ledger};

fn numbers(count: usize) -> String {
    let numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

fn partition(count: usize) -> (usize, u64) {
    let body = numbers(count);
    let response = Response::parse(body.as_bytes()).unwrap();
    let start = DateTime::from_timestamp(1_767_366_000, 0).unwrap();
    let classified = Classification::find(&response, &Ledger::default(), start);
    let mut objects = 0;
    let cost = measure(|| objects = objects_of(&response, &classified, start, "").len());
    (objects, cost.count_total)
}

#[test]
fn partitioning_the_elements_of_one_day_is_linear() {
    let (few, cost_of_few) = partition(20_000);
    let (many, cost_of_many) = partition(80_000);
    assert_eq!(many, 4 * few);
    assert!(cost_of_many <= 4 * cost_of_few + 100, "{cost_of_few} allocations, then {cost_of_many}");
}

#[test]
fn parsing_ends_at_the_deadline() {
    let body = numbers(100_000);
    let asked = AtomicUsize::new(0);
    let is_over = || asked.fetch_add(1, Ordering::Relaxed) == 2;
    let limits = ParseLimits { is_over: &is_over, ..ParseLimits::default() };
    let error = Response::parse_within(body.as_bytes(), &limits).unwrap_err();
    assert_eq!(error, ResponseError::Deadline);
    assert_eq!(asked.into_inner(), 3);
}

#[test]
fn parsing_ends_at_the_maximum_number_of_elements() {
    let body = numbers(100_000);
    let limits = ParseLimits { max_elements: 1_000, ..ParseLimits::default() };
    let mut error = None;
    let cost = measure(|| error = Response::parse_within(body.as_bytes(), &limits).err());
    assert_eq!(error, Some(ResponseError::TooManyElements { limit: 1_000 }));
    assert!(cost.bytes_max < 200_000, "{cost:?}");
}
