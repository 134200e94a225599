//! Values that come one by one, as the records of a topic do: each is whole, and none runs into the next.
//!
//! [`ValueDecoder`] is the seam: a decoder is fed one value after the other and then makes columns of all of them at once. [`ValueLayout`] is
//! what a source decides once, and makes a decoder of for each split.

use std::{fmt, ops::Range, sync::Arc};

use arrow_array::{
    ArrayRef, RecordBatch, RecordBatchOptions,
    builder::{BinaryBuilder, StringBuilder},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_engine::connector::SettingsProblem;

use super::{
    columns::Rows,
    layout::{TextKind, TextLayout},
    ndjson,
    text::{Decoded, ScanLimits, TextFormat, quoted},
};
use crate::settings::problem;

/// The column of a format that has one, unless the schema names it.
pub const VALUE_COLUMN: &str = "value";

/// Makes columns of values.
#[async_trait]
pub trait ValueDecoder: Send {
    /// Takes the next value.
    fn push(&mut self, value: &[u8]);

    /// Asks the outside for what is needed to read the values that were taken. Before each [`Self::finish`]; cancel-safe.
    ///
    /// # Errors
    /// The outside does not answer.
    async fn prepare(&mut self) -> Result<(), Unprepared> {
        Ok(())
    }

    /// The columns of all values since the last call, and forgets them.
    fn finish(&mut self) -> Values;

    /// The most rows that one value makes.
    fn rows_per_value(&self) -> usize {
        1
    }
}

/// A value that could be read if the outside answered.
#[derive(Debug)]
pub struct Unprepared {
    /// Its number.
    pub value: u32,
    /// What is missing; a clause.
    pub reason: String,
}

/// What values became.
#[derive(Debug)]
pub struct Values {
    /// The rows of the values that could be read, in order: one each, or of changes up to [`ValueDecoder::rows_per_value`].
    pub columns: RecordBatch,
    /// The value of each row, counted from 0; none: row i is value i.
    pub row_values: Option<Vec<u32>>,
    /// What each row does to the table that the values describe, as [`millstream_model::ChangeKind`]; none: all are inserts.
    pub changes: Option<Vec<u8>>,
    /// Those that could not be read, in order.
    pub bad: Vec<BadValue>,
}

/// A value that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// Its number.
    pub value: u32,
    /// Why; a clause.
    pub reason: String,
    /// Its beginning.
    pub raw: String,
}

/// A format whose decoders are made elsewhere.
pub trait ValueFormat: fmt::Debug + Send + Sync {
    /// All columns.
    fn schema(&self) -> &SchemaRef;

    /// A decoder for these columns.
    ///
    /// # Errors
    /// The format cannot hold them; a clause.
    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn ValueDecoder>, String>;
}

/// How the values of a source are read.
#[derive(Clone, Debug)]
pub enum ValueLayout {
    /// As another part says.
    Made(Arc<dyn ValueFormat>),
    /// One record of a text format each.
    Text(TextLayout),
    /// Text, or bytes, in one column.
    Whole(SchemaRef),
}

impl ValueLayout {
    /// Values that are one column: text in UTF-8, or bytes.
    ///
    /// # Errors
    /// The declared schema has other columns.
    pub fn whole(declared: Option<SchemaRef>, data_type: DataType) -> Result<Self, Vec<SettingsProblem>> {
        let default = || Arc::new(Schema::new(vec![Field::new(VALUE_COLUMN, data_type.clone(), false)]));
        let schema = declared.unwrap_or_else(default);
        match schema.fields().as_ref() {
            [field] if *field.data_type() == data_type => Ok(Self::Whole(schema)),
            _ => Err(vec![problem(
                "format",
                format!("gives one column of type {data_type}: declare that under `schema:` of the source, or nothing"),
            )]),
        }
    }

    /// All columns.
    pub fn schema(&self) -> &SchemaRef {
        match self {
            Self::Made(format) => format.schema(),
            Self::Text(layout) => &layout.schema,
            Self::Whole(schema) => schema,
        }
    }

