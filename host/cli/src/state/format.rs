//! Entries of state as text and files: NDJSON, CSV, Parquet.
//!
//! Entries come as batches of the columns `key` (a struct), `map-key` (ordered maps), `index` (appended lists) and `value`. JSON and Parquet keep
//! that nesting; CSV has no nesting, so structs become columns with dotted names, and what is still nested becomes JSON in its cell.

use std::{io::Write, sync::Arc};

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, StructArray, cast::AsArray};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, SchemaRef};
use clap::ValueEnum;
use parquet::arrow::ArrowWriter;

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// Comma-separated, with a header.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// Writes entries in one format.
pub enum Writer<W: Write + Send> {
    Json(Box<arrow_json::LineDelimitedWriter<W>>),
    Csv(Box<arrow_csv::Writer<W>>),
    Parquet(Box<ArrowWriter<W>>),
}

impl<W: Write + Send> Writer<W> {
    /// A writer of entries with this schema.
    pub fn new(format: Format, to: W, schema: SchemaRef) -> Result<Self, ArrowError> {
        Ok(match format {
            Format::Json => Self::Json(Box::new(arrow_json::WriterBuilder::new().with_explicit_nulls(true).build(to))),
            Format::Csv => {
                let mut writer = arrow_csv::WriterBuilder::new().with_header(true).build(to);
                // The header stands there even if there is no entry.
                writer.write(&flattened(&RecordBatch::new_empty(schema))?)?;
                Self::Csv(Box::new(writer))
            }
            Format::Parquet => Self::Parquet(Box::new(ArrowWriter::try_new(to, schema, None)?)),
        })
    }

    /// Appends entries.
    pub fn write(&mut self, entries: &RecordBatch) -> Result<(), ArrowError> {
        match self {
            Self::Json(writer) => writer.write(entries),
            Self::Csv(writer) => writer.write(&flattened(entries)?),
            Self::Parquet(writer) => Ok(writer.write(entries)?),
        }
    }

    /// Writes what the format has at its end; what they were written to.
    pub fn finish(self) -> Result<W, ArrowError> {
        Ok(match self {
            Self::Json(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
            Self::Csv(writer) => writer.into_inner(),
            Self::Parquet(writer) => writer.into_inner()?,
        })
    }
}

/// Structs as columns with dotted names; other nested columns as JSON.
fn flattened(entries: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut columns = Vec::new();
    for (field, column) in entries.schema().fields().iter().zip(entries.columns()) {
        flatten(field.name().clone(), column, &mut columns)?;
    }
    let fields: Vec<Field> = columns.iter().map(|(name, column)| Field::new(name, column.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, column)| column).collect())
}

fn flatten(name: String, column: &ArrayRef, columns: &mut Vec<(String, ArrayRef)>) -> Result<(), ArrowError> {
    match column.data_type() {
        DataType::Struct(fields) => {
            let parent = column.as_struct();
            for (field, child) in fields.iter().zip(parent.columns()) {
                // A value that is absent has no fields either.
                let child = match parent.nulls() {
                    Some(_) => with_nulls_of(parent, child)?,
                    None => child.clone(),
                };
                flatten(format!("{name}.{}", field.name()), &child, columns)?;
            }
            Ok(())
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Map(..) => {
            columns.push((name, as_json(column)?));
            Ok(())
        }
        _ => {
            columns.push((name, column.clone()));
            Ok(())
        }
    }
}

fn with_nulls_of(parent: &StructArray, child: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    arrow_select::nullif::nullif(child, &arrow_array::BooleanArray::from_iter((0..parent.len()).map(|row| Some(parent.is_null(row)))))
}

/// Each value as JSON text.
fn as_json(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let field: FieldRef = Arc::new(Field::new("value", column.data_type().clone(), true));
    let texts = (0..column.len()).map(|row| {
        if column.is_null(row) {
            return Ok(None);
        }
        let one = RecordBatch::try_new(Arc::new(Schema::new([field.clone()])), vec![column.slice(row, 1)])?;
        let mut writer = arrow_json::LineDelimitedWriter::new(Vec::new());
        writer.write(&one)?;
        writer.finish()?;
        let line: serde_json::Value =
            serde_json::from_slice(&writer.into_inner()).map_err(|error| ArrowError::JsonError(error.to_string()))?;
        Ok(Some(line["value"].to_string()))
    });
    Ok(Arc::new(texts.collect::<Result<StringArray, ArrowError>>()?))
}

/// Entries as a table for people.
pub fn table(entries: &[RecordBatch]) -> Result<String, ArrowError> {
    let flat = entries.iter().map(flattened).collect::<Result<Vec<_>, _>>()?;
    Ok(arrow_cast::pretty::pretty_format_batches(&flat)?.to_string())
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, ListArray, types::Int64Type};

    use super::*;

    fn entries() -> RecordBatch {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let key = StructArray::from(vec![(Arc::new(Field::new("word", DataType::Utf8, false)), text)]);
        let count: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let seen: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), Some(vec![])]));
        let fields =
            vec![Arc::new(Field::new("count", DataType::Int64, false)), Arc::new(Field::new("seen", seen.data_type().clone(), true))];
        let value = StructArray::new(fields.into(), vec![count, seen], Some(vec![true, false].into()));
        RecordBatch::try_from_iter([("key", Arc::new(key) as ArrayRef), ("value", Arc::new(value) as ArrayRef)]).unwrap()
    }

    fn written(format: Format) -> Vec<u8> {
        let mut writer = Writer::new(format, Vec::new(), entries().schema()).unwrap();
        writer.write(&entries()).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn json_keeps_the_nesting() {
        let text = String::from_utf8(written(Format::Json)).unwrap();
        assert_eq!(text, "{\"key\":{\"word\":\"a\"},\"value\":{\"count\":1,\"seen\":[1]}}\n{\"key\":{\"word\":\"b\"},\"value\":null}\n");
    }

    #[test]
    fn csv_has_dotted_columns_and_lists_as_json() {
        let text = String::from_utf8(written(Format::Csv)).unwrap();
        assert_eq!(text, "key.word,value.count,value.seen\na,1,[1]\nb,,\n");
    }

    #[test]
    fn parquet_is_read_back_as_it_was() {
        let bytes = bytes::Bytes::from(written(Format::Parquet));
        let mut reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(bytes, 8).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().columns(), entries().columns());
    }
}
