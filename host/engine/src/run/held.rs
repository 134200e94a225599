//! Rows held by `order: event-time`, as they lie in a checkpoint.
//!
//! # Bytes
//! One file per input port: an Arrow IPC stream, one record batch per run, runs in the order of their arrival. Columns: those of the port, then
//! `event time` (Int64, ms since epoch), then, only if a row of the file is not an insert, `change` (UInt8). The last ones are found by their
//! place, so their names collide with nothing.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, UInt8Array, cast::AsArray, types::Int64Type, types::UInt8Type};
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use millstream_model::Batch;

/// Why held rows cannot be given back to an operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The bytes are not what was written.
    #[error("held rows are damaged")]
    Damaged(#[source] ArrowError),
    /// The operator of now has a column that the rows do not have.
    #[error("held rows have no column `{name}` of type {data_type}")]
    Column {
        /// The column.
        name: String,
        /// Its type.
        data_type: DataType,
    },
}

/// The bytes of the runs of one port.
pub(super) fn encode(runs: &[Batch]) -> Result<Bytes, ArrowError> {
    let Some(first) = runs.first() else { return Ok(Bytes::new()) };
    let with_changes = runs.iter().any(|run| run.changes().is_some());
    let mut fields: Vec<Arc<Field>> = first.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("event time", DataType::Int64, false)));
    fields.extend(with_changes.then(|| Arc::new(Field::new("change", DataType::UInt8, false))));
    let schema = Arc::new(Schema::new(fields));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    for run in runs {
        writer.write(&with_marks(run, &schema, with_changes)?)?;
    }
    Ok(writer.into_inner()?.into())
}

fn with_marks(run: &Batch, schema: &SchemaRef, with_changes: bool) -> Result<RecordBatch, ArrowError> {
    let mut columns = run.columns().columns().to_vec();
    let times = run.event_times().cloned().unwrap_or_else(|| vec![0; run.num_rows()].into());
    columns.push(Arc::new(Int64Array::new(times, None)));
    if with_changes {
        let changes = run.changes().cloned().unwrap_or_else(|| vec![0; run.num_rows()].into());
        columns.push(Arc::new(UInt8Array::new(changes, None)));
    }
    RecordBatch::try_new(schema.clone(), columns)
}

/// The runs in `bytes`, with the columns of `schema`, which are found by name.
pub(super) fn decode(bytes: &[u8], schema: &SchemaRef) -> Result<Vec<Batch>, Error> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let reader = StreamReader::try_new(bytes, None).map_err(Error::Damaged)?;
    let places = places(&reader.schema(), schema)?;
    reader.map(|run| without_marks(&run.map_err(Error::Damaged)?, &places, schema)).collect()
}

/// Where the columns of `wanted` are in `written`.
fn places(written: &Schema, wanted: &Schema) -> Result<Vec<usize>, Error> {
    let place = |field: &Arc<Field>| {
        let found = written.fields().iter().position(|other| other.name() == field.name() && other.data_type() == field.data_type());
        found.ok_or_else(|| Error::Column { name: field.name().clone(), data_type: field.data_type().clone() })
    };
    wanted.fields().iter().map(place).collect()
}

fn without_marks(run: &RecordBatch, places: &[usize], schema: &SchemaRef) -> Result<Batch, Error> {
    let missing = || Error::Damaged(ArrowError::SchemaError("the columns are not those of held rows".into()));
    let last = run.num_columns().checked_sub(1).ok_or_else(missing)?;
    let changes = run.column(last).as_primitive_opt::<UInt8Type>().map(|changes| changes.values().clone());
    let changes = changes.filter(|_| run.schema_ref().field(last).name() == "change");
    let timed = if changes.is_some() { last.checked_sub(1).ok_or_else(missing)? } else { last };
    let times = run.column(timed).as_primitive_opt::<Int64Type>().ok_or_else(missing)?.values().clone();
    let columns: Vec<ArrayRef> = places.iter().map(|&place| run.column(place).clone()).collect();
    let batch = Batch::try_new(schema.clone(), columns, run.num_rows()).map_err(Error::Damaged)?;
    Ok(batch.with_event_times(Some(times)).with_changes(changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rows: &[(i64, i64)], changes: Option<Vec<u8>>) -> Batch {
        let schema = Arc::new(Schema::new(vec![Field::new("event time", DataType::Int64, false)]));
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
        let batch = Batch::try_new(schema, vec![column], rows.len()).expect("one column fits");
        batch.with_event_times(Some(rows.iter().map(|row| row.1).collect())).with_changes(changes.map(Into::into))
    }

    #[test]
    fn held_rows_come_back_with_their_times_changes_and_order_whatever_their_columns_are_called() {
        let runs = [run(&[(1, 10), (2, 20)], None), run(&[(3, 5)], Some(vec![3]))];
        let bytes = encode(&runs).expect("they can be written");
        let back = decode(&bytes, &runs[0].schema()).expect("they can be read");
        let of = |batch: &Batch| (batch.columns().clone(), batch.event_times().cloned());
        assert_eq!(back.iter().map(of).collect::<Vec<_>>(), runs.iter().map(of).collect::<Vec<_>>());
        assert_eq!(back[1].changes().map(|changes| changes.to_vec()), Some(vec![3]));
    }

    #[test]
    fn an_operator_that_reads_a_column_which_was_not_held_is_told_so() {
        let bytes = encode(&[run(&[(1, 10)], None)]).expect("it can be written");
        let wanted = Arc::new(Schema::new(vec![Field::new("other", DataType::Int64, false)]));
        let error = decode(&bytes, &wanted).expect_err("there is no such column");
        assert_eq!(error.to_string(), "held rows have no column `other` of type Int64");
    }
}