    /// A decoder for these columns.
    ///
    /// # Errors
    /// The format cannot hold them; a clause.
    pub fn decoder(&self, columns: &[usize]) -> Result<Box<dyn ValueDecoder>, String> {
        match self {
            Self::Made(format) => format.decoder(columns),
            Self::Text(layout) if matches!(layout.kind, TextKind::Json) => Ok(Box::new(Objects::new(layout.json_reader(columns)?))),
            Self::Text(layout) => Ok(Box::new(Lines::new(layout, columns)?)),
            Self::Whole(schema) => {
                let schema = Arc::new(schema.project(columns).expect("projected columns exist"));
                Ok(Box::new(Whole {
                    is_text: *self.schema().field(0).data_type() == DataType::Utf8,
                    schema,
                    ends: vec![0],
                    bytes: Vec::new(),
                }))
            }
        }
    }
}

/// One JSON object per value.
struct Objects {
    reader: ndjson::Reader,
    taken: u32,
    /// The value of each row.
    row_values: Vec<u32>,
    bad: Vec<BadValue>,
}

impl Objects {
    fn new(reader: ndjson::Reader) -> Self {
        Self { reader, taken: 0, row_values: Vec::new(), bad: Vec::new() }
    }
}

impl ValueDecoder for Objects {
    fn push(&mut self, value: &[u8]) {
        match self.reader.push(std::str::from_utf8(value)) {
            Ok(()) => self.row_values.push(self.taken),
            Err(reason) => {
                let reason = if value.trim_ascii().is_empty() { "the value is empty".into() } else { reason };
                self.bad.push(BadValue { value: self.taken, reason, raw: quoted(value) });
            }
        }
        self.taken += 1;
    }

    fn finish(&mut self) -> Values {
        let (row_values, bad) = (std::mem::take(&mut self.row_values), std::mem::take(&mut self.bad));
        self.taken = 0;
        Values { columns: self.reader.finish(), row_values: (!bad.is_empty()).then_some(row_values), changes: None, bad }
    }
}

/// One record of another text format per value.
struct Lines {
    format: Box<dyn TextFormat>,
    /// It, and line ends, may begin a record that runs into the next value.
    quote: Option<u8>,
    bytes: Vec<u8>,
    spans: Vec<Range<usize>>,
    /// Some value may run into the next: they are read one by one.
    one_by_one: bool,
}

impl Lines {
    fn new(layout: &TextLayout, columns: &[usize]) -> Result<Self, String> {
        let format = layout.reader(columns, &[])?;
        let quote = match &layout.kind {
            TextKind::Csv(dialect, _) => dialect.quote,
            TextKind::Json | TextKind::Lines => None,
        };
        Ok(Self { format, quote, bytes: Vec::new(), spans: Vec::new(), one_by_one: false })
    }

    /// All at once; none: the format found other records than there are values.
    fn together(&mut self) -> Option<Values> {
        let limits = ScanLimits { records: usize::MAX, last: true, stop_at: usize::MAX, record_bytes: usize::MAX };
        let used = self.format.scan(&self.bytes, limits);
        let Decoded { columns, records, row_records, bad } = self.format.decode(&self.bytes);
        if used != self.bytes.len() || records != self.spans.len() {
            return None;
        }
        let bad = bad.into_iter().map(|bad| self.bad(bad.record as usize, bad.reason)).collect();
        Some(Values { columns, row_values: row_records, changes: None, bad })
    }

