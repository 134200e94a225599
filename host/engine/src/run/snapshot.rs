//! The snapshot of one subtask: what its chain holds at a barrier.
//!
//! At the barrier itself only what is cheap happens ([`Taking::add`]): operators say what they remember, stores begin a snapshot (no key is
//! walked), held rows are shared. Everything else is done while rows flow on: stores hand over what changed in slices between two elements
//! ([`Taking::advance`]), and files are written on a thread that may block. Uploading is the supervisor's.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use millstream_model::{
    Batch, Watermark,
    ids::{CheckpointId, OperatorId, SubtaskIndex},
};
use millstream_state::{KeyedStore, Snapshot, SnapshotCut, SnapshotStep, spawn_background};
use serde_json::Value;
use tokio::sync::{Notify, oneshot};

use super::{FileWork, chain::Link, order::EventTimeOrder};
use crate::{
    checkpoint::manifest::SplitManifest,
    graph::NodeIndex,
    operator::{Operator, OperatorError},
    operators::state_error,
};

/// Most entries that a store hands over between two elements: some hundred microseconds.
const SLICE_ENTRIES: usize = 1_024;

/// How the subtasks of a durable run take snapshots.
#[derive(Clone, Debug)]
pub(super) struct SnapshotSettings {
    /// Below it every snapshot has a directory of its own.
    pub(super) directory: PathBuf,
    pub(super) subtask: SubtaskIndex,
    pub(super) file_work: FileWork,
}

impl SnapshotSettings {
    fn directory_of(&self, checkpoint: CheckpointId, node: NodeIndex) -> PathBuf {
        self.directory.join(checkpoint.0.to_string()).join(format!("{node}-{}", self.subtask.0))
    }
}

/// What one subtask holds at a barrier; its keyed state in local files.
#[derive(Debug)]
pub(super) struct SubtaskSnapshot {
    pub(super) links: Vec<LinkSnapshot>,
    pub(super) timings: Timings,
}

/// What one link holds at a barrier.
#[derive(Debug)]
pub(super) struct LinkSnapshot {
    pub(super) node: NodeIndex,
    /// The merged watermark of its inputs.
    pub(super) watermark: Option<Watermark>,
    /// The last watermark that it had sent on.
    pub(super) sent: Option<Watermark>,
    /// What the operator or the sink's writer remembers.
    pub(super) value: Value,
    pub(super) state: Option<Snapshot>,
    /// The runs of held rows, per port; empty: nothing is held here.
    pub(super) held: Vec<Vec<Batch>>,
    pub(super) splits: Vec<SplitManifest>,
}

/// How long the parts of a snapshot took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timings {
    /// From the first input that passed the barrier to the last.
    pub(super) alignment: Duration,
    /// For which the subtask did nothing else.
    pub(super) sync: Duration,
    /// From the barrier until the local files were complete.
    pub(super) total: Duration,
}

/// Why a snapshot was not taken. The subtask goes on.
#[derive(Debug)]
pub(super) struct SnapshotFailed {
    pub(super) operator: OperatorId,
    pub(super) error: OperatorError,
}

/// A snapshot under way.
pub(super) struct Taking {
    pub(super) checkpoint: CheckpointId,
    settings: SnapshotSettings,
    began: Instant,
    timings: Timings,
    links: Vec<LinkTaking>,
    /// Tells when files are written.
    written: Arc<Notify>,
}

struct LinkTaking {
    /// Its number in the chain.
    link: usize,
    snapshot: LinkSnapshot,
    stage: Stage,
}

enum Stage {
    /// Entries of before the barrier are still in the store.
    Slicing,
    /// Somebody else writes the files.
    Writing(Written),
    Done,
}

/// How far a snapshot is.
pub(super) enum Step {
    /// There is more to do, now or when [`Taking::wake`] says.
    Pending,
    Complete(SubtaskSnapshot),
    /// Link number `link` could not be written.
    Failed {
        link: usize,
        error: OperatorError,
    },
}

/// When a snapshot wants to go on.
pub(super) enum Wake {
    Never,
    Now,
    Written(Arc<Notify>),
}

impl Wake {
    /// Returns then.
    pub(super) async fn wait(self) {
        match self {
            Self::Never => std::future::pending().await,
            Self::Now => {}
            Self::Written(written) => written.notified().await,
        }
    }
}

impl Taking {
    #[expect(clippy::disallowed_methods, reason = "the time is only shown")]
    pub(super) fn new(checkpoint: CheckpointId, settings: SnapshotSettings, alignment: Duration) -> Self {
        let timings = Timings { alignment, ..Timings::default() };
        Self { checkpoint, settings, began: Instant::now(), timings, links: Vec::new(), written: Arc::default() }
    }

