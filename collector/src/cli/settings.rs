//! The settings: what can be set, and what it is set to.
//!
//! Each setting is defined once, as a field in [`groups`]. The options, the variables, the keys of the configuration file,
//! `collector config`, the help and `docs/settings.md` derive from that definition. Values become typed here; no other module
//! parses text.

mod config_file;
mod folders;
mod groups;
mod nesting;
pub(super) mod parsers;
pub(super) mod python;
#[cfg(test)]
mod tests;
mod values;
mod variables;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::bail;
use clap::builder::{BoolishValueParser, StringValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches as _};

use config_file::ConfigFile;

use crate::archive::ArchiveOptions;
use crate::feed::{CallLimits, FeedOptions, Source, is_loopback};
use crate::record::{Limits, RecordPaths};
use crate::store::oci::vault::SecretIds;
use crate::store::{StoreAddress, StoreOptions};
pub(crate) use groups::*;
pub(crate) use parsers::{Names, names, positive_time, size};
pub(crate) use values::{Origin, Value};
pub(super) use variables::warn_of_unknown;

/// The value of every setting. Each command has them all, also those that it does not take as options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) source: SourceSettings,
    #[command(flatten)]
    pub(crate) calls: CallSettings,
    #[command(flatten)]
    pub(crate) state: StateSettings,
    #[command(flatten)]
    pub(crate) store: StoreSettings,
    #[command(flatten)]
    pub(crate) tables: TablesSettings,
    #[command(flatten)]
    pub(crate) tables_schedule: TablesScheduleSettings,
    #[command(flatten)]
    pub(crate) publish: PublishSettings,
    #[command(flatten)]
    pub(crate) deposit: DepositSettings,
    #[command(flatten)]
    pub(crate) claims: ClaimSettings,
    #[command(flatten)]
    pub(crate) requests: RequestSettings,
    #[command(flatten)]
    pub(crate) cache_use: CacheUse,
    #[command(flatten)]
    pub(crate) cache: CacheSettings,
    #[command(flatten)]
    pub(crate) service: ServiceSettings,
    #[command(flatten)]
    pub(crate) prometheus: PrometheusSettings,
    #[command(flatten)]
    pub(crate) heartbeat: HeartbeatSettings,
    #[command(flatten)]
    pub(crate) records: RecordSettings,
    #[command(flatten)]
    pub(crate) health: HealthSettings,
    #[command(flatten)]
    pub(crate) doctor: DoctorSettings,
    #[command(flatten)]
    pub(crate) repair: RepairSettings,
    #[command(flatten)]
    pub(crate) replica: ReplicaSettings,
    #[command(flatten)]
    pub(crate) output: OutputSettings,
}

/// All that is needed to open an archive.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveSettings {
    pub(crate) store: StoreOptions,
    /// Where the address of the store comes from.
    pub(crate) origin: Origin,
    pub(crate) options: ArchiveOptions,
    pub(crate) state_dir: PathBuf,
    /// The cache of what is read, if one is used.
    pub(crate) cache: Option<CacheSettings>,
}

/// Adds the options of a group to a command.
pub(crate) type Group = fn(Command) -> Command;

/// The options of groups for the command line. Their values stay text: they are parsed together with those of other origins.
pub(crate) fn options(groups: &[Group]) -> Vec<Arg> {
    let command = groups.iter().fold(Command::new("collector"), |command, group| group(command));
    command.get_arguments().map(as_text).collect()
}

fn as_text(option: &Arg) -> Arg {
    let is_rare = option.get_help_heading().is_some_and(|heading| RARE.contains(&heading));
    let is_text = option.get_action().takes_values() && option.get_possible_values().is_empty();
    let is_hidden = is_rare || option.is_hide_short_help_set();
    let (option, hint) = (option.clone().hide_env_values(true), option.get_value_hint());
    let option = option.hide_short_help(is_hidden);
    if is_text { option.value_parser(StringValueParser::new()).value_hint(hint) } else { option }
}

/// Every setting. A flag takes a value here, since a variable or the file may say `false`.
fn definition() -> Command {
    let command = Command::new("collector").no_binary_name(true).disable_help_flag(true);
    Settings::augment_args(command).mut_args(|setting| match setting.get_action() {
        ArgAction::SetTrue => setting
            .action(ArgAction::Set)
            .num_args(1)
            .value_parser(BoolishValueParser::new())
            .default_value("false"),
        _ => setting,
    })
}

/// The keys of the configuration file.
static KEYS: LazyLock<Vec<String>> =
    LazyLock::new(|| definition().get_arguments().map(|setting| setting.get_id().to_string()).collect());

