//! What can go wrong: with a component before it runs ([`Error`]), and with a call ([`Failure`]).
//!
//! A guest's own error, a trap, an answer that breaks the contract and a fault of the host stay apart, since callers treat them
//! differently: `Retry` is tried again, a guest's fault costs its instance and is bisected, a host's fault restarts the job.

use std::sync::Arc;

use millstream_model::{ErrorKind, types::TypeError};

use crate::limits::{LimitExceeded, Site};

/// An error of a library, kept for its chain of causes.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A component could not be loaded, planned or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings of the runtime make no engine.
    #[error("the WebAssembly engine could not be set up")]
    Engine(#[source] Cause),
    /// The file cannot be read.
    #[error("component `{component}` could not be read")]
    Unreadable {
        /// The component.
        component: Arc<str>,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are no component: not Wasm, a core module, damaged, or with features that are switched off.
    #[error("`{component}` is not a component: {reason}")]
    NotAComponent {
        /// The component.
        component: Arc<str>,
        /// What it is instead; a clause.
        reason: String,
    },
    /// It imports what guests are not granted.
    #[error("component `{component}` imports `{import}`, which operators are not granted: {reason}")]
    ImportRefused {
        /// The component.
        component: Arc<str>,
        /// The first import that is refused.
        import: String,
        /// Why, and what to do.
        reason: String,
    },
    /// It does not implement the world that is needed.
    #[error("component `{component}` does not fit: {reason}")]
    WorldMismatch {
        /// The component.
        component: Arc<str>,
        /// What is missing or different.
        reason: String,
    },
    /// The compiler refused it.
    #[error("component `{component}` could not be compiled")]
    Compile {
        /// The component.
        component: Arc<str>,
        /// Why.
        #[source]
        source: Cause,
    },
    /// `plan` or `open` of the guest said no: its settings or inputs do not suit it.
    #[error("{site} refused: {message}")]
    Declined {
        /// Who.
        site: Site,
        /// The guest's words.
        message: String,
    },
    /// What `describe` or `plan` answered cannot be carried out.
    #[error("{site} asked for the impossible: {reason}")]
    BadPlan {
        /// Who.
        site: Site,
        /// What is wrong with it.
        reason: String,
    },
    /// A column that is offered to a guest has a type that does not cross.
    #[error("column `{field}` of input {port} cannot be given to an operator")]
    InputType {
        /// The input.
        port: usize,
        /// The column.
        field: String,
        /// Why.
        #[source]
        source: TypeError,
    },
    /// A call failed.
    #[error(transparent)]
    Call(#[from] Failure),
}

impl Error {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Engine(_) => ErrorKind::Internal,
            Self::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::Unreadable { .. } => ErrorKind::Unavailable,
            Self::Declined { .. } | Self::InputType { .. } => ErrorKind::Invalid,
            Self::NotAComponent { .. } | Self::ImportRefused { .. } | Self::WorldMismatch { .. } | Self::Compile { .. } => {
                ErrorKind::Invalid
            }
            Self::BadPlan { .. } => ErrorKind::Guest,
            Self::Call(failure) => failure.kind(),
        }
    }
}

/// A call failed; nothing of it may be applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The guest asks to be called again with the same rows. The instance is good.
    #[error("asked for a retry: {0}")]
    Retry(String),
    /// The guest gives up on this batch. Drop the instance.
    #[error("failed: {0}")]
    Fatal(String),
    /// Guest code trapped. Drop the instance.
    #[error("{site} trapped: {reason}")]
    Trap {
        /// Who.
        site: Site,
        /// What happened, in one line.
        reason: String,
        /// The guest's stack, innermost first; empty if unknown.
        backtrace: Vec<String>,
    },
    /// The guest wanted more than it may have. Drop the instance.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// The answer breaks the contract. Drop the instance.
    #[error("{site} gave an answer that breaks the contract: {reason}")]
    Refused {
        /// Who.
        site: Site,
        /// What is wrong with the answer.
        reason: String,
    },
    /// Not the guest's fault: state could not be read, or we have a bug.
    #[error("host fault at {site}: {reason}")]
    Host {
        /// Who was being called.
        site: Site,
        /// What happened.
        reason: String,
    },
}

impl Failure {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Retry(_) => ErrorKind::Unavailable,
            Self::Fatal(_) | Self::Trap { .. } | Self::Limit(_) | Self::Refused { .. } => ErrorKind::Guest,
            Self::Host { .. } => ErrorKind::Internal,
        }
    }

    /// Whether the instance may be called again. If not, every further call fails.
    pub fn leaves_instance_usable(&self) -> bool {
        matches!(self, Self::Retry(_))
    }
}
