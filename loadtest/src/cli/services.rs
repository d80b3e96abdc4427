//! The simulated services, and the timeline of a run on them.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use loadtest::oci::{Account, Faults, Latency, METADATA_BASE, ObjectStorage};
use loadtest::timeline;
use serde_json::json;
use tokio::net::TcpListener;

use super::{output, run};

/// Options of `loadtest timeline`.
#[derive(Debug, Args)]
pub(super) struct Timeline {
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    baselines: output::Baselines,
}

impl Timeline {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let comparing = self.baselines.prepare()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let timelines = runtime.block_on(timeline::measure())?;
        if self.json {
            output::print(&output::json(&timelines)?)?;
        } else {
            output::print(&timelines.iter().map(ToString::to_string).collect::<String>())?;
        }
        let within = comparing.finish(&timelines)?;
        Ok(within && timelines.iter().all(timeline::Timeline::is_fast_enough))
    }
}

/// Options of `loadtest serve-oci`.
#[derive(Debug, Args)]
pub(super) struct ServeOci {
    /// Where the user's configuration file and key are written.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The port; a free one by default.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The tenancy's namespace.
    #[arg(long, default_value = "simulated")]
    namespace: String,
    /// The bucket.
    #[arg(long, default_value = "events")]
    bucket: String,
    /// Misbehave as drawn from this seed.
    #[arg(long, value_name = "SEED")]
    faults: Option<u64>,
    /// Be as slow as the analysis of the documented collector says: a read 0.5 s, events 0.8 s, metadata 0.3 s.
    #[arg(long)]
    documented_latency: bool,
    /// Think so long before each answer, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = run::positive, conflicts_with = "documented_latency")]
    latency: Option<f64>,
    /// How long a session of the instance lasts, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1_200)]
    token_life: u64,
}

impl ServeOci {
    pub(super) fn carry_out(self) -> anyhow::Result<()> {
        let ServeOci { dir, port, namespace, bucket, faults, documented_latency, latency, token_life } = self;
        let account = Account::generate("simulated").map_err(|_| anyhow!("no key could be made"))?;
        let dir = fs::create_dir_all(&dir)
            .and_then(|()| dir.canonicalize())
            .with_context(|| format!("cannot use {}", dir.display()))?;
        let (config, key) = (dir.join("config"), dir.join("key.pem"));
        write_private(&key, &account.private_key_pem())?;
        write_private(&config, &account.config_file(&key.display().to_string()))?;

        let faults = faults.map_or_else(Faults::none, Faults::many);
        let latency = if documented_latency {
            Latency::DOCUMENTED
        } else {
            latency.map(Duration::from_secs_f64).map(Latency::uniform).unwrap_or_default()
        };
        let service = ObjectStorage::slow(&namespace, &bucket, vec![account], faults, latency)
            .map_err(|_| anyhow!("no key could be made for the instance"))?;
        service.set_token_life(Duration::from_secs(token_life));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("cannot listen")?;
            let endpoint = format!("http://{}", listener.local_addr()?);
            let addresses = json!({
                "endpoint": endpoint,
                "config_file": config,
                "store": format!("oci://{namespace}/{bucket}"),
                "vault_endpoint": endpoint,
                "auth_endpoint": endpoint,
                "metadata_url": format!("{endpoint}{METADATA_BASE}"),
                "secrets": ObjectStorage::secret_ids(),
            });
            output::print(&format!("{addresses}\n"))?;
            service.serve(listener).await.context("cannot serve")
        })
    }
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}
