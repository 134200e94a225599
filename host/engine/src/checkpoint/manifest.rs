//! The manifest: what one checkpoint or savepoint consists of. Written once, never changed; the commit record names its path and hash.
//!
//! # Bytes
//! One line `millstream-manifest <format> <sha-256 of what follows, hexadecimal>`, a line end, then this as JSON. A reader refuses a newer format
//! by name, an older one is converted at the edge ([`Manifest::decode`]); there is one type in memory.
//!
//! Files are named by content: `<job>/files/<sha256>` in the checkpoint storage of a job, `files/<sha256>` inside a savepoint, which is
//! self-contained and can be moved.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use bytes::Bytes;
use millstream_model::ids::{CheckpointId, JobId, OperatorId, TenantId};
use millstream_state::StoreDescription;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::files::{self, hexadecimal};
use crate::connector::Guarantee;

/// The format that this version writes.
const FORMAT: u64 = 1;
const HEADER: &str = "millstream-manifest ";

/// Why bytes are no manifest; [`Self::at`] adds where they lie.
#[derive(Debug)]
pub enum DecodeError {
    /// They are not what was written.
    Damaged(String),
    /// They were written by a newer version of Millstream.
    NewerFormat(u64),
}

impl DecodeError {
    /// The same of the object at `path`.
    pub fn at(self, path: &str) -> files::Error {
        match self {
            Self::Damaged(reason) => files::Error::Damaged { path: path.into(), reason },
            Self::NewerFormat(format) => files::Error::NewerFormat { path: path.into(), format, newest: FORMAT },
        }
    }
}

impl Manifest {
    /// Its bytes; see the head of this module.
    pub fn encode(&self) -> Bytes {
        let json = serde_json::to_vec(self).expect("every key of a manifest is text");
        let mut bytes = format!("{HEADER}{FORMAT} {}\n", hexadecimal(&Sha256::digest(&json))).into_bytes();
        bytes.extend(json);
        bytes.into()
    }

    /// The manifest in `bytes`.
    ///
    /// # Errors
    /// They are damaged, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let damaged = |reason: &str| DecodeError::Damaged(reason.into());
        let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let head = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(HEADER)).ok_or_else(|| damaged("it is no manifest"))?;
        let (format, sum) = head.split_once(' ').ok_or_else(|| damaged("its first line is not whole"))?;
        let format: u64 = format.parse().map_err(|_| damaged("its first line names no format"))?;
        if format > FORMAT {
            return Err(DecodeError::NewerFormat(format));
        }
        let json = bytes.get(line.len() + 1..).unwrap_or_default();
        if format == 0 || hexadecimal(&Sha256::digest(json)) != sum {
            return Err(damaged("its checksum is that of other bytes"));
        }
        serde_json::from_slice(json).map_err(|error| DecodeError::Damaged(error.to_string()))
    }

    /// All keyed state in it.
    pub fn states(&self) -> impl Iterator<Item = &StateManifest> {
        self.operators.values().flat_map(|operator| &operator.subtasks).filter_map(|subtask| subtask.state.as_ref())
    }

    /// Every file that it names, once.
    pub fn files(&self) -> BTreeSet<&FileReference> {
        let held = self.operators.values().flat_map(|operator| &operator.subtasks).flat_map(|subtask| &subtask.held_rows);
        self.states().flat_map(|state| state.files.values()).chain(held.map(|(_, file)| file)).collect()
    }
}

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
