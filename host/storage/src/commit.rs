//! The seam of the commit decision: one record per job says which checkpoint holds, and only the claimed incarnation may write it.

use async_trait::async_trait;
use millstream_model::ids::{CheckpointId, JobId};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Which checkpoint a job restores from: the only decision (design §7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// The run that committed; grows by one with every claim.
    pub incarnation: u64,
    /// The committed checkpoint; none: claimed, nothing committed yet.
    pub checkpoint: Option<CheckpointId>,
    /// Path of its manifest in the checkpoint storage.
    pub manifest: Option<String>,
    /// SHA-256 of the manifest, in hexadecimal.
    pub manifest_sha256: Option<String>,
}

/// The log that holds the commit records. Backends: an fsync'd local file, a compacted Kafka topic.
#[async_trait]
pub trait CommitLog: Send + Sync {
    /// Fences every earlier incarnation of the job, reads its last record, and claims the next incarnation (R3).
    ///
    /// # Errors
    /// The log does not answer, or the record of a job known to have committed is missing (R7).
    async fn claim(&self, job: &JobId) -> Result<CommitRecord, Error>;

    /// Makes `record` the decision, if its incarnation still holds the claim.
    ///
    /// # Errors
    /// Any doubt whether it was written: the caller discards its memory and recovers (R5).
    async fn commit(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error>;
}
