//! The distinct keys of a batch.

use std::sync::Arc;

use arrow_buffer::ScalarBuffer;
use millstream_model::key::{EncodedKeys, KeyGroup, KeyHashes};

/// Place of a key in the key table. Means something only together with the [`KeySet`] it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub(crate) u32);

/// The distinct keys of a batch, numbered in the order of their first rows.
///
/// It stays valid while at most [`crate::KEY_SETS_LIVE`] key sets are made after it (the table keeps their keys); a use after that is an error.
#[derive(Clone, Debug)]
pub struct KeySet {
    pub(crate) slots: Vec<Slot>,
    pub(crate) of_row: Option<ScalarBuffer<u32>>,
    /// Where each key stands in `keys`.
    pub(crate) first_row: Vec<u32>,
    pub(crate) keys: Arc<EncodedKeys>,
    pub(crate) stamp: u32,
}

impl KeySet {
    /// Number of distinct keys.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The key number of each row; none: row i is key i.
    pub fn of_row(&self) -> Option<&ScalarBuffer<u32>> {
        self.of_row.as_ref()
    }

    /// The hash of key `number`.
    pub fn hash(&self, number: usize) -> u64 {
        self.keys.hashes()[self.first_row[number] as usize]
    }

    /// The encoded bytes of key `number`.
    pub fn key_bytes(&self, number: usize) -> &[u8] {
        self.keys.key(self.first_row[number] as usize)
    }

    /// The key group of key `number`.
    pub fn group(&self, number: usize) -> KeyGroup {
        self.keys.group(self.first_row[number] as usize)
    }

    /// These keys alone, renumbered in the given order: for a call that repeats a part of a batch. `of_row` maps the rows of that part to the
    /// new numbers; none: row i is key i.
    ///
    /// # Panics
    /// A number is out of range.
    pub fn select(&self, numbers: &[u32], of_row: Option<ScalarBuffer<u32>>) -> Self {
        Self {
            slots: numbers.iter().map(|&number| self.slots[number as usize]).collect(),
            of_row,
            first_row: numbers.iter().map(|&number| self.first_row[number as usize]).collect(),
            keys: Arc::clone(&self.keys),
            stamp: self.stamp,
        }
    }
}

impl KeyHashes for KeySet {
    fn hash_of_row(&self, row: usize) -> Option<u64> {
        let number = match &self.of_row {
            Some(of_row) => *of_row.get(row)? as usize,
            None => row,
        };
        (number < self.len()).then(|| self.hash(number))
    }
}
