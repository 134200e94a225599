//! What a user may write under `blackhole:`.

use schemars::JsonSchema;
use serde::Deserialize;

/// A sink that has no settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {}
