//! Rows of a case, written as in NDJSON files, as columns; and columns as rows again.

use std::sync::Arc;

use arrow_array::{
    Array, Int64Array, RecordBatch,
    cast::AsArray,
    types::{Int64Type, TimestampMillisecondType},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use millstream_connectors::formats::{
    ndjson::{Nulls, Reader, Writer},
    text::{ScanLimits, TextFormat},
    values::TimestampFormat,
};
use millstream_model::{Batch, ChangeKind, types};
use serde_json::{Map, Value};

use super::case::Row;

/// The event time of a row.
pub const TIME: &str = "@time";
/// What a row does to the table that a changelog describes.
pub const CHANGE: &str = "@change";
const CHANGES: [(&str, ChangeKind); 4] = [
    ("insert", ChangeKind::Insert),
    ("update-before", ChangeKind::UpdateBefore),
    ("update-after", ChangeKind::UpdateAfter),
    ("delete", ChangeKind::Delete),
];

/// The columns of an input: name → type in the grammar of `wit/types.md`, with `?` behind it if it may be null.
pub fn schema(columns: &Map<String, Value>) -> Result<SchemaRef, String> {
    let fields = columns.iter().map(|(name, text)| {
        let text = text.as_str().ok_or_else(|| format!("the type of column `{name}` is no text"))?;
        let (text, nullable) = text.strip_suffix('?').map_or((text, false), |text| (text, true));
        let data_type = types::parse_type(text).map_err(|error| format!("the type of column `{name}`: {error}"))?;
        Ok::<_, String>(Field::new(name, data_type, nullable))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>, _>>()?)))
}

/// Rows as a batch. `timed` and `changing`: every row has its time, or its change (none: an insert).
pub fn batch(schema: &SchemaRef, rows: &[Row], timed: bool, changing: bool) -> Result<Batch, String> {
    let columns = columns(schema, rows)?;
    let own: Vec<usize> = (0..schema.fields().len()).collect();
    let batch = Batch::try_new(schema.clone(), own.iter().map(|index| columns.column(*index).clone()).collect(), rows.len());
    let times = timed.then(|| times(&columns)).transpose()?;
    let changes = changing.then(|| rows.iter().map(change).collect::<Result<Vec<u8>, _>>()).transpose()?;
    let batch = batch.map_err(|error| error.to_string())?;
    Ok(batch.with_event_times(times.map(Into::into)).with_changes(changes.map(Into::into)))
}

/// A batch as rows, with `@time` and `@change` where it has them.
pub fn rows(batch: &Batch) -> Result<Vec<Row>, String> {
    let mut rows = to_rows(batch.columns())?;
    for (index, row) in rows.iter_mut().enumerate() {
        if let Some(time) = batch.event_time(index) {
            row.insert(TIME.into(), time.0.into());
        }
        if let Some(kind) = batch.changes().and_then(|changes| ChangeKind::from_byte(changes[index])) {
            let name = CHANGES.iter().find(|(_, known)| *known == kind).map(|(name, _)| *name);
            row.insert(CHANGE.into(), name.into());
        }
    }
    Ok(rows)
}

/// Expected rows in the form of [`rows`]: values as the columns hold them, times in ms.
pub fn normalized(schema: &SchemaRef, expected: &[Row]) -> Result<Vec<Row>, String> {
    let columns = columns(schema, expected)?;
    let own: Vec<usize> = (0..schema.fields().len()).collect();
    let mut rows = to_rows(&columns.project(&own).map_err(|error| error.to_string())?)?;
    let times = columns.column(own.len()).as_primitive::<TimestampMillisecondType>();
    for (index, (row, expected)) in rows.iter_mut().zip(expected).enumerate() {
        if times.is_valid(index) {
            row.insert(TIME.into(), times.value(index).into());
        }
        if let Some(change) = expected.get(CHANGE) {
            row.insert(CHANGE.into(), change.clone());
        }
    }
    Ok(rows)
}

