//! A simulated cloud, and stores in it.

#![allow(dead_code, reason = "no test program needs all of it")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use collector::clock::{Clock, SharedClock, SystemClock};
use collector::store::oci::BucketPath;
use collector::store::oci::key::PrivateKey;
use collector::store::oci::signature::Signer;
use collector::store::{OciStore, SharedStore};
use loadtest::oci::{Account, Faults, ObjectStorage};

/// The system's time of day, without waiting.
#[derive(Debug, Default)]
pub(crate) struct Impatient(SystemClock);

#[async_trait]
impl Clock for Impatient {
    fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, _: Duration) {
        tokio::task::yield_now().await;
    }
}

/// A service that was started, and stores in it.
pub(crate) struct Simulated {
    pub(crate) service: Arc<ObjectStorage>,
    pub(crate) url: String,
    pub(crate) key_id: String,
    pub(crate) pem: String,
}

impl Simulated {
    pub(crate) async fn start(faults: Faults) -> Self {
        let account = Account::generate("one").unwrap();
        let (key_id, pem) = (account.key_id(), account.private_key_pem());
        let service = ObjectStorage::new("ns", "events", vec![account], faults).unwrap();
        let url = format!("http://{}", service.start().await.unwrap());
        Self { service, url, key_id, pem }
    }

    pub(crate) fn store_with(&self, prefix: &str, clock: SharedClock, key_id: &str) -> SharedStore {
        let key = PrivateKey::from_pem(key_id.to_owned(), &self.pem, None).unwrap();
        self.store_of(Arc::new(key), prefix, clock)
    }

    pub(crate) fn store_signed_by(&self, signer: Arc<dyn Signer>, prefix: &str) -> SharedStore {
        self.store_of(signer, prefix, Arc::new(Impatient::default()))
    }

    fn store_of(&self, signer: Arc<dyn Signer>, prefix: &str, clock: SharedClock) -> SharedStore {
        let path = BucketPath::parse(&format!("oci://ns/events/{prefix}")).unwrap();
        Arc::new(OciStore::new(path, self.url.parse().unwrap(), signer, clock).unwrap())
    }

    pub(crate) fn store(&self, prefix: &str) -> SharedStore {
        self.store_with(prefix, Arc::new(Impatient::default()), &self.key_id)
    }
}
