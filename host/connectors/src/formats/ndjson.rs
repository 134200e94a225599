//! NDJSON: one JSON object (RFC 8259) per line.
//!
//! Reading: a member that is no column is skipped; a column that is no member is null. A scalar column takes a JSON string, number or boolean
//! whose text means a value of its type ([`super::values`]), so `"7"` and `7` are the same Int64, and 64-bit integers and decimals are exact.
//! A text column takes strings, and any other value as the JSON that stands there. Lists take arrays, structs take objects, maps take objects
//! whose keys are read as the map's keys. A member that stands twice, text behind the object, and nesting deeper than 128 are errors of the
//! record. Lines end with `\n` or `\r\n`; blank lines are skipped.
//!
//! Writing: every column is a member, in order; nulls are written as `null` or left out. Integers and decimals are numbers, as are floats (`NaN`
//! and infinities, which JSON cannot say, are null); timestamps are RFC 3339 in UTC with the precision of their unit
//! (`2013-01-01T05:15:00.000Z`; without zone if the column has none); durations are integers in their unit; binary is base64; maps are
//! objects.

use std::{ops::Range, str::Utf8Error};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};

use self::{node::Node, parse::Cursor, quick::Word};
use super::{
    csv::only,
    text::{BadRecord, Decoded, ScanLimits, TextFormat, too_long},
    values::TimestampFormat,
};

mod infer;
mod node;
mod parse;
mod quick;
mod write;

pub use infer::infer_schema;
pub use write::{Nulls, Writer};

/// Reads NDJSON into columns.
pub struct Reader {
    schema: SchemaRef,
    columns: Vec<Node>,
    filled: Filled,
    /// Of each record since the last [`Self::finish`].
    readable: Vec<bool>,
    names: Names,
    lines: Vec<Range<u32>>,
    record_bytes_max: usize,
}

/// The members that are expected, as they stood in the record before: records mostly have the same ones in the same order.
struct Names {
    names: Vec<Box<str>>,
    next: usize,
    expected: Vec<Expected>,
}

struct Expected {
    /// As it stands there, with quotes, colon, and the space around them.
    name: Word,
    /// None: it is not a column.
    column: Option<usize>,
}

impl Names {
    fn new(schema: &Schema) -> Self {
        let names = schema.fields().iter().map(|field| field.name().as_str().into()).collect();
        Self { names, next: 0, expected: Vec::new() }
    }

    /// Passes a name that is not the next expected one, and expects it from now on; the column is none if it names none.
    fn learn(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<usize>, String> {
        const EXPECTED_MAX: usize = 1_024;
        const LEFT_OUT_MAX: usize = 8;
        // Members may be left out.
        let (record, at) = cursor.place();
        let ahead = self.expected.iter().enumerate().skip(self.next + 1).take(LEFT_OUT_MAX);
        let mut found = ahead.filter_map(|(place, expected)| Some((place, expected.column, expected.name.end(record.as_bytes(), at)?)));
        if let Some((place, column, end)) = found.next() {
            cursor.stand_at(end);
            self.next = place + 1;
            return Ok(column);
        }
        let (name, text) = cursor.member_name()?;
        let column = self.names.iter().position(|known| **known == *name);
        if self.next < EXPECTED_MAX {
            self.expected.truncate(self.next);
            self.expected.push(Expected { name: Word::new(text), column });
            self.next += 1;
        }
        Ok(column)
    }
}

/// The columns that have a value in the record that is read.
struct Filled {
    row: usize,
    count: usize,
    /// Of each column, the row after the last one in which it has one.
    ends: Vec<usize>,
}

impl Filled {
    fn start(&mut self, row: usize) {
        (self.row, self.count) = (row, 0);
    }

    fn has(&self, column: usize) -> bool {
        self.ends[column] > self.row
    }

    fn add(&mut self, column: usize) {
        self.ends[column] = self.row + 1;
        self.count += 1;
    }
}

/// Where a cursor stands within an object.
enum Place {
    /// Before a name.
    Name,
    /// Before the value of this column; none: of a member that is none.
    Value(Option<usize>),
    /// Behind a value.
    End,
}

impl Reader {
    /// Reads the columns of `schema`; `timestamps` says for each how its timestamps are written.
    ///
    /// # Errors
    /// A column has a type that NDJSON cannot hold; a clause.
    pub fn new(schema: SchemaRef, timestamps: &[TimestampFormat]) -> Result<Self, String> {
        let column = |(field, format)| Node::new(field, format).ok_or_else(|| format!("column {field} cannot be read from NDJSON"));
        let columns = schema.fields().iter().zip(timestamps).map(column).collect::<Result<_, _>>()?;
        let filled = Filled { row: 0, count: 0, ends: vec![0; schema.fields().len()] };
        let names = Names::new(&schema);
        Ok(Self { schema, columns, filled, readable: Vec::new(), names, lines: Vec::new(), record_bytes_max: usize::MAX })
    }

    /// The same reader, saying `note` behind the type of a value that does not fit.
    pub fn noting(mut self, note: &'static str) -> Self {
        self.columns.iter_mut().for_each(|column| column.set_note(note));
        self
    }

