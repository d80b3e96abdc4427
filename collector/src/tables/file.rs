//! Parquet files: the columns of the tables, and how rows become a file and a file becomes columns.
//!
//! The same rows give the same bytes, whoever writes them: row groups are cut by their number of rows.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader as _, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, TypePtr};

use super::manifest::FileEntry;
use super::month::Table;
use crate::archive::{content_digest, hexadecimal};
use crate::event::EventId;

/// Number of rows of a row group.
pub(crate) const ROWS_PER_GROUP: usize = 5_000;
/// Level of the compression: higher ones save little and take long.
const ZSTD_LEVEL: i32 = 9;
/// Named in each file instead of the version of the library, so that the bytes depend on the rows alone.
const CREATED_BY: &str = "polisen-events-collector version 1.0.0 (build tables)";

const CONTENT: &str = "
    required int64 id;
    required int64 datetime (TIMESTAMP(MICROS,true));
    required int64 local_datetime (TIMESTAMP(MICROS,false));
    required int32 utc_offset_minutes;
    required int32 date (DATE);
    optional binary name (STRING);
    optional binary summary (STRING);
    optional binary url (STRING);
    optional binary type (STRING);
    optional binary location_name (STRING);
    optional double lat;
    optional double lon;";
const OF_EVENT: &str = "
    required int64 first_seen (TIMESTAMP(MICROS,true));
    required int32 versions;
    optional int64 withdrawn (TIMESTAMP(MICROS,true));
    required binary raw (STRING);";
const OF_REVISION: &str = "
    required int64 seen_at (TIMESTAMP(MICROS,true));
    required binary raw (STRING);
    required binary object (STRING);
    required int32 line;";

/// A value in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cell<'a> {
    Null,
    Int32(i32),
    Int64(i64),
    Double(f64),
    Text(&'a ByteArray),
}

impl Table {
    fn schema(self) -> Result<TypePtr> {
        let rest = match self {
            Self::Events => OF_EVENT,
            Self::Revisions => OF_REVISION,
        };
        Ok(Arc::new(parse_message_type(&format!("message {} {{{CONTENT}{rest}}}", self.name()))?))
    }
}

fn properties() -> Result<WriterProperties> {
    let level = Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?);
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(level)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(64))
        .set_max_row_group_row_count(None)
        .set_column_bloom_filter_enabled("id".into(), true)
        .set_column_bloom_filter_max_ndv("id".into(), ROWS_PER_GROUP as u64);
    for column in ["id", "datetime", "local_datetime", "date", "line", "seen_at"] {
        let column = ColumnPath::from(column);
        builder = builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    for column in ["name", "summary", "url", "raw"] {
        builder = builder.set_column_dictionary_enabled(column.into(), false);
    }
    Ok(builder.build())
}

/// The values of a column in a row group.
#[derive(Debug)]
enum Values {
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Double(Vec<f64>),
    Text(Vec<ByteArray>),
}

#[derive(Debug)]
struct Column {
    values: Values,
    /// 0 for null, 1 for a value.
    levels: Vec<i16>,
    is_optional: bool,
}

impl Column {
    fn push(&mut self, cell: Cell<'_>) {
        match (&mut self.values, cell) {
            (Values::Int32(values), Cell::Int32(value)) => values.push(value),
            (Values::Int64(values), Cell::Int64(value)) => values.push(value),
            (Values::Double(values), Cell::Double(value)) => values.push(value),
            (Values::Text(values), Cell::Text(value)) => values.push(value.clone()),
            _ => return self.levels.push(0),
        }
        self.levels.push(1);
    }

    fn clear(&mut self) {
        self.levels.clear();
        match &mut self.values {
            Values::Int32(values) => values.clear(),
            Values::Int64(values) => values.clear(),
            Values::Double(values) => values.clear(),
            Values::Text(values) => values.clear(),
        }
    }
}

/// A finished file, and what the manifest says of it.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    pub(crate) entry: FileEntry,
}

