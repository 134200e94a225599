//! A trial as others see it: a new version of an operator that proves itself on live data before it is trusted. Plain data but for the component;
//! [`record`] counts and judges, [`super::swapping`] steers, `operators/component/trial` makes the calls.
//!
//! Words: the *old* version is the one that the operator runs, the *new* one is on trial. Both get the same rows (or due timers), the same values of
//! keyed state and the same clocks; what they answer is compared before anything is applied. In a *shadow* the answers of the new version are always
//! discarded. In a *canary* they are applied for a *share* of the key groups, and the old version runs in the shadow of the new one there. The *rule*
//! says what ends a trial: a breach of one of its bounds (*rollback*: the old version answers alone again), or that it held long enough (*promotion*: the
//! new version takes the place of the old one, by a swap like any other).
//!
//! Laws: the old version always answers first, and what it fails at is no matter of the trial. An answer of the new version is applied only if the trial
//! is not over after it was counted, so the answer that breaches a bound is the first one that is not applied. A trial belongs to one attempt of a run:
//! it is written down nowhere, and who goes on after a crash runs the old version everywhere; that can read everything that the new one wrote, since
//! a canary must keep the same state.

mod record;
#[cfg(test)]
mod tests;

use std::time::Duration;

use millstream_model::{
    ErrorKind,
    ids::OperatorId,
    key::{KEY_GROUPS, KeyGroup},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::swap::{NewVersion, OperatorVersion, SwapChange, SwapId};

pub use record::TrialRecord;
pub(crate) use record::{Compared, End};

/// Differences that are shown of one trial; the rest is only counted.
pub const SAMPLES_MAX: usize = 20;
/// The longest time after which a trial may be promoted by itself.
const PROMOTE_AFTER_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The greatest bound of the ratio of CPU times.
const CPU_RATIO_MAX: f64 = 1_000.0;

/// The number of a trial; grows over the life of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrialId(pub u64);

/// What becomes of the answers of the new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case")]
pub enum TrialMode {
    /// They are compared and discarded.
    Shadow,
    /// They are applied for the keys of these key groups.
    Canary {
        /// How many.
        share: Share,
    },
}

/// A share of the key groups. Which ones is fixed by its size, they are spread over all subtasks, and a greater share holds the smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Share {
    /// Their number, of [`KEY_GROUPS`]; 1 or more.
    key_groups: u16,
}

impl Share {
    /// So many percent of the key groups, never more; at least one group.
    ///
    /// # Errors
    /// Not above 0, or above 100.
    pub fn of_percent(percent: f64) -> Result<Self, TrialError> {
        if !(percent > 0.0 && percent <= 100.0) {
            return Err(TrialError::Invalid { reason: format!("the share must be above 0 and at most 100 percent, not {percent}") });
        }
        let key_groups = (percent / 100.0 * f64::from(KEY_GROUPS)).floor() as u16;
        Ok(Self { key_groups: key_groups.max(1) })
    }

    /// Whether keys of this group belong to it.
    pub fn holds(self, group: KeyGroup) -> bool {
        // Reversed bits count through all subtasks' ranges before they come to the neighbour of a group.
        group.0.reverse_bits() >> (16 - KEY_GROUPS.trailing_zeros()) < self.key_groups
    }

    /// How many percent of the key groups it holds.
    pub fn percent(self) -> f64 {
        f64::from(self.key_groups) * 100.0 / f64::from(KEY_GROUPS)
    }
}

/// What ends a trial. Bounds may be reached and must not be exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrialRule {
    /// Traps, exceeded limits, refused answers and errors of the new version. Default: 0; of a shadow 10.
    pub failures_max: u64,
    /// Rows that the new version rejects and the old one does not; none: any number. Default: 0; of a shadow any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejects_max: Option<u64>,
    /// The share of rows whose output or state changes differ, 0 to 1. Below 1,000 compared rows it is taken of 1,000. Default: 0; of a shadow 1.
    pub differing_max: f64,
    /// CPU time of the new version to that of the old one, on the same rows, 1 to 1,000. A quarter of a second is granted on top. Default: 3.
    pub cpu_ratio_max: f64,
    /// It is promoted by itself when so many rows were compared; none: not by their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote_after_rows: Option<u64>,
    /// It is promoted by itself after so long a time; none: not by time. With both, when both are reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote_after: Option<Duration>,
}

