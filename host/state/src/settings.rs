//! What a store is made from.

use std::{path::PathBuf, sync::Arc};

use millstream_model::{Watermark, state::Clock};

use crate::rocks::RocksShared;

/// The clocks of one call; a repeated call gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The merged watermark of the operator's inputs; none yet: none.
    pub watermark: Option<Watermark>,
    /// Processing time, ms since epoch, from the injected clock.
    pub processing_time: i64,
}

impl Moment {
    /// What `clock` shows; none: it has not started.
    pub fn of(self, clock: Clock) -> Option<i64> {
        match clock {
            Clock::EventTime => self.watermark.map(|watermark| watermark.0),
            Clock::ProcessingTime => Some(self.processing_time),
        }
    }
}

/// Where state goes that does not fit into memory.
#[derive(Clone, Debug)]
pub enum Backend {
    /// Nowhere: state beyond the budget is an error.
    Memory,
    /// A RocksDB of this store alone.
    RocksDb {
        /// Its directory; created when state first leaves memory.
        directory: PathBuf,
        /// What all RocksDB instances of the process share.
        shared: Arc<RocksShared>,
    },
}

/// Settings of one store.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Where state goes that does not fit into memory.
    pub backend: Backend,
    /// What the key table, cached values and pending timers may take, in bytes. One batch may exceed it by its own keys.
    pub memory_budget_bytes: usize,
}
