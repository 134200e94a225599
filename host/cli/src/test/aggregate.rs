//! Drives an aggregate through the steps of a case, as a window would.

use std::{path::Path, sync::Arc};

use arrow_array::{ArrayRef, new_null_array};
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType;
use millstream_wasm::{AggregateInstance, AggregatePlan, GroupedRows, InstanceContext};
use serde_json::{Map, Value};

use super::{
    case::{AggregateCase, AggregateStep},
    chain, compare, rows, values,
};

/// Runs a case with at most so many rows per call. What is not as expected, in words; an error is a mistake in the case, or a failure.
pub async fn run(
    case: &AggregateCase,
    component: &Path,
    components: &millstream_wasm::Runtime,
    rows_per_call: usize,
) -> Result<Vec<String>, String> {
    let schema = rows::schema(&case.columns)?;
    let loaded = components.load_file(component).await.map_err(|error| chain(&error))?;
    let mut instance = loaded.aggregate(InstanceContext::unheard(None)).await.map_err(|error| chain(&error))?;
    instance.describe().await.map_err(|error| chain(&error))?;
    let plan = Arc::new(instance.plan(&case.settings, schema.fields()).await.map_err(|error| chain(&error))?);
    instance.open(&case.settings, plan.clone()).await.map_err(|error| chain(&error))?;
    let mut driver = Driver { instance, schema, plan, groups: Vec::new() };
    for (number, step) in case.steps.iter().enumerate() {
        driver.step(step, rows_per_call).await.map_err(|reason| format!("step {}: {reason}", number + 1))?;
    }
    driver.differences(&case.expected).await
}

/// An aggregate between two steps.
struct Driver {
    instance: AggregateInstance,
    schema: arrow_schema::SchemaRef,
    plan: Arc<AggregatePlan>,
    /// Each group with its accumulator, an array of one.
    groups: Vec<(String, ArrayRef)>,
}

impl Driver {
    async fn step(&mut self, step: &AggregateStep, rows_per_call: usize) -> Result<(), String> {
        match step {
            AggregateStep::Accumulate(rows) => {
                for rows in rows.chunks(rows_per_call) {
                    self.accumulate(rows).await?;
                }
                Ok(())
            }
            AggregateStep::Merge(into, other) => self.merge(into, other).await,
        }
    }

    async fn accumulate(&mut self, rows: &[(String, Map<String, Value>)]) -> Result<(), String> {
        let of_row: Vec<usize> = rows.iter().map(|(group, _)| self.number(group)).collect();
        let mut touched = of_row.clone();
        touched.sort_unstable();
        touched.dedup();
        let place = |group: &usize| touched.binary_search(group).map_or(0, |place| u32::try_from(place).unwrap_or(u32::MAX));
        let columns = values::columns(self.schema.fields(), &rows.iter().map(|(_, row)| row).collect::<Vec<_>>())?;
        let grouped = GroupedRows {
            length: u32::try_from(rows.len()).map_err(|error| error.to_string())?,
            columns: self.plan.columns.iter().map(|&column| columns[column].clone()).collect(),
            group_of_row: of_row.iter().map(place).collect::<Vec<_>>().into(),
            groups: u32::try_from(touched.len()).map_err(|error| error.to_string())?,
        };
        let before = concat(touched.iter().map(|&group| &self.groups[group].1), &self.plan.accumulator_type)?;
        let after = self.instance.accumulate(grouped, before).await.map_err(|failure| chain(&failure))?;
        for (place, group) in touched.into_iter().enumerate() {
            self.groups[group].1 = after.slice(place, 1);
        }
        Ok(())
    }

    async fn merge(&mut self, into: &str, other: &str) -> Result<(), String> {
        if !self.plan.merges {
            return Err("the aggregate has no `merge`".into());
        }
        let other = self.number(other);
        let (_, other) = self.groups.remove(other);
        let into = self.number(into);
        let onto: ScalarBuffer<u32> = vec![0].into();
        let merged = self.instance.merge(self.groups[into].1.clone(), other, onto).await;
        self.groups[into].1 = merged.map_err(|failure| chain(&failure))?;
        Ok(())
    }

    /// The number of a group; a new one starts with a null accumulator.
    fn number(&mut self, group: &str) -> usize {
        self.groups.iter().position(|(name, _)| name == group).unwrap_or_else(|| {
            self.groups.push((group.to_owned(), new_null_array(&self.plan.accumulator_type, 1)));
            self.groups.len() - 1
        })
    }

    async fn differences(mut self, expected: &Map<String, Value>) -> Result<Vec<String>, String> {
        let accumulators = concat(self.groups.iter().map(|(_, accumulator)| accumulator), &self.plan.accumulator_type)?;
        let results = self.instance.finish(accumulators).await.map_err(|failure| chain(&failure))?;
        let output = self.plan.output.data_type();
        let expected_values = values::values(&values::array(output, &expected.values().collect::<Vec<_>>())?)?;
        let mut expected: Vec<String> = expected.keys().zip(&expected_values).map(shown).collect();
        let mut found: Vec<String> = self.groups.iter().map(|(group, _)| group).zip(&values::values(&results)?).map(shown).collect();
        expected.sort_unstable();
        found.sort_unstable();
        Ok(compare::differing("results", &expected, &found).into_iter().collect())
    }
}

fn shown((group, value): (&String, &Value)) -> String {
    format!("{group}: {value}")
}

fn concat<'a>(arrays: impl Iterator<Item = &'a ArrayRef>, data_type: &DataType) -> Result<ArrayRef, String> {
    let arrays: Vec<&dyn arrow_array::Array> = arrays.map(AsRef::as_ref).collect();
    if arrays.is_empty() {
        return Ok(new_null_array(data_type, 0));
    }
    arrow_select::concat::concat(&arrays).map_err(|error| error.to_string())
}
