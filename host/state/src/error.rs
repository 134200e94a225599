//! What can go wrong with state, and what a caller may do about it.

use std::{fmt, io, path::Path};

use arrow_schema::DataType;
use millstream_model::ErrorKind;

/// A failure of keyed state. Unless said otherwise nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key's encoding is longer than [`millstream_model::key::KEY_BYTES_MAX`].
    #[error("the key with hash {hash:016x} has {bytes} bytes, more than the {limit} allowed")]
    KeyTooLarge {
        /// XXH3-64 of the key's bytes.
        hash: u64,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// An encoded value is longer than [`crate::VALUE_BYTES_MAX`].
    #[error("a value of state {state:?} has {bytes} bytes, more than the {limit} allowed (key hash {hash:016x})")]
    ValueTooLarge {
        /// The state's name.
        state: String,
        /// XXH3-64 of the key's bytes.
        hash: u64,
        /// The length of the encoded value.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Values of another type than the state was declared with.
    #[error("state {state:?} holds {expected}, but was given {actual}")]
    WrongType {
        /// The state's name.
        state: String,
        /// The declared type.
        expected: DataType,
        /// The type of the values.
        actual: DataType,
    },
    /// A call that does not fit the declarations: an unknown state number, another kind of state, a key number out of range.
    #[error("{0}")]
    InvalidUse(String),
    /// A state or timer cannot be declared like this.
    #[error("{name:?} cannot be declared: {reason}")]
    InvalidDeclaration {
        /// The name of the state or timer.
        name: String,
        /// Why not.
        reason: String,
    },
    /// Stored values cannot be read as the newly declared type.
    #[error("state {state:?} cannot change from {writer} to {reader}: {reason}")]
    Incompatible {
        /// The state's name.
        state: String,
        /// The type that values were written with.
        writer: DataType,
        /// The type they shall be read as.
        reader: DataType,
        /// The first difference that has no rule.
        reason: String,
    },
    /// The operator's own migration of stored values failed, or answered what is not declared. Nothing of the snapshot was changed.
    #[error("state {state:?} cannot be migrated from version {from} to {to}")]
    Migration {
        /// The state's name.
        state: String,
        /// Its version in the snapshot.
        from: u32,
        /// Its declared version.
        to: u32,
        /// What the migration said, or what is wrong with its answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The memory backend has nowhere to put more state.
    #[error("state needs {needed_bytes} bytes, more than the {budget_bytes} that the memory backend may use")]
    OutOfBudget {
        /// What the state would take.
        needed_bytes: usize,
        /// What it may take.
        budget_bytes: usize,
    },
    /// Stored bytes are not what was written.
    #[error("stored bytes of {of} are damaged: {reason}")]
    Corrupt {
        /// The name of the state or timer, or the path of the file.
        of: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A snapshot of a newer version of Millstream.
    #[error(
        "the snapshot has format {format}, but this version of Millstream reads formats up to {newest}: use the version that wrote it, or a later one"
    )]
    NewerFormat {
        /// The format of the snapshot.
        format: u32,
        /// The newest that can be read.
        newest: u32,
    },
    /// A snapshot cannot begin before the one under way was finished or abandoned.
    #[error("a snapshot is under way already")]
    SnapshotUnderWay,
    /// The disk or RocksDB failed. The store may hold a part of the call: drop it and recover.
    #[error("cannot {operation} the state backend")]
    Backend {
        /// What was tried: open, read, write.
        operation: &'static str,
        /// What RocksDB said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::KeyTooLarge { .. } | Self::ValueTooLarge { .. } | Self::InvalidDeclaration { .. } | Self::OutOfBudget { .. } => {
                ErrorKind::Invalid
            }
            Self::Incompatible { .. } | Self::NewerFormat { .. } | Self::SnapshotUnderWay => ErrorKind::Conflict,
            Self::WrongType { .. } | Self::InvalidUse(_) => ErrorKind::Internal,
            Self::Migration { .. } => ErrorKind::Guest,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Backend { .. } => ErrorKind::Unavailable,
        }
    }

    pub(crate) fn damaged_file(path: &Path, reason: impl fmt::Display) -> Self {
        Self::Corrupt { of: path.display().to_string(), reason: reason.to_string() }
    }

    pub(crate) fn io(operation: &'static str, source: io::Error) -> Self {
        Self::Backend { operation, source: Box::new(source) }
    }
}
