//! Wasm aggregates: the same contract as [`super::BuiltIn`], answered by a component.
//!
//! Failures follow the one rule of guests: a new instance and the whole call once more, then bisected; a single row that fails twice is
//! rejected. The accumulators are values that the host holds, so a failed call changes nothing.

use std::{ops::Range, sync::Arc};

use arrow_array::ArrayRef;
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType;
use arrow_select::interleave::interleave;
use millstream_model::Batch;
use millstream_wasm::{AggregateInstance, Component, Error, Failure, GroupedRows, InstanceContext};
use serde_json::Value;

use super::NoResult;
use crate::operator::OperatorError;

/// A planned Wasm aggregate.
pub struct ComponentAggregate {
    /// The component.
    pub component: Component,
    /// Its path in the job file, for messages.
    pub path: String,
    /// Its settings.
    pub settings: Value,
    /// What it agreed to.
    pub plan: Arc<millstream_wasm::AggregatePlan>,
    /// The columns it reads, by number in the operator's input.
    pub columns: Vec<usize>,
}

impl ComponentAggregate {
    /// The type of an accumulator.
    pub fn accumulator_type(&self) -> &DataType {
        &self.plan.accumulator_type
    }

    async fn instance(&self, context: &InstanceContext) -> Result<AggregateInstance, OperatorError> {
        let open = async {
            let mut instance = self.component.aggregate(context.clone()).await?;
            instance.open(&self.settings, Arc::clone(&self.plan)).await?;
            Ok::<_, Error>(instance)
        };
        open.await.map_err(|error| OperatorError::user(format!("aggregate `{}` cannot be opened", self.path)).because(error))
    }
}

/// A row that an aggregate can never take: its number, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// The row of the batch.
    pub row: usize,
    /// One clause.
    pub reason: String,
}

/// A running Wasm aggregate of one subtask.
pub struct Guest {
    planned: Arc<ComponentAggregate>,
    context: InstanceContext,
    instance: AggregateInstance,
    guest_ns: u64,
    traps: u64,
}

impl Guest {
    /// A new instance.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub async fn open(planned: Arc<ComponentAggregate>, context: InstanceContext) -> Result<Self, OperatorError> {
        let instance = planned.instance(&context).await?;
        Ok(Self { planned, context, instance, guest_ns: 0, traps: 0 })
    }

    /// The accumulators after these rows, but for `refused` ones; if there are any, the accumulators are those without them.
    ///
    /// # Errors
    /// A fault of the host, or a new instance cannot be made.
    pub async fn accumulate(
        &mut self,
        batch: &Batch,
        group_of_row: &[u32],
        accumulators: &ArrayRef,
        refused: &mut Vec<RefusedRow>,
    ) -> Result<ArrayRef, OperatorError> {
        let columns: Vec<ArrayRef> = self.planned.columns.iter().map(|&column| Arc::clone(batch.column(column))).collect();
        let mut accumulators = Arc::clone(accumulators);
        let mut waiting = std::iter::once(0..batch.num_rows()).collect::<Vec<_>>();
        while let Some(range) = waiting.pop() {
            let rows = grouped_rows(&columns, group_of_row, range.clone(), accumulators.len());
            match self.try_twice(&Call::Accumulate(rows, Arc::clone(&accumulators))).await? {
                Ok(updated) => accumulators = updated,
                Err(failure) if range.len() == 1 => refused.push(RefusedRow { row: range.start, reason: failure.to_string() }),
                Err(_) => waiting.extend(halves_in_order(range)),
            }
        }
        Ok(accumulators)
    }

    /// The accumulators `into` after `other[i]` was merged into `into[into_of_other[i]]`.
    ///
    /// # Errors
    /// The guest fails twice: there is no row to blame.
    pub async fn merge(&mut self, into: &ArrayRef, other: &ArrayRef, into_of_other: &[u32]) -> Result<ArrayRef, OperatorError> {
        let places = ScalarBuffer::from(into_of_other.to_vec());
        let merged = self.try_twice(&Call::Merge(Arc::clone(into), Arc::clone(other), places)).await?;
        merged
            .map_err(|failure| OperatorError::user(format!("aggregate `{}` cannot merge accumulators", self.planned.path)).because(failure))
    }

    /// The result of each accumulator; those that have none are added to `without`.
    ///
    /// # Errors
    /// A fault of the host, or a new instance cannot be made.
    pub async fn finish(&mut self, accumulators: &ArrayRef, without: &mut Vec<NoResult>) -> Result<ArrayRef, OperatorError> {
        let mut parts: Vec<ArrayRef> = Vec::new();
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(accumulators.len());
        let mut missing = Vec::new();
        let mut waiting = std::iter::once(0..accumulators.len()).collect::<Vec<_>>();
        while let Some(range) = waiting.pop() {
            let part = accumulators.slice(range.start, range.len());
            match self.try_twice(&Call::Finish(part)).await? {
                Ok(results) => {
                    places.extend((0..results.len()).map(|index| (parts.len(), index)));
                    parts.push(results);
                }
                Err(failure) if range.len() == 1 => {
                    missing.push(places.len());
                    places.push((0, 0));
                    without.push(NoResult { group: range.start, reason: failure.to_string() });
                }
                Err(_) => waiting.extend(halves_in_order(range)),
            }
        }
        gather_results(self.planned.plan.output.data_type(), &parts, &mut places, &missing)
    }

    /// Nanoseconds in the guest and traps since the last call.
    pub fn take_costs(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.guest_ns), std::mem::take(&mut self.traps))
    }

    /// One call; if the guest fails, a new instance and the same call once more.
    async fn try_twice(&mut self, call: &Call) -> Result<Result<ArrayRef, Failure>, OperatorError> {
        let first = self.try_once(call).await?;
        if first.is_ok() { Ok(first) } else { self.try_once(call).await }
    }

    async fn try_once(&mut self, call: &Call) -> Result<Result<ArrayRef, Failure>, OperatorError> {
        let answer = call.make(&mut self.instance).await;
        self.guest_ns += self.instance.last_call().busy.as_nanos() as u64;
        match &answer {
            Ok(_) => {}
            Err(Failure::Host { .. }) => {
                let failure = answer.expect_err("it was matched as an error");
                return Err(OperatorError::internal(format!("aggregate `{}` could not be called", self.planned.path)).because(failure));
            }
            Err(_) => {
                self.traps += 1;
                self.instance = self.planned.instance(&self.context).await?;
            }
        }
        Ok(answer)
    }
}

