//! What a durable run of a job promises, and how.

use std::{num::NonZeroU32, time::Duration};

use crate::connector::Guarantee;

/// What a durable run promises, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability {
    /// What becomes of rows when a run dies.
    pub guarantee: Guarantee,
    /// When checkpoints are taken.
    pub checkpoints: Checkpoints,
    /// How it goes on after a failure.
    pub restart: Restart,
    /// Savepoints taken by themselves; none: only when asked for.
    pub backups: Option<Backups>,
}

/// When checkpoints are taken, and how many are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// Time between the starts of two.
    pub interval: Duration,
    /// How long one may take before it is given up.
    pub timeout: Duration,
    /// Time between the end of one and the start of the next, at least.
    pub min_pause: Duration,
    /// How many committed ones are kept.
    pub retained: NonZeroU32,
    /// How many may be given up in a row before that is a failure.
    pub tolerated_failures: u32,
    /// Where they are written; none: in the directory of the run.
    pub storage: Option<String>,
}

/// How a run goes on after a failure of the outside or of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// How often in a row before the job has failed.
    pub attempts: u32,
    /// The wait before the first try; doubles with every further one.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
    /// After running this long, with a checkpoint committed, tries are counted from the beginning.
    pub healthy_after: Duration,
}

/// Savepoints that are taken by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backups {
    /// Time between two.
    pub every: Duration,
    /// How many are kept.
    pub retained: NonZeroU32,
}

impl Default for Durability {
    fn default() -> Self {
        Self { guarantee: Guarantee::ExactlyOnce, checkpoints: Checkpoints::default(), restart: Restart::default(), backups: None }
    }
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(600),
            min_pause: Duration::ZERO,
            retained: NonZeroU32::new(3).expect("three is not zero"),
            tolerated_failures: 3,
            storage: None,
        }
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self { attempts: 10, first: Duration::from_secs(1), most: Duration::from_secs(60), healthy_after: Duration::from_secs(600) }
    }
}