/// Writes the rows of a file.
pub(crate) struct Writer {
    file: SerializedFileWriter<Vec<u8>>,
    columns: Vec<Column>,
    rows: u64,
    digest: Context,
}

impl fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Writer").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Writer {
    pub(crate) fn new(table: Table) -> Result<Self> {
        let schema = table.schema()?;
        let columns = schema.get_fields().iter().map(|field| Column {
            values: match field.get_physical_type() {
                parquet::basic::Type::INT32 => Values::Int32(Vec::new()),
                parquet::basic::Type::INT64 => Values::Int64(Vec::new()),
                parquet::basic::Type::DOUBLE => Values::Double(Vec::new()),
                _ => Values::Text(Vec::new()),
            },
            levels: Vec::new(),
            is_optional: field.is_optional(),
        });
        let columns = columns.collect();
        let file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties()?))?;
        Ok(Self { file, columns, rows: 0, digest: Context::new(&SHA256) })
    }

    /// Adds a row. Whether it completed a row group.
    pub(crate) fn push<'a>(&mut self, row: impl Iterator<Item = Cell<'a>>) -> Result<bool> {
        for (column, cell) in self.columns.iter_mut().zip(row) {
            match cell {
                Cell::Null => self.digest.update(&[0]),
                Cell::Int32(value) => self.digest.update(&value.to_le_bytes()),
                Cell::Int64(value) => self.digest.update(&value.to_le_bytes()),
                Cell::Double(value) => self.digest.update(&value.to_le_bytes()),
                Cell::Text(value) => {
                    self.digest.update(&(value.len() as u64 + 1).to_le_bytes());
                    self.digest.update(value.data());
                }
            }
            column.push(cell);
        }
        self.rows += 1;
        let is_complete = self.rows.is_multiple_of(ROWS_PER_GROUP as u64);
        if is_complete {
            self.write_group()?;
        }
        Ok(is_complete)
    }

    fn write_group(&mut self) -> Result<()> {
        let mut group = self.file.next_row_group()?;
        for column in &mut self.columns {
            let levels = column.is_optional.then_some(column.levels.as_slice());
            let mut writer = group.next_column()?.ok_or(ParquetError::EOF("a column is missing".into()))?;
            match &column.values {
                Values::Int32(values) => writer.typed::<Int32Type>().write_batch(values, levels, None)?,
                Values::Int64(values) => writer.typed::<Int64Type>().write_batch(values, levels, None)?,
                Values::Double(values) => writer.typed::<DoubleType>().write_batch(values, levels, None)?,
                Values::Text(values) => writer.typed::<ByteArrayType>().write_batch(values, levels, None)?,
            };
            writer.close()?;
            column.clear();
        }
        group.close()?;
        Ok(())
    }

    /// What was encoded and not taken before: whole row groups.
    pub(crate) fn take_encoded(&mut self) -> Result<Vec<u8>> {
        self.file.flush()?;
        Ok(std::mem::take(self.file.inner_mut()))
    }

    /// Ends the file. The entry is that of the whole file only if nothing was taken before.
    pub(crate) fn finish(mut self) -> Result<Built> {
        if self.columns.iter().any(|column| !column.levels.is_empty()) {
            self.write_group()?;
        }
        let rows = self.rows;
        let rows_digest = self.digest.finish();
        let bytes = self.file.into_inner()?;
        let rows_digest = hexadecimal(rows_digest.as_ref());
        let (size_bytes, digest) = (bytes.len() as u64, content_digest(&bytes));
        let entry = FileEntry { rows, size_bytes, digest, rows_digest };
        Ok(Built { bytes, entry })
    }
}

/// Reads the columns of a file.
pub(crate) struct Reader {
    file: SerializedFileReader<Bytes>,
    bytes: Bytes,
}

impl fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reader").field("groups", &self.groups()).finish()
    }
}

