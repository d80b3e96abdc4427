//! Writes events as a table, CSV or JSON, or counts them.

#[cfg(feature = "tables")]
mod parquet;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};

use anyhow::anyhow;
use chrono::NaiveDate;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::settings::{Names, names};
use super::{Failure, output};
use crate::event::Fields;
use crate::fetch::Shown;
use crate::query::{CountBy, Cursor, Found};
use crate::store::Key;
use crate::text::{csv_cell, json_for_terminal, printable};

/// The fields of an event that can be chosen.
const FIELDS: [&str; 9] = ["id", "datetime", "type", "location", "name", "summary", "url", "gps", "day"];
/// The fields in a table where none are chosen.
const TABLE: [&str; 5] = ["id", "datetime", "type", "location", "name"];

// No doc comment: it would become the description of the command.
#[derive(Debug, Args)]
pub(super) struct FormatArguments {
    /// Only these fields of an event
    #[arg(long, value_name = "FIELD,…", value_delimiter = ',', value_parser = PossibleValuesParser::new(FIELDS))]
    fields: Vec<String>,
    /// Output format [default: table]
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    format: Option<Format>,
    /// Count the events by this field instead of printing them
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["fields", "limit"])]
    #[arg(value_parser = names(COUNTS))]
    pub(super) count_by: Option<CountBy>,
}

const COUNTS: Names<CountBy> = &[
    (&["type"], CountBy::Type),
    (&["location"], CountBy::Location),
    (&["day"], CountBy::Day),
    (&["hour"], CountBy::Hour),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Jsonl,
    Csv,
    Json,
    Parquet,
}

/// An event to be written.
pub(super) struct Row<'a> {
    json: &'a str,
    day: NaiveDate,
    /// The object and the number of the line, of an event of the archive.
    line: Option<(&'a Key, usize)>,
}

impl FormatArguments {
    /// Refuses what only events of the archive have.
    pub(super) fn check_outside_archive(&self) -> Result<(), Failure> {
        if self.format == Some(Format::Parquet) {
            let reason =
                "--format parquet: its columns name objects of the archive; `collector query` writes it";
            return Err(Failure::Usage(anyhow!(reason)));
        }
        Ok(())
    }
}

impl<'a> From<&'a Found> for Row<'a> {
    fn from(found: &'a Found) -> Self {
        Self { json: &found.json, day: found.day, line: Some(found.line()) }
    }
}

impl<'a> From<&'a Shown> for Row<'a> {
    fn from(Shown { json, day, .. }: &'a Shown) -> Self {
        Self { json, day: *day, line: None }
    }
}

/// Writes events one by one.
pub(super) trait EventWriter {
    fn write(&mut self, row: &Row<'_>) -> anyhow::Result<()>;

    /// Adds numbers of events that were counted elsewhere.
    fn add_counts(&mut self, _: BTreeMap<String, u64>) {}

    fn finish(&mut self, next: Option<&Cursor>) -> anyhow::Result<()>;
}

/// A writer of the format that the options choose; JSON if that is set and no format is named.
pub(super) fn event_writer<'a>(
    json: bool,
    arguments: &FormatArguments,
    out: &'a mut dyn Write,
) -> Result<Box<dyn EventWriter + 'a>, Failure> {
    let format = arguments.format.unwrap_or(if json { Format::Json } else { Format::Table });
    if format == Format::Parquet {
        return parquet_writer(arguments, out);
    }
    if let Some(by) = arguments.count_by {
        return Ok(Box::new(Counts { by, format, found: BTreeMap::new(), out }));
    }
    let chosen = arguments.fields.clone();
    let fields = |default: &[&str]| {
        if chosen.is_empty() { default.iter().map(ToString::to_string).collect() } else { chosen.clone() }
    };
    Ok(match format {
        Format::Csv => Box::new(Csv { fields: fields(&FIELDS), is_begun: false, out }),
        Format::Json | Format::Jsonl => {
            Box::new(Json { fields: chosen, is_document: format == Format::Json, is_begun: false, out })
        }
        Format::Table | Format::Parquet => Box::new(Table { fields: fields(&TABLE), is_begun: false, out }),
    })
}

fn parquet_writer<'a>(
    arguments: &FormatArguments,
    out: &'a mut dyn Write,
) -> Result<Box<dyn EventWriter + 'a>, Failure> {
    let refused = |reason: &str| Err(Failure::Usage(anyhow!("--format parquet: {reason}")));
    if arguments.count_by.is_some() || !arguments.fields.is_empty() {
        return refused("it holds whole events, without --count-by and --fields");
    }
    if io::stdout().is_terminal() {
        return refused("stdout is a terminal; write it to a file: >events.parquet");
    }
    open_parquet(out)
}

#[cfg(feature = "tables")]
fn open_parquet<'a>(out: &'a mut dyn Write) -> Result<Box<dyn EventWriter + 'a>, Failure> {
    Ok(Box::new(parquet::Parquet::new(out)?))
}

#[cfg(not(feature = "tables"))]
fn open_parquet<'a>(_: &'a mut dyn Write) -> Result<Box<dyn EventWriter + 'a>, Failure> {
    let reason = "--format parquet: this program was built without the feature `tables`";
    Err(Failure::Usage(anyhow!(reason)))
}

