//! `collector query`: what is asked, and how it is answered.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use clap::{Args, value_parser};
use serde_json::json;

use super::commands::{runtime, system_clock};
use super::event_output::{EventWriter, FormatArguments, Row, event_writer};
use super::output::Progress;
use super::settings::parsers;
use super::settings::{Names, Settings, names};
use super::stores::open_archive;
use super::{Exit, Failure};
use crate::query::{Answer, Cost, Cursor, Filter, Query, Revisions, TablesUse, Unreadable};
use crate::text::printable;

/// How often the progress is shown.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct QueryArguments {
    /// First day, such as 2026-01-31 [default: the earliest day in the archive]
    #[arg(long, value_name = "DATE", value_parser = parsers::day)]
    from: Option<NaiveDate>,
    /// Last day [default: the latest day in the archive; with --from: today]
    #[arg(long, value_name = "DATE", value_parser = parsers::day)]
    to: Option<NaiveDate>,
    /// Only events of this type; repeatable
    #[arg(long = "type", value_name = "TYPE")]
    kind: Vec<String>,
    /// Only events in this place; repeatable
    #[arg(long, value_name = "NAME")]
    location: Vec<String>,
    /// Only the event with this id; repeatable
    #[arg(long, value_name = "N")]
    id: Vec<i64>,
    /// Only events with this text in their name, summary, type or location
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Maximum number of events
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Continue after the last event of an earlier answer, which ended with this cursor
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
    /// Which versions: the first one, the last one of the day, or all
    #[arg(long, value_name = "VERSIONS", default_value = "none", value_parser = names(REVISIONS))]
    revisions: Revisions,
    /// Report on stderr what was listed and read, and what came from the cache
    #[arg(long)]
    explain: bool,
    /// Read objects only, also where tables hold the same
    #[cfg(feature = "tables")]
    #[arg(long)]
    no_tables: bool,
    #[command(flatten)]
    format: FormatArguments,
}

const REVISIONS: Names<Revisions> =
    &[(&["none"], Revisions::None), (&["latest"], Revisions::Latest), (&["all"], Revisions::All)];

pub(super) fn query(settings: &Settings, arguments: &QueryArguments) -> Result<Exit, Failure> {
    let query = query_from(arguments).map_err(Failure::Usage)?;
    let began = Instant::now();
    let runtime = runtime()?;
    let answered = runtime.block_on(async {
        let archive = open_archive(settings.archive(), &system_clock()).await?;
        #[cfg(feature = "tables")]
        let archive =
            if arguments.no_tables { archive } else { super::tables::with_tables(archive, settings).await? };
        let mut answer = match arguments.format.count_by {
            Some(by) => archive.count(&query, by),
            None => archive.query(&query),
        };
        let mut out = BufWriter::new(io::stdout().lock());
        let mut writer = event_writer(settings.output.json, &arguments.format, &mut out)?;
        // In a terminal the events themselves show how far it is.
        let shows_bar = arguments.format.count_by.is_some() || !io::stdout().is_terminal();
        let (next, unreadable) = write_events(&mut answer, &mut *writer, arguments.limit, shows_bar).await?;
        if answer.cost().objects_listed + answer.cost().objects_read == 0 && unreadable == 0 {
            archive.require_existing().await?;
        }
        writer.add_counts(answer.counts());
        writer.finish(next.as_ref())?;
        drop(writer);
        out.flush()?;
        if let Some(next) = next {
            let _ = writeln!(io::stderr(), "there is more: --after {next}");
        } else if answer.cost().found == 0 && io::stderr().is_terminal() {
            let _ = writeln!(io::stderr(), "no events found");
        }
        let cost = (answer.cost(), answer.tables());
        if let Some(cache) = archive.cache() {
            cache.close().await;
        }
        Ok::<_, Failure>((cost, unreadable))
    });
    let ((cost, tables), unreadable) = answered?;
    if arguments.explain {
        explain(cost, &tables, began.elapsed().as_secs_f64());
    }
    Ok(if unreadable > 0 { Exit::Failed } else { Exit::Done })
}

/// Writes events as they are found. The cursor behind the last one if there are more, and the number of places that cannot be read.
async fn write_events(
    answer: &mut Answer<'_>,
    writer: &mut dyn EventWriter,
    limit: Option<u64>,
    shows_bar: bool,
) -> Result<(Option<Cursor>, usize), Failure> {
    let (mut printed, mut last, mut next, mut unreadable) = (0, None, None, 0);
    let bar = Progress::new("objects");
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
            Ok(_) if Some(printed) == limit => {
                next = last;
                break;
            }
            Ok(found) => {
                writer.write(&Row::from(&found))?;
                last = Some(found.cursor);
                printed += 1;
            }
            Err(error) => {
                unreadable += 1;
                report_unreadable(&error);
            }
        }
    }
    bar.finish();
    Ok((next, unreadable))
}

fn query_from(arguments: &QueryArguments) -> anyhow::Result<Query> {
    let QueryArguments { from, to, revisions, .. } = *arguments;
    parsers::check_period(from, to)?;
    let filter = Filter {
        types: arguments.kind.clone(),
        locations: arguments.location.clone(),
        ids: arguments.id.iter().copied().collect(),
        text: arguments.text.clone(),
    };
    Ok(Query { from, to, filter, revisions, after: arguments.after.clone() })
}

fn report_unreadable(error: &Unreadable) {
    let _ = writeln!(io::stderr(), "error: cannot be read: {}", printable(error));
}

fn explain(cost: Cost, tables: &TablesUse, elapsed_s: f64) {
    let explanation =
        json!({"explain": cost, "tables": tables, "requests": cost.requests(), "elapsed_s": elapsed_s});
    let _ = writeln!(io::stderr(), "{explanation}");
}
