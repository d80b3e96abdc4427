//! The command line: what can be said, what it means, what is answered.
//!
//! The result of a command goes to stdout, talk to stderr. A reader who has seen enough (`| head`) is no
//! error.

mod cache;
mod changes;
mod commands;
mod doctor;
mod environment;
mod fetch;
mod forms;
mod logging;
mod output;
mod query;
mod settings;
mod stores;
#[cfg(feature = "otlp")]
mod traces;
mod watch;

use std::io;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use settings::{SETTINGS, Setting, Settings, Usage};

/// How the program ends.
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

/// The whole command line.
pub(crate) fn command_line() -> Command {
    let run = subcommand("run", "Fetch once and store what is new", Usage::RUN);
    let import = subcommand(
        "import",
        "Collect from recorded responses, each as one run at its time",
        Usage::IMPORT,
    )
    .arg(
        Arg::new("paths")
            .value_name("PATH")
            .help("Responses or folders of them, named by the second they were recorded at (1767225600.json), or JSON Lines of {time, body} (.jsonl)")
            .required(true)
            .num_args(1..)
            .value_parser(value_parser!(std::path::PathBuf)),
    );
    let health =
        subcommand("health", "Check the last run and the evidence that events are stored", Usage::HEALTH);
    let verify =
        subcommand("verify", "Read the whole archive and tell whether it keeps its promises", Usage::VERIFY);
    let repair = subcommand(
        "repair",
        "Make the archive sound again: finish what a dead run claimed, move duplicates to repaired/, rebuild the ledger",
        Usage::REPAIR,
    );
    let changes = changes::arguments(subcommand(
        "changes",
        "Print which objects were committed after a cursor, in the order of the commits",
        Usage::CHANGES,
    ));
    let query = query::arguments(subcommand("query", "Find events in the archive", Usage::QUERY));
    let watch =
        subcommand("watch", "Run as a service: poll on schedule, and show how that goes", Usage::WATCH);
    let fetch = fetch::arguments(subcommand(
        "fetch",
        "Ask the feed for a part of what it shows, by its own filters; stores nothing",
        Usage::FETCH,
    ));
    let cache = cache::arguments(subcommand(
        "cache",
        "What is kept of what was read of the store and the feed",
        Usage::CACHE,
    ));
    let doctor = subcommand(
        "doctor",
        "Try everything a run needs, and say what is missing and what to do about it",
        Usage::DOCTOR,
    );
    let config = subcommand("config", "Print every setting and where its value comes from", Usage::ALL);
    let completions = Command::new("completions")
        .about("Print a script that completes commands in a shell")
        .arg(Arg::new("shell").required(true).value_parser(value_parser!(Shell)));
    let man = Command::new("man").about("Print the manual page (roff)");
    Command::new("collector")
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(AFTER_HELP)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            run,
            watch,
            import,
            query,
            changes,
            fetch,
            cache,
            health,
            verify,
            repair,
            doctor,
            config,
            completions,
            man,
        ])
}

fn subcommand(name: &'static str, about: &'static str, usage: Usage) -> Command {
    let config = Arg::new("config").long("config").value_name("FILE").help("Read settings from a TOML file");
    let settings = SETTINGS.iter().filter(|setting| setting.usage.intersects(usage)).map(argument);
    Command::new(name).about(about).after_help(AFTER_HELP).arg(config).args(settings)
}

fn argument(setting: &'static Setting) -> Arg {
    let heading = Some(setting.heading).filter(|heading| !heading.is_empty());
    let arg = Arg::new(setting.key).long(setting.option()).help(setting.help_text()).help_heading(heading);
    if setting.is_flag() { arg.action(ArgAction::SetTrue) } else { arg.value_name(setting.value_name) }
}

/// Carries a command out.
pub(crate) fn dispatch(matches: &ArgMatches) -> Exit {
    let Some((name, matches)) = matches.subcommand() else { return Exit::Usage };
    let result = match name {
        "completions" => commands::completions(matches),
        "man" => commands::man(),
        _ => Settings::resolve(matches).map_err(Failure::Usage).and_then(|settings| {
            logging::start(&settings).map_err(Failure::Usage)?;
            environment::warn_of_ignored();
            settings::warn_of_unknown();
            if settings.uses_network(matches) {
                environment::check_network().map_err(Failure::Usage)?;
            }
            match name {
                "run" => commands::run(&settings),
                "import" => commands::import(&settings, matches),
                "watch" => watch::watch(settings, matches),
                "changes" => changes::changes(&settings, matches),
                "query" => query::query(&settings, matches),
                "fetch" => fetch::fetch(&settings, matches),
                "cache" => cache::cache(&settings, matches),
                "health" => commands::health(&settings),
                "verify" => commands::verify(&settings),
                "repair" => commands::repair(&settings),
                "doctor" => doctor::doctor(&settings),
                _ => commands::config(&settings),
            }
        }),
    };
    logging::finish();
    match result {
        Ok(exit) => exit,
        Err(Failure::Failed(error)) if is_closed_pipe(&error) => Exit::Done,
        Err(Failure::Failed(error)) => output::report_error(&error, Exit::Failed),
        Err(Failure::Usage(error)) => output::report_error(&error, Exit::Usage),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
