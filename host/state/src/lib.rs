//! Keyed state and timers of one operator in one subtask.
//!
//! In reading order: [`KeyedStore`] is the door. [`KeyedStore::resolve`] turns the keys of a batch into a [`KeySet`] (its distinct keys, each with
//! a slot of the *key table*); [`KeyedStore::load`] gathers the values of those keys into Arrow columns; the operator runs; and
//! [`KeyedStore::apply`] (or the single `update_…` functions) scatters what changed back. Value states live in the key table, map and list
//! states in ordered overlays, timers in buckets by time; whatever exceeds the memory budget goes to RocksDB and comes back when it is touched.
//!
//! A barrier begins a *snapshot* ([`KeyedStore::begin_snapshot`]; `snapshot` says what it consists of), from any number of which a store can be
//! restored, by another version of the operator and at another parallelism ([`KeyedStore::restore`]); [`KeyedStore::read_state`] shows all of it.
//!
//! A store belongs to one subtask: no lock, no thread, no clock, no async; only the files of a snapshot are written by a thread of the caller's.
//! It is the only crate that names RocksDB.

#![deny(unsafe_code)]

mod background;
mod collections;
mod declare;
mod error;
mod generation;
mod key_set;
mod key_split;
mod layout;
mod memory;
mod rocks;
pub mod row;
mod settings;
mod snapshot;
mod store;
mod table;
mod timers;
mod updates;
mod values;

pub use background::spawn_background;
pub use error::Error;
pub use key_set::{KeySet, Slot};
pub use rocks::{RocksShared, RocksSharedSettings};
pub use settings::{Backend, Moment, StoreSettings};
pub use snapshot::{
    FilesForm, Snapshot, SnapshotCut, SnapshotFile, SnapshotPart, SnapshotStep, StateDescription, StoreDescription, TimerDescription,
};
pub use store::{KeyedStore, Migrate, OldValues, StatePage, StoreSize, StoreStats, TimerPage};
pub use timers::DueTimers;
pub use updates::{Found, ListUpdate, MapUpdate, Span, TimerUpdate, Updates, ValueUpdate};

/// Largest encoded value of a value state, map entry or list element, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// How many key sets, the newest included, are valid at a time.
pub const KEY_SETS_LIVE: u32 = 4;
/// The refresh time of a value that was written before its clock had started.
const NEVER_REFRESHED: i64 = i64::MIN;
