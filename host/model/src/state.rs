//! What an operator declares about its state and its timers: names, kinds and types, agreed at `plan`. Values of state live elsewhere.

use arrow_schema::DataType;
use serde::{Deserialize, Serialize};

/// What one state of an operator holds. State is found by (operator, name), so the name is stable across versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDescriptor {
    /// Unique among the states of the operator.
    pub name: String,
    /// The shape of what is held per key.
    pub kind: StateKind,
    /// Who sees it.
    pub scope: StateScope,
    /// The type of the keys of an ordered map; none for the other kinds.
    pub map_key_type: Option<DataType>,
    /// The type of a value, of a map's value or of an element of a list. Never null: null is absence.
    pub value_type: DataType,
    /// The version of `value_type` (and `map_key_type`), chosen by the operator's author; only grows.
    pub version: u32,
    /// When a value is forgotten; none: never.
    pub ttl: Option<Ttl>,
}

/// The shape of what a state holds per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateKind {
    /// One value; it travels with the batch.
    Value,
    /// Values by map key, read in ranges.
    OrderedMap,
    /// Values in the order in which they were appended.
    AppendedList,
}

/// Who sees a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateScope {
    /// One entry per key of the stream.
    Keyed,
    /// One entry, read by every subtask and written only from broadcast inputs.
    Broadcast,
}

/// Time to live of the values of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ttl {
    /// How long after its last refresh a value is kept, in ms; at least 1.
    pub duration_ms: u64,
    /// The clock that it is measured by.
    pub clock: Clock,
    /// What refreshes it.
    pub refresh: TtlRefresh,
}

/// What starts a time to live anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TtlRefresh {
    /// Only writing the value.
    OnWrite,
    /// Writing the value, and sending it to a call.
    OnRead,
}

/// A clock of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// The watermark.
    EventTime,
    /// The host's clock, injected.
    ProcessingTime,
}

/// One kind of timer of an operator. Timers are one per (key, time, name).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimerDescriptor {
    /// Unique among the timers of the operator.
    pub name: String,
    /// The clock that fires it.
    pub clock: Clock,
}
