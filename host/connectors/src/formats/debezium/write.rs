//! Changes → envelopes.
//!
//! An insertion is a `c`, a deletion a `d`. The old content of an update and the new one that follows it are one `u`, if they are of one key, and of two
//! keys a `d` and a `c`, as Debezium itself tells of a key that changes. Apart, they are a `d` of the old content and a `u` of the new one, without
//! `before`. There is no more to an envelope than `before`, `after` and `op`.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray, StructArray, UInt32Array};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use millstream_model::{Batch, ChangeKind};

/// The columns of written envelopes of rows with these columns.
pub fn written(columns: &Schema) -> SchemaRef {
    let row = |name: &str| Field::new(name, DataType::Struct(columns.fields().clone()), true);
    Arc::new(Schema::new(vec![row("before"), row("after"), Field::new("op", DataType::Utf8, false)]))
}

/// What one envelope says, by rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row that was there.
    pub before: Option<u32>,
    /// The row that is there now.
    pub after: Option<u32>,
    /// What happened, as Debezium calls it.
    pub op: &'static str,
}

impl Change {
    /// The row that key, timestamp and all else beside the value are taken from.
    pub fn row(&self) -> u32 {
        self.after.or(self.before).expect("a change is one of some row")
    }
}

/// The envelopes of a batch, in order. `is_same`: whether two rows are of one key.
pub fn changes(batch: &Batch, is_same: impl Fn(usize, usize) -> bool) -> Vec<Change> {
    let kind = |row: usize| batch.changes().and_then(|changes| ChangeKind::from_byte(changes[row])).unwrap_or(ChangeKind::Insert);
    let mut found: Vec<Change> = Vec::with_capacity(batch.num_rows());
    // The row before is the old content of an update.
    let mut is_old = false;
    for (number, row) in (0..).zip(0..batch.num_rows()) {
        let follows_old = std::mem::take(&mut is_old);
        let inserted = Change { before: None, after: Some(number), op: "c" };
        match kind(row) {
            ChangeKind::Insert => found.push(inserted),
            ChangeKind::UpdateAfter if follows_old && is_same(row - 1, row) => {
                let before = found.pop().expect("it was found last").before;
                found.push(Change { before, after: Some(number), op: "u" });
            }
            ChangeKind::UpdateAfter if follows_old => found.push(inserted),
            ChangeKind::UpdateAfter => found.push(Change { op: "u", ..inserted }),
            kind @ (ChangeKind::Delete | ChangeKind::UpdateBefore) => {
                found.push(Change { before: Some(number), after: None, op: "d" });
                is_old = kind == ChangeKind::UpdateBefore;
            }
        }
    }
    found
}

/// The columns of [`written`] for these changes among the rows of `columns`.
pub fn envelopes(columns: &RecordBatch, changes: &[Change]) -> RecordBatch {
    let side = |side: fn(&Change) -> Option<u32>| -> ArrayRef {
        let rows: UInt32Array = changes.iter().map(side).collect();
        let take = |column: &ArrayRef| arrow_select::take::take(column, &rows, None).expect("rows are in range");
        let members: Vec<ArrayRef> = columns.columns().iter().map(take).collect();
        let there: NullBuffer = changes.iter().map(|change| side(change).is_some()).collect::<Vec<_>>().into();
        Arc::new(
            StructArray::try_new_with_length(columns.schema_ref().fields().clone(), members, Some(there), changes.len())
                .expect("columns of the rows"),
        )
    };
    let ops = StringArray::from_iter_values(changes.iter().map(|change| change.op));
    let columns_of = vec![side(|change| change.before), side(|change| change.after), Arc::new(ops) as ArrayRef];
    RecordBatch::try_new(written(columns.schema_ref()), columns_of).expect("the columns of envelopes")
}
