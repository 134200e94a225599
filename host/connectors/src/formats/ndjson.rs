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

use std::ops::Range;

use arrow_schema::{Schema, SchemaRef};

use self::{node::Node, parse::Cursor};
use super::{
    csv::only,
    text::{BadRecord, Decoded, ScanLimits, TextFormat, too_long},
    values::TimestampFormat,
};

mod infer;
mod node;
mod parse;
mod write;

pub use infer::infer_schema;
pub use write::{Nulls, Writer};

/// Reads NDJSON into columns.
pub struct Reader {
    schema: SchemaRef,
    columns: Vec<Node>,
    /// Of each column, the row after the last one that has a value.
    filled: Vec<usize>,
    names: Names,
    lines: Vec<Range<u32>>,
    record_bytes_max: usize,
}

/// Finds the column of a member. Records mostly have their members in one order, so what stood there in the record before is looked for first.
struct Names {
    names: Vec<Box<str>>,
    next: usize,
    /// What is expected next, learnt from the records before: after member i of a record comes this one.
    order: Vec<Expected>,
}

struct Expected {
    /// As it stands there, with quotes and colon.
    text: Box<str>,
    /// None: it is not a column.
    column: Option<usize>,
}

impl Names {
    fn new(schema: &Schema) -> Self {
        let names = schema.fields().iter().map(|field| field.name().as_str().into()).collect();
        Self { names, next: 0, order: Vec::new() }
    }

    fn start(&mut self) {
        self.next = 0;
    }

    /// Passes the name at the cursor; the column is none if it names none.
    #[inline]
    fn pass(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<usize>, String> {
        match self.order.get(self.next) {
            Some(expected) if cursor.pass(&expected.text) => {
                self.next += 1;
                Ok(expected.column)
            }
            _ => self.learn(cursor),
        }
    }

    fn learn(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<usize>, String> {
        const REMEMBERED_MAX: usize = 1_024;
        let (name, text) = cursor.member_name()?;
        let column = self.names.iter().position(|known| **known == *name);
        if self.next < REMEMBERED_MAX {
            self.order.truncate(self.next);
            self.order.push(Expected { text: text.into(), column });
            self.next += 1;
        }
        Ok(column)
    }
}

impl Reader {
    /// Reads the columns of `schema`; `timestamps` says for each how its timestamps are written.
    ///
    /// # Errors
    /// A column has a type that NDJSON cannot hold; a clause.
    pub fn new(schema: SchemaRef, timestamps: &[TimestampFormat]) -> Result<Self, String> {
        let column = |(field, format)| Node::new(field, format).ok_or_else(|| format!("column {field} cannot be read from NDJSON"));
        let columns = schema.fields().iter().zip(timestamps).map(column).collect::<Result<_, _>>()?;
        let (names, filled) = (Names::new(&schema), vec![0; schema.fields().len()]);
        Ok(Self { schema, columns, filled, names, lines: Vec::new(), record_bytes_max: usize::MAX })
    }

    /// The same reader, saying `note` behind the type of a value that does not fit.
    pub fn noting(mut self, note: &'static str) -> Self {
        self.columns.iter_mut().for_each(|column| column.set_note(note));
        self
    }

    /// Appends one row; one that cannot be read is appended too, with some values.
    fn push(&mut self, line: Result<&str, String>, row: usize) -> Result<(), String> {
        let result = line.and_then(|line| self.push_members(line, row));
        if matches!(result, Ok(filled) if filled == self.columns.len()) {
            return Ok(());
        }
        let mut missing = Ok(());
        for column in self.columns.iter_mut().filter(|column| column.len() == row) {
            missing = missing.and(column.push_absent());
        }
        result.and(missing)
    }

    /// Appends the values that stand in one record; returns how many columns have one.
    fn push_members(&mut self, line: &str, row: usize) -> Result<usize, String> {
        if line.len() > self.record_bytes_max {
            return Err(too_long(self.record_bytes_max));
        }
        let mut cursor = Cursor::new(line);
        self.names.start();
        let mut filled = 0;
        let mut more = cursor.open_object()?;
        while more {
            match self.names.pass(&mut cursor)? {
                None => cursor.skip_value()?,
                Some(column) if self.filled[column] > row => {
                    return Err(format!("member {:?} stands twice", self.schema.field(column).name()));
                }
                Some(column) => {
                    self.filled[column] = row + 1;
                    filled += 1;
                    self.columns[column].push(&mut cursor)?;
                }
            }
            more = cursor.more_members()?;
        }
        cursor.end()?;
        Ok(filled)
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
        let (mut readable, mut row_records, mut bad) = (Vec::with_capacity(lines.len()), Vec::with_capacity(lines.len()), Vec::new());
        self.filled.fill(0);
        // All at once is several times as fast as line by line, and almost always all there is to do.
        let text = lines.last().and_then(|last| std::str::from_utf8(&bytes[..last.end as usize]).ok());
        for (record, span) in (0..).zip(&lines) {
            let span = span.start as usize..span.end as usize;
            let line = &bytes[span.clone()];
            if line.trim_ascii().is_empty() {
                continue;
            }
            let line = match text {
                Some(text) => Ok(&text[span.clone()]),
                None => std::str::from_utf8(line).map_err(|error| format!("invalid UTF-8 at byte {} of the record", error.valid_up_to())),
            };
            let result = self.push(line, readable.len());
            readable.push(result.is_ok());
            match result {
                Ok(()) => row_records.push(record),
                Err(reason) => bad.push(BadRecord { record, span, reason }),
            }
        }
        let columns = self.columns.iter_mut().map(Node::finish).collect();
        let columns = only(&self.schema, columns, &readable);
        let records = lines.len();
        self.lines = lines;
        self.lines.clear();
        let row_records = (row_records.len() != records).then_some(row_records);
        Decoded { columns, records, row_records, bad }
    }
}

#[cfg(test)]
mod tests;
