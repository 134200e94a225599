//! The door: one operator's state in one subtask.

use std::{ops::Range, sync::Arc};

use arrow_array::ArrayRef;
use arrow_buffer::BooleanBuffer;
use millstream_model::{
    ids::Generation,
    key::EncodedKeys,
    state::{Clock, StateDescriptor, TimerDescriptor},
};

use crate::{DueTimers, Error, Found, KeySet, ListUpdate, MapUpdate, Moment, Span, StoreSettings, TimerUpdate, Updates};

/// Keyed state and timers of one operator in one subtask. States and timers are known by their numbers in the declaration.
pub struct KeyedStore {
    states: Vec<StateDescriptor>,
}

/// What a store holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Keys in the key table.
    pub keys_in_table: usize,
    /// Memory of the key table, its cached values, overlays and pending timers.
    pub memory_bytes: usize,
    /// Timers in memory, those counted that a deletion will still cancel.
    pub timers_in_memory: usize,
    /// Bytes in RocksDB files and buffers.
    pub disk_bytes: u64,
    /// Keys written to RocksDB to make room, since the store was opened.
    pub keys_evicted: u64,
}

impl KeyedStore {
    /// An empty store for the keys of `groups`.
    ///
    /// # Errors
    /// A declaration that cannot be kept: [`Error::InvalidDeclaration`].
    pub fn open(_settings: &StoreSettings, _groups: Range<u16>, _states: Vec<StateDescriptor>, _timers: Vec<TimerDescriptor>) -> Result<Self, Error> {
        todo!()
    }

    /// The declared states.
    pub fn states(&self) -> &[StateDescriptor] {
        &self.states
    }

    /// Changes the declarations (a new version of the operator); state is found again by its name, values are read with the rules of
    /// [`crate::row`]. State that is no longer declared is forgotten.
    ///
    /// # Errors
    /// [`Error::InvalidDeclaration`], [`Error::Incompatible`]: nothing was changed.
    pub fn redeclare(&mut self, _states: Vec<StateDescriptor>, _timers: Vec<TimerDescriptor>) -> Result<(), Error> {
        todo!()
    }

    /// Finds the distinct keys of a batch and gives each a slot of the key table; takes them into it as needed.
    ///
    /// # Errors
    /// [`Error::KeyTooLarge`], [`Error::OutOfBudget`], [`Error::Backend`].
    pub fn resolve(&mut self, _keys: impl Into<Arc<EncodedKeys>>) -> Result<KeySet, Error> {
        todo!()
    }

    /// The values of a value state, one per key; null is absence (never written, deleted, or its time to live is over).
    ///
    /// # Errors
    /// [`Error::InvalidUse`], [`Error::Backend`], [`Error::Corrupt`].
    pub fn load(&mut self, _state: usize, _keys: &KeySet, _now: Moment) -> Result<ArrayRef, Error> {
        todo!()
    }

    /// Applies a call as a whole: removes the timers it was given, then makes its changes. Everything is checked before anything is changed.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`], [`Error::WrongType`], [`Error::InvalidUse`]: nothing was applied. [`Error::Backend`].
    pub fn apply(&mut self, _keys: &KeySet, _updates: &Updates, _fired: Option<&DueTimers>, _now: Moment) -> Result<(), Error> {
        todo!()
    }

    /// Writes values of a value state: one of `values` per set bit of `changed` (one bit per key), null deletes.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn update_values(&mut self, _state: usize, _keys: &KeySet, _changed: &BooleanBuffer, _values: &ArrayRef, _now: Moment) -> Result<(), Error> {
        todo!()
    }

    /// One value per request (key number and map key) of an ordered map; null is absence.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn map_get(&mut self, _state: usize, _keys: &KeySet, _key_numbers: &[u32], _map_keys: &ArrayRef, _now: Moment) -> Result<ArrayRef, Error> {
        todo!()
    }

    /// Entries of ordered maps or lists in the given spans, about `bytes_max` bytes at most, but one entry at least if there is any.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn scan(&mut self, _state: usize, _keys: &KeySet, _spans: &[Span], _bytes_max: usize, _now: Moment) -> Result<Found, Error> {
        todo!()
    }

    /// Writes to ordered maps.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn update_map(&mut self, _keys: &KeySet, _update: &MapUpdate, _now: Moment) -> Result<(), Error> {
        todo!()
    }

    /// Clears and appends to lists.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn update_list(&mut self, _keys: &KeySet, _update: &ListUpdate, _now: Moment) -> Result<(), Error> {
        todo!()
    }

    /// Sets and deletes timers.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn update_timers(&mut self, _keys: &KeySet, _update: &TimerUpdate) -> Result<(), Error> {
        todo!()
    }

    /// A time at which [`Self::due`] may find something; never later than the earliest timer of `clock`. None: no timer is set.
    pub fn next_timer(&self, _clock: Clock) -> Option<i64> {
        todo!()
    }

    /// Timers at or before `up_to`: at most one per key, its earliest, and at most `limit`. They stay set. None: no timer is due.
    ///
    /// # Errors
    /// [`Error::Backend`], [`Error::Corrupt`].
    pub fn due(&mut self, _clock: Clock, _up_to: i64, _limit: usize) -> Result<Option<DueTimers>, Error> {
        todo!()
    }

    /// Removes timers that [`Self::due`] gave; part of [`Self::apply`] for calls that also change state.
    pub fn remove_due(&mut self, _due: &DueTimers) {
        todo!()
    }

    /// A barrier: what is in the store now belongs to the generation that ends. Costs the same for any number of keys.
    pub fn advance_generation(&mut self) -> Generation {
        todo!()
    }

    /// What the store holds now.
    pub fn stats(&self) -> StoreStats {
        todo!()
    }
}
