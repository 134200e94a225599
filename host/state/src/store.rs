//! The door: one operator's state in one subtask.

use std::{
    borrow::Cow,
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow_array::{Array, ArrayRef};
use arrow_buffer::BooleanBuffer;
use arrow_schema::DataType;
use millstream_model::{
    Watermark,
    key::{EncodedKeys, encode_few_keys, encode_keys},
    state::{Clock, StateDescriptor, StateKind, TimerDescriptor},
};

use crate::{
    Backend, DueTimers, Error, Found, KeySet, ListUpdate, MapUpdate, Moment, Slot, Span, StoreSettings, TimerUpdate, Updates, ValueUpdate,
    collections::{self, Collection},
    declare::{self, Prefixes},
    generation::Generations,
    rocks::{Disk, Expiry, Tables},
    snapshot::snapshot_type_text,
    table::KeyTable,
    timers::Timers,
    values::{self, ValueState},
};

mod migrate;
mod read;
mod restore;
mod room;
mod snapshot;
mod warm;

pub use migrate::{Migrate, OldValues};
pub(crate) use read::PAGE;
pub use read::{StatePage, TimerPage};
use snapshot::Taking;
use warm::Warming;

/// Keyed state and timers of one operator in one subtask. States and timers are known by their numbers in the declaration.
pub struct KeyedStore {
    declared: Vec<StateDescriptor>,
    states: Vec<State>,
    table: KeyTable,
    timers: Timers,
    generations: Generations,
    disk: Option<Disk>,
    expiry: Arc<Expiry>,
    prefixes: Prefixes,
    groups: Range<u16>,
    memory_budget_bytes: usize,
    keys_evicted: u64,
    swept_to: usize,
    taking: Option<Taking>,
    /// The tables of the snapshot that was finished last.
    tables: Tables,
    /// The types of the columns of a key; empty: not told.
    key_types: Vec<DataType>,
    /// Whether the last batch of [`Self::resolve_columns`] had few keys.
    expects_few_keys: bool,
    /// Every value on disk is in memory too, so the disk is not asked for a key that the table does not have: snapshots write to the disk, but
    /// as long as memory suffices nothing is read from it. A store that had to make room asks from then on.
    is_covered: bool,
    /// What is still to be read from disk after a restore.
    warming: Option<Warming>,
    /// How large it is, for others.
    size: Arc<StoreSize>,
}

/// A batch with at least so many rows for a key has few keys.
const ROWS_PER_FEW_KEYS: usize = 8;

enum State {
    Value(ValueState),
    Collection(Collection),
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

/// How large a store is, read while it works: memory as of its last batch, the disk as of its last snapshot or since it had to make room.
#[derive(Debug, Default)]
pub struct StoreSize {
    memory_bytes: AtomicU64,
    disk_bytes: AtomicU64,
}

impl StoreSize {
    /// Memory of the key table, its cached values, overlays and pending timers.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Bytes in RocksDB files and buffers.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    fn note_memory(&self, bytes: usize) {
        self.memory_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    fn note_disk(&self, bytes: u64) {
        self.disk_bytes.store(bytes, Ordering::Relaxed);
    }
}

impl KeyedStore {
    /// An empty store for the keys of `groups`.
    ///
    /// # Errors
    /// A declaration that cannot be kept: [`Error::InvalidDeclaration`].
    pub fn open(
        settings: &StoreSettings,
        groups: Range<u16>,
        states: Vec<StateDescriptor>,
        timers: Vec<TimerDescriptor>,
    ) -> Result<Self, Error> {
        let mut store = Self::empty(settings, groups);
        store.declare(states, timers)?;
        Ok(store)
    }

    /// A store without any declaration.
    fn empty(settings: &StoreSettings, groups: Range<u16>) -> Self {
        let expiry = Arc::<Expiry>::default();
        let disk = match &settings.backend {
            Backend::Memory => None,
            Backend::RocksDb { directory, shared } => Some(Disk::new(directory.clone(), Arc::clone(shared), Arc::clone(&expiry))),
        };
        Self {
            declared: Vec::new(),
            states: Vec::new(),
            table: KeyTable::new(0, groups.clone()),
            timers: Timers::new(Vec::new(), 0),
            generations: Generations::default(),
            disk,
            expiry,
            prefixes: Prefixes::default(),
            groups,
            memory_budget_bytes: settings.memory_budget_bytes,
            keys_evicted: 0,
            swept_to: 0,
            taking: None,
            tables: Tables::default(),
            key_types: Vec::new(),
            expects_few_keys: false,
            is_covered: true,
            warming: None,
            size: Arc::default(),
        }
    }

    /// Writes down from now on how large it is, for who looks at it while it works.
    pub fn tell_size(&mut self, size: Arc<StoreSize>) {
        self.size = size;
        self.note_size();
    }

    /// Whether a key that comes new into the table may have values on disk.
    fn asks_disk(&self) -> bool {
        !self.is_covered && self.disk.as_ref().is_some_and(Disk::is_open)
    }

    /// The declared states.
    pub fn states(&self) -> &[StateDescriptor] {
        &self.declared
    }

    /// Tells of which columns a key was encoded. The store needs it for nothing, but snapshots carry it to tools.
    ///
    /// # Errors
    /// [`Error::InvalidDeclaration`]: a type has no text, so no snapshot could carry it; nothing was changed.
    pub fn set_key_types(&mut self, types: &[DataType]) -> Result<(), Error> {
        types.iter().try_for_each(|data_type| snapshot_type_text("the key", data_type).map(drop))?;
        self.key_types = types.to_vec();
        Ok(())
    }

    /// The types of the columns of a key, if they were told, also before a snapshot that this store was restored from.
    pub fn key_types(&self) -> &[DataType] {
        &self.key_types
    }

    /// The key groups whose keys may come.
    pub fn groups(&self) -> Range<u16> {
        self.groups.clone()
    }

    /// Changes the declarations (a new version of the operator). State is found again by its name, and read by the rules of [`crate::row`];
    /// what is no longer declared is forgotten. Key sets of before are not valid any more. Walks over all keys in memory if
    /// anything changed; what is declared already changes nothing, also while a snapshot is under way.
    ///
    /// # Errors
    /// [`Error::InvalidDeclaration`], [`Error::Incompatible`], [`Error::InvalidUse`] while a snapshot is under way: nothing was changed.
    pub fn redeclare(&mut self, states: Vec<StateDescriptor>, timers: Vec<TimerDescriptor>) -> Result<(), Error> {
        if states == self.declared && self.timers.declared().map(|(timer, _)| timer).eq(&timers) {
            // Most versions of an operator keep what the one before did: they take over a million keys without a look at any of them.
            return Ok(());
        }
        self.declare(states, timers)
    }

    fn declare(&mut self, states: Vec<StateDescriptor>, timers: Vec<TimerDescriptor>) -> Result<(), Error> {
        if self.generations.is_pending() {
            return Err(Error::InvalidUse("declarations do not change while a snapshot is under way".into()));
        }
        declare::check(&states, &timers)?;
        declare::check_kinds(&self.declared, &states)?;
        let mut prefixes = self.prefixes.clone();
        let mut new_states = Vec::with_capacity(states.len());
        let mut words = crate::table::ROW_HEAD_WORDS;
        for (part, state) in states.iter().enumerate() {
            let (prefix, versions) = prefixes.of_state(state)?;
            new_states.push(if state.kind == StateKind::Value {
                let value = ValueState::new(state.clone(), prefix, part, versions, words);
                words += value.words();
                State::Value(value)
            } else {
                State::Collection(Collection::new(state.clone(), prefix, part, versions))
            });
        }
        let named = timers.iter().map(|timer| Ok((timer.clone(), prefixes.of_timer(timer)?))).collect::<Result<Vec<_>, Error>>()?;
        prefixes.retain(&states, &timers);
        let ttls = states.iter().zip(&new_states).filter_map(|(state, new)| Some((new.prefix(), state.ttl?)));
        self.expiry.declare(ttls.collect::<HashMap<_, _>>());
        self.prefixes = prefixes;
        let old_timers = std::mem::replace(&mut self.timers, Timers::new(named, states.len()));
        let mut gone = self.timers.take_over(old_timers);
        gone.extend(self.take_over(new_states, words)?);
        self.declared = states;
        for prefix in gone {
            self.delete_prefix(prefix)?;
        }
        if self.warming.is_some() {
            // The states may have other numbers now.
            self.begin_warming();
        }
        Ok(())
    }

    /// Puts new states in the place of the old ones of the same names; gives back the prefixes of those that are gone.
    fn take_over(&mut self, mut states: Vec<State>, row_words: usize) -> Result<Vec<u16>, Error> {
        let mut gone = Vec::new();
        let mut values: Vec<(usize, ValueState)> = Vec::new();
        for old in std::mem::take(&mut self.states) {
            let same = states.iter().position(|state| state.prefix() == old.prefix());
            match (old, same) {
                (old, None) => gone.push(old.prefix()),
                (State::Collection(old), Some(number)) => {
                    if let State::Collection(new) = &mut states[number] {
                        new.take_over(old);
                    }
                }
                (State::Value(old), Some(number)) => values.push((number, old)),
            }
        }
        let mut new_values: HashMap<usize, &mut ValueState> = HashMap::new();
        for (number, state) in states.iter_mut().enumerate() {
            if let State::Value(value) = state {
                new_values.insert(number, value);
            }
        }
        let mut pairs: Vec<(ValueState, &mut ValueState)> =
            values.into_iter().map(|(number, old)| (old, new_values.remove(&number).expect("a name keeps its kind"))).collect();
        values::relayout(&mut self.table, row_words - crate::table::ROW_HEAD_WORDS, &mut pairs)?;
        let asks_disk = self.disk.as_ref().is_some_and(Disk::is_open);
        for state in &mut states {
            if let State::Value(value) = state {
                value.begin_everywhere(&mut self.table, asks_disk);
            }
        }
        self.states = states;
        Ok(gone)
    }

    fn delete_prefix(&mut self, prefix: u16) -> Result<(), Error> {
        match &mut self.disk {
            Some(disk) => disk.delete_range(&prefix.to_be_bytes(), &(prefix + 1).to_be_bytes()),
            None => Ok(()),
        }
    }

    /// Finds the distinct keys of a batch and gives each a slot of the key table; takes them into it as needed.
    ///
    /// # Errors
    /// [`Error::KeyTooLarge`], [`Error::OutOfBudget`], [`Error::Backend`]; [`Error::InvalidUse`] for a key of another subtask's groups.
    pub fn resolve(&mut self, keys: impl Into<Arc<EncodedKeys>>) -> Result<KeySet, Error> {
        let keys = keys.into();
        self.make_room()?;
        let asks_disk = self.asks_disk();
        let states = &self.states;
        let resolved = self.table.resolve(&keys, |row| {
            for state in states {
                if let State::Value(value) = state {
                    value.begin(row, asks_disk);
                }
            }
        });
        for state in &mut self.states {
            if let State::Value(value) = state {
                value.reserve(self.table.slots());
            }
        }
        let resolved = resolved?;
        Ok(KeySet {
            slots: resolved.slots,
            of_row: resolved.of_row.map(Into::into),
            first_row: resolved.first_row,
            keys,
            stamp: resolved.stamp,
        })
    }

    /// As [`Self::resolve`], of key columns. When the last batch had few keys, they are looked for before they are encoded.
    ///
    /// # Errors
    /// As [`Self::resolve`]; [`Error::InvalidUse`]: a column's type cannot be part of a key.
    pub fn resolve_columns(&mut self, columns: &[ArrayRef], rows: usize) -> Result<KeySet, Error> {
        let few = if self.expects_few_keys { encode_few_keys(columns, rows / ROWS_PER_FEW_KEYS) } else { None };
        let set = match few {
            Some(few) => KeySet { of_row: Some(few.of_row.into()), ..self.resolve(few.keys)? },
            None => self.resolve(encode_keys(columns, rows).map_err(|error| Error::InvalidUse(error.to_string()))?)?,
        };
        self.expects_few_keys = set.len() * ROWS_PER_FEW_KEYS <= rows;
        Ok(set)
    }

    /// The values of a value state, one per key; null is absence (never written, deleted, or its time to live is over).
    ///
    /// # Errors
    /// [`Error::InvalidUse`], [`Error::Backend`], [`Error::Corrupt`].
    pub fn load(&mut self, state: usize, keys: &KeySet, now: Moment) -> Result<ArrayRef, Error> {
        self.check_keys(keys)?;
        let now = self.observe(state, now)?;
        let Some(State::Value(value)) = self.states.get_mut(state) else { return Err(self.wrong_kind(state, "value")) };
        let (table, generations, disk) = (&mut self.table, &mut self.generations, self.disk.as_ref());
        value.load(&keys.slots, &mut values::Context { table, generations, disk, now })
    }

    /// Applies a call as a whole: removes the timers it was given, then makes its changes. Everything is checked before anything is changed.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`], [`Error::WrongType`], [`Error::InvalidUse`]: nothing was applied. [`Error::Backend`].
    pub fn apply(&mut self, keys: &KeySet, updates: &Updates, fired: Option<&DueTimers>, now: Moment) -> Result<(), Error> {
        self.check_keys(keys)?;
        let values = updates.values.iter().map(|update| self.stage_values(keys, update)).collect::<Result<Vec<_>, _>>()?;
        let maps = updates.maps.iter().map(|update| self.stage_map(keys, update, now)).collect::<Result<Vec<_>, _>>()?;
        let lists = updates.lists.iter().map(|update| self.stage_list(keys, update, now)).collect::<Result<Vec<_>, _>>()?;
        updates.timers.iter().try_for_each(|update| self.timers.check(keys, update))?;
        if let Some(fired) = fired {
            self.timers.remove(fired, &mut self.generations);
        }
        for (update, staged) in updates.values.iter().zip(values) {
            self.write_values(update.state, keys, &update.changed, staged, now)?;
        }
        let states = updates.maps.iter().map(|update| update.state).chain(updates.lists.iter().map(|update| update.state));
        for (state, staged) in states.zip(maps.into_iter().chain(lists)) {
            self.write_collection(state, staged, now)?;
        }
        for update in &updates.timers {
            self.timers.update(keys, update, &mut self.generations);
        }
        Ok(())
    }

    /// Writes values of a value state: one of `values` per set bit of `changed` (one bit per key), null deletes.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn update_values(
        &mut self,
        state: usize,
        keys: &KeySet,
        changed: &BooleanBuffer,
        values: &ArrayRef,
        now: Moment,
    ) -> Result<(), Error> {
        self.check_keys(keys)?;
        let staged = self.stage_values(keys, &ValueUpdate { state, changed: changed.clone(), values: values.clone() })?;
        self.write_values(state, keys, changed, staged, now)
    }

    fn stage_values(&self, keys: &KeySet, update: &ValueUpdate) -> Result<values::Staged, Error> {
        let Some(State::Value(value)) = self.states.get(update.state) else { return Err(self.wrong_kind(update.state, "value")) };
        let changed = update.changed.count_set_bits();
        if update.changed.len() != keys.len() || update.values.len() != changed {
            let (bits, values) = (update.changed.len(), update.values.len());
            return Err(Error::InvalidUse(format!("{} keys, {bits} bits of which {changed} are set, {values} values", keys.len())));
        }
        value.stage(&update.values, |at| keys.hash(update.changed.set_indices().nth(at).expect("one value per set bit")))
    }

    fn write_values(
        &mut self,
        state: usize,
        keys: &KeySet,
        changed: &BooleanBuffer,
        staged: values::Staged,
        now: Moment,
    ) -> Result<(), Error> {
        let now = self.observe(state, now)?;
        let slots: Cow<'_, [Slot]> = if changed.count_set_bits() == keys.len() {
            Cow::Borrowed(&keys.slots)
        } else {
            changed.set_indices().map(|number| keys.slots[number]).collect()
        };
        let Some(State::Value(value)) = self.states.get_mut(state) else { return Err(self.wrong_kind(state, "value")) };
        let (table, generations, disk) = (&mut self.table, &mut self.generations, self.disk.as_ref());
        value.write(&slots, staged, &mut values::Context { table, generations, disk, now });
        Ok(())
    }

    /// One value per request (key number and map key) of an ordered map; null is absence.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn map_get(
        &mut self,
        state: usize,
        keys: &KeySet,
        key_numbers: &[u32],
        map_keys: &ArrayRef,
        now: Moment,
    ) -> Result<ArrayRef, Error> {
        let now = self.observe(state, now)?;
        let Some(State::Collection(collection)) = self.states.get_mut(state) else { return Err(self.wrong_kind(state, "map or list")) };
        let mut context = collections::Context { generations: &mut self.generations, disk: self.disk.as_ref(), now };
        collection.get(keys, key_numbers, map_keys, &mut context)
    }

    /// Entries of ordered maps or lists in the given spans, about `bytes_max` bytes at most, but one entry at least if there is any.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn scan(&mut self, state: usize, keys: &KeySet, spans: &[Span], bytes_max: usize, now: Moment) -> Result<Found, Error> {
        let now = self.observe(state, now)?;
        let Some(State::Collection(collection)) = self.states.get_mut(state) else { return Err(self.wrong_kind(state, "map or list")) };
        let mut context = collections::Context { generations: &mut self.generations, disk: self.disk.as_ref(), now };
        collection.scan(keys, spans, bytes_max, &mut context)
    }

    /// Writes to ordered maps.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn update_map(&mut self, keys: &KeySet, update: &MapUpdate, now: Moment) -> Result<(), Error> {
        let staged = self.stage_map(keys, update, now)?;
        self.write_collection(update.state, staged, now)
    }

    fn stage_map(&mut self, keys: &KeySet, update: &MapUpdate, now: Moment) -> Result<collections::Staged, Error> {
        let now = self.observe(update.state, now)?;
        match self.states.get(update.state) {
            Some(State::Collection(map)) if map.descriptor.kind == StateKind::OrderedMap => map.stage_map(keys, update, now),
            _ => Err(self.wrong_kind(update.state, "map")),
        }
    }

    /// Clears and appends to lists.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn update_list(&mut self, keys: &KeySet, update: &ListUpdate, now: Moment) -> Result<(), Error> {
        let staged = self.stage_list(keys, update, now)?;
        self.write_collection(update.state, staged, now)
    }

    fn stage_list(&mut self, keys: &KeySet, update: &ListUpdate, now: Moment) -> Result<collections::Staged, Error> {
        let now = self.observe(update.state, now)?;
        match self.states.get_mut(update.state) {
            Some(State::Collection(list)) if list.descriptor.kind == StateKind::AppendedList => list.stage_list(keys, update, now),
            _ => Err(self.wrong_kind(update.state, "list")),
        }
    }

    fn write_collection(&mut self, state: usize, staged: collections::Staged, now: Moment) -> Result<(), Error> {
        let now = self.observe(state, now)?;
        let Some(State::Collection(collection)) = self.states.get_mut(state) else { return Err(self.wrong_kind(state, "map or list")) };
        collection.write(staged, &mut collections::Context { generations: &mut self.generations, disk: self.disk.as_ref(), now })
    }

    /// Sets and deletes timers.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn update_timers(&mut self, keys: &KeySet, update: &TimerUpdate) -> Result<(), Error> {
        self.timers.check(keys, update)?;
        self.timers.update(keys, update, &mut self.generations);
        Ok(())
    }

    /// A time at which [`Self::due`] may find something; never later than the earliest timer of `clock`. None: no timer is set.
    pub fn next_timer(&self, clock: Clock) -> Option<i64> {
        self.timers.next(clock)
    }

    /// Timers at or before `up_to`: at most one per key, its earliest, and at most `limit`. They stay set. None: no timer is due.
    ///
    /// # Errors
    /// [`Error::Backend`], [`Error::Corrupt`].
    pub fn due(&mut self, clock: Clock, up_to: i64, limit: usize) -> Result<Option<DueTimers>, Error> {
        let found = self.timers.due(clock, up_to, limit.max(1), self.disk.as_mut(), &mut self.generations)?;
        let Some(found) = found else { return Ok(None) };
        Ok(Some(DueTimers { timer: found.timer, at: found.at, keys: self.resolve(found.keys)? }))
    }

    /// Removes timers that [`Self::due`] gave; part of [`Self::apply`] for calls that also change state.
    pub fn remove_due(&mut self, due: &DueTimers) {
        self.timers.remove(due, &mut self.generations);
    }

    /// What the store holds now.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            keys_in_table: self.table.len(),
            memory_bytes: self.memory_bytes(),
            timers_in_memory: self.timers.in_memory(),
            disk_bytes: self.disk.as_ref().map_or(0, Disk::bytes),
            keys_evicted: self.keys_evicted,
        }
    }

    fn check_keys(&self, keys: &KeySet) -> Result<(), Error> {
        if self.table.is_live_stamp(keys.stamp) {
            return Ok(());
        }
        Err(Error::InvalidUse(format!("a key set is used although {} were made after it", self.table.stamp().wrapping_sub(keys.stamp))))
    }

    /// Moves the clocks of times to live, and gives what the clock of this state shows. The end of all input is no time.
    fn observe(&self, state: usize, now: Moment) -> Result<Option<i64>, Error> {
        let Some(descriptor) = self.declared.get(state) else { return Err(self.wrong_kind(state, "state")) };
        let Some(ttl) = descriptor.ttl else { return Ok(None) };
        if let Some(time) = now.of(ttl.clock).filter(|&time| time != Watermark::MAX.0) {
            self.expiry.advance(ttl.clock, time);
        }
        Ok(self.expiry.now(ttl.clock))
    }

    fn wrong_kind(&self, state: usize, wanted: &str) -> Error {
        match self.declared.get(state) {
            Some(found) => Error::InvalidUse(format!("state {:?} is no {wanted}", found.name)),
            None => Error::InvalidUse(format!("state {state} of {} is out of range", self.declared.len())),
        }
    }
}

impl State {
    fn descriptor(&self) -> &StateDescriptor {
        match self {
            Self::Value(value) => &value.descriptor,
            Self::Collection(collection) => &collection.descriptor,
        }
    }

    /// Memory outside the rows of the table.
    fn bytes(&self) -> usize {
        match self {
            Self::Value(value) => value.bytes(),
            Self::Collection(collection) => collection.bytes(),
        }
    }

    /// Whether a row of the table cannot be dropped without loss.
    fn has_state(&self, row: &[u64], generations: &Generations) -> bool {
        match self {
            Self::Value(value) => value.has_state(row, generations),
            Self::Collection(_) => false,
        }
    }

    fn prefix(&self) -> u16 {
        match self {
            Self::Value(value) => value.prefix,
            Self::Collection(collection) => collection.prefix,
        }
    }
}

#[cfg(test)]
mod tests;
