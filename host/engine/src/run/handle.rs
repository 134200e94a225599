//! The job handle: how others watch and steer a running job. A message protocol: every command and every answer that leaves the process
//! later (by HTTP) is plain data; only what asks for a swap carries a component.

use std::{fmt, sync::Arc, time::Duration};

use millstream_model::{
    ErrorKind,
    ids::{CheckpointId, JobId, OperatorId, SubtaskIndex, TenantId},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    swap::{SwapError, SwapId, SwapRequest, SwapStatus, SwitchReport, VersionEntry},
    trial::{TrialError, TrialId, TrialReport, TrialRequest, TrialStatus},
};
use crate::{
    connector::Guarantee,
    metrics::{GuestMetricStatus, SplitLag},
    operator::Fault,
};

/// A running job, or one that has ended. Cheap to clone. Dropping all handles lets the job run on.
#[derive(Clone)]
pub struct JobHandle {
    pub(super) tenant: TenantId,
    pub(super) job: JobId,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) outcome: watch::Receiver<Option<Arc<JobOutcome>>>,
}

/// What a handle may ask of a job.
pub(super) enum Command {
    Status(oneshot::Sender<JobStatus>),
    Drain,
    Cancel,
    Barrier(CheckpointId, oneshot::Sender<BarrierReport>),
    PrepareSwap(SwapRequest, oneshot::Sender<Result<SwapStatus, SwapError>>),
    Switch(SwapId, oneshot::Sender<Result<SwitchReport, SwapError>>),
    AbandonSwap(SwapId, oneshot::Sender<Result<SwapStatus, SwapError>>),
    SettleSwap(SwapId, oneshot::Sender<Result<SwapStatus, SwapError>>),
    RollBack(oneshot::Sender<Result<SwitchReport, SwapError>>),
    Try(Box<TrialRequest>, oneshot::Sender<Result<TrialStatus, TrialError>>),
    TrialReport(oneshot::Sender<Option<TrialReport>>),
    EndTrial(TrialId, oneshot::Sender<Result<TrialStatus, TrialError>>),
    PromoteTrial(TrialId, Duration, oneshot::Sender<Result<SwitchReport, SwapError>>),
    Checkpoint { stops: bool, answer: oneshot::Sender<Result<CheckpointReport, CheckpointError>> },
    HoldCheckpoint { stops: bool, answer: oneshot::Sender<Result<HeldCheckpoint, CheckpointError>> },
    Checkpoints(oneshot::Sender<Vec<CheckpointReport>>),
}

/// How a job ended.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum JobOutcome {
    /// All input was read and everything is written and published.
    Finished(Summary),
    /// It cannot go on; nothing more was published.
    Failed(JobError),
    /// It was cancelled; what its sinks had not published is removed.
    Cancelled,
    /// It was stopped behind a checkpoint, from which it can go on.
    Stopped(CheckpointReport),
    /// An earlier run had finished it, at this checkpoint: there was nothing left to do.
    FinishedBefore {
        /// The last checkpoint.
        checkpoint: CheckpointId,
        /// When it was taken, ms since epoch.
        at_ms: i64,
    },
}

/// One checkpoint, as people look at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckpointReport {
    /// Its number.
    pub checkpoint: CheckpointId,
    /// When its barrier was sent, ms since epoch.
    pub at_ms: i64,
    /// Path of its manifest in the checkpoint storage; none: it was given up before.
    pub manifest: Option<String>,
    /// Bytes that were uploaded.
    pub bytes_new: u64,
    /// Bytes of everything that it consists of.
    pub bytes_total: u64,
    /// The longest time that a subtask waited for inputs to align.
    pub alignment_ms: u64,
    /// The longest time for which a subtask did nothing else.
    pub sync_ms: u64,
    /// From the barrier until the last subtask's local files were complete.
    pub snapshot_ms: u64,
    /// From the barrier until everything was published, or it was given up, by the job's clock.
    pub total_ms: u64,
    /// What became of it.
    pub outcome: CheckpointOutcome,
}

