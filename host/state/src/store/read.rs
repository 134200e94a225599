//! Reading all of a store, page by page: what tools show and export, and what a new version of an operator migrates.

use std::ops::ControlFlow;

use arrow_array::ArrayRef;
use millstream_model::key::{EncodedKeys, KeyGroup};

use super::{KeyedStore, State};
use crate::{Error, collections, values};

/// Entries of a page, at most.
pub(crate) const PAGE: usize = 4096;

/// Some entries of a state: row i is of key i.
#[derive(Clone, Debug)]
pub struct StatePage {
    /// The keys, with their groups; with each of its entries once more.
    pub keys: EncodedKeys,
    /// The keys of a map's entries, or the positions of a list's elements (UInt64); none: it holds single values.
    pub map_keys: Option<ArrayRef>,
    /// The values; never null.
    pub values: ArrayRef,
}

/// Some timers: timer i is of key i.
#[derive(Clone, Debug, Default)]
pub struct TimerPage {
    /// The keys, with their groups.
    pub keys: EncodedKeys,
    /// When they fire, ms since epoch; ascending.
    pub at: Vec<i64>,
}

impl KeyedStore {
    /// Reads a state, of one key or of all, page by page until `visit` breaks. What has outlived its time to live is left out; nothing is
    /// refreshed. Of single values those in memory come first; entries of maps and lists come in the order of key groups, keys and map keys.
    ///
    /// # Errors
    /// [`Error::InvalidUse`]: there is no such state, or the keys of the entries of a map cannot be told from its map keys, as these are of
    /// variable length and [`crate::StoreDescription::key_types`] were never given. [`Error::Backend`], [`Error::Corrupt`]; or what `visit`
    /// returns.
    pub fn read_state(
        &self,
        state: usize,
        only: Option<(&[u8], KeyGroup)>,
        mut visit: impl FnMut(StatePage) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let disk = self.disk.as_ref().filter(|disk| disk.is_open());
        match self.states.get(state) {
            None => Err(self.wrong_kind(state, "state")),
            Some(State::Value(value)) => {
                let now = value.descriptor.ttl.and_then(|ttl| self.expiry.now(ttl.clock));
                let reading = values::Reading { table: &self.table, disk, now, only };
                value.read_all(&reading, |keys, values| visit(StatePage { keys, map_keys: None, values }))
            }
            Some(State::Collection(collection)) => {
                let now = collection.descriptor.ttl.and_then(|ttl| self.expiry.now(ttl.clock));
                let reading = collections::Reading { disk, now, only, key_types: &self.key_types };
                collection.read_all(&reading, |keys, map_keys, values| visit(StatePage { keys, map_keys: Some(map_keys), values }))
            }
        }
    }

    /// Reads the timers of one name, of one key or of all, in the order of time, page by page until `visit` breaks.
    ///
    /// # Errors
    /// [`Error::InvalidUse`]: there is no such timer. [`Error::Backend`], [`Error::Corrupt`]; or what `visit` returns.
    pub fn read_timers(
        &self,
        timer: usize,
        only: Option<(&[u8], KeyGroup)>,
        mut visit: impl FnMut(TimerPage) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        if timer >= self.timers.names() {
            return Err(Error::InvalidUse(format!("timer {timer} of {} is out of range", self.timers.names())));
        }
        let mut page = TimerPage::default();
        let mut result = Ok(ControlFlow::Continue(()));
        self.timers.read(timer, self.disk.as_ref(), |at, group, key| {
            if only.is_some_and(|only| only != (key, group)) {
                return ControlFlow::Continue(());
            }
            page.keys.push_in_group(key, group);
            page.at.push(at);
            if page.at.len() == PAGE {
                result = visit(std::mem::take(&mut page));
            }
            if matches!(result, Ok(ControlFlow::Continue(()))) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if result?.is_continue() && !page.at.is_empty() {
            // It was the last page either way.
            let _ = visit(page)?;
        }
        Ok(())
    }
}
