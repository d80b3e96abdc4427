//! A line for each value, so that one file holds a whole report: section, table, row, column, value.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Cell, Document, Item};
use crate::text::csv_cell;

pub(super) fn show(document: &Document) -> String {
    let mut text = "section,table,row,column,value\n".to_owned();
    for section in &document.sections {
        for item in &section.items {
            match item {
                Item::Facts(facts) => {
                    for fact in facts {
                        line(&mut text, [section.name, "", "", fact.name], &fact.value);
                    }
                }
                Item::Table(table) => {
                    for row in &table.rows {
                        let Some((name, cells)) = row.split_first() else { continue };
                        let name = plain(name);
                        for ((column, _), cell) in table.columns.iter().skip(1).zip(cells) {
                            line(&mut text, [section.name, table.name, &name, column], cell);
                        }
                    }
                }
                Item::Bar(_) | Item::Chart(_) | Item::Note(_) => {}
            }
        }
    }
    text
}

fn line(text: &mut String, names: [&str; 4], value: &Cell) {
    for name in names {
        let _ = write!(text, "{},", csv_cell(name));
    }
    let _ = writeln!(text, "{}", csv_cell(&plain(value)));
}

/// As JSON has it, without its quotes.
fn plain(cell: &Cell) -> String {
    match cell.to_json() {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Array(ends) => ends.iter().map(Value::to_string).collect::<Vec<_>>().join(" to "),
        other => other.to_string(),
    }
}
