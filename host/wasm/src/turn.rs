//! One call: what goes in ([`Rows`], [`DueTimers`]) and what comes out ([`Turn`]), already verified.

use std::{sync::Arc, time::Duration};

use arrow_array::ArrayRef;
use arrow_buffer::{BooleanBuffer, ScalarBuffer};
use millstream_model::{Origin, Watermark, key::KeyHashes};

use crate::error::Failure;

/// The clocks of one call. A repeated or bisected call gets the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The watermark of the operator; none yet: none.
    pub watermark: Option<Watermark>,
    /// The host's clock, in ms since epoch.
    pub processing_time_ms: i64,
}

/// The rows of one call, projected to what the operator reads.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Number of rows.
    pub length: u32,
    /// The columns that the plan reads, in its order.
    pub columns: Vec<ArrayRef>,
    /// Event times, one per row. Sent only if the plan asks for them.
    pub event_times: Option<ScalarBuffer<i64>>,
    /// Change kinds, one per row; none: all inserts.
    pub changes: Option<ScalarBuffer<u8>>,
    /// The keys of the rows, if the input is keyed.
    pub keys: Option<CallKeys>,
}

/// What is known of the rows of a call beside what the guest is given: its log says it.
#[derive(Clone, Default)]
pub struct RowNotes {
    /// The keys; none: nothing is remembered of them.
    pub keys: Option<Arc<dyn KeyHashes>>,
    /// Event times, one per row; of timers: when they were set for.
    pub event_times: Option<ScalarBuffer<i64>>,
    /// Where the rows come from, as far as it is known.
    pub origin: Option<Origin>,
}

/// The distinct keys of a call and the values of their keyed value states.
#[derive(Clone, Debug)]
pub struct CallKeys {
    /// Number of distinct keys.
    pub length: u32,
    /// The key of each row (or due timer); none: row i has key i.
    pub of_row: Option<ScalarBuffer<u32>>,
    /// Per keyed value state, in the order of [`crate::OperatorPlan::keyed_value_states`]: one value per key, null = absent.
    pub values: Vec<ArrayRef>,
}

/// Timers that are due: at most one per key, its earliest.
#[derive(Clone, Debug)]
pub struct DueTimers {
    /// Number of timers.
    pub length: u32,
    /// The number of each in the plan.
    pub timer: ScalarBuffer<u32>,
    /// When each was due, in ms since epoch.
    pub at: ScalarBuffer<i64>,
    /// The keys; `of_row` is per timer.
    pub keys: CallKeys,
    /// The key's fields, one row per key.
    pub key_columns: Vec<ArrayRef>,
}

/// What a call did, and the collections that were lent to it.
pub type CallResult = (Result<Turn, Failure>, Option<Box<dyn Collections>>);

/// The answer of a call; every number in it was checked, so it can be applied as a whole.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// Rows to emit, in order.
    pub outputs: Vec<TurnOutput>,
    /// Changes of state and timers.
    pub updates: Updates,
    /// Rows that can never succeed. No output comes from them, and no key has updates that only has rejected rows.
    pub rejected: Vec<Rejected>,
}

/// Rows for one output.
#[derive(Clone, Debug)]
pub struct TurnOutput {
    /// The output, an index into the plan's outputs.
    pub port: u32,
    /// Number of rows.
    pub length: usize,
    /// The input row of each output row.
    pub from: From,
    /// Event times, one per row, all supported; none: inherited through `from`.
    pub event_times: Option<ScalarBuffer<i64>>,
    /// Change kinds, one per row, all known; none: not given.
    pub changes: Option<ScalarBuffer<u8>>,
    /// The columns that the plan adds, in its order and of its types.
    pub columns: Vec<ArrayRef>,
}

/// Which input row (or due timer) an output row comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum From {
    /// Row i comes from row i; lengths are equal.
    Identity,
    /// Row i comes from this one; all in range.
    Rows(ScalarBuffer<u32>),
    /// From none: nothing is kept, and event times are given if the input has them.
    None,
}

/// Changes of state and timers: at most one update per state or timer. Keys are numbers of the call's keys, all in range.
#[derive(Clone, Debug, Default)]
pub struct Updates {
    /// Of value states.
    pub values: Vec<ValueUpdate>,
    /// Of ordered maps.
    pub maps: Vec<MapUpdate>,
    /// Of appended lists.
    pub lists: Vec<ListUpdate>,
    /// Of timers.
    pub timers: Vec<TimerUpdate>,
}

