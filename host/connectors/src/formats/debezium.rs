//! Changes of a table as Debezium writes them: an *envelope* with the row before the change, the row after it, and what it was.
//!
//! | `op` | rows |
//! |---|---|
//! | `c`, `r` | `after`, inserted |
//! | `u` | `before`, if it is there, as the old content of an update; then `after`, as the new one |
//! | `d` | `before`, deleted |
//! | `t`, `m` (the table was emptied, a message) | rejected: no row says what they do |
//!
//! The envelope is read by any format as the columns that it has, [`envelope`]; JSON may have it within `payload`. What a database leaves out
//! of `before` (all but the key, unless it is told otherwise) is null, so columns that may be left out are declared with `?`.
//!
//! [`changes`] and [`envelopes`] are the way back: envelopes of a changelog, which any format writes.

mod write;

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StructArray, UInt64Array, cast::AsArray};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_model::ChangeKind;

pub use self::write::{Change, changes, envelopes, written};
use super::records::{BadValue, Unprepared, ValueDecoder, ValueFormat, ValueLayout, Values};

const PAYLOAD: &str = "payload";

/// The columns that an envelope of rows with these columns has; `within`: it may lie in `payload`.
pub fn envelope(columns: &Schema, within: bool) -> SchemaRef {
    let may_miss: Fields = columns.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
    let row = |name: &str| Field::new(name, DataType::Struct(may_miss.clone()), true);
    let fields = vec![row("before"), row("after"), Field::new("op", DataType::Utf8, true)];
    if !within {
        return Arc::new(Schema::new(fields));
    }
    let payload = Field::new(PAYLOAD, DataType::Struct(fields.clone().into()), true);
    Arc::new(Schema::new([fields, vec![payload]].concat()))
}

/// Rows out of envelopes.
#[derive(Debug)]
pub struct Debezium {
    columns: SchemaRef,
    /// Reads envelopes of these columns.
    envelopes: ValueLayout,
}

impl Debezium {
    /// `envelopes` reads [`envelope`] of these columns.
    pub fn new(columns: SchemaRef, envelopes: ValueLayout) -> Self {
        Self { columns, envelopes }
    }
}

impl ValueFormat for Debezium {
    fn schema(&self) -> &SchemaRef {
        &self.columns
    }

    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn ValueDecoder>, String> {
        let wanted = Arc::new(self.columns.project(columns).expect("projected columns exist"));
        let all: Vec<usize> = (0..self.envelopes.schema().fields().len()).collect();
        let places = columns.to_vec();
        Ok(Box::new(Decoder { envelopes: self.envelopes.decoder(&all)?, columns: wanted, places, raw: Vec::new(), ends: Vec::new() }))
    }
}

struct Decoder {
    envelopes: Box<dyn ValueDecoder>,
    columns: SchemaRef,
    /// Where each column stands in the rows of the envelope.
    places: Vec<usize>,
    /// Beginnings of the values, to be shown where they make no row.
    raw: Vec<u8>,
    ends: Vec<usize>,
}

/// Bytes of a value that a rejection shows.
const SHOWN_BYTES: usize = 1_024;

#[async_trait]
impl ValueDecoder for Decoder {
    fn push(&mut self, value: &[u8]) {
        self.envelopes.push(value);
        self.raw.extend_from_slice(&value[..value.len().min(SHOWN_BYTES)]);
        self.ends.push(self.raw.len());
    }

    async fn prepare(&mut self) -> Result<(), Unprepared> {
        self.envelopes.prepare().await
    }

    fn rows_per_value(&self) -> usize {
        2
    }

    fn finish(&mut self) -> Values {
        let Values { columns, row_values, mut bad, .. } = self.envelopes.finish();
        let value_of = |row: usize| row_values.as_ref().map_or(row as u32, |values| values[row]);
        let parts = Parts::of(&columns);
        let mut rows = Rows::default();
        for row in 0..columns.num_rows() {
            let taken = parts.changes(row).and_then(|changes| {
                changes.iter().flatten().try_for_each(|(_, side)| self.check(&parts, *side, row))?;
                Ok(changes)
            });
            match taken {
                Ok(changes) => changes.iter().flatten().for_each(|(kind, side)| rows.add(*kind, parts.index(*side, row), value_of(row))),
                Err(reason) => bad.push(BadValue { value: value_of(row), reason, raw: self.shown(value_of(row)) }),
            }
        }
        bad.sort_by_key(|bad| bad.value);
        let columns = self.rows(&parts, &rows);
        self.raw.clear();
        self.ends.clear();
        Values { columns, row_values: Some(rows.values), changes: Some(rows.changes), bad }
    }
}

