//! The settings, in groups. A field's name is its key in the configuration file, and with hyphens the option. A command takes
//! whole groups. The defaults are those of the library where it has them.

#![expect(
    clippy::doc_markdown,
    clippy::struct_field_names,
    reason = "a field is named by its key, and its comment is the help, which is plain text"
)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use tracing::level_filters::LevelFilter;
use url::Url;

use super::parsers::{self, Listener, time_text};
use super::values::Origin;
use crate::archive::ArchiveOptions;
use crate::cache::CacheOptions;
use crate::cli::logging::LogFormat;
use crate::feed::{FeedOptions, POLISEN_URL, Source};
use crate::heartbeat::HeartbeatUrl;
use crate::publish::{Beginning, SaslMechanism, Target};
use crate::record::Limits;
use crate::store::oci::instance::METADATA_URL;
use crate::store::{Addressing, Auth, SignerKind, StoreAddress};

const CACHE: &str = "Cache";
const BUCKET: &str = "Store in a bucket (oci://, s3://)";
/// Headings of options that are rarely used, and not shown by `-h`.
pub(super) const RARE: [&str; 2] = [CACHE, BUCKET];

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Feed")]
pub(crate) struct SourceSettings {
    /// Address of the feed, a file, or - for standard input
    #[arg(long, value_name = "URL|FILE|-", env = "POLISEN_API_URL", default_value = POLISEN_URL)]
    #[arg(value_hint = ValueHint::FilePath, value_parser = Source::parse)]
    pub(crate) feed: Source,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Feed")]
pub(crate) struct CallSettings {
    /// How the provider can reach you
    #[arg(long, value_name = "EMAIL|URL", env = "API_CONTACT_EMAIL", value_parser = parsers::header_text)]
    pub(crate) contact: Option<String>,
    /// User-Agent header
    #[arg(long, value_name = "TEXT", env = "API_USER_AGENT", default_value = FeedOptions::new("").user_agent)]
    #[arg(value_parser = parsers::header_text)]
    pub(crate) user_agent: String,
    /// Maximum time of a call
    #[arg(long, value_name = "TIME", default_value = time_text(FeedOptions::new("").timeout))]
    #[arg(value_parser = parsers::positive_time)]
    pub(crate) timeout: Duration,
    /// Maximum time without receiving a byte
    #[arg(long, value_name = "TIME", default_value = time_text(FeedOptions::new("").idle_timeout))]
    #[arg(value_parser = parsers::positive_time, hide_short_help = true)]
    pub(crate) idle_timeout: Duration,
    /// Request uncompressed responses
    #[arg(long, hide_short_help = true)]
    pub(crate) no_compression: bool,
    /// Maximum number of retries of a failed call
    #[arg(long, value_name = "N", default_value = FeedOptions::new("").retries.to_string())]
    #[arg(value_parser = parsers::count::<u32>)]
    pub(crate) retries: u32,
    /// Delay before the first retry, doubled with each
    #[arg(long, value_name = "TIME", default_value = time_text(FeedOptions::new("").backoff))]
    #[arg(value_parser = parsers::time, hide_short_help = true)]
    pub(crate) retry_backoff: Duration,
    /// Minimum time between calls (polisen.se: 10s)
    #[arg(long, value_name = "TIME", default_value = time_text(FeedOptions::new("").limits.min_interval))]
    #[arg(value_parser = parsers::time, hide_short_help = true)]
    pub(crate) min_call_interval: Duration,
    /// Maximum calls an hour, 0: no limit (polisen.se: 60)
    #[arg(long, value_name = "N", default_value = limit_text(FeedOptions::new("").limits.per_hour))]
    #[arg(value_parser = parsers::count::<u32>, hide_short_help = true)]
    pub(crate) max_calls_per_hour: u32,
    /// Maximum calls a day, 0: no limit (polisen.se: 1440)
    #[arg(long, value_name = "N", default_value = limit_text(FeedOptions::new("").limits.per_day))]
    #[arg(value_parser = parsers::count::<u32>, hide_short_help = true)]
    pub(crate) max_calls_per_day: u32,
    /// Call the feed even if it answered HTTP 404 before
    #[arg(long, hide_short_help = true)]
    pub(crate) force: bool,
}

/// A limit as text; 0 stands for none.
fn limit_text(limit: Option<u32>) -> String {
    limit.unwrap_or(0).to_string()
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Feed")]
pub(crate) struct StateSettings {
    /// Folder for what this machine remembers [default: the user's]
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    #[arg(value_parser = parsers::state_folder, hide_short_help = true)]
    pub(crate) state_dir: PathBuf,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreSettings {
    /// A folder, oci://NAMESPACE/BUCKET[/PREFIX], or s3://BUCKET[/PREFIX]
    #[arg(long, value_name = "DIR|URL", default_value = "./data", value_hint = ValueHint::DirPath)]
    pub(crate) store: StoreAddress,
    #[arg(skip)]
    pub(crate) origin: Origin,
    /// Accept a store without conditional writes, with one writer
    #[arg(long, hide_short_help = true)]
    pub(crate) single_writer: bool,
    #[command(flatten)]
    pub(crate) bucket: BucketSettings,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = BUCKET)]
pub(crate) struct BucketSettings {
    /// Region [default: that of the credentials]
    #[arg(long, value_name = "NAME", env = "OCI_REGION")]
    pub(crate) region: Option<String>,
    /// Address, instead of the region's
    #[arg(long, value_name = "URL", env = "OCI_ENDPOINT")]
    #[arg(value_parser = parsers::service_address)]
    pub(crate) endpoint: Option<Url>,
    /// Where the URL names an s3:// bucket: path, host
    #[arg(long, value_name = "PLACE", default_value = "path", hide_possible_values = true)]
    #[arg(value_parser = parsers::names(&[(&["path"], Addressing::Path), (&["host"], Addressing::Host)]))]
    pub(crate) s3_addressing: Addressing,
    /// Credentials for oci://: api-key, instance
    #[arg(long, value_name = "METHOD", default_value = "api-key", hide_possible_values = true)]
    #[arg(value_parser = parsers::names(&[
        (&["api-key", "api_key"], Auth::ApiKey),
        (&["instance", "instance_principal"], Auth::Instance),
    ]))]
    pub(crate) auth: Auth,
    /// Signs for oci://: built-in, oci-rust-sdk
    #[arg(long, value_name = "NAME", default_value = "built-in", value_parser = parsers::signer(), hide_possible_values = true)]
    pub(crate) signer: SignerKind,
    /// Secret in the Vault that holds the user's OCID
    #[arg(long, value_name = "OCID", value_parser = parsers::ocid)]
    pub(crate) secret_user: Option<String>,
    /// Secret that holds the tenancy's OCID
    #[arg(long, value_name = "OCID", value_parser = parsers::ocid)]
    pub(crate) secret_tenancy: Option<String>,
    /// Secret that holds the fingerprint of the key
    #[arg(long, value_name = "OCID", value_parser = parsers::ocid)]
    pub(crate) secret_fingerprint: Option<String>,
    /// Secret that holds the private key
    #[arg(long, value_name = "OCID", value_parser = parsers::ocid)]
    pub(crate) secret_private_key: Option<String>,
    /// Address of the Vault, instead of the region's
    #[arg(long, value_name = "URL")]
    #[arg(value_parser = parsers::service_address)]
    pub(crate) vault_endpoint: Option<Url>,
    /// Address of the federation service, instead of the region's
    #[arg(long, value_name = "URL")]
    #[arg(value_parser = parsers::service_address)]
    pub(crate) auth_endpoint: Option<Url>,
    /// Address of the instance's metadata service
    #[arg(long, value_name = "URL", env = "OCI_METADATA_BASE_URL", default_value = METADATA_URL)]
    #[arg(value_parser = parsers::service_address)]
    pub(crate) metadata_url: Url,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct TablesSettings {
    /// A folder or bucket of the Parquet files [default: the store]
    #[arg(long, value_name = "DIR|URL", value_hint = ValueHint::DirPath)]
    pub(crate) tables_location: Option<StoreAddress>,
}

