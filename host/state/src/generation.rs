//! Checkpoint generations: how a barrier cuts the state without walking it.
//!
//! Every entry carries the generation of its last change. A barrier only advances the generation; from then on the entries of the old one that
//! are not on disk are *owed* to the snapshot. [`crate::KeyedStore::continue_snapshot`] hands them out in slices, in one pass over the store,
//! and whoever changes an owed entry before the pass has reached it copies it first. A snapshot goes to the *disk* (its entries are written to
//! RocksDB, which is then cut) or to a *collection* of its own. In the first case entries of the new generation stay in memory until the cut is
//! made, so that the disk shows the old one; then the old generation counts as on disk, again without a walk. In the second nothing at all
//! leaves memory before the pass has seen it.

use std::{cmp::Ordering, collections::VecDeque, ops::Range, sync::Arc};

use crate::values::{Copied, CopiedRecords, RecordForm};

/// A slice of a snapshot ends when it has so many bytes, whatever the number of its entries.
pub(crate) const SLICE_BYTES: usize = 1 << 20;

/// One entry as it stands on disk; none: it is deleted there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StoredEntry {
    /// `[prefix u16][key group u16][key][map key]`, big-endian; timers: `[prefix u16][time, sign flipped][key group u16][key]`.
    pub key: Box<[u8]>,
    /// The stored value (see [`crate::row`]); none: deleted.
    pub value: Option<Box<[u8]>>,
}

impl StoredEntry {
    /// Bytes of key and value.
    pub fn len(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, |value| value.len())
    }
}

/// Where in its pass over the store a snapshot is: a part of the store (in the order of states, then timers), and a place inside it. `slot`
/// counts slots of the key table, or entries inside the bucket that `key` names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub part: usize,
    pub key: Vec<u8>,
    pub slot: u32,
}

/// Where the entries of a snapshot go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Disk,
    Collection,
}

/// The generations of one store.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    current: u32,
    /// All entries of generations below this one are on disk.
    durable_below: u32,
    /// Entries of generations below this one may be on disk: a snapshot has written them, or began to and was given up.
    written_below: u32,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    /// Entries of this generation and those before it belong to the snapshot.
    last: u32,
    target: Target,
    cursor: Cursor,
    copied: VecDeque<StoredEntry>,
    records: CopiedRecords,
    /// Records are copied as long as they take less memory; beyond, they are encoded at once and handed out slice by slice.
    records_bytes_max: usize,
    /// The pass is over.
    is_handed_out: bool,
}

impl Generations {
    pub fn current(&self) -> u32 {
        self.current
    }

    /// Starts a snapshot, which may keep so many bytes of copied records.
    pub fn begin(&mut self, target: Target, records_bytes_max: usize) {
        let cursor = Cursor::default();
        let (copied, records) = (VecDeque::new(), CopiedRecords::default());
        self.pending = Some(Pending { last: self.current, target, cursor, copied, records, records_bytes_max, is_handed_out: false });
        self.current += 1;
        if target == Target::Disk {
            self.written_below = self.current;
        }
    }

    /// The snapshot is taken.
    pub fn finish(&mut self) {
        if let Some(pending) = self.pending.take().filter(|pending| pending.target == Target::Disk) {
            self.durable_below = pending.last + 1;
        }
    }

    /// The snapshot is given up: what it was owed is still in memory, in its old form or a newer one.
    pub fn abandon(&mut self) {
        self.pending = None;
    }

    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether a snapshot under way writes to the disk.
    pub fn writes_to_disk(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.target == Target::Disk)
    }

    /// Where the pass stands; none: no snapshot is under way, or all of it was handed out.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.pending.as_ref().filter(|pending| !pending.is_handed_out).map(|pending| &pending.cursor)
    }

    pub fn move_cursor(&mut self, to: Cursor) {
        if let Some(pending) = &mut self.pending {
            pending.cursor = to;
        }
    }

    /// The pass is over.
    pub fn end_pass(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.is_handed_out = true;
        }
    }

    /// Whether a changed entry of `generation` is on disk by now.
    pub fn is_durable(&self, generation: u32) -> bool {
        generation < self.durable_below
    }

    /// Whether a changed entry of `generation` may be on disk, or may come there with the snapshot under way: deleting it needs a mark.
    pub fn reaches_disk(&self, generation: u32) -> bool {
        generation < self.written_below
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
        self.pending.as_ref().is_none_or(|pending| match pending.target {
            Target::Disk => generation <= pending.last,
            Target::Collection => pending.is_handed_out,
        })
    }

    /// The generations whose changed entries [`Self::is_old`].
    pub fn old(&self) -> Range<u32> {
        self.durable_below..self.pending.as_ref().map_or(0, |pending| pending.last + 1)
    }

    /// From which slot on the pass has yet to come to `part`: an owed entry there must be copied before it changes. None: it came by.
    pub fn first_ahead(&self, part: usize) -> Option<u32> {
        let cursor = self.cursor()?;
        match part.cmp(&cursor.part) {
            Ordering::Less => None,
            Ordering::Equal => Some(cursor.slot),
            Ordering::Greater => Some(0),
        }
    }

    /// Whether the pass has yet to come to a place in a part that is ordered by key.
    pub fn is_key_ahead(&self, part: usize, key: &[u8]) -> bool {
        self.cursor().is_some_and(|cursor| (part, key) >= (cursor.part, &cursor.key[..]))
    }

    pub fn keep_copies(&mut self, copies: impl IntoIterator<Item = StoredEntry>) {
        if let Some(pending) = &mut self.pending {
            pending.copied.extend(copies);
        }
    }

    /// Where records of a state are copied to; none: there is no room for more.
    pub fn records(&mut self, part: usize, form: &Arc<RecordForm>) -> Option<&mut Copied> {
        let pending = self.pending.as_mut()?;
        (pending.records.bytes() < pending.records_bytes_max).then(|| pending.records.of(part, form))
    }

    /// The memory of the records copied so far.
    pub fn record_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.records.bytes())
    }

    /// All copied records.
    pub fn take_records(&mut self) -> CopiedRecords {
        self.pending.as_mut().map(|pending| std::mem::take(&mut pending.records)).unwrap_or_default()
    }

    /// The copies kept first, at most so many.
    pub fn take_copies(&mut self, limit: usize) -> Vec<StoredEntry> {
        let copied = self.pending.as_mut().map(|pending| &mut pending.copied);
        copied.map(|copied| copied.drain(..limit.min(copied.len())).collect()).unwrap_or_default()
    }
}
