//! What a checkpoint takes from a store, and reading all of it.

use arrow_array::ArrayRef;
use millstream_model::{ids::Generation, key::EncodedKeys};

use super::{KeyedStore, State};
use crate::{Error, Slot, StoredEntry, generation::Cursor};

/// A slice of the snapshot under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OldEntries {
    /// Entries of states, as they stood at the barrier; the disk must have them before it is cut.
    pub states: Vec<StoredEntry>,
    /// Timers in memory at the barrier. They belong beside the cut disk, not on the disk itself, which holds only later ones.
    pub timers: Vec<StoredEntry>,
    /// Whether this was all.
    pub is_last: bool,
}

/// Values read from a value state: row i is of key i.
#[derive(Clone, Debug)]
pub struct ValuesPage {
    /// The keys, with their groups.
    pub keys: EncodedKeys,
    /// Their values; never null.
    pub values: ArrayRef,
}

/// Values of one page.
const PAGE: usize = 4096;

impl KeyedStore {
    /// A barrier: what is in the store now belongs to the generation that ends, and a snapshot of it begins. Costs the same for any number of
    /// keys. A snapshot that was under way is given up.
    pub fn advance_generation(&mut self) -> Generation {
        self.generations.advance()
    }

    /// The next slice of the snapshot under way, some `limit` entries: what the disk lacks. Between two slices the stream may go on.
    ///
    /// # Errors
    /// [`Error::InvalidUse`]: no snapshot is under way.
    pub fn old_generation_entries(&mut self, limit: usize) -> Result<OldEntries, Error> {
        let Some(mut cursor) = self.generations.cursor().cloned() else { return Err(Error::InvalidUse("no snapshot is under way".into())) };
        let mut entries = self.generations.take_copies();
        let parts = self.states.len() + self.timers.names();
        while entries.len() < limit && cursor.part < parts {
            let (more, next) = self.owed(&cursor, limit);
            entries.extend(more);
            cursor = next.unwrap_or(Cursor { part: cursor.part + 1, ..Cursor::default() });
        }
        let is_last = cursor.part >= parts;
        self.generations.move_cursor(cursor);
        let is_timer = |entry: &StoredEntry| self.timers.has_prefix(&entry.key);
        let (timers, states) = entries.into_iter().partition(is_timer);
        Ok(OldEntries { states, timers, is_last })
    }

    /// Some entries of one part, and where to go on in it.
    fn owed(&self, cursor: &Cursor, limit: usize) -> (Vec<StoredEntry>, Option<Cursor>) {
        let by_key =
            |(entries, next): (Vec<StoredEntry>, Option<Vec<u8>>)| (entries, next.map(|key| Cursor { part: cursor.part, slot: 0, key }));
        match self.states.get(cursor.part) {
            Some(State::Value(value)) => {
                let end = self.table.slots().min(cursor.slot as usize + limit) as u32;
                let owed = |slot: &Slot| self.table.is_used(slot.0) && value.is_owed(*slot, &self.table, &self.generations);
                let slots: Vec<Slot> = (cursor.slot..end).map(Slot).filter(owed).collect();
                let next = ((end as usize) < self.table.slots()).then_some(Cursor { part: cursor.part, slot: end, key: Vec::new() });
                (value.entries(&slots, &self.table), next)
            }
            Some(State::Collection(collection)) => by_key(collection.owed(&cursor.key, limit, &self.generations)),
            None => by_key(self.timers.owed(cursor.part - self.states.len(), &cursor.key, limit, &self.generations)),
        }
    }

    /// The snapshot is taken: every slice was handed out, and with a disk it was written and the disk was cut. Costs the same for any number of
    /// keys.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn finish_generation(&mut self) -> Result<(), Error> {
        self.generations.finish();
        self.timers.finish_generation(self.disk.as_mut())
    }

    /// Writes a slice's entries of states to the disk; nothing without one.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn write_old_entries(&mut self, entries: &OldEntries) -> Result<(), Error> {
        match &mut self.disk {
            Some(disk) if !entries.states.is_empty() => disk.write(&entries.states),
            _ => Ok(()),
        }
    }

    /// Reads all values of a value state, page by page, in no order; times to live are not looked at.
    ///
    /// # Errors
    /// As [`Self::load`]; or what `visit` returns.
    pub fn read_values(&self, state: usize, mut visit: impl FnMut(ValuesPage) -> Result<(), Error>) -> Result<(), Error> {
        let Some(State::Value(value)) = self.states.get(state) else { return Err(self.wrong_kind(state, "value")) };
        for slots in value.present(&self.table).chunks(PAGE) {
            let mut keys = EncodedKeys::default();
            let mut bytes = Vec::new();
            for &slot in slots {
                bytes.clear();
                let group = self.table.key(slot, &mut bytes);
                keys.push_in_group(&bytes, group);
            }
            visit(ValuesPage { keys, values: value.read(slots, &self.table)? })?;
        }
        let Some(disk) = &self.disk else { return Ok(()) };
        value.read_disk(
            disk,
            PAGE,
            |key, group| self.table.find(key, group).is_some_and(|slot| value.is_known(slot, &self.table)),
            |keys, values| visit(ValuesPage { keys, values }),
        )
    }
}
