//! The key table: every key that the store has seen of late, and beside it its values.
//!
//! # Memory
//! `index` leads from the hash of a key to its slot, `rows` has one row per slot:
//! ```text
//! word 0        low half: stamp of the last key set with this key; high half: its number in that key set
//! words 1..4    the key: up to 21 bytes, then key group (2 bytes), then length (1 byte);
//!               a longer key: where its bytes are, hash, length (4 bytes) and a zero byte, group, 255. A free slot: word 3 is all ones
//! words 4..     the records of the value states, see `layout`
//! ```
//! So a known key costs two cache misses, one in the index and one in the row. [`KeyTable::resolve`] works in stages of 64 rows, three of them in
//! flight (prefetch the index; probe it and prefetch the row; compare), so that misses overlap with each other and with work. The stamp finds the distinct keys of a batch in the same
//! pass, without a second map.
//!
//! # Making room
//! A clock hand sweeps the slots and passes over what was used since its last round. The keys of the last [`KEY_SETS_LIVE`] key sets are never
//! taken, so slot numbers in them stay good. A key without any state leaves by itself soon after its last use.

mod index;
mod long_keys;
mod rows;

use std::{collections::VecDeque, ops::Range};

use millstream_model::key::{EncodedKeys, KEY_BYTES_MAX, KeyGroup};

use crate::{Error, KEY_SETS_LIVE, Slot};
use index::{Index, NO_SLOT, Tag};
use long_keys::LongKeys;
pub(crate) use rows::Rows;

/// Words of a row before the first record.
pub(crate) const ROW_HEAD_WORDS: usize = 4;
/// Words of a key in its row.
pub(crate) const KEY_WORDS: usize = 3;
/// Rows of one stage of [`KeyTable::resolve`]: what three stages touch fits into the nearest cache, and covers the wait for memory.
const STAGE: usize = 64;
/// Longest key inside a row.
const INLINE_MAX: usize = 21;
/// Length byte of a key outside its row.
const OUTSIDE: u64 = 255;
const FREE: u64 = u64::MAX;

pub(crate) struct KeyTable {
    index: Index,
    pub rows: Rows,
    free: Vec<u32>,
    live: usize,
    long_keys: LongKeys,
    stamp: u32,
    /// The key groups whose keys may come.
    groups: Range<u16>,
    /// Slots that may have no state, in the order of the stamps at which they were noticed.
    idle: VecDeque<(u32, u32)>,
    hand: usize,
    /// The stamp when the hand last began a round.
    round_stamp: u32,
}

/// What [`KeyTable::resolve`] finds.
pub(crate) struct Resolved {
    pub slots: Vec<Slot>,
    pub first_row: Vec<u32>,
    /// None: every row has its own key.
    pub of_row: Option<Vec<u32>>,
    pub stamp: u32,
}

/// A key as it stands in words 1..4 of its row.
type KeyWords = [u64; KEY_WORDS];

