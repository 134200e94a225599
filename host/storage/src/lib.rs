//! Bytes at rest: files written durably, objects that are created once and never changed, and the log that decides.
//!
//! - [`durable`]: one file appears whole or not at all.
//! - [`CheckpointStorage`]: immutable objects under paths; [`LocalCheckpointStorage`] keeps them in a local directory.
//! - [`CommitLog`]: the seam of the commit decision (design §7, §9). Its embedded backend comes with checkpoints, Kafka's with Kafka.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod commit;
pub mod durable;

pub use checkpoint::{CheckpointStorage, LocalCheckpointStorage};
pub use commit::{CommitLog, CommitRecord};

use millstream_model::ErrorKind;

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
    /// The file system or object store failed.
    #[error("{what} failed at {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Exists(_) => ErrorKind::Conflict,
            Self::Path(_) => ErrorKind::Invalid,
            Self::Io { .. } => ErrorKind::Unavailable,
        }
    }
}
