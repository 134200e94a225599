//! CSV: RFC 4180, with any one-byte delimiter and quote.
//!
//! Reading: records end with `\n` or `\r\n`; a quoted field may hold line ends, delimiters and doubled quotes; a quote in the middle of an
//! unquoted field is an ordinary character. An unquoted field that is empty or one of `null-values` is null; so is a quoted empty field,
//! except in text and binary columns. An empty field in such a column declared without `?` is the empty value. Blank lines are skipped, but in a file of
//! one column an empty line is a null if the column is nullable. Values are read as [`super::values`] says; fields of columns that nobody
//! reads are not looked at.
//!
//! Writing: the header, then one line per row; nulls as empty fields, empty texts as `""`, timestamps in RFC 3339, binary in base64.

use std::{borrow::Cow, ops::Range, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow_schema::{DataType, SchemaRef};

use super::{
    text::{BadRecord, Decoded, ScanLimits, TextFormat, too_long},
    values::{ColumnBuilder, TimestampFormat, scalar_builder, shown},
};

mod infer;
mod write;

pub use infer::{Guess, Sample, infer_schema};
pub use write::Writer;
pub(super) use write::{duration_values, timestamp_values};

/// How a file is written.
#[derive(Clone, Debug)]
pub struct Dialect {
    /// Between fields. ASCII.
    pub delimiter: u8,
    /// Around fields that hold delimiters, quotes or line ends; none: quotes are ordinary characters. ASCII.
    pub quote: Option<u8>,
    /// Unquoted texts that mean null, besides the empty one.
    pub null_values: Vec<String>,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { delimiter: b',', quote: Some(b'"'), null_values: Vec::new() }
    }
}

impl Dialect {
    /// The dialect is asked for every field, so most are told apart by their length.
    #[inline]
    fn is_null(&self, text: &str) -> bool {
        text.is_empty() || self.null_values.iter().any(|null| null.len() == text.len() && null == text)
    }
}

/// A column to be read.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its place among the fields of a record.
    pub field: usize,
    /// How its timestamps are written.
    pub timestamps: TimestampFormat,
}

/// One field of a record in the scanned bytes.
#[derive(Clone, Copy)]
struct Field {
    start: u32,
    end: u32,
    quoted: bool,
    /// It holds doubled quotes.
    doubled: bool,
}

/// Why the fields of a record cannot be told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    TextAfterQuote { field: usize },
    QuoteNotClosed,
}

/// What [`Scanner::record`] found.
enum Found {
    /// A record, and where the next one starts.
    Record { span: Range<usize>, next: usize, flaw: Option<Flaw> },
    /// The record goes on behind the bytes.
    Partial,
}

/// Finds the fields of one record after the other.
struct Scanner<'a> {
    bytes: &'a [u8],
    delimiter: u8,
    quote: Option<u8>,
    last: bool,
}

impl Scanner<'_> {
    /// Appends the fields of the record at `start` to `fields`.
    fn record(&self, start: usize, fields: &mut Vec<Field>) -> Found {
        let bytes = self.bytes;
        let mut flaw = None;
        let mut at = start;
        let first = fields.len();
        loop {
            let quoted = self.quote.is_some() && bytes.get(at).copied() == self.quote;
            let (mut field, after) = if quoted {
                match self.quoted_field(at) {
                    Some(found) => found,
                    None if self.last => return self.not_closed(start),
                    None => return Found::Partial,
                }
            } else {
                (Field { start: at as u32, end: at as u32, quoted: false, doubled: false }, at)
            };
            let end = self.field_end(after);
            if end == bytes.len() && !self.last {
                return Found::Partial;
            }
            let ends_record = end == bytes.len() || bytes[end] == b'\n';
            let text_end = if ends_record && end > after && bytes[end - 1] == b'\r' { end - 1 } else { end };
            if !quoted {
                field.end = text_end as u32;
            } else if text_end > after && flaw.is_none() {
                flaw = Some(Flaw::TextAfterQuote { field: fields.len() - first });
            }
            fields.push(field);
            if ends_record {
                return Found::Record { span: start..text_end, next: (end + 1).min(bytes.len()), flaw };
            }
            at = end + 1;
        }
    }

    /// The end of an unquoted run: a delimiter, a line end, or the end of the bytes. Fields are short, so bytes are looked at one by one.
    fn field_end(&self, from: usize) -> usize {
        let delimiter = self.delimiter;
        self.bytes[from..].iter().position(|&byte| byte == delimiter || byte == b'\n').map_or(self.bytes.len(), |at| from + at)
    }

    /// The quoted field that starts at `at`, and where it is left; none: it is not closed.
    fn quoted_field(&self, at: usize) -> Option<(Field, usize)> {
        let quote = self.quote?;
        let (start, mut from, mut doubled) = (at + 1, at + 1, false);
        loop {
            let close = from + memchr::memchr(quote, &self.bytes[from..])?;
            match self.bytes.get(close + 1) {
                Some(&next) if next == quote => {
                    doubled = true;
                    from = close + 2;
                }
                // Whether the quote is doubled is not known yet.
                None if !self.last => return None,
                _ => return Some((Field { start: start as u32, end: close as u32, quoted: true, doubled }, close + 1)),
            }
        }
    }

    /// Nothing follows and a quote is open: its first line is the bad record, so that one stray quote costs one line.
    fn not_closed(&self, start: usize) -> Found {
        let end = memchr::memchr(b'\n', &self.bytes[start..]).map_or(self.bytes.len(), |at| start + at);
        Found::Record { span: start..end, next: (end + 1).min(self.bytes.len()), flaw: Some(Flaw::QuoteNotClosed) }
    }
}