/// How often the tables are brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TablesSchedule {
    Off,
    Hourly,
    Daily,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct TablesScheduleSettings {
    /// Bring the Parquet files up to date after a run
    #[arg(long, value_name = "WHEN", default_value = "off", num_args = 0..=1, default_missing_value = "daily")]
    #[arg(value_parser = parsers::names(&[
        (&["off"], TablesSchedule::Off),
        (&["hourly"], TablesSchedule::Hourly),
        (&["daily"], TablesSchedule::Daily),
    ]))]
    pub(crate) tables: TablesSchedule,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct PublishSettings {
    /// kafka://HOST[:PORT],…/TOPIC or nats://HOST[:PORT],…/SUBJECT
    #[arg(long, value_name = "URL")]
    pub(crate) publish_to: Option<Target>,
    /// Where to begin a new stream: start, or a cursor
    #[arg(long, value_name = "start|CURSOR", value_parser = parsers::beginning, hide_short_help = true)]
    pub(crate) publish_from: Option<Beginning>,
    /// NATS: file of credentials or an nkey
    #[arg(long, value_name = "FILE", env = "NATS_CREDS", value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub(crate) publish_credentials: Option<PathBuf>,
    /// User name
    #[arg(long, value_name = "NAME", env = "NATS_USER", hide_short_help = true)]
    pub(crate) publish_user: Option<String>,
    /// File of the password or token
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub(crate) publish_secret_file: Option<PathBuf>,
    /// Kafka's SASL: plain, scram-sha-256, scram-sha-512 (default)
    #[arg(long, value_name = "MECHANISM", default_value = "scram-sha-512", hide_short_help = true)]
    #[arg(hide_default_value = true, hide_possible_values = true)]
    #[arg(value_parser = parsers::names(&[
        (&["plain"], SaslMechanism::Plain),
        (&["scram-sha-256"], SaslMechanism::ScramSha256),
        (&["scram-sha-512"], SaslMechanism::ScramSha512),
    ]))]
    pub(crate) publish_sasl: SaslMechanism,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct DepositSettings {
    /// Start a new archive where this machine remembers another one
    #[arg(long, hide_short_help = true)]
    pub(crate) new_archive: bool,
    /// Number of events in a full response
    #[arg(long, value_name = "N", default_value = ArchiveOptions::default().buffer.to_string())]
    #[arg(value_parser = parsers::positive_count, hide_short_help = true)]
    pub(crate) buffer_size: usize,
    /// Maximum number of elements of a response
    #[arg(long, value_name = "N", default_value = ArchiveOptions::default().max_elements.to_string())]
    #[arg(value_parser = parsers::positive_count, hide_short_help = true)]
    pub(crate) max_elements: usize,
    /// Do not store changed content of known events
    #[arg(long, hide_short_help = true)]
    pub(crate) no_revisions: bool,
    /// Maximum time for storing a response
    #[arg(long, value_name = "TIME", default_value = time_text(ArchiveOptions::default().deadline))]
    #[arg(value_parser = parsers::positive_time, hide_short_help = true)]
    pub(crate) deadline: Duration,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct ClaimSettings {
    /// Time until others take over an interrupted run
    #[arg(long, value_name = "TIME", default_value = time_text(ArchiveOptions::default().lease))]
    #[arg(value_parser = parsers::positive_time, hide_short_help = true)]
    pub(crate) lease: Duration,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct RequestSettings {
    /// Maximum number of concurrent requests
    #[arg(long, value_name = "N", default_value = ArchiveOptions::default().parallel.to_string())]
    #[arg(value_parser = parsers::positive_count, hide_short_help = true)]
    pub(crate) parallel: usize,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = CACHE)]
pub(crate) struct CacheUse {
    /// Neither use the cache nor write to it
    #[arg(long)]
    pub(crate) no_cache: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = CACHE)]