impl Updates {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.maps.is_empty() && self.lists.is_empty() && self.timers.is_empty()
    }
}

/// New values of a keyed value state.
#[derive(Clone, Debug)]
pub struct ValueUpdate {
    /// The state, a keyed value state of the plan.
    pub state: u32,
    /// Which keys changed; one bit per key of the call.
    pub changed: BooleanBuffer,
    /// One per set bit, in order; null: deleted.
    pub values: ArrayRef,
}

/// Entries put into or deleted from an ordered-map state, in order.
#[derive(Clone, Debug)]
pub struct MapUpdate {
    /// The state, an ordered map of the plan.
    pub state: u32,
    /// The key of each entry.
    pub keys: ScalarBuffer<u32>,
    /// The map key of each entry; none is null.
    pub map_keys: ArrayRef,
    /// The value of each entry; anything where the entry is deleted, else not null.
    pub values: ArrayRef,
    /// Which entries are deleted instead of put; none: no entry is.
    pub deleted: Option<BooleanBuffer>,
}

/// Elements appended to lists, after some lists were cleared.
#[derive(Clone, Debug)]
pub struct ListUpdate {
    /// The state, an appended list of the plan.
    pub state: u32,
    /// Keys whose lists are cleared first.
    pub cleared: ScalarBuffer<u32>,
    /// The key of each appended element.
    pub keys: ScalarBuffer<u32>,
    /// The elements; none is null.
    pub values: ArrayRef,
}

/// Timers set or deleted, in order.
#[derive(Clone, Debug)]
pub struct TimerUpdate {
    /// The timer, an index into the plan's timers.
    pub timer: u32,
    /// The key of each.
    pub keys: ScalarBuffer<u32>,
    /// When each is due, in ms since epoch, within the supported range.
    pub at: ScalarBuffer<i64>,
    /// Which are deleted instead of set; none: all are set.
    pub deleted: Option<BooleanBuffer>,
}

/// A row that can never succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The input row (or due timer).
    pub row: u32,
    /// The guest's words.
    pub reason: String,
}

/// Bulk reads of collection state during a call; the state as it was when the call began. Implemented by the engine over its backend.
pub trait Collections: Send {
    /// The values of `map_keys[i]` of key `keys[i]` in ordered map `state`; null = absent.
    ///
    /// # Errors
    /// The state could not be read: a fault of the host, in words.
    fn get(&mut self, state: u32, keys: &[u32], map_keys: &ArrayRef) -> Result<ArrayRef, String>;

    /// The entries of each span, in the order of the spans. Ends with the entry that brings the buffers of map keys and values to
    /// `bytes_max` or more, so that an answer with fewer bytes is complete.
    ///
    /// # Errors
    /// The state could not be read: a fault of the host, in words.
    fn scan(&mut self, state: u32, spans: &[Span], bytes_max: u32) -> Result<Found, String>;
}

/// A range of one key's map, or of its list, whose map keys are the positions of its elements (`UInt64`).
#[derive(Clone, Debug)]
pub struct Span {
    /// The key, in range of the call's keys.
    pub key: u32,
    /// Only entries after this map key; an array of one.
    pub after: Option<ArrayRef>,
    /// Only entries before this map key; an array of one.
    pub before: Option<ArrayRef>,
    /// From the end of the range backwards.
    pub newest_first: bool,
    /// At most this many entries; 0: no limit.
    pub limit: u32,
}

/// What a scan found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The span that each value belongs to.
    pub of_span: Vec<u32>,
    /// The map keys, or positions in lists.
    pub map_keys: Option<ArrayRef>,
    /// The values.
    pub values: ArrayRef,
}

/// What the last call of an instance cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    /// Time in the call, without the pauses in which it let others run; callers size batches by it.
    pub busy: Duration,
    /// Linear memory of the instance after the call, in bytes.
    pub memory_bytes: u64,
    /// Columns, values and numbers sent into the call, in bytes.
    pub lowered_bytes: u64,
    /// Columns, values and numbers taken out of the call, in bytes.
    pub lifted_bytes: u64,
}
