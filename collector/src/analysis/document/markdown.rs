//! Tables for a page of notes.

use std::fmt::Write as _;

use super::{Document, Fact, Item, Table};
use crate::text::printable;

pub(super) fn show(document: &Document) -> String {
    let mut text = format!("# {}\n", escaped(&document.title));
    for section in &document.sections {
        let _ = write!(text, "\n## {}\n", escaped(&section.title));
        for item in &section.items {
            match item {
                Item::Facts(facts) => {
                    text.push('\n');
                    for Fact { label, value, .. } in facts {
                        let _ = writeln!(text, "- {label}: **{}**", escaped(&value.to_string()));
                    }
                }
                Item::Table(table) => show_table(table, &mut text),
                Item::Bar(parts) => {
                    let shares = parts
                        .iter()
                        .map(|(label, share)| format!("{} {:.1} %", escaped(label), share * 100.0));
                    let _ = writeln!(text, "\n{}", shares.collect::<Vec<_>>().join(" · "));
                }
                Item::Note(note) => {
                    let _ = writeln!(text, "\n{}", escaped(note));
                }
                Item::Chart(_) => {}
            }
        }
    }
    text
}

fn show_table(table: &Table, text: &mut String) {
    if table.rows.is_empty() {
        text.push_str("\nNone.\n");
        return;
    }
    text.push_str("\n|");
    for (_, label) in &table.columns {
        let _ = write!(text, " {} |", escaped(label));
    }
    text.push_str("\n|");
    for (number, _) in table.columns.iter().enumerate() {
        text.push_str(if table.rows.iter().all(|row| row[number].is_number()) { "---:|" } else { "---|" });
    }
    text.push('\n');
    for row in &table.rows {
        text.push('|');
        for cell in row {
            let _ = write!(text, " {} |", escaped(&cell.to_string()));
        }
        text.push('\n');
    }
}

/// What a record says may not become markup.
fn escaped(text: &str) -> String {
    let text = printable(text).to_string();
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '#' => safe.extend(['\\', letter]),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            other => safe.push(other),
        }
    }
    safe
}
