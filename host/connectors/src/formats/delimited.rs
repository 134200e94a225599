//! Values one behind the other, each behind its length in base 128, as Protocol Buffers' own libraries write streams of messages
//! (`writeDelimitedTo`, `SerializeDelimitedToZeroCopyStream`).

use arrow_array::{Array, RecordBatch, cast::AsArray};
use arrow_schema::{DataType, Schema};

/// What stands at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// A whole value: where it begins and ends.
    Value(usize, usize),
    /// The beginning of a value: more bytes are needed.
    Partial,
}

/// Bytes of a length: none is longer than 32 bits.
const LENGTH_BYTES_MAX: usize = 5;

/// Looks at the front of `bytes`.
///
/// # Errors
/// No length stands there, or it is larger than `bytes_max`; a clause.
pub fn front(bytes: &[u8], bytes_max: usize) -> Result<Front, String> {
    let mut length = 0_u64;
    for (place, &byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * place);
        if byte >= 0x80 {
            continue;
        }
        let (begin, length) = (place + 1, usize::try_from(length).unwrap_or(usize::MAX));
        if length > bytes_max {
            return Err(format!("a value of {length} bytes begins there, more than max-record-bytes ({bytes_max})"));
        }
        return Ok(if bytes.len() - begin < length { Front::Partial } else { Front::Value(begin, begin + length) });
    }
    if bytes.len() < LENGTH_BYTES_MAX { Ok(Front::Partial) } else { Err("no length of a value stands there".into()) }
}

/// Appends a value behind its length.
pub fn write(value: &[u8], out: &mut Vec<u8>) {
    let mut left = value.len();
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
    out.extend_from_slice(value);
}

/// Appends values, which stand one behind the other and end where `ends` says, each behind its length.
pub fn write_all(values: &[u8], ends: &[usize], out: &mut Vec<u8>) {
    let mut start = 0;
    for &end in ends {
        write(&values[start..end], out);
        start = end;
    }
}

/// Whether these columns are one of bytes.
///
/// # Errors
/// They are others; a clause.
pub fn check(schema: &Schema) -> Result<(), String> {
    match schema.fields().as_ref() {
        [field] if matches!(field.data_type(), DataType::Binary | DataType::LargeBinary) => Ok(()),
        [field] => {
            Err(format!("column {} of type {} is not of bytes: raw values are one column of bytes", field.name(), field.data_type()))
        }
        fields => Err(format!("raw values are one column of bytes, and there are {} columns", fields.len())),
    }
}

/// Appends the one column of these rows, which has passed [`check`].
///
/// # Errors
/// A value is null; a clause.
pub fn write_column(columns: &RecordBatch, out: &mut Vec<u8>) -> Result<(), String> {
    let column = columns.column(0);
    for row in 0..column.len() {
        if column.is_null(row) {
            return Err(format!("column {}, row {row}: null is no bytes", columns.schema_ref().field(0).name()));
        }
        let is_large = *column.data_type() == DataType::LargeBinary;
        write(if is_large { column.as_binary::<i64>().value(row) } else { column.as_binary::<i32>().value(row) }, out);
    }
    Ok(())
}