pub(crate) struct CacheSettings {
    /// Folder of the cache [default: the user's cache folder]
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    #[arg(value_parser = parsers::cache_folder)]
    pub(crate) cache_dir: PathBuf,
    /// Maximum size of the on-disk cache
    #[arg(long, value_name = "SIZE", default_value = "256MB", value_parser = parsers::size)]
    pub(crate) cache_size: u64,
    /// Time for which a cached listing or response is fresh
    #[arg(long, value_name = "TIME", default_value = time_text(CacheOptions::default().ttl))]
    #[arg(value_parser = parsers::time)]
    pub(crate) cache_ttl: Duration,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service")]
pub(crate) struct ServiceSettings {
    /// Time between two polls, from 10s to 24h
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parsers::interval)]
    pub(crate) interval: Duration,
    /// Maximum delay of each poll, fixed for this machine
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parsers::time)]
    pub(crate) jitter: Duration,
    /// Poll more often while over half of the events are new
    #[arg(long)]
    pub(crate) adaptive: bool,
    /// Address of the dashboard and metrics, or off
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9464", value_parser = parsers::listener)]
    pub(crate) listen: Listener,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct PrometheusSettings {
    /// Metrics for the textfile collector of node_exporter
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) prometheus_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct HeartbeatSettings {
    /// Address of a monitor, called after each run
    #[arg(long, value_name = "URL", hide_short_help = true)]
    pub(crate) heartbeat_url: Option<HeartbeatUrl>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct RecordSettings {
    /// Folder for the record of each run
    #[arg(long, value_name = "DIR", default_value = "./metrics")]
    pub(crate) metrics_dir: PathBuf,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct HealthSettings {
    /// Result and evidence of the last run
    #[arg(long, value_name = "FILE", default_value = "./health.json")]
    pub(crate) health_file: PathBuf,
    /// Maximum age of what health rests on
    #[arg(long, value_name = "MINUTES", default_value = Limits::default().max_age_minutes.to_string())]
    #[arg(value_parser = parsers::minutes)]
    pub(crate) max_age_minutes: i64,
    /// Maximum share of invalid elements for health
    #[arg(long, value_name = "SHARE", value_parser = parsers::share)]
    #[arg(default_value = parsers::share_text(Limits::default().max_rejected_share), hide_short_help = true)]
    pub(crate) max_rejected_share: f64,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Feed")]
pub(crate) struct DoctorSettings {
    /// Do not call the feed
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct RepairSettings {
    /// Report what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Second region")]
pub(crate) struct ReplicaSettings {
    /// Replica that `watch` updates after each run
    #[arg(long, value_name = "DIR|URL", value_hint = ValueHint::DirPath, hide_short_help = true)]
    pub(crate) mirror_to: Option<StoreAddress>,
    /// Store with the latest epoch; a run stops if another took over
    #[arg(long, value_name = "DIR|URL", value_hint = ValueHint::DirPath, hide_short_help = true)]
    pub(crate) epoch_store: Option<StoreAddress>,
    /// Region of the other store (replica, old primary, epoch store)
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) peer_region: Option<String>,
    /// Address of the service of the other store, instead of the region's
    #[arg(long, value_name = "URL", hide_short_help = true)]
    #[arg(value_parser = parsers::service_address)]
    pub(crate) peer_endpoint: Option<Url>,
}

impl ReplicaSettings {
    /// Where a run looks whether another archive took over.
    pub(crate) fn latest_epoch(&self) -> Option<&StoreAddress> {
        self.epoch_store.as_ref().or(self.mirror_to.as_ref())
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputSettings {
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogSettings,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct LogSettings {
    /// Level of the log; without it, RUST_LOG applies
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = parsers::log_level())]
    #[arg(ignore_case = true)]
    pub(crate) log_level: LevelFilter,
    #[arg(skip)]
    pub(crate) is_level_chosen: bool,
    /// Format of the log
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_short_help = true)]
    #[arg(value_parser = parsers::names(&[(&["text"], LogFormat::Text), (&["json"], LogFormat::Json)]))]
    pub(crate) log_format: LogFormat,
}
