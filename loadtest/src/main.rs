//! `loadtest`: what the collector meets outside, simulated on this machine.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, net::Ipv4Addr};

use anyhow::{Context as _, anyhow};
use clap::{Parser, Subcommand};
use loadtest::oci::{Account, Faults, Latency, METADATA_BASE, ObjectStorage};
use loadtest::timeline::{self, Timeline};
use serde_json::json;
use tokio::net::TcpListener;

/// Simulates what the collector meets outside, on this machine only.
#[derive(Debug, Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve Object Storage, the Vault, metadata and federation until interrupted; says in one line of JSON where.
    ServeOci(ServeOci),
    /// Show where the time of a run goes when everything outside is as slow as documented; fail if it is too much.
    Timeline {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Parser)]
struct ServeOci {
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
    /// How long a session of the instance lasts, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1_200)]
    token_life: u64,
}

fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::ServeOci(command) => serve_oci(command).map(|()| true),
        Command::Timeline { json } => show_timeline(json),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show_timeline(as_json: bool) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let timelines = runtime.block_on(timeline::measure())?;
    let text = if as_json {
        serde_json::to_string_pretty(&timelines)? + "\n"
    } else {
        timelines.iter().map(ToString::to_string).collect()
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(timelines.iter().all(Timeline::is_fast_enough))
}

fn serve_oci(command: ServeOci) -> anyhow::Result<()> {
    let ServeOci { dir, port, namespace, bucket, faults, documented_latency, token_life } = command;
    let account = Account::generate("simulated").map_err(|_| anyhow!("no key could be made"))?;
    let dir = fs::create_dir_all(&dir)
        .and_then(|()| dir.canonicalize())
        .with_context(|| format!("cannot use {}", dir.display()))?;
    let (config, key) = (dir.join("config"), dir.join("key.pem"));
    write_private(&key, &account.private_key_pem())?;
    write_private(&config, &account.config_file(&key.display().to_string()))?;

    let faults = faults.map_or_else(Faults::none, Faults::many);
    let latency = if documented_latency { Latency::DOCUMENTED } else { Latency::default() };
    let service = ObjectStorage::slow(&namespace, &bucket, vec![account], faults, latency)
        .map_err(|_| anyhow!("no key could be made for the instance"))?;
    service.set_token_life(Duration::from_secs(token_life));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("cannot listen")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let told = json!({
            "endpoint": endpoint,
            "config_file": config,
            "store": format!("oci://{namespace}/{bucket}"),
            "vault_endpoint": endpoint,
            "auth_endpoint": endpoint,
            "metadata_url": format!("{endpoint}{METADATA_BASE}"),
            "secrets": ObjectStorage::secret_ids(),
        });
        writeln!(io::stdout(), "{told}")?;
        service.serve(listener).await.context("cannot go on")
    })
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}
