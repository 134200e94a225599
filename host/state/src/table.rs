//! The key table: every key that the store has seen of late, and beside it its values.
//!
//! # Memory
//! `index` is open addressing with linear probing over words `tag << 32 | slot + 1` (0 = empty). The tag is the upper half of the key's hash and
//! also gives the place (its upper bits), so growing needs no key. `rows` has one record per slot:
//! ```text
//! word 0        low half: stamp of the last key set with this key; high half: its number in that key set
//! words 1..4    the key: up to 21 bytes, then key group (2 bytes), then length (1 byte);
//!               a longer key: where its bytes are, hash, length (4 bytes) and a zero byte, group, 255. A free slot: word 3 is all ones
//! words 4..     the records of the value states, see `layout`
//! ```
//! So a known key costs two cache misses, one in the index and one in the row. [`KeyTable::resolve`] works in stages of 256 rows (prefetch the
//! index, probe it and prefetch the row, compare), so that the misses of a stage overlap. The stamp finds the distinct keys of a batch in the same
//! pass, without a second map.
//!
//! # Making room
//! A clock hand sweeps the slots and passes over what was used since its last round. The keys of the last [`KEY_SETS_LIVE`] key sets are never
//! taken, so slot numbers in them stay good. A key without any state leaves by itself soon after its last use.

mod long_keys;
mod rows;

use std::{collections::VecDeque, ops::Range};

use millstream_model::key::{EncodedKeys, KEY_BYTES_MAX, KeyGroup};

use crate::{Error, KEY_SETS_LIVE, Slot, memory::prefetch};
use long_keys::LongKeys;
pub(crate) use rows::Rows;

/// Words of a row before the first record.
pub(crate) const ROW_HEAD_WORDS: usize = 4;
/// Rows of one stage of [`KeyTable::resolve`].
const STAGE: usize = 256;
/// Longest key inside a row.
const INLINE_MAX: usize = 21;
/// Length byte of a key outside its row.
const OUTSIDE: u64 = 255;
const FREE: u64 = u64::MAX;
const NO_SLOT: u32 = u32::MAX;
const INDEX_LEN_MIN: usize = 256;

