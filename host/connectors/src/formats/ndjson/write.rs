//! Columns as NDJSON.

use std::{io::Write as _, sync::Arc};

use arrow_array::{Array, RecordBatch, cast::AsArray};
use arrow_cast::base64::{BASE64_STANDARD, Engine};
use arrow_json::{
    Encoder, EncoderFactory, EncoderOptions, WriterBuilder,
    writer::{LineDelimited, NullableEncoder},
};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, TimeUnit};
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::{csv, encode::write_timestamp};

/// How nulls are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Nulls {
    /// As members with the value `null`: every line has all members.
    #[default]
    Write,
    /// Left out, also in structs and maps.
    Omit,
}

/// Writes columns as NDJSON, each row ended by `\n`.
#[derive(Clone, Debug)]
pub struct Writer {
    builder: WriterBuilder,
}

impl Writer {
    /// Writes rows of this schema.
    ///
    /// # Errors
    /// A column has a type that NDJSON cannot hold; a clause that names it.
    pub fn new(schema: &Schema, nulls: Nulls) -> Result<Self, String> {
        if let Some(field) = schema.fields().iter().find(|field| !can_write(field)) {
            return Err(format!(
                "column {} of type {} does not fit into NDJSON: the keys of a map must be text",
                field.name(),
                field.data_type()
            ));
        }
        let builder = WriterBuilder::new().with_explicit_nulls(nulls == Nulls::Write).with_encoder_factory(Arc::new(OurEncoders));
        Ok(Self { builder })
    }

    /// Appends the rows.
    ///
    /// # Errors
    /// A value cannot be written; a clause.
    pub fn rows(&self, columns: &RecordBatch, out: &mut Vec<u8>) -> Result<(), String> {
        if columns.num_columns() == 0 {
            out.extend_from_slice("{}\n".repeat(columns.num_rows()).as_bytes());
            return Ok(());
        }
        let mut writer = self.builder.clone().build::<_, LineDelimited>(out);
        writer.write(columns).and_then(|()| writer.finish()).map_err(|error| error.to_string())
    }
}

fn can_write(field: &Field) -> bool {
    match field.data_type() {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                fields.first().is_some_and(|key| matches!(key.data_type(), DataType::Utf8 | DataType::LargeUtf8)) && can_write(entries)
            }
            _ => false,
        },
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => can_write(item),
        DataType::Struct(fields) => fields.iter().all(|field| can_write(field)),
        _ => true,
    }
}

/// Where we write otherwise than arrow-json: timestamps with the precision of their unit, durations as integers, binary in base64.
#[derive(Debug)]
struct OurEncoders;

impl EncoderFactory for OurEncoders {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Timestamp(unit, zone) => {
                Box::new(Timestamps { values: csv::timestamp_values(array), unit: *unit, zoned: zone.is_some() })
            }
            DataType::Duration(_) => Box::new(Integers(csv::duration_values(array))),
            DataType::Binary => Box::new(Base64(|row| array.as_binary::<i32>().value(row))),
            DataType::LargeBinary => Box::new(Base64(|row| array.as_binary::<i64>().value(row))),
            DataType::FixedSizeBinary(_) => Box::new(Base64(|row| array.as_fixed_size_binary().value(row))),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Timestamps<'a> {
    values: &'a [i64],
    unit: TimeUnit,
    zoned: bool,
}

impl Encoder for Timestamps<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        if write_timestamp(self.values[row], self.unit, self.zoned, out) {
            out.push(b'"');
        } else {
            out.pop();
            write!(out, "{}", self.values[row]).expect("memory takes all writes");
        }
    }
}

struct Integers<'a>(&'a [i64]);

impl Encoder for Integers<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        write!(out, "{}", self.0[row]).expect("memory takes all writes");
    }
}

struct Base64<F>(F);

impl<'a, F: Fn(usize) -> &'a [u8]> Encoder for Base64<F> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(BASE64_STANDARD.encode((self.0)(row)).as_bytes());
        out.push(b'"');
    }
}
