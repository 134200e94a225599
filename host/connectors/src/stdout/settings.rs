//! What a user may write under `stdout:`.

use schemars::JsonSchema;
use serde::Deserialize;

/// How rows are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// A table on a terminal, NDJSON otherwise.
    #[default]
    Auto,
    /// A table.
    Table,
    /// One JSON object per line.
    Ndjson,
}

/// A sink that prints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// How rows are shown. Default: auto.
    pub format: Shape,
}
