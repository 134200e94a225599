//! Which keys have rows in which pane: what windows of several panes, early results and late results are found by.
//!
//! It holds no values, only keys, and mirrors the timers of the store (every pane of a key has one, at the time when it is forgotten), so that
//! it can be made again from them. It stays in memory: some 40 bytes and the key per (key, pane).

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use hashbrown::HashTable;
use millstream_model::key::{EncodedKeys, KeyGroup};

use super::state_key;

/// The panes that are held, by their start.
#[derive(Debug, Default)]
pub struct PaneIndex {
    panes: BTreeMap<i64, PaneKeys>,
}

/// The keys that have rows in one pane.
#[derive(Debug, Default)]
pub struct PaneKeys {
    /// State keys, in the order in which they were added; shared with lookups in state.
    pub state_keys: Arc<EncodedKeys>,
    hashes: Vec<u64>,
    numbers: HashTable<u32>,
}

impl PaneKeys {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The user's key number `number`.
    pub fn key(&self, number: usize) -> &[u8] {
        state_key::user_key(self.state_keys.key(number))
    }

    /// The hash of the user's key number `number`.
    pub fn hash(&self, number: usize) -> u64 {
        self.hashes[number]
    }

    /// The number of a key; none: it has no rows here.
    pub fn number_of(&self, key: &[u8], hash: u64) -> Option<usize> {
        self.numbers.find(hash, |&number| self.key(number as usize) == key).map(|&number| number as usize)
    }

    fn insert(&mut self, key: &[u8], hash: u64, group: KeyGroup, pane: i64) -> bool {
        if self.number_of(key, hash).is_some() {
            return false;
        }
        Arc::make_mut(&mut self.state_keys).push_in_group(&state_key::of_pane(key, pane), group);
        let number = self.hashes.len() as u32;
        self.hashes.push(hash);
        let hashes = &self.hashes;
        self.numbers.insert_unique(hash, number, |&number| hashes[number as usize]);
        true
    }
}

impl PaneIndex {
    /// Notes that a key has rows in a pane; whether that is new.
    pub fn insert(&mut self, key: &[u8], hash: u64, group: KeyGroup, pane: i64) -> bool {
        self.panes.entry(pane).or_default().insert(key, hash, group, pane)
    }

    /// Adds everything that `other` holds.
    pub fn insert_all(&mut self, other: &Self) {
        for (&pane, keys) in &other.panes {
            (0..keys.len()).for_each(|number| {
                self.insert(keys.key(number), keys.hash(number), keys.state_keys.group(number), pane);
            });
        }
    }

    /// The panes that start in `starts`, ascending.
    pub fn panes(&self, starts: Range<i64>) -> impl Iterator<Item = (i64, &PaneKeys)> {
        self.panes.range(starts).map(|(&start, keys)| (start, keys))
    }

    /// Forgets the first panes as long as `is_over` says so of their start.
    pub fn forget_while(&mut self, is_over: impl Fn(i64) -> bool) {
        while let Some(first) = self.panes.first_entry()
            && is_over(*first.key())
        {
            first.remove();
        }
    }
}
