//! `project: [origin, dep_delay]` or `project: { airport: origin, delay: dep_delay }`: only these columns, in this order, with other names
//! if they are given.

use std::{any::Any, sync::Arc};

use arrow_schema::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_model::{Batch, StreamType};
use schemars::{JsonSchema, Schema as JsonSchemaDocument, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use super::{OperatorSpec, PlanRequest, Planned, Problem};
use crate::{
    operator::{Moment, Operator, OperatorContext, OperatorError, OperatorPlan, Output},
    spec::suggest::unknown_column,
};

/// The columns that stay, in order: a list of names, or new name → name in the input.
#[derive(Debug)]
pub struct Project {
    columns: Vec<Projected>,
}

#[derive(Debug)]
struct Projected {
    /// Where it stands in the settings.
    path: String,
    name: String,
    from: String,
}

impl<'de> Deserialize<'de> for Project {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProjectVisitor)
    }
}

struct ProjectVisitor;

impl<'de> Visitor<'de> for ProjectVisitor {
    type Value = Project;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of columns, or a map of new name to column")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Project, A::Error> {
        let mut columns = Vec::new();
        while let Some(name) = list.next_element::<String>()? {
            columns.push(Projected { path: columns.len().to_string(), from: name.clone(), name });
        }
        not_empty(columns)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Project, A::Error> {
        let mut columns = Vec::new();
        while let Some((name, from)) = map.next_entry::<String, String>()? {
            columns.push(Projected { path: name.clone(), name, from });
        }
        not_empty(columns)
    }
}

fn not_empty<E: de::Error>(columns: Vec<Projected>) -> Result<Project, E> {
    if columns.is_empty() { Err(E::custom("at least one column must stay")) } else { Ok(Project { columns }) }
}

impl JsonSchema for Project {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Project".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> JsonSchemaDocument {
        schemars::json_schema!({
            "description": "The columns that stay, in order: a list of names, or new name → name in the input.",
            "anyOf": [
                { "type": "array", "items": { "type": "string" }, "minItems": 1 },
                { "type": "object", "additionalProperties": { "type": "string" }, "minProperties": 1 }
            ]
        })
    }
}

#[async_trait]
impl OperatorSpec for Project {
    const KEY: &'static str = "project";

    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>> {
        let input = &request.inputs[0];
        let mut problems = Vec::new();
        let mut columns = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        for Projected { path, name, from } in &self.columns {
            if fields.iter().any(|field| field.name() == name) {
                problems.push(Problem::at(path, format!("two columns are named `{name}`")));
            }
            match input.schema.index_of(from) {
                Ok(index) => {
                    columns.push(index);
                    fields.push(input.schema.field(index).clone().with_name(name));
                }
                Err(_) => problems.push(unknown_column(path, from, &input.schema)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let schema = Arc::new(Schema::new(fields));
        let output = StreamType { schema, ..input.clone() };
        Ok(Planned::new(ProjectPlan { outputs: [(super::OUTPUT.into(), output)], columns }))
    }
}

struct ProjectPlan {
    outputs: [(String, StreamType); 1],
    columns: Vec<usize>,
}

#[async_trait]
impl OperatorPlan for ProjectPlan {
    fn outputs(&self) -> &[(String, StreamType)] {
        &self.outputs
    }

    fn reads(&self, _input: usize) -> Option<Vec<usize>> {
        Some(self.columns.clone())
    }

    fn accepts_changes(&self, _input: usize) -> bool {
        true
    }

    fn uses_watermarks(&self) -> bool {
        false
    }

    fn holds_rows(&self) -> bool {
        false
    }

    async fn create(&self, _context: OperatorContext) -> Result<Box<dyn Operator>, OperatorError> {
        Ok(Box::new(ProjectRun { schema: self.outputs[0].1.schema.clone(), columns: self.columns.clone() }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct ProjectRun {
    schema: SchemaRef,
    columns: Vec<usize>,
}

#[async_trait]
impl Operator for ProjectRun {
    async fn on_batch(&mut self, _input: usize, batch: Batch, _now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let columns = self.columns.iter().map(|&column| batch.column(column).clone()).collect();
        let projected = batch.with_columns(self.schema.clone(), columns);
        out.emit(0, projected.map_err(|error| OperatorError::internal("the batch is not of the planned schema").because(error))?);
        Ok(())
    }
}