impl Decoder {
    fn shown(&self, value: u32) -> String {
        let value = value as usize;
        let start = if value == 0 { 0 } else { self.ends[value - 1] };
        String::from_utf8_lossy(&self.raw[start..self.ends[value]]).into_owned()
    }

    /// A column declared without `?` has a value.
    fn check(&self, parts: &Parts, side: Side, row: usize) -> Result<(), String> {
        let rows = &parts.sides[side.0];
        for (field, &place) in self.columns.fields().iter().zip(&self.places) {
            if !field.is_nullable() && rows.column(place).is_null(row) {
                return Err(format!(
                    "column {}: null in `{}`, and it was declared without `?` (a database may leave out all but the key there)",
                    field.name(),
                    side.name()
                ));
            }
        }
        Ok(())
    }

    fn rows(&self, parts: &Parts, rows: &Rows) -> RecordBatch {
        let indices = UInt64Array::from(rows.indices.clone());
        let column = |&place: &usize| {
            let sides: Vec<&dyn Array> = parts.sides.iter().map(|side| side.column(place).as_ref()).collect();
            let both = arrow_select::concat::concat(&sides).expect("they are of one type");
            arrow_select::take::take(&both, &indices, None).expect("rows are in range")
        };
        let columns: Vec<ArrayRef> = self.places.iter().map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.indices.len()));
        RecordBatch::try_new_with_options(self.columns.clone(), columns, &options).expect("nulls were looked for")
    }
}

/// The rows that come out.
#[derive(Default)]
struct Rows {
    /// Among the rows of all sides, one behind the other.
    indices: Vec<u64>,
    values: Vec<u32>,
    changes: Vec<u8>,
}

impl Rows {
    fn add(&mut self, kind: ChangeKind, index: u64, value: u32) {
        self.indices.push(index);
        self.values.push(value);
        self.changes.push(kind as u8);
    }
}

/// Which of the rows of an envelope: those before and after, then those within the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Side(usize);

const BEFORE: usize = 0;
const AFTER: usize = 1;
/// In front of the sides within the payload.
const WITHIN: usize = 2;

impl Side {
    fn name(self) -> &'static str {
        if self.0 % WITHIN == BEFORE { "before" } else { "after" }
    }
}

type Changes = [Option<(ChangeKind, Side)>; 2];

/// Envelopes, taken apart.
struct Parts {
    count: usize,
    sides: Vec<StructArray>,
    /// Beside the rows, and within the payload.
    ops: Vec<ArrayRef>,
    payload: Option<StructArray>,
}

impl Parts {
    fn of(envelopes: &RecordBatch) -> Self {
        let payload = envelopes.columns().get(3).map(|payload| payload.as_struct().clone());
        let within = payload.iter().flat_map(|payload| payload.columns());
        let all: Vec<&ArrayRef> = envelopes.columns()[..3].iter().chain(within).collect();
        let sides = all.chunks(3).flat_map(|part| [part[BEFORE].as_struct().clone(), part[AFTER].as_struct().clone()]).collect();
        let ops = all.chunks(3).map(|part| part[2].clone()).collect();
        Self { count: envelopes.num_rows(), sides, ops, payload }
    }

    fn index(&self, side: Side, row: usize) -> u64 {
        (side.0 * self.count + row) as u64
    }

