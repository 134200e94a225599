//! An instance of a stream operator: described, planned, opened, then called once per batch.

use std::sync::Arc;

use crate::{
    error::Error,
    plan::{Descriptor, InputSchema, OperatorPlan},
    turn::{CallResult, CallStats, Collections, DueTimers, Moment, Rows},
};

/// One instance of an operator component. Owned by one subtask; calls never overlap.
///
/// After a failure other than `Retry`, and when the future of a call is dropped before its end, the instance is spent: every further
/// call fails. Make a new one; the host has the state, so nothing is lost.
pub struct OperatorInstance {}

impl OperatorInstance {
    /// What the component says of itself.
    ///
    /// # Errors
    /// The guest fails, or the answer is no description.
    pub async fn describe(&mut self) -> Result<Descriptor, Error> {
        todo!()
    }

    /// What it will read, keep and emit, given these settings and inputs: checked against both and against its description.
    ///
    /// # Errors
    /// `Declined`: settings or inputs do not suit it. `BadPlan`: its plan does not fit. Otherwise the call failed.
    pub async fn plan(&mut self, _settings: &serde_json::Value, _inputs: &[InputSchema]) -> Result<OperatorPlan, Error> {
        todo!()
    }

    /// Makes the instance ready for rows. `inputs` are the whole inputs as given to [`Self::plan`]; the guest is told of the columns
    /// that `plan` reads, followed by key columns that it does not read.
    ///
    /// # Errors
    /// `Declined`: the guest says no. Otherwise the call failed.
    pub async fn open(&mut self, _settings: &serde_json::Value, _inputs: &[InputSchema], _plan: Arc<OperatorPlan>) -> Result<(), Error> {
        todo!()
    }

    /// Handles rows of input `port`. The collections are given back, unless the future is dropped.
    pub async fn process(&mut self, _now: Moment, _port: u32, _rows: Rows, _collections: Option<Box<dyn Collections>>) -> CallResult {
        todo!()
    }

    /// Handles timers that are due. The collections are given back, unless the future is dropped.
    pub async fn on_timers(&mut self, _now: Moment, _due: DueTimers, _collections: Option<Box<dyn Collections>>) -> CallResult {
        todo!()
    }

    /// What the last call cost.
    pub fn last_call(&self) -> CallStats {
        todo!()
    }
}
