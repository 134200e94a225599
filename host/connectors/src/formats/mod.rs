//! Formats: bytes ↔ columns. No file, no network.
//!
//! [`values`] says what a text means in each type, [`text`] finds records and turns bad ones into rejections, [`csv`], [`ndjson`] and [`lines`] are the
//! text formats, [`layout`] chooses between them, [`parquet`] the columnar one. [`avro`] and [`protobuf`] are the binary ones, which fill [`columns`]
//! without a text in between. [`delimited`] puts values one behind the other into a file. [`records`] are values that come one by one, [`one_schema`] those whose schema is known, [`encode`] and
//! [`cast`] what the written formats share,
//! [`debezium`] reads changes of a table out of values of any of them.

pub mod avro;
pub mod cast;
pub mod columns;
pub mod csv;
pub mod debezium;
pub mod delimited;
pub mod encode;
pub mod layout;
pub mod lines;
pub mod ndjson;
pub mod one_schema;
pub mod parquet;
pub mod protobuf;
pub mod records;
pub mod text;
pub mod values;
