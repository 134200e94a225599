//! Checkpoint generations: how a barrier cuts the state without walking it.
//!
//! Every entry carries the generation of its last change. A barrier only advances the generation; from then on the entries of the old one that
//! are not on disk are *owed* to the snapshot. [`crate::KeyedStore::old_generation_entries`] hands them out in slices, in one pass over the
//! store, and whoever changes an owed entry before the pass has reached it copies it first. Until the snapshot is taken
//! ([`crate::KeyedStore::finish_generation`]), entries of the new generation stay in memory, so that the disk shows the old one. Then the old
//! generation counts as on disk, again without a walk.

use millstream_model::ids::Generation;

/// One entry as it stands on disk; none: it is deleted there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredEntry {
    /// `[prefix u16][key group u16][key][map key]`, big-endian; timers: `[prefix u16][time, sign flipped][key group u16][key]`.
    pub key: Box<[u8]>,
    /// The stored value (see [`crate::row`]); none: deleted.
    pub value: Option<Box<[u8]>>,
}

/// Where in its pass over the store a snapshot is: a part of the store (in the order of states, then timers), and a place inside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub part: usize,
    pub slot: u32,
    pub key: Vec<u8>,
}

/// The generations of one store.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    current: u32,
    /// All entries of generations below this one are on disk.
    durable_below: u32,
    pending: Option<Pending>,
    has_disk: bool,
}

#[derive(Debug)]
struct Pending {
    /// Entries of this generation and those before it belong to the snapshot.
    last: u32,
    cursor: Cursor,
    copied: Vec<StoredEntry>,
}

impl Generations {
    pub fn new(has_disk: bool) -> Self {
        Self { has_disk, ..Self::default() }
    }

    pub fn current(&self) -> u32 {
        self.current
    }

    /// Starts a snapshot; one that was under way is given up (what it was owed is still in memory, in its old form or a newer one).
    pub fn advance(&mut self) -> Generation {
        self.pending = Some(Pending { last: self.current, cursor: Cursor::default(), copied: Vec::new() });
        self.current += 1;
        Generation(self.current)
    }

    /// The snapshot is taken.
    pub fn finish(&mut self) {
        if let Some(pending) = self.pending.take()
            && self.has_disk
        {
            self.durable_below = pending.last + 1;
        }
    }

    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    pub fn cursor(&self) -> Option<&Cursor> {
        self.pending.as_ref().map(|pending| &pending.cursor)
    }

    pub fn move_cursor(&mut self, to: Cursor) {
        if let Some(pending) = &mut self.pending {
            pending.cursor = to;
        }
    }

    /// Whether a changed entry of `generation` is on disk by now.
    pub fn is_durable(&self, generation: u32) -> bool {
        generation < self.durable_below
    }

    /// Whether a changed entry of `generation` is on disk, or will be once the snapshot is taken: deleting it needs a mark.
    pub fn reaches_disk(&self, generation: u32) -> bool {
        self.has_disk && (self.is_durable(generation) || self.belongs_to_snapshot(generation))
    }

    /// Whether a changed entry of `generation` belongs to the snapshot under way.
    pub fn is_old(&self, generation: u32) -> bool {
        !self.is_durable(generation) && self.belongs_to_snapshot(generation)
    }

    /// Whether what last changed in `generation` belongs to the snapshot under way, on disk or not.
    pub fn belongs_to_snapshot(&self, generation: u32) -> bool {
        self.pending.as_ref().is_some_and(|pending| generation <= pending.last)
    }

    /// Whether a changed entry of `generation` may be written to disk now.
    pub fn may_leave(&self, generation: u32) -> bool {
        self.pending.as_ref().is_none_or(|pending| generation <= pending.last)
    }

    /// Whether the pass has yet to come to a place in `part`: an owed entry there must be copied before it changes.
    pub fn is_ahead(&self, part: usize, slot: u32) -> bool {
        self.cursor().is_some_and(|cursor| (part, slot) >= (cursor.part, cursor.slot))
    }

    /// The same for parts that are ordered by key.
    pub fn is_key_ahead(&self, part: usize, key: &[u8]) -> bool {
        self.cursor().is_some_and(|cursor| (part, key) >= (cursor.part, &cursor.key[..]))
    }

    pub fn keep_copies(&mut self, copies: impl IntoIterator<Item = StoredEntry>) {
        if let Some(pending) = &mut self.pending {
            pending.copied.extend(copies);
        }
    }

    pub fn take_copies(&mut self) -> Vec<StoredEntry> {
        self.pending.as_mut().map(|pending| std::mem::take(&mut pending.copied)).unwrap_or_default()
    }
}