/// The fields of the first record, such as a header, and the bytes it takes; none: it goes on behind the bytes.
///
/// # Errors
/// It cannot be read; a clause.
pub fn first_record(dialect: &Dialect, bytes: &[u8], last: bool) -> Result<Option<(Vec<String>, usize)>, String> {
    let scanner = Scanner { bytes, delimiter: dialect.delimiter, quote: dialect.quote, last };
    let mut fields = Vec::new();
    let Found::Record { next, flaw, span } = scanner.record(0, &mut fields) else {
        return Ok(None);
    };
    if flaw.is_some() {
        return Err("a quote in it is not closed, or text follows a closing quote".into());
    }
    let text = std::str::from_utf8(&bytes[..span.end]).map_err(|_| "it is not UTF-8".to_owned())?;
    let names = fields.iter().map(|field| field_text(text, *field, dialect.quote).into_owned()).collect();
    Ok(Some((names, next)))
}

#[inline]
fn field_text(text: &str, field: Field, quote: Option<u8>) -> Cow<'_, str> {
    let raw = &text[field.start as usize..field.end as usize];
    match quote {
        Some(quote) if field.doubled => {
            let quote = char::from(quote);
            Cow::Owned(raw.replace(&format!("{quote}{quote}"), &quote.to_string()))
        }
        _ => Cow::Borrowed(raw),
    }
}

struct ColumnReader {
    field: usize,
    name: String,
    data_type: DataType,
    /// Its values may be empty.
    is_text: bool,
    nullable: bool,
    /// Said behind the type of a value that does not fit.
    note: &'static str,
    values: Box<dyn ColumnBuilder>,
}

/// Reads CSV into columns.
pub struct Reader {
    dialect: Dialect,
    schema: SchemaRef,
    columns: Vec<ColumnReader>,
    fields_per_record: usize,
    empty_line_is_null: bool,
    /// The fields of the whole records of the scan, record by record.
    fields: Vec<Field>,
    /// The record of each entry in `fields`, and where it stands.
    whole: Vec<(u32, Range<u32>)>,
    records: usize,
    bad: Vec<BadRecord>,
}

impl Reader {
    /// Reads `columns` (one for each of `schema`) of records of `fields_per_record` fields.
    ///
    /// # Errors
    /// A column has a type that CSV cannot hold; a clause.
    pub fn new(dialect: Dialect, schema: SchemaRef, columns: &[Column], fields_per_record: usize) -> Result<Self, String> {
        let mut readers = Vec::with_capacity(columns.len());
        for (field, column) in schema.fields().iter().zip(columns) {
            let values = scalar_builder(field.data_type(), &column.timestamps)
                .ok_or_else(|| format!("column {} of type {} cannot be read from CSV", field.name(), field.data_type()))?;
            readers.push(ColumnReader {
                field: column.field,
                name: field.name().clone(),
                data_type: field.data_type().clone(),
                is_text: matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary),
                nullable: field.is_nullable(),
                note: "",
                values,
            });
        }
        let empty_line_is_null = fields_per_record == 1 && readers.first().is_none_or(|column| column.nullable);
        let (fields, whole, bad) = Default::default();
        Ok(Self { dialect, schema, columns: readers, fields_per_record, empty_line_is_null, fields, whole, records: 0, bad })
    }

    /// The same reader, saying `note` behind the type of a value that does not fit.
    pub fn noting(mut self, note: &'static str) -> Self {
        self.columns.iter_mut().for_each(|column| column.note = note);
        self
    }

    /// Files a record that was found: its fields stand in `fields` from `first` on.
    fn on_record(&mut self, span: Range<usize>, first: usize, flaw: Option<Flaw>, record_bytes_max: usize) {
        let record = self.records as u32;
        self.records += 1;
        let count = self.fields.len() - first;
        let blank = span.is_empty() && !self.empty_line_is_null;
        let reason = match flaw {
            _ if blank => None,
            _ if span.len() > record_bytes_max => Some(too_long(record_bytes_max)),
            Some(Flaw::QuoteNotClosed) => Some("a quoted field is not closed".into()),
            Some(Flaw::TextAfterQuote { field }) => Some(format!("text follows the closing quote of field {}", field + 1)),
            None if count != self.fields_per_record => Some(format!("expected {} fields, found {count}", self.fields_per_record)),
            None => {
                self.whole.push((record, span.start as u32..span.end as u32));
                return;
            }
        };
        self.fields.truncate(first);
        self.bad.extend(reason.map(|reason| BadRecord { record, span, reason }));
    }

    /// Fills the columns; returns for each whole record whether it was read.
    fn fill_columns(&mut self, text: &str) -> Vec<bool> {
        let Self { dialect, columns, whole, fields, bad, fields_per_record, .. } = self;
        let mut readable = vec![true; whole.len()];
        for column in columns {
            for (row, fields) in fields.chunks_exact(*fields_per_record).enumerate() {
                let field = fields[column.field];
                let value = field_text(text, field, dialect.quote);
                if let Err(reason) = column.push(&value, field.quoted, dialect) {
                    column.values.push_default();
                    if std::mem::replace(&mut readable[row], false) {
                        let (record, span) = whole[row].clone();
                        bad.push(BadRecord { record, span: span.start as usize..span.end as usize, reason });
                    }
                }
            }
        }
        readable
    }

    /// Drops the records that are not UTF-8, and gives the bytes as text, their places filled with question marks.
    fn as_text<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, str> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Cow::Borrowed(text);
        }
        let mut text = bytes.to_vec();
        let fields_per_record = self.fields_per_record;
        let (mut fields, mut whole) = (Vec::with_capacity(self.fields.len()), Vec::with_capacity(self.whole.len()));
        for (index, (record, span)) in self.whole.drain(..).enumerate() {
            let range = span.start as usize..span.end as usize;
            match std::str::from_utf8(&bytes[range.clone()]) {
                Ok(_) => {
                    fields.extend_from_slice(&self.fields[index * fields_per_record..(index + 1) * fields_per_record]);
                    whole.push((record, span));
                }
                Err(error) => {
                    let reason = format!("invalid UTF-8 at byte {} of the record", error.valid_up_to());
                    self.bad.push(BadRecord { record, span: range, reason });
                }
            }
        }
        (self.fields, self.whole) = (fields, whole);
        // Invalid bytes are now only in records that are not read (or between them); the rest keeps its place.
        while let Err(error) = std::str::from_utf8(&text) {
            let from = error.valid_up_to();
            let to = error.error_len().map_or(text.len(), |length| from + length);
            text[from..to].fill(b'?');
        }
        Cow::Owned(String::from_utf8(text).expect("all invalid bytes were replaced"))
    }
}

