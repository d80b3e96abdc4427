//! Stores of this machine pass the suite that all pass; a local one also keeps to its folder.

mod suite;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use collector::store::{Key, LocalStore, MemoryStore, SharedStore, Store as _, Write};
use tokio::runtime::Runtime;

use suite::{increment, key};

#[test]
fn stores_in_memory_pass_the_suite() {
    Runtime::new().unwrap().block_on(suite::run(|| Arc::new(MemoryStore::default())));
}

#[test]
fn local_stores_pass_the_suite() {
    let (folder, stores) = (tempfile::tempdir().unwrap(), AtomicUsize::new(0));
    let fresh = || -> SharedStore {
        let number = stores.fetch_add(1, Ordering::Relaxed);
        Arc::new(LocalStore::new(folder.path().join(format!("store-{number}"))))
    };
    Runtime::new().unwrap().block_on(suite::run(fresh));
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
fn local_store_follows_the_umask_and_keeps_to_its_folder() {
    let (runtime, folder) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    let root = folder.path().join("deep/store");
    let store = LocalStore::new(&root);
    assert!(matches!(runtime.block_on(store.create(&key("a/b/c"), b"1")).unwrap(), Write::Done(_)));
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (made_folder, made_file) = (folder.path().join("made"), folder.path().join("made/file"));
    fs::create_dir(&made_folder).unwrap();
    fs::write(&made_file, b"1").unwrap();
    for path in ["", "a", "a/b"] {
        assert_eq!(mode(root.join(path)), mode(made_folder.clone()), "{path}");
    }
    assert_eq!(mode(root.join("a/b/c")), mode(made_file));
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
