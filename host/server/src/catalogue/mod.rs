//! The catalogue: which tokens, secrets, components, jobs and savepoints there are, and whose. It decides nothing about them.
//!
//! An entry is a JSON value under a [`Key`]: tenant, [`Kind`], name. Nothing is shared between tenants, and what a tenant reads it reads under its own
//! key. Every change has a [`Revision`], a number that only grows, and so has every
//! entry that of its last change: it is the entry's ETag, and what a writer who has read it expects to find ([`Expected`]). Several changes can be
//! made as one. [`objects`] says what the values are; [`Store`] reads and writes them typed. Backends: [`LocalCatalogue`], a journal of one machine
//! whose entries lie in memory; a compacted topic fits the same trait (one message per change, keyed).
//!
//! The catalogue also keeps the audit: what was asked for by whom, appended and never changed, the oldest of each tenant forgotten first.

mod local;
pub mod objects;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;

use async_trait::async_trait;
use millstream_model::{ErrorKind, ids::TenantId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use local::LocalCatalogue;
pub use objects::{AuditRecord, Object};
pub use store::{Found, Store, put as store_put};

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A right to ask.
    Token,
    /// A value that job files refer to by name.
    Secret,
    /// A component, by digest.
    Component,
    /// A name and its tags, each the digest of a component.
    Tags,
    /// A job with its versions and what is wanted of it.
    Job,
    /// A savepoint of a job.
    Savepoint,
    /// What was answered to a request with an idempotency key.
    Answer,
    /// The tenant itself, and what it may.
    Tenant,
    /// What it has used.
    Usage,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] =
        [Self::Token, Self::Secret, Self::Component, Self::Tags, Self::Job, Self::Savepoint, Self::Answer, Self::Tenant, Self::Usage];
}

/// Where an entry is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Whose it is.
    pub tenant: TenantId,
    /// What it is about.
    pub kind: Kind,
    /// Which one.
    pub name: String,
}

/// Number of a change; grows with every change of the whole catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// An entry, and when it changed last.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Of its last change.
    pub revision: Revision,
    /// What it says.
    pub value: Value,
}

/// What a writer expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Any,
    /// Nothing: the entry is new.
    Absent,
    /// The entry as it was read.
    At(Revision),
}

/// One change of one entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// What must be there for the change to be made.
    pub expected: Expected,
    /// What it says from now on; none: it is removed.
    pub value: Option<Value>,
}

/// Why the catalogue did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else changed it, or made it before.
    #[error("{key} has changed since it was read")]
    Changed {
        /// Which.
        key: Key,
    },
    /// It is there already.
    #[error("{key} exists already")]
    Exists {
        /// Which.
        key: Key,
    },
    /// An entry is not what this version writes.
    #[error("{key} is not understood by this version")]
    NotUnderstood {
        /// Which.
        key: Key,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It could not be read or written.
    #[error(transparent)]
    Storage(#[from] millstream_storage::Error),
}

impl Error {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Changed { .. } | Self::Exists { .. } => ErrorKind::Conflict,
            Self::NotUnderstood { .. } => ErrorKind::Corrupt,
            Self::Storage(error) => error.kind(),
        }
    }
}

impl From<Error> for crate::failure::Failure {
    fn from(error: Error) -> Self {
        Self::from_error(error.kind(), &error)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "token",
            Self::Secret => "secret",
            Self::Component => "component",
            Self::Tags => "component",
            Self::Job => "job",
            Self::Savepoint => "savepoint",
            Self::Answer => "request",
            Self::Tenant => "tenant",
            Self::Usage => "usage",
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

/// Where the service keeps what it knows.
#[async_trait]
pub trait Catalogue: Send + Sync {
    /// One entry; none: there is none.
    ///
    /// # Errors
    /// The catalogue does not answer.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error>;

    /// At most `limit` entries of one tenant and kind in the order of their names, those behind `after`; all of them if it is none.
    ///
    /// # Errors
    /// The catalogue does not answer.
    async fn list(&self, tenant: &TenantId, kind: Kind, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, Error>;

    /// The tenants that have entries of this kind.
    ///
    /// # Errors
    /// The catalogue does not answer.
    async fn tenants(&self, kind: Kind) -> Result<Vec<TenantId>, Error>;

    /// The tenants that have an entry of this kind and name, in order.
    ///
    /// # Errors
    /// The catalogue does not answer.
    async fn owners(&self, kind: Kind, name: &str) -> Result<Vec<TenantId>, Error>;

    /// Makes all of `changes` or none; durable when this returns.
    ///
    /// # Errors
    /// [`Error::Changed`] or [`Error::Exists`]: one of them found something else than it expected. Or nothing could be written.
    async fn change(&self, changes: Vec<Change>) -> Result<Revision, Error>;

    /// Adds to the audit; durable when this returns.
    ///
    /// # Errors
    /// It could not be written: what is not written down is not done.
    async fn audit(&self, record: AuditRecord) -> Result<(), Error>;

    /// The newest records of a tenant first, those before number `before`, at most `limit`.
    ///
    /// # Errors
    /// The catalogue does not answer.
    async fn audited(&self, tenant: &TenantId, before: Option<u64>, limit: usize) -> Result<Vec<(u64, AuditRecord)>, Error>;
}
