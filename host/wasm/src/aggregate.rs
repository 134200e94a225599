//! An instance of a user aggregate: accumulators are values that travel with the batch; null is a new one.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_buffer::ScalarBuffer;
use arrow_schema::Fields;

use crate::{
    error::{Error, Failure},
    plan::{AggregateDescriptor, AggregatePlan},
    turn::CallStats,
};

/// One instance of an aggregate component. Owned by one subtask; calls never overlap. Spent after a failure, as an operator's.
pub struct AggregateInstance {}

/// Rows to accumulate.
#[derive(Clone, Debug)]
pub struct GroupedRows {
    /// Number of rows.
    pub length: u32,
    /// The columns that the plan reads, in its order.
    pub columns: Vec<ArrayRef>,
    /// The group of each row.
    pub group_of_row: ScalarBuffer<u32>,
    /// Number of groups.
    pub groups: u32,
}

impl AggregateInstance {
    /// What the component says of itself.
    ///
    /// # Errors
    /// The guest fails, or the answer is no description.
    pub async fn describe(&mut self) -> Result<AggregateDescriptor, Error> {
        todo!()
    }

    /// What it will read and return, given these settings and columns.
    ///
    /// # Errors
    /// `Declined`: settings or columns do not suit it. `BadPlan`: its plan does not fit. Otherwise the call failed.
    pub async fn plan(&mut self, _settings: &serde_json::Value, _fields: &Fields) -> Result<AggregatePlan, Error> {
        todo!()
    }

    /// Makes the instance ready for rows.
    ///
    /// # Errors
    /// `Declined`: the guest says no. Otherwise the call failed.
    pub async fn open(&mut self, _settings: &serde_json::Value, _plan: Arc<AggregatePlan>) -> Result<(), Error> {
        todo!()
    }

    /// The accumulators (one per group, null = new) after these rows.
    ///
    /// # Errors
    /// The call failed, or its answer has the wrong type or length.
    pub async fn accumulate(&mut self, _rows: GroupedRows, _accumulators: ArrayRef) -> Result<ArrayRef, Failure> {
        todo!()
    }

    /// The accumulators `into` after `other[i]` was merged into `into[into_of_other[i]]`.
    ///
    /// # Errors
    /// As [`Self::accumulate`].
    pub async fn merge(&mut self, _into: ArrayRef, _other: ArrayRef, _into_of_other: ScalarBuffer<u32>) -> Result<ArrayRef, Failure> {
        todo!()
    }

    /// The result of each accumulator.
    ///
    /// # Errors
    /// As [`Self::accumulate`].
    pub async fn finish(&mut self, _accumulators: ArrayRef) -> Result<ArrayRef, Failure> {
        todo!()
    }

    /// What the last call cost.
    pub fn last_call(&self) -> CallStats {
        todo!()
    }
}
