//! Values as text, where CSV and NDJSON agree: timestamps and what a changelog calls its changes.

use std::{io::Write, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::{DateTime, Datelike, Timelike, Utc};
use millstream_model::{Batch, ChangeKind, StreamType};

/// The column in front of all others that says, in a file, what a row of a changelog does.
pub const CHANGE_COLUMN: &str = "op";

/// The columns of a stream as they are written: a changelog gets [`CHANGE_COLUMN`] in front.
pub fn written_schema(stream: &StreamType) -> SchemaRef {
    if !stream.changes {
        return stream.schema.clone();
    }
    let change = Arc::new(Field::new(CHANGE_COLUMN, DataType::Utf8, false));
    Arc::new(Schema::new(std::iter::once(change).chain(stream.schema.fields().iter().cloned()).collect::<Vec<_>>()))
}

/// The columns of a batch as they are written; `schema` is [`written_schema`].
///
/// # Errors
/// The batch is not of that stream; a clause.
pub fn written_columns(schema: &SchemaRef, batch: &Batch) -> Result<RecordBatch, String> {
    let mut columns: Vec<ArrayRef> = batch.columns().columns().to_vec();
    if columns.len() < schema.fields().len() {
        columns.insert(0, change_column(batch));
    }
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| error.to_string())
}

fn change_column(batch: &Batch) -> ArrayRef {
    let inserts = vec![ChangeKind::Insert as u8; if batch.changes().is_some() { 0 } else { batch.num_rows() }];
    let changes = batch.changes().map_or(&inserts[..], |changes| changes);
    Arc::new(StringArray::from_iter_values(changes.iter().map(|&change| change_text(change))))
}

fn change_text(change: u8) -> &'static str {
    match ChangeKind::from_byte(change) {
        Some(ChangeKind::Insert) | None => "+I",
        Some(ChangeKind::UpdateBefore) => "-U",
        Some(ChangeKind::UpdateAfter) => "+U",
        Some(ChangeKind::Delete) => "-D",
    }
}

/// The instant `value` units after the epoch; none: a year outside 0 to 9999, which RFC 3339 cannot write.
pub fn instant(value: i64, unit: TimeUnit) -> Option<DateTime<Utc>> {
    let time = match unit {
        TimeUnit::Second => DateTime::from_timestamp_secs(value),
        TimeUnit::Millisecond => DateTime::from_timestamp_millis(value),
        TimeUnit::Microsecond => DateTime::from_timestamp_micros(value),
        TimeUnit::Nanosecond => Some(DateTime::from_timestamp_nanos(value)),
    };
    time.filter(|time| (0..=9_999).contains(&time.year()))
}

/// Appends a timestamp in RFC 3339 with the precision of its unit, and `Z` if its column has a zone. False and nothing written: see [`instant`].
pub fn write_timestamp(value: i64, unit: TimeUnit, zoned: bool, out: &mut Vec<u8>) -> bool {
    let Some(time) = instant(value, unit) else { return false };
    let (date, clock) = (time.date_naive(), time.time());
    let text = |out: &mut Vec<u8>| {
        let (year, month, day) = (date.year(), date.month(), date.day());
        write!(out, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", clock.hour(), clock.minute(), clock.second())?;
        let nanos = clock.nanosecond();
        match unit {
            TimeUnit::Second => Ok(()),
            TimeUnit::Millisecond => write!(out, ".{:03}", nanos / 1_000_000),
            TimeUnit::Microsecond => write!(out, ".{:06}", nanos / 1_000),
            TimeUnit::Nanosecond => write!(out, ".{nanos:09}"),
        }
    };
    text(out).expect("memory takes all writes");
    if zoned {
        out.push(b'Z');
    }
    true
}
