//! The state of operators, out of the files of a checkpoint or savepoint: nothing of the job is touched.
//!
//! [`list`] says which states there are; [`Entries`] reads the entries of one; [`key`] turns what people say into keys.

mod entries;
pub mod key;

use millstream_engine::checkpoint::manifest::{OperatorManifest, StateManifest};
use millstream_model::{
    state::{StateDescriptor, StateKind},
    types::type_text,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use entries::Entries;

use crate::{failure::Failure, kept::Kept};

/// One state, as it is listed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Listed {
    /// Its operator.
    pub operator: String,
    /// The columns of the key, as `name: type`.
    pub key: Vec<String>,
    /// Its name.
    pub state: String,
    /// `value`, `map` or `list`.
    pub kind: String,
    /// The version of its schema.
    pub version: u32,
    /// The type of its values.
    #[serde(rename = "type")]
    pub value_type: String,
    /// Subtasks that keep it.
    pub subtasks: usize,
    /// Of all states of the operator.
    pub operator_bytes: u64,
}

/// The states that are kept, of all operators or of one.
///
/// # Errors
/// The manifest says what cannot be.
pub fn list(kept: &Kept, only: Option<&str>) -> Result<Vec<Listed>, Failure> {
    let mut listed = Vec::new();
    for (id, operator) in kept.manifest.operators.iter().filter(|(id, _)| only.is_none_or(|only| id.as_str() == only)) {
        listed.extend(states(id.as_str(), operator)?);
    }
    Ok(listed)
}

fn states(id: &str, operator: &OperatorManifest) -> Result<Vec<Listed>, Failure> {
    let parts: Vec<&StateManifest> = operator.subtasks.iter().filter_map(|subtask| subtask.state.as_ref()).collect();
    let Some(first) = parts.first() else { return Ok(Vec::new()) };
    let descriptors = first.description.state_descriptors();
    let descriptors = descriptors.map_err(|error| Failure::from_error(error.kind(), &error))?;
    let operator_bytes = parts.iter().flat_map(|part| part.files.values()).map(|file| file.bytes).sum();
    let listed = |state: StateDescriptor| Listed {
        operator: id.to_owned(),
        key: operator.key.iter().map(|column| format!("{}: {}", column.name, column.data_type)).collect(),
        kind: match state.kind {
            StateKind::Value => "value".to_owned(),
            StateKind::OrderedMap => "map".to_owned(),
            StateKind::AppendedList => "list".to_owned(),
        },
        version: state.version,
        value_type: match &state.map_key_type {
            Some(map_key) => format!("{} → {}", type_text(map_key), type_text(&state.value_type)),
            None => type_text(&state.value_type),
        },
        state: state.name,
        subtasks: parts.len(),
        operator_bytes,
    };
    Ok(descriptors.into_iter().map(listed).collect())
}
