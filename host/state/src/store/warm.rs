//! After a restore: values that lie on disk are read into the key table in their order there, if memory takes all of them easily.
//!
//! Else every key would be looked up on disk, one by one in the order of the stream, when it is met again: at a million keys that takes seconds
//! longer than reading them once, and as long the job is behind. A state that is larger stays on disk and comes as it is asked for.

use std::ops::ControlFlow;

use millstream_model::key::{EncodedKeys, KeyGroup};

use super::{KeyedStore, State, restore::group_key};
use crate::{Error, Slot};

/// Values that are read together.
const PAGE: usize = 4096;
/// Rows of more memory than this are not read ahead: that would hold up the start of the job for more than about a second.
const BYTES_MAX: usize = 128 << 20;
/// The part of the memory budget that may be taken: one of so many.
const SHARE: usize = 2;

/// Some values of a state in the order of their keys, and the key to go on from; none: that was all.
struct Page {
    keys: EncodedKeys,
    values: Vec<Vec<u8>>,
    next: Option<Vec<u8>>,
}

impl KeyedStore {
    /// Reads all values of value states into memory, unless they are too many. Then the disk is not asked any more (`is_covered`).
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Backend`].
    pub(super) fn warm(&mut self) -> Result<(), Error> {
        let Some(disk) = self.disk.as_ref().filter(|disk| !self.is_covered && disk.is_open()) else { return Ok(()) };
        let bytes_max = BYTES_MAX.min(self.memory_budget_bytes / SHARE);
        let row_bytes = self.table.row_bytes();
        if disk.estimated_entries().saturating_mul(row_bytes) > bytes_max {
            return Ok(());
        }
        for number in 0..self.states.len() {
            let State::Value(value) = &self.states[number] else { continue };
            let (mut from, to) = (group_key(value.prefix, self.groups.start), group_key(value.prefix, self.groups.end));
            while let Some(next) = self.warm_page(number, &from, &to)? {
                if self.memory_bytes() > bytes_max {
                    return Ok(());
                }
                from = next;
            }
        }
        for state in &self.states {
            if let State::Value(value) = state {
                value.know_all(&mut self.table);
            }
        }
        self.is_covered = true;
        Ok(())
    }

    fn warm_page(&mut self, number: usize, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let page = self.read_page(number, from, to)?;
        let set = self.resolve(page.keys)?;
        let found: Vec<(Slot, Vec<u8>)> = set.slots.iter().copied().zip(page.values).collect();
        if let State::Value(value) = &mut self.states[number] {
            value.take_in_unknown(found, &mut self.table)?;
        }
        Ok(page.next)
    }

    fn read_page(&self, number: usize, from: &[u8], to: &[u8]) -> Result<Page, Error> {
        let mut page = Page { keys: EncodedKeys::default(), values: Vec::new(), next: None };
        let Some(disk) = &self.disk else { return Ok(page) };
        let mut is_good = true;
        disk.scan(from, to, false, |key, value| {
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
