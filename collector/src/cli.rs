//! The programs `collector` and `analyze-metrics`: their commands and options, and the settings that these and other sources give.
//!
//! A program parses, calls the rest of the library, and turns the outcome into an exit code. Nothing else knows the command line.
//!
//! The result of a command goes to stdout, everything else to stderr. A reader that closes the pipe early (`| head`) is not
//! an error.

mod analyze_metrics;
mod cache;
mod changes;
mod commands;
mod doctor;
mod env_file;
mod environment;
mod event_output;
mod fetch;
mod logging;
mod mirror;
mod output;
mod publish;
mod query;
mod settings;
mod stores;
mod summary;
#[cfg(feature = "tables")]
mod tables;
#[cfg(feature = "otlp")]
mod traces;
mod watch;

use std::env;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _, Subcommand, ValueHint};

use cache::CacheArguments;
use changes::ChangesArguments;
use commands::{CompletionsArguments, ImportArguments, RunArguments, VerifyArguments};
use doctor::DoctorArguments;
use fetch::FetchArguments;
use mirror::{AdoptArguments, MirrorArguments};
use publish::PublishArguments;
use query::QueryArguments;
use settings::{Group, Settings};
#[cfg(feature = "tables")]
use tables::TablesArguments;
use watch::WatchArguments;

pub use analyze_metrics::main as analyze_metrics;

use crate::text::without_credentials;

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked is done.
    Done = 0,
    /// It could not be done, or (health, verify, doctor) something is wrong.
    Failed = 1,
    /// What was asked makes no sense: wrong usage or configuration.
    Usage = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ends without a result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage or configuration.
    Usage(anyhow::Error),
    /// Anything else.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

const ABOUT: &str = "Collects the events the Swedish police publish, each exactly once";
const AFTER_HELP: &str = "\
Every option can also be given as an environment variable (--metrics-dir as COLLECTOR_METRICS_DIR) or as a key \
of a TOML file named by --config (metrics_dir = \"…\"). An option beats a variable, a variable beats the file.\n\n\
Exit codes: 0 done, 1 failed (health: unhealthy; verify, doctor: something is wrong), 2 wrong usage or configuration.";

#[derive(Debug, Subcommand)]
enum Task {
    /// Fetch once and store what is new
    Run(RunArguments),
    /// Run as a service: poll on schedule, and show the state
    Watch(WatchArguments),
    /// Collect from recorded responses, each as one run at its time
    Import(ImportArguments),
    /// Find events in the archive
    Query(QueryArguments),
    /// Print which objects were committed after a cursor, in the order of the commits
    Changes(ChangesArguments),
    /// Publish the archive to Kafka or NATS JetStream, each event once, in the order of the commits
    Publish(PublishArguments),
    /// Derive Parquet files from the archive, one of each table for each month
    #[cfg(feature = "tables")]
    Tables(TablesArguments),
    /// Keep a replica of the archive in another store
    Mirror(MirrorArguments),
    /// Make a replica the archive that accepts runs
    Adopt(AdoptArguments),
    /// Fetch a part of the feed with its own filters, and store nothing
    Fetch(FetchArguments),
    /// Show or clear the cache of the store and the feed
    Cache(CacheArguments),
    /// Check the last run and the evidence that events are stored
    Health,
    /// Read the whole archive and check it
    Verify(VerifyArguments),
    /// Repair the archive: finish what an interrupted run claimed, move duplicates to repaired/, rebuild the ledger
    Repair,
    /// Try everything that a run needs, and report what is missing and what to do about it
    Doctor(DoctorArguments),
    /// Print every setting and where its value comes from
    Config,
    /// Print a script that completes commands in a shell
    Completions(CompletionsArguments),
    /// Print the manual page (roff)
    Man,
}

macro_rules! groups {
    ($($group:ident),+ $(,)?) => { &[$(settings::$group::augment_args as Group),+] };
}

