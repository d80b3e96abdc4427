//! `collector changes`: what was committed after a cursor.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::{Args, value_parser};

use super::commands::{runtime, system_clock};
use super::output;
use super::settings::Settings;
use super::stores::open_archive;
use super::{Exit, Failure};
use crate::archive::{Changes, Cursor};

/// Maximum number of changes that are printed, but for those of the last commit.
const LIMIT: u32 = 1_000;

#[derive(Debug, Args)]
pub(super) struct ChangesArguments {
    /// Print what was committed after this cursor, which an earlier call printed [default: everything]
    #[arg(long, value_name = "CURSOR")]
    since: Option<Cursor>,
    /// Stop after the commit that reaches this number of changes
    #[arg(long, value_name = "N", default_value_t = LIMIT, value_parser = value_parser!(u32).range(1..))]
    limit: u32,
}

pub(super) fn changes(settings: &Settings, arguments: &ChangesArguments) -> Result<Exit, Failure> {
    let runtime = runtime()?;
    let archive = runtime.block_on(open_archive(settings.archive(), &system_clock()))?;
    let changes = runtime.block_on(archive.changes(arguments.since.as_ref(), arguments.limit as usize))?;
    if settings.output.json {
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