impl KeyTable {
    /// A table whose rows have `record_words` words behind the key.
    pub fn new(record_words: usize, groups: Range<u16>) -> Self {
        Self {
            index: Index::new(),
            rows: Rows::new(ROW_HEAD_WORDS + record_words),
            free: Vec::new(),
            live: 0,
            long_keys: LongKeys::default(),
            stamp: KEY_SETS_LIVE,
            groups,
            idle: VecDeque::new(),
            hand: 0,
            round_stamp: 0,
        }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Number of slots, free ones included.
    pub fn slots(&self) -> usize {
        self.rows.len()
    }

    /// Memory in use; free slots do not count, as the next keys go there.
    pub fn bytes(&self) -> usize {
        self.index.bytes() + self.live * self.rows.stride() * 8 + self.long_keys.used_bytes()
    }

    /// The slots of these keys, which are not used by that: those that are new may leave again soon. Nothing is known of their values.
    pub fn take_in(&mut self, keys: &EncodedKeys) -> Result<Vec<Slot>, Error> {
        self.index.reserve(keys.len());
        let slot = |row: usize| {
            let (key, hash) = (keys.key(row), keys.hashes()[row]);
            self.find_or_insert(hash, key_words(key, keys.group(row), hash), key, &mut |row| row[ROW_HEAD_WORDS..].fill(0)).map(Slot)
        };
        (0..keys.len()).map(slot).collect()
    }

    /// The stamp of the newest key set.
    pub fn stamp(&self) -> u32 {
        self.stamp
    }

    /// Whether slot numbers of a key set with this stamp are still good.
    pub fn is_live_stamp(&self, stamp: u32) -> bool {
        stamp <= self.stamp && self.stamp - stamp < KEY_SETS_LIVE
    }

    /// Finds the distinct keys of a batch, taking in those that are new. `on_new` is told the slot of each new key.
    pub fn resolve(&mut self, keys: &EncodedKeys, mut on_new: impl FnMut(&mut [u64])) -> Result<Resolved, Error> {
        self.next_stamp();
        let rows = keys.len();
        let stamp = u64::from(self.stamp);
        let (mut slots, mut first_row, mut of_row) = (vec![Slot(0); rows], vec![0_u32; rows], vec![0_u32; rows]);
        let mut distinct = 0;
        let mut candidates = [[NO_SLOT; STAGE]; 2];
        self.prefetch_index(keys, 0);
        for stage in 0..=rows.div_ceil(STAGE) {
            self.prefetch_index(keys, stage + 1);
            self.find_candidates(keys, stage, &mut candidates[stage % 2]);
            let Some(compared) = stage.checked_sub(1) else { continue };
            let of_stage = stage_rows(compared, rows);
            self.index.reserve(of_stage.len());
            for (row, &candidate) in of_stage.zip(&candidates[compared % 2]) {
                let (key, hash) = (keys.key(row), keys.hashes()[row]);
                let words = key_words(key, keys.group(row), hash);
                let slot = if candidate != NO_SLOT && self.matches(candidate, &words, key) {
                    candidate
                } else {
                    self.find_or_insert(hash, words, key, &mut on_new)?
                };
                // No branch: whether a key comes again is hard to guess. A key that does leaves slot and row to be overwritten.
                let head = &mut self.rows.row_mut(slot)[0];
                let is_first = (*head as u32) != self.stamp;
                let number = if is_first { distinct as u64 } else { *head >> 32 };
                *head = stamp | number << 32;
                (slots[distinct], first_row[distinct], of_row[row]) = (Slot(slot), row as u32, number as u32);
                distinct += usize::from(is_first);
            }
        }
        slots.truncate(distinct);
        first_row.truncate(distinct);
        Ok(Resolved { slots, first_row, of_row: (distinct < rows).then_some(of_row), stamp: self.stamp })
    }

    fn prefetch_index(&self, keys: &EncodedKeys, stage: usize) {
        if self.index.is_large() {
            keys.hashes()[stage_rows(stage, keys.len())].iter().for_each(|hash| self.index.prefetch(Tag::of(*hash)));
        }
    }

    /// The slot whose tag fits each hash, if any; its row is on the way to the cache.
    fn find_candidates(&self, keys: &EncodedKeys, stage: usize, candidates: &mut [u32; STAGE]) {
        let is_large = self.index.is_large();
        let hashes = &keys.hashes()[stage_rows(stage, keys.len())];
        for (hash, candidate) in hashes.iter().zip(candidates.iter_mut()) {
            *candidate = self.index.first(Tag::of(*hash));
            if is_large && *candidate != NO_SLOT {
                self.rows.prefetch(*candidate);
            }
        }
        if !self.long_keys.is_empty() {
            self.prefetch_long_keys(&candidates[..hashes.len()]);
        }
    }

    fn prefetch_long_keys(&self, candidates: &[u32]) {
        for &candidate in candidates.iter().filter(|&&candidate| candidate != NO_SLOT) {
            let row = self.rows.row(candidate);
            if row[3] >> 56 == OUTSIDE {
                self.long_keys.prefetch(row[1] as u32);
            }
        }
    }

    #[inline(always)]
    fn matches(&self, slot: u32, words: &KeyWords, key: &[u8]) -> bool {
        let row = self.rows.row(slot);
        if words[2] >> 56 == OUTSIDE {
            return row[2] == words[1] && row[3] == words[2] && self.is_long_key(row, key);
        }
        row[1] == words[0] && row[2] == words[1] && row[3] == words[2]
    }

    #[inline(never)]
    fn is_long_key(&self, row: &[u64], key: &[u8]) -> bool {
        self.long_keys.get(row[1] as u32, key.len()) == key
    }

    #[inline(never)]
    fn find_or_insert(&mut self, hash: u64, words: KeyWords, key: &[u8], on_new: &mut impl FnMut(&mut [u64])) -> Result<u32, Error> {
        if let Some(slot) = self.index.find(Tag::of(hash), |slot| self.matches(slot, &words, key)) {
            return Ok(slot);
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(Error::KeyTooLarge { hash, bytes: key.len(), limit: KEY_BYTES_MAX });
        }
        let group = (words[2] >> 40) as u16;
        if !self.groups.contains(&group) {
            return Err(Error::InvalidUse(format!("a key of group {group} came to the subtask of groups {:?}", self.groups)));
        }
        let slot = self.take_slot(words, key);
        on_new(self.rows.row_mut(slot));
        self.index.insert(Tag::of(hash), slot);
        self.live += 1;
        self.idle.push_back((self.stamp, slot));
        Ok(slot)
    }

    fn take_slot(&mut self, mut words: KeyWords, key: &[u8]) -> u32 {
        if words[2] >> 56 == OUTSIDE {
            words[0] = u64::from(self.long_keys.insert(key));
        }
        let slot = self.free.pop().unwrap_or_else(|| self.rows.push());
        let row = self.rows.row_mut(slot);
        row[0] = 0;
        row[1..ROW_HEAD_WORDS].copy_from_slice(&words);
        slot
    }

    fn next_stamp(&mut self) {
        if self.stamp == u32::MAX {
            // Every four billion batches: forget the old stamps. Key sets of before are refused from here on.
            (0..self.slots() as u32).for_each(|slot| self.rows.row_mut(slot)[0] = 0);
            self.idle.iter_mut().for_each(|(stamp, _)| *stamp = 0);
            (self.stamp, self.round_stamp) = (2 * KEY_SETS_LIVE, 0);
        }
        self.stamp += 1;
    }

    /// Frees the slots that were noticed as idle, are in no live key set, and have no state.
    pub fn free_idle(&mut self, mut has_state: impl FnMut(&[u64]) -> bool) {
        while let Some(&(noticed, slot)) = self.idle.front()
            && self.stamp - noticed >= KEY_SETS_LIVE
        {
            self.idle.pop_front();
            let row = self.rows.row(slot);
            if row[3] == FREE || has_state(row) {
                continue;
            }
            let used = row[0] as u32;
            if self.is_live_stamp(used) {
                self.idle.push_back((self.stamp, slot));
            } else {
                self.free_slot(slot);
            }
        }
    }

    /// The key of `slot` may have lost its last state.
    pub fn notice_idle(&mut self, slot: Slot) {
        self.idle.push_back((self.stamp, slot.0));
    }

    /// Moves the clock hand on to the next key that was not used for long, at most one round. None: nothing can be taken.
    pub fn next_victim(&mut self, steps_left: &mut usize) -> Option<Slot> {
        while *steps_left > 0 {
            *steps_left -= 1;
            if self.hand >= self.slots() {
                (self.hand, self.round_stamp) = (0, self.stamp);
            }
            let slot = self.hand as u32;
            self.hand += 1;
            let (row, used) = (self.rows.row(slot), self.rows.row(slot)[0] as u32);
            if row[3] != FREE && !self.is_live_stamp(used) && used <= self.round_stamp {
                return Some(Slot(slot));
            }
        }
        None
    }

    /// The slot of a key, if it is in the table.
    pub fn find(&self, key: &[u8], group: KeyGroup) -> Option<Slot> {
        let hash = xxhash_rust::xxh3::xxh3_64(key);
        let words = key_words(key, group, hash);
        self.index.find(Tag::of(hash), |slot| self.matches(slot, &words, key)).map(Slot)
    }

    /// Gives the rows `record_words` words behind the key; `convert` is given each used slot, its old row and its new one.
    pub fn relayout(&mut self, record_words: usize, mut convert: impl FnMut(Slot, &[u64], &mut [u64])) {
        let old = std::mem::replace(&mut self.rows, Rows::new(ROW_HEAD_WORDS + record_words));
        for before in (0..old.len() as u32).map(|slot| old.row(slot)) {
            let slot = self.rows.push();
            let after = self.rows.row_mut(slot);
            after[..ROW_HEAD_WORDS].copy_from_slice(&before[..ROW_HEAD_WORDS]);
            if before[3] != FREE {
                convert(Slot(slot), before, after);
            }
        }
    }

    /// The key of a slot in use, and its group.
    pub fn key(&self, slot: Slot, out: &mut Vec<u8>) -> KeyGroup {
        let row = self.rows.row(slot.0);
        if is_outside(row) {
            out.extend_from_slice(self.long_keys.get(row[1] as u32, long_length(row)));
            return KeyGroup((row[3] >> 40) as u16);
        }
        inline_key(&row[1..ROW_HEAD_WORDS], out)
    }

    /// The words of a slot's key; none: it lies outside its row.
    #[inline(always)]
    pub fn inline_words(&self, slot: Slot) -> Option<&[u64]> {
        let row = self.rows.row(slot.0);
        (!is_outside(row)).then(|| &row[1..ROW_HEAD_WORDS])
    }

    /// The keys of slots in use.
    pub fn keys(&self, slots: &[Slot]) -> EncodedKeys {
        let (mut keys, mut bytes) = (EncodedKeys::default(), Vec::new());
        for &slot in slots {
            bytes.clear();
            let group = self.key(slot, &mut bytes);
            keys.push_in_group(&bytes, group);
        }
        keys
    }

    /// Whether `slot` holds a key.
    pub fn is_used(&self, slot: u32) -> bool {
        self.rows.row(slot)[3] != FREE
    }

    /// Takes a key out. Its records are zeroed.
    pub fn free_slot(&mut self, slot: u32) {
        let mut key = Vec::new();
        self.key(Slot(slot), &mut key);
        self.index.remove(Tag::of(xxhash_rust::xxh3::xxh3_64(&key)), slot);
        let row = self.rows.row_mut(slot);
        if is_outside(row) {
            self.long_keys.remove(row[1] as u32, key.len());
        }
        row.fill(0);
        row[3] = FREE;
        self.free.push(slot);
        self.live -= 1;
    }
}

/// The rows of a stage of a batch of so many; behind the end there are none.
fn stage_rows(stage: usize, rows: usize) -> Range<usize> {
    (stage * STAGE).min(rows)..((stage + 1) * STAGE).min(rows)
}

/// Whether the key of a row in use lies outside of it.
#[inline(always)]
fn is_outside(row: &[u64]) -> bool {
    row[3] >> 56 == OUTSIDE
}

/// Appends a key that lies in its row, of which these are the words; gives its group.
pub(crate) fn inline_key(words: &[u64], out: &mut Vec<u8>) -> KeyGroup {
    let mut bytes = [0; 8 * KEY_WORDS];
    words.iter().zip(bytes.chunks_exact_mut(8)).for_each(|(word, chunk)| chunk.copy_from_slice(&word.to_le_bytes()));
    out.extend_from_slice(&bytes[..(words[2] >> 56) as usize]);
    KeyGroup((words[2] >> 40) as u16)
}

/// The length of a key outside its row.
fn long_length(row: &[u64]) -> usize {
    row[3] as u32 as usize
}

#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// The key as it stands in its row; where the bytes of a long key lie is left 0.
#[inline(always)]
fn key_words(key: &[u8], group: KeyGroup, hash: u64) -> KeyWords {
    let length = key.len();
    let tail = u64::from(group.0) << 40 | (length as u64) << 56;
    match length {
        0..=3 => {
            let word = key.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
            [word, 0, tail]
        }
        4..=7 => {
            let half = |at: usize| u64::from(u32::from_le_bytes(key[at..at + 4].try_into().expect("4 bytes")));
            [half(0) | half(length - 4) << (8 * (length - 4)), 0, tail]
        }
        8 => [load(key, 0), 0, tail],
        9..=16 => [load(key, 0), load(key, length - 8) >> (8 * (16 - length)), tail],
        17..=INLINE_MAX => [load(key, 0), load(key, 8), load(key, length - 8) >> (8 * (24 - length)) | tail],
        _ => [0, hash, length as u64 | u64::from(group.0) << 40 | OUTSIDE << 56],
    }
}

#[cfg(test)]
mod tests;
