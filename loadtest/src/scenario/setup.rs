//! A collector on a feed and a store, and how its archive is read without it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use collector::archive::{Archive, ArchiveOptions};
use collector::clock::{SharedClock, SystemClock};
use collector::feed::{CallLimits, Feed, FeedOptions, Source, USER_AGENT};
use collector::record::RecordPaths;
use collector::run::Collector;
use collector::store::oci::BucketPath;
use collector::store::oci::key::PrivateKey;
use collector::store::{LocalStore, MemoryStore, OciStore, SharedStore};
use serde::Deserialize;
use tempfile::TempDir;

use super::{PATIENCE, Scenario, StoreKind};
use crate::oci::{Account, Faults, ObjectStorage};

pub(crate) struct Setup {
    pub(crate) collector: Collector,
    store: SharedStore,
    /// Records, the count of calls, and a local archive.
    _folder: TempDir,
}

/// What an archive holds, read line by line.
pub(crate) struct Stored {
    pub(crate) ids: BTreeSet<u64>,
    /// Ids that stand in more than one line.
    pub(crate) duplicates: usize,
    /// Size of the lines.
    pub(crate) bytes: u64,
}

impl Setup {
    pub(crate) async fn new(scenario: &Scenario, url: &str, clock: SharedClock) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no folder can be made")?;
        let store: SharedStore = match scenario.store {
            StoreKind::Memory => Arc::new(MemoryStore::default()),
            StoreKind::Local => Arc::new(LocalStore::new(folder.path().join("data"))),
            StoreKind::Oci => simulated_object_storage().await?,
        };
        let source = Source::parse(url).map_err(|error| anyhow!(error))?;
        let options = FeedOptions {
            user_agent: format!("{USER_AGENT} (loadtest)"),
            timeout: PATIENCE,
            idle_timeout: PATIENCE,
            compression: scenario.compression,
            retries: scenario.retries,
            limits: CallLimits::POLISEN,
            instance: "loadtest".to_owned(),
            ..FeedOptions::new(folder.path().join("state"))
        };
        let collector = Collector {
            feed: Feed::new(&source, options, Arc::clone(&clock))?,
            archive: Archive::new(Arc::clone(&store), Arc::clone(&clock), ArchiveOptions::default()),
            paths: RecordPaths {
                metrics_dir: folder.path().join("metrics"),
                health_file: folder.path().join("health.json"),
            },
            clock,
        };
        Ok(Self { collector, store, _folder: folder })
    }

    /// The ids in the archive, found by reading every line.
    pub(crate) async fn stored_ids(&self) -> anyhow::Result<Stored> {
        #[derive(Deserialize)]
        struct Line {
            id: u64,
        }
        let (mut lines, mut bytes) = (BTreeMap::<u64, usize>::new(), 0);
        for listed in self.store.list("events/").await? {
            let Some(object) = self.store.get(&listed.key).await? else { continue };
            bytes += object.bytes.len() as u64;
            for line in object.bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                let Line { id } = serde_json::from_slice(line)?;
                *lines.entry(id).or_default() += 1;
            }
        }
        let duplicates = lines.values().filter(|&&count| count > 1).count();
        Ok(Stored { ids: lines.into_keys().collect(), duplicates, bytes })
    }
}

async fn simulated_object_storage() -> anyhow::Result<SharedStore> {
    let no_key = |_| anyhow!("no key could be made");
    let account = Account::generate("loadtest").map_err(no_key)?;
    let key = PrivateKey::from_pem(account.key_id(), &account.private_key_pem(), None)?;
    let service = ObjectStorage::new("simulated", "events", vec![account], Faults::none()).map_err(no_key)?;
    let endpoint = format!("http://{}", service.start().await?).parse()?;
    let path = BucketPath::parse("oci://simulated/events").map_err(|error| anyhow!(error))?;
    // The service looks at the real time of day.
    let clock = Arc::new(SystemClock::default());
    Ok(Arc::new(OciStore::new(path, endpoint, Arc::new(key), clock)?))
}