    /// Appends a record; one that cannot be read is none of the rows.
    ///
    /// # Errors
    /// Why it cannot be read; a clause.
    pub fn push(&mut self, record: Result<&str, Utf8Error>) -> Result<(), String> {
        let row = self.readable.len();
        self.filled.start(row);
        let result = match record {
            Ok(record) => self.push_members(record),
            Err(error) => Err(format!("invalid UTF-8 at byte {} of the record", error.valid_up_to())),
        };
        let all = result.is_ok() && self.filled.count == self.columns.len();
        let result = if all { Ok(()) } else { result.and(self.fill_up(row)) };
        self.readable.push(result.is_ok());
        result
    }

    /// Appends nulls where the record has no value.
    fn fill_up(&mut self, row: usize) -> Result<(), String> {
        let mut missing = Ok(());
        for column in self.columns.iter_mut().filter(|column| column.len() == row) {
            missing = missing.and(column.push_absent());
        }
        missing
    }

    /// The rows since the last call, and forgets them.
    pub fn finish(&mut self) -> RecordBatch {
        self.filled.ends.fill(0);
        let columns = self.columns.iter_mut().map(Node::finish).collect();
        let columns = only(&self.schema, columns, &self.readable);
        self.readable.clear();
        columns
    }

    /// Appends the values that stand in one record.
    fn push_members(&mut self, record: &str) -> Result<(), String> {
        if record.len() > self.record_bytes_max {
            return Err(too_long(self.record_bytes_max));
        }
        let mut cursor = Cursor::new(record);
        self.names.next = 0;
        let mut more = cursor.open_object()?;
        while more {
            match self.push_expected(&mut cursor) {
                Place::Name => {
                    let column = self.names.learn(&mut cursor)?;
                    self.push_value(column, &mut cursor)?;
                }
                Place::Value(column) => self.push_value(column, &mut cursor)?,
                Place::End => {}
            }
            more = cursor.more_members()?;
        }
        cursor.end()
    }

    /// Passes members as long as they are the expected ones, with the most common values and nothing but a comma in between: all that is done for nearly
    /// every member of nearly every record. Whatever else there is, and whatever is wrong, is left to the others.
    fn push_expected(&mut self, cursor: &mut Cursor<'_>) -> Place {
        let (record, mut at) = cursor.place();
        let bytes = record.as_bytes();
        let mut place = Place::Name;
        for expected in self.names.expected.get(self.names.next..).unwrap_or_default() {
            let Some(value) = expected.name.end(bytes, at) else { break };
            self.names.next += 1;
            let end = match expected.column {
                None => quick::skip(bytes, value),
                Some(column) if self.filled.has(column) => None,
                Some(column) => self.columns[column].push_quick(record, value).inspect(|_| self.filled.add(column)),
            };
            let Some(end) = end else {
                (at, place) = (value, Place::Value(expected.column));
                break;
            };
            if bytes.get(end) != Some(&b',') {
                (at, place) = (end, Place::End);
                break;
            }
            at = end + 1;
        }
        cursor.stand_at(at);
        place
    }

    /// Appends the value at the cursor, whatever it is, and passes it.
    fn push_value(&mut self, column: Option<usize>, cursor: &mut Cursor<'_>) -> Result<(), String> {
        let Some(column) = column else { return cursor.skip_value() };
        if self.filled.has(column) {
            return Err(format!("member {:?} stands twice", self.schema.field(column).name()));
        }
        self.filled.add(column);
        self.columns[column].push(cursor)
    }
}

impl TextFormat for Reader {
    fn scan(&mut self, bytes: &[u8], limits: ScanLimits) -> usize {
        self.lines.clear();
        self.record_bytes_max = limits.record_bytes;
        let mut at = 0;
        while self.lines.len() < limits.records && at < bytes.len().min(limits.stop_at) {
            let (end, next) = match memchr::memchr(b'\n', &bytes[at..]) {
                Some(length) => (at + length, at + length + 1),
                None if limits.last => (bytes.len(), bytes.len()),
                None => break,
            };
            self.lines.push(at as u32..end as u32);
            at = next;
        }
        at
    }

    fn decode(&mut self, bytes: &[u8]) -> Decoded {
        let lines = std::mem::take(&mut self.lines);
        let (mut row_records, mut bad) = (Vec::with_capacity(lines.len()), Vec::new());
        // All at once is several times as fast as line by line, and almost always all there is to do.
        let text = lines.last().and_then(|last| std::str::from_utf8(&bytes[..last.end as usize]).ok());
        for (record, span) in (0..).zip(&lines) {
            let span = span.start as usize..span.end as usize;
            let line = &bytes[span.clone()];
            if line.trim_ascii().is_empty() {
                continue;
            }
            let line = text.map_or_else(|| std::str::from_utf8(line), |text| Ok(&text[span.clone()]));
            match self.push(line) {
                Ok(()) => row_records.push(record),
                Err(reason) => bad.push(BadRecord { record, span, reason }),
            }
        }
        let columns = self.finish();
        let records = lines.len();
        self.lines = lines;
        self.lines.clear();
        let row_records = (row_records.len() != records).then_some(row_records);
        Decoded { columns, records, row_records, bad }
    }
}

#[cfg(test)]
mod tests;
