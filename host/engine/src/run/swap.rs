//! A swap as others see it: what is asked for, what would change, how far it is, and which versions ran when. Plain data but for the component
//! itself; [`super::swapping`] carries it out.
//!
//! The way of a swap: *prepared* (planned, compared, instantiated beside the old version: nothing is touched) → *switching* (each subtask between two
//! batches, or all at one barrier) → *on probation* (the old instances are kept; the first failure of the new version puts them back, and since the
//! failed call applied nothing, nothing is lost) → *settled*. At most one swap is under way; it may replace several operators as one step.

use std::time::Duration;

use bytes::Bytes;
use millstream_model::{ErrorKind, ids::OperatorId};
use millstream_wasm::Component;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{trial::TrialId, widening::Widening};

/// The number of a swap; grows over the life of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SwapId(pub u64);

/// What shall take the place of running operators, all as one step.
#[derive(Clone, Debug)]
pub struct SwapRequest {
    /// The new versions; each operator at most once.
    pub operators: Vec<NewVersion>,
    /// When subtasks switch. Default: between two batches.
    pub switch_at: SwitchAt,
    /// How long the old instances are kept. Default: 30 s. Zero: the swap is settled at once.
    pub probation: Duration,
    /// Swap although the old version cannot read what the new one writes, so that only a savepoint leads back.
    pub one_way: bool,
    /// How more columns come to versions that read more; none: they have what is carried already.
    pub widening: Option<Widening>,
    /// The trial under way of the same operator that this ends well; none: there must be no trial.
    pub promotes: Option<TrialId>,
}

impl SwapRequest {
    /// A swap of one operator, with the defaults.
    pub fn of(operator: NewVersion) -> Self {
        Self {
            operators: vec![operator],
            switch_at: SwitchAt::Batch,
            probation: Duration::from_secs(30),
            one_way: false,
            widening: None,
            promotes: None,
        }
    }
}

/// A new version of one operator.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// Which.
    pub operator: OperatorId,
    /// The component; none: the one that runs.
    pub component: Option<NewComponent>,
    /// Its settings as they are written; none: those that it runs with. What they refer to is looked up when the swap is prepared.
    pub settings: Option<Value>,
}

/// A component, and what it was loaded from: a durable run keeps that, to go on with it after a crash.
#[derive(Clone, Debug)]
pub struct NewComponent {
    /// The component.
    pub component: Component,
    /// Its bytes.
    pub bytes: Bytes,
}

/// When subtasks switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwitchAt {
    /// Each between two batches, as soon as it can.
    #[default]
    Batch,
    /// All at one barrier: what comes behind an operator has all output of the old version before any of the new one.
    Barrier,
}

/// One version of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OperatorVersion {
    /// The component's name, as it says itself.
    pub name: String,
    /// Its version, as its author writes it.
    pub version: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub component: String,
    /// Its settings as they are written: with references, and without what they stand for.
    pub settings: Value,
}

/// A version of an operator in its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VersionEntry {
    /// The version.
    pub version: OperatorVersion,
    /// Since when it runs, ms since epoch.
    pub since_ms: i64,
    /// How it came to run.
    pub cause: VersionCause,
}

/// How a version came to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum VersionCause {
    /// The job started, or went on, with it.
    Start,
    /// It was swapped in.
    Swap {
        /// By which.
        swap: SwapId,
    },
    /// It was put back.
    Rollback {
        /// The swap that was undone.
        swap: SwapId,
        /// Why.
        reason: String,
    },
}

/// How a swap stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SwapStatus {
    /// Its number.
    pub swap: SwapId,
    /// How far it is.
    pub phase: SwapPhase,
    /// When subtasks switch.
    pub switch_at: SwitchAt,
    /// What it replaces.
    pub operators: Vec<OperatorSwap>,
    /// The sources and operators that carry more columns from the switch on, which then begins at a barrier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub widens: Vec<OperatorId>,
    /// When it was asked for, ms since epoch.
    pub prepared_ms: i64,
    /// When all subtasks had switched, ms since epoch; none: they have not.
    pub switched_ms: Option<i64>,
    /// When it is settled unless something happens before, ms since epoch; none: it is not on probation.
    pub probation_until_ms: Option<i64>,
}

/// How far a swap is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum SwapPhase {
    /// New versions are planned, compared and opened.
    Preparing,
    /// New instances stand beside the old ones. Nothing was touched.
    Prepared,
    /// Subtasks change over.
    Switching,
    /// All subtasks run the new versions; the old instances are kept.
    Probation,
    /// The old instances are gone.
    Settled,
    /// The old versions are being put back.
    RollingBack {
        /// Why.
        reason: String,
    },
    /// The old versions run again.
    RolledBack {
        /// Why.
        reason: String,
    },
    /// It was given up before anything was touched.
    Abandoned,
}

