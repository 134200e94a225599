//! Apache Parquet.
//!
//! Reading: columns are found by name and converted to the declared types (a value that its type cannot hold is a bad row); undeclared, a file's
//! own types are taken, views and dictionaries as what they stand for. Only the columns asked for are read. Rows are counted from 0 over the
//! whole file.
//!
//! Writing: Zstandard, row groups of at most a million rows, the Arrow schema in the metadata.

use std::{fs::File, ops::Range, path::Path, sync::Arc};

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_cast::can_cast_types;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use millstream_engine::rejected::Rejection;
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};

use super::{cast::cast, ndjson};
use crate::files::sum::Summed;

/// Rows that are decoded together.
const ROWS_PER_READ: usize = 8_192;
/// Most rows of a written row group.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// The columns of a file as this source produces them: the declared ones, or its own.
///
/// # Errors
/// The file cannot be read, lacks a declared column or has it with a type that does not convert; a clause.
pub fn plan_schema(path: &Path, declared: Option<&SchemaRef>) -> Result<SchemaRef, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let own = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?.schema().clone();
    match declared {
        Some(declared) => check_declared(&own, declared).map(|()| declared.clone()),
        None => Ok(Arc::new(Schema::new(own.fields().iter().map(|field| plain(field)).collect::<Vec<_>>()))),
    }
}

fn check_declared(own: &Schema, declared: &Schema) -> Result<(), String> {
    for field in declared.fields() {
        let found = own.field_with_name(field.name()).map_err(|_| format!("it has no column {}", field.name()))?;
        if !can_cast_types(found.data_type(), field.data_type()) {
            return Err(format!("its column {} is a {}, which is not converted to {}", field.name(), found.data_type(), field.data_type()));
        }
    }
    Ok(())
}

/// The same field without encodings that only storage has a use for.
fn plain(field: &Field) -> Field {
    Field::new(field.name(), plain_type(field.data_type()), field.is_nullable())
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            DataType::List(Arc::new(plain(item)))
        }
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(Arc::new(plain(item)), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| plain(field)).collect()),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(plain(entries)), *sorted),
        other => other.clone(),
    }
}

/// Reads columns of one file.
pub struct Reader {
    schema: SchemaRef,
    rows: ParquetRecordBatchReader,
    /// For each column of `schema` its place in what `rows` gives.
    places: Vec<usize>,
    /// Read and not yet returned.
    pending: Option<RecordBatch>,
    next_row: u64,
    rows_total: u64,
}

/// What [`Reader::read`] gives.
pub struct Rows {
    /// The rows that could be read.
    pub columns: RecordBatch,
    /// The number of each row in the file.
    pub numbers: Vec<u64>,
    /// The rows that could not; the position is set.
    pub rejected: Vec<Rejection>,
}

