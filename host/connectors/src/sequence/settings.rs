//! What a user may write under `sequence:`.

use std::num::{NonZeroI64, NonZeroU64};

use schemars::JsonSchema;
use serde::Deserialize;

/// A source of numbers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The first number. Default: 0.
    #[serde(default)]
    pub from: i64,
    /// The last number, if the steps meet it; no number lies behind it. Default: without end.
    pub to: Option<i64>,
    /// From one number to the next; may be negative. Default: 1.
    #[serde(default = "default_step")]
    pub step: NonZeroI64,
    /// Numbers per second. Default: as fast as they are taken.
    pub rate: Option<NonZeroU64>,
}

fn default_step() -> NonZeroI64 {
    NonZeroI64::new(1).expect("it is not zero")
}
