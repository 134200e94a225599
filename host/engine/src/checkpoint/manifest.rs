//! The manifest: what one checkpoint or savepoint consists of. Written once, never changed; the commit record names its path and hash.
//!
//! # Bytes
//! One line `millstream-manifest <format> <sha-256 of what follows, hexadecimal>`, a line end, then this as JSON. A reader refuses a newer format
//! by name, an older one is converted at the edge ([`Manifest::decode`]); there is one type in memory.
//!
//! Files are named by content: `<job>/files/<sha256>` in the checkpoint storage of a job, `files/<sha256>` inside a savepoint, which is
//! self-contained and can be moved.

use std::{collections::BTreeMap, ops::Range};

use millstream_model::ids::{CheckpointId, JobId, OperatorId, TenantId};
use millstream_state::StoreDescription;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connector::Guarantee;

/// What one checkpoint or savepoint consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// The owner of the job.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The run that took it: grows by one with every claim of the commit log.
    pub incarnation: u64,
    /// Its number; grows over all incarnations of the job.
    pub checkpoint: CheckpointId,
    /// The name a user gave it; none: a checkpoint.
    pub savepoint: Option<String>,
    /// When its barrier was sent, ms since epoch by the job's clock.
    pub created_ms: i64,
    /// Whether all input had ended, so that nothing is left to do.
    pub is_finished: bool,
    /// What the run guaranteed.
    pub guarantee: Guarantee,
    /// Every source, operator and sink, by its id in the job file.
    pub operators: BTreeMap<OperatorId, OperatorManifest>,
}

/// One source, operator or sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OperatorManifest {
    /// What it is.
    pub kind: crate::run::OperatorKind,
    /// SHA-256 of the component that ran; none: a built-in.
    pub component: Option<String>,
    /// The columns of its key, by which keyed state is found and keys are decoded; empty: it is not keyed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<KeyColumn>,
    /// Its subtasks, in order.
    pub subtasks: Vec<SubtaskManifest>,
}

/// One column of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeyColumn {
    /// Its name in the first input.
    pub name: String,
    /// Its type, in the grammar of `wit/types.md` ([`millstream_model::types`]).
    pub data_type: String,
}

/// What one subtask holds of one operator. Everything that is absent is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SubtaskManifest {
    /// The merged watermark of its inputs, ms since epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// The last watermark it had sent on, ms since epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_watermark: Option<i64>,
    /// Keyed state and timers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StateManifest>,
    /// Rows held by `order: event-time`, one file per input port that holds any: port number and file (Arrow IPC).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held_rows: Vec<(usize, FileReference)>,
    /// What else the operator, or (a sink) its writer, returned at the barrier.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub value: Value,
    /// A source's splits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<SplitManifest>,
}

/// Keyed state and timers of one operator in one subtask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StateManifest {
    /// The key groups that it covers.
    pub key_groups: Range<u16>,
    /// Names, types and versions of what the files hold.
    pub description: StoreDescription,
    /// The files, with the names under which the state backend wants them.
    pub files: BTreeMap<String, FileReference>,
}

/// A file of the checkpoint storage, named by its content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileReference {
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// How far one split of a source was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SplitManifest {
    /// Its id, stable across runs.
    pub id: String,
    /// What the source needs to open it.
    pub detail: Value,
    /// Where to go on; none: it was not opened yet.
    pub position: Option<Value>,
    /// Rows read so far: watermarks of a bounded split stand at fixed rows.
    pub rows: u64,
    /// The newest event time so far, ms since epoch.
    pub newest: Option<i64>,
    /// Its watermark, ms since epoch.
    pub watermark: Option<i64>,
    /// Units read so far, for progress.
    pub progress: u64,
    /// Whether it was read to its end.
    pub ended: bool,
}