impl TrialRule {
    /// The default of a mode: nothing is promoted by itself.
    pub fn of(mode: TrialMode) -> Self {
        let strict = Self {
            failures_max: 0,
            rejects_max: Some(0),
            differing_max: 0.0,
            cpu_ratio_max: 3.0,
            promote_after_rows: None,
            promote_after: None,
        };
        match mode {
            TrialMode::Canary { .. } => strict,
            TrialMode::Shadow => Self { failures_max: 10, rejects_max: None, differing_max: 1.0, ..strict },
        }
    }

    /// Whether a trial may end by promotion without being told.
    pub fn promotes(&self) -> bool {
        self.promote_after_rows.is_some() || self.promote_after.is_some()
    }

    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<(), TrialError> {
        let mut wrong = Vec::new();
        if !(0.0..=1.0).contains(&self.differing_max) {
            wrong.push(format!("the share of rows that may differ must be 0 to 1, not {}", self.differing_max));
        }
        if !(1.0..=CPU_RATIO_MAX).contains(&self.cpu_ratio_max) {
            wrong.push(format!("the ratio of CPU times must be 1 to {CPU_RATIO_MAX}, not {}", self.cpu_ratio_max));
        }
        if self.promote_after_rows == Some(0) {
            wrong.push("a trial is promoted after at least 1 row".into());
        }
        if self.promote_after.is_some_and(|after| after.is_zero() || after > PROMOTE_AFTER_MAX) {
            wrong.push("a trial is promoted after more than 0 s and at most 30 days".into());
        }
        if wrong.is_empty() { Ok(()) } else { Err(TrialError::Invalid { reason: wrong.join("; ") }) }
    }
}

/// A trial that is asked for.
#[derive(Clone, Debug)]
pub struct TrialRequest {
    /// The new version, and whose.
    pub version: NewVersion,
    /// What becomes of its answers.
    pub mode: TrialMode,
    /// What ends it.
    pub rule: TrialRule,
    /// Who promotes it when the rule is fulfilled. Default: the run itself.
    pub promotion: Promotion,
}

impl TrialRequest {
    /// With the defaults of the mode.
    pub fn of(version: NewVersion, mode: TrialMode) -> Self {
        Self { version, mode, rule: TrialRule::of(mode), promotion: Promotion::ByItself { probation: Duration::from_secs(30) } }
    }
}

/// Who promotes a trial that has fulfilled its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// The run itself, by a swap with this probation.
    ByItself {
        /// How long the old instances are kept.
        probation: Duration,
    },
    /// Who asked for it: it waits as [`TrialPhase::Passed`], and goes on as before. For those who write down first what is about to run.
    Asked,
}

/// How a trial stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrialStatus {
    /// Its number.
    pub trial: TrialId,
    /// The operator.
    pub operator: OperatorId,
    /// What becomes of the answers of the new version.
    #[serde(flatten)]
    pub mode: TrialMode,
    /// How far it is.
    #[serde(flatten)]
    pub phase: TrialPhase,
    /// The version that runs.
    pub from: OperatorVersion,
    /// The version on trial.
    pub to: OperatorVersion,
    /// What is different between them.
    pub changes: Vec<SwapChange>,
    /// What ends it.
    pub rule: TrialRule,
    /// When its first subtask was told, ms since epoch.
    pub began_ms: i64,
    /// When it was over, ms since epoch; none: it is not.
    pub ended_ms: Option<i64>,
    /// What was found.
    pub counts: TrialCounts,
}

/// How far a trial is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum TrialPhase {
    /// The new version gets rows.
    Trying,
    /// It has fulfilled its rule, and goes on until it is promoted or ended.
    Passed,
    /// A swap puts the new version into the place of the old one; until that has switched, the trial goes on.
    Promoting,
    /// The swap has switched.
    Promoted {
        /// Which.
        swap: SwapId,
    },
    /// A bound of the rule was exceeded: the old version answers alone.
    RolledBack {
        /// Which.
        bound: TrialBound,
        /// One clause.
        reason: String,
    },
    /// It was ended, or the attempt of the run did: the old version answers alone.
    Ended {
        /// One clause.
        reason: String,
    },
}

impl TrialPhase {
    /// Whether nothing is left to be done.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Promoted { .. } | Self::RolledBack { .. } | Self::Ended { .. })
    }
}