const FEED: &[Group] = groups![SourceSettings, CallSettings];
const ARCHIVE: &[Group] = groups![StoreSettings, RequestSettings];
/// What writing commands take beside [`ARCHIVE`].
const WRITING: &[Group] = groups![StateSettings, ClaimSettings];
const CACHE: &[Group] = groups![CacheUse, CacheSettings];
/// Where the tables are.
const TABLES: &[Group] = if cfg!(feature = "tables") { groups![TablesSettings] } else { &[] };
/// Whether a run is followed by the tables.
const TABLES_AFTER_RUN: &[Group] =
    if cfg!(feature = "tables") { groups![TablesScheduleSettings, TablesSettings] } else { &[] };
/// What a run takes, and the commands that do or try the same.
const RUN: &[Group] = groups![DepositSettings, RecordSettings, HealthSettings, ReplicaSettings];

/// The settings that a command takes as options.
fn groups_of(command: &str) -> Vec<Group> {
    let groups: &[&[Group]] = match command {
        "run" => &[
            FEED,
            ARCHIVE,
            WRITING,
            CACHE,
            RUN,
            TABLES_AFTER_RUN,
            groups![PrometheusSettings, HeartbeatSettings],
        ],
        "watch" => &[
            groups![ServiceSettings, HeartbeatSettings, PublishSettings],
            FEED,
            ARCHIVE,
            WRITING,
            CACHE,
            RUN,
            TABLES_AFTER_RUN,
        ],
        "doctor" => &[groups![DoctorSettings, PublishSettings], FEED, ARCHIVE, WRITING, CACHE, RUN],
        "import" => &[ARCHIVE, WRITING, groups![DepositSettings], CACHE],
        "repair" => &[groups![RepairSettings], ARCHIVE, WRITING, CACHE],
        #[cfg(feature = "tables")]
        "tables" => &[groups![RepairSettings], ARCHIVE, TABLES],
        "verify" => &[ARCHIVE, TABLES],
        "changes" => &[ARCHIVE],
        "publish" => &[groups![PublishSettings], ARCHIVE],
        "query" => &[ARCHIVE, CACHE, TABLES],
        "mirror" | "adopt" => &[ARCHIVE, WRITING, groups![ReplicaSettings]],
        "fetch" => &[FEED, groups![StateSettings, RequestSettings], CACHE],
        "cache" => &[groups![SourceSettings, StoreSettings, CacheSettings]],
        "health" => &[groups![HealthSettings]],
        "config" => return vec![Settings::augment_args],
        _ => return Vec::new(),
    };
    [groups.concat().as_slice(), groups![OutputSettings]].concat()
}

/// The whole command line.
pub(crate) fn command_line() -> Command {
    let command = Command::new("collector")
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .long_version(include_str!(concat!(env!("OUT_DIR"), "/version")))
        .after_help(AFTER_HELP)
        .subcommand_required(true)
        .arg_required_else_help(true);
    // Where no option is hidden, the long help has one line an option instead of three and more.
    let hides_none = env::args_os().any(|argument| argument == "--help");
    Task::augment_subcommands(command).mut_subcommands(|command| {
        let groups = groups_of(command.get_name());
        if groups.is_empty() {
            return command;
        }
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_hint(ValueHint::FilePath)
            .help("TOML file of settings");
        let name = command.get_name().to_owned();
        let options = settings::options(&groups).into_iter().map(|option| {
            let is_hidden = option.is_hide_short_help_set() && !hides_none;
            let option = option.hide_short_help(is_hidden);
            // The command has a shorter name for what is its own.
            match (name.as_str(), option.get_id().as_str()) {
                ("tables", "tables_location") => option.long("tables").visible_alias("tables-location"),
                ("publish", "publish_to") => option.long("to").visible_alias("publish-to"),
                _ => option,
            }
        });
        let env_file = Arg::new(env_file::OPTION)
            .long(env_file::OPTION)
            .value_name("FILE")
            .value_hint(ValueHint::FilePath)
            .hide_short_help(!hides_none)
            .help("File of variables, such as the .env of the Python collector");
        command.after_help(AFTER_HELP).arg(config).arg(env_file).args(options)
    })
}

