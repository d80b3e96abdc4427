//! Telling new ids from seen ones, against 1,000 that were seen, in every way the documents name; half are seen.

use std::collections::{BTreeSet, HashSet};
use std::hint::black_box;

use super::{Entry, Throughput, Work, entries};
use crate::{Ids, ids};

pub(super) const ENTRIES: &[Entry] = entries![
    "dedup"/"set"/"100", Elements(100), set(100);
    "dedup"/"set"/"500", Elements(500), set(500);
    "dedup"/"set"/"1000", Elements(1_000), set(1_000);
    "dedup"/"set"/"5000", Elements(5_000), set(5_000);
    "dedup"/"set"/"10000", Elements(10_000), set(10_000);
    "dedup"/"list"/"100", Elements(100), list(100);
    "dedup"/"list"/"500", Elements(500), list(500);
    "dedup"/"list"/"1000", Elements(1_000), list(1_000);
    "dedup"/"list"/"5000", Elements(5_000), list(5_000);
    "dedup"/"list"/"10000", Elements(10_000), list(10_000);
    "dedup"/"sorted"/"100", Elements(100), sorted(100);
    "dedup"/"sorted"/"500", Elements(500), sorted(500);
    "dedup"/"sorted"/"1000", Elements(1_000), sorted(1_000);
    "dedup"/"sorted"/"5000", Elements(5_000), sorted(5_000);
    "dedup"/"sorted"/"10000", Elements(10_000), sorted(10_000);
    "dedup"/"btree"/"100", Elements(100), btree(100);
    "dedup"/"btree"/"500", Elements(500), btree(500);
    "dedup"/"btree"/"1000", Elements(1_000), btree(1_000);
    "dedup"/"btree"/"5000", Elements(5_000), btree(5_000);
    "dedup"/"btree"/"10000", Elements(10_000), btree(10_000);
    "dedup"/"collector"/"100", Elements(100), collector(100);
    "dedup"/"collector"/"500", Elements(500), collector(500);
    "dedup"/"collector"/"1000", Elements(1_000), collector(1_000);
    "dedup"/"collector"/"5000", Elements(5_000), collector(5_000);
    "dedup"/"collector"/"10000", Elements(10_000), collector(10_000);
];

fn set(count: usize) -> Work {
    let Ids { seen, asked, .. } = ids(count);
    let seen: HashSet<_> = seen.into_iter().collect();
    Box::new(move || _ = black_box(black_box(&asked).iter().filter(|id| !seen.contains(id)).count()))
}

fn list(count: usize) -> Work {
    let Ids { seen, asked, .. } = ids(count);
    Box::new(move || _ = black_box(black_box(&asked).iter().filter(|id| !seen.contains(id)).count()))
}

fn sorted(count: usize) -> Work {
    let Ids { mut seen, asked, .. } = ids(count);
    seen.sort_unstable();
    Box::new(move || {
        _ = black_box(black_box(&asked).iter().filter(|id| seen.binary_search(id).is_err()).count());
    })
}

fn btree(count: usize) -> Work {
    let Ids { seen, asked, .. } = ids(count);
    let seen: BTreeSet<_> = seen.into_iter().collect();
    Box::new(move || _ = black_box(black_box(&asked).iter().filter(|id| !seen.contains(id)).count()))
}

/// The ledger, which also returns the content it saw.
fn collector(count: usize) -> Work {
    let Ids { ledger, asked, .. } = ids(count);
    Box::new(move || _ = black_box(black_box(&asked).iter().filter(|id| ledger.get(**id).is_none()).count()))
}
