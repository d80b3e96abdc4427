//! Writes what a query found as a Parquet file with the columns of the table of revisions.

use std::io::Write;

use parquet::data_type::ByteArray;
use parquet::errors::Result;

use super::file::Writer;
use super::line::{Line, seen_at};
use super::month::Table;
use crate::store::Key;

/// A file that is written row group by row group, so that memory holds one.
pub(crate) struct AnswerWriter<'a> {
    writer: Writer,
    out: &'a mut dyn Write,
}

impl<'a> AnswerWriter<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Result<Self> {
        Ok(Self { writer: Writer::new(Table::Revisions)?, out })
    }

    /// Adds a version, which stands in a line of an object, counted from 1. Whether it has the columns that no row lacks.
    pub(crate) fn push(&mut self, key: &Key, number: usize, json: &str) -> Result<bool> {
        let (object, number) = (ByteArray::from(key.as_str()), i32::try_from(number).unwrap_or(i32::MAX));
        let Some((line, _)) = Line::new(json.as_bytes(), object, number, seen_at(key)) else {
            return Ok(false);
        };
        if self.writer.push(line.cells())? {
            self.out.write_all(&self.writer.take_encoded()?)?;
        }
        Ok(true)
    }

    pub(crate) fn finish(self) -> Result<()> {
        Ok(self.out.write_all(&self.writer.finish()?.bytes)?)
    }
}