impl Reader {
    /// Reads the columns of `schema` from row `first_row` on.
    ///
    /// # Errors
    /// The file is no Parquet file, or lacks a column; a clause.
    pub fn open(file: File, schema: SchemaRef, first_row: u64) -> Result<Self, String> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(text)?;
        let own = builder.schema().clone();
        check_declared(&own, &schema)?;
        let mut roots = schema
            .fields()
            .iter()
            .map(|field| own.index_of(field.name()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        let wanted = roots.clone();
        roots.sort_unstable();
        roots.dedup();
        let places = wanted.iter().map(|root| roots.binary_search(root).expect("it is one of them")).collect();
        let group_rows: Vec<u64> = builder.metadata().row_groups().iter().map(|group| group.num_rows().try_into().unwrap_or(0)).collect();
        let rows_total = group_rows.iter().sum();
        if first_row > rows_total {
            return Err(format!("it has {rows_total} rows, fewer than the {first_row} that were read of it before"));
        }
        let (group, skipped) = group_of(&group_rows, first_row);
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let builder = builder.with_projection(mask).with_batch_size(ROWS_PER_READ).with_row_groups((group..group_rows.len()).collect());
        let rows = builder.with_offset(usize::try_from(first_row - skipped).unwrap_or(usize::MAX)).build().map_err(text)?;
        Ok(Self { schema, rows, places, pending: None, next_row: first_row, rows_total })
    }

    /// Number of the next row.
    pub fn next_row(&self) -> u64 {
        self.next_row
    }

    /// Number of rows of the file.
    pub fn rows_total(&self) -> u64 {
        self.rows_total
    }

    /// The next rows, at most `rows_max`; none: there are no more.
    ///
    /// # Errors
    /// The file is damaged; a clause.
    pub fn read(&mut self, rows_max: usize) -> Result<Option<Rows>, String> {
        let batch = match self.pending.take() {
            Some(batch) => batch,
            None => match self.rows.next() {
                Some(batch) => batch.map_err(|error| error.to_string())?,
                None => return Ok(None),
            },
        };
        let count = batch.num_rows().min(rows_max.max(1));
        if count < batch.num_rows() {
            self.pending = Some(batch.slice(count, batch.num_rows() - count));
        }
        let first = self.next_row;
        self.next_row += count as u64;
        Ok(Some(self.convert(&batch.slice(0, count), first)))
    }

    fn convert(&self, batch: &RecordBatch, first: u64) -> Rows {
        let mut readable = Vec::new();
        let mut rejected = Vec::new();
        self.convert_range(batch, 0..batch.num_rows(), &mut |rows, result| match result {
            Ok(columns) => readable.push((rows, columns)),
            Err(reason) => rejected.push(Rejection {
                reason,
                position: Some(first + rows.start as u64),
                row: row_text(batch, rows.start),
                ..Rejection::default()
            }),
        });
        let columns =
            arrow_select::concat::concat_batches(&self.schema, readable.iter().map(|(_, columns)| columns)).expect("all have the schema");
        let numbers = readable.into_iter().flat_map(|(rows, _)| rows).map(|row| first + row as u64).collect();
        Rows { columns, numbers, rejected }
    }

    /// Converts the rows together if that goes well, else in halves, down to the rows that do not convert.
    fn convert_range(&self, batch: &RecordBatch, rows: Range<usize>, found: &mut dyn FnMut(Range<usize>, Result<RecordBatch, String>)) {
        let result = self.convert_rows(&batch.slice(rows.start, rows.len()));
        if result.is_ok() || rows.len() <= 1 {
            return found(rows, result);
        }
        let middle = rows.start + rows.len() / 2;
        self.convert_range(batch, rows.start..middle, found);
        self.convert_range(batch, middle..rows.end, found);
    }

    fn convert_rows(&self, batch: &RecordBatch) -> Result<RecordBatch, String> {
        let convert = |(field, &place): (&Arc<Field>, &usize)| -> Result<ArrayRef, String> {
            let column = cast(batch.column(place), field.data_type()).map_err(|error| format!("column {}: {error}", field.name()))?;
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(format!("column {}: null in a column declared without `?`", field.name()));
            }
            Ok(column)
        };
        let columns = self.schema.fields().iter().zip(&self.places).map(convert).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|error| error.to_string())
    }
}

fn row_text(batch: &RecordBatch, row: usize) -> String {
    let mut out = Vec::new();
    let written = ndjson::Writer::new(&batch.schema(), ndjson::Nulls::Write).and_then(|writer| writer.rows(&batch.slice(row, 1), &mut out));
    written.map_or_else(|reason| reason, |()| String::from_utf8_lossy(&out).trim_end().to_owned())
}

/// The row group that a row stands in, and the rows before that group.
fn group_of(group_rows: &[u64], row: u64) -> (usize, u64) {
    let mut before = 0;
    for (group, rows) in group_rows.iter().enumerate() {
        if row < before + rows {
            return (group, before);
        }
        before += rows;
    }
    (group_rows.len(), before)
}

fn text(error: ParquetError) -> String {
    error.to_string()
}

/// Writes one file.
pub struct Writer {
    file: ArrowWriter<Summed>,
}

impl Writer {
    /// Writes rows of `schema` into `file`.
    ///
    /// # Errors
    /// A column has a type that Parquet cannot hold.
    pub fn new(file: Summed, schema: SchemaRef) -> Result<Self, ParquetError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_created_by("millstream".into())
            .build();
        Ok(Self { file: ArrowWriter::try_new(file, schema, Some(properties))? })
    }

    /// Appends rows.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn rows(&mut self, columns: &RecordBatch) -> Result<(), ParquetError> {
        self.file.write(columns)
    }

    /// About how many bytes the file has now.
    pub fn bytes(&self) -> usize {
        self.file.bytes_written() + self.file.in_progress_size()
    }

    /// Completes the file and hands it over, to be synced.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> Result<Summed, ParquetError> {
        self.file.finish()?;
        Ok(self.file.inner().try_clone()?)
    }
}
