//! What the job file says about checkpoints and about going on after a failure.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;

use super::DurationMs;
use crate::connector::Guarantee;

/// What becomes of rows when a run dies and another one goes on from its last checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WantedGuarantee {
    /// A row counts once, in state and in what is written.
    ExactlyOnce,
    /// No row is lost, but some may be written again.
    AtLeastOnce,
}

impl WantedGuarantee {
    /// As connectors say it.
    pub fn guarantee(self) -> Guarantee {
        match self {
            Self::ExactlyOnce => Guarantee::ExactlyOnce,
            Self::AtLeastOnce => Guarantee::AtLeastOnce,
        }
    }
}

/// When a durable run takes checkpoints, and how many it keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CheckpointSettings {
    /// Time between the starts of two checkpoints. Shorter: less is done again after a failure, more is written. Default: 10s.
    pub interval: Option<DurationMs>,
    /// How long a checkpoint may take before it is given up. Default: 10m.
    pub timeout: Option<DurationMs>,
    /// Time between the end of a checkpoint and the start of the next one, at least. Default: 0s.
    pub min_pause: Option<DurationMs>,
    /// How many committed checkpoints are kept. Default: 3.
    pub retained: Option<NonZeroU32>,
    /// How many checkpoints may be given up in a row before the run counts as failed, and goes on from the last one. Default: 3.
    pub tolerated_failures: Option<u32>,
    /// Where they are written: a directory, or `s3://bucket/prefix`, `gs://…`, `az://…`. Default: in the directory of the run.
    pub storage: Option<String>,
}

/// How a run goes on after a failure of the outside or of the host. A failure of the job's own logic or data fails the job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RestartSettings {
    /// How often in a row it tries before the job has failed. Default: 10.
    pub attempts: Option<u32>,
    /// The wait before the first try; it doubles with every further one. Default: 1s.
    pub first: Option<DurationMs>,
    /// The longest wait. Default: 60s.
    pub most: Option<DurationMs>,
    /// After running this long, with a checkpoint committed, the tries are counted from the beginning. Default: 10m.
    pub healthy_after: Option<DurationMs>,
}

/// Savepoints that are taken by themselves, as a backup.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BackupSettings {
    /// Time between two of them.
    pub every: DurationMs,
    /// How many of them are kept. Default: 7.
    pub retained: Option<NonZeroU32>,
}
