//! Which columns a message has by itself.

use std::sync::Arc;

use super::schema::{Field, Kind, Label, Message, Schema};
use arrow_schema::{DataType, Field as ArrowField, Fields, SchemaRef, TimeUnit};

/// How deep columns may nest; recursive messages have no columns.
const DEPTH_MAX: usize = 16;

/// Messages of google.protobuf that are single values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Timestamp,
    Duration,
    /// One field with number 1.
    Wrapper,
}

impl Known {
    pub(super) fn of(message: &Message) -> Option<Self> {
        match message.full_name().strip_prefix("google.protobuf.")? {
            "Timestamp" => Some(Self::Timestamp),
            "Duration" => Some(Self::Duration),
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue" | "StringValue"
            | "BytesValue" => Some(Self::Wrapper),
            _ => None,
        }
    }
}

/// The columns of a message.
///
/// # Errors
/// A field has no column; a clause that names it.
pub fn columns(schema: &Schema) -> Result<SchemaRef, String> {
    Ok(Arc::new(arrow_schema::Schema::new(fields(schema.message(), DEPTH_MAX)?)))
}

fn fields(message: &Message, depth_left: usize) -> Result<Fields, String> {
    let column = |field: Field| column(&field, depth_left).map_err(|error| format!("field {}: {error}", field.name()));
    message.fields().map(column).collect()
}

fn column(field: &Field, depth_left: usize) -> Result<ArrowField, String> {
    if let Some((key, value)) = field.entry() {
        let key = ArrowField::new("key", single(&key, depth_left)?, false);
        let value = ArrowField::new("value", single(&value, depth_left)?, false);
        let entries = ArrowField::new("entries", DataType::Struct(vec![key, value].into()), false);
        return Ok(ArrowField::new(field.name(), DataType::Map(Arc::new(entries), false), false));
    }
    let data_type = single(field, depth_left)?;
    match field.label() {
        Label::Repeated => Ok(ArrowField::new(field.name(), DataType::List(Arc::new(ArrowField::new("item", data_type, false))), false)),
        Label::Required => Ok(ArrowField::new(field.name(), data_type, false)),
        Label::One | Label::Map => Ok(ArrowField::new(field.name(), data_type, field.has_presence())),
    }
}

fn single(field: &Field, depth_left: usize) -> Result<DataType, String> {
    Ok(match field.kind() {
        Kind::Double => DataType::Float64,
        Kind::Float => DataType::Float32,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => DataType::Int32,
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => DataType::Int64,
        Kind::Uint32 | Kind::Fixed32 => DataType::UInt32,
        Kind::Uint64 | Kind::Fixed64 => DataType::UInt64,
        Kind::Bool => DataType::Boolean,
        Kind::String | Kind::Enum(_) => DataType::Utf8,
        Kind::Bytes => DataType::Binary,
        Kind::Message(id) => match Known::of(&field.of(id)) {
            Some(Known::Timestamp) => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            Some(Known::Duration) => DataType::Duration(TimeUnit::Nanosecond),
            Some(Known::Wrapper) => single(&wrapped(&field.of(id)), depth_left)?,
            None => {
                let deeper = depth_left.checked_sub(1);
                let depth_left =
                    deeper.ok_or_else(|| format!("it nests deeper than {DEPTH_MAX}, or within itself: declare the columns without it"))?;
                DataType::Struct(fields(&field.of(id), depth_left)?)
            }
        },
    })
}

/// The only field of a wrapper.
pub(super) fn wrapped(message: &Message) -> Field {
    message.numbered(1).expect("wrappers of google.protobuf have one field")
}
