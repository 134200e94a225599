//! Bytes at rest: files written durably, objects that are created once and never changed, and the log that decides.
//!
//! - [`durable`]: one file appears whole or not at all. [`DirectoryLock`]: one process owns a directory.
//! - [`CheckpointStorage`]: immutable objects under paths; [`LocalCheckpointStorage`] keeps them in a local directory, [`ObjectCheckpointStorage`]
//!   in an object store. [`open`] makes one from the location a user wrote.
//! - [`CommitLog`]: the seam of the commit decision (design §7, §9); [`LocalCommitLog`] is the embedded backend.
//! - [`journal`]: records in a file that only grows, for what a catalogue or an audit keeps.
//! - For simulations, without threads: [`MemoryCheckpointStorage`], [`MemoryCommitLog`], and [`faults`]: storage that fails as storage does, from a
//!   seed.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod commit;
pub mod durable;
mod error;
pub mod faults;
pub mod journal;
mod lock;

pub use checkpoint::{CheckpointStorage, Digest, LocalCheckpointStorage, MemoryCheckpointStorage, Object, ObjectCheckpointStorage, open};
pub use commit::{Claim, CommitLog, CommitRecord, Elsewhere, LocalCommitLog, LogFault, MemoryCommitLog, Retained};
pub use error::Error;
pub use lock::DirectoryLock;
