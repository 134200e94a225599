//! Gives a component values of older versions, as a restore would.

use std::path::Path;

use arrow_schema::DataType;
use millstream_model::types;
use millstream_wasm::{Component, InstanceContext, OldState};
use serde_json::Value;

use super::{
    case::{Migrated, MigrationCase, MigrationStep},
    chain, compare, values,
};

/// Runs a case with at most so many values per call. What is not as expected, in words; an error is a mistake in the case, or a failure.
pub async fn run(
    case: &MigrationCase,
    component: &Path,
    components: &millstream_wasm::Runtime,
    values_per_call: usize,
) -> Result<Vec<String>, String> {
    let loaded = components.load_file(component).await.map_err(|error| chain(&error))?;
    let mut differences = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        let different = differs(&loaded, step, values_per_call).await.map_err(|reason| format!("step {}: {reason}", number + 1))?;
        differences.extend(different.map(|difference| format!("step {}: {difference}", number + 1)));
    }
    Ok(differences)
}

async fn differs(component: &Component, step: &MigrationStep, values_per_call: usize) -> Result<Option<String>, String> {
    let (found, to) = match &step.migrated {
        Migrated::Expected { to, expected } => {
            let to = types::parse_type(to).map_err(|error| error.to_string())?;
            let wanted = shown(&values::values(&values::array(&to, &expected.iter().collect::<Vec<_>>())?)?);
            match migrated(component, step, &to, values_per_call).await? {
                Ok(found) => return Ok(compare::differing("values", &wanted, &shown(&found))),
                Err(refusal) => (refusal, "values".to_owned()),
            }
        }
        Migrated::Refused { refused } => match migrated(component, step, &DataType::Null, values_per_call).await? {
            Err(refusal) if refusal.contains(refused) => return Ok(None),
            Err(refusal) => (refusal, format!("a refusal with `{refused}`")),
            Ok(_) => ("values".to_owned(), format!("a refusal with `{refused}`")),
        },
    };
    Ok(Some(format!("expected {to}, but it answered: {found}")))
}

/// The values that the component makes of a step's, or what it says. It is only asked, so a type that it does not answer with does no harm.
async fn migrated(
    component: &Component,
    step: &MigrationStep,
    to: &DataType,
    values_per_call: usize,
) -> Result<Result<Vec<Value>, String>, String> {
    let from = types::parse_type(&step.data_type).map_err(|error| error.to_string())?;
    let to = if *to == DataType::Null { &from } else { to };
    let mut found = Vec::new();
    let mut instance = component.migration(InstanceContext::unheard(None)).await.map_err(|error| chain(&error))?;
    for part in step.values.chunks(values_per_call) {
        let old = values::array(&from, &part.iter().collect::<Vec<_>>())?;
        match instance.migrate(OldState { name: &step.state, version: step.version, values: &old }, to).await {
            Ok(migrated) => found.extend(values::values(&migrated)?),
            Err(failure) => return Ok(Err(chain(&failure))),
        }
    }
    Ok(Ok(found))
}

fn shown(values: &[Value]) -> Vec<String> {
    values.iter().map(Value::to_string).collect()
}