impl ColumnReader {
    #[inline]
    fn push(&mut self, text: &str, quoted: bool, dialect: &Dialect) -> Result<(), String> {
        let null = if quoted { text.is_empty() && !self.is_text } else { dialect.is_null(text) };
        if null && self.nullable {
            self.values.push_null();
            return Ok(());
        }
        if null && !(self.is_text && text.is_empty()) {
            return Err(format!("column {}: null in a column declared without `?`", self.name));
        }
        if self.values.push(text) {
            return Ok(());
        }
        Err(format!("column {}: \"{}\" is not of type {}{}", self.name, shown(text), self.data_type, self.note))
    }
}

impl TextFormat for Reader {
    fn scan(&mut self, bytes: &[u8], limits: ScanLimits) -> usize {
        (self.fields, self.whole, self.bad, self.records) = (std::mem::take(&mut self.fields), Vec::new(), Vec::new(), 0);
        self.fields.clear();
        let scanner = Scanner { bytes, delimiter: self.dialect.delimiter, quote: self.dialect.quote, last: limits.last };
        let mut at = 0;
        while self.records < limits.records && at < bytes.len().min(limits.stop_at) {
            let first = self.fields.len();
            match scanner.record(at, &mut self.fields) {
                Found::Record { span, next, flaw } => {
                    self.on_record(span, first, flaw, limits.record_bytes);
                    at = next;
                }
                Found::Partial => {
                    self.fields.truncate(first);
                    break;
                }
            }
        }
        at
    }

    fn decode(&mut self, bytes: &[u8]) -> Decoded {
        let text = self.as_text(bytes);
        let readable = self.fill_columns(&text);
        let columns: Vec<ArrayRef> = self.columns.iter_mut().map(|column| column.values.finish()).collect();
        let records = std::mem::take(&mut self.records);
        let all = readable.iter().all(|&readable| readable);
        let row_records = (!all || readable.len() != records)
            .then(|| self.whole.iter().zip(&readable).filter(|(_, readable)| **readable).map(|((record, _), _)| *record).collect());
        let columns = only(&self.schema, columns, &readable);
        self.fields.clear();
        self.whole.clear();
        let mut bad = std::mem::take(&mut self.bad);
        bad.sort_by_key(|bad| bad.record);
        Decoded { columns, records, row_records, bad }
    }
}

/// The rows that could be read.
pub(super) fn only(schema: &SchemaRef, columns: Vec<ArrayRef>, readable: &[bool]) -> RecordBatch {
    let rows: Vec<u32> = (0..).zip(readable).filter_map(|(row, readable)| readable.then_some(row)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let columns = if rows.len() == readable.len() {
        columns
    } else {
        let rows = UInt32Array::from(rows);
        columns.iter().map(|column| arrow_select::take::take(column, &rows, None).expect("row numbers are in range")).collect()
    };
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).expect("builders make the columns of the schema")
}

#[cfg(test)]
mod tests;
