//! The types of columns that cross to guests, and their text form: one grammar in WIT, job files and errors (`wit/types.md`).
//!
//! The text is arrow-schema's own (`FromStr` and `Display`), restricted: only the types that cross, nested at most
//! [`DEPTH_MAX`] deep, with names that print as themselves. Text may come from a guest, so it is measured before it is parsed.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, TimeUnit};

/// How deep types may nest; `Int64` is 1 deep, `List(Int64)` 2.
pub const DEPTH_MAX: usize = 16;
/// Longest text of a type, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a `FixedSizeBinary`, most items of a `FixedSizeList`.
pub const FIXED_SIZE_MAX: i32 = 64 * 1024;

/// A type that does not cross to guests, or text that is no type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a type of a column: {reason}")]
pub struct TypeError {
    /// The type as written, shortened if it is long.
    pub text: String,
    /// What is wrong with it; a clause.
    pub reason: String,
}

impl TypeError {
    fn new(text: &str, reason: impl Into<String>) -> Self {
        let mut shown: String = text.chars().take(120).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self { text: shown, reason: reason.into() }
    }
}

/// The type that `text` means.
///
/// # Errors
/// The text is no type, or the type does not cross.
pub fn parse_type(text: &str) -> Result<DataType, TypeError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(TypeError::new(text, format!("longer than {TEXT_BYTES_MAX} bytes")));
    }
    // arrow-schema parses recursively, so the depth is bounded before.
    if nesting(text) > DEPTH_MAX * 2 {
        return Err(TypeError::new(text, format!("nested deeper than {DEPTH_MAX}")));
    }
    let parsed: DataType =
        text.parse().map_err(|_| TypeError::new(text, "expected for example Int64, Utf8, Timestamp(ms) or List(Float64)"))?;
    check_crossing_type(&parsed)?;
    Ok(parsed)
}

/// The text of a type, without the metadata of nested fields. For a type that crosses, [`parse_type`] gives it back.
pub fn type_text(data_type: &DataType) -> String {
    without_metadata(data_type).to_string()
}

/// The same type without the metadata of nested fields: what a guest gets to see, and what comes back from it.
pub fn without_metadata(data_type: &DataType) -> DataType {
    let plain = |field: &FieldRef| Arc::new(Field::new(field.name(), without_metadata(field.data_type()), field.is_nullable()));
    match data_type {
        DataType::List(item) => DataType::List(plain(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain(entries), *sorted),
        other => other.clone(),
    }
}

/// Whether columns of this type may be sent to and taken from guests.
///
/// # Errors
/// They may not; the reason names the part that does not cross.
pub fn check_crossing_type(data_type: &DataType) -> Result<(), TypeError> {
    check(data_type, DEPTH_MAX).map_err(|reason| TypeError::new(&data_type.to_string(), reason))
}

fn check(data_type: &DataType, depth_left: usize) -> Result<(), String> {
    use DataType as D;
    let Some(depth_left) = depth_left.checked_sub(1) else {
        return Err(format!("nested deeper than {DEPTH_MAX}"));
    };
    match data_type {
        D::Boolean | D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => Ok(()),
        D::Float32 | D::Float64 | D::Date32 | D::Date64 | D::Duration(_) | D::Timestamp(_, None) => Ok(()),
        D::Utf8 | D::LargeUtf8 | D::Binary | D::LargeBinary => Ok(()),
        D::Time32(TimeUnit::Second | TimeUnit::Millisecond) | D::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond) => Ok(()),
        D::Timestamp(_, Some(zone)) => check_name(zone, "the time zone"),
        D::Decimal128(precision, scale) => check_decimal(*precision, *scale),
        D::FixedSizeBinary(size) => check_size(*size),
        D::FixedSizeList(item, size) => check_size(*size).and_then(|()| check_field(item, depth_left)),
        D::List(item) => check_field(item, depth_left),
        D::Struct(fields) => fields.iter().try_for_each(|field| check_field(field, depth_left)),
        D::Map(entries, false) => check_map(entries, depth_left),
        D::Map(_, true) => Err("sorted maps do not cross to operators".into()),
        other => Err(format!("{other} columns do not cross to operators")),
    }
}

fn check_field(field: &Field, depth_left: usize) -> Result<(), String> {
    check_name(field.name(), "a field name")?;
    check(field.data_type(), depth_left)
}

/// arrow-schema prints names with escapes that it does not read back, so names that need them do not cross.
fn check_name(name: &str, what: &str) -> Result<(), String> {
    if name.is_empty() || name.contains('\'') || format!("{name:?}") != format!("\"{name}\"") {
        return Err(format!("{what} is empty or has quotes, backslashes or unprintable characters"));
    }
    Ok(())
}

fn check_decimal(precision: u8, scale: i8) -> Result<(), String> {
    if (1..=38).contains(&precision) && scale.unsigned_abs() <= precision {
        return Ok(());
    }
    Err("a decimal has a precision of 1 to 38 and a scale within the precision".into())
}

fn check_size(size: i32) -> Result<(), String> {
    if (1..=FIXED_SIZE_MAX).contains(&size) {
        return Ok(());
    }
    Err(format!("a fixed size is 1 to {FIXED_SIZE_MAX}"))
}

fn check_map(entries: &Field, depth_left: usize) -> Result<(), String> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 && !entries.is_nullable() && !fields[0].is_nullable() => {
            check_field(entries, depth_left)
        }
        _ => Err("the entries of a map are a non-null struct of a non-null key and a value".into()),
    }
}

/// The deepest nesting of parentheses, counting those in quotes too: an upper bound is enough.
fn nesting(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut deepest = 0;
    for byte in text.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

#[cfg(test)]
mod tests;