/// A bound of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialBound {
    /// [`TrialRule::failures_max`].
    Failures,
    /// [`TrialRule::rejects_max`].
    Rejects,
    /// [`TrialRule::differing_max`].
    Differing,
    /// [`TrialRule::cpu_ratio_max`].
    CpuRatio,
}

/// What a trial has found, over all subtasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrialCounts {
    /// Rows and due timers that both versions have answered.
    pub rows: u64,
    /// Those of calls that only the old version has answered.
    pub rows_not_compared: u64,
    /// Those for which the answer of the new version was applied.
    pub rows_applied: u64,
    /// Output rows that differ: of each call and output the greater number of those that only one version has given.
    pub rows_differing: u64,
    /// Output rows that only the old version has given.
    pub rows_missing: u64,
    /// Output rows that only the new version has given.
    pub rows_extra: u64,
    /// Values, entries of maps, lists and timers that the versions leave differently.
    pub updates_differing: u64,
    /// Rows that only the old version rejects.
    pub rejects_missing: u64,
    /// Rows that only the new version rejects.
    pub rejects_extra: u64,
    /// Calls at which the new version failed.
    pub failures: u64,
    /// CPU time of the old version in the calls that both got, in µs.
    pub old_cpu_us: u64,
    /// CPU time of the new version in them, in µs.
    pub new_cpu_us: u64,
}

/// A trial with samples of what differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrialReport {
    /// How it stands.
    #[serde(flatten)]
    pub status: TrialStatus,
    /// The first differences, at most [`SAMPLES_MAX`].
    pub samples: Vec<TrialDifference>,
    /// What the new version said when it failed, the first ones, at most [`SAMPLES_MAX`].
    pub failures: Vec<String>,
}

/// Something that the two versions answered differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrialDifference {
    /// What differs.
    #[serde(flatten)]
    pub at: DifferenceAt,
    /// XXH3-64 of the encoded key; none: the operator has none, or the row comes from none.
    pub key_hash: Option<u64>,
    /// The split of the row that it comes from; known up to the first exchange.
    pub source: Option<String>,
    /// Its position in the split.
    pub position: Option<u64>,
    /// What the old version gives; none: nothing.
    pub old: Option<Value>,
    /// What the new version gives; none: nothing.
    pub new: Option<Value>,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "differs", content = "name", rename_all = "kebab-case")]
pub enum DifferenceAt {
    /// A row of this output.
    Output(String),
    /// What this state holds afterwards.
    State(String),
    /// When this timer is due afterwards.
    Timer(String),
    /// Whether the row is rejected.
    Rejected,
}

/// Why a trial was refused, or could not be steered. The old version runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum TrialError {
    /// No operator has this id.
    #[error("there is no operator `{operator}`")]
    UnknownOperator {
        /// The id.
        operator: OperatorId,
    },
    /// A value of the request is out of its range.
    #[error("{reason}")]
    Invalid {
        /// Which.
        reason: String,
    },
    /// The new version cannot be tried beside the old one.
    #[error("`{operator}` cannot be tried: {}", differences.join("; "))]
    Incompatible {
        /// The operator.
        operator: OperatorId,
        /// What stands against it, one clause each.
        differences: Vec<String>,
    },
    /// An instance of the new version could not be made.
    #[error("the new version of `{operator}` failed: {reason}")]
    Failed {
        /// The operator.
        operator: OperatorId,
        /// Why.
        reason: String,
    },
    /// Another trial is under way.
    #[error("trial {} is under way", .trial.0)]
    UnderWay {
        /// Which.
        trial: TrialId,
    },
    /// A swap is under way.
    #[error("swap {} is under way", .swap.0)]
    SwapUnderWay {
        /// Which.
        swap: SwapId,
    },
    /// No such trial is under way, or it is not that far.
    #[error("{reason}")]
    UnknownTrial {
        /// What is the case.
        reason: String,
    },
    /// The job has ended.
    #[error("the job has ended")]
    Ended,
}

impl TrialError {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownOperator { .. } | Self::UnknownTrial { .. } => ErrorKind::NotFound,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Incompatible { .. } | Self::UnderWay { .. } | Self::SwapUnderWay { .. } | Self::Ended => ErrorKind::Conflict,
            Self::Failed { .. } => ErrorKind::Guest,
        }
    }
}
