//! `union: {}`: the rows of several streams of one type, as they come.

use std::any::Any;

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_model::{Batch, StreamType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Environment, OperatorSpec, PlanRequest, Planned, Ports, Problem};
use crate::operator::{Moment, Operator, OperatorContext, OperatorError, OperatorPlan, Output};

/// The rows of all inputs, which have one type. No settings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Union {}

#[async_trait]
impl OperatorSpec for Union {
    const KEY: &'static str = "union";

    async fn ports(&self, _environment: &Environment<'_>) -> Result<Ports, Vec<Problem>> {
        Ok(Ports::Union)
    }

    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>> {
        Ok(Planned::new(UnionPlan { outputs: [(super::OUTPUT.into(), request.inputs[0].clone())] }))
    }
}

struct UnionPlan {
    outputs: [(String, StreamType); 1],
}

#[async_trait]
impl OperatorPlan for UnionPlan {
    fn outputs(&self) -> &[(String, StreamType)] {
        &self.outputs
    }

    fn reads(&self, _input: usize) -> Option<Vec<usize>> {
        Some(Vec::new())
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
        Ok(Box::new(UnionRun { schema: self.outputs[0].1.schema.clone() }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct UnionRun {
    schema: SchemaRef,
}

#[async_trait]
impl Operator for UnionRun {
    async fn on_batch(&mut self, _input: usize, batch: Batch, _now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        // A column may be nullable in some of the streams only; then batches differ in that, and leave as one schema.
        let batch = if batch.schema() == self.schema { batch } else { self.conform(&batch)? };
        out.emit(0, batch);
        Ok(())
    }
}

impl UnionRun {
    fn conform(&self, batch: &Batch) -> Result<Batch, OperatorError> {
        let conformed = batch.with_columns(self.schema.clone(), batch.columns().columns().to_vec());
        conformed.map_err(|error| OperatorError::internal("the batch is not of the planned schema").because(error))
    }
}
