//! What every store does. Each of them passes the same suite.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;

use collector::store::{Key, LocalStore, MemoryStore, SharedStore, Store, Write};
use tokio::runtime::Runtime;

/// A store to test, and what keeps it.
struct Place {
    store: SharedStore,
    _folder: Option<tempfile::TempDir>,
}

fn places() -> Vec<Place> {
    let folder = tempfile::tempdir().unwrap();
    let local = LocalStore::new(folder.path().join("store"));
    vec![
        Place { store: Arc::new(MemoryStore::default()), _folder: None },
        Place { store: Arc::new(local), _folder: Some(folder) },
    ]
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// Runs a check on every store.
fn on_every_store<F: Future<Output = ()>>(check: impl Fn(SharedStore) -> F) {
    let runtime = Runtime::new().unwrap();
    for place in places() {
        runtime.block_on(check(place.store));
    }
}

#[test]
fn what_was_written_is_read() {
    on_every_store(|store| async move {
        for (name, bytes) in
            [("a", Vec::new()), ("b/c", b"\0\xff\n".to_vec()), ("d/e/f.jsonl", vec![7; 3_000_000])]
        {
            let Write::Done(version) = store.create(&key(name), &bytes).await.unwrap() else {
                panic!("refused")
            };
            let object = store.get(&key(name)).await.unwrap().unwrap();
            assert_eq!((object.bytes, object.version), (bytes, version), "{store:?}");
        }
        assert_eq!(store.get(&key("b")).await.unwrap(), None);
        assert_eq!(store.get(&key("a/b")).await.unwrap(), None);
    });
}

#[test]
fn a_name_is_taken_once() {
    on_every_store(|store| async move {
        assert!(matches!(store.create(&key("x/y"), b"1").await.unwrap(), Write::Done(_)));
        assert_eq!(store.create(&key("x/y"), b"2").await.unwrap(), Write::Refused);
        assert_eq!(
            store.create(&key("x/y"), b"1").await.unwrap(),
            Write::Refused,
            "not even by the same bytes"
        );
        assert_eq!(store.get(&key("x/y")).await.unwrap().unwrap().bytes, b"1");
    });
}

#[test]
fn only_the_version_that_was_read_is_replaced() {
    on_every_store(|store| async move {
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
    });
}

#[test]
fn what_is_listed_begins_with_the_prefix_and_is_in_order() {
    on_every_store(|store| async move {
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
        let sized = |names: &[&str]| {
            names.iter().map(|name| ((*name).to_owned(), name.len() as u64)).collect::<Vec<_>>()
        };
        assert_eq!(listed("events/2026/01/02/").await, sized(&[names[1], names[0]]));
        assert_eq!(listed("events/").await, sized(&[names[1], names[0], names[2]]));
        assert_eq!(listed("events/2026/01/0").await, sized(&[names[1], names[0], names[2]]));
        assert_eq!(listed("").await.len(), names.len());
        assert_eq!(listed("none/").await, []);
    });
}

#[test]
fn what_was_deleted_is_gone_and_may_be_deleted_again() {
    on_every_store(|store| async move {
        assert!(matches!(store.create(&key("a/b"), b"1").await.unwrap(), Write::Done(_)));
        store.delete(&key("a/b")).await.unwrap();
        store.delete(&key("a/b")).await.unwrap();
        assert_eq!(store.get(&key("a/b")).await.unwrap(), None);
        assert!(matches!(store.create(&key("a/b"), b"2").await.unwrap(), Write::Done(_)));
    });
}

#[test]
fn of_sixteen_who_create_one_object_exactly_one_succeeds() {
    on_every_store(|store| async move {
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
    });
}

#[test]
fn of_eighty_increments_by_eight_writers_none_is_lost() {
    on_every_store(|store| async move {
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
    });
}

async fn increment(store: &dyn Store, name: &Key) {
    loop {
        let object = store.get(name).await.unwrap().unwrap();
        let count: u32 = std::str::from_utf8(&object.bytes).unwrap().parse().unwrap();
        let next = (count + 1).to_string();
        if matches!(store.replace(name, next.as_bytes(), &object.version).await.unwrap(), Write::Done(_)) {
            return;
        }
    }
}

#[test]
fn no_name_leads_out_of_a_store() {
    for name in [
        "",
        "/",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        ".lock",
        "a/.b",
        "a b",
        "ä",
        "a\\b",
        "a\0",
    ] {
        assert!(Key::new(name).is_err(), "{name:?}");
    }
}

#[test]
fn a_local_store_is_private_and_keeps_to_its_folder() {
    let (runtime, folder) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    let root = folder.path().join("deep/store");
    let store = LocalStore::new(&root);
    assert!(matches!(runtime.block_on(store.create(&key("a/b/c"), b"1")).unwrap(), Write::Done(_)));
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("a"), mode("a/b"), mode("a/b/c")), (0o700, 0o700, 0o700, 0o600));
    assert_eq!(fs::read_dir(root.join(".staging")).unwrap().count(), 0);

    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, root.join("link")).unwrap();
    let error = runtime.block_on(store.create(&key("link/x"), b"1")).unwrap_err();
    assert!(!error.outcome_unknown);
    assert!(error.to_string().contains("leads out"), "{error}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn several_local_stores_on_one_folder_are_one_store() {
    let (runtime, folder) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    let stores: Vec<LocalStore> = (0..4).map(|_| LocalStore::new(folder.path())).collect();
    let name = key("counter");
    runtime.block_on(async {
        assert!(matches!(stores[0].create(&name, b"0").await.unwrap(), Write::Done(_)));
        let writers: Vec<_> = stores
            .into_iter()
            .map(|store| {
                let name = name.clone();
                tokio::spawn(async move {
                    for _ in 0..25 {
                        increment(&store, &name).await;
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
    assert_eq!(fs::read(folder.path().join("counter")).unwrap(), b"100");
    let left: BTreeSet<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".lock", ".staging", "counter"].map(Into::into).into());
}
