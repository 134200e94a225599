//! One suite for every backend: in memory, on RocksDB with room for everything, and on RocksDB with room for next to nothing.

mod collections;
mod damage;
mod declarations;
mod golden;
mod larger_than_memory;
mod limits;
mod migration;
mod model;
mod rescale;
mod snapshots;
mod time_to_live;
mod timers;
mod values;
mod warm;

use std::{ops::ControlFlow, sync::Arc};

use arrow_array::{ArrayRef, Int64Array, StringArray, cast::AsArray, types::Int64Type};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field};
use millstream_model::{
    Watermark,
    key::{EncodedKeys, KEY_GROUPS, KeyGroup, encode_keys},
    state::{Clock, StateDescriptor, StateKind, StateScope, TimerDescriptor},
};
use tempfile::TempDir;

use super::*;
use crate::{RocksShared, RocksSharedSettings};

pub(super) const NOW: Moment = Moment { watermark: None, processing_time: 0 };

pub(super) fn at(watermark: i64) -> Moment {
    Moment { watermark: Some(Watermark(watermark)), processing_time: 0 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Memory,
    RocksDb,
    /// Everything leaves memory at the next batch.
    TinyRocksDb,
}

pub(super) const KINDS: [Kind; 3] = [Kind::Memory, Kind::RocksDb, Kind::TinyRocksDb];

/// A store, and the directory it may use.
pub(super) struct Fixture {
    pub store: KeyedStore,
    pub directory: TempDir,
    /// Snapshots begun.
    pub snapshots: usize,
}

pub(super) fn settings(kind: Kind, directory: &TempDir) -> StoreSettings {
    let shared = Arc::new(RocksShared::new(RocksSharedSettings { block_cache_bytes: 1 << 20, write_buffer_bytes: 1 << 20 }));
    let rocks = Backend::RocksDb { directory: directory.path().join("state"), shared };
    let (backend, memory_budget_bytes) = match kind {
        Kind::Memory => (Backend::Memory, 1 << 30),
        Kind::RocksDb => (rocks, 1 << 30),
        Kind::TinyRocksDb => (rocks, 2048),
    };
    StoreSettings { backend, memory_budget_bytes }
}

pub(super) fn open(kind: Kind, states: Vec<StateDescriptor>, timers: Vec<TimerDescriptor>) -> Fixture {
    let directory = TempDir::new().expect("a directory");
    let store = KeyedStore::open(&settings(kind, &directory), 0..KEY_GROUPS, states, timers).expect("good declarations");
    Fixture { store, directory, snapshots: 0 }
}

pub(super) fn value_state(name: &str, value_type: DataType) -> StateDescriptor {
    let (kind, scope) = (StateKind::Value, StateScope::Keyed);
    StateDescriptor { name: name.into(), kind, scope, map_key_type: None, value_type, version: 1, ttl: None }
}

pub(super) fn map_state(name: &str, map_key_type: DataType, value_type: DataType) -> StateDescriptor {
    StateDescriptor { kind: StateKind::OrderedMap, map_key_type: Some(map_key_type), ..value_state(name, value_type) }
}

pub(super) fn list_state(name: &str, value_type: DataType) -> StateDescriptor {
    StateDescriptor { kind: StateKind::AppendedList, ..value_state(name, value_type) }
}

pub(super) fn event_timer(name: &str) -> TimerDescriptor {
    TimerDescriptor { name: name.into(), clock: Clock::EventTime }
}

pub(super) fn struct_type(fields: Vec<Field>) -> DataType {
    DataType::Struct(fields.into())
}

pub(super) fn keys(values: impl IntoIterator<Item = i64>) -> EncodedKeys {
    let column: ArrayRef = ints(values);
    encode_keys(std::slice::from_ref(&column), column.len()).expect("a key type")
}

pub(super) fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

pub(super) fn some_ints(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

pub(super) fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

pub(super) fn all(keys: &KeySet) -> BooleanBuffer {
    BooleanBuffer::new_set(keys.len())
}

impl Fixture {
    pub fn resolve(&mut self, values: impl IntoIterator<Item = i64>) -> KeySet {
        self.store.resolve(keys(values)).expect("small keys")
    }

    pub fn load(&mut self, state: usize, keys: &KeySet) -> ArrayRef {
        self.store.load(state, keys, NOW).expect("a good disk")
    }

    pub fn load_ints(&mut self, state: usize, of: &[i64]) -> Vec<Option<i64>> {
        let keys = self.resolve(of.iter().copied());
        self.load(state, &keys).as_primitive::<Int64Type>().iter().collect()
    }

    pub fn put_ints(&mut self, state: usize, entries: &[(i64, Option<i64>)]) {
        let keys = self.resolve(entries.iter().map(|(key, _)| *key));
        let values: Vec<Option<i64>> = entries.iter().map(|(_, value)| *value).collect();
        self.store.update_values(state, &keys, &all(&keys), &some_ints(&values), NOW).expect("a good disk");
    }

    /// Uses other keys until those of before have left a tiny table, and until idle ones have left any.
    pub fn forget_keys(&mut self) {
        for key in 1_000_000..1_000_010 {
            self.resolve([key]);
        }
    }
}
