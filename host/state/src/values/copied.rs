//! Records that a snapshot is owed, copied as they lie in the key table.
//!
//! Copying a record costs a tenth of encoding it, so the thread of the stream copies, before a change or when the pass of the snapshot comes by, and
//! the thread that writes the snapshot encodes. Keys outside their rows, and values of variable width, are not copied but encoded at once.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow_buffer::{BooleanBuffer, NullBuffer};

use super::PRESENT;
use crate::{
    Slot,
    layout::{Layout, Records},
    row::{RowEncoder, start_stored},
    snapshot::Entries,
    table::{KEY_WORDS, Rows, inline_key},
};

/// Records that are encoded together.
const ENCODED_TOGETHER: usize = 256;
/// Records of one piece of memory. Small pieces are there at once; for large ones the kernel may have to tidy up first, and the stream would wait.
const PIECE_RECORDS: usize = 2048;

/// How the records of a value state of fixed width are stored.
#[derive(Debug)]
pub(crate) struct RecordForm {
    /// First two bytes of its keys on disk.
    pub prefix: u16,
    /// The version of the state's type that its values have.
    pub version: u32,
    /// Whether the second word says when the value was last refreshed.
    pub has_time: bool,
    pub layout: Layout,
}

impl RecordForm {
    /// The stored values of records, in their order; none: deleted. `value` is told the number of the record.
    pub fn encode(&self, rows: &Rows, records: Records<'_>, mut value: impl FnMut(usize, Option<&[u8]>)) {
        let heads: Vec<u64> = (0..records.len()).map(|at| records.word(rows, at, 0)).collect();
        let is_present = |at: usize| heads[at] & PRESENT != 0;
        let nulls = NullBuffer::new(BooleanBuffer::collect_bool(heads.len(), is_present));
        let column = self.layout.gather(rows, records, &heads, Some(nulls));
        let encoder = RowEncoder::new(&column).expect("declared types have a row encoding");
        let mut bytes = Vec::new();
        for at in 0..heads.len() {
            if !is_present(at) {
                value(at, None);
                continue;
            }
            bytes.clear();
            let refreshed = self.has_time.then(|| records.word(rows, at, 1) as i64);
            start_stored(refreshed, self.version, &mut bytes);
            encoder.write(at, &mut bytes);
            value(at, Some(&bytes));
        }
    }
}

/// Copied records of a store, by the place of their state in the order of snapshots.
#[derive(Debug, Default)]
pub(crate) struct CopiedRecords {
    of: BTreeMap<usize, Copied>,
}

/// Copied records of one state.
pub(crate) struct Copied {
    form: Arc<RecordForm>,
    /// The words of the key, then those of the record, and so on.
    pieces: Vec<Vec<u64>>,
    records: usize,
}

impl CopiedRecords {
    /// Those of one state.
    pub fn of(&mut self, part: usize, form: &Arc<RecordForm>) -> &mut Copied {
        self.of.entry(part).or_insert_with(|| Copied { form: form.clone(), pieces: Vec::new(), records: 0 })
    }

    /// Number of records.
    pub fn len(&self) -> u64 {
        self.of.values().map(|copied| copied.records as u64).sum()
    }

    /// Their memory.
    pub fn bytes(&self) -> usize {
        self.of.values().map(|copied| copied.records * copied.words() * 8).sum()
    }

    /// Adds them to entries that are to be written.
    pub fn encode_into(self, entries: &mut Entries) {
        for copied in self.of.into_values() {
            copied.encode_into(entries);
        }
    }
}

impl Copied {
    /// Words of a key and its record.
    fn words(&self) -> usize {
        KEY_WORDS + self.form.layout.words()
    }

    /// Copies a record of a key that lies in its row.
    #[inline(always)]
    pub fn push(&mut self, key: &[u64], record: &[u64]) {
        if self.records.is_multiple_of(PIECE_RECORDS) {
            self.pieces.push(Vec::with_capacity(PIECE_RECORDS * self.words()));
        }
        self.records += 1;
        let piece = self.pieces.last_mut().expect("pushed above if there was none");
        piece.extend_from_slice(key);
        piece.extend_from_slice(record);
    }

    fn encode_into(self, entries: &mut Entries) {
        let words = self.words();
        let mut rows = Rows::dense(words);
        let slots: Vec<Slot> = (0..ENCODED_TOGETHER).map(|_| Slot(rows.push())).collect();
        let mut key = Vec::new();
        for piece in self.pieces {
            for together in piece.chunks(ENCODED_TOGETHER * words) {
                let count = together.len() / words;
                together.chunks_exact(words).zip(&slots).for_each(|(record, slot)| rows.row_mut(slot.0).copy_from_slice(record));
                self.form.encode(&rows, Records { slots: &slots[..count], offset: KEY_WORDS }, |at, value| {
                    key.clear();
                    key.extend_from_slice(&self.form.prefix.to_be_bytes());
                    key.extend_from_slice(&[0; 2]);
                    let group = inline_key(&together[at * words..][..KEY_WORDS], &mut key);
                    key[2..4].copy_from_slice(&group.0.to_be_bytes());
                    entries.push(&key, value);
                });
            }
        }
    }
}

impl fmt::Debug for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copied").field("form", &self.form).field("records", &self.records).finish_non_exhaustive()
    }
}
