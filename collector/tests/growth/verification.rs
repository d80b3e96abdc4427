//! What reading a whole archive costs.

use allocation_counter::{AllocationInfo, measure};
use collector::archive::{Audit, Fault};

use crate::store::{archive, block_on, line};

/// Every event stands in two objects of which one is not of its day.
fn audited(objects: usize) -> (Audit, AllocationInfo) {
    let (_, archive) = archive(objects, |position, day| {
        let day = if position % 2 == 0 { day } else { day.succ_opt().unwrap() };
        line(position / 2, day)
    });
    let mut audit = None;
    let cost = measure(|| audit = Some(block_on(archive.audit(|_, _| ())).unwrap()));
    (audit.unwrap(), cost)
}

#[test]
fn verification_takes_few_bytes_an_object() {
    let (_, few) = audited(2_000);
    let (audit, many) = audited(6_000);
    let findings = &audit.findings;
    assert_eq!((findings.objects, findings.events, findings.unique_ids), (6_000, 6_000, 3_000));
    assert_eq!((findings.duplicates, findings.misplaced, findings.problems.len()), (3_000, 3_000, 1_000));
    assert_eq!(audit.faults.len(), 3_000);
    assert!(audit.faults.iter().all(|(at, fault)| *fault == Fault::Duplicate && at.object % 2 == 1));
    let (few, many) = (few.bytes_max, many.bytes_max);
    assert!(many <= few + 4_000 * 400, "{few} bytes, then {many}");
}

#[test]
fn allocations_of_verification_grow_with_its_objects() {
    let ((_, few), (_, many)) = (audited(2_000), audited(8_000));
    assert!(many.count_total <= 5 * few.count_total, "{few:?}, then {many:?}");
}
