//! Tables of text.

use std::fmt;

/// Rows under headings; numbers to the right, words to the left.
#[derive(Debug, Clone, Default)]
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        Self { headings: headings.iter().map(|&text| text.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Its headings and rows.
    #[must_use]
    pub fn parts(&self) -> (&[String], &[Vec<String>]) {
        (&self.headings, &self.rows)
    }

    /// Whether a column holds numbers, with units perhaps.
    #[must_use]
    pub fn is_numeric(&self, column: usize) -> bool {
        let begins_with_digit = |cell: &String| {
            let first = cell.trim_start_matches(['-', '+', '<', '~']).chars().next();
            first.is_none_or(|first| first.is_ascii_digit() || first == '–')
        };
        self.rows.iter().filter_map(|row| row.get(column)).all(begins_with_digit)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.headings]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let columns: Vec<(usize, bool)> =
            (0..self.headings.len()).map(|column| (width(column), self.is_numeric(column))).collect();
        for row in [&self.headings].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (cell, (width, numeric)) in row.iter().zip(&columns) {
                let padding = " ".repeat(width - cell.chars().count());
                let (left, right) = if *numeric { (&padding, cell) } else { (cell, &padding) };
                line.extend([left, right, "  "]);
            }
            writeln!(formatter, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
