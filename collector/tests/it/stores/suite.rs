//! What every store does. Each kind of store passes this suite.

use std::pin::Pin;
use std::sync::Arc;

use collector::store::{Key, SharedStore, Store, Write};

type Check = fn(SharedStore) -> Pin<Box<dyn Future<Output = ()>>>;

/// Each wants a store of its own, with nothing in it.
const CHECKS: [Check; 7] = [
    |store| Box::pin(what_was_written_is_read(store)),
    |store| Box::pin(a_name_is_taken_once(store)),
    |store| Box::pin(only_the_version_that_was_read_is_replaced(store)),
    |store| Box::pin(what_is_listed_begins_with_the_prefix_and_is_in_order(store)),
    |store| Box::pin(what_was_deleted_is_gone_and_may_be_deleted_again(store)),
    |store| Box::pin(of_sixteen_who_create_one_object_exactly_one_succeeds(store)),
    |store| Box::pin(of_eighty_increments_by_eight_writers_none_is_lost(store)),
];

/// Runs the suite, on a fresh store for each check.
pub(crate) async fn run(fresh: impl Fn() -> SharedStore) {
    for check in CHECKS {
        check(fresh()).await;
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

async fn what_was_written_is_read(store: SharedStore) {
    for (name, bytes) in
        [("a", Vec::new()), ("b/c", b"\0\xff\n".to_vec()), ("d/e/f.jsonl", vec![7; 3_000_000])]
    {
        let Write::Done(version) = store.create(&key(name), &bytes).await.unwrap() else { panic!("refused") };
        let object = store.get(&key(name)).await.unwrap().unwrap();
        let head = store.head(&key(name)).await.unwrap().unwrap();
        assert_eq!((head.size_bytes, &head.version), (bytes.len() as u64, &version), "{store:?}");
        assert_eq!((object.bytes, object.version), (bytes, version), "{store:?}");
    }
    assert_eq!(store.get(&key("a/b")).await.unwrap(), None);
    assert_eq!(store.head(&key("a/b")).await.unwrap(), None);
}

async fn a_name_is_taken_once(store: SharedStore) {
    assert!(matches!(store.create(&key("x/y"), b"1").await.unwrap(), Write::Done(_)));
    assert_eq!(store.create(&key("x/y"), b"2").await.unwrap(), Write::Refused);
    assert_eq!(store.create(&key("x/y"), b"1").await.unwrap(), Write::Refused, "not even by the same bytes");
    assert_eq!(store.get(&key("x/y")).await.unwrap().unwrap().bytes, b"1");
}

async fn only_the_version_that_was_read_is_replaced(store: SharedStore) {
    let Write::Done(first) = store.create(&key("k"), b"1").await.unwrap() else { panic!("refused") };
    let Write::Done(second) = store.replace(&key("k"), b"2", &first).await.unwrap() else {
        panic!("refused")
    };
    assert_ne!(first, second);
    assert_eq!(store.replace(&key("k"), b"3", &first).await.unwrap(), Write::Refused);
    assert_eq!(store.replace(&key("absent"), b"3", &second).await.unwrap(), Write::Refused);
    assert_eq!(store.get(&key("k")).await.unwrap().unwrap().bytes, b"2");
    assert_eq!(store.get(&key("absent")).await.unwrap(), None);
    assert!(matches!(store.replace(&key("k"), b"3", &second).await.unwrap(), Write::Done(_)));
}

async fn what_is_listed_begins_with_the_prefix_and_is_in_order(store: SharedStore) {
    assert!(store.list("events/").await.unwrap().is_empty());
    let names = [
        "events/2026/01/02/b.jsonl",
        "events/2026/01/02/a.jsonl",
        "events/2026/01/03/a.jsonl",
        "eventsx",
        "m/x",
    ];
    for name in names {
        assert!(matches!(store.create(&key(name), name.as_bytes()).await.unwrap(), Write::Done(_)));
    }
    let listed = async |prefix: &str| -> Vec<(String, u64)> {
        let listed = store.list(prefix).await.unwrap();
        listed.into_iter().map(|it| (it.key.to_string(), it.size_bytes)).collect()
    };
    let sized =
        |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), name.len() as u64)).collect::<Vec<_>>();
    assert_eq!(listed("events/2026/01/02/").await, sized(&[names[1], names[0]]));
    assert_eq!(listed("events/").await, sized(&[names[1], names[0], names[2]]));
    assert_eq!(listed("events/2026/01/0").await, sized(&[names[1], names[0], names[2]]));
    assert_eq!(listed("").await.len(), names.len());
    assert_eq!(listed("none/").await, []);
}

async fn what_was_deleted_is_gone_and_may_be_deleted_again(store: SharedStore) {
    assert!(matches!(store.create(&key("a/b"), b"1").await.unwrap(), Write::Done(_)));
    store.delete(&key("a/b")).await.unwrap();
    store.delete(&key("a/b")).await.unwrap();
    assert_eq!(store.get(&key("a/b")).await.unwrap(), None);
    assert!(matches!(store.create(&key("a/b"), b"2").await.unwrap(), Write::Done(_)));
}

async fn of_sixteen_who_create_one_object_exactly_one_succeeds(store: SharedStore) {
    for round in 0..10 {
        let name = key(&format!("race/{round}"));
        let tasks: Vec<_> = (0..16_u8)
            .map(|writer| {
                let (store, name) = (Arc::clone(&store), name.clone());
                tokio::spawn(async move { (writer, store.create(&name, &[writer]).await.unwrap()) })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            let (writer, write) = task.await.unwrap();
            if matches!(write, Write::Done(_)) {
                winners.push(writer);
            }
        }
        assert_eq!(winners.len(), 1, "{store:?}");
        assert_eq!(store.get(&name).await.unwrap().unwrap().bytes, winners);
    }
}

async fn of_eighty_increments_by_eight_writers_none_is_lost(store: SharedStore) {
    let name = key("counter");
    assert!(matches!(store.create(&name, b"0").await.unwrap(), Write::Done(_)));
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (store, name) = (Arc::clone(&store), name.clone());
            tokio::spawn(async move {
                for _ in 0..10 {
                    increment(&*store, &name).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(store.get(&name).await.unwrap().unwrap().bytes, b"80", "{store:?}");
}

pub(crate) async fn increment(store: &dyn Store, name: &Key) {
    loop {
        let object = store.get(name).await.unwrap().unwrap();
        let count: u32 = std::str::from_utf8(&object.bytes).unwrap().parse().unwrap();
        let next = (count + 1).to_string();
        if matches!(store.replace(name, next.as_bytes(), &object.version).await.unwrap(), Write::Done(_)) {
            return;
        }
    }
}
