//! The job file: what a user asks for, read from YAML or JSON.
//!
//! Flow: text → [`document`] (a JSON value that knows its lines) → [`entries`] (sections and entries, unknown keys) → [`validate`] (each part
//! against its JSON Schema, all mistakes at once) → [`JobSpec`]. Nothing here knows what a stream is: names, types and the graph are `plan`'s.
//! The same schemas, put together, are what `millstream schema` prints ([`schema`]).

mod document;
mod durability;
mod entries;
mod http;
mod problem;
mod schema;
pub mod suggest;
mod units;
mod validate;

use std::num::{NonZeroU32, NonZeroUsize};

use millstream_model::ids::JobId;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use durability::{BackupSettings, CheckpointSettings, RestartSettings, WantedGuarantee};
pub use http::HttpSettings;
pub use problem::{Problem, Problems};
pub use schema::schema;
pub use units::{ByteSize, DurationMs, DurationOrOff};

pub(crate) use document::child;
pub(crate) use problem::Report;

use crate::{
    connector::Connectors,
    graph::{NullKeys, RowOrder},
    rejected::RejectedPolicy,
};

/// A job file that could be read, perhaps with mistakes that `plan` reports with its own. `plan` decides whether it makes a job.
#[derive(Debug)]
pub struct JobSpec {
    /// Name of the job.
    pub job: JobId,
    /// What stands beside the sections.
    pub settings: JobSettings,
    /// The sources, in the order of the file.
    pub sources: Vec<Entry<SourceEntry>>,
    /// The operators, in the order of the file.
    pub operators: Vec<Entry<OperatorEntry>>,
    /// The sinks, in the order of the file.
    pub sinks: Vec<Entry<SinkEntry>>,
    /// Entries that could not be read; their mistakes are among `problems`.
    pub(crate) broken: Vec<BrokenEntry>,
    pub(crate) document: document::Document,
    pub(crate) problems: Problems,
}

/// An entry that could not be read. That it exists is known, so who names it makes no mistake.
#[derive(Debug)]
pub(crate) struct BrokenEntry {
    pub(crate) id: String,
    pub(crate) pointer: String,
    pub(crate) is_sink: bool,
}

/// One source, operator or sink.
#[derive(Debug)]
pub struct Entry<T> {
    /// Its id.
    pub id: String,
    /// Where it is in the file: a JSON pointer.
    pub(crate) pointer: String,
    /// The key that says what it is: `files`, `filter`, `window` …
    pub kind: String,
    /// What stands under that key.
    pub settings: Value,
    /// What stands beside that key.
    pub common: T,
}

/// Settings of the whole job.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct JobSettings {
    /// Number of parallel subtasks of each source, operator and sink that does not say otherwise. Default: the number of cores.
    pub parallelism: Option<NonZeroU32>,
    /// When rows are handed on. Bigger batches cost less per row, smaller ones wait less.
    pub batching: BatchingSettings,
    /// Memory for the state of the whole job; what does not fit goes to disk. Default: 256 MiB.
    pub state_memory: Option<ByteSize>,
    /// What becomes of rows when a durable run dies and goes on: `exactly-once` or `at-least-once`. Default: the strongest that the job's sources
    /// and sinks allow.
    pub guarantee: Option<WantedGuarantee>,
    /// When a durable run takes checkpoints, and how many it keeps.
    pub checkpoints: CheckpointSettings,
    /// How a durable run goes on after a failure.
    pub restart: RestartSettings,
    /// Savepoints that a durable run takes by itself, as a backup. Default: none.
    pub savepoints: Option<BackupSettings>,
}

/// When rows are handed on: whichever comes first.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BatchingSettings {
    /// Most rows of a batch. Default: 8,192.
    pub rows: Option<NonZeroUsize>,
    /// Most bytes of a batch. Default: 1 MiB.
    pub bytes: Option<ByteSize>,
    /// Longest wait for more rows. Default: 5 ms.
    pub wait: Option<DurationMs>,
    /// Bound of the queue of one edge between subtasks. Default: 256 KiB.
    pub edge_bytes: Option<ByteSize>,
}

/// What stands beside the connector's key of a source.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SourceEntry {
    /// The columns: name → type in the grammar of `wit/types.md`, with `?` behind it if it may be null.
    pub schema: Option<Map<String, Value>>,
    /// Where event times come from. Without it the stream has none, unless the source itself knows them.
    pub event_time: Option<EventTimeSettings>,
    /// What becomes of records that cannot be read: `fail` (default), `drop`, or the id of the sink that gets them.
    pub rejected: Option<RejectedPolicy>,
    /// Number of parallel readers. Default: the job's.
    pub parallelism: Option<NonZeroU32>,
}