    fn each(&mut self) -> Values {
        let limits = ScanLimits { records: usize::MAX, last: true, stop_at: usize::MAX, record_bytes: usize::MAX };
        let (mut batches, mut row_values, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..self.spans.len() {
            let bytes = &self.bytes[self.spans[number].clone()];
            self.format.scan(bytes, limits);
            let decoded = self.format.decode(bytes);
            if decoded.records != 1 {
                bad.push(self.bad(number, format!("the value is not one record but {}", decoded.records)));
            } else if let Some(found) = decoded.bad.into_iter().next() {
                bad.push(self.bad(number, found.reason));
            } else if decoded.columns.num_rows() == 1 {
                row_values.push(number as u32);
                batches.push(decoded.columns);
            }
        }
        let empty = self.format.decode(&[]).columns;
        let columns = arrow_select::concat::concat_batches(&empty.schema(), &batches).expect("one schema");
        Values { columns, row_values: Some(row_values), changes: None, bad }
    }

    fn bad(&self, number: usize, reason: String) -> BadValue {
        BadValue { value: number as u32, reason, raw: quoted(&self.bytes[self.spans[number].clone()]) }
    }

    fn is_blank(&self, number: usize) -> bool {
        self.bytes[self.spans[number].clone()].iter().all(u8::is_ascii_whitespace)
    }
}

impl ValueDecoder for Lines {
    fn push(&mut self, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value.trim_ascii_end());
        self.one_by_one |= memchr::memchr3(b'\n', b'\r', self.quote.unwrap_or(b'\n'), &self.bytes[start..]).is_some();
        self.bytes.push(b'\n');
        self.spans.push(start..self.bytes.len());
    }

    fn finish(&mut self) -> Values {
        let together = if self.one_by_one { None } else { self.together() };
        let mut values = match together {
            Some(values) => values,
            None => self.each(),
        };
        let blank =
            (0..self.spans.len()).filter(|&number| self.is_blank(number)).map(|number| self.bad(number, "the value is empty".into()));
        let blank: Vec<BadValue> = blank.collect();
        values.bad.retain(|bad| !blank.iter().any(|blank| blank.value == bad.value));
        values.bad.extend(blank);
        values.bad.sort_by_key(|bad| bad.value);
        self.bytes.clear();
        self.spans.clear();
        self.one_by_one = false;
        values
    }
}

/// One value of a binary format per row: `push` appends its row, or says why there is none.
pub struct EachValue<F> {
    rows: Rows,
    push: F,
    taken: u32,
    /// The value of each row.
    row_values: Vec<u32>,
    bad: Vec<BadValue>,
}

impl<F: FnMut(&mut Rows, &[u8]) -> Result<(), String> + Send> EachValue<F> {
    /// A decoder for these columns.
    ///
    /// # Errors
    /// No binary format fills them; a clause.
    pub fn new(schema: SchemaRef, push: F) -> Result<Self, String> {
        Ok(Self { rows: Rows::new(schema)?, push, taken: 0, row_values: Vec::new(), bad: Vec::new() })
    }
}

impl<F: FnMut(&mut Rows, &[u8]) -> Result<(), String> + Send> ValueDecoder for EachValue<F> {
    fn push(&mut self, value: &[u8]) {
        match (self.push)(&mut self.rows, value) {
            Ok(()) => self.row_values.push(self.taken),
            Err(reason) => self.bad.push(BadValue { value: self.taken, reason, raw: quoted(value) }),
        }
        self.taken += 1;
    }

    fn finish(&mut self) -> Values {
        let (row_values, bad) = (std::mem::take(&mut self.row_values), std::mem::take(&mut self.bad));
        self.taken = 0;
        Values { columns: self.rows.finish(), row_values: (!bad.is_empty()).then_some(row_values), changes: None, bad }
    }
}

/// The value as it is.
struct Whole {
    is_text: bool,
    schema: SchemaRef,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl ValueDecoder for Whole {
    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }

    fn finish(&mut self) -> Values {
        let values: Vec<&[u8]> = self.ends.windows(2).map(|ends| &self.bytes[ends[0]..ends[1]]).collect();
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        for (number, value) in values.iter().enumerate() {
            match std::str::from_utf8(value) {
                Err(error) if self.is_text => {
                    bad.push(BadValue {
                        value: number as u32,
                        reason: format!("the value is not text in UTF-8: {error}"),
                        raw: quoted(value),
                    });
                }
                _ => rows.push(number as u32),
            }
        }
        let count = rows.len();
        let columns = if self.schema.fields().is_empty() { Vec::new() } else { vec![column(&values, &rows, self.is_text)] };
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let columns = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).expect("columns of this schema");
        self.bytes.clear();
        self.ends.truncate(1);
        Values { columns, row_values: (!bad.is_empty()).then_some(rows), changes: None, bad }
    }
}