/// A committed checkpoint of which nothing is removed as long as this lives, whatever is committed after it: to make a savepoint of it. A job that
/// goes back to its last checkpoint meanwhile holds it no longer ([`Self::is_held`]).
#[derive(Debug)]
pub struct HeldCheckpoint {
    pub(super) report: CheckpointReport,
    pub(super) whole: oneshot::Sender<()>,
}

impl HeldCheckpoint {
    /// Which it is, and where.
    pub fn report(&self) -> &CheckpointReport {
        &self.report
    }

    /// Whether the attempt that took it still goes on, so that nothing of it was removed.
    pub fn is_held(&self) -> bool {
        !self.whole.is_closed()
    }

    /// The savepoint is whole. If this is dropped instead, there is none: a job that was to stop behind it goes on.
    pub fn release(self) {
        // The job may have ended.
        let _ = self.whole.send(());
    }
}

/// What became of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointOutcome {
    /// It is committed: a run can go on from it.
    Committed,
    /// It failed before the commit; the job went on without it.
    GivenUp {
        /// Why.
        reason: String,
    },
}

/// Why there is no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum CheckpointError {
    /// The run is not durable.
    #[error("the run is ephemeral: it takes no checkpoints")]
    Ephemeral,
    /// The job has ended.
    #[error("the job has ended")]
    Ended,
    /// The checkpoint failed; the job goes on.
    #[error("the checkpoint was given up: {reason}")]
    GivenUp {
        /// Why.
        reason: String,
    },
    /// The job failed meanwhile, and goes on from its last checkpoint.
    #[error("the job is going back to its last checkpoint: {reason}")]
    Recovering {
        /// Why.
        reason: String,
    },
}

impl CheckpointError {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ephemeral | Self::Ended => ErrorKind::Conflict,
            Self::GivenUp { .. } | Self::Recovering { .. } => ErrorKind::Unavailable,
        }
    }
}

/// What a finished job did.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Its operators, in topological order.
    pub operators: Vec<OperatorStatus>,
    /// What a person should know besides the numbers, one sentence each.
    pub notes: Vec<String>,
}

/// Why a job failed: the first cause, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobError {
    /// The operator, source or sink that failed; none: the job as a whole.
    pub operator: Option<OperatorId>,
    /// The failed subtask.
    pub subtask: Option<SubtaskIndex>,
    /// Whose fault it is.
    pub fault: Fault,
    /// How far the job had come.
    pub stage: JobStage,
    /// What happened, and then each cause of it.
    pub causes: Vec<String>,
}

/// How far a job had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobStage {
    /// An operator was taking over what a checkpoint or savepoint holds of it; that is as it was, and the version that left it still goes on from it.
    Restoring,
    /// Anything else.
    Running,
}

impl JobError {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self.fault {
            Fault::User => ErrorKind::Invalid,
            Fault::Outside => ErrorKind::Unavailable,
            Fault::Internal => ErrorKind::Internal,
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(operator) = &self.operator {
            write!(f, "`{operator}`")?;
            if let Some(subtask) = self.subtask {
                write!(f, " (subtask {})", subtask.0)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.causes.join(": "))
    }
}

impl std::error::Error for JobError {}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Rows flow.
    Running,
    /// Sources are stopped; what is on its way is being finished.
    Draining,
    /// A durable run has failed, and waits or goes back to its last checkpoint.
    Recovering,
    /// It has ended.
    Ended,
}

/// What a job does now.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobStatus {
    /// Where it is in its life.
    pub phase: Phase,
    /// Its operators, in topological order.
    pub operators: Vec<OperatorStatus>,
    /// A durable run: how it stands; none: the run is ephemeral.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<DurableStatus>,
    /// When this was so, ms since epoch by the job's clock.
    pub at_ms: i64,
    /// The swap under way, or the last one; none: nothing was swapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapStatus>,
    /// The trial under way, or the last one; none: nothing was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialStatus>,
}

/// How a durable run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DurableStatus {
    /// What it promises.
    pub guarantee: Guarantee,
    /// The incarnation that the commit log gave to this attempt.
    pub attempt: u64,
    /// How often it went back to its last checkpoint.
    pub restarts: u32,
    /// The last committed checkpoint; none: there was none yet in this run.
    pub last_checkpoint: Option<CheckpointReport>,
    /// It has failed, and tries again; none: it runs, or begins for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovering: Option<Recovery>,
}