/// Event times and watermarks of a source.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EventTimeSettings {
    /// A timestamp column (any unit), or an Int64 column of ms since epoch.
    pub column: Option<String>,
    /// An expression over the columns that gives such a value.
    pub expression: Option<String>,
    /// How much older than the newest row of its split a row may be without being late. Default: 0s.
    pub max_out_of_orderness: DurationMs,
    /// After how long without rows a split no longer holds the watermark, or `off`. Default: 30s.
    pub idle_timeout: Option<DurationOrOff>,
    /// How far a split may run ahead of the slowest one before it is held, or `off`. Default: off.
    pub max_drift: Option<DurationOrOff>,
}

/// What stands beside the operator's own key.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct OperatorEntry {
    /// The stream it reads: `id` of a source or operator, or `id.port`.
    pub input: Option<String>,
    /// The streams it reads: a list in port order, or port → stream.
    pub inputs: Option<Inputs>,
    /// The columns that rows are grouped by: a list, or input port → list. Rows of one key go to one subtask. An empty list is one key for
    /// all rows.
    pub key_by: Option<KeyBy>,
    /// What becomes of rows whose key is null in every column: `keep` (default), `drop`, or `reject`.
    pub null_keys: Option<NullKeys>,
    /// In which order rows of a key reach the operator: `arrival` (default) or `event-time`.
    pub order: Option<RowOrder>,
    /// Number of parallel subtasks. Default: the job's.
    pub parallelism: Option<NonZeroU32>,
    /// What becomes of rows that can never succeed: `fail` (default), `drop`, or the id of the sink that gets them.
    pub rejected: Option<RejectedPolicy>,
    /// Grants its component requests over HTTP, within these bounds; `http: {}` with their defaults. Default: it may send none.
    pub http: Option<HttpSettings>,
}

/// What stands beside the connector's key of a sink.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SinkEntry {
    /// The stream it writes: `id` of a source or operator, or `id.port`. A sink that is named under `rejected:` or `late:` needs none.
    pub input: Option<String>,
    /// The streams it writes; they have the same columns.
    pub inputs: Option<Vec<String>>,
    /// Number of parallel writers. Default: the job's, or as many as the sink can have.
    pub parallelism: Option<NonZeroU32>,
}

/// Several inputs of an operator.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Inputs {
    /// Streams in the order of the ports.
    List(Vec<String>),
    /// Port → stream.
    ByPort(Map<String, Value>),
}

/// The key of each input.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum KeyBy {
    /// The same columns for every input.
    Columns(Vec<String>),
    /// Port → columns.
    ByPort(std::collections::BTreeMap<String, Vec<String>>),
}

impl JobSpec {
    /// Reads a job file; `file` names it in messages. Mistakes in it are kept for `plan`, which finds more and reports all of them.
    ///
    /// # Errors
    /// The text is not YAML.
    pub fn parse(file: &str, text: &str, connectors: &Connectors) -> Result<Self, Problems> {
        Self::parse_with(file, text, &[], connectors)
    }

    /// [`Self::parse`], with some values of the file replaced: dotted paths as `sources.flights.files.path`, and what stands there instead.
    ///
    /// # Errors
    /// As there; or a path leads nowhere.
    pub fn parse_with(file: &str, text: &str, replaced: &[(String, Value)], connectors: &Connectors) -> Result<Self, Problems> {
        let mut document = document::Document::parse(file, text)?;
        let mut problems = Problems::new(file, text);
        for (path, value) in replaced {
            if let Err(message) = document.set(path, value.clone()) {
                let (line, column) = document.position("", document::Side::Value);
                problems.push(Problem { line, column, path: String::new(), message, help: None });
            }
        }
        problems.into_result()?;
        Ok(entries::read(document, connectors))
    }

    /// The job file as a JSON value, as it is checked against [`schema`].
    pub fn value(&self) -> &Value {
        &self.document.value
    }

    /// The mistakes found so far; `plan` finds more.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Adds a mistake in the value at a dotted path, or where its nearest ancestor is; `plan` reports it with its own.
    pub fn note(&mut self, path: &str, message: &str, help: Option<String>) {
        let pointer = self.document.resolve("", path);
        let (line, column) = self.document.position(&pointer, document::Side::Value);
        self.problems.push(Problem { line, column, path: path.to_owned(), message: message.to_owned(), help });
    }

    /// The name of the file, for messages.
    pub fn file(&self) -> &str {
        &self.document.file
    }
}

#[cfg(test)]
mod tests;