    /// Link number `link` of `links` is at the barrier, which took `took`; its keyed state is cut here.
    ///
    /// # Errors
    /// The state cannot be cut.
    #[expect(clippy::disallowed_methods, reason = "the time is only shown")]
    pub(super) fn add(&mut self, links: &mut [Link], link: usize, value: Value, took: Duration) -> Result<(), OperatorError> {
        let began = Instant::now();
        let at_barrier = &mut links[link];
        let directory = self.settings.directory_of(self.checkpoint, at_barrier.node);
        let mut begun = None;
        if let Some(operator) = at_barrier.operator() {
            operator.with_store(&mut |store| begun = Some(store.begin_snapshot(directory.clone())));
        }
        let snapshot = LinkSnapshot {
            node: at_barrier.node,
            watermark: at_barrier.aligner.watermark(),
            sent: at_barrier.sent,
            value,
            state: None,
            held: at_barrier.order.as_ref().map_or_else(Vec::new, EventTimeOrder::held),
            splits: Vec::new(),
        };
        let stage = if begun.is_some() { Stage::Slicing } else { Stage::Done };
        self.links.push(LinkTaking { link, snapshot, stage });
        self.timings.sync += took + began.elapsed();
        begun.unwrap_or(Ok(())).map_err(state_error)
    }

    /// The splits of the source at the head.
    pub(super) fn set_splits(&mut self, splits: Vec<SplitManifest>, watermark: Option<Watermark>) {
        if let Some(head) = self.links.first_mut() {
            head.snapshot.splits = splits;
            head.snapshot.watermark = watermark;
        }
    }

    /// When [`Self::advance`] has something to do.
    pub(super) fn wake(&self) -> Wake {
        let waits = |link: &LinkTaking| matches!(link.stage, Stage::Writing(_));
        let slices = |link: &LinkTaking| matches!(link.stage, Stage::Slicing);
        if self.links.iter().any(slices) || !self.links.iter().any(waits) { Wake::Now } else { Wake::Written(self.written.clone()) }
    }

    /// Does a bounded part of what is left.
    pub(super) fn advance(&mut self, links: &mut [Link]) -> Step {
        let mut has_sliced = false;
        for taking in &mut self.links {
            let Some(operator) = links[taking.link].operator() else { continue };
            if let Err(error) = taking.advance(operator, self.settings.file_work, &self.written, &mut has_sliced) {
                return Step::Failed { link: taking.link, error: state_error(error) };
            }
        }
        if self.links.iter().all(|link| matches!(link.stage, Stage::Done)) { Step::Complete(self.complete()) } else { Step::Pending }
    }

    fn complete(&mut self) -> SubtaskSnapshot {
        let links = self.links.drain(..).map(|link| link.snapshot).collect();
        SubtaskSnapshot { links, timings: Timings { total: self.began.elapsed(), ..self.timings } }
    }

    /// Gives the snapshot up; the stores are ready for the next one.
    pub(super) fn abandon(self, links: &mut [Link]) {
        for taking in self.links {
            if let (Stage::Slicing | Stage::Writing(_), Some(operator)) = (taking.stage, links[taking.link].operator()) {
                operator.with_store(&mut KeyedStore::abandon_snapshot);
            }
        }
    }
}

impl LinkTaking {
    fn advance(
        &mut self,
        operator: &mut dyn Operator,
        file_work: FileWork,
        written: &Arc<Notify>,
        has_sliced: &mut bool,
    ) -> Result<(), millstream_state::Error> {
        if matches!(self.stage, Stage::Slicing) && !std::mem::replace(has_sliced, true) {
            let mut step = Ok(SnapshotStep::More);
            operator.with_store(&mut |store| step = store.continue_snapshot(SLICE_ENTRIES));
            if let SnapshotStep::Cut(cut) = step? {
                self.stage = Stage::Writing(write(*cut, file_work, written.clone())?);
            }
        }
        if let Stage::Writing(result) = &mut self.stage
            && let Some(result) = received(result)
        {
            self.snapshot.state = Some(result?);
            self.stage = Stage::Done;
            let mut finished = Ok(());
            operator.with_store(&mut |store| finished = store.finish_snapshot());
            finished?;
        }
        Ok(())
    }
}

type Written = oneshot::Receiver<Result<Snapshot, millstream_state::Error>>;

/// Writes the files of a cut where it may block, and where it takes no time from the threads of streams that want it.
fn write(cut: SnapshotCut, file_work: FileWork, written: Arc<Notify>) -> Result<Written, millstream_state::Error> {
    let (done, result) = oneshot::channel();
    let work = move || {
        // Whoever waited may have given up.
        let _ = done.send(cut.write());
        written.notify_one();
    };
    match file_work {
        FileWork::OnThreads => spawn_background("snapshot", work).map_err(|source| {
            let operation = "begin a thread";
            millstream_state::Error::Backend { operation, source: Box::new(source) }
        })?,
        FileWork::Inline => work(),
    }
    Ok(result)
}

fn received(result: &mut Written) -> Option<Result<Snapshot, millstream_state::Error>> {
    match result.try_recv() {
        Ok(result) => Some(result),
        Err(oneshot::error::TryRecvError::Empty) => None,
        Err(oneshot::error::TryRecvError::Closed) => {
            Some(Err(millstream_state::Error::InvalidUse("the thread that writes a snapshot stopped".into())))
        }
    }
}
