//! What a user may write under `http:`.

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroUsize},
};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{formats::ndjson::Nulls, settings::Period};

/// A sink that posts rows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Where to; `http://` or `https://`. Required.
    pub url: String,
    /// Headers of every request, such as `Authorization`. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Most rows of a request. Default: 1,000.
    #[serde(default = "default_batch_rows")]
    pub batch_rows: NonZeroUsize,
    /// A request is sent once its body has so many bytes. Default: 1 MiB.
    #[serde(default = "default_batch_bytes")]
    pub batch_bytes: NonZeroUsize,
    /// How long one try may take. Default: 30s.
    #[serde(default = "default_timeout")]
    pub timeout: Period,
    /// How often a request is tried before the job fails. Default: 8.
    #[serde(default = "default_tries")]
    pub tries: NonZeroU32,
    /// Whether nulls are written (`write`) or left out (`omit`). Default: write.
    #[serde(default)]
    pub nulls: Nulls,
}

fn default_batch_rows() -> NonZeroUsize {
    NonZeroUsize::new(1_000).expect("it is not zero")
}

fn default_batch_bytes() -> NonZeroUsize {
    NonZeroUsize::new(1 << 20).expect("it is not zero")
}

fn default_timeout() -> Period {
    Period::ms(30_000)
}

fn default_tries() -> NonZeroU32 {
    NonZeroU32::new(8).expect("it is not zero")
}