fn option(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

fn variable(key: &str) -> String {
    format!("COLLECTOR_{}", key.to_uppercase())
}

/// The value of every setting as text, and where each comes from.
pub(crate) fn values(options: &ArgMatches) -> anyhow::Result<Vec<Value>> {
    variables::refuse_near_misses()?;
    let file = ConfigFile::read(options)?;
    let values = values::Sources { options, file }.values(&definition())?;
    python::check(&values)?;
    Ok(values)
}

impl Settings {
    /// Reads the settings from the options of a command, the environment and the configuration file.
    pub(crate) fn read(options: &ArgMatches) -> anyhow::Result<Self> {
        Self::new(&values(options)?)
    }

    /// Parses every value, used or not.
    pub(crate) fn new(values: &[Value]) -> anyhow::Result<Self> {
        let definition = definition().mut_args(|setting| setting.env(None::<&'static str>));
        let arguments = values.iter().filter_map(Value::argument);
        let parsed = definition.try_get_matches_from(arguments);
        let parsed = parsed.and_then(|parsed| Self::from_arg_matches(&parsed));
        let mut settings = parsed.map_err(|error| values::explain(&error, values))?;
        for Value { key, origin, .. } in values {
            match key.as_str() {
                "store" => settings.store.origin = origin.clone(),
                "log_level" => settings.output.log.is_level_chosen = origin.is_chosen(),
                _ => {}
            }
        }
        settings.store.bucket.check_secrets()?;
        settings.check_folders(values)?;
        Ok(settings)
    }

    pub(crate) fn feed_options(&self) -> FeedOptions {
        let CallSettings { contact, user_agent, .. } = &self.calls;
        // The contact is added if the header does not hold it already.
        let user_agent = match contact {
            Some(contact) if !user_agent.contains(contact) => format!("{user_agent} ({contact})"),
            _ => user_agent.clone(),
        };
        let limit = |limit| Some(limit).filter(|&limit| limit > 0);
        FeedOptions {
            user_agent,
            timeout: self.calls.timeout,
            idle_timeout: self.calls.idle_timeout,
            compression: !self.calls.no_compression,
            retries: self.calls.retries,
            backoff: self.calls.retry_backoff,
            limits: CallLimits {
                min_interval: self.calls.min_call_interval,
                per_hour: limit(self.calls.max_calls_per_hour),
                per_day: limit(self.calls.max_calls_per_day),
            },
            state_dir: self.state.state_dir.clone(),
            force: self.calls.force,
            instance: self.store.store.to_string(),
        }
    }

    pub(crate) fn archive_options(&self) -> ArchiveOptions {
        ArchiveOptions {
            buffer: self.deposit.buffer_size,
            single_writer: self.store.single_writer,
            max_elements: self.deposit.max_elements,
            revisions: !self.deposit.no_revisions,
            lease: self.claims.lease,
            deadline: self.deposit.deadline,
            parallel: self.requests.parallel,
            new_archive: self.deposit.new_archive,
            ..ArchiveOptions::default()
        }
    }

    /// Describes another store that belongs to the archive: its replica, or its old primary.
    pub(crate) fn peer(&self, address: &StoreAddress) -> StoreOptions {
        StoreOptions {
            address: address.clone(),
            region: self.replica.peer_region.clone(),
            endpoint: self.replica.peer_endpoint.clone(),
            ..self.store.options()
        }
    }

    /// All that is needed to open the archive.
    pub(crate) fn archive(&self) -> ArchiveSettings {
        ArchiveSettings {
            store: self.store.options(),
            origin: self.store.origin.clone(),
            options: self.archive_options(),
            state_dir: self.state.state_dir.clone(),
            cache: (!self.cache_use.no_cache).then(|| self.cache.clone()),
        }
    }

    /// The store of the tables, if it is not that of the archive.
    #[cfg(feature = "tables")]
    pub(crate) fn tables_store(&self) -> Option<StoreOptions> {
        let address = self.tables.tables_location.clone()?;
        Some(StoreOptions { address, ..self.store.options() })
    }

    pub(crate) fn record_paths(&self) -> RecordPaths {
        RecordPaths {
            metrics_dir: self.records.metrics_dir.clone(),
            health_file: self.health.health_file.clone(),
        }
    }
}

impl SourceSettings {
    /// Whether the feed is called at an address that is not on this machine.
    pub(crate) fn is_on_network(&self) -> bool {
        matches!(&self.feed, Source::Http(url) if !is_loopback(url))
    }
}

impl CallSettings {
    /// Whether the provider cannot know whom to ask about the calls.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.contact.is_none() && self.user_agent == crate::feed::USER_AGENT
    }
}

impl HealthSettings {
    pub(crate) fn limits(&self) -> Limits {
        Limits { max_age_minutes: self.max_age_minutes, max_rejected_share: self.max_rejected_share }
    }
}

impl LogSettings {
    /// Whether a run ends its log with a summary. On a terminal the printed result has the same numbers.
    pub(crate) fn shows_summary(&self) -> bool {
        self.is_level_chosen || !io::stderr().is_terminal()
    }
}

impl StoreSettings {
    pub(crate) fn options(&self) -> StoreOptions {
        StoreOptions {
            address: self.store.clone(),
            region: self.bucket.region.clone(),
            endpoint: self.bucket.endpoint.clone(),
            addressing: self.bucket.s3_addressing,
            auth: self.bucket.auth,
            signer: self.bucket.signer,
            secrets: self.bucket.secrets(),
            vault_endpoint: self.bucket.vault_endpoint.clone(),
            auth_endpoint: self.bucket.auth_endpoint.clone(),
            metadata: Some(self.bucket.metadata_url.clone()),
        }
    }
}

impl BucketSettings {
    fn secrets(&self) -> Option<SecretIds> {
        Some(SecretIds {
            user: self.secret_user.clone()?,
            tenancy: self.secret_tenancy.clone()?,
            fingerprint: self.secret_fingerprint.clone()?,
            private_key: self.secret_private_key.clone()?,
        })
    }

    fn check_secrets(&self) -> anyhow::Result<()> {
        let secrets =
            [&self.secret_user, &self.secret_tenancy, &self.secret_fingerprint, &self.secret_private_key];
        match secrets.into_iter().flatten().count() {
            0 | 4 => Ok(()),
            count => bail!("only {count} of the four secrets (secret_user, …) are set"),
        }
    }
}
