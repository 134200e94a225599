//! What a user may write under `files:`.

use std::{collections::BTreeMap, path::Path};

use millstream_engine::connector::SettingsProblem;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    compression::Compression,
    formats::{avro::container::Codec, ndjson::Nulls},
    settings::{AsciiCharacter, OneOrMany, Period, problem},
};

/// What stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileFormat {
    /// Comma-separated values, with a header unless `header: false`.
    Csv,
    /// One JSON object per line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// Apache Avro (object container files).
    Avro,
    /// Text: each line is the value of one column.
    String,
    /// Protocol Buffers: messages, each behind its length.
    Protobuf,
    /// Bytes: values of one column, each behind its length.
    Raw,
}

impl FileFormat {
    /// What the name of a file says, below a suffix of compression.
    pub fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let name = [".gz", ".gzip", ".zst", ".zstd"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        match name.rsplit_once('.')?.1 {
            "csv" | "tsv" => Some(Self::Csv),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "parquet" | "pq" => Some(Self::Parquet),
            "avro" => Some(Self::Avro),
            "txt" | "log" => Some(Self::String),
            "pb" => Some(Self::Protobuf),
            _ => None,
        }
    }

    /// Why files of the format are not compressed as a whole; none: they may be.
    pub fn compressed_inside(self) -> Option<&'static str> {
        match self {
            Self::Csv | Self::Ndjson | Self::String | Self::Protobuf | Self::Raw => None,
            Self::Parquet => Some("Parquet files are compressed inside: leave this out"),
            Self::Avro => Some("Avro files are compressed inside: leave this out (a sink has `codec`)"),
        }
    }

    /// The end of the names of written files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Avro => "avro",
            Self::String => "txt",
            Self::Protobuf => "pb",
            Self::Raw => "bin",
        }
    }

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv | Self::Ndjson | Self::Parquet | Self::Avro => self.extension(),
            Self::String => "string",
            Self::Protobuf => "protobuf",
            Self::Raw => "raw",
        }
    }
}

/// A source that reads files.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SourceSettings {
    /// A file, a directory or a glob, or a list of these; relative to the job file.
    pub path: OneOrMany,
    /// Default: by the name of the first file (`.csv`, `.tsv`, `.ndjson`, `.jsonl`, `.parquet`, `.avro`, `.txt`, `.log`, `.pb`).
    pub format: Option<FileFormat>,
    /// How files are compressed as a whole, other than Parquet and Avro. Default: by the name of each file (`.gz`, `.zst`).
    pub compression: Option<Compression>,
    /// CSV: whether the first record of each file names the columns. Default: true.
    pub header: Option<bool>,
    /// CSV: the character between fields. Default: `,` (`tab` in files named `.tsv`).
    pub delimiter: Option<AsciiCharacter>,
    /// CSV: the character around fields that hold delimiters or line ends. Default: `"`.
    pub quote: Option<AsciiCharacter>,
    /// CSV: unquoted texts that mean null, besides the empty one; such as `["NA"]`. Default: none.
    #[serde(default)]
    pub null_values: Vec<String>,
    /// CSV and NDJSON: how timestamps are written, by column: `rfc3339`, `unix-s`, `unix-ms`, `unix-us`, `unix-ns`, or a pattern such as
    /// `%d.%m.%Y %H:%M` (no zone in it: the column's zone, else UTC). Default: RFC 3339, or an integer in the column's unit.
    #[serde(default)]
    pub timestamp_formats: BTreeMap<String, String>,
    /// CSV and NDJSON without declared schema: records of the first file that decide the types. Default: 10,000.
    #[serde(default = "default_infer_records")]
    pub infer_records: usize,
    /// CSV, NDJSON and string: a longer record is rejected. Protobuf and raw: is damage. In bytes, at most 256 MiB. Default: 1 MiB.
    #[serde(default = "default_max_record_bytes")]
    pub max_record_bytes: usize,
    /// Protobuf: the schema itself, or the path of a `.proto` file, whose imports lie beside it. Required.
    pub value_schema: Option<String>,
    /// Protobuf: which message of the file the values are. Default: the first one.
    pub message: Option<String>,
    /// NDJSON and string: cut uncompressed files into ranges of about so many bytes, which are read in parallel; the order of the lines in a file is then
    /// kept only within each range. Default: files are not cut.
    pub split_bytes: Option<u64>,
    /// Whether to wait for more: lines appended to files, new files in directories. Default: false.
    #[serde(default)]
    pub follow: bool,
    /// With `follow`: time between two looks at a file or directory that had nothing new. Default: 200ms.
    #[serde(default = "default_poll_interval")]
    pub poll_interval: Period,
}

fn default_infer_records() -> usize {
    10_000
}

fn default_max_record_bytes() -> usize {
    1 << 20
}

fn default_poll_interval() -> Period {
    Period::ms(200)
}

/// A sink that writes files.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SinkSettings {
    /// The directory of the parts; relative to the job file. It is created if it does not exist.
    pub path: String,
    /// Required.
    pub format: FileFormat,
    /// How the parts are compressed as a whole. Default: not. (Parquet and Avro are compressed inside: Parquet with Zstandard.)
    pub compression: Option<Compression>,
    /// Avro: how blocks are compressed. Default: deflate.
    pub codec: Option<Codec>,
    /// Columns whose values name directories, such as `[origin, date]`. Default: none.
    #[serde(default)]
    pub by: Vec<String>,
    /// A part is complete after so many rows. Default: no limit.
    pub roll_rows: Option<u64>,
    /// A part is complete after about so many bytes, before compression. Default: no limit.
    pub roll_bytes: Option<u64>,
    /// A part is complete, and visible, so long after its first row. For jobs that never end. Default: no limit.
    pub roll_after: Option<Period>,
    /// Whether parts of another run may be replaced. Default: false.
    #[serde(default)]
    pub overwrite: bool,
    /// CSV: the character between fields. Default: `,`.
    pub delimiter: Option<AsciiCharacter>,
    /// CSV: whether each part starts with the column names. Default: true.
    pub header: Option<bool>,
    /// Protobuf: the schema itself, or the path of a `.proto` file, whose imports lie beside it. Required.
    pub value_schema: Option<String>,
    /// Protobuf: which message of the file the rows are. Default: the first one.
    pub message: Option<String>,
    /// NDJSON: whether nulls are written (`write`) or left out (`omit`). Default: write.
    pub nulls: Option<Nulls>,
}

/// `value-schema` and `message` where they belong.
pub(super) fn check_value_schema(
    format: FileFormat,
    value_schema: Option<&str>,
    message: Option<&str>,
    problems: &mut Vec<SettingsProblem>,
) {
    if format == FileFormat::Protobuf && value_schema.is_none() {
        problems.push(problem("value-schema", "says what the messages are: the text of a `.proto` file, or its path"));
    }
    for (name, given) in [("value-schema", value_schema.is_some()), ("message", message.is_some())] {
        if given && format != FileFormat::Protobuf {
            problems.push(problem(name, "is a setting of protobuf only"));
        }
    }
}
