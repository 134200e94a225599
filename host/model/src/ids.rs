//! Identities. Every object carries a tenant; inside one job, operators are known by the name the job file gives them.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as written by its owner.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
    };
}

name_id! {
    /// Who owns an object. A local run belongs to [`TenantId::local`].
    TenantId
}
name_id! {
    /// One job of a tenant; the `job:` line of the job file.
    JobId
}
name_id! {
    /// One node of the job graph (source, operator or sink); its key in the job file. Stable across versions: state is found by it.
    OperatorId
}

impl TenantId {
    /// The tenant of everything that runs without a server.
    pub fn local() -> Self {
        Self::from("local")
    }
}

/// Number of one parallel instance of a chain, `0..parallelism`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubtaskIndex(pub u32);

/// Number of a checkpoint of one job incarnation; grows by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckpointId(pub u64);

/// Checkpoint generation of a key-table entry: the number of barriers that its subtask had passed when the entry last changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u32);