fn column(values: &[&[u8]], rows: &[u32], is_text: bool) -> ArrayRef {
    let values = rows.iter().map(|&row| values[row as usize]);
    if is_text {
        let mut builder = StringBuilder::new();
        values.for_each(|value| builder.append_value(std::str::from_utf8(value).expect("it was checked")));
        return Arc::new(builder.finish());
    }
    let mut builder = BinaryBuilder::new();
    values.for_each(|value| builder.append_value(value));
    Arc::new(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        formats::{csv::Dialect, values::TimestampFormat},
        testing::schema,
    };

    fn text(csv: bool) -> ValueLayout {
        let schema = schema(&[("id", "Int64"), ("name", "Utf8?")]);
        let kind = if csv { TextKind::Csv(Dialect::default(), false) } else { TextKind::Json };
        ValueLayout::Text(TextLayout::new(schema, vec![TimestampFormat::Standard; 2], kind).expect("a layout"))
    }

    fn decode(layout: &ValueLayout, values: &[&str]) -> Values {
        let mut decoder = layout.decoder(&(0..layout.schema().fields().len()).collect::<Vec<_>>()).expect("a decoder");
        values.iter().for_each(|value| decoder.push(value.as_bytes()));
        decoder.finish()
    }

    fn bad(values: &Values) -> Vec<u32> {
        values.bad.iter().map(|bad| bad.value).collect()
    }

    #[test]
    fn a_value_of_json_may_have_line_ends_and_bad_ones_are_found_by_number() {
        let values = decode(
            &text(false),
            &["{\"id\":1,\n \"name\":\"a\"}\n", "nonsense", " \n", "{\"id\":2}", "{\"id\":3}\n{\"id\":4}", "{\"name\":\"\n\"}"],
        );
        assert_eq!(values.columns.num_rows(), 2);
        assert_eq!(values.row_values, Some(vec![0, 3]));
        assert_eq!(bad(&values), [1, 2, 4, 5]);
        assert_eq!(values.bad[1].reason, "the value is empty");
        assert_eq!(values.bad[2].reason, "invalid JSON: text behind the value at byte 9 of the record");
        assert_eq!(values.bad[3].reason, "invalid JSON: a control character in a string at byte 9 of the record");
    }

    /// A quote that is never closed must not take the values behind it.
    #[test]
    fn a_value_of_csv_never_runs_into_the_next() {
        let values = decode(&text(true), &["1,\"open", "2,b", "3,c\n4,d", "5,\"e,\nf\""]);
        assert_eq!(values.row_values, Some(vec![1, 3]));
        assert_eq!(bad(&values), [0, 2]);
    }

    #[test]
    fn a_decoder_forgets_what_it_has_decoded() {
        let layout = text(true);
        let mut decoder = layout.decoder(&[1]).expect("a decoder");
        decoder.push(b"1,a");
        assert_eq!(decoder.finish().columns.num_rows(), 1);
        decoder.push(b"2,b");
        decoder.push(b"3,c");
        let values = decoder.finish();
        assert_eq!((values.columns.num_rows(), values.columns.num_columns(), values.row_values), (2, 1, None));
    }

    #[test]
    fn whole_values_are_bytes_or_text_and_what_is_no_text_is_bad() {
        let layout = ValueLayout::whole(None, DataType::Utf8).expect("a layout");
        let mut decoder = layout.decoder(&[0]).expect("a decoder");
        [&b"a"[..], b"\xff", b""].iter().for_each(|value| decoder.push(value));
        let values = decoder.finish();
        assert_eq!(values.row_values, Some(vec![0, 2]));
        assert_eq!(bad(&values), [1]);
        ValueLayout::whole(Some(schema(&[("a", "Int64")])), DataType::Binary).expect_err("not the type of the format");
    }
}
