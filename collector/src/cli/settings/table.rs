//! The table of settings.

use collector::feed::{POLISEN_URL, USER_AGENT};
use collector::store::oci::instance::METADATA_URL;

/// Which commands a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage(u16);

impl Usage {
    pub(crate) const RUN: Self = Self(1);
    pub(crate) const IMPORT: Self = Self(2);
    pub(crate) const HEALTH: Self = Self(4);
    pub(crate) const VERIFY: Self = Self(8);
    pub(crate) const REPAIR: Self = Self(16);
    pub(crate) const DOCTOR: Self = Self(32);
    pub(crate) const QUERY: Self = Self(64);
    pub(crate) const FETCH: Self = Self(128);
    pub(crate) const CACHE: Self = Self(256);
    pub(crate) const WATCH: Self = Self(512);
    pub(crate) const CHANGES: Self = Self(1024);
    pub(crate) const ALL: Self = Self(0x7ff);
    const ARCHIVE: Self = Self(1 | 2 | 8 | 16 | 32 | 64 | 256 | 512 | 1024);
    const FEED: Self = Self(1 | 32 | 128 | 512);
    const RECORDED: Self = Self(1 | 32 | 512);
    const DEPOSIT: Self = Self(1 | 2 | 512);

    pub(crate) fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A setting: one row of the table.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its key in the file; `_` becomes `-` in the option.
    pub(crate) key: &'static str,
    /// What its value is; empty for a flag.
    pub(crate) value_name: &'static str,
    /// Its value where none is given.
    pub(super) default: &'static str,
    /// Environment variables of the documented collector that mean the same.
    pub(super) also: &'static [&'static str],
    /// Which commands take it.
    pub(crate) usage: Usage,
    /// Under which heading the help names it; empty for the first.
    pub(crate) heading: &'static str,
    help: &'static str,
}

const FEED: &str = "Feed";
const STORE: &str = "Store";
const CACHE: &str = "Cache";
const OBJECT_STORAGE: &str = "Store in a bucket (oci://, s3://)";
const OUTPUT: &str = "Output";
const SERVICE: &str = "Service";

macro_rules! setting {
    ($key:literal $value:literal = $default:expr, $heading:expr, $usage:expr, $help:literal $(, also $also:expr)?) => {
        Setting {
            key: $key,
            value_name: $value,
            default: $default,
            also: &[$($also)?],
            usage: $usage,
            heading: $heading,
            help: $help,
        }
    };
}

