//! The suite that every store passes, on a server that is like S3: its address in `AWS_ENDPOINT_URL`, a bucket in
//! `S3_BUCKET`, keys in `AWS_…`. With `S3_UNTRUSTED` set, the server is expected not to keep the conditions.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../collector/tests/it/stores/suite.rs"]
mod suite;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use collector::archive::{Archive, ArchiveError, ArchiveOptions};
use collector::clock::SystemClock;
use collector::store::s3::{S3Path, S3Settings};
use collector::store::{S3Store, SharedStore};

fn store(prefix: &str) -> SharedStore {
    let bucket = env::var("S3_BUCKET").unwrap_or_else(|_| panic!("S3_BUCKET names no bucket"));
    let path = S3Path::parse(&format!("s3://{bucket}/{prefix}")).unwrap();
    Arc::new(
        S3Store::new(
            path,
            S3Settings::default(),
            &|name| env::var(name).ok(),
            Arc::new(SystemClock::default()),
        )
        .unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_passes_the_suite_or_is_not_trusted() {
    let run = format!("run-{}", std::process::id());
    if env::var_os("S3_UNTRUSTED").is_some() {
        let archive = |options| Archive::new(store(&run), Arc::new(SystemClock::default()), options);
        let error = archive(ArchiveOptions::default()).open().await.unwrap_err();
        assert!(matches!(error, ArchiveError::Untrusted { .. }), "{error}");
        let alone = ArchiveOptions { single_writer: true, ..ArchiveOptions::default() };
        assert!(archive(alone).open().await.is_ok());
        assert_eq!(store(&run).list("").await.unwrap(), [], "nothing is left of the trial");
        return;
    }
    let stores = AtomicUsize::new(0);
    suite::run(|| store(&format!("{run}/store-{}", stores.fetch_add(1, Ordering::Relaxed)))).await;
}
