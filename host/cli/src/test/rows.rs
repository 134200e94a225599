//! Rows of a case as batches and back.

use std::sync::Arc;

use arrow_array::StructArray;
use arrow_schema::{Field, Schema, SchemaRef};
use millstream_model::{Batch, ChangeKind, types};
use serde_json::{Map, Value};

use super::{case::Row, values};

const CHANGES: [(&str, ChangeKind); 4] =
    [("+I", ChangeKind::Insert), ("-U", ChangeKind::UpdateBefore), ("+U", ChangeKind::UpdateAfter), ("-D", ChangeKind::Delete)];

/// Columns by name → type in the grammar of `wit/types.md`, with `?` behind it if it may be null.
pub fn schema(columns: &Map<String, Value>) -> Result<SchemaRef, String> {
    let field = |(name, text): (&String, &Value)| {
        let text = text.as_str().ok_or_else(|| format!("the type of column `{name}` is no text"))?;
        let (text, nullable) = text.strip_suffix('?').map_or((text, false), |text| (text, true));
        let data_type = types::parse_type(text).map_err(|error| format!("the type of column `{name}`: {error}"))?;
        Ok(Field::new(name, data_type, nullable))
    };
    Ok(Arc::new(Schema::new(columns.iter().map(field).collect::<Result<Vec<_>, String>>()?)))
}

/// Rows as a batch. Either all of them have an event time or none has.
pub fn batch(schema: &SchemaRef, rows: &[Row], changes: bool) -> Result<Batch, String> {
    let columns = values::columns(schema.fields(), &rows.iter().map(|row| &row.columns).collect::<Vec<_>>())?;
    let batch = Batch::try_new(schema.clone(), columns, rows.len()).map_err(|error| error.to_string())?;
    let times: Vec<i64> = rows.iter().filter_map(|row| row.time).collect();
    let timed = match times.len() {
        0 => None,
        count if count == rows.len() => Some(times.into()),
        _ => return Err("some rows have an event time and some have none".into()),
    };
    let kinds = changes.then(|| rows.iter().map(change).collect::<Result<Vec<u8>, _>>()).transpose()?;
    Ok(batch.with_event_times(timed).with_changes(kinds.map(Into::into)))
}

/// A batch as rows.
pub fn rows(batch: &Batch) -> Result<Vec<Row>, String> {
    let columns = values::objects(&StructArray::from(batch.columns().clone()))?;
    let row = |(index, columns)| Row {
        time: batch.event_time(index).map(|time| time.0),
        columns,
        change: batch.changes().and_then(|changes| ChangeKind::from_byte(changes[index])).map(name_of),
    };
    Ok(columns.into_iter().enumerate().map(row).collect())
}

/// Rows as [`rows`] would give them, so that `30` and `30.0` are the same Float64.
pub fn normalized(schema: &SchemaRef, expected: Vec<Row>) -> Result<Vec<Row>, String> {
    let columns = values::columns(schema.fields(), &expected.iter().map(|row| &row.columns).collect::<Vec<_>>())?;
    let nullable: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let columns = StructArray::try_new_with_length(nullable.into(), columns, None, expected.len()).map_err(|error| error.to_string())?;
    Ok(expected.into_iter().zip(values::objects(&columns)?).map(|(row, columns)| Row { columns, ..row }).collect())
}

fn change(row: &Row) -> Result<u8, String> {
    let Some(name) = &row.change else { return Ok(ChangeKind::Insert as u8) };
    let known = CHANGES.iter().find(|(known, _)| known == name);
    known.map(|(_, kind)| *kind as u8).ok_or_else(|| format!("`{name}` is none of {}", CHANGES.map(|(name, _)| name).join(", ")))
}

fn name_of(kind: ChangeKind) -> String {
    CHANGES.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| *name).to_owned()
}
