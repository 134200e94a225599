//! What a user may write under `stdin:`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings::AsciiCharacter;

/// A format of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LineFormat {
    /// Comma-separated values, with a header unless `header: false`.
    Csv,
    /// One JSON object per line.
    #[default]
    Ndjson,
}

/// A source that reads standard input.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// How a line is written. Default: ndjson.
    #[serde(default)]
    pub format: LineFormat,
    /// CSV: whether the first record names the columns. Default: true.
    pub header: Option<bool>,
    /// CSV: the character between fields. Default: `,`.
    pub delimiter: Option<AsciiCharacter>,
    /// CSV: the character around fields that hold delimiters or line ends. Default: `"`.
    pub quote: Option<AsciiCharacter>,
    /// CSV: unquoted texts that mean null, besides the empty one. Default: none.
    #[serde(default)]
    pub null_values: Vec<String>,
    /// Whether the input is a whole that ends, as a file is, or a stream of events as they happen: then watermarks follow every batch instead of
    /// every 1,024th row, and the source may become idle. Default: true.
    #[serde(default = "default_bounded")]
    pub bounded: bool,
    /// How timestamps are written, by column; as for `files`.
    #[serde(default)]
    pub timestamp_formats: BTreeMap<String, String>,
    /// A longer record is rejected. In bytes, at most 256 MiB. Default: 1 MiB.
    #[serde(default = "default_max_record_bytes")]
    pub max_record_bytes: usize,
}

fn default_max_record_bytes() -> usize {
    1 << 20
}

fn default_bounded() -> bool {
    true
}
