//! What a job does, beside what is wanted of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::failure::Problem;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is being planned and restored.
    Starting,
    /// Rows flow, or could.
    Running,
    /// It takes its last checkpoint.
    Stopping,
    /// It waits behind a checkpoint.
    Stopped,
    /// All its input was read, and everything is written.
    Finished,
    /// It cannot go on.
    Failed,
}

impl Phase {
    /// Whether there is a run.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping)
    }

    /// As people and metrics say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Observed {
    /// Where it is.
    pub phase: Phase,
    /// Since when, ms since epoch.
    pub since_ms: i64,
    /// Why it failed; empty: it did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}
