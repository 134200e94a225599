//! Columns brought to the few types that a binary format writes: what a value cannot be brought to is an error, never a null.

use arrow_array::{ArrayRef, RecordBatch};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::DataType;

/// What a column is brought to: first its unit, then its shape.
pub type Casts = [DataType; 2];

/// The column as another type.
///
/// # Errors
/// A value has no place in it; a clause.
pub fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    if column.data_type() == to {
        return Ok(column.clone());
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, to, &options).map_err(|error| error.to_string())
}

/// Where values go.
pub struct Written<'a> {
    /// Writes what stands in front of the value of a row.
    pub head: &'a dyn Fn(usize, &mut Vec<u8>),
    /// All values, one behind the other.
    pub out: &'a mut Vec<u8>,
    /// Where each ends.
    pub ends: &'a mut Vec<usize>,
}

/// Brings whole columns to their types, and then writes them row by row.
///
/// # Errors
/// A value cannot be written; a clause that names its row, or its column.
pub fn write_rows(
    columns: &RecordBatch,
    casts: &[Casts],
    written: Written<'_>,
    write: impl Fn(&[ArrayRef], usize, &mut Vec<u8>) -> Result<(), String>,
) -> Result<(), String> {
    let brought = |(column, [unit, shape]): (&ArrayRef, &Casts)| cast(column, unit).and_then(|column| cast(&column, shape));
    let brought = columns.columns().iter().zip(casts).map(brought).collect::<Result<Vec<_>, _>>()?;
    for row in 0..columns.num_rows() {
        (written.head)(row, written.out);
        write(&brought, row, written.out).map_err(|error| format!("row {row}: {error}"))?;
        written.ends.push(written.out.len());
    }
    Ok(())
}
