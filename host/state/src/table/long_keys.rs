//! Keys that do not fit into a row of the key table: bytes in one arena, in units of 16, with a list of free places for each size.

use std::collections::HashMap;

use crate::memory::prefetch;

const UNIT: usize = 16;

/// The bytes of long keys, by the unit at which they start.
#[derive(Default)]
pub(super) struct LongKeys {
    bytes: Vec<u8>,
    /// Free places by their number of units.
    free: HashMap<usize, Vec<u32>>,
    used: usize,
}

impl LongKeys {
    /// Keeps a key, and says where.
    pub fn insert(&mut self, key: &[u8]) -> u32 {
        let units = key.len().div_ceil(UNIT);
        self.used += units * UNIT;
        if let Some(place) = self.free.get_mut(&units).and_then(Vec::pop) {
            let start = place as usize * UNIT;
            self.bytes[start..start + key.len()].copy_from_slice(key);
            return place;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.resize(start + units * UNIT, 0);
        u32::try_from(start / UNIT).expect("the keys in memory stay below 64 GiB")
    }

    /// The key of `length` bytes at `place`.
    #[inline(always)]
    pub fn get(&self, place: u32, length: usize) -> &[u8] {
        let start = place as usize * UNIT;
        &self.bytes[start..start + length]
    }

    /// Gives a place back.
    pub fn remove(&mut self, place: u32, length: usize) {
        let units = length.div_ceil(UNIT);
        self.used -= units * UNIT;
        self.free.entry(units).or_default().push(place);
    }

    /// Asks for the first bytes of a key ahead of their use.
    #[inline(always)]
    pub fn prefetch(&self, place: u32) {
        prefetch(&self.bytes, place as usize * UNIT);
    }

    /// Memory of the keys kept.
    pub fn used_bytes(&self) -> usize {
        self.used
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }
}