fn field<'a>(event: &'a Fields<'_>, row: &Row<'_>, name: &str) -> Cow<'a, str> {
    match name {
        "id" => Cow::Owned(event.id.to_string()),
        "day" => Cow::Owned(row.day.to_string()),
        "datetime" => Cow::Borrowed(&*event.datetime),
        "type" => Cow::Borrowed(&*event.kind),
        "location" => Cow::Borrowed(&*event.location),
        "gps" => Cow::Borrowed(&*event.gps),
        "summary" => Cow::Borrowed(&*event.summary),
        "url" => Cow::Borrowed(&*event.url),
        _ => Cow::Borrowed(&*event.name),
    }
}

/// One line for each event, in columns that are wide enough for most.
struct Table<'a> {
    fields: Vec<String>,
    is_begun: bool,
    out: &'a mut dyn Write,
}

impl EventWriter for Table<'_> {
    fn write(&mut self, row: &Row<'_>) -> anyhow::Result<()> {
        let event = Fields::of(row.json)?;
        let mut line = String::new();
        for name in &self.fields {
            let width = match name.as_str() {
                "id" => 7,
                "datetime" => 26,
                "day" => 10,
                "type" => 28,
                "location" => 20,
                _ => 0,
            };
            let text = printable(field(&event, row, name)).to_string();
            let _ = write!(line, "{text:width$}  ");
        }
        self.is_begun = true;
        Ok(writeln!(self.out, "{}", line.trim_end())?)
    }

    fn finish(&mut self, _: Option<&Cursor>) -> anyhow::Result<()> {
        if !self.is_begun && io::stdout().is_terminal() {
            writeln!(self.out, "no events")?;
        }
        Ok(())
    }
}

/// RFC 4180.
struct Csv<'a> {
    fields: Vec<String>,
    is_begun: bool,
    out: &'a mut dyn Write,
}

impl Csv<'_> {
    fn begin(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_begun, true) {
            Ok(())
        } else {
            writeln!(self.out, "{}", self.fields.join(","))
        }
    }
}

impl EventWriter for Csv<'_> {
    fn write(&mut self, row: &Row<'_>) -> anyhow::Result<()> {
        self.begin()?;
        let event = Fields::of(row.json)?;
        let cells = self.fields.iter().map(|name| csv_cell(&field(&event, row, name)));
        let line = cells.collect::<Vec<_>>().join(",");
        Ok(writeln!(self.out, "{line}")?)
    }

    fn finish(&mut self, _: Option<&Cursor>) -> anyhow::Result<()> {
        Ok(self.begin()?)
    }
}

/// One line for each event, or one document that ends with the cursor of the next page.
struct Json<'a> {
    /// If empty, the event is written as the feed sent it.
    fields: Vec<String>,
    is_document: bool,
    is_begun: bool,
    out: &'a mut dyn Write,
}

impl EventWriter for Json<'_> {
    fn write(&mut self, row: &Row<'_>) -> anyhow::Result<()> {
        let line = if self.fields.is_empty() {
            row.json.to_owned()
        } else {
            let event = Fields::of(row.json)?;
            let member = |name: &String| {
                let value = if name == "id" { json!(event.id) } else { json!(field(&event, row, name)) };
                (name.clone(), value)
            };
            let text = Value::Object(self.fields.iter().map(member).collect::<Map<_, _>>()).to_string();
            json_for_terminal(&text).into_owned()
        };
        let before = match (self.is_document, self.is_begun) {
            (false, _) => "",
            (true, false) => "{\"events\":[\n",
            (true, true) => ",\n",
        };
        let after = if self.is_document { "" } else { "\n" };
        self.is_begun = true;
        Ok(write!(self.out, "{before}{line}{after}")?)
    }

    fn finish(&mut self, next: Option<&Cursor>) -> anyhow::Result<()> {
        if self.is_document {
            let begin = if self.is_begun { "" } else { "{\"events\":[" };
            writeln!(self.out, "{begin}\n],\"next\":{}}}", json!(next.map(ToString::to_string)))?;
        }
        Ok(())
    }
}

/// Numbers of events by type, location, day or hour.
struct Counts<'a> {
    by: CountBy,
    format: Format,
    found: BTreeMap<String, u64>,
    out: &'a mut dyn Write,
}

impl EventWriter for Counts<'_> {
    fn write(&mut self, row: &Row<'_>) -> anyhow::Result<()> {
        let value = self.by.value(&Fields::of(row.json)?, row.day);
        *self.found.entry(value).or_default() += 1;
        Ok(())
    }

    fn add_counts(&mut self, counts: BTreeMap<String, u64>) {
        for (value, count) in counts {
            *self.found.entry(value).or_default() += count;
        }
    }

    fn finish(&mut self, _: Option<&Cursor>) -> anyhow::Result<()> {
        let name = COUNTS.iter().find(|(_, by)| *by == self.by).map_or("", |(names, _)| names[0]);
        let mut counts: Vec<(&String, &u64)> = self.found.iter().collect();
        if matches!(self.by, CountBy::Type | CountBy::Location) {
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        }
        match self.format {
            Format::Json => {
                let all: Vec<Value> =
                    counts.iter().map(|(value, count)| json!({name: value, "count": count})).collect();
                output::write_json(self.out, &all)?;
            }
            Format::Jsonl => {
                for (value, count) in counts {
                    let line = json!({name: value, "count": count}).to_string();
                    writeln!(self.out, "{}", json_for_terminal(&line))?;
                }
            }
            Format::Csv => {
                writeln!(self.out, "{name},count")?;
                for (value, count) in counts {
                    writeln!(self.out, "{},{count}", csv_cell(value))?;
                }
            }
            Format::Table | Format::Parquet => {
                for (value, count) in counts {
                    writeln!(self.out, "{count:>8}  {}", printable(value))?;
                }
            }
        }
        Ok(())
    }
}