/// A run that has failed and tries again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recovery {
    /// The operator, source or sink that failed; none: the job as a whole.
    pub operator: Option<OperatorId>,
    /// What happened, and then each cause of it.
    pub causes: Vec<String>,
    /// How often it has failed in a row.
    pub failures: u32,
    /// When the next attempt begins, ms since epoch.
    pub next_ms: i64,
}

/// The counters of one operator, source or sink: totals over its subtasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OperatorStatus {
    /// Its id in the job file.
    pub id: OperatorId,
    /// What it is.
    pub kind: OperatorKind,
    /// Number of subtasks.
    pub parallelism: u32,
    /// Rows received.
    pub rows_in: u64,
    /// Rows emitted on declared outputs.
    pub rows_out: u64,
    /// Rows that came too late and were not used.
    pub rows_late: u64,
    /// Rows rejected and dropped or sent to a sink.
    pub rows_rejected: u64,
    /// Rows without a key that `null-keys: drop` dropped.
    pub rows_null_key: u64,
    /// Timers not set because their chain re-armed itself too often: for no later time, or after the end of input.
    pub timers_cut: u64,
    /// Traps of guests, and other failures that cost an instance.
    pub traps: u64,
    /// What its component counts itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guest_metrics: Vec<GuestMetricStatus>,
    /// Values of such metrics that were not taken.
    #[serde(default)]
    pub guest_metrics_refused: u64,
    /// Time in guest calls.
    pub guest_time: Duration,
    /// Time spent with elements, without that spent waiting. This, `backpressured-time` and `idle-time` grow by a second per second and subtask.
    #[serde(default)]
    pub busy_time: Duration,
    /// The other time: waiting for input, for answers over HTTP, for a guest that asked to be called later, or for its turn in a chain.
    #[serde(default)]
    pub idle_time: Duration,
    /// Requests over HTTP that its component has sent, repetitions included.
    #[serde(default)]
    pub requests: u64,
    /// Bytes of those.
    #[serde(default)]
    pub request_bytes: u64,
    /// Bytes of the bodies of their answers.
    #[serde(default)]
    pub answer_bytes: u64,
    /// Time spent waiting for room in an output queue.
    pub backpressured_time: Duration,
    /// Linear memory of its guests, in bytes.
    #[serde(default)]
    pub guest_memory_bytes: u64,
    /// Memory that its keyed state takes, in bytes.
    #[serde(default)]
    pub state_memory_bytes: u64,
    /// Bytes of keyed state in files and their buffers, as of the last checkpoint.
    #[serde(default)]
    pub state_disk_bytes: u64,
    /// Units of input read (sources only).
    pub progress: u64,
    /// Units of input in total, where that is known (sources only).
    pub progress_total: Option<u64>,
    /// How far its splits are behind their ends, of those that know (sources only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lags: Vec<SplitLag>,
    /// The lowest watermark of its subtasks, ms since epoch; none: at least one has none yet.
    pub watermark: Option<i64>,
    /// Since when it stands there, ms since epoch; none: it has not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark_since_ms: Option<i64>,
    /// The operators and sources that feed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<OperatorId>,
    /// Whether what it does depends on event time: windows, timers, order.
    #[serde(default)]
    pub waits_for_time: bool,
    /// Whether its output has event times that it makes itself.
    #[serde(default)]
    pub makes_time: bool,
    /// What its subtasks wait for just now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<SubtaskWait>,
    /// Which versions ran, oldest first; the last one runs. Empty: a built-in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<VersionEntry>,
}

impl OperatorStatus {
    /// Rows that are there and were not read yet, of all its splits; none: no split knows.
    pub fn rows_behind(&self) -> Option<u64> {
        (!self.lags.is_empty()).then(|| self.lags.iter().map(|lag| lag.rows).sum())
    }
}

/// What one subtask waits for, or works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SubtaskWait {
    /// Which.
    pub subtask: SubtaskIndex,
    /// Since when, ms since epoch.
    pub since_ms: i64,
    /// For what.
    #[serde(flatten)]
    pub on: WaitOn,
}

