//! A report before it is shown: the same values for every format, so that no two can disagree.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Map, Value, json};

use crate::quantity::Unit;
use crate::text::{json_for_terminal, printable};

mod csv;
mod html;
mod markdown;
mod text;

/// In which form a report is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Format {
    /// For a terminal.
    #[default]
    Text,
    /// Seconds, bytes and shares of one, by the names of sections, tables and columns.
    Json,
    /// Tables for a page of notes.
    Markdown,
    /// A line for each value: section, table, row, column, value.
    Csv,
    /// One page that needs nothing else.
    Html,
}

/// A report.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The report's name: `trends`.
    pub name: &'static str,
    /// What it is about.
    pub title: String,
    /// Its parts.
    pub sections: Vec<Section>,
}

/// What a page shows beside its report when it shows the current state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The page loads itself again after so long.
    pub reload_every: Duration,
    /// Whether nothing needs to be done.
    pub is_good: bool,
    /// How things stand, in a word.
    pub state: &'static str,
    /// The same in a sentence.
    pub words: String,
}

/// A part of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Its name for machines.
    pub name: &'static str,
    /// Its name for people.
    pub title: String,
    /// What it shows.
    pub items: Vec<Item>,
}

/// What a section shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// Single values.
    Facts(Vec<Fact>),
    /// Rows of values.
    Table(Table),
    /// Shares of a whole, side by side.
    Bar(Vec<(String, f64)>),
    /// Figures over time; only a page draws it, and every value in it stands in the records.
    Chart(Chart),
    /// A sentence.
    Note(String),
}

/// A single value.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Its name for machines.
    pub name: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// The value.
    pub value: Cell,
}

/// Rows of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name for machines.
    pub name: &'static str,
    /// The names of its columns, for machines and for people.
    pub columns: Vec<(&'static str, String)>,
    /// Its rows; the first column names the row.
    pub rows: Vec<Vec<Cell>>,
}

/// A line's name, and its points in order.
pub type Line = (String, Vec<(DateTime<Utc>, f64)>);

/// Lines over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// In what the lines are counted.
    pub unit: Unit,
    /// Whether the lines are parts that lie on one another.
    pub stacked: bool,
    /// The lines.
    pub lines: Vec<Line>,
    /// Moments that are marked, and why.
    pub marks: Vec<(DateTime<Utc>, String)>,
}

/// A value, as exact as it is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing was measured.
    Missing,
    /// The value is not defined, such as a share of nothing.
    Undefined,
    /// A word.
    Text(String),
    /// A whole number, or a mean of such.
    Count(f64),
    /// A length of time, in seconds.
    Seconds(f64),
    /// A size, in bytes.
    Bytes(f64),
    /// A share of one.
    Share(f64),
    /// A change as a share of what was before.
    Change(f64),
    /// A chance: of a test.
    Chance(f64),
    /// A moment.
    Time(DateTime<Utc>),
    /// A day.
    Day(NaiveDate),
    /// From one value to another.
    Range(Box<[Cell; 2]>),
}

impl Cell {
    /// A word.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number of things.
    #[must_use]
    pub fn count(count: usize) -> Self {
        Self::Count(count as f64)
    }

    /// A value in its unit.
    #[must_use]
    pub fn new(value: Option<f64>, unit: Unit) -> Self {
        match (value, unit) {
            (None, _) => Self::Missing,
            (Some(value), Unit::Seconds | Unit::SignedSeconds) => Self::Seconds(value),
            (Some(value), Unit::Bytes) => Self::Bytes(value),
            (Some(value), Unit::Kibibytes) => Self::Bytes(value * 1024.0),
            (Some(value), Unit::Count) => Self::Count(value),
            (Some(value), Unit::Share) => Self::Share(value),
        }
    }

