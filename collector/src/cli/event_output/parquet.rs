//! `--format parquet`: the columns of the table of revisions.

use std::io::{self, Write};

use anyhow::{Context as _, ensure};
use parquet::errors::ParquetError;

use super::{EventWriter, Row};
use crate::query::Cursor;
use crate::tables::answer::AnswerWriter;

pub(super) struct Parquet<'a> {
    /// Absent once it is finished.
    file: Option<AnswerWriter<'a>>,
    /// Number of events that no row can hold.
    left_out: u64,
}

impl<'a> Parquet<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> anyhow::Result<Self> {
        Ok(Self { file: Some(AnswerWriter::new(out).map_err(own_error)?), left_out: 0 })
    }
}

/// An error of the output as such, so that a closed pipe is recognized.
fn own_error(error: ParquetError) -> anyhow::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => (*error).into(),
            Err(source) => ParquetError::External(source).into(),
        },
        error => error.into(),
    }
}

impl EventWriter for Parquet<'_> {
    fn write(&mut self, row: &Row<'_>) -> anyhow::Result<()> {
        let (object, number) = row.line.context("the event stands in no object")?;
        let file = self.file.as_mut().context("the file is finished")?;
        self.left_out += u64::from(!file.push(object, number, row.json).map_err(own_error)?);
        Ok(())
    }

    fn finish(&mut self, _: Option<&Cursor>) -> anyhow::Result<()> {
        self.file.take().map_or(Ok(()), AnswerWriter::finish).map_err(own_error)?;
        let left_out = self.left_out;
        ensure!(
            left_out == 0,
            "{left_out} events have no valid datetime and are not in the file; `collector verify` names them"
        );
        Ok(())
    }
}
