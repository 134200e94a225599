//! Rows that can never succeed, and what becomes of them.
//!
//! The schema is fixed: reason, operator, version, source and position (known up to the first exchange or flat-map, null later), event
//! time, hash of the key, and the row itself as JSON of the columns read, or its raw text.

use std::sync::{Arc, LazyLock};

use arrow_array::{ArrayRef, StringArray, TimestampMillisecondArray, UInt64Array};
use arrow_json::writer::{LineDelimited, WriterBuilder};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use millstream_model::{Batch, ids::OperatorId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens to rejected rows of one source or operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RejectedPolicy {
    /// The job becomes FAILED, naming the row; nothing of the call is applied. The default.
    #[default]
    Fail,
    /// The row is dropped and counted.
    Drop,
    /// The row goes to the stream `<id>.rejected`, which a sink reads.
    #[serde(untagged)]
    Sink(String),
}

/// One row that can never succeed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rejection {
    /// Why, as one clause.
    pub reason: String,
    /// The version of the component that rejected it.
    pub version: Option<String>,
    /// The split it came from.
    pub source: Option<Arc<str>>,
    /// Its position in the split.
    pub position: Option<u64>,
    /// Its event time, ms since epoch.
    pub event_time: Option<i64>,
    /// XXH3-64 of its encoded key.
    pub key_hash: Option<u64>,
    /// The row: JSON of the columns read, or raw text.
    pub row: String,
}

impl Rejection {
    /// One clause that names the row: for the error of a job that fails by it.
    pub fn describe(&self) -> String {
        let mut text = format!("a row was rejected: {}", self.reason);
        if let (Some(source), Some(position)) = (&self.source, self.position) {
            text.push_str(&format!(" (position {position} of {source})"));
        }
        text.push_str(&format!("; the row is {}", shortened(&self.row, ROW_SHOWN_BYTES_MAX)));
        text
    }
}

/// How much of a row an error message shows.
const ROW_SHOWN_BYTES_MAX: usize = 2_000;

fn shortened(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

impl Rejection {
    /// The rejection of row `row` of `batch`, shown with these of its columns.
    pub fn of_row(batch: &Batch, row: usize, columns: &[usize], reason: impl Into<String>) -> Self {
        let origin = batch.origin();
        Self {
            reason: reason.into(),
            version: None,
            source: origin.map(|origin| origin.split.clone()),
            position: origin.map(|origin| origin.positions.of(row)),
            event_time: batch.event_time(row).map(|time| time.0),
            key_hash: None,
            row: row_json(batch, row, columns),
        }
    }
}

/// One row as a JSON object of these columns; nulls are written. A value that JSON cannot say is written as its text.
pub fn row_json(batch: &Batch, row: usize, columns: &[usize]) -> String {
    let row = batch.slice(row..row + 1).project(columns);
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    let written = writer.write(row.columns()).and_then(|()| writer.finish());
    match written.ok().and_then(|()| String::from_utf8(writer.into_inner()).ok()) {
        Some(json) => json.trim_end().to_owned(),
        None => row_text(&row),
    }
}

fn row_text(row: &Batch) -> String {
    let text = |column| arrow_cast::display::array_value_to_string(column, 0).unwrap_or_default();
    let schema = row.schema();
    let fields = schema.fields().iter().zip(row.columns().columns()).map(|(field, column)| (field.name().clone(), text(column).into()));
    serde_json::Value::Object(fields.collect()).to_string()
}

/// The schema of every `rejected` stream.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let utc_ms = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        Arc::new(Schema::new(vec![
            Field::new("reason", DataType::Utf8, false),
            Field::new("operator", DataType::Utf8, false),
            Field::new("version", DataType::Utf8, true),
            Field::new("source", DataType::Utf8, true),
            Field::new("position", DataType::UInt64, true),
            Field::new("event_time", utc_ms, true),
            Field::new("key_hash", DataType::UInt64, true),
            Field::new("row", DataType::Utf8, false),
        ]))
    });
    SCHEMA.clone()
}

/// The rejections of `operator` as a batch of [`schema`].
pub fn to_batch(operator: &OperatorId, rejections: &[Rejection]) -> Batch {
    let text = |of: fn(&Rejection) -> Option<&str>| -> ArrayRef { Arc::new(StringArray::from_iter(rejections.iter().map(of))) };
    let operators = StringArray::from_iter_values(rejections.iter().map(|_| operator.as_str()));
    let times = TimestampMillisecondArray::from_iter(rejections.iter().map(|rejection| rejection.event_time)).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        text(|rejection| Some(&rejection.reason)),
        Arc::new(operators),
        text(|rejection| rejection.version.as_deref()),
        text(|rejection| rejection.source.as_deref()),
        Arc::new(UInt64Array::from_iter(rejections.iter().map(|rejection| rejection.position))),
        Arc::new(times),
        Arc::new(UInt64Array::from_iter(rejections.iter().map(|rejection| rejection.key_hash))),
        text(|rejection| Some(&rejection.row)),
    ];
    Batch::try_new(schema(), columns, rejections.len()).expect("the columns are made to the schema")
}
