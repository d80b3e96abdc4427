//! `collector changes`: what was committed after a cursor.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::{Arg, ArgMatches, Command, value_parser};
use collector::archive::{Changes, Cursor};

use super::commands::{runtime, system_clock};
use super::output;
use super::settings::Settings;
use super::stores::open_archive;
use super::{Exit, Failure};

/// Number of changes that are printed where no limit is given.
const LIMIT: usize = 1_000;

pub(super) fn arguments(command: Command) -> Command {
    let since = Arg::new("since")
        .long("since")
        .value_name("CURSOR")
        .help(
            "Print what was committed after this cursor, which an earlier call printed [default: everything]",
        )
        .value_parser(value_parser!(Cursor));
    let limit = Arg::new("limit")
        .long("limit")
        .value_name("N")
        .help(format!("Stop after the commit that reaches this number of changes [default: {LIMIT}]"))
        .value_parser(value_parser!(u32).range(1..));
    command.args([since, limit])
}

pub(super) fn changes(settings: &Settings, matches: &ArgMatches) -> Result<Exit, Failure> {
    let since = matches.get_one::<Cursor>("since");
    let limit = matches.get_one::<u32>("limit").map_or(LIMIT, |&limit| limit as usize);
    let runtime = runtime()?;
    let archive = runtime.block_on(open_archive(settings, &system_clock()))?;
    let changes = runtime.block_on(archive.changes(since, limit))?;
    if settings.json()? {
        output::print_json(&changes)?;
    } else {
        print(&changes)?;
    }
    Ok(Exit::Done)
}

fn print(changes: &Changes) -> io::Result<()> {
    let mut text = String::new();
    for change in &changes.changes {
        let _ = writeln!(
            text,
            "{:>8}  {}  {:6}  {:>9}  {:12.12}  {}",
            change.sequence,
            change.committed_at.format("%Y-%m-%d %H:%M:%S"),
            format!("{:?}", change.kind).to_lowercase(),
            change.size_bytes,
            change.digest.as_deref().unwrap_or("-"),
            change.key.escape_debug(),
        );
    }
    let more = if changes.complete { "" } else { " (there are more)" };
    let _ = writeln!(text, "cursor {}{more}", changes.cursor);
    io::stdout().write_all(text.as_bytes())
}
