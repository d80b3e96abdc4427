//! What can be set, and what it is set to.
//!
//! One table names every setting: the option, the environment variable, the key of the file, the line of
//! `collector config` and the help all come from it. Values become typed here; nothing behind this module
//! parses text.

mod config_file;
mod folders;
mod table;
mod variables;

use std::collections::BTreeMap;
use std::env;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, bail};
use bytesize::ByteSize;
use clap::ArgMatches;
use clap::parser::ValueSource;
use collector::archive::ArchiveOptions;
use collector::feed::{CallLimits, FeedOptions, Source, is_loopback};
use collector::files::check_folder;
use collector::ledger::CAPACITY;
use collector::record::{Limits, RecordPaths};
use collector::store::oci::vault::SecretIds;
use collector::store::{Addressing, Auth, SignerKind, StoreAddress, StoreOptions};
use collector::text::without_password;
use url::Url;

use config_file::ConfigFile;
pub(crate) use table::{SETTINGS, Setting, Usage};
pub(super) use variables::warn_of_unknown;

/// The bucket that the documented collector stores into, where `OCI_NAMESPACE` is set and `OCI_BUCKET_NAME` is not.
const DOCUMENTED_BUCKET: &str = "polisen-events-collector";

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Option(String),
}

impl Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Environment(name) => write!(formatter, "${name}"),
            Self::Option(name) => write!(formatter, "--{name}"),
        }
    }
}

/// A value and where it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

/// The value of every setting.
#[derive(Debug)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, Value>,
}

impl Settings {
    /// Option beats variable beats file beats default. Every value is checked, used or not.
    pub(crate) fn resolve(matches: &ArgMatches) -> anyhow::Result<Self> {
        variables::refuse_near_misses()?;
        let file = ConfigFile::read(matches)?;
        let values = SETTINGS.iter().map(|setting| {
            let mut value = value_of(setting, matches, &file)?;
            if setting.is_path() {
                value.text = folders::with_home(&value.text)
                    .map_err(|reason| anyhow!("{}: `{}`: {reason}", setting.key, value.text))?;
            }
            Ok((setting.key, value))
        });
        let settings = Self { values: values.collect::<anyhow::Result<_>>()? };
        settings.check_empty()?;
        settings.source()?;
        settings.feed_options()?;
        settings.archive_options()?;
        settings.limits()?;
        settings.json()?;
        settings.dry_run()?;
        settings.offline()?;
        settings.store_options()?;
        settings.uses_cache()?;
        settings.cache_settings()?;
        settings.service()?;
        Ok(settings)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Setting, &Value)> {
        SETTINGS.iter().filter_map(|setting| Some((setting, self.values.get(setting.key)?)))
    }

