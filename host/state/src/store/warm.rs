//! After a restore: the values that lie on disk are read into the key table in their order there, as long as memory takes them easily: the first
//! two million at once, before the first batch, the others some with every batch.
//!
//! Else every key would be looked up on disk, one by one in the order of the stream, when it is met again: for a million keys that takes many
//! times as long as reading them once, just when the job is behind. A state that is larger than memory comes as it is asked for.

use std::ops::ControlFlow;

use millstream_model::key::{EncodedKeys, KeyGroup};

use super::{KeyedStore, State, restore::group_key};
use crate::{Error, Slot};

/// Values that are read with a batch: about a millisecond.
const PAGE: usize = 4096;
/// Pages that are read before the first batch: less than a second.
const PAGES_AT_ONCE: usize = if cfg!(test) { 1 } else { 512 };
/// The part of the memory budget that may be taken: one of so many.
const SHARE: usize = 2;

/// How far it is.
pub(super) struct Warming {
    /// The state.
    number: usize,
    /// The key on disk to go on from.
    from: Vec<u8>,
}

/// Some values of a state in the order of their keys, and the key to go on from; none: that was all.
struct Page {
    keys: EncodedKeys,
    values: Vec<Vec<u8>>,
    next: Option<Vec<u8>>,
}

impl KeyedStore {
    /// After a restore.
    pub(super) fn begin_warm(&mut self) -> Result<(), Error> {
        self.begin_warming();
        (0..PAGES_AT_ONCE).try_for_each(|_| self.warm())
    }

    /// What lies on disk is read from now on.
    pub(super) fn begin_warming(&mut self) {
        self.warming = self.next_warming(0);
        if self.warming.is_none() {
            // No value state: nothing is asked for.
            self.is_covered = true;
        }
    }

    fn next_warming(&self, from: usize) -> Option<Warming> {
        (from..self.states.len()).find_map(|number| match &self.states[number] {
            State::Value(value) => Some(Warming { number, from: group_key(value.prefix, self.groups.start) }),
            State::Collection(_) => None,
        })
    }

    /// Reads some values. Once all are read, and no key has left memory meanwhile, the disk is not asked any more (`is_covered`): what was written
    /// to it since then is of keys that are in the table.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Backend`].
    pub(super) fn warm(&mut self) -> Result<(), Error> {
        let Some(Warming { number, from }) = self.warming.take() else { return Ok(()) };
        if self.memory_bytes() > self.memory_budget_bytes / SHARE {
            return Ok(());
        }
        let page = self.read_page(number, &from)?;
        let slots = self.table.take_in(&page.keys)?;
        let found: Vec<(Slot, Vec<u8>)> = slots.into_iter().zip(page.values).collect();
        for state in &mut self.states {
            if let State::Value(value) = state {
                value.reserve(self.table.slots());
            }
        }
        if let State::Value(value) = &mut self.states[number] {
            value.take_in_unknown(found, &mut self.table)?;
        }
        self.warming = match page.next {
            Some(from) => Some(Warming { number, from }),
            None => self.next_warming(number + 1),
        };
        if self.warming.is_none() {
            self.know_all();
        }
        Ok(())
    }

    fn know_all(&mut self) {
        for state in &self.states {
            if let State::Value(value) = state {
                value.know_all(&mut self.table);
            }
        }
        self.is_covered = true;
    }

    fn read_page(&self, number: usize, from: &[u8]) -> Result<Page, Error> {
        let mut page = Page { keys: EncodedKeys::default(), values: Vec::new(), next: None };
        let Some(disk) = &self.disk else { return Ok(page) };
        let to = group_key(self.states[number].prefix(), self.groups.end);
        let mut is_good = true;
        disk.scan(from, &to, false, |key, value| {
            if page.values.len() == PAGE {
                page.next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            // The scan gives keys that begin with the prefix of the state.
            match key[2..].split_first_chunk::<2>() {
                Some((group, key)) => page.keys.push_in_group(key, KeyGroup(u16::from_be_bytes(*group))),
                None => is_good = false,
            }
            page.values.push(value.to_vec());
            if is_good { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if is_good {
            return Ok(page);
        }
        Err(Error::Corrupt { of: self.declared[number].name.clone(), reason: "a key is too short".into() })
    }
}
