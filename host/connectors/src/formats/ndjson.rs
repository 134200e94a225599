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
    names: Names,
    lines: Vec<Range<u32>>,
    record_bytes_max: usize,
}

/// Finds the column of a member. Records mostly have their members in one order, so the column after the last one found is tried first.
struct Names {
    names: Vec<Box<str>>,
    next: usize,
    /// What is expected next, learnt from the records before: after member i of a record comes this column (none: not a column).
    order: Vec<(Box<str>, Option<usize>)>,
}

impl Names {
    fn new(schema: &Schema) -> Self {
        let names = schema.fields().iter().map(|field| field.name().as_str().into()).collect();
        Self { names, next: 0, order: Vec::new() }
    }

    fn start(&mut self) {
        self.next = 0;
    }

    fn find(&mut self, name: &str) -> Option<usize> {
        const REMEMBERED_MAX: usize = 1_024;
        if let Some((expected, column)) = self.order.get(self.next)
            && **expected == *name
        {
            self.next += 1;
            return *column;
        }
        let column = self.names.iter().position(|known| **known == *name);
        if self.next < REMEMBERED_MAX {
            self.order.truncate(self.next);
            self.order.push((name.into(), column));
            self.next += 1;
        }
        column
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
        let names = Names::new(&schema);
        Ok(Self { schema, columns, names, lines: Vec::new(), record_bytes_max: usize::MAX })
    }

    /// The same reader, saying `note` behind the type of a value that does not fit.
    pub fn noting(mut self, note: &'static str) -> Self {
        self.columns.iter_mut().for_each(|column| column.set_note(note));
        self
    }

    /// Appends one row; one that cannot be read is appended too, with some values.
    fn push(&mut self, line: &[u8], row: usize) -> Result<(), String> {
        let result = self.push_members(line, row);
        let mut missing = Ok(());
        for column in self.columns.iter_mut().filter(|column| column.len() == row) {
            missing = missing.and(column.push_absent());
        }
        result.and(missing)
    }

    fn push_members(&mut self, line: &[u8], row: usize) -> Result<(), String> {
        if line.len() > self.record_bytes_max {
            return Err(too_long(self.record_bytes_max));
        }
        let text = std::str::from_utf8(line).map_err(|error| format!("invalid UTF-8 at byte {} of the record", error.valid_up_to()))?;
        let mut cursor = Cursor::new(text);
        self.names.start();
        let (columns, names) = (&mut self.columns, &mut self.names);
        cursor.object(|cursor, name| match names.find(name) {
            None => cursor.skip_value(),
            Some(column) if columns[column].len() > row => Err(format!("member {name:?} stands twice")),
            Some(column) => columns[column].push(cursor),
        })?;
        cursor.end()
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
        let (mut readable, mut row_records, mut bad) = (Vec::with_capacity(lines.len()), Vec::new(), Vec::new());
        for (record, span) in (0..).zip(&lines) {
            let span = span.start as usize..span.end as usize;
            let line = &bytes[span.clone()];
            if line.trim_ascii().is_empty() {
                continue;
            }
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