/// A time of a case, RFC 3339 or ms since epoch, as the latter.
pub fn time(value: &Value) -> Result<i64, String> {
    let row = Row::from_iter([(TIME.to_owned(), value.clone())]);
    let columns = columns(&Arc::new(Schema::empty()), &[row])?;
    times(&columns).map(|times| times.value(0))
}

/// The columns of `schema`, and behind them the times.
fn columns(schema: &SchemaRef, rows: &[Row]) -> Result<RecordBatch, String> {
    let known = |name: &String| name == TIME || name == CHANGE || schema.field_with_name(name).is_ok();
    if let Some(unknown) = rows.iter().flat_map(Row::keys).find(|name| !known(name)) {
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(format!("there is no column `{unknown}`; the columns are {}", names.join(", ")));
    }
    let time = Field::new(TIME, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true);
    let fields: Vec<_> = schema.fields().iter().cloned().chain([Arc::new(time)]).collect();
    let timestamps = vec![TimestampFormat::Standard; fields.len()];
    let mut reader = Reader::new(Arc::new(Schema::new(fields)), &timestamps)?;
    let lines: String = rows.iter().map(|row| format!("{}\n", Value::Object(row.clone()))).collect();
    let limits = ScanLimits { records: rows.len(), last: true, stop_at: usize::MAX, record_bytes: usize::MAX };
    reader.scan(lines.as_bytes(), limits);
    let decoded = reader.decode(lines.as_bytes());
    match decoded.bad.first() {
        Some(bad) => Err(format!("row {}: {}", bad.record + 1, bad.reason)),
        None => Ok(decoded.columns),
    }
}

/// The last of [`columns`]; every row must have one.
fn times(columns: &RecordBatch) -> Result<Int64Array, String> {
    let times = columns.column(columns.num_columns() - 1).as_primitive::<TimestampMillisecondType>();
    if times.null_count() > 0 {
        return Err(format!("a row has no `{TIME}`, but others of its input do"));
    }
    Ok(times.reinterpret_cast::<Int64Type>())
}

fn change(row: &Row) -> Result<u8, String> {
    let Some(name) = row.get(CHANGE) else { return Ok(ChangeKind::Insert as u8) };
    let kind = CHANGES.iter().find(|(known, _)| name == known).map(|(_, kind)| *kind as u8);
    kind.ok_or_else(|| format!("`{CHANGE}` is none of {}", CHANGES.map(|(name, _)| name).join(", ")))
}

fn to_rows(columns: &RecordBatch) -> Result<Vec<Row>, String> {
    let mut lines = Vec::new();
    Writer::new(&columns.schema(), Nulls::Write)?.rows(columns, &mut lines)?;
    let parsed = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice);
    parsed.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Value) -> Row {
        value.as_object().unwrap().clone()
    }

    fn columns_of(value: Value) -> SchemaRef {
        schema(&row(value)).unwrap()
    }

    #[test]
    fn rows_come_back_as_they_were_written() {
        let schema = columns_of(serde_json::json!({ "sensor": "Utf8", "celsius": "Float64?" }));
        let written = [row(serde_json::json!({ "sensor": "attic", "celsius": 31, "@time": "1970-01-01T00:00:01Z" }))];
        let batch = batch(&schema, &written, true, false).unwrap();
        let expected = row(serde_json::json!({ "sensor": "attic", "celsius": 31.0, "@time": 1000 }));
        assert_eq!(rows(&batch).unwrap(), [expected.clone()]);
        assert_eq!(normalized(&schema, &written).unwrap(), [expected]);
    }

    #[test]
    fn a_misspelt_column_is_named() {
        let schema = columns_of(serde_json::json!({ "sensor": "Utf8" }));
        let error = batch(&schema, &[row(serde_json::json!({ "sensr": "attic" }))], false, false).unwrap_err();
        assert_eq!(error, "there is no column `sensr`; the columns are sensor");
    }

    #[test]
    fn times_are_dates_or_milliseconds() {
        assert_eq!(time(&Value::from(1_000)), Ok(1_000));
        assert_eq!(time(&Value::from("1970-01-01T00:01:00Z")), Ok(60_000));
        assert!(time(&Value::from("noon")).is_err());
    }
}
