//! Why bytes could not be kept or found, and what somebody can do about it.

use millstream_model::{
    ErrorKind,
    ids::{CheckpointId, JobId},
};

/// What caused an error.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why bytes could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing under this path.
    #[error("nothing is stored at {0}")]
    NotFound(String),
    /// Something is under this path already; objects are created once.
    #[error("something is stored at {0} already")]
    Exists(String),
    /// The path cannot name an object.
    #[error("{0:?} is not a path of the storage")]
    Path(String),
    /// What a user wrote names no storage.
    #[error("{location:?} is no place for checkpoints: {problem}")]
    Location {
        /// As written.
        location: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The object store has no such bucket or container.
    #[error("there is no bucket or container for {location}: make it first, or name another one")]
    NoBucket {
        /// As written.
        location: String,
        /// What the object store said.
        #[source]
        source: Source,
    },
    /// The file system or object store failed.
    #[error("{what} failed at {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// The object store does not know who asks.
    #[error("{what} failed at {path}: the credentials are missing, wrong or expired; {advice}")]
    Credentials {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: String,
        /// Where they are looked for.
        advice: &'static str,
        /// Why.
        #[source]
        source: Source,
    },
    /// The file system or object store knows who asks, and says no.
    #[error("{what} was denied at {path}; {advice}")]
    Denied {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: String,
        /// What must be allowed.
        advice: &'static str,
        /// Why.
        #[source]
        source: Source,
    },
    /// The object store did not answer, or answered that it cannot now.
    #[error("{what} failed at {path}: the storage does not answer; check the network and the endpoint")]
    Unreachable {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// Bytes at rest are not what was written.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// Which file or object.
        path: String,
        /// What does not fit, and what can be done.
        problem: String,
    },
    /// A later version of this program wrote it.
    #[error("{path} has format {format}, and this version reads up to {known}: use the version that wrote it, or a later one")]
    NewerFormat {
        /// Which file or object.
        path: String,
        /// Its format.
        format: u64,
        /// The newest that is known.
        known: u64,
    },
    /// Another process works in the directory.
    #[error("{directory} is in use by {}: stop it first, or use another directory", process(*.pid))]
    Locked {
        /// The directory.
        directory: String,
        /// The process that holds it, if it said so.
        pid: Option<u32>,
    },
    /// A later incarnation of the job has claimed the commit log.
    #[error("incarnation {incarnation} of job {job} may not commit: incarnation {holder} has taken over")]
    Fenced {
        /// The job.
        job: JobId,
        /// Who asked.
        incarnation: u64,
        /// Who holds the claim.
        holder: u64,
    },
    /// What keeps the records says no, and will until somebody changes something.
    #[error("{what} was refused at {path}: {problem}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: String,
        /// Why, and what would be right.
        problem: String,
    },
    /// A commit would take the job back.
    #[error("checkpoint {} of job {job} cannot be committed: the commit log stands at {}", .asked.0, .committed.0)]
    Backwards {
        /// The job.
        job: JobId,
        /// What the log holds.
        committed: CheckpointId,
        /// What was asked for.
        asked: CheckpointId,
    },
    /// The commit log knows less than the checkpoint storage: its record was lost (R7).
    #[error(
        "the commit log has no record of incarnation {incarnation} of job {job}, but its checkpoints are there: put the log back where it was, \
         restore from a savepoint, or start fresh and say so"
    )]
    RecordMissing {
        /// The job.
        job: JobId,
        /// The highest incarnation that left something in the storage.
        incarnation: u64,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

impl Error {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Exists(_) | Self::Locked { .. } | Self::Fenced { .. } => ErrorKind::Conflict,
            Self::Path(_) | Self::Location { .. } | Self::NewerFormat { .. } | Self::Refused { .. } => ErrorKind::Invalid,
            Self::NoBucket { .. } | Self::Io { .. } | Self::Credentials { .. } | Self::Denied { .. } | Self::Unreachable { .. } => {
                ErrorKind::Unavailable
            }
            Self::Damaged { .. } | Self::RecordMissing { .. } => ErrorKind::Corrupt,
            Self::Backwards { .. } => ErrorKind::Internal,
        }
    }

    /// An error of the local file system.
    pub(crate) fn local(what: &'static str, path: impl Into<String>, source: std::io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound(path),
            std::io::ErrorKind::AlreadyExists => Self::Exists(path),
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { what, path, advice: "the directory must be writable for the user that runs the job", source: source.into() }
            }
            _ => Self::Io { what, path, source: source.into() },
        }
    }
}