impl SwapPhase {
    /// Whether nothing is left to be done.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Settled | Self::RolledBack { .. } | Self::Abandoned)
    }
}

/// One operator in a swap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OperatorSwap {
    /// Which.
    pub operator: OperatorId,
    /// What runs, or ran before.
    pub from: OperatorVersion,
    /// What takes its place.
    pub to: OperatorVersion,
    /// What is different.
    pub changes: Vec<SwapChange>,
    /// Why the old version could not go on from what the new one writes; empty: it can be put back at any time.
    pub one_way: Vec<String>,
}

/// One difference between two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SwapChange {
    /// What it is about.
    pub part: SwapPart,
    /// One clause.
    pub what: String,
}

/// What a difference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwapPart {
    /// The component, its name or version.
    Component,
    /// Its settings.
    Settings,
    /// An input: which columns it reads.
    Input,
    /// An output.
    Output,
    /// A state or timer.
    State,
}

/// What a comparison of two versions finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What is different.
    pub changes: Vec<SwapChange>,
    /// What stands against a swap, one clause each.
    pub refusals: Vec<String>,
    /// Why the old version could not go on from what the new one writes.
    pub one_way: Vec<String>,
}

/// How a switch went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SwitchReport {
    /// The swap.
    pub swap: SwapId,
    /// How long each subtask that switched was held up by it.
    pub pauses: Vec<Duration>,
    /// How long each subtask was held up before that, at the barrier from which rows carry more columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub widening_pauses: Vec<Duration>,
    /// Subtasks that had already ended.
    pub ended: usize,
}

/// Why one operator is not swapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SwapRefusal {
    /// Which.
    pub operator: OperatorId,
    /// What stands against it, one clause each.
    pub differences: Vec<String>,
}

/// Why a swap was refused, or did not happen. The old versions run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum SwapError {
    /// No operator has this id.
    #[error("there is no operator `{operator}`")]
    UnknownOperator {
        /// The id.
        operator: OperatorId,
    },
    /// Nothing is to be swapped, or one operator twice.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with the request.
        reason: String,
    },
    /// New versions do not fit in the place of the old ones.
    #[error("{}", refusals.iter().map(|refusal| format!("`{}` cannot be replaced: {}", refusal.operator, refusal.differences.join("; "))).collect::<Vec<_>>().join("; "))]
    Incompatible {
        /// By operator.
        refusals: Vec<SwapRefusal>,
    },
    /// The old version could not go on from what the new one writes, and nobody said that this does not matter.
    #[error("there would be no way back: {}", refusals.iter().flat_map(|refusal| &refusal.differences).cloned().collect::<Vec<_>>().join("; "))]
    OneWay {
        /// By operator.
        refusals: Vec<SwapRefusal>,
    },
    /// An instance of the new version could not be made, or did not take over.
    #[error("the new version of `{operator}` failed: {reason}")]
    Failed {
        /// The operator.
        operator: OperatorId,
        /// Why.
        reason: String,
    },
    /// Another swap is under way.
    #[error("swap {} is under way", .swap.0)]
    UnderWay {
        /// Which.
        swap: SwapId,
    },
    /// A trial is under way.
    #[error("trial {} is under way: end it or promote it first", .trial.0)]
    TrialUnderWay {
        /// Which.
        trial: TrialId,
    },
    /// No such swap is under way, or it is not that far.
    #[error("{reason}")]
    UnknownSwap {
        /// What is the case.
        reason: String,
    },
    /// The job cannot be planned with the columns that new versions read.
    #[error("more columns cannot be carried: {reason}")]
    NotWidened {
        /// Why.
        reason: String,
    },
    /// A durable run could not write down which version runs.
    #[error("the swap could not be written down: {reason}")]
    NotRecorded {
        /// Why.
        reason: String,
    },
    /// The job has ended.
    #[error("the job has ended")]
    Ended,
}

impl SwapError {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownOperator { .. } | Self::UnknownSwap { .. } => ErrorKind::NotFound,
            Self::Invalid { .. } | Self::NotWidened { .. } => ErrorKind::Invalid,
            Self::Incompatible { .. } | Self::OneWay { .. } | Self::UnderWay { .. } | Self::TrialUnderWay { .. } | Self::Ended => {
                ErrorKind::Conflict
            }
            Self::Failed { .. } => ErrorKind::Guest,
            Self::NotRecorded { .. } => ErrorKind::Unavailable,
        }
    }
}
