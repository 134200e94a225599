//! The runtime: executes a planned job as subtasks, and answers for it.
//!
//! In reading order: [`start`] spawns the supervisor (`job`), which builds (`build`) the subtasks from the plan:
//! [`crate::graph::chains`] says which nodes are fused into one chain. A `subtask` owns a `chain` and what feeds it, a `source` driver or its `queue`s. The chain hands each
//! element through its links: `entry` → `order` → operator or `sink` → `outlet`; `aligner` merges what several inputs say.
//! [`JobHandle`] is how others watch and steer.
//!
//! Words: a *link* is one node in one subtask; a *chain* is the links fused in one subtask; an *edge* is one queue.
//! Absent on purpose: unbounded queues, locks around state, threads of its own, and any clock but the injected one.

mod aligner;
mod assign;
mod build;
mod chain;
mod checkpointing;
mod commands;
mod decision;
mod drift;
mod durable;
mod entry;
mod exchange;
mod gather;
mod handle;
mod held;
mod job;
mod order;
mod outlet;
mod queue;
mod restore;
mod sink;
mod snapshot;
mod source;
mod splits;
mod status;
mod subtask;
mod swap;
mod swapping;
mod tap;
mod trial;
mod upload;
mod versions;
mod wake;
mod why;
mod widening;

use std::{path::PathBuf, sync::Arc, time::Duration};

use millstream_model::ids::OperatorId;
use millstream_state::RocksShared;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};

pub use crate::checkpoint::files::FileWork;
pub use assign::{Assigner, InTurn};
pub use durable::{CrashPoint, CrashPoints, Durable, Misfit, StartFrom, check_places};
pub use exchange::{EdgeId, Edges, Exchange, InProcess};
pub use handle::{
    BarrierReport, CheckpointError, CheckpointOutcome, CheckpointReport, DurableStatus, HeldCheckpoint, JobError, JobHandle, JobOutcome,
    JobStage, JobStatus, OperatorKind, OperatorStatus, Phase, Recovery, SubtaskWait, Summary, WaitOn,
};
pub use swap::{
    Comparison, NewComponent, NewVersion, OperatorSwap, OperatorVersion, SwapChange, SwapError, SwapId, SwapPart, SwapPhase, SwapRefusal,
    SwapRequest, SwapStatus, SwitchAt, SwitchReport, VersionCause, VersionEntry,
};
pub use trial::{
    DifferenceAt, Promotion, SAMPLES_MAX, Share, TrialBound, TrialCounts, TrialDifference, TrialError, TrialId, TrialMode, TrialPhase,
    TrialRecord, TrialReport, TrialRequest, TrialRule, TrialStatus,
};
pub use versions::has_swapped;
pub use why::why;
pub use widening::{Afresh, Replan, Widening};

pub use tap::{Tapped, Taps};

pub use queue::{Disconnected, Inbox, Sender, queues};

pub(crate) use queue::row_bytes;
pub(crate) use trial::Compared;

use commands::Commands;

use crate::{
    clock::{Clock, SystemClock},
    graph::JobPlan,
    operator::OperatorError,
};

/// What a run is given besides its plan.
#[derive(Clone)]
pub struct RunSettings {
    /// The clock of the job.
    pub clock: Arc<dyn Clock>,
    /// The data runtime: where subtasks run.
    pub runtime: Handle,
    /// How long written rows may stay invisible in a sink that can show them earlier. Default: 200 ms.
    pub sink_flush_interval: Duration,
    /// Where state goes that does not fit into memory; none: more state than memory fails the job.
    pub state: Option<StateDirectory>,
    /// Which subtask reads which split. Default: in turn.
    pub assigner: Arc<dyn Assigner>,
    /// What connects subtasks. Default: queues in this process.
    pub exchange: Arc<dyn Exchange>,
    /// What makes the run durable; none: it is ephemeral, what it remembers ends with it.
    pub durable: Option<Durable>,
    /// Where others look at what its operators emit.
    pub taps: Arc<Taps>,
    /// Asked before an attempt goes on from a checkpoint; none: what settings refer to stays what it was at the start.
    pub afresh: Option<Arc<dyn Afresh>>,
}

/// Where state goes that does not fit into memory.
#[derive(Clone)]
pub struct StateDirectory {
    /// A directory for this run alone. Each operator instance uses one below it.
    pub path: PathBuf,
    /// What all RocksDB instances of the process share.
    pub shared: Arc<RocksShared>,
}

impl RunSettings {
    /// The machine's clock, the current tokio runtime, state in memory.
    ///
    /// # Panics
    /// There is no current tokio runtime.
    pub fn new() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            runtime: Handle::current(),
            sink_flush_interval: Duration::from_millis(200),
            state: None,
            assigner: Arc::new(InTurn),
            exchange: Arc::new(InProcess),
            durable: None,
            taps: Arc::default(),
            afresh: None,
        }
    }

    /// The same with another clock.
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }
}

impl Default for RunSettings {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts a planned job. Opening its sources, operators and sinks happens in the background too: a failure there ends the job.
pub fn start(plan: Arc<JobPlan>, settings: RunSettings) -> JobHandle {
    let (commands, commanded) = mpsc::channel(16);
    let commanded = Commands::new(commanded);
    let (outcome, watched) = watch::channel(None);
    let handle = JobHandle { tenant: plan.tenant.clone(), job: plan.job.clone(), commands, outcome: watched };
    match &settings.durable {
        None => drop(settings.runtime.clone().spawn(job::supervise(plan, settings, commanded, outcome))),
        Some(durable) => {
            let durable = durable.clone();
            drop(settings.runtime.clone().spawn(durable::supervise(plan, settings, durable, commanded, outcome)));
        }
    }
    handle
}

/// Why a subtask stops before the end of its input.
#[derive(Debug)]
enum Stop {
    /// An operator, source or sink failed.
    Failed { operator: OperatorId, error: OperatorError },
    /// The job is being stopped; whoever stopped it knows why.
    Disconnected,
}

impl From<Disconnected> for Stop {
    fn from(_: Disconnected) -> Self {
        Self::Disconnected
    }
}
