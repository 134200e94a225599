//! Rows as people and programs read them: JSON objects.

use std::error::Error;

use arrow_array::RecordBatch;
use millstream_model::ErrorKind;
use serde_json::Value;

use crate::failure::Failure;

/// Rows as JSON objects.
///
/// # Errors
/// A column has a type that JSON does not know.
pub fn rows(batch: &RecordBatch) -> Result<Vec<Value>, Failure> {
    let unshowable = |error: &(dyn Error + 'static)| Failure::new(ErrorKind::Internal, "the rows cannot be shown as JSON").because(error);
    let mut writer = arrow_json::WriterBuilder::new().with_explicit_nulls(true).build::<_, arrow_json::writer::JsonArray>(Vec::new());
    writer.write(batch).and_then(|()| writer.finish()).map_err(|error| unshowable(&error))?;
    let text = writer.into_inner();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&text).map_err(|error| unshowable(&error))
}
