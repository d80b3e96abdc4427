//! For a terminal: tables in columns, numbers to the right.

use std::fmt::Write as _;

use super::{Cell, Document, Fact, Item, Table};
use crate::text::printable;

/// How wide a bar is.
const BAR: f64 = 60.0;
/// What parts of a bar are drawn with, in turns.
const FILLS: [char; 8] = ['█', '▒', '╳', '░', '▓', '═', '▚', '·'];

pub(super) fn show(document: &Document) -> String {
    let mut text = format!("{}\n", printable(&document.title));
    for section in &document.sections {
        let _ = write!(text, "\n{}\n", printable(&section.title));
        for item in &section.items {
            match item {
                Item::Facts(facts) => show_facts(facts, &mut text),
                Item::Table(table) => show_table(table, &mut text),
                Item::Bar(parts) => show_bar(parts, &mut text),
                Item::Note(note) => {
                    let _ = writeln!(text, "  {}", printable(note));
                }
                Item::Chart(_) => {}
            }
        }
    }
    text
}

fn show_facts(facts: &[Fact], text: &mut String) {
    let width = facts.iter().map(|fact| fact.label.chars().count()).max().unwrap_or(0);
    for Fact { label, value, .. } in facts {
        let _ = writeln!(text, "  {label:width$}  {value}");
    }
}

fn show_table(table: &Table, text: &mut String) {
    if table.rows.is_empty() {
        text.push_str("  none\n");
        return;
    }
    let rows: Vec<Vec<String>> =
        table.rows.iter().map(|row| row.iter().map(Cell::to_string).collect()).collect();
    let columns = table.columns.iter().enumerate().map(|(number, (_, label))| {
        let cells = rows.iter().map(|row| row[number].chars().count());
        let to_the_right = table.rows.iter().all(|row| row[number].is_number());
        (cells.chain([label.chars().count()]).max().unwrap_or(0), to_the_right)
    });
    let columns: Vec<(usize, bool)> = columns.collect();
    let mut line = |cells: &mut dyn Iterator<Item = &String>| {
        let mut line = String::new();
        for (cell, (width, to_the_right)) in cells.zip(&columns) {
            let _ = if *to_the_right {
                write!(line, "  {cell:>width$}")
            } else {
                write!(line, "  {cell:width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(&mut table.columns.iter().map(|(_, label)| label));
    for row in &rows {
        line(&mut row.iter());
    }
}

fn show_bar(parts: &[(String, f64)], text: &mut String) {
    let (mut bar, mut legend) = (String::new(), String::new());
    for ((label, share), fill) in parts.iter().zip(FILLS.into_iter().cycle()) {
        bar.extend(std::iter::repeat_n(fill, (share * BAR).round() as usize));
        let _ = write!(legend, "  {fill} {} {:.1} %", printable(label), share * 100.0);
    }
    let _ = writeln!(text, "  {bar}\n{legend}");
}