/// What a subtask waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "kebab-case")]
pub enum WaitOn {
    /// A source: rows of its splits.
    Splits {
        /// The one that holds the watermark, or the only one that is left.
        split: Option<String>,
        /// How many are left.
        left: usize,
    },
    /// A source: others that are behind it by more than `max-drift`.
    Others,
    /// Rows of the operators before it.
    Input {
        /// The one whose watermark holds back its own.
        held_by: Option<OperatorId>,
    },
    /// A barrier that some of its inputs have passed.
    Barrier {
        /// Of this checkpoint.
        checkpoint: CheckpointId,
        /// The inputs that have not.
        missing: Vec<OperatorId>,
    },
    /// Room in the queue to an operator or sink.
    Room {
        /// Which.
        to: OperatorId,
    },
    /// A guest that asked to be called again later.
    Retry {
        /// What it said.
        reason: String,
        /// When it is called again, ms since epoch.
        until_ms: i64,
    },
    /// Answers over HTTP that a guest has asked for.
    Answers {
        /// How many requests it sent together.
        requests: usize,
    },
    /// Nothing: it works on what came last.
    Work {
        /// The operator or sink that does, in the same subtask.
        by: OperatorId,
    },
}

/// What a node of the graph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorKind {
    /// It reads from outside.
    Source,
    /// It transforms.
    Operator,
    /// It writes to the outside.
    Sink,
}

/// How a barrier went through the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BarrierReport {
    /// Subtasks that it passed.
    pub passed: usize,
    /// Subtasks that had ended before, which counts as aligned.
    pub ended: usize,
}

impl JobHandle {
    /// The owner of the job.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The job.
    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// What the job does now; none: its supervisor is gone, which happens only when the runtime shuts down.
    pub async fn status(&self) -> Option<JobStatus> {
        self.ask(Command::Status).await
    }

    /// What a silent job waits for, as one sentence ([`super::why`]); none as for [`Self::status`].
    pub async fn why(&self) -> Option<String> {
        Some(super::why::why(&self.status().await?))
    }

    /// Stops the sources and lets everything on its way come to its end, as if the input had ended here.
    pub async fn drain(&self) {
        let _ended_already = self.commands.send(Command::Drain).await;
    }

    /// Stops the job where it is. What its sinks have not published is removed.
    pub async fn cancel(&self) {
        let _ended_already = self.commands.send(Command::Cancel).await;
    }

    /// Sends a barrier through the job and returns when every subtask has passed it; none: the job ended before.
    pub async fn send_barrier(&self, checkpoint: CheckpointId) -> Option<BarrierReport> {
        self.ask(|answer| Command::Barrier(checkpoint, answer)).await
    }

    /// Plans new versions, compares them with those that run, and opens instances beside them. Nothing is touched.
    ///
    /// # Errors
    /// They do not fit, with the precise differences; an instance cannot be made; another swap is under way. The job runs on unchanged.
    pub async fn prepare_swap(&self, request: SwapRequest) -> Result<SwapStatus, SwapError> {
        self.ask(|answer| Command::PrepareSwap(request, answer)).await.unwrap_or(Err(SwapError::Ended))
    }

    /// Puts the prepared instances into the place of the old ones, and returns when every subtask has switched. The swap is then on probation.
    ///
    /// # Errors
    /// There is no such prepared swap, it failed (the old versions run), or the job has ended.
    pub async fn switch(&self, swap: SwapId) -> Result<SwitchReport, SwapError> {
        self.ask(|answer| Command::Switch(swap, answer)).await.unwrap_or(Err(SwapError::Ended))
    }

    /// Gives up a prepared swap.
    ///
    /// # Errors
    /// There is no such prepared swap.
    pub async fn abandon_swap(&self, swap: SwapId) -> Result<SwapStatus, SwapError> {
        self.ask(|answer| Command::AbandonSwap(swap, answer)).await.unwrap_or(Err(SwapError::Ended))
    }

    /// Ends the probation of a swap before its time.
    ///
    /// # Errors
    /// It is not on probation.
    pub async fn settle_swap(&self, swap: SwapId) -> Result<SwapStatus, SwapError> {
        self.ask(|answer| Command::SettleSwap(swap, answer)).await.unwrap_or(Err(SwapError::Ended))
    }

