//! The timers of one name that are set to one time.
//!
//! A bucket is a log: setting and deleting append, the last word on a key counts. A small bucket looks for the key at once; a large one (a
//! window's end, shared by a million keys) settles its log when it is read or has doubled, so that each change costs the same.

use hashbrown::HashTable;
use millstream_model::key::KeyGroup;

use super::stored_timer;
use crate::generation::{Generations, StoredEntry};

/// Buckets up to this size are searched at every change.
const SEARCHED_MAX: usize = 16;
/// Smallest log that is settled because of its length.
const SETTLE_MIN: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    entries: Vec<Entry>,
    keys: Vec<u8>,
    /// Entries before this one are gone.
    first: usize,
    /// Entries before this one are settled: one per key.
    settled: usize,
    settle_at: usize,
    has_deletions: bool,
    /// Generation of the last change.
    generation: u32,
    /// If that is the current one: the entries before this one belong to the snapshot under way.
    old: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u32,
    start: u32,
    length: u16,
    group: u16,
    word: Word,
}

/// What an entry says about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Set,
    /// Deleted on disk too. Kept only for timers that the disk may hold.
    Deleted,
    /// The entry counts no more.
    Gone,
}

/// A key, as timers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    pub tag: u32,
    pub group: KeyGroup,
    pub bytes: &'a [u8],
}

impl<'a> Key<'a> {
    pub fn new(hash: u64, group: KeyGroup, bytes: &'a [u8]) -> Self {
        Self { tag: (hash >> 32) as u32, group, bytes }
    }
}

impl Bucket {
    /// Sets or deletes the timer of a key. `may_be_on_disk`: a deletion must be remembered.
    pub fn change(&mut self, key: Key<'_>, word: Word, may_be_on_disk: bool) {
        if self.changes_in_place() {
            self.settle(|_| true);
            match (self.find(self.first, key), word) {
                (Some(at), Word::Deleted) if !may_be_on_disk => self.drop_entry(at),
                (Some(at), word) => {
                    self.entries[at].word = word;
                    self.has_deletions |= word == Word::Deleted;
                }
                (None, Word::Deleted) if !may_be_on_disk => {}
                (None, word) => {
                    self.push(key, word);
                    self.settled = self.entries.len();
                }
            }
            return;
        }
        self.push(key, word);
    }

    /// Before a change: entries of the snapshot under way stay told apart from those that come.
    pub fn begin_change(&mut self, generations: &Generations) {
        if self.generation != generations.current() {
            self.old = self.owed_entries(generations);
            self.generation = generations.current();
        }
    }

    /// The entries before this one belong to the snapshot under way.
    pub fn owed_entries(&self, generations: &Generations) -> usize {
        if generations.belongs_to_snapshot(self.generation) {
            self.entries.len()
        } else if generations.is_pending() && self.generation == generations.current() {
            self.old
        } else {
            0
        }
    }

    /// Before entries change in their place, or move: the snapshot under way gets what it is owed from entry `place` on.
    pub fn copy_owed(&mut self, prefix: u16, time: i64, place: usize, generations: &mut Generations) {
        let owed = place..self.owed_entries(generations);
        let copies: Vec<StoredEntry> =
            owed.filter_map(|at| self.entry(at)).map(|(key, word)| stored_timer(prefix, time, key, word)).collect();
        generations.keep_copies(copies);
        self.old = 0;
    }

    /// Whether [`Self::change`] looks for the key, and changes its entry.
    pub fn changes_in_place(&self) -> bool {
        self.entries.len() - self.first <= SEARCHED_MAX
    }

    /// Entry `at`; none: it is gone.
    pub fn entry(&self, at: usize) -> Option<(Key<'_>, Word)> {
        let entry = &self.entries[at];
        (entry.word != Word::Gone).then(|| (self.key(entry), entry.word))
    }

    /// Whether there is one entry per key, and none is a deletion.
    pub fn is_settled(&self) -> bool {
        self.settled == self.entries.len() && !self.has_deletions
    }

    /// Whether the log has grown so much that settling it is due.
    pub fn is_unsettled(&self) -> bool {
        self.entries.len() > self.settle_at.max(SETTLE_MIN)
    }

