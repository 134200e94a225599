//! What is agreed before rows flow: what a component says of itself, and what it plans to read, keep, emit and remember.

use std::num::NonZeroU32;

use arrow_schema::{DataType, FieldRef, Fields};
use millstream_model::state::{StateDescriptor, TimerDescriptor};

/// Static facts that an operator component tells about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor {
    /// Its name.
    pub name: String,
    /// Its version, as its author writes it.
    pub version: String,
    /// One line for humans.
    pub summary: String,
    /// JSON Schema of its settings; null if it says nothing.
    pub settings_schema: serde_json::Value,
    /// Names of its inputs, in port order.
    pub inputs: Vec<String>,
    /// Names of its outputs, in port order.
    pub outputs: Vec<String>,
    /// How the contract grows; only known ones and those that begin with `x-`.
    pub hints: Vec<(String, String)>,
}

/// One input as offered to an operator. All types must cross (`millstream_model::types`).
#[derive(Clone, Debug, PartialEq)]
pub struct InputSchema {
    /// Its columns.
    pub fields: Fields,
    /// Its key, as indexes into `fields`; empty: not keyed, or one key for all.
    pub keys: Vec<u32>,
    /// Whether its rows have event times.
    pub event_times: bool,
    /// Whether it may carry updates and deletions.
    pub changes: bool,
}

/// What an operator does with its inputs. Everything is checked against them and against its [`Descriptor`].
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorPlan {
    /// Per input.
    pub inputs: Vec<InputPlan>,
    /// Per output, in the order of [`Descriptor::outputs`].
    pub outputs: Vec<OutputPlan>,
    /// Its states; their indexes are the state numbers of calls.
    pub states: Vec<StateDescriptor>,
    /// Its timers; their indexes are the timer numbers of calls.
    pub timers: Vec<TimerDescriptor>,
    /// As in [`Descriptor::hints`].
    pub hints: Vec<(String, String)>,
}

/// The hint that bounds the rows of a call.
pub(crate) const ROWS_MAX: &str = "rows-max";

impl OperatorPlan {
    /// The most rows that the guest wants in a call, if it says so.
    pub fn rows_max(&self) -> Option<NonZeroU32> {
        let (_, value) = self.hints.iter().find(|(name, _)| name == ROWS_MAX)?;
        value.parse().ok()
    }

    /// The numbers of the keyed value states, in order: those whose values travel with the batch.
    pub fn keyed_value_states(&self) -> impl Iterator<Item = u32> + '_ {
        use millstream_model::state::{StateKind, StateScope};
        let travels = |state: &StateDescriptor| state.kind == StateKind::Value && state.scope == StateScope::Keyed;
        (0_u32..).zip(&self.states).filter(move |(_, state)| travels(state)).map(|(number, _)| number)
    }
}

/// What an operator wants of one input.
#[derive(Clone, Debug, PartialEq)]
pub struct InputPlan {
    /// The columns it reads, in the order in which it wants them; all exist in the input with a type that can be read as this one.
    pub reads: Vec<FieldRef>,
    /// Where each of `reads` is in the fields of the input.
    pub columns: Vec<usize>,
    /// Whether state and timers of the row's key travel with the rows.
    pub keyed: bool,
    /// Whether it wants the rows' event times.
    pub event_times: bool,
    /// Whether it understands updates and deletions.
    pub changes: bool,
}

/// What an operator emits on one output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputPlan {
    /// The input whose columns the output keeps; the host gathers them by `from`.
    pub keeps: Option<u32>,
    /// The columns that the guest makes. One with the name of a kept column replaces it.
    pub adds: Vec<FieldRef>,
    /// Whether rows may get other event times than the rows they come from.
    pub sets_event_times: bool,
    /// Whether it may carry updates and deletions.
    pub changes: bool,
}

/// Static facts that an aggregate component tells about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateDescriptor {
    /// Its name.
    pub name: String,
    /// Its version, as its author writes it.
    pub version: String,
    /// One line for humans.
    pub summary: String,
    /// JSON Schema of its settings; null if it says nothing.
    pub settings_schema: serde_json::Value,
    /// As in [`Descriptor::hints`].
    pub hints: Vec<(String, String)>,
}

/// What an aggregate reads, accumulates and returns.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregatePlan {
    /// The columns it reads; each exists in the fields offered.
    pub reads: Vec<FieldRef>,
    /// Where each of `reads` is in the fields offered.
    pub columns: Vec<usize>,
    /// The type of an accumulator. Null is a new one.
    pub accumulator_type: DataType,
    /// The version of `accumulator_type`.
    pub version: u32,
    /// The result.
    pub output: FieldRef,
    /// Whether two accumulators can be merged; sliding, cumulative and session windows need it.
    pub merges: bool,
    /// As in [`Descriptor::hints`].
    pub hints: Vec<(String, String)>,
}
