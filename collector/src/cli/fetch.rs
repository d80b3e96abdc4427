//! `collector fetch`: asks the feed by its own filters, and stores nothing.

use std::io::{self, BufWriter, Write as _};
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use collector::cache::Cache;
use collector::feed::{Feed, Selection, Source, When};
use collector::fetch::select;
use serde_json::json;

use super::commands::{remind_of_contact, runtime, system_clock};
use super::forms::{self, Row, form};
use super::output::Progress;
use super::settings::Settings;
use super::{Exit, Failure, output};

/// The options of the command.
pub(super) fn arguments(command: Command) -> Command {
    let several = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Append)
    };
    let command = command.args([
        several("date", "DATE", "Only from this month (2026-01), day (2026-01-02) or hour (\"2026-01-02 21\"); several are asked for one by one")
            .value_parser(value_parser!(When)),
        several("location", "NAME", "Only in this place; several are possible"),
        several("type", "TYPE", "Only of this type; several are possible"),
        Arg::new("limit").long("limit").value_name("N").help("At most so many").value_parser(value_parser!(u64).range(1..)),
        Arg::new("explain").long("explain").action(ArgAction::SetTrue).help("Say on stderr what was called for"),
    ]);
    command.args(forms::arguments())
}

pub(super) fn fetch(settings: &Settings, matches: &ArgMatches) -> Result<Exit, Failure> {
    let selections = asked(matches).map_err(Failure::Usage)?;
    let (source, clock) = (settings.source()?, system_clock());
    remind_of_contact(settings, &source);
    let feed = Feed::new(&source, settings.feed_options()?, Arc::clone(&clock))?;
    let options = match &source {
        Source::Http(_) if settings.uses_cache()? => {
            Some(settings.cache_settings()?.between_commands(format!("feed {source}")))
        }
        _ => None,
    };
    let cache = options.map(|options| Cache::new(options, clock));
    let parallel = settings.archive_options()?.parallel;
    let bar = Progress::new("answers");
    bar.show(0, selections.len());
    let selected = runtime()?.block_on(async {
        let selected =
            select(&feed, &selections, parallel, cache.as_ref(), |done| bar.show(done, selections.len()))
                .await;
        if let Some(cache) = &cache {
            cache.close().await;
        }
        selected
    });
    bar.finish();

    let mut out = BufWriter::new(io::stdout().lock());
    let mut form = form(settings, matches, &mut out)?;
    let limit = matches
        .get_one::<u64>("limit")
        .map_or(usize::MAX, |&limit| usize::try_from(limit).unwrap_or(usize::MAX));
    for event in selected.events.iter().take(limit) {
        form.write(&Row::from(event))?;
    }
    form.end(None)?;
    drop(form);
    out.flush()?;
    if matches.get_flag("explain") {
        let _ = writeln!(io::stderr(), "{}", json!({"explain": selected.cost}));
    }
    let mut exit = Exit::Done;
    for (selection, error) in selected.failures {
        exit = output::report_error(
            &anyhow::Error::from(error).context(format!("{selection} cannot be read")),
            Exit::Failed,
        );
    }
    Ok(exit)
}

/// One call a time that is asked for; places and types go into each.
fn asked(matches: &ArgMatches) -> anyhow::Result<Vec<Selection>> {
    let texts =
        |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned().collect::<Vec<_>>();
    let (locations, types) = (texts("location"), texts("type"));
    if let Some(wrong) = locations.iter().chain(&types).find(|text| text.contains(';') || text.is_empty()) {
        return Err(anyhow!(
            "`{wrong}`: the feed takes neither an empty name nor one with a semicolon; say --location or --type once for each"
        ));
    }
    let mut times: Vec<Option<When>> =
        matches.get_many("date").into_iter().flatten().copied().map(Some).collect();
    if times.is_empty() {
        times.push(None);
    }
    let selection = |when| Selection { when, locations: locations.clone(), types: types.clone() };
    Ok(times.into_iter().map(selection).collect())
}