    fn push(&mut self, key: Key<'_>, word: Word) {
        let start = u32::try_from(self.keys.len()).expect("the timers of one time stay below 4 GiB of keys");
        self.keys.extend_from_slice(key.bytes);
        self.has_deletions |= word == Word::Deleted;
        self.entries.push(Entry { tag: key.tag, start, length: key.bytes.len() as u16, group: key.group.0, word });
    }

    fn key(&self, entry: &Entry) -> Key<'_> {
        let start = entry.start as usize;
        Key { tag: entry.tag, group: KeyGroup(entry.group), bytes: &self.keys[start..start + usize::from(entry.length)] }
    }

    fn find(&self, from: usize, key: Key<'_>) -> Option<usize> {
        (from..self.entries.len()).find(|&at| self.entries[at].word != Word::Gone && self.key(&self.entries[at]) == key)
    }

    fn drop_entry(&mut self, at: usize) {
        self.entries[at].word = Word::Gone;
        while self.first < self.entries.len() && self.entries[self.first].word == Word::Gone {
            self.first += 1;
        }
    }

    /// One entry per key, in the order in which they were first set; a deletion stays only where `keeps_deletion` says so.
    pub fn settle(&mut self, keeps_deletion: impl Fn(Key<'_>) -> bool) {
        if self.is_settled() {
            return;
        }
        let log = std::mem::take(self);
        let mut numbers: HashTable<usize> = HashTable::with_capacity(log.entries.len() - log.first);
        let mut last: Vec<Entry> = Vec::with_capacity(log.entries.len() - log.first);
        for entry in log.entries[log.first..].iter().filter(|entry| entry.word != Word::Gone) {
            let key = log.key(entry);
            let same = numbers.find(u64::from(entry.tag).wrapping_mul(HASH_SPREAD), |&number| log.key(&last[number]) == key);
            match same {
                Some(&number) => last[number].word = entry.word,
                None => {
                    numbers.insert_unique(u64::from(entry.tag).wrapping_mul(HASH_SPREAD), last.len(), |&number| {
                        u64::from(last[number].tag).wrapping_mul(HASH_SPREAD)
                    });
                    last.push(*entry);
                }
            }
        }
        (self.generation, self.old) = (log.generation, log.old);
        for entry in last {
            let key = log.key(&entry);
            if entry.word == Word::Set || keeps_deletion(key) {
                self.push(key, entry.word);
            }
        }
        self.settled = self.entries.len();
        self.settle_at = 2 * self.entries.len();
    }

    /// The settled timers from entry `from` on, with their numbers.
    pub fn timers(&self) -> impl Iterator<Item = (Key<'_>, Word)> {
        let live = self.entries[self.first..].iter().filter(|entry| entry.word != Word::Gone);
        live.map(|entry| (self.key(entry), entry.word))
    }

    /// Removes timers that [`Self::timers`] gave, in its order. `on_removed` is told of each, with its number.
    pub fn remove<'a>(&mut self, keys: impl Iterator<Item = Key<'a>>, mut on_removed: impl FnMut(usize, Key<'a>, Word)) {
        let mut from = self.first;
        for key in keys {
            let found = self.find(from, key).or_else(|| self.find(self.first, key));
            if let Some(at) = found {
                on_removed(at, key, self.entries[at].word);
                self.entries[at].word = Word::Gone;
                from = at + 1;
            }
        }
        while self.first < self.entries.len() && self.entries[self.first].word == Word::Gone {
            self.first += 1;
        }
    }

    /// Puts timers from the disk before the log.
    pub fn put_before(&mut self, timers: Self) {
        let log = std::mem::replace(self, timers);
        (self.generation, self.old) = (log.generation, log.old);
        self.settled = 0;
        for (key, word) in log.timers() {
            self.push(key, word);
        }
    }

    /// Takes in a timer from the disk, which has each only once.
    pub fn put_stored(&mut self, key: Key<'_>) {
        self.push(key, Word::Set);
        self.settled = self.entries.len();
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.first == self.entries.len()
    }

    /// Number of entries, those counted that may cancel each other.
    pub fn len(&self) -> usize {
        self.entries.len() - self.first
    }

    /// Memory in use.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + 32 + self.entries.len() * size_of::<Entry>() + self.keys.len()
    }
}

/// Spreads the 32 bits of a tag over the 64 that the hash table looks at (Fibonacci hashing).
const HASH_SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