/// One call of a guest, which may be made again.
enum Call {
    Accumulate(GroupedRows, ArrayRef),
    Merge(ArrayRef, ArrayRef, ScalarBuffer<u32>),
    Finish(ArrayRef),
}

impl Call {
    async fn make(&self, instance: &mut AggregateInstance) -> Result<ArrayRef, Failure> {
        match self {
            Self::Accumulate(rows, accumulators) => instance.accumulate(rows.clone(), Arc::clone(accumulators)).await,
            Self::Merge(into, other, into_of_other) => instance.merge(Arc::clone(into), Arc::clone(other), into_of_other.clone()).await,
            Self::Finish(accumulators) => instance.finish(Arc::clone(accumulators)).await,
        }
    }
}

/// The two halves of a range, the second first: a stack of them is worked off in row order.
fn halves_in_order(range: Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len() / 2;
    [middle..range.end, range.start..middle]
}

fn grouped_rows(columns: &[ArrayRef], group_of_row: &[u32], rows: Range<usize>, groups: usize) -> GroupedRows {
    GroupedRows {
        length: rows.len() as u32,
        columns: columns.iter().map(|column| column.slice(rows.start, rows.len())).collect(),
        group_of_row: ScalarBuffer::from(group_of_row[rows].to_vec()),
        groups: groups as u32,
    }
}

/// The results of parts in one array; where a result is missing stands any other, or null if there is none at all.
fn gather_results(
    data_type: &DataType,
    parts: &[ArrayRef],
    places: &mut [(usize, usize)],
    missing: &[usize],
) -> Result<ArrayRef, OperatorError> {
    if let ([only], []) = (parts, missing) {
        return Ok(Arc::clone(only));
    }
    let parts: Vec<&dyn arrow_array::Array> =
        parts.iter().map(AsRef::as_ref).filter(|part: &&dyn arrow_array::Array| !part.is_empty()).collect();
    if parts.is_empty() {
        return Ok(arrow_array::new_null_array(data_type, places.len()));
    }
    interleave(&parts, places).map_err(|error| OperatorError::internal("the results of an aggregate do not fit together").because(error))
}
