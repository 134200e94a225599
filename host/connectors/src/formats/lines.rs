//! Lines of text: each is the value of one column, and there is no other column.
//!
//! A line ends with `\n` or `\r\n`; the last one of a file need not. An empty line is an empty text. What a line cannot say is refused when it is
//! written: a null, and a text with a line end in it, or with a `\r` at its end.

use std::{ops::Range, sync::Arc};

use arrow_array::{Array, ArrayRef, LargeStringArray, RecordBatch, RecordBatchOptions, StringArray, cast::AsArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::{
    records::VALUE_COLUMN,
    text::{BadRecord, Decoded, ScanLimits, TextFormat, too_long},
};

/// The columns of lines, unless a schema is declared.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(VALUE_COLUMN, DataType::Utf8, false)]))
}

/// Whether these columns are one of text.
///
/// # Errors
/// They are others; a clause.
pub fn check(schema: &Schema) -> Result<(), String> {
    match schema.fields().as_ref() {
        [field] if matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8) => Ok(()),
        [field] => Err(format!("column {} of type {} is no text: a line holds one column of text", field.name(), field.data_type())),
        fields => Err(format!("a line holds one column of text, and there are {} columns", fields.len())),
    }
}

/// Reads lines.
pub struct Reader {
    /// The column, or none of them.
    schema: SchemaRef,
    lines: Vec<Range<usize>>,
    record_bytes_max: usize,
}

impl Reader {
    /// Reads the columns of `schema`, a projection of one that passed [`check`].
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, lines: Vec::new(), record_bytes_max: usize::MAX }
    }

    fn text<'a>(&self, line: &'a [u8]) -> Result<&'a str, String> {
        if line.len() > self.record_bytes_max {
            return Err(too_long(self.record_bytes_max));
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        std::str::from_utf8(line).map_err(|error| format!("invalid UTF-8 at byte {} of the record", error.valid_up_to()))
    }
}

impl TextFormat for Reader {
    fn scan(&mut self, bytes: &[u8], limits: ScanLimits) -> usize {
        self.lines.clear();
        self.record_bytes_max = limits.record_bytes;
        let mut at = 0;
        while self.lines.len() < limits.records && at < bytes.len().min(limits.stop_at) {
            let (end, next) = match memchr::memchr(b'\n', &bytes[at..]) {
                Some(length) => (at + length, at + length + 1),
                None if limits.last => (bytes.len(), bytes.len()),
                None => break,
            };
            self.lines.push(at..end);
            at = next;
        }
        at
    }

    fn decode(&mut self, bytes: &[u8]) -> Decoded {
        let lines = std::mem::take(&mut self.lines);
        let (mut texts, mut row_records, mut bad) = (Vec::with_capacity(lines.len()), Vec::with_capacity(lines.len()), Vec::new());
        for (record, span) in (0..).zip(&lines) {
            match self.text(&bytes[span.clone()]) {
                Ok(text) => {
                    texts.push(text);
                    row_records.push(record);
                }
                Err(reason) => bad.push(BadRecord { record, span: span.clone(), reason }),
            }
        }
        let column = |field: &Arc<Field>| -> ArrayRef {
            match field.data_type() {
                DataType::LargeUtf8 => Arc::new(LargeStringArray::from_iter_values(&texts)),
                _ => Arc::new(StringArray::from_iter_values(&texts)),
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(texts.len()));
        let columns = self.schema.fields().iter().map(column).collect();
        let columns = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).expect("a column of text");
        let row_records = (!bad.is_empty()).then_some(row_records);
        Decoded { columns, records: lines.len(), row_records, bad }
    }
}

/// Appends the one column of these rows, which has passed [`check`], as lines.
///
/// # Errors
/// A value is null, or has a line end; a clause.
pub fn write(columns: &RecordBatch, out: &mut Vec<u8>) -> Result<(), String> {
    let column = columns.column(0);
    for row in 0..column.len() {
        let refused = |what: &str| format!("column {}, row {row}: {what} cannot be said in a line", columns.schema_ref().field(0).name());
        if column.is_null(row) {
            return Err(refused("null"));
        }
        let text = if *column.data_type() == DataType::LargeUtf8 {
            column.as_string::<i64>().value(row)
        } else {
            column.as_string::<i32>().value(row)
        };
        if text.contains('\n') || text.ends_with('\r') {
            return Err(refused("a text with a line end"));
        }
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }
    Ok(())
}
