//! Formats: bytes ↔ columns. No file, no network.
//!
//! [`values`] says what a text means in each type, [`text`] finds records and turns bad ones into rejections, [`csv`] and [`ndjson`] are the
//! text formats, [`layout`] chooses between them, [`parquet`] the columnar one, [`records`] are values that come one by one, [`encode`] what the
//! written formats share.

pub mod avro;
pub mod columns;
pub mod csv;
pub mod encode;
pub mod layout;
pub mod ndjson;
pub mod parquet;
pub mod records;
pub mod text;
pub mod values;
