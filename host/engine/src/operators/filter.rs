//! `filter: "dep_delay > 15"`: keeps the rows for which a condition holds. A null condition does not hold; a row on which the condition
//! fails (division by zero, a cast) is rejected.

use std::any::Any;

use arrow_array::BooleanArray;
use async_trait::async_trait;
use millstream_expr::{Expression, FailedRow};
use millstream_model::{Batch, StreamType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{OperatorSpec, PlanRequest, Planned, Problem};
use crate::{
    operator::{Moment, Operator, OperatorContext, OperatorError, OperatorPlan, Output},
    rejected::Rejection,
};

/// A condition in SQL's scalar syntax over the columns of the input; rows for which it is true are kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Filter(String);

#[async_trait]
impl OperatorSpec for Filter {
    const KEY: &'static str = "filter";

    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>> {
        let input = request.inputs[0].clone();
        let condition = Expression::parse_condition(&self.0, &input.schema).map_err(|error| vec![Problem::in_expression("", error)])?;
        Ok(Planned::new(FilterPlan { outputs: [(super::OUTPUT.into(), input)], condition }))
    }
}

struct FilterPlan {
    outputs: [(String, StreamType); 1],
    condition: Expression,
}

#[async_trait]
impl OperatorPlan for FilterPlan {
    fn outputs(&self) -> &[(String, StreamType)] {
        &self.outputs
    }

    fn explain(&self) -> Vec<String> {
        vec![format!("keeps rows where {}", self.condition)]
    }

    fn reads(&self, _input: usize) -> Option<Vec<usize>> {
        Some(self.condition.columns().to_vec())
    }

    fn accepts_changes(&self, _input: usize) -> bool {
        true
    }

    fn keeps(&self, _output: usize) -> Option<usize> {
        Some(0)
    }

    fn uses_watermarks(&self) -> bool {
        false
    }

    fn holds_rows(&self) -> bool {
        false
    }

    async fn create(&self, _context: OperatorContext) -> Result<Box<dyn Operator>, OperatorError> {
        Ok(Box::new(FilterRun { condition: self.condition.clone() }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct FilterRun {
    condition: Expression,
}

#[async_trait]
impl Operator for FilterRun {
    async fn on_batch(&mut self, _input: usize, batch: Batch, _now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let selection = self.condition.select(batch.columns());
        reject_failed(&batch, &selection.failed, &self.condition, out);
        if let Some(kept) = keep(batch, &selection.mask) {
            out.emit(0, kept);
        }
        Ok(())
    }
}

/// The rows whose entry in `mask` (which has no nulls) is true; none if there are none.
pub(crate) fn keep(batch: Batch, mask: &BooleanArray) -> Option<Batch> {
    let kept = mask.true_count();
    if kept == 0 {
        return None;
    }
    if kept == batch.num_rows() {
        return Some(batch);
    }
    let rows: Vec<u32> = mask.values().set_indices_u32().collect();
    Some(batch.take(&rows))
}

/// Rejects the rows on which `expression` failed.
pub(super) fn reject_failed(batch: &Batch, failed: &[FailedRow], expression: &Expression, out: &mut Output) {
    for FailedRow { row, reason } in failed {
        out.reject(Rejection::of_row(batch, *row, expression.columns(), format!("{reason} in `{expression}`")));
    }
}
