//! Keeping a store inside its memory budget.

use super::{KeyedStore, Slot, State};
use crate::{Error, collections, generation::StoredEntry, rocks::Disk, values};

/// Keys that leave memory at a time.
const EVICTED_TOGETHER: usize = 1024;
/// The part of the memory budget that is made free at a time: one of so many. More would empty memory that is in use, and hold up the stream.
const ROOM_SHARE: usize = 64;
/// Slots and entries looked at per batch for values that are over.
const SWEPT_TOGETHER: usize = 64;

impl KeyedStore {
    /// Memory of the key table, its cached values, overlays and pending timers.
    pub(super) fn memory_bytes(&self) -> usize {
        self.table.bytes() + self.timers.bytes() + self.states.iter().map(State::bytes).sum::<usize>()
    }

    /// Memory and disk, for who looks at them; asking RocksDB is not free.
    pub(super) fn note_size(&self) {
        self.size.note_memory(self.memory_bytes());
        self.size.note_disk(self.disk.as_ref().map_or(0, Disk::bytes));
    }

    fn overlay_bytes(&self) -> usize {
        self.states.iter().filter(|state| matches!(state, State::Collection(_))).map(State::bytes).sum()
    }

    /// Reads what is still to be read after a restore, lets go of what needs no memory any more, then of what has not been used for long.
    pub(super) fn make_room(&mut self) -> Result<(), Error> {
        self.warm()?;
        let (states, generations) = (&self.states, &self.generations);
        self.table.free_idle(|row| states.iter().any(|state| state.has_state(row, generations)));
        self.sweep();
        let needed_bytes = self.memory_bytes();
        if needed_bytes <= self.memory_budget_bytes {
            self.size.note_memory(needed_bytes);
            return Ok(());
        }
        if self.disk.is_none() {
            return Err(Error::OutOfBudget { needed_bytes, budget_bytes: self.memory_budget_bytes });
        }
        let target = self.memory_budget_bytes - self.memory_budget_bytes / ROOM_SHARE;
        // Ordered parts go first where they are large: they are written in order and read in ranges.
        if self.overlay_bytes() > self.memory_budget_bytes / 4 {
            self.flush_overlays()?;
        }
        if self.timers.bytes() > self.memory_budget_bytes / 4 {
            self.spill_timers(self.memory_budget_bytes / 8)?;
        }
        self.evict_keys(target)?;
        if self.memory_bytes() > target {
            self.flush_overlays()?;
            self.spill_timers(0)?;
        }
        self.note_size();
        Ok(())
    }

    /// Deletes some values in memory that are over, on from where it stopped last.
    fn sweep(&mut self) {
        let slots = self.table.slots();
        let range = self.swept_to.min(slots)..(self.swept_to + SWEPT_TOGETHER).min(slots);
        self.swept_to = if range.end == slots { 0 } else { range.end };
        let used: Vec<Slot> = range.filter(|&slot| self.table.is_used(slot as u32)).map(|slot| Slot(slot as u32)).collect();
        for state in &mut self.states {
            let Some(ttl) = state.descriptor().ttl else { continue };
            let now = self.expiry.now(ttl.clock);
            let (generations, disk) = (&mut self.generations, self.disk.as_ref());
            match state {
                State::Value(value) => {
                    value.delete_over(ttl, &used, &mut values::Context { table: &mut self.table, generations, disk, now })
                }
                State::Collection(collection) => collection.sweep(SWEPT_TOGETHER, &mut collections::Context { generations, disk, now }),
            }
        }
    }

    fn flush_overlays(&mut self) -> Result<(), Error> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        for state in &mut self.states {
            if let State::Collection(collection) = state {
                collection.flush(disk, &self.generations)?;
            }
        }
        Ok(())
    }

    fn spill_timers(&mut self, target_bytes: usize) -> Result<(), Error> {
        match &mut self.disk {
            Some(disk) => self.timers.spill(target_bytes, disk, &self.generations),
            None => Ok(()),
        }
    }

    /// Takes keys out of the table until the store has `target_bytes`, as far as they can be taken.
    fn evict_keys(&mut self, target_bytes: usize) -> Result<(), Error> {
        // The hand may need one round to see what has been used since its last, and one to take.
        let mut rounds_left = 2;
        while self.memory_bytes() > target_bytes && rounds_left > 0 {
            let victims = self.pick_victims();
            if victims.len() < EVICTED_TOGETHER {
                rounds_left -= 1;
            }
            self.save(&victims)?;
            (self.is_covered, self.warming) = (false, None);
            for &victim in &victims {
                for state in &mut self.states {
                    if let State::Value(value) = state {
                        value.forget(victim);
                    }
                }
                self.table.free_slot(victim.0);
            }
            self.keys_evicted += victims.len() as u64;
        }
        Ok(())
    }

    fn pick_victims(&mut self) -> Vec<Slot> {
        let mut steps_left = self.table.slots();
        let mut victims = Vec::with_capacity(EVICTED_TOGETHER);
        while victims.len() < EVICTED_TOGETHER
            && let Some(slot) = self.table.next_victim(&mut steps_left)
        {
            let may_leave = |state: &State| match state {
                State::Value(value) => value.may_leave(slot, &self.table, &self.generations),
                State::Collection(_) => true,
            };
            if self.states.iter().all(may_leave) {
                victims.push(slot);
            }
        }
        victims
    }

    /// Writes what memory has newer than the disk.
    fn save(&mut self, slots: &[Slot]) -> Result<(), Error> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let mut entries: Vec<StoredEntry> = Vec::new();
        for state in &self.states {
            if let State::Value(value) = state {
                let unsaved: Vec<Slot> =
                    slots.iter().copied().filter(|&slot| value.is_unsaved(slot, &self.table, &self.generations)).collect();
                entries.extend(value.entries(&unsaved, &self.table));
            }
        }
        if entries.is_empty() && disk.is_open() {
            return Ok(());
        }
        entries.sort_unstable();
        disk.write(&entries)
    }

    /// Writes everything that may be written to disk; memory keeps what it has. Does nothing without a disk.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.disk.is_none() {
            return Ok(());
        }
        self.flush_overlays()?;
        self.spill_timers(0)?;
        let leaves = |state: &State, slot: Slot| match state {
            State::Value(value) => value.may_leave(slot, &self.table, &self.generations),
            State::Collection(_) => true,
        };
        let used = (0..self.table.slots() as u32).filter(|&slot| self.table.is_used(slot)).map(Slot);
        let slots: Vec<Slot> = used.filter(|&slot| self.states.iter().all(|state| leaves(state, slot))).collect();
        for chunk in slots.chunks(EVICTED_TOGETHER) {
            self.save(chunk)?;
            for state in &self.states {
                if let State::Value(value) = state {
                    chunk.iter().for_each(|&slot| value.mark_saved(slot, &mut self.table));
                }
            }
        }
        Ok(())
    }
}
