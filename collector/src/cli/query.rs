//! `collector query`: what is asked, and how it is answered.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use chrono::NaiveDate;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use collector::query::{Cost, Cursor, Filter, Query, Revisions, Unreadable};
use collector::text::printable;
use serde_json::json;

use super::commands::{runtime, system_clock};
use super::forms::{self, Row, form};
use super::output::Progress;
use super::settings::Settings;
use super::stores::open_archive;
use super::{Exit, Failure};

/// How often the progress is shown.
const TICK: Duration = Duration::from_millis(100);

/// The options of the command.
pub(super) fn arguments(command: Command) -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let choice = |name: &'static str, values: &'static [&'static str], help: &'static str| {
        Arg::new(name).long(name).value_parser(PossibleValuesParser::new(values)).help(help)
    };
    let command = command.args([
        text("from", "DATE", "The first day, as in 2026-01-31 [default: the first there is]")
            .value_parser(value_parser!(NaiveDate)),
        text("to", "DATE", "The last day [default: the last there is; with --from: today]")
            .value_parser(value_parser!(NaiveDate)),
        text("type", "TYPE", "Only events of this type; several are possible").action(ArgAction::Append),
        text("location", "NAME", "Only events in this place; several are possible").action(ArgAction::Append),
        text("id", "N", "Only the event of this number; several are possible")
            .value_parser(value_parser!(i64))
            .action(ArgAction::Append),
        text("text", "TEXT", "Only events with this in their name, summary, type or place"),
        text("limit", "N", "At most so many").value_parser(value_parser!(u64).range(1..)),
        text("after", "CURSOR", "Go on where an earlier answer ended").value_parser(value_parser!(Cursor)),
        choice(
            "revisions",
            &["none", "latest", "all"],
            "Which versions: the first one, the last one of the day, or all",
        )
        .default_value("none"),
        Arg::new("explain")
            .long("explain")
            .action(ArgAction::SetTrue)
            .help("Say on stderr what was listed and read, and what of it came from the cache"),
    ]);
    command.args(forms::arguments())
}

pub(super) fn query(settings: &Settings, matches: &ArgMatches) -> Result<Exit, Failure> {
    let query = asked(matches).map_err(Failure::Usage)?;
    let began = Instant::now();
    let runtime = runtime()?;
    let answered = runtime.block_on(async {
        let archive = open_archive(settings, &system_clock()).await?;
        let mut answer = archive.query(&query);
        let mut out = BufWriter::new(io::stdout().lock());
        let mut form = form(settings, matches, &mut out)?;
        let limit = matches.get_one::<u64>("limit").copied().unwrap_or(u64::MAX);
        let (mut printed, mut last, mut next) = (0, None, None);
        let mut unreadable = 0_usize;
        let bar = Progress::new("objects");
        // In a terminal the events themselves show how far it is.
        let shows_bar = matches.contains_id("count-by") || !io::stdout().is_terminal();
        let mut tick = tokio::time::interval(TICK);
        loop {
            let found = tokio::select! {
                found = answer.next() => found,
                _ = tick.tick() => {
                    let cost = answer.cost();
                    if shows_bar {
                        bar.show(cost.objects_read, cost.objects_listed - cost.objects_skipped);
                    }
                    continue;
                }
            };
            let Some(found) = found else { break };
            match found {
                Ok(_) if printed == limit => {
                    next = last;
                    break;
                }
                Ok(found) => {
                    form.write(&Row::from(&found))?;
                    last = Some(found.cursor);
                    printed += 1;
                }
                Err(error) => {
                    unreadable += 1;
                    say_unreadable(&error);
                }
            }
        }
        bar.finish();
        if answer.cost().objects_listed == 0 && unreadable == 0 {
            archive.require_existing().await?;
        }
        form.end(next.as_ref())?;
        drop(form);
        out.flush()?;
        if let Some(next) = next {
            let _ = writeln!(io::stderr(), "there is more: --after {next}");
        }
        let cost = answer.cost();
        if let Some(cache) = archive.cache() {
            cache.close().await;
        }
        Ok::<_, Failure>((cost, unreadable))
    });
    let (cost, unreadable) = answered?;
    if matches.get_flag("explain") {
        explain(cost, began.elapsed().as_secs_f64());
    }
    Ok(if unreadable > 0 { Exit::Failed } else { Exit::Done })
}

fn asked(matches: &ArgMatches) -> anyhow::Result<Query> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let (from, to) = (matches.get_one("from").copied(), matches.get_one("to").copied());
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(anyhow!("--from {from} is after --to {to}"));
    }
    let filter = Filter {
        types: matches.get_many("type").into_iter().flatten().cloned().collect(),
        locations: matches.get_many("location").into_iter().flatten().cloned().collect(),
        ids: matches.get_many("id").into_iter().flatten().copied().collect(),
        text: text("text"),
    };
    let revisions = match text("revisions").as_deref() {
        Some("latest") => Revisions::Latest,
        Some("all") => Revisions::All,
        _ => Revisions::None,
    };
    Ok(Query { from, to, filter, revisions, after: matches.get_one("after").cloned() })
}

fn say_unreadable(error: &Unreadable) {
    let _ = writeln!(io::stderr(), "error: cannot be read: {}", printable(error));
}

fn explain(cost: Cost, elapsed_s: f64) {
    let explanation = json!({"explain": cost, "requests": cost.requests(), "elapsed_s": elapsed_s});
    let _ = writeln!(io::stderr(), "{explanation}");
}
