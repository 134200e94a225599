//! The columns of a file whose schema nobody declared, guessed from its first records.
//!
//! Columns are the members found, in the order of their first appearance; all may be null. Strings are guessed like fields of CSV, but stay
//! text where they look like numbers or booleans; numbers are Int64 or Float64; arrays are lists, objects are structs of their members. Values
//! of different kinds in one column make it text (JSON), as do nulls only.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use serde_json::{Map, Value};

use super::super::csv::Guess;

/// Types nest this deep at most; deeper values are read as JSON text.
const DEPTH_MAX: usize = 8;

enum Seen {
    Nothing,
    Boolean,
    Integer,
    Float,
    String(Box<Guess>),
    List(Box<Seen>),
    Struct(Members),
    Mixed,
}

#[derive(Default)]
struct Members(Vec<(String, Seen)>);

impl Members {
    fn see(&mut self, members: &Map<String, Value>, depth: usize) {
        for (name, value) in members {
            let known = self.0.iter().position(|(known, _)| known == name);
            let index = known.unwrap_or_else(|| {
                self.0.push((name.clone(), Seen::Nothing));
                self.0.len() - 1
            });
            self.0[index].1.see(value, depth);
        }
    }

    fn fields(&self) -> Fields {
        self.0.iter().map(|(name, seen)| Field::new(name, seen.data_type(), true)).collect()
    }
}

impl Seen {
    fn see(&mut self, value: &Value, depth: usize) {
        let now = std::mem::replace(self, Self::Nothing);
        *self = now.and(value, depth);
    }

    fn and(self, value: &Value, depth: usize) -> Self {
        match (self, value) {
            (seen, Value::Null) => seen,
            (Self::Nothing | Self::Boolean, Value::Bool(_)) => Self::Boolean,
            (Self::Nothing | Self::Integer, Value::Number(number)) if number.is_i64() => Self::Integer,
            (Self::Nothing | Self::Integer | Self::Float, Value::Number(_)) => Self::Float,
            (Self::Nothing, Value::String(text)) => Self::String(Box::default()).and(&Value::String(text.clone()), depth),
            (Self::String(mut guess), Value::String(text)) => {
                guess.see(text);
                Self::String(guess)
            }
            (Self::Nothing, Value::Array(_)) if depth < DEPTH_MAX => Self::List(Box::new(Self::Nothing)).and(value, depth),
            (Self::List(mut item), Value::Array(items)) => {
                items.iter().for_each(|value| item.see(value, depth + 1));
                Self::List(item)
            }
            (Self::Nothing, Value::Object(_)) if depth < DEPTH_MAX => Self::Struct(Members::default()).and(value, depth),
            (Self::Struct(mut members), Value::Object(object)) => {
                members.see(object, depth + 1);
                Self::Struct(members)
            }
            _ => Self::Mixed,
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Integer => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::String(guess) => match guess.data_type() {
                DataType::Boolean | DataType::Int64 | DataType::Float64 => DataType::Utf8,
                other => other,
            },
            Self::List(item) => DataType::List(Arc::new(Field::new("item", item.data_type(), true))),
            // A struct without members says nothing and does not cross to operators.
            Self::Struct(members) if members.0.is_empty() => DataType::Utf8,
            Self::Struct(members) => DataType::Struct(members.fields()),
            Self::Nothing | Self::Mixed => DataType::Utf8,
        }
    }
}

/// The columns of the first `records_max` lines; lines that are no objects are passed over (reading rejects them). A last line without line
/// end is left out unless it is the only one.
pub fn infer_schema(sample: &[u8], records_max: usize) -> SchemaRef {
    let mut members = Members::default();
    let whole = memchr::memrchr(b'\n', sample).map_or(sample, |end| &sample[..end]);
    for line in whole.split(|&byte| byte == b'\n').take(records_max) {
        if let Ok(Value::Object(object)) = serde_json::from_slice(line) {
            members.see(&object, 1);
        }
    }
    Arc::new(Schema::new(members.fields()))
}
