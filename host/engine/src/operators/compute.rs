//! `compute: { delay_h: "dep_delay / 60.0" }`: columns made by expressions over the input. A new name is appended, an existing one is
//! replaced in its place; all expressions see the input as it was. A row on which an expression fails is rejected.

use std::{any::Any, sync::Arc};

use arrow_array::{ArrayRef, BooleanArray};
use arrow_schema::{Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_expr::Expression;
use millstream_model::{Batch, StreamType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    OperatorSpec, PlanRequest, Planned, Problem,
    filter::{keep, reject_failed},
};
use crate::operator::{Moment, Operator, OperatorContext, OperatorError, OperatorPlan, Output};

/// Column → expression in SQL's scalar syntax over the columns of the input.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Compute(Map<String, Value>);

impl JsonSchema for Compute {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Compute".into()
    }

    fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Column → expression in SQL's scalar syntax over the columns of the input. A new name is appended, an existing one replaced.",
            "type": "object",
            "additionalProperties": { "type": "string" },
            "minProperties": 1
        })
    }
}

#[async_trait]
impl OperatorSpec for Compute {
    const KEY: &'static str = "compute";

    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>> {
        let input = request.inputs[0].clone();
        let mut fields: Vec<FieldRef> = input.schema.fields().iter().cloned().collect();
        let mut computed = Vec::new();
        let mut problems = Vec::new();
        for (name, text) in &self.0 {
            match expression(name, text, &input) {
                Ok(expression) => {
                    let field = Arc::new(Field::new(name, expression.data_type().clone(), expression.nullable()));
                    computed.push(Computed { column: place(&mut fields, field), expression });
                }
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let schema = Arc::new(Schema::new(fields));
        let output = StreamType { schema, ..input };
        Ok(Planned::new(ComputePlan { outputs: [(super::OUTPUT.into(), output)], computed: computed.into() }))
    }
}

fn expression(name: &str, text: &Value, input: &StreamType) -> Result<Expression, Problem> {
    let text = text.as_str().ok_or_else(|| Problem::at(name, "an expression is a text"))?;
    Expression::parse(text, &input.schema).map_err(|error| Problem::in_expression(name, error))
}

/// Puts a field over the one of its name, or at the end; returns where it is.
fn place(fields: &mut Vec<FieldRef>, field: FieldRef) -> usize {
    match fields.iter().position(|known| known.name() == field.name()) {
        Some(column) => {
            fields[column] = field;
            column
        }
        None => {
            fields.push(field);
            fields.len() - 1
        }
    }
}

struct Computed {
    /// Where it stands in the output.
    column: usize,
    expression: Expression,
}

struct ComputePlan {
    outputs: [(String, StreamType); 1],
    computed: Arc<[Computed]>,
}

#[async_trait]
impl OperatorPlan for ComputePlan {
    fn outputs(&self) -> &[(String, StreamType)] {
        &self.outputs
    }

    fn explain(&self) -> Vec<String> {
        let schema = &self.outputs[0].1.schema;
        self.computed.iter().map(|computed| format!("{} = {}", schema.field(computed.column).name(), computed.expression)).collect()
    }

    fn reads(&self, _input: usize) -> Option<Vec<usize>> {
        let mut columns: Vec<usize> = self.computed.iter().flat_map(|computed| computed.expression.columns().iter().copied()).collect();
        columns.sort_unstable();
        columns.dedup();
        Some(columns)
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
        Ok(Box::new(ComputeRun { schema: self.outputs[0].1.schema.clone(), computed: self.computed.clone() }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct ComputeRun {
    schema: SchemaRef,
    computed: Arc<[Computed]>,
}

#[async_trait]
impl Operator for ComputeRun {
    async fn on_batch(&mut self, _input: usize, batch: Batch, _now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        if let Some((batch, values)) = self.evaluate(batch, out) {
            out.emit(0, self.assemble(&batch, values)?);
        }
        Ok(())
    }
}

impl ComputeRun {
    /// The rows on which no expression fails, with the value of each expression; the others are rejected. None if no row is left.
    fn evaluate(&self, batch: Batch, out: &mut Output) -> Option<(Batch, Vec<ArrayRef>)> {
        let evaluated: Vec<_> = self.computed.iter().map(|computed| computed.expression.evaluate_rows(batch.columns())).collect();
        if evaluated.iter().all(|evaluated| evaluated.failed.is_empty()) {
            return Some((batch, evaluated.into_iter().map(|evaluated| evaluated.values).collect()));
        }
        let mut good = vec![true; batch.num_rows()];
        for (computed, evaluated) in self.computed.iter().zip(&evaluated) {
            let first_failures: Vec<_> =
                evaluated.failed.iter().filter(|failed| std::mem::replace(&mut good[failed.row], false)).cloned().collect();
            reject_failed(&batch, &first_failures, &computed.expression, out);
        }
        let batch = keep(batch, &BooleanArray::from(good))?;
        let values = self.computed.iter().map(|computed| computed.expression.evaluate_rows(batch.columns()).values).collect();
        Some((batch, values))
    }

    fn assemble(&self, batch: &Batch, values: Vec<ArrayRef>) -> Result<Batch, OperatorError> {
        let mut columns: Vec<Option<ArrayRef>> = batch.columns().columns().iter().cloned().map(Some).collect();
        columns.resize(self.schema.fields().len(), None);
        for (computed, values) in self.computed.iter().zip(values) {
            columns[computed.column] = Some(values);
        }
        let columns = columns.into_iter().flatten().collect();
        let assembled = batch.with_columns(self.schema.clone(), columns);
        assembled.map_err(|error| OperatorError::internal("the batch is not of the planned schema").because(error))
    }
}