    /// Puts back what the last swap has replaced, and returns when every subtask has: the kept instances while it is on probation, new instances of the
    /// old versions when it is settled. Called again, it undoes the swap before.
    ///
    /// # Errors
    /// There is nothing to undo, or the old versions cannot read the state as it is now.
    pub async fn roll_back(&self) -> Result<SwitchReport, SwapError> {
        self.ask(Command::RollBack).await.unwrap_or(Err(SwapError::Ended))
    }

    /// Puts a new version on trial beside the one that runs, and returns when every subtask asks it too. Nothing else is touched.
    ///
    /// # Errors
    /// It cannot be tried, with the precise differences; a trial or a swap is under way. The job runs on unchanged.
    pub async fn try_version(&self, request: TrialRequest) -> Result<TrialStatus, TrialError> {
        self.ask(|answer| Command::Try(Box::new(request), answer)).await.unwrap_or(Err(TrialError::Ended))
    }

    /// What the trial under way has found so far, or the last one has; none: nothing was tried.
    pub async fn trial_report(&self) -> Option<TrialReport> {
        self.ask(Command::TrialReport).await.flatten()
    }

    /// Ends a trial: the old version answers alone. What a canary has put out and changed stays.
    ///
    /// # Errors
    /// It is not under way, or is being promoted.
    pub async fn end_trial(&self, trial: TrialId) -> Result<TrialStatus, TrialError> {
        self.ask(|answer| Command::EndTrial(trial, answer)).await.unwrap_or(Err(TrialError::Ended))
    }

    /// Puts the version on trial into the place of the one that runs, by a swap with this probation, and returns when every subtask has switched.
    ///
    /// # Errors
    /// It is not under way, or the swap does not come about: the trial is over then, and the old version runs.
    pub async fn promote_trial(&self, trial: TrialId, probation: Duration) -> Result<SwitchReport, SwapError> {
        self.ask(|answer| Command::PromoteTrial(trial, probation, answer)).await.unwrap_or(Err(SwapError::Ended))
    }

    /// Takes a checkpoint now, and returns when it is committed and published.
    ///
    /// # Errors
    /// There is none; the job goes on or goes back to its last checkpoint.
    pub async fn checkpoint(&self) -> Result<CheckpointReport, CheckpointError> {
        self.ask(|answer| Command::Checkpoint { stops: false, answer }).await.unwrap_or(Err(CheckpointError::Ended))
    }

    /// Takes a last checkpoint and stops behind it; the job can go on from there.
    ///
    /// # Errors
    /// There is none, so the job was not stopped.
    pub async fn stop(&self) -> Result<CheckpointReport, CheckpointError> {
        self.ask(|answer| Command::Checkpoint { stops: true, answer }).await.unwrap_or(Err(CheckpointError::Ended))
    }

    /// Takes a checkpoint now, of which a savepoint can be made in peace.
    ///
    /// # Errors
    /// There is none; the job goes on or goes back to its last checkpoint.
    pub async fn hold_checkpoint(&self) -> Result<HeldCheckpoint, CheckpointError> {
        self.ask(|answer| Command::HoldCheckpoint { stops: false, answer }).await.unwrap_or(Err(CheckpointError::Ended))
    }

    /// The same, and the job stops when the savepoint is whole ([`HeldCheckpoint::release`]); until then it goes on without checkpoints.
    ///
    /// # Errors
    /// There is none, so the job does not stop.
    pub async fn hold_checkpoint_and_stop(&self) -> Result<HeldCheckpoint, CheckpointError> {
        self.ask(|answer| Command::HoldCheckpoint { stops: true, answer }).await.unwrap_or(Err(CheckpointError::Ended))
    }

    /// The checkpoints of this run, oldest first; only the last ones are remembered.
    pub async fn checkpoints(&self) -> Vec<CheckpointReport> {
        self.ask(Command::Checkpoints).await.unwrap_or_default()
    }

    /// Waits for the end of the job.
    pub async fn wait(&self) -> Arc<JobOutcome> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("waited for"),
            Err(_runtime_shut_down) => Arc::new(JobOutcome::Cancelled),
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }
}
