//! Guests: components that are loaded, planned, and called with batches. The only room that names wasmtime.
//!
//! The flow: [`Runtime::load`] inspects a component without running it, refuses imports that are not granted, and compiles it or takes
//! it from the cache; [`Component::operator`] makes an instance; `describe`, `plan` and `open` agree on columns, states and timers;
//! `process` and `on_timers` are called once per batch and answer with a [`Turn`].
//!
//! A guest is hostile until proven otherwise: every number in an answer is checked before it leaves this crate, every limit of
//! [`Limits`] is on, and a guest sees no clock, no randomness, no file and no network but what is given here ([`http`]: to whom it is granted).
//!
//! Inside: `inspect` → `cache` → `component` (linking) → `instance` (one guarded call) → `operator`, `aggregate` and `migration`; `agree` checks
//! plans, `lower` and `lift` carry columns, `verify` checks answers; `host`, `http` and `wasi` answer imports; `meter` counts time.

#![deny(unsafe_code)]

mod aggregate;
mod agree;
mod bindings;
mod cache;
mod component;
pub mod encode;
mod error;
mod guest;
mod host;
pub mod http;
mod inspect;
mod instance;
mod lift;
mod limits;
mod log;
mod lower;
mod meter;
mod migration;
mod operator;
mod plan;
mod runtime;
mod turn;
mod verify;
mod wasi;

pub use aggregate::{AggregateInstance, GroupedRows};
pub use component::{Component, Digest};
pub use error::{Cause, Error, Failure};
pub use guest::{GuestMetric, GuestMetrics, InstanceContext, MetricKind, Silent};
pub use inspect::{Inspection, World, inspect};
pub use limits::{Call, Limit, LimitExceeded, Limits, Site};
pub use log::{GuestLog, LogLevel, Said, SaidBy, SubtaskLog, TracedLog};
pub use migration::{MigrationInstance, OldState};
pub use operator::OperatorInstance;
pub use plan::{AggregateDescriptor, AggregatePlan, Descriptor, InputPlan, InputSchema, OperatorPlan, OutputPlan};
pub use runtime::{Runtime, RuntimeSettings};
pub use turn::{
    CallKeys, CallResult, CallStats, Collections, DueTimers, Found, From, ListUpdate, MapUpdate, Moment, Rejected, RowNotes, Rows, Span,
    TimerUpdate, Turn, TurnOutput, Updates, ValueUpdate,
};