pub(crate) struct KeyTable {
    index: Vec<u64>,
    /// Bits of a tag that do not take part in the place.
    place_shift: u32,
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
type KeyWords = [u64; 3];

impl KeyTable {
    /// A table whose rows have `record_words` words behind the key.
    pub fn new(record_words: usize, groups: Range<u16>) -> Self {
        Self {
            index: vec![0; INDEX_LEN_MIN],
            place_shift: 32 - INDEX_LEN_MIN.trailing_zeros(),
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
        self.index.len() * 8 + self.live * self.rows.stride() * 8 + self.long_keys.used_bytes()
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
        let mut found = Resolved { slots: Vec::with_capacity(rows), first_row: Vec::with_capacity(rows), of_row: None, stamp: self.stamp };
        let mut of_row: Vec<u32> = Vec::with_capacity(rows);
        let mut candidates = [NO_SLOT; STAGE];
        for start in (0..rows).step_by(STAGE) {
            let stage = start..(start + STAGE).min(rows);
            self.reserve_index(stage.len());
            self.find_candidates(&keys.hashes()[stage.clone()], &mut candidates);
            for (row, &candidate) in stage.zip(&candidates) {
                let (key, group) = (keys.key(row), keys.group(row));
                let words = key_words(key, group, keys.hashes()[row]);
                let slot = if candidate != NO_SLOT && self.matches(candidate, &words, key) {
                    candidate
                } else {
                    self.find_or_insert(keys.hashes()[row], words, key, &mut on_new)?
                };
                let head = &mut self.rows.row_mut(slot)[0];
                let number = if *head as u32 == self.stamp {
                    (*head >> 32) as u32
                } else {
                    let number = found.slots.len() as u32;
                    *head = u64::from(self.stamp) | u64::from(number) << 32;
                    found.slots.push(Slot(slot));
                    found.first_row.push(row as u32);
                    number
                };
                of_row.push(number);
            }
        }
        found.of_row = (found.slots.len() < rows).then_some(of_row);
        Ok(found)
    }

    /// Stages one and two: the slot whose tag fits each hash, if any; its row is on the way to the cache.
    fn find_candidates(&self, hashes: &[u64], candidates: &mut [u32; STAGE]) {
        for hash in hashes {
            prefetch(&self.index, self.place(tag(*hash)));
        }
        for (hash, candidate) in hashes.iter().zip(candidates.iter_mut()) {
            let tag = tag(*hash);
            let mut place = self.place(tag);
            *candidate = loop {
                let entry = self.index[place];
                if entry == 0 {
                    break NO_SLOT;
                }
                if (entry >> 32) as u32 == tag {
                    break entry as u32 - 1;
                }
                place = (place + 1) & (self.index.len() - 1);
            };
            if *candidate != NO_SLOT {
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

    fn matches(&self, slot: u32, words: &KeyWords, key: &[u8]) -> bool {
        let row = self.rows.row(slot);
        if words[2] >> 56 == OUTSIDE {
            return row[2] == words[1] && row[3] == words[2] && self.long_keys.get(row[1] as u32, key.len()) == key;
        }
        row[1] == words[0] && row[2] == words[1] && row[3] == words[2]
    }

    fn find_or_insert(&mut self, hash: u64, words: KeyWords, key: &[u8], on_new: &mut impl FnMut(&mut [u64])) -> Result<u32, Error> {
        let tag = tag(hash);
        let mut place = self.place(tag);
        loop {
            let entry = self.index[place];
            if entry == 0 {
                break;
            }
            if (entry >> 32) as u32 == tag && self.matches(entry as u32 - 1, &words, key) {
                return Ok(entry as u32 - 1);
            }
            place = (place + 1) & (self.index.len() - 1);
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
        self.index[place] = u64::from(tag) << 32 | u64::from(slot + 1);
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

    #[inline(always)]
    fn place(&self, tag: u32) -> usize {
        (tag >> self.place_shift) as usize
    }

    /// Keeps the index at most 70 % full with `more` new keys.
    fn reserve_index(&mut self, more: usize) {
        while (self.live + more) * 10 > self.index.len() * 7 {
            self.grow_index();
        }
    }

    fn grow_index(&mut self) {
        let old = std::mem::take(&mut self.index);
        self.index = vec![0; old.len() * 2];
        self.place_shift -= 1;
        for entry in old.into_iter().filter(|&entry| entry != 0) {
            let mut place = self.place((entry >> 32) as u32);
            while self.index[place] != 0 {
                place = (place + 1) & (self.index.len() - 1);
            }
            self.index[place] = entry;
        }
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
        let (tag, words) = (tag(hash), key_words(key, group, hash));
        let mut place = self.place(tag);
        loop {
            let entry = self.index[place];
            if entry == 0 {
                return None;
            }
            if (entry >> 32) as u32 == tag && self.matches(entry as u32 - 1, &words, key) {
                return Some(Slot(entry as u32 - 1));
            }
            place = (place + 1) & (self.index.len() - 1);
        }
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
        let length = row[3] >> 56;
        if length == OUTSIDE {
            out.extend_from_slice(self.long_keys.get(row[1] as u32, long_length(row)));
        } else {
            let mut bytes = [0; 24];
            row[1..ROW_HEAD_WORDS]
                .iter()
                .zip(bytes.chunks_exact_mut(8))
                .for_each(|(word, chunk)| chunk.copy_from_slice(&word.to_le_bytes()));
            out.extend_from_slice(&bytes[..length as usize]);
        }
        KeyGroup((row[3] >> 40) as u16)
    }

    /// Whether `slot` holds a key.
    pub fn is_used(&self, slot: u32) -> bool {
        self.rows.row(slot)[3] != FREE
    }

    /// Takes a key out. Its records are zeroed.
    pub fn free_slot(&mut self, slot: u32) {
        let mut key = Vec::new();
        self.key(Slot(slot), &mut key);
        self.remove_from_index(tag(xxhash_rust::xxh3::xxh3_64(&key)), slot);
        let row = self.rows.row_mut(slot);
        if row[3] >> 56 == OUTSIDE {
            self.long_keys.remove(row[1] as u32, key.len());
        }
        row.fill(0);
        row[3] = FREE;
        self.free.push(slot);
        self.live -= 1;
    }

    /// Removes an entry and moves back those behind it that probed over it (Knuth, 6.4, algorithm R).
    fn remove_from_index(&mut self, tag: u32, slot: u32) {
        let mask = self.index.len() - 1;
        let wanted = u64::from(tag) << 32 | u64::from(slot + 1);
        let mut hole = self.place(tag);
        while self.index[hole] != wanted {
            assert!(self.index[hole] != 0, "a used slot is in the index");
            hole = (hole + 1) & mask;
        }
        let mut next = hole;
        loop {
            next = (next + 1) & mask;
            let entry = self.index[next];
            if entry == 0 {
                break;
            }
            let home = self.place((entry >> 32) as u32);
            let distance_to_hole = hole.wrapping_sub(home) & mask;
            if distance_to_hole < next.wrapping_sub(home) & mask {
                self.index[hole] = entry;
                hole = next;
            }
        }
        self.index[hole] = 0;
    }
}

/// The length of a key outside its row.
fn long_length(row: &[u64]) -> usize {
    row[3] as u32 as usize
}

#[inline(always)]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
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