    /// A value, if there is one.
    pub fn maybe<T>(value: Option<T>, cell: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Missing, cell)
    }

    /// From one value to another.
    #[must_use]
    pub fn range(from: Self, to: Self) -> Self {
        Self::Range(Box::new([from, to]))
    }

    /// Whether it stands on the right of its column.
    fn is_number(&self) -> bool {
        !matches!(self, Self::Text(_))
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Missing | Self::Undefined => Value::Null,
            Self::Text(text) => json!(text),
            Self::Count(number) if number.fract() == 0.0 => json!(*number as i64),
            Self::Count(number)
            | Self::Seconds(number)
            | Self::Bytes(number)
            | Self::Share(number)
            | Self::Change(number)
            | Self::Chance(number) => json!(number),
            Self::Time(time) => json!(crate::clock::iso(*time)),
            Self::Day(day) => json!(day.to_string()),
            Self::Range(ends) => Value::Array(ends.iter().map(Self::to_json).collect()),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(formatter, "not measured"),
            Self::Undefined => write!(formatter, "–"),
            Self::Text(text) => write!(formatter, "{}", printable(text)),
            Self::Count(number) if number.fract() == 0.0 => {
                write!(formatter, "{}", thousands(*number as i64))
            }
            Self::Count(number) if number.abs() < 0.1 => write!(formatter, "{number:.3}"),
            Self::Count(number) => write!(formatter, "{number:.1}"),
            Self::Seconds(seconds) => match seconds.abs() {
                0.0 => write!(formatter, "0 s"),
                less if less < 1e-6 => write!(formatter, "{:.0} ns", seconds * 1e9),
                less if less < 1e-3 => write!(formatter, "{:.0} µs", seconds * 1e6),
                less if less < 1.0 => write!(formatter, "{:.1} ms", seconds * 1e3),
                less if less < 120.0 => write!(formatter, "{seconds:.2} s"),
                less if less < 7_200.0 => write!(formatter, "{:.1} min", seconds / 60.0),
                less if less < 172_800.0 => write!(formatter, "{:.1} h", seconds / 3_600.0),
                _ => write!(formatter, "{:.1} days", seconds / 86_400.0),
            },
            Self::Bytes(bytes) => match bytes.abs() {
                less if less < 1e3 => write!(formatter, "{bytes:.0} B"),
                less if less < 1e6 => write!(formatter, "{:.1} KB", bytes / 1e3),
                less if less < 1e9 => write!(formatter, "{:.1} MB", bytes / 1e6),
                _ => write!(formatter, "{:.2} GB", bytes / 1e9),
            },
            Self::Share(share) => write!(formatter, "{:.1} %", share * 100.0),
            Self::Change(change) => write!(formatter, "{:+.1} %", change * 100.0),
            Self::Chance(chance) if *chance < 1e-4 => write!(formatter, "< 0.0001"),
            Self::Chance(chance) => write!(formatter, "{chance:.4}"),
            Self::Time(time) => write!(formatter, "{}", time.format("%Y-%m-%d %H:%M")),
            Self::Day(day) => write!(formatter, "{day}"),
            Self::Range(ends) => write!(formatter, "{} to {}", ends[0], ends[1]),
        }
    }
}

/// 1,234,567.
fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let grouped: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|it| str::from_utf8(it).ok()).collect();
    format!("{}{}", if number < 0 { "-" } else { "" }, grouped.join(","))
}

impl Document {
    /// The report in a form.
    #[must_use]
    pub fn show(&self, format: Format) -> String {
        match format {
            Format::Text => text::show(self),
            Format::Json => json_for_terminal(&format!("{:#}\n", self.to_json())).into_owned(),
            Format::Markdown => markdown::show(self),
            Format::Csv => csv::show(self),
            Format::Html => html::show(self, None),
        }
    }

    /// The report as a page that shows the current state.
    #[must_use]
    pub fn show_live(&self, live: &Live) -> String {
        html::show(self, Some(live))
    }

    fn to_json(&self) -> Value {
        let mut report = Map::new();
        report.insert("report".to_owned(), json!(self.name));
        for section in &self.sections {
            let mut members = Map::new();
            for item in &section.items {
                match item {
                    Item::Facts(facts) => {
                        members.extend(facts.iter().map(|it| (it.name.to_owned(), it.value.to_json())));
                    }
                    Item::Table(table) => {
                        let row = |row: &Vec<Cell>| -> Value {
                            let names = table.columns.iter().map(|(name, _)| (*name).to_owned());
                            Value::Object(names.zip(row.iter().map(Cell::to_json)).collect())
                        };
                        members.insert(table.name.to_owned(), table.rows.iter().map(row).collect());
                    }
                    Item::Bar(_) | Item::Chart(_) | Item::Note(_) => {}
                }
            }
            report.insert(section.name.to_owned(), Value::Object(members));
        }
        Value::Object(report)
    }
}

impl Section {
    /// A part with its names.
    #[must_use]
    pub fn new(name: &'static str, title: impl Into<String>, items: Vec<Item>) -> Self {
        Self { name, title: title.into(), items }
    }
}

impl Table {
    /// A table with its columns' names, for machines and for people.
    #[must_use]
    pub fn new(name: &'static str, columns: &[(&'static str, &str)], rows: Vec<Vec<Cell>>) -> Self {
        let columns = columns.iter().map(|&(name, label)| (name, label.to_owned())).collect();
        Self { name, columns, rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_as_people_read_them() {
        let shown = |cell: Cell| cell.to_string();
        assert_eq!(shown(Cell::Count(1_234_567.0)), "1,234,567");
        assert_eq!(shown(Cell::Count(1.84)), "1.8");
        assert_eq!(shown(Cell::Seconds(0.000_064)), "64 µs");
        assert_eq!(shown(Cell::Seconds(1.5)), "1.50 s");
        assert_eq!(shown(Cell::Bytes(174_000.0)), "174.0 KB");
        assert_eq!(shown(Cell::Change(-0.123)), "-12.3 %");
        assert_eq!(shown(Cell::range(Cell::Share(0.95), Cell::Share(0.997))), "95.0 % to 99.7 %");
        assert_eq!(shown(Cell::Missing), "not measured");
        assert_eq!(shown(Cell::text("a\u{1b}[31m\nb")), r"a\u{1b}[31m b");
    }
}
