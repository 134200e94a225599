//! Columns as CSV.

use std::io::Write as _;

use arrow_array::{Array, RecordBatch, cast::AsArray, types::*};
use arrow_cast::{
    base64::{BASE64_STANDARD, Engine},
    display::{ArrayFormatter, FormatOptions},
};
use arrow_schema::{DataType, Schema, TimeUnit};

use super::super::encode::write_timestamp;

/// Writes columns as CSV: a header, then rows, each ended by `\n`.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    delimiter: u8,
}

impl Writer {
    /// Writes with this delimiter (ASCII) and the quote `"`.
    ///
    /// # Errors
    /// A column has a type that CSV cannot hold; a clause that names it.
    pub fn new(schema: &Schema, delimiter: u8) -> Result<Self, String> {
        match schema.fields().iter().find(|field| field.data_type().is_nested()) {
            Some(field) => {
                Err(format!("column {} of type {} does not fit into CSV: use ndjson or parquet", field.name(), field.data_type()))
            }
            None => Ok(Self { delimiter }),
        }
    }

    /// Appends the line of column names.
    pub fn header(self, schema: &Schema, out: &mut Vec<u8>) {
        for (index, field) in schema.fields().iter().enumerate() {
            self.separate(index, out);
            self.text(field.name(), out);
        }
        out.push(b'\n');
    }

    /// Appends the rows.
    ///
    /// # Errors
    /// A value cannot be shown; a clause.
    pub fn rows(self, columns: &RecordBatch, out: &mut Vec<u8>) -> Result<(), String> {
        let options = FormatOptions::new();
        let cells = columns.columns().iter().map(|column| Cells::new(column.as_ref(), &options)).collect::<Result<Vec<_>, _>>()?;
        for row in 0..columns.num_rows() {
            for (index, cells) in cells.iter().enumerate() {
                self.separate(index, out);
                self.cell(cells, row, out)?;
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn separate(self, index: usize, out: &mut Vec<u8>) {
        if index > 0 {
            out.push(self.delimiter);
        }
    }

    fn cell(self, cells: &Cells<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        if cells.array.is_null(row) {
            return Ok(());
        }
        match &cells.kind {
            Kind::Text => self.text(cells.array.as_string::<i32>().value(row), out),
            Kind::LargeText => self.text(cells.array.as_string::<i64>().value(row), out),
            Kind::Binary => self.text(&BASE64_STANDARD.encode(cells.array.as_binary::<i32>().value(row)), out),
            Kind::LargeBinary => self.text(&BASE64_STANDARD.encode(cells.array.as_binary::<i64>().value(row)), out),
            Kind::FixedBinary => self.text(&BASE64_STANDARD.encode(cells.array.as_fixed_size_binary().value(row)), out),
            Kind::Timestamp { values, unit, zoned } => {
                if !write_timestamp(values[row], *unit, *zoned, out) {
                    write_number(values[row], out);
                }
            }
            Kind::Integers(values) => write_number(values[row], out),
            Kind::Other(formatter) => {
                let text = formatter.value(row).try_to_string().map_err(|error| error.to_string())?;
                self.text(&text, out);
            }
        }
        Ok(())
    }

    fn text(self, text: &str, out: &mut Vec<u8>) {
        let special = |byte: u8| byte == self.delimiter || matches!(byte, b'"' | b'\n' | b'\r');
        if !text.is_empty() && !text.bytes().any(special) {
            out.extend_from_slice(text.as_bytes());
            return;
        }
        out.push(b'"');
        for (index, part) in text.split('"').enumerate() {
            if index > 0 {
                out.extend_from_slice(b"\"\"");
            }
            out.extend_from_slice(part.as_bytes());
        }
        out.push(b'"');
    }
}

fn write_number(value: i64, out: &mut Vec<u8>) {
    write!(out, "{value}").expect("memory takes all writes");
}

struct Cells<'a> {
    array: &'a dyn Array,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Text,
    LargeText,
    Binary,
    LargeBinary,
    FixedBinary,
    Timestamp { values: &'a [i64], unit: TimeUnit, zoned: bool },
    Integers(&'a [i64]),
    Other(ArrayFormatter<'a>),
}

impl<'a> Cells<'a> {
    fn new(array: &'a dyn Array, options: &'a FormatOptions<'a>) -> Result<Self, String> {
        let kind = match array.data_type() {
            DataType::Utf8 => Kind::Text,
            DataType::LargeUtf8 => Kind::LargeText,
            DataType::Binary => Kind::Binary,
            DataType::LargeBinary => Kind::LargeBinary,
            DataType::FixedSizeBinary(_) => Kind::FixedBinary,
            DataType::Timestamp(unit, zone) => Kind::Timestamp { values: timestamp_values(array), unit: *unit, zoned: zone.is_some() },
            DataType::Int64 => Kind::Integers(array.as_primitive::<Int64Type>().values()),
            DataType::Duration(_) => Kind::Integers(duration_values(array)),
            _ => Kind::Other(ArrayFormatter::try_new(array, options).map_err(|error| error.to_string())?),
        };
        Ok(Self { array, kind })
    }
}

/// The numbers of a timestamp column of any unit.
pub(in super::super) fn timestamp_values(array: &dyn Array) -> &[i64] {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => array.as_primitive::<TimestampSecondType>().values(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => array.as_primitive::<TimestampMillisecondType>().values(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().values(),
        _ => array.as_primitive::<TimestampNanosecondType>().values(),
    }
}

/// The numbers of a duration column of any unit.
pub(in super::super) fn duration_values(array: &dyn Array) -> &[i64] {
    match array.data_type() {
        DataType::Duration(TimeUnit::Second) => array.as_primitive::<DurationSecondType>().values(),
        DataType::Duration(TimeUnit::Millisecond) => array.as_primitive::<DurationMillisecondType>().values(),
        DataType::Duration(TimeUnit::Microsecond) => array.as_primitive::<DurationMicrosecondType>().values(),
        _ => array.as_primitive::<DurationNanosecondType>().values(),
    }
}
