//! The seam of the commit decision: one record per job says which checkpoint holds, and only the claimed incarnation may write it.

mod lines;
mod local;
mod memory;
#[cfg(test)]
mod tests;

pub use local::LocalCommitLog;
pub use memory::{LogFault, MemoryCommitLog};

use async_trait::async_trait;
use millstream_model::ids::{CheckpointId, JobId};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Which checkpoint a job restores from: the only decision (design §7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CommitRecord {
    /// The run that committed; grows by one with every claim.
    pub incarnation: u64,
    /// The committed checkpoint; none: claimed, nothing committed yet.
    pub checkpoint: Option<CheckpointId>,
    /// Path of its manifest in the checkpoint storage.
    pub manifest: Option<String>,
    /// SHA-256 of the manifest, in hexadecimal.
    pub manifest_sha256: Option<String>,
    /// Checkpoints committed before it that are still kept, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retained: Vec<Retained>,
    /// The highest number that was ever committed. A fresh start keeps it, so that the numbers of a job only grow.
    #[serde(default)]
    pub last_number: u64,
    /// Another log decides, and this record only repeats what was decided there; none: it is the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
}

/// The log that decides in the place of the one that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Its name, for people: such as that of a topic.
    pub log: String,
    /// What this job directory is called there. Another directory of the same job (a fork) has another name.
    pub lineage: String,
    /// The last incarnation that was not decided there.
    pub since: u64,
}

/// A committed checkpoint that is still kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Retained {
    /// Its number.
    pub checkpoint: CheckpointId,
    /// Path of its manifest in the checkpoint storage.
    pub manifest: String,
    /// SHA-256 of the manifest, in hexadecimal.
    pub manifest_sha256: String,
}

impl CommitRecord {
    /// The committed checkpoint as one value; none: nothing is committed.
    pub fn committed(&self) -> Option<Retained> {
        let (checkpoint, manifest, sha256) = (self.checkpoint?, self.manifest.clone()?, self.manifest_sha256.clone()?);
        Some(Retained { checkpoint, manifest, manifest_sha256: sha256 })
    }
}

/// What a new incarnation knows when it claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The highest incarnation of the job that left anything in the checkpoint storage; 0: none. A log that knows of no such incarnation has lost
    /// its record (R7).
    pub seen_incarnation: u64,
    /// The user asked for a fresh start: what was committed is forgotten, and a lost record is no matter.
    pub is_fresh: bool,
}

/// The record of the next incarnation after `before`: what every backend writes to claim.
///
/// # Errors
/// [`Error::RecordMissing`]: `before` is older than what the claim has seen (R7).
pub fn claimed(job: &JobId, before: CommitRecord, claim: Claim) -> Result<CommitRecord, Error> {
    if before.incarnation < claim.seen_incarnation && !claim.is_fresh {
        return Err(Error::RecordMissing { job: job.clone(), incarnation: claim.seen_incarnation });
    }
    let incarnation = before.incarnation.max(claim.seen_incarnation) + 1;
    let (last_number, elsewhere) = (before.last_number, before.elsewhere.clone());
    let kept = if claim.is_fresh { CommitRecord { last_number, elsewhere, ..CommitRecord::default() } } else { before };
    Ok(CommitRecord { incarnation, ..kept })
}

/// Only the holder of the claim may commit, and only forward; the same record again changes nothing.
///
/// # Errors
/// [`Error::Fenced`], [`Error::Backwards`], or [`Error::RecordMissing`]: `last` is older than the claim.
pub fn check_commit(job: &JobId, last: &CommitRecord, record: &CommitRecord) -> Result<(), Error> {
    if last.incarnation < record.incarnation {
        return Err(Error::RecordMissing { job: job.clone(), incarnation: record.incarnation });
    }
    if last.incarnation > record.incarnation {
        return Err(Error::Fenced { job: job.clone(), incarnation: record.incarnation, holder: last.incarnation });
    }
    match (last.checkpoint, record.checkpoint) {
        (Some(committed), Some(asked)) if last != record && asked <= committed => {
            Err(Error::Backwards { job: job.clone(), committed, asked })
        }
        _ => Ok(()),
    }
}

/// The log that holds the commit records. Backends: an fsync'd local file, a compacted Kafka topic.
#[async_trait]
pub trait CommitLog: Send + Sync {
    /// Fences every earlier incarnation of the job, reads its last record, and claims the next incarnation (R3): the record with the new
    /// incarnation, durably.
    ///
    /// # Errors
    /// The log does not answer, or [`Error::RecordMissing`]: the record of a job known to have run is missing (R7).
    async fn claim(&self, job: &JobId, claim: Claim) -> Result<CommitRecord, Error>;

    /// Makes `record` the decision, if its incarnation still holds the claim.
    ///
    /// # Errors
    /// Any doubt whether it was written: the caller discards its memory and recovers (R5). [`Error::Fenced`]: it was not written, and a later
    /// incarnation is there.
    async fn commit(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error>;

    /// Takes over what another log has decided ([`Elsewhere`]), so that tools find it here. Never goes back: an older incarnation changes nothing.
    ///
    /// # Errors
    /// It cannot be written.
    async fn note(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error>;

    /// The last record of a job, for tools: it claims nothing, and may be old when it is there. None: the log does not know the job.
    ///
    /// # Errors
    /// The log does not answer.
    async fn read(&self, job: &JobId) -> Result<Option<CommitRecord>, Error>;
}
