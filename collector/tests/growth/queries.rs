//! What queries cost: listings and objects as far as the answer needs them, and the memory of a page.

use std::sync::Arc;

use allocation_counter::measure;
use collector::archive::Archive;
use collector::query::{Cost, Filter, Found, Query, Revisions};

use crate::store::{PAGE, Paged, archive, block_on, line};

fn events(objects: usize) -> (Arc<Paged>, Archive) {
    archive(objects, line)
}

/// The first events of an answer, and what it cost until then.
fn first(archive: &Archive, query: &Query, count: usize) -> (Vec<Found>, Cost) {
    let mut answer = archive.query(query);
    let mut found = Vec::new();
    block_on(async {
        while found.len() < count
            && let Some(event) = answer.next().await
        {
            found.push(event.unwrap());
        }
    });
    let cost = answer.cost();
    (found, cost)
}

#[test]
fn limit_ends_listing_and_reading() {
    for revisions in [Revisions::None, Revisions::All, Revisions::Latest] {
        let (store, archive) = events(2_000);
        let (found, _) = first(&archive, &Query { revisions, ..Query::default() }, 10);
        assert_eq!(found.iter().map(|event| event.id).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        let (pages, reads) = store.counts();
        assert!(pages <= 3 && reads <= 20, "{pages} pages, {reads} objects");
    }
}

#[test]
fn cursor_is_where_listing_begins() {
    let (store, archive) = events(2_000);
    let (found, _) = first(&archive, &Query::default(), 1_500);
    let (pages_before, _) = store.counts();
    let query = Query { after: Some(found[1_499].cursor.clone()), ..Query::default() };
    let (found, _) = first(&archive, &query, 10);
    assert_eq!(found.iter().map(|event| event.id).collect::<Vec<_>>(), (1_500..1_510).collect::<Vec<_>>());
    let pages = store.counts().0 - pages_before;
    assert!(pages <= 2, "{pages} pages");
}

#[test]
fn ids_that_were_found_end_the_answer() {
    let (store, archive) = events(2_000);
    let from = "2020-01-01".parse().ok();
    let filter = Filter { ids: [3, 7].into(), ..Filter::default() };
    let (found, _) = first(&archive, &Query { from, filter, ..Query::default() }, usize::MAX);
    assert_eq!(found.len(), 2);
    let (pages, reads) = store.counts();
    assert!(pages <= 5 && reads <= 20, "{pages} pages, {reads} objects");
}

#[test]
fn every_page_of_a_listing_is_counted() {
    let (store, archive) = events(2_000);
    let (found, cost) = first(&archive, &Query::default(), usize::MAX);
    let (pages, reads) = store.counts();
    assert_eq!((found.len(), cost.objects_listed, cost.objects_read), (2_000, 2_000, reads));
    assert_eq!(cost.listings, pages);
    assert_eq!(pages, 2_000 / PAGE + 1);
}

/// The most that is allocated at a time while an answer is read to its end.
fn peak_bytes(objects: usize, query: &Query) -> u64 {
    let (_, archive) = events(objects);
    let read = || {
        block_on(async {
            let mut answer = archive.query(query);
            while answer.next().await.is_some() {}
        });
    };
    measure(read).bytes_max
}

#[test]
fn memory_of_an_answer_does_not_grow_with_the_archive() {
    let text = Filter { text: Some("nothing".to_owned()), ..Filter::default() };
    for query in [
        Query::default(),
        Query { filter: text, ..Query::default() },
        Query { revisions: Revisions::Latest, ..Query::default() },
    ] {
        let (few, many) = (peak_bytes(1_000, &query), peak_bytes(4_000, &query));
        assert!(many <= few + few / 5, "{few} bytes, then {many}: {query:?}");
    }
}

#[test]
fn absent_id_takes_few_bytes_an_object() {
    let filter = Filter { ids: [-1].into(), ..Filter::default() };
    let query = Query { filter, ..Query::default() };
    let (few, many) = (peak_bytes(1_000, &query), peak_bytes(4_000, &query));
    assert!(many <= few + 3_000 * 64, "{few} bytes, then {many}");
}

#[test]
fn looking_for_many_ids_reads_each_object_at_most_once() {
    let (store, archive) = events(2_000);
    let found = block_on(archive.get_many((0..4_000).step_by(2)));
    assert_eq!(found.found.len(), 1_000);
    assert_eq!(store.counts().1, 2_001, "each object, and the ledger");
}