impl Reader {
    /// A file of this table.
    pub(crate) fn new(bytes: impl Into<Bytes>, table: Table) -> Result<Self> {
        let bytes = bytes.into();
        let file = SerializedFileReader::new(bytes.clone())?;
        let found = file.metadata().file_metadata().schema();
        if found.get_fields() != table.schema()?.get_fields() {
            return Err(ParquetError::General("its columns are not those of the table".to_owned()));
        }
        Ok(Self { file, bytes })
    }

    pub(crate) fn groups(&self) -> usize {
        self.file.num_row_groups()
    }

    pub(crate) fn group(&self, group: usize) -> Result<Group<'_>> {
        let reader = self.file.get_row_group(group)?;
        let rows = usize::try_from(reader.metadata().num_rows()).unwrap_or_default();
        Ok(Group { reader, rows })
    }

    /// Whether a row group may hold one of these ids, by its statistics and its Bloom filter.
    pub(crate) fn may_hold(&self, group: usize, ids: &BTreeSet<EventId>) -> Result<bool> {
        let chunk = self.file.metadata().row_group(group).column(0);
        let (first, last) = match chunk.statistics() {
            Some(Statistics::Int64(ids)) => (ids.min_opt().copied(), ids.max_opt().copied()),
            _ => (None, None),
        };
        let mut near = ids.range(first.unwrap_or(EventId::MIN)..=last.unwrap_or(EventId::MAX)).peekable();
        if near.peek().is_none() {
            return Ok(false);
        }
        let filter = Sbbf::read_from_column_chunk(chunk, &self.bytes)?;
        Ok(filter.is_none_or(|filter| near.any(|id| filter.check(id))))
    }
}

/// A row group, whose columns are read as they are asked for.
pub(crate) struct Group<'a> {
    reader: Box<dyn RowGroupReader + 'a>,
    pub(crate) rows: usize,
}

impl fmt::Debug for Group<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Group").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Group<'_> {
    fn position(&self, column: &str) -> Result<usize> {
        let columns = self.reader.metadata().columns();
        let position = columns.iter().position(|chunk| chunk.column_path().string() == column);
        position.ok_or_else(|| ParquetError::General(format!("there is no column {column}")))
    }

    fn read<T: DataType>(&self, column: &str) -> Result<Vec<Option<T::T>>> {
        let reader = self.reader.get_column_reader(self.position(column)?)?;
        let mut reader: ColumnReaderImpl<T> = get_typed_column_reader(reader);
        let (mut values, mut levels) = (Vec::with_capacity(self.rows), Vec::with_capacity(self.rows));
        let (mut records, mut read) = (0, 1);
        while records < self.rows && read > 0 {
            read = reader.read_records(self.rows - records, Some(&mut levels), None, &mut values)?.0;
            records += read;
        }
        if records != self.rows {
            return Err(ParquetError::EOF(format!("column {column} ends early")));
        }
        if values.len() == self.rows {
            // In place: a copy of each column would cost more than the search in it.
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        Ok(levels.into_iter().map(|level| if level > 0 { values.next() } else { None }).collect())
    }

    pub(crate) fn int32s(&self, column: &str) -> Result<Vec<i32>> {
        Ok(self.read::<Int32Type>(column)?.into_iter().map(Option::unwrap_or_default).collect())
    }

    pub(crate) fn int64s(&self, column: &str) -> Result<Vec<i64>> {
        Ok(self.read::<Int64Type>(column)?.into_iter().map(Option::unwrap_or_default).collect())
    }

    pub(crate) fn doubles(&self, column: &str) -> Result<Vec<Option<f64>>> {
        self.read::<DoubleType>(column)
    }

    pub(crate) fn texts(&self, column: &str) -> Result<Vec<Option<ByteArray>>> {
        self.read::<ByteArrayType>(column)
    }

    pub(crate) fn required_texts(&self, column: &str) -> Result<Vec<ByteArray>> {
        Ok(self.texts(column)?.into_iter().map(Option::unwrap_or_default).collect())
    }
}