/// The program `collector`.
#[must_use]
pub fn collector() -> ExitCode {
    let exit = match command_line().try_get_matches() {
        Ok(matches) => dispatch(&matches),
        Err(refused) => refuse(&refused),
    };
    exit.into()
}

/// Prints why a command line was refused. Help and version come this way too, on stdout and as success.
fn refuse(refused: &clap::Error) -> Exit {
    let value = match refused.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => "",
    };
    let shown = without_credentials(value);
    if shown == value {
        let _ = refused.print();
    } else {
        let text = refused.render().to_string().replace(value, &shown);
        let _ = write!(io::stderr(), "{text}");
    }
    if refused.use_stderr() { Exit::Usage } else { Exit::Done }
}

/// Carries a command out, and reports why it failed.
fn dispatch(matches: &ArgMatches) -> Exit {
    let result = carry_out(matches);
    logging::finish();
    match result {
        Ok(exit) => exit,
        Err(Failure::Failed(error)) if is_closed_pipe(&error) => Exit::Done,
        Err(Failure::Failed(error)) => output::report_error(&error, Exit::Failed),
        Err(Failure::Usage(error)) => output::report_error(&error, Exit::Usage),
    }
}

fn carry_out(matches: &ArgMatches) -> Result<Exit, Failure> {
    let task = Task::from_arg_matches(matches).map_err(|error| Failure::Usage(error.into()))?;
    if let Task::Watch(_) = task {
        watch::hold_reloads();
    }
    match &task {
        Task::Completions(arguments) => return commands::completions(arguments),
        Task::Man => return commands::man(),
        Task::Doctor(DoctorArguments { user: Some(user), .. }) if !doctor::is_own(user) => {
            return doctor::run_as(user);
        }
        _ => {}
    }
    let options = matches.subcommand().map_or(matches, |(_, options)| options);
    let env_file = options.try_get_one(env_file::OPTION).ok().flatten();
    env_file::apply(env_file).map_err(Failure::Usage)?;
    let values = settings::values(options).map_err(Failure::Usage)?;
    let settings = Settings::new(&values).map_err(Failure::Usage)?;
    logging::start(&settings.output.log).map_err(Failure::Usage)?;
    environment::warn_of_ignored();
    settings::warn_of_unknown();
    let takes = |key: &str| options.try_contains_id(key).is_ok();
    if takes("feed") {
        settings::python::note_unused();
    }
    if (takes("feed") && settings.source.is_on_network())
        || (takes("store") && settings.store.options().is_on_network())
    {
        environment::check_network().map_err(Failure::Usage)?;
    }
    match task {
        Task::Run(arguments) => commands::run(&settings, &arguments),
        Task::Watch(arguments) => watch::watch(settings, options, &arguments),
        Task::Import(arguments) => commands::import(&settings, &arguments),
        Task::Query(arguments) => query::query(&settings, &arguments),
        Task::Changes(arguments) => changes::changes(&settings, &arguments),
        Task::Publish(arguments) => publish::publish(&settings, &arguments),
        #[cfg(feature = "tables")]
        Task::Tables(arguments) => tables::tables(&settings, &arguments),
        Task::Mirror(arguments) => mirror::mirror(&settings, &arguments),
        Task::Adopt(arguments) => mirror::adopt(&settings, &arguments),
        Task::Fetch(arguments) => fetch::fetch(&settings, &arguments),
        Task::Cache(arguments) => cache::cache(&settings, &arguments),
        Task::Health => commands::health(&settings),
        Task::Verify(arguments) => commands::verify(&settings, &arguments),
        Task::Repair => commands::repair(&settings),
        Task::Doctor(arguments) => doctor::doctor(&settings, &arguments),
        Task::Config | Task::Completions(_) | Task::Man => commands::config(&settings, &values),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