    /// What an envelope says.
    fn changes(&self, row: usize) -> Result<Changes, String> {
        let within = self.payload.as_ref().is_some_and(|payload| payload.is_valid(row));
        let (first, op) = if within { (WITHIN, &self.ops[1]) } else { (0, &self.ops[0]) };
        let there = |side: usize| Some(Side(first + side)).filter(|side| self.sides[side.0].is_valid(row));
        let (before, after) = (there(BEFORE), there(AFTER));
        let op = op.as_string::<i32>();
        if op.is_null(row) {
            return Err("it is no envelope of Debezium: it has no `op`".into());
        }
        match (op.value(row), before, after) {
            ("c" | "r", _, Some(after)) => Ok([None, Some((ChangeKind::Insert, after))]),
            ("u", before, Some(after)) => {
                Ok([before.map(|before| (ChangeKind::UpdateBefore, before)), Some((ChangeKind::UpdateAfter, after))])
            }
            ("d", Some(before), _) => Ok([Some((ChangeKind::Delete, before)), None]),
            ("d", None, _) => Err("it deletes a row, and has no `before` that says which: let the table log it (REPLICA IDENTITY)".into()),
            ("c" | "r" | "u", _, None) => Err("it has no `after`".into()),
            (op, ..) => Err(format!("its `op` is {op:?}, which no row follows from")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        formats::{
            layout::{TextKind, TextLayout},
            ndjson::{self, Nulls},
            values::TimestampFormat,
        },
        testing::schema,
    };

    fn format() -> Debezium {
        let columns = schema(&[("id", "Int64"), ("name", "Utf8?")]);
        let envelope = envelope(&columns, true);
        let timestamps = vec![TimestampFormat::Standard; envelope.fields().len()];
        Debezium::new(columns, ValueLayout::Text(TextLayout::new(envelope, timestamps, TextKind::Json).expect("columns of JSON")))
    }

    /// What each row does, the number of its value, and what it is.
    type Row = (u8, u32, Value);

    /// The rows, and why other values made none.
    fn decode(columns: &[usize], values: &[Value]) -> (Vec<Row>, Vec<(u32, String)>) {
        let mut decoder = format().decoder(columns).expect("a decoder");
        values.iter().for_each(|value| decoder.push(value.to_string().as_bytes()));
        let values = decoder.finish();
        let mut lines = Vec::new();
        let writer = ndjson::Writer::new(&values.columns.schema(), Nulls::Write).expect("columns of JSON");
        writer.rows(&values.columns, &mut lines).expect("written");
        let rows = serde_json::Deserializer::from_slice(&lines).into_iter().map(|line| line.expect("a line of JSON"));
        let (changes, of) = (values.changes.expect("changes"), values.row_values.expect("several rows per value"));
        let rows = rows.enumerate().map(|(row, value)| (changes[row], of[row], value)).collect();
        (rows, values.bad.into_iter().map(|bad| (bad.value, bad.reason)).collect())
    }

    fn row(id: i64, name: &str) -> Value {
        json!({ "id": id, "name": name })
    }

    #[test]
    fn envelopes_are_changes_of_rows_with_or_without_schema_around_them() {
        let values = [
            json!({ "before": null, "after": row(1, "a"), "op": "c", "source": { "table": "t" }, "ts_ms": 5 }),
            json!({ "schema": { "type": "struct" }, "payload": { "before": row(1, "a"), "after": row(1, "b"), "op": "u" } }),
            json!({ "before": null, "after": row(2, "x"), "op": "u" }),
            json!({ "before": { "id": 1 }, "after": null, "op": "d" }),
            json!({ "after": row(3, "s"), "op": "r" }),
        ];
        let (rows, bad) = decode(&[0, 1], &values);
        let expected = [
            (0, 0, row(1, "a")),
            (1, 1, row(1, "a")),
            (2, 1, row(1, "b")),
            (2, 2, row(2, "x")),
            (3, 3, json!({ "id": 1, "name": null })),
            (0, 4, row(3, "s")),
        ];
        assert_eq!((rows.as_slice(), bad.as_slice()), (&expected[..], &[][..]));
        let (rows, _) = decode(&[1], &values[..1]);
        assert_eq!(rows, [(0, 0, json!({ "name": "a" }))], "only the columns that are asked for");
    }

    /// The envelopes of rows of `id` and `name`, as JSON; rows are of one key if their ids are the same.
    fn envelopes_of(rows: &[(ChangeKind, i64, &str)]) -> Vec<Value> {
        let ids = arrow_array::Int64Array::from_iter_values(rows.iter().map(|row| row.1));
        let names = arrow_array::StringArray::from_iter_values(rows.iter().map(|row| row.2));
        let columns = schema(&[("id", "Int64"), ("name", "Utf8")]);
        let batch = millstream_model::Batch::try_new(columns, vec![Arc::new(ids), Arc::new(names)], rows.len()).expect("columns");
        let batch = batch.with_changes(Some(rows.iter().map(|row| row.0 as u8).collect()));
        let changes = changes(&batch, |one, other| rows[one].1 == rows[other].1);
        let envelopes = envelopes(batch.columns(), &changes);
        let mut lines = Vec::new();
        let writer = ndjson::Writer::new(&envelopes.schema(), Nulls::Write).expect("columns of JSON");
        writer.rows(&envelopes, &mut lines).expect("written");
        serde_json::Deserializer::from_slice(&lines).into_iter().map(|line| line.expect("a line of JSON")).collect()
    }

    #[test]
    fn changes_are_written_as_envelopes_and_an_update_of_one_key_is_one() {
        use ChangeKind::{Delete, Insert, UpdateAfter, UpdateBefore};
        let rows = [
            (Insert, 1, "a"),
            (UpdateBefore, 1, "a"),
            (UpdateAfter, 1, "b"),
            (Delete, 1, "b"),
            // Its new content is of another key.
            (UpdateBefore, 2, "x"),
            (UpdateAfter, 3, "x"),
            // Its old content was in an earlier batch, and the last one's new content will be in a later one.
            (UpdateAfter, 3, "y"),
            (UpdateBefore, 3, "y"),
        ];
        let envelope = |before: Value, after: Value, op: &str| json!({ "before": before, "after": after, "op": op });
        let expected = [
            envelope(Value::Null, row(1, "a"), "c"),
            envelope(row(1, "a"), row(1, "b"), "u"),
            envelope(row(1, "b"), Value::Null, "d"),
            envelope(row(2, "x"), Value::Null, "d"),
            envelope(Value::Null, row(3, "x"), "c"),
            envelope(Value::Null, row(3, "y"), "u"),
            envelope(row(3, "y"), Value::Null, "d"),
        ];
        assert_eq!(envelopes_of(&rows), expected);
        assert_eq!(envelopes_of(&[]), [] as [Value; 0]);
    }

    /// A changelog of others: what each row does, and what it is.
    fn changelog(text: &str) -> Vec<(u8, Value)> {
        let kind = |text: &str| ["+I", "-U", "+U", "-D"].iter().position(|kind| *kind == text).expect("a kind") as u8;
        let line = |line: &str| {
            let mut change: Value = serde_json::from_str(line).expect("JSON");
            (kind(change["kind"].as_str().expect("a kind")), change["row"].take())
        };
        text.lines().map(line).collect()
    }

    fn golden_columns() -> SchemaRef {
        schema(&[
            ("id", "Int64"),
            ("name", "Utf8?"),
            ("ratio", "Float64?"),
            ("ok", "Boolean?"),
            ("at", "Timestamp(ms, \"UTC\")?"),
            ("day", "Date32?"),
            ("fare", "Decimal128(9, 2)?"),
            ("tags", "List(Utf8)?"),
            ("place", "Struct(\"x\": Int64, \"y\": Utf8)?"),
        ])
    }

    /// What these lines are as rows of the columns.
    fn read_lines(columns: &SchemaRef, lines: impl Iterator<Item = Value>) -> RecordBatch {
        let timestamps = vec![TimestampFormat::Standard; columns.fields().len()];
        let layout = ValueLayout::Text(TextLayout::new(columns.clone(), timestamps, TextKind::Json).expect("columns of JSON"));
        let mut decoder = layout.decoder(&(0..columns.fields().len()).collect::<Vec<_>>()).expect("a decoder");
        lines.for_each(|line| decoder.push(line.to_string().as_bytes()));
        let values = decoder.finish();
        assert_eq!(values.bad, []);
        values.columns
    }

    fn lines(rows: &RecordBatch) -> String {
        let mut lines = Vec::new();
        ndjson::Writer::new(&rows.schema(), Nulls::Write).expect("columns of JSON").rows(rows, &mut lines).expect("written");
        String::from_utf8(lines).expect("JSON is text")
    }

    /// What each row does, and what it is; and why other values make none, by their numbers.
    type Read = (Vec<(u8, Value)>, Vec<(u32, String)>);

    fn read_envelopes(columns: &SchemaRef, text: &str) -> Read {
        let envelope = envelope(columns, true);
        let timestamps = vec![TimestampFormat::Standard; envelope.fields().len()];
        let layout = ValueLayout::Text(TextLayout::new(envelope, timestamps, TextKind::Json).expect("columns of JSON"));
        let format = Debezium::new(columns.clone(), layout);
        let mut decoder = format.decoder(&(0..columns.fields().len()).collect::<Vec<_>>()).expect("a decoder");
        text.lines().for_each(|line| decoder.push(line.as_bytes()));
        let values = decoder.finish();
        let rows = crate::testing::shown(&values.columns);
        (
            values.changes.expect("changes").into_iter().zip(rows).collect(),
            values.bad.into_iter().map(|bad| (bad.value, bad.reason)).collect(),
        )
    }

    /// Flink reads what we write, and it is what it was: `flink-read.ndjson` is what Flink's reader made of `ours.ndjson`.
    #[test]
    fn what_is_written_is_what_flink_has_read_as_the_same_changes() {
        let given = changelog(include_str!("../../golden/debezium/changelog.ndjson"));
        let columns = read_lines(&golden_columns(), given.iter().map(|(_, row)| row.clone()));
        let batch = millstream_model::Batch::new(columns).with_changes(Some(given.iter().map(|(kind, _)| *kind).collect()));
        let ids = batch.column(0).as_primitive::<arrow_array::types::Int64Type>().values().clone();
        let changes = changes(&batch, |one, other| ids[one] == ids[other]);
        assert_eq!(lines(&envelopes(batch.columns(), &changes)), include_str!("../../golden/debezium/ours.ndjson"));
        let read = changelog(include_str!("../../golden/debezium/flink-read.ndjson"));
        // A key that changes is a row that goes and another that comes.
        let expected: Vec<(u8, Value)> = given
            .into_iter()
            .map(|(kind, row)| match (kind, row["id"].as_i64()) {
                (1, Some(3)) => (3, row),
                (2, Some(4)) => (0, row),
                _ => (kind, row),
            })
            .collect();
        assert_eq!(read, expected);
    }

    /// Flink writes no `u`: old contents are a `d`, new ones a `c`.
    #[test]
    fn what_flink_writes_is_read_as_it_means_it() {
        let given = changelog(include_str!("../../golden/debezium/changelog.ndjson"));
        let expected: Vec<(u8, Value)> = given.into_iter().map(|(kind, row)| (if matches!(kind, 1 | 3) { 3 } else { 0 }, row)).collect();
        let read = read_envelopes(&golden_columns(), include_str!("../../golden/debezium/flink-wrote.ndjson"));
        assert_eq!(read, (expected, Vec::new()));
    }

    #[test]
    fn what_debezium_writes_is_read_with_and_without_its_schema() {
        let columns = schema(&[("id", "Int64"), ("name", "Utf8?"), ("ratio", "Float64?"), ("at", "Timestamp(ms, \"UTC\")?")]);
        let first = json!({ "id": 1, "name": "a \"quoted\" ž", "ratio": 0.5, "at": "2013-01-01T05:15:00.123Z" });
        let second = json!({ "id": 1, "name": "", "ratio": -1e-7, "at": "1969-12-31T23:59:59.999Z" });
        let third = json!({ "id": 2, "name": null, "ratio": null, "at": null });
        let expected = vec![(0, third), (0, first.clone()), (1, first), (2, second.clone()), (2, second.clone()), (3, second)];
        let (read, bad) = read_envelopes(&columns, include_str!("../../golden/debezium/debezium-wrote.ndjson"));
        assert_eq!(read, expected);
        assert_eq!(bad, [(5, "its `op` is \"t\", which no row follows from".to_owned())], "the table was emptied");
    }

    #[test]
    fn what_says_nothing_of_a_row_is_bad_with_its_number_and_the_others_are_read() {
        let values = [
            json!({ "id": 1 }),
            json!({ "op": "t" }),
            json!({ "op": "d" }),
            json!({ "op": "c", "after": row(1, "a") }),
            json!({ "op": "u", "before": { "name": "n" }, "after": row(1, "b") }),
            json!({ "op": "c", "after": { "id": "x" } }),
        ];
        let (rows, bad) = decode(&[0, 1], &values);
        assert_eq!(rows, [(0, 3, row(1, "a"))]);
        let expected = [
            "it has no `op`",
            "its `op` is \"t\"",
            "no `before` that says which",
            "column id: null in `before`",
            "\"x\" is not of type Int64",
        ];
        assert_eq!(bad.iter().map(|(value, _)| *value).collect::<Vec<_>>(), [0, 1, 2, 4, 5]);
        for ((_, reason), expected) in bad.iter().zip(expected) {
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