/// Every setting.
pub(crate) const SETTINGS: &[Setting] = &[
    setting!("feed" "URL|FILE|-" = POLISEN_URL, FEED, Usage(1 | 32 | 128 | 256 | 512), "Where to fetch from: an address, a recorded response, or - for standard input", also "POLISEN_API_URL"),
    setting!("contact" "EMAIL|URL" = "", FEED, Usage::FEED, "How the provider can reach you; goes into the User-Agent, as its rules ask", also "API_CONTACT_EMAIL"),
    setting!("user_agent" "TEXT" = USER_AGENT, FEED, Usage::FEED, "What calls say of who calls", also "API_USER_AGENT"),
    setting!("timeout" "TIME" = "30s", FEED, Usage::FEED, "Longest time for one call"),
    setting!("idle_timeout" "TIME" = "10s", FEED, Usage::FEED, "Longest time of a call without a byte"),
    setting!("no_compression" "" = "false", FEED, Usage::FEED, "Ask for uncompressed responses"),
    setting!("retries" "N" = "3", FEED, Usage::FEED, "How often a failed call is repeated"),
    setting!("retry_backoff" "TIME" = "1s", FEED, Usage::FEED, "The wait before the first repetition; doubles each time"),
    setting!("min_call_interval" "TIME" = "0s", FEED, Usage::FEED, "Least time between two calls to a host (polisen.se: never below 10s)"),
    setting!("max_calls_per_hour" "N" = "0", FEED, Usage::FEED, "Most calls to a host in an hour, 0 for no limit (polisen.se: never above 60)"),
    setting!("max_calls_per_day" "N" = "0", FEED, Usage::FEED, "Most calls to a host in a day, 0 for no limit (polisen.se: never above 1440)"),
    setting!("state_dir" "DIR" = "", FEED, Usage(1 | 2 | 16 | 32 | 128 | 512), "Where this machine remembers calls to the feed and the last commit of each archive [default: $STATE_DIRECTORY, or the user's state folder]"),
    setting!("force" "" = "false", FEED, Usage::FEED, "Call in spite of an earlier HTTP 404"),
    setting!("store" "DIR|URL" = "./data", STORE, Usage::ARCHIVE, "Where the archive is: a folder, oci://NAMESPACE/BUCKET[/PREFIX], or s3://BUCKET[/PREFIX]"),
    setting!("single_writer" "" = "false", STORE, Usage::ARCHIVE, "Nobody else writes to the store: use it even if it ignores conditions"),
    setting!("new_archive" "" = "false", STORE, Usage::DEPOSIT, "Begin a new archive although this machine has collected another one into this store"),
    setting!("buffer_size" "N" = "500", STORE, Usage::DEPOSIT, "How many events a full response holds"),
    setting!("no_revisions" "" = "false", STORE, Usage::DEPOSIT, "Do not store changed content of known events"),
    setting!("lease" "TIME" = "10m", STORE, Usage(1 | 2 | 16 | 512), "How long others leave a run's claim alone"),
    setting!("deadline" "TIME" = "5m", STORE, Usage::DEPOSIT, "How long storing may go on"),
    setting!("parallel" "N" = "16", STORE, Usage(1 | 2 | 8 | 16 | 32 | 64 | 128 | 512 | 1024), "Requests to the store, or calls to the feed, at a time"),
    setting!("offline" "" = "false", FEED, Usage::DOCTOR, "Do not call the feed"),
    setting!("dry_run" "" = "false", STORE, Usage::REPAIR, "Say what would be done, and change nothing"),
    setting!("no_cache" "" = "false", CACHE, Usage(1 | 2 | 16 | 64 | 128 | 512), "Neither use nor keep what was read before"),
    setting!("cache_dir" "DIR" = "", CACHE, Usage(1 | 2 | 16 | 64 | 128 | 256 | 512), "Where what was read is kept for the next command: the feed's answers, and what stores in a bucket hold [default: $CACHE_DIRECTORY, or the user's cache folder]"),
    setting!("cache_size" "SIZE" = "32MB", CACHE, Usage(64 | 128 | 256), "Most of it in the memory of one program; on disk eight times as much"),
    setting!("cache_ttl" "TIME" = "30s", CACHE, Usage(64 | 128 | 256), "How long a listing or an answer of the feed is believed"),
    setting!("region" "NAME" = "", OBJECT_STORAGE, Usage::ARCHIVE, "The region [default: the one that stands beside the credentials]", also "OCI_REGION"),
    setting!("endpoint" "URL" = "", OBJECT_STORAGE, Usage::ARCHIVE, "The address of the store, instead of the region's", also "OCI_ENDPOINT"),
    setting!("s3_addressing" "path|host" = "path", OBJECT_STORAGE, Usage::ARCHIVE, "Whether an s3:// bucket is named in the path or in the name of the host"),
    setting!("auth" "api-key|instance" = "api-key", OBJECT_STORAGE, Usage::ARCHIVE, "Who signs for oci://: the user of ~/.oci/config or OCI_USER, or the instance this runs on"),
    setting!("signer" "built-in|oci-rust-sdk" = "built-in", OBJECT_STORAGE, Usage::ARCHIVE, "Which implementation signs for oci://"),
    setting!("secret_user" "OCID" = "", OBJECT_STORAGE, Usage::ARCHIVE, "The secret in the Vault that holds the user; with the other three, that user signs for oci://"),
    setting!("secret_tenancy" "OCID" = "", OBJECT_STORAGE, Usage::ARCHIVE, "The secret that holds the tenancy"),
    setting!("secret_fingerprint" "OCID" = "", OBJECT_STORAGE, Usage::ARCHIVE, "The secret that holds the key's fingerprint"),
    setting!("secret_private_key" "OCID" = "", OBJECT_STORAGE, Usage::ARCHIVE, "The secret that holds the private key"),
    setting!("vault_endpoint" "URL" = "", OBJECT_STORAGE, Usage::ARCHIVE, "The address of the Vault's secrets, instead of the region's"),
    setting!("auth_endpoint" "URL" = "", OBJECT_STORAGE, Usage::ARCHIVE, "The address of the federation service, instead of the region's"),
    setting!("metadata_url" "URL" = METADATA_URL, OBJECT_STORAGE, Usage::ARCHIVE, "The address of the instance's metadata service", also "OCI_METADATA_BASE_URL"),
    setting!("interval" "TIME" = "30m", SERVICE, Usage::WATCH, "The time between two polls"),
    setting!("jitter" "TIME" = "1m", SERVICE, Usage::WATCH, "Polls lie so much after the full interval at most; how much follows from the machine and the store, and stays"),
    setting!("adaptive" "" = "false", SERVICE, Usage::WATCH, "Poll oftener while more than half of the feed's buffer is new"),
    setting!("listen" "ADDRESS" = "127.0.0.1:9464", SERVICE, Usage::WATCH, "Where /health, /ready, /metrics, /api/runs and the dashboard are; `off` for nowhere"),
    setting!("prometheus_file" "FILE" = "", OUTPUT, Usage::RUN, "Write figures for the textfile collector of Prometheus' node_exporter; what counts goes on from run to run"),
    setting!("metrics_dir" "DIR" = "./metrics", OUTPUT, Usage::RECORDED, "Where each run's record goes"),
    setting!("health_file" "FILE" = "./health.json", OUTPUT, Usage(1 | 4 | 32 | 512), "The file that tells how the last run went"),
    setting!("max_age_minutes" "MINUTES" = "45", OUTPUT, Usage(1 | 4 | 512), "Maximum age of the last run and of each fact that health rests on"),
    setting!("max_rejected_share" "SHARE" = "20%", OUTPUT, Usage(1 | 4 | 512), "Maximum share of a response that may be invalid elements while health is good"),
    setting!("json" "" = "false", OUTPUT, Usage::ALL, "Print the result as JSON"),
    setting!("log_level" "LEVEL" = "info", OUTPUT, Usage::ALL, "What to log: error, warn, info, debug, trace [RUST_LOG is obeyed as well]"),
    setting!("log_format" "FORMAT" = "text", OUTPUT, Usage::ALL, "How to log: text or json"),
];

impl Setting {
    pub(crate) fn option(&self) -> String {
        self.key.replace('_', "-")
    }

    pub(crate) fn is_flag(&self) -> bool {
        self.value_name.is_empty()
    }

    /// Whether its value is a path, or an address that may be a path.
    pub(super) fn is_path(&self) -> bool {
        ["DIR", "FILE", "DIR|URL", "URL|FILE|-"].contains(&self.value_name)
    }

    pub(crate) fn help_text(&self) -> String {
        if self.is_flag() || self.default.is_empty() {
            return self.help.to_owned();
        }
        format!("{} [default: {}]", self.help, self.default)
    }

    pub(super) fn variable(&self) -> String {
        format!("COLLECTOR_{}", self.key.to_uppercase())
    }
}