    /// A setting's text.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.values.get(key).map_or("", |value| value.text.as_str())
    }

    /// A setting's text, unless nobody chose one or it comes from a variable of another service.
    pub(crate) fn chosen(&self, key: &str, not_from: &str) -> Option<&str> {
        let value = self.values.get(key).filter(|value| !value.text.is_empty())?;
        let foreign = matches!(&value.origin, Origin::Environment(name) if !not_from.is_empty() && name.starts_with(not_from));
        (!foreign).then_some(value.text.as_str())
    }

    /// Whether somebody chose this value.
    pub(crate) fn is_chosen(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|value| value.origin != Origin::Default)
    }

    /// An empty value is one only where it is the default; elsewhere it is a variable that was not filled in.
    fn check_empty(&self) -> anyhow::Result<()> {
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            self.parse(setting.key, |text| if text.is_empty() { Err("must not be empty") } else { Ok(()) })?;
        }
        Ok(())
    }

    /// A folder that exists, or can be made.
    pub(crate) fn folder(&self, key: &str) -> anyhow::Result<PathBuf> {
        self.parse(key, |text| check_folder(Path::new(text)).map(|()| PathBuf::from(text)))
    }

    fn parse<T, E: Display>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> anyhow::Result<T> {
        let value = self.values.get(key).ok_or_else(|| anyhow!("no setting is called {key}"))?;
        parse(&value.text).map_err(|reason| {
            let place = match &value.origin {
                Origin::File(path) => format!("{key} in {}", path.display()),
                origin => origin.to_string(),
            };
            anyhow!("{place}: `{}`: {reason}", without_password(&value.text))
        })
    }

    fn flag(&self, key: &str) -> anyhow::Result<bool> {
        self.parse(key, |text| match text {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("not true or false"),
        })
    }

    fn time(&self, key: &str) -> anyhow::Result<Duration> {
        self.parse(key, |text| {
            let plain_seconds =
                text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            plain_seconds
                .map_or_else(|| humantime::parse_duration(text), Ok)
                .map_err(|_| "not a time such as 30s or 10m")
        })
    }

    fn positive_time(&self, key: &str) -> anyhow::Result<Duration> {
        let time = self.time(key)?;
        self.parse(key, |_| if time.is_zero() { Err("must be more than nothing") } else { Ok(time) })
    }

    fn count<T: std::str::FromStr>(&self, key: &str) -> anyhow::Result<T> {
        self.parse(key, |text| text.parse().map_err(|_| "not a whole number, or too large"))
    }

    fn positive_count(&self, key: &str) -> anyhow::Result<usize> {
        let count = self.count(key)?;
        self.parse(key, |_| if count == 0 { Err("must be at least 1") } else { Ok(count) })
    }

    fn limit(&self, key: &str) -> anyhow::Result<Option<u32>> {
        Ok(Some(self.count(key)?).filter(|&limit| limit > 0))
    }

    pub(crate) fn json(&self) -> anyhow::Result<bool> {
        self.flag("json")
    }

    pub(crate) fn source(&self) -> anyhow::Result<Source> {
        self.parse("feed", Source::parse)
    }

    /// Whether a command calls an address that is not on this machine.
    pub(crate) fn uses_network(&self, matches: &ArgMatches) -> bool {
        let takes = |key: &str| matches.try_get_one::<String>(key).is_ok();
        let is_away = |url: &Url| !is_loopback(url);
        let feed = || matches!(self.source(), Ok(Source::Http(url)) if is_away(&url));
        let store = || self.store_options().is_ok_and(|options| options.is_on_network());
        (takes("feed") && feed()) || (takes("store") && store())
    }

    pub(crate) fn offline(&self) -> anyhow::Result<bool> {
        self.flag("offline")
    }

    pub(crate) fn dry_run(&self) -> anyhow::Result<bool> {
        self.flag("dry_run")
    }

    /// What the evidence for health is compared with.
    pub(crate) fn limits(&self) -> anyhow::Result<Limits> {
        let max_age_minutes = self.count("max_age_minutes")?;
        self.parse("max_age_minutes", |_| {
            if max_age_minutes < 0 { Err("must not be negative") } else { Ok(()) }
        })?;
        let max_rejected_share = self.parse("max_rejected_share", |text| {
            let (number, unit) =
                text.strip_suffix('%').map_or((text, 1.0), |percent| (percent.trim_end(), 100.0));
            let share = number.parse::<f64>().map(|number| number / unit);
            share.ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("not a share such as 20% or 0.2")
        })?;
        Ok(Limits { max_age_minutes, max_rejected_share })
    }

    pub(crate) fn health_file(&self) -> PathBuf {
        PathBuf::from(self.text("health_file"))
    }

    pub(crate) fn record_paths(&self) -> RecordPaths {
        RecordPaths { metrics_dir: PathBuf::from(self.text("metrics_dir")), health_file: self.health_file() }
    }

    pub(crate) fn feed_options(&self) -> anyhow::Result<FeedOptions> {
        let limits = CallLimits {
            min_interval: self.time("min_call_interval")?,
            per_hour: self.limit("max_calls_per_hour")?,
            per_day: self.limit("max_calls_per_day")?,
        };
        Ok(FeedOptions {
            user_agent: self.user_agent()?,
            timeout: self.positive_time("timeout")?,
            idle_timeout: self.positive_time("idle_timeout")?,
            compression: !self.flag("no_compression")?,
            retries: self.count("retries")?,
            backoff: self.time("retry_backoff")?,
            limits,
            state_dir: self.state_dir()?,
            force: self.flag("force")?,
            instance: self.text("store").to_owned(),
        })
    }

    pub(crate) fn uses_cache(&self) -> anyhow::Result<bool> {
        Ok(!self.flag("no_cache")?)
    }

    /// What is kept of what was read, and where.
    pub(crate) fn cache_settings(&self) -> anyhow::Result<CacheSettings> {
        let size_bytes = self.parse("cache_size", |text| match text.parse::<ByteSize>() {
            Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
            _ => Err("not a size such as 32MB"),
        })?;
        let chosen = self.text("cache_dir");
        let folder = if chosen.is_empty() { folders::cache()? } else { self.folder("cache_dir")? };
        Ok(CacheSettings { folder, size_bytes, ttl: self.time("cache_ttl")? })
    }

    /// How the service works.
    pub(crate) fn service(&self) -> anyhow::Result<ServiceSettings> {
        let interval = self.time("interval")?;
        self.parse("interval", |_| {
            let allowed = Duration::from_secs(10)..=Duration::from_hours(24);
            if allowed.contains(&interval) { Ok(()) } else { Err("must be from 10s to 24h") }
        })?;
        let listen = self.parse("listen", |text| match text {
            "off" => Ok(None),
            address => address.parse().map(Some).map_err(|_| "not an address such as 127.0.0.1:9464, or off"),
        })?;
        Ok(ServiceSettings {
            interval,
            jitter: self.time("jitter")?,
            is_adaptive: self.flag("adaptive")?,
            listen,
        })
    }

    /// Where figures for Prometheus go, if anywhere.
    pub(crate) fn prometheus_file(&self) -> Option<PathBuf> {
        Some(self.text("prometheus_file")).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// The store, and how it is reached.
    pub(crate) fn store_options(&self) -> anyhow::Result<StoreOptions> {
        let address: StoreAddress = self.parse("store", str::parse)?;
        let auth = self.parse("auth", |text| match text {
            "api-key" | "api_key" => Ok(Auth::ApiKey),
            "instance" | "instance_principal" => Ok(Auth::Instance),
            _ => Err("not one of api-key, instance"),
        })?;
        let addressing = self.parse("s3_addressing", |text| match text {
            "path" => Ok(Addressing::Path),
            "host" => Ok(Addressing::Host),
            _ => Err("not one of path, host"),
        })?;
        let signer = self.parse("signer", |text| match text {
            "built-in" => Ok(SignerKind::BuiltIn),
            #[cfg(feature = "oci-rust-sdk")]
            "oci-rust-sdk" => Ok(SignerKind::OciRustSdk),
            #[cfg(not(feature = "oci-rust-sdk"))]
            "oci-rust-sdk" => Err("this program was built without the feature oci-rust-sdk"),
            _ => Err("not one of built-in, oci-rust-sdk"),
        })?;
        let url = |key| -> anyhow::Result<Option<Url>> {
            self.parse(key, |text| if text.is_empty() { Ok(None) } else { text.parse().map(Some) })
        };
        // The variables `OCI_…` are not meant for S3.
        let foreign = if matches!(address, StoreAddress::S3(_)) { "OCI_" } else { "" };
        let endpoint = url("endpoint")?.filter(|_| self.chosen("endpoint", foreign).is_some());
        Ok(StoreOptions {
            region: self.chosen("region", foreign).map(str::to_owned),
            endpoint,
            addressing,
            auth,
            signer,
            secrets: self.secrets()?,
            vault_endpoint: url("vault_endpoint")?,
            auth_endpoint: url("auth_endpoint")?,
            metadata: url("metadata_url")?,
            address,
        })
    }

    fn secrets(&self) -> anyhow::Result<Option<SecretIds>> {
        let keys = ["secret_user", "secret_tenancy", "secret_fingerprint", "secret_private_key"];
        let named = keys.map(|key| self.text(key).to_owned());
        match named.iter().filter(|id| !id.is_empty()).count() {
            0 => return Ok(None),
            4 => {}
            _ => bail!("of the four secrets (secret_user, …) some are named and some are not"),
        }
        for key in keys {
            self.parse(key, |text| {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
                if text.bytes().all(plain) { Ok(()) } else { Err("not an OCID") }
            })?;
        }
        let [user, tenancy, fingerprint, private_key] = named;
        Ok(Some(SecretIds { user, tenancy, fingerprint, private_key }))
    }

    /// The User-Agent, with the contact if it does not name it already.
    fn user_agent(&self) -> anyhow::Result<String> {
        let printable = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        for key in ["user_agent", "contact"] {
            self.parse(key, |text| if printable(text) { Ok(()) } else { Err("no header may hold this") })?;
        }
        let (agent, contact) = (self.text("user_agent"), self.text("contact"));
        if agent.is_empty() {
            bail!("user_agent is empty, but the provider refuses calls that do not say who calls");
        }
        let complete = contact.is_empty() || agent.contains(contact);
        Ok(if complete { agent.to_owned() } else { format!("{agent} ({contact})") })
    }

    /// Where state is that outlives a run.
    pub(crate) fn state_dir(&self) -> anyhow::Result<PathBuf> {
        if self.text("state_dir").is_empty() { folders::state() } else { self.folder("state_dir") }
    }

    pub(crate) fn archive_options(&self) -> anyhow::Result<ArchiveOptions> {
        Ok(ArchiveOptions {
            buffer: self.positive_count("buffer_size")?,
            capacity: CAPACITY,
            single_writer: self.flag("single_writer")?,
            revisions: !self.flag("no_revisions")?,
            lease: self.positive_time("lease")?,
            deadline: self.positive_time("deadline")?,
            parallel: self.positive_count("parallel")?,
            new_archive: self.flag("new_archive")?,
        })
    }
}

