//! A changelog as a compacted topic: the present content of each row under its key, and nothing under the key of a row that is gone.
//!
//! An insertion or the new content of an update is a record; a deletion is a record without value (a tombstone). So is the old content of an update,
//! for its key may not be that of the new one, unless rows of the same batch say more of that key: then they do.

use std::collections::HashMap;

use arrow_array::{Array as _, BinaryArray};
use millstream_model::{Batch, ChangeKind};

/// Rows to be written, and which of them without value.
pub(super) struct Upserts {
    /// The rows.
    pub(super) batch: Batch,
    /// Whether each row is gone.
    pub(super) gone: Vec<bool>,
}

/// What the rows of a batch mean for a topic with these keys.
///
/// # Errors
/// A row has no key; a clause.
pub(super) fn upserts(batch: &Batch, keys: &BinaryArray) -> Result<Upserts, String> {
    if let Some(row) = (0..keys.len()).find(|&row| keys.is_null(row)) {
        return Err(format!("row {row} has no key (null), and `changes: upsert` needs one"));
    }
    let kind = |row: usize| batch.changes().and_then(|changes| ChangeKind::from_byte(changes[row])).unwrap_or(ChangeKind::Insert);
    let last: HashMap<&[u8], usize> = (0..keys.len()).map(|row| (keys.value(row), row)).collect();
    let is_said_again = |row: usize| kind(row) == ChangeKind::UpdateBefore && last[keys.value(row)] > row;
    let rows: Vec<u32> = (0..).zip(0..keys.len()).filter(|&(_, row)| !is_said_again(row)).map(|(number, _)| number).collect();
    let gone = rows.iter().map(|&row| matches!(kind(row as usize), ChangeKind::UpdateBefore | ChangeKind::Delete)).collect();
    let batch = if rows.len() == keys.len() { batch.clone() } else { batch.take(&rows) };
    Ok(Upserts { batch, gone })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::schema;

    fn written(rows: &[(ChangeKind, &str)]) -> Vec<(String, bool)> {
        let keys = BinaryArray::from_iter_values(rows.iter().map(|(_, key)| key.as_bytes()));
        let column = Arc::new(keys.clone());
        let batch = Batch::try_new(schema(&[("key", "Binary")]), vec![column], rows.len()).expect("a column");
        let batch = batch.with_changes(Some(rows.iter().map(|(kind, _)| *kind as u8).collect()));
        let upserts = upserts(&batch, &keys).expect("keys");
        let column = upserts.batch.column(0);
        let keys = arrow_array::cast::AsArray::as_binary::<i32>(column);
        keys.iter().flatten().map(|key| String::from_utf8_lossy(key).into_owned()).zip(upserts.gone).collect()
    }

    #[test]
    fn old_contents_make_tombstones_only_where_nothing_else_is_said_of_their_key() {
        use ChangeKind::{Delete, Insert, UpdateAfter, UpdateBefore};
        let rows =
            [(Insert, "a"), (UpdateBefore, "a"), (UpdateAfter, "a"), (UpdateBefore, "b"), (UpdateAfter, "c"), (Delete, "a"), (Insert, "a")];
        let expected = [("a", false), ("a", false), ("b", true), ("c", false), ("a", true), ("a", false)];
        assert_eq!(written(&rows), expected.map(|(key, gone)| (key.to_owned(), gone)));
    }

    #[test]
    fn a_row_without_key_cannot_be_written() {
        let keys = BinaryArray::from(vec![Some(&b"a"[..]), None]);
        let batch = Batch::try_new(schema(&[("key", "Binary?")]), vec![Arc::new(keys.clone())], 2).expect("a column");
        assert_eq!(upserts(&batch, &keys).err(), Some("row 1 has no key (null), and `changes: upsert` needs one".into()));
    }
}
