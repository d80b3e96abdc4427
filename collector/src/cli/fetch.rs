//! `collector fetch`: asks the feed by its own filters, and stores nothing.

use std::io::{self, BufWriter, Write as _};
use std::sync::Arc;

use clap::{Args, value_parser};
use serde_json::json;

use super::commands::{remind_of_contact, runtime, system_clock};
use super::event_output::{FormatArguments, Row, event_writer};
use super::output::Progress;
use super::settings::Settings;
use super::{Exit, Failure, output};
use crate::cache::Cache;
use crate::feed::{Feed, Selection, Source, When};
use crate::fetch::select;

#[derive(Debug, Args)]
pub(super) struct FetchArguments {
    /// Only this month (2026-01), day (2026-01-02) or hour ("2026-01-02 21"); repeatable, one call for each
    #[arg(long, value_name = "DATE")]
    date: Vec<When>,
    /// Only in this place; repeatable
    #[arg(long, value_name = "NAME", value_parser = name)]
    location: Vec<String>,
    /// Only of this type; repeatable
    #[arg(long = "type", value_name = "TYPE", value_parser = name)]
    kind: Vec<String>,
    /// Maximum number of events
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Report on stderr what was called for
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    format: FormatArguments,
}

/// The name of a place or a type, as the feed's filters take it.
fn name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.contains(';') {
        return Err("the feed takes neither an empty name nor a semicolon; repeat the option for each name");
    }
    Ok(text.to_owned())
}

pub(super) fn fetch(settings: &Settings, arguments: &FetchArguments) -> Result<Exit, Failure> {
    arguments.format.check_outside_archive()?;
    let selections = selections(arguments);
    let (source, clock) = (&settings.source.feed, system_clock());
    remind_of_contact(settings);
    let feed = Feed::new(source, settings.feed_options(), Arc::clone(&clock))?;
    let options = match source {
        Source::Http(_) if !settings.cache_use.no_cache => {
            Some(settings.cache.between_commands(format!("feed {source}")))
        }
        _ => None,
    };
    let cache = options.map(|options| Cache::new(options, clock));
    let parallel = settings.requests.parallel;
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
    let mut writer = event_writer(settings.output.json, &arguments.format, &mut out)?;
    let limit = arguments.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    for event in selected.events.iter().take(limit) {
        writer.write(&Row::from(event))?;
    }
    writer.finish(None)?;
    drop(writer);
    out.flush()?;
    if arguments.explain {
        let _ = writeln!(io::stderr(), "{}", json!({"explain": selected.cost}));
    }
    let mut exit = Exit::Done;
    for (selection, error) in selected.failures {
        let (error, is_all) = (anyhow::Error::from(error), selection == Selection::default());
        let error = if is_all { error } else { error.context(format!("{selection} cannot be read")) };
        exit = output::report_error(&error, Exit::Failed);
    }
    Ok(exit)
}

/// One call for each date; places and types go into each.
fn selections(arguments: &FetchArguments) -> Vec<Selection> {
    let selection =
        |when| Selection { when, locations: arguments.location.clone(), types: arguments.kind.clone() };
    if arguments.date.is_empty() {
        return vec![selection(None)];
    }
    arguments.date.iter().copied().map(Some).map(selection).collect()
}