/// How the service works.
#[derive(Debug)]
pub(crate) struct ServiceSettings {
    pub(crate) interval: Duration,
    pub(crate) jitter: Duration,
    pub(crate) is_adaptive: bool,
    /// Where its pages are, if anywhere.
    pub(crate) listen: Option<SocketAddr>,
}

/// What is kept of what was read, and where.
#[derive(Debug)]
pub(crate) struct CacheSettings {
    pub(crate) folder: PathBuf,
    pub(crate) size_bytes: u64,
    pub(crate) ttl: Duration,
}

fn value_of(setting: &Setting, matches: &ArgMatches, file: &ConfigFile) -> anyhow::Result<Value> {
    let option = || Origin::Option(setting.option());
    if setting.is_flag() {
        if matches!(matches.try_get_one::<bool>(setting.key), Ok(Some(true))) {
            return Ok(Value { text: "true".to_owned(), origin: option() });
        }
    } else if let Ok(Some(text)) = matches.try_get_one::<String>(setting.key)
        && matches.value_source(setting.key) == Some(ValueSource::CommandLine)
    {
        return Ok(Value { text: text.clone(), origin: option() });
    }
    let own = setting.variable();
    for name in std::iter::once(own.as_str()).chain(setting.also.iter().copied()) {
        if let Some(text) = variable(name)? {
            return Ok(Value { text, origin: Origin::Environment(name.to_owned()) });
        }
    }
    if setting.key == "store"
        && let Some(value) = documented_bucket()?
    {
        return Ok(value);
    }
    if let Some(text) = file.values.get(setting.key) {
        return Ok(Value { text: text.clone(), origin: Origin::File(file.path.clone()) });
    }
    Ok(Value { text: setting.default.to_owned(), origin: Origin::Default })
}

/// The store that the variables of the documented collector name.
fn documented_bucket() -> anyhow::Result<Option<Value>> {
    let Some(namespace) = variable("OCI_NAMESPACE")? else { return Ok(None) };
    let (bucket, names) = match variable("OCI_BUCKET_NAME")? {
        Some(bucket) => (bucket, "OCI_NAMESPACE, $OCI_BUCKET_NAME"),
        None => (DOCUMENTED_BUCKET.to_owned(), "OCI_NAMESPACE"),
    };
    let origin = Origin::Environment(names.to_owned());
    Ok(Some(Value { text: format!("oci://{namespace}/{bucket}"), origin }))
}

/// An environment variable. An empty one is not ignored: its value is the empty text.
fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => bail!("the environment variable {name} is not UTF-8"),
    }
}
