//! The checkpoints of one attempt of a durable run: what is decided when ([`Checkpointing`], which does no I/O itself but spawns it).
//!
//! One checkpoint at a time. In order (R2): barriers → every subtask's snapshot in local files → uploads → manifest, written and read back → commit
//! record, the only decision → sinks publish, sources forget → what is no longer kept is removed → done. What fails clearly before the
//! commit is given up, and the job goes on; once the commit was tried, any error means recovery (R5): the attempt ends, and the next one reads
//! what was decided.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use millstream_model::{
    ids::{CheckpointId, SubtaskIndex},
    key::KeyGroup,
    types::type_text,
};
use millstream_storage::{CommitRecord, Retained};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    durable::{CrashPoint, Durable, FileWork},
    handle::{CheckpointError, CheckpointOutcome, CheckpointReport, OperatorKind},
    held,
    job::lock,
    restore::kind_of,
    snapshot::{LinkSnapshot, SnapshotFailed, SubtaskSnapshot, Timings},
    subtask::SubtaskNumber,
};
use crate::{
    checkpoint::{
        files::{self, KnownFiles},
        manifest::{KeyColumn, Manifest, OperatorManifest, SubtaskManifest},
    },
    clock::Clock,
    graph::{JobPlan, NodeIndex, NodeKind},
    operator::OperatorPlan,
};

/// Checkpoints that are remembered for people.
const HISTORY: usize = 100;

/// Reports of past checkpoints; they outlive an attempt.
pub(super) type History = Arc<Mutex<VecDeque<CheckpointReport>>>;

/// What the supervisor has to do, in order.
#[derive(Debug)]
pub(super) enum Order {
    /// Sources send the barrier; subtasks whose input has ended get it themselves.
    Barrier(CheckpointId),
    /// This subtask, whose input has just ended, gets the barrier itself.
    BarrierTo(SubtaskNumber, CheckpointId),
    /// All subtasks publish, and tell.
    Committed(CheckpointId),
    /// All subtasks forget it.
    GiveUp(CheckpointId),
    /// There is doubt, or too much failed: the attempt ends.
    Recover { reason: String },
    /// The last checkpoint is published: subtasks come to their end.
    Finish,
    /// The checkpoint behind which to stop is published.
    Stop(CheckpointReport),
    /// A crash point asks to die here.
    Crash,
}

/// Work that was done in the background.
pub(super) enum Done {
    Uploaded { subtask: SubtaskNumber, result: Result<Uploaded, files::Error> },
    Written { result: Result<(Manifest, Retained), files::Error> },
    Committed { result: Result<(), millstream_storage::Error> },
    Collected,
}

/// What one subtask holds, in the checkpoint storage.
pub(super) struct Uploaded {
    nodes: Vec<(NodeIndex, SubtaskManifest)>,
    bytes_new: u64,
}

/// What the protocol must know of a subtask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) index: SubtaskIndex,
    pub(super) parallelism: u32,
}

type Answer = oneshot::Sender<Result<CheckpointReport, CheckpointError>>;

/// The checkpoints of one attempt.
pub(super) struct Checkpointing {
    plan: Arc<JobPlan>,
    durable: Durable,
    clock: Arc<dyn Clock>,
    incarnation: u64,
    members: Vec<Member>,
    ended: BTreeSet<SubtaskNumber>,
    /// The record as it is decided.
    record: CommitRecord,
    known: Arc<KnownFiles>,
    current: Option<Current>,
    /// Who waits for the next checkpoint to begin.
    asked: Vec<Answer>,
    stops: bool,
    finished: bool,
    next_ms: i64,
    failures_in_row: u32,
    history: History,
    work: JoinSet<()>,
    done: mpsc::Sender<(CheckpointId, Done)>,
    results: mpsc::Receiver<(CheckpointId, Done)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Snapshots,
    Manifest,
    Commit,
    Publish,
}

/// The checkpoint under way.
struct Current {
    number: CheckpointId,
    stage: Stage,
    began_ms: i64,
    deadline_ms: i64,
    is_final: bool,
    stops: bool,
    answers: Vec<Answer>,
    /// Subtasks whose snapshot has not come.
    unsnapshotted: BTreeSet<SubtaskNumber>,
    /// Subtasks whose snapshot is not in the storage.
    unstored: BTreeSet<SubtaskNumber>,
    unpublished: BTreeSet<SubtaskNumber>,
    is_collected: bool,
    parts: BTreeMap<NodeIndex, BTreeMap<SubtaskIndex, SubtaskManifest>>,
    timings: Timings,
    bytes_new: u64,
    bytes_total: u64,
    manifest: Option<(Manifest, Retained)>,
}

impl Checkpointing {
    /// Nothing is under way. `known`: the manifest that the job's own record names.
    pub(super) fn new(
        plan: Arc<JobPlan>,
        durable: Durable,
        clock: Arc<dyn Clock>,
        record: CommitRecord,
        known: Option<&Manifest>,
        history: History,
    ) -> Self {
        let (done, results) = mpsc::channel(64);
        let next_ms = clock.now_ms().saturating_add(ms(plan.durability.checkpoints.interval));
        Self {
            plan,
            durable,
            clock,
            incarnation: record.incarnation,
            members: Vec::new(),
            ended: BTreeSet::new(),
            record,
            known: Arc::new(known.map(KnownFiles::of).unwrap_or_default()),
            current: None,
            asked: Vec::new(),
            stops: false,
            finished: false,
            next_ms,
            failures_in_row: 0,
            history,
            work: JoinSet::new(),
            done,
            results,
        }
    }

    /// The subtasks of the attempt, by number.
    pub(super) fn set_members(&mut self, members: Vec<Member>) {
        self.members = members;
    }

    /// The incarnation of the attempt.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// When [`Self::on_time`] wants to be called.
    pub(super) fn wake_ms(&self) -> i64 {
        if self.finished {
            return i64::MAX;
        }
        self.current.as_ref().map_or(self.next_ms, |current| if current.stage < Stage::Commit { current.deadline_ms } else { i64::MAX })
    }

    /// The next result of work in the background. Cancel-safe.
    pub(super) async fn next_done(&mut self) -> (CheckpointId, Done) {
        self.results.recv().await.expect("a sending end is held here")
    }

    pub(super) fn on_time(&mut self) -> Vec<Order> {
        let now_ms = self.clock.now_ms();
        match &self.current {
            None if now_ms >= self.next_ms => self.begin(),
            Some(current) if current.stage < Stage::Commit && now_ms >= current.deadline_ms => {
                let timeout = humantime::format_duration(self.plan.durability.checkpoints.timeout);
                self.give_up(format!("it took longer than {timeout}"))
            }
            _ => Vec::new(),
        }
    }

    /// Somebody wants a checkpoint now. `stops`: and that the job stops behind it.
    pub(super) fn request(&mut self, stops: bool, answer: Answer) -> Vec<Order> {
        self.asked.push(answer);
        self.stops |= stops;
        if self.current.is_none() { self.begin() } else { Vec::new() }
    }

    /// All input of a subtask is processed.
    pub(super) fn on_input_ended(&mut self, subtask: SubtaskNumber) -> Vec<Order> {
        self.ended.insert(subtask);
        match &self.current {
            // The barrier on its way may never have reached it.
            Some(current) if current.unsnapshotted.contains(&subtask) => vec![Order::BarrierTo(subtask, current.number)],
            None if self.all_ended() => self.begin(),
            _ => Vec::new(),
        }
    }

    pub(super) fn on_snapshotted(
        &mut self,
        subtask: SubtaskNumber,
        checkpoint: CheckpointId,
        snapshot: Result<SubtaskSnapshot, SnapshotFailed>,
    ) -> Vec<Order> {
        let Some(current) = self.current.as_mut().filter(|current| current.number == checkpoint) else { return Vec::new() };
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(SnapshotFailed { operator, error }) => {
                return self.give_up(format!("`{operator}` could not be snapshotted: {}", super::job::causes(&error).join(": ")));
            }
        };
        if !current.unsnapshotted.remove(&subtask) {
            return Vec::new();
        }
        current.timings = current.timings.longest(snapshot.timings);
        if self.crashes(CrashPoint::Snapshot) {
            return vec![Order::Crash];
        }
        let upload =
            Upload { plan: self.plan.clone(), durable: self.durable.clone(), known: self.known.clone(), member: self.members[subtask] };
        self.spawn(checkpoint, async move { Done::Uploaded { subtask, result: upload.store(snapshot).await } });
        Vec::new()
    }

    /// A subtask has published what is committed.
    pub(super) fn on_published(&mut self, subtask: SubtaskNumber, checkpoint: CheckpointId) -> Vec<Order> {
        if let Some(current) = self.current.as_mut().filter(|current| current.number == checkpoint) {
            current.unpublished.remove(&subtask);
        }
        self.complete()
    }

    pub(super) fn on_done(
        &mut self,
        checkpoint: CheckpointId,
        done: Done,
        swapped: &BTreeMap<NodeIndex, Arc<dyn OperatorPlan>>,
    ) -> Vec<Order> {
        if self.current.as_ref().is_none_or(|current| current.number != checkpoint) {
            return Vec::new();
        }
        match done {
            Done::Uploaded { subtask, result: Ok(uploaded) } => self.on_uploaded(subtask, uploaded, swapped),
            Done::Uploaded { result: Err(error), .. } | Done::Written { result: Err(error) } => self.give_up(causes(&error)),
            Done::Written { result: Ok(written) } => self.on_written(written),
            Done::Committed { result: Ok(()) } => self.on_committed(),
            Done::Committed { result: Err(error) } => {
                vec![Order::Recover { reason: format!("the commit is in doubt: {}", causes(&error)) }]
            }
            Done::Collected => {
                if let Some(current) = &mut self.current {
                    current.is_collected = true;
                }
                self.complete()
            }
        }
    }

    /// The attempt ends: whoever waits is told.
    pub(super) fn abandon(&mut self, reason: &str) {
        let waiting = self.current.take().map(|current| current.answers).unwrap_or_default();
        for answer in waiting.into_iter().chain(self.asked.drain(..)) {
            // Whoever asked may have gone.
            let _ = answer.send(Err(CheckpointError::Recovering { reason: reason.to_owned() }));
        }
        self.work.abort_all();
    }

    fn all_ended(&self) -> bool {
        self.ended.len() == self.members.len()
    }

    fn crashes(&self, point: CrashPoint) -> bool {
        self.durable.crash.as_ref().is_some_and(|crash| crash.reached(point))
    }

    fn begin(&mut self) -> Vec<Order> {
        if self.finished {
            return Vec::new();
        }
        let now_ms = self.clock.now_ms();
        let number = CheckpointId(self.record.last_number.max(self.record.checkpoint.map_or(0, |last| last.0)) + 1);
        // A number that was given up is not used again in this attempt.
        let number = CheckpointId(number.0 + u64::from(self.failures_in_row));
        let all: BTreeSet<SubtaskNumber> = (0..self.members.len()).collect();
        self.current = Some(Current {
            number,
            stage: Stage::Snapshots,
            began_ms: now_ms,
            deadline_ms: now_ms.saturating_add(ms(self.plan.durability.checkpoints.timeout)),
            is_final: self.all_ended(),
            stops: std::mem::take(&mut self.stops),
            answers: std::mem::take(&mut self.asked),
            unsnapshotted: all.clone(),
            unstored: all.clone(),
            unpublished: all,
            is_collected: false,
            parts: BTreeMap::new(),
            timings: Timings::default(),
            bytes_new: 0,
            bytes_total: 0,
            manifest: None,
        });
        if self.crashes(CrashPoint::Barrier) { vec![Order::Crash] } else { vec![Order::Barrier(number)] }
    }

    fn on_uploaded(
        &mut self,
        subtask: SubtaskNumber,
        uploaded: Uploaded,
        swapped: &BTreeMap<NodeIndex, Arc<dyn OperatorPlan>>,
    ) -> Vec<Order> {
        let Some(current) = &mut self.current else { return Vec::new() };
        current.unstored.remove(&subtask);
        current.bytes_new += uploaded.bytes_new;
        for (node, part) in uploaded.nodes {
            current.parts.entry(node).or_default().insert(self.members[subtask].index, part);
        }
        if !current.unstored.is_empty() {
            return Vec::new();
        }
        current.stage = Stage::Manifest;
        let manifest = self.manifest(swapped);
        if self.crashes(CrashPoint::Upload) {
            return vec![Order::Crash];
        }
        let Some(current) = &mut self.current else { return Vec::new() };
        current.bytes_total = manifest.files().iter().map(|file| file.bytes).sum();
        let number = current.number;
        let unique = (self.durable.random.next_u64(), self.durable.random.next_u64());
        let path = format!("{}/{}/{}-{:016x}{:016x}.manifest", self.plan.job, self.incarnation, number.0, unique.0, unique.1);
        let storage = self.durable.storage.clone();
        self.spawn(number, async move {
            let written = files::write_manifest(storage.as_ref(), &path, &manifest).await;
            Done::Written {
                result: written.map(|sha256| (manifest, Retained { checkpoint: number, manifest: path, manifest_sha256: sha256 })),
            }
        });
        Vec::new()
    }

    fn on_written(&mut self, (manifest, written): (Manifest, Retained)) -> Vec<Order> {
        if self.crashes(CrashPoint::Manifest) {
            return vec![Order::Crash];
        }
        let keeps = self.plan.durability.checkpoints.retained.get() as usize - 1;
        let mut retained: Vec<Retained> = self.record.retained.iter().cloned().chain(self.record.committed()).collect();
        let dropped = retained.len().saturating_sub(keeps);
        retained.drain(..dropped);
        let record = CommitRecord {
            incarnation: self.incarnation,
            checkpoint: Some(written.checkpoint),
            manifest: Some(written.manifest.clone()),
            manifest_sha256: Some(written.manifest_sha256.clone()),
            retained,
            last_number: written.checkpoint.0,
        };
        let Some(current) = &mut self.current else { return Vec::new() };
        current.stage = Stage::Commit;
        let number = current.number;
        current.manifest = Some((manifest, written));
        let (log, job) = (self.durable.log.clone(), self.plan.job.clone());
        self.spawn(number, async move { Done::Committed { result: log.commit(&job, &record).await } });
        Vec::new()
    }

    fn on_committed(&mut self) -> Vec<Order> {
        let keeps = self.plan.durability.checkpoints.retained.get() as usize - 1;
        let Some(current) = &mut self.current else { return Vec::new() };
        current.stage = Stage::Publish;
        let number = current.number;
        let Some((manifest, written)) = current.manifest.take() else { return Vec::new() };
        let mut retained: Vec<Retained> = self.record.retained.iter().cloned().chain(self.record.committed()).collect();
        let dropped: Vec<Retained> = retained.drain(..retained.len().saturating_sub(keeps)).collect();
        self.known = Arc::new(KnownFiles::of(&manifest));
        self.record = CommitRecord {
            incarnation: self.incarnation,
            checkpoint: Some(number),
            manifest: Some(written.manifest),
            manifest_sha256: Some(written.manifest_sha256),
            retained: retained.clone(),
            last_number: number.0,
        };
        self.failures_in_row = 0;
        if self.crashes(CrashPoint::Record) {
            return vec![Order::Crash];
        }
        let (storage, job, attempt) =
            (self.durable.storage.clone(), self.plan.job.clone(), self.durable.attempt_directory(self.incarnation));
        self.spawn(number, async move {
            let local = attempt.join("snapshots").join(number.0.to_string());
            // Local files are only links and copies of what was uploaded.
            let _ = tokio::fs::remove_dir_all(local).await;
            if let Err(error) = collect(storage.as_ref(), &job, &dropped, &retained, &manifest).await {
                tracing::warn!(%error, "checkpoints that are no longer kept could not be removed");
            }
            Done::Collected
        });
        vec![Order::Committed(number)]
    }

    fn complete(&mut self) -> Vec<Order> {
        let is_complete = |current: &Current| current.stage == Stage::Publish && current.unpublished.is_empty() && current.is_collected;
        let Some(current) = self.current.take_if(|current| is_complete(current)) else { return Vec::new() };
        if self.crashes(CrashPoint::Publish) {
            return vec![Order::Crash];
        }
        let report = self.report(&current, CheckpointOutcome::Committed);
        for answer in current.answers {
            // Whoever asked may have gone.
            let _ = answer.send(Ok(report.clone()));
        }
        if current.stops {
            return vec![Order::Stop(report)];
        }
        if current.is_final {
            self.finished = true;
            return vec![Order::Finish];
        }
        self.plan_next(current.began_ms)
    }

    /// When the next one begins; at once if somebody waits for it or nothing is left to do.
    fn plan_next(&mut self, began_ms: i64) -> Vec<Order> {
        let checkpoints = &self.plan.durability.checkpoints;
        let by_interval = began_ms.saturating_add(ms(checkpoints.interval));
        self.next_ms = by_interval.max(self.clock.now_ms().saturating_add(ms(checkpoints.min_pause)));
        if !self.asked.is_empty() || self.all_ended() { self.begin() } else { Vec::new() }
    }

    fn give_up(&mut self, reason: String) -> Vec<Order> {
        let Some(current) = self.current.take_if(|current| current.stage < Stage::Commit) else { return Vec::new() };
        tracing::warn!(checkpoint = current.number.0, %reason, "a checkpoint was given up");
        self.report(&current, CheckpointOutcome::GivenUp { reason: reason.clone() });
        for answer in current.answers {
            // Whoever asked may have gone.
            let _ = answer.send(Err(CheckpointError::GivenUp { reason: reason.clone() }));
        }
        self.failures_in_row += 1;
        if self.failures_in_row > self.plan.durability.checkpoints.tolerated_failures {
            return vec![Order::Recover { reason: format!("{} checkpoints in a row were given up: {reason}", self.failures_in_row) }];
        }
        let mut orders = vec![Order::GiveUp(current.number)];
        let interval_ms = ms(self.plan.durability.checkpoints.interval);
        self.next_ms = self.clock.now_ms().saturating_add(interval_ms.min(1_000 << self.failures_in_row.min(6)));
        if !self.asked.is_empty() {
            orders.extend(self.begin());
        }
        orders
    }

    fn report(&self, current: &Current, outcome: CheckpointOutcome) -> CheckpointReport {
        let manifest = if outcome == CheckpointOutcome::Committed { self.record.manifest.clone() } else { None };
        let report = CheckpointReport {
            checkpoint: current.number,
            at_ms: current.began_ms,
            manifest,
            bytes_new: current.bytes_new,
            bytes_total: current.bytes_total,
            alignment_ms: whole_ms(current.timings.alignment),
            sync_ms: whole_ms(current.timings.sync),
            snapshot_ms: whole_ms(current.timings.total),
            total_ms: u64::try_from(self.clock.now_ms() - current.began_ms).unwrap_or(0),
            outcome,
        };
        let mut history = lock(&self.history);
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(report.clone());
        report
    }

    fn manifest(&mut self, swapped: &BTreeMap<NodeIndex, Arc<dyn OperatorPlan>>) -> Manifest {
        let current = self.current.as_mut().expect("a checkpoint is under way");
        let mut operators = BTreeMap::new();
        for (node, subtasks) in std::mem::take(&mut current.parts) {
            let planned = &self.plan.nodes[node];
            let (component, key) = match &planned.kind {
                NodeKind::Operator(operator) => (swapped.get(&node).unwrap_or(&operator.plan).component(), key_columns(operator)),
                NodeKind::Source(_) | NodeKind::Sink(_) => (None, Vec::new()),
            };
            let kind: OperatorKind = kind_of(planned);
            let subtasks = subtasks.into_values().collect();
            operators.insert(planned.id.clone(), OperatorManifest { kind, component, key, subtasks });
        }
        Manifest {
            tenant: self.plan.tenant.clone(),
            job: self.plan.job.clone(),
            incarnation: self.incarnation,
            checkpoint: current.number,
            savepoint: None,
            created_ms: current.began_ms,
            is_finished: current.is_final,
            guarantee: self.plan.durability.guarantee,
            operators,
        }
    }

    fn spawn(&mut self, checkpoint: CheckpointId, work: impl Future<Output = Done> + Send + 'static) {
        let done = self.done.clone();
        // Results of earlier work are taken here, so that they do not pile up.
        while self.work.try_join_next().is_some() {}
        self.work.spawn(async move {
            // Without a supervisor nobody needs to know.
            let _ = done.send((checkpoint, work.await)).await;
        });
    }
}

impl PartialOrd for Stage {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (*self as u8).partial_cmp(&(*other as u8))
    }
}

fn key_columns(operator: &crate::graph::OperatorNode) -> Vec<KeyColumn> {
    let Some((keys, input)) = operator.keys.as_ref().and_then(|keys| keys.first()).zip(operator.inputs.first()) else { return Vec::new() };
    let column = |&key: &usize| {
        let field = input.schema.field(key);
        KeyColumn { name: field.name().clone(), data_type: type_text(field.data_type()) }
    };
    keys.iter().map(column).collect()
}

/// Uploads the snapshot of one subtask.
struct Upload {
    plan: Arc<JobPlan>,
    durable: Durable,
    known: Arc<KnownFiles>,
    member: Member,
}

impl Upload {
    async fn store(self, snapshot: SubtaskSnapshot) -> Result<Uploaded, files::Error> {
        let mut uploaded = Uploaded { nodes: Vec::with_capacity(snapshot.links.len()), bytes_new: 0 };
        for link in snapshot.links {
            let (node, part, bytes_new) = self.store_link(link).await?;
            uploaded.nodes.push((node, part));
            uploaded.bytes_new += bytes_new;
        }
        Ok(uploaded)
    }

    async fn store_link(&self, link: LinkSnapshot) -> Result<(NodeIndex, SubtaskManifest, u64), files::Error> {
        let (storage, job) = (self.durable.storage.as_ref(), &self.plan.job);
        let mut bytes_new = 0;
        let state = match link.state {
            Some(snapshot) => {
                let groups = KeyGroup::owned_by(self.member.index, self.member.parallelism);
                let stored = files::store_state(storage, job, &self.known, groups, snapshot).await?;
                bytes_new += stored.bytes_new;
                Some(stored.manifest)
            }
            None => None,
        };
        let mut held_rows = Vec::new();
        for (port, runs) in link.held.into_iter().enumerate().filter(|(_, runs)| !runs.is_empty()) {
            let encode = move || held::encode(&runs);
            let encoded = match self.durable.file_work {
                FileWork::OnThreads => tokio::task::spawn_blocking(encode).await.expect("encoding does not panic"),
                FileWork::Inline => encode(),
            };
            let bytes = encoded.map_err(|error| files::Error::Damaged { path: "held rows".into(), reason: error.to_string() })?;
            bytes_new += bytes.len() as u64;
            held_rows.push((port, files::store_bytes(storage, job, bytes).await?));
        }
        let part = SubtaskManifest {
            watermark: link.watermark.map(|watermark| watermark.0),
            sent_watermark: link.sent.map(|watermark| watermark.0),
            state,
            held_rows,
            value: link.value,
            splits: link.splits,
        };
        Ok((link.node, part, bytes_new))
    }
}

/// Removes checkpoints that are no longer kept: their manifests, then the files that no kept one names (R6). Nothing is uploaded meanwhile.
async fn collect(
    storage: &dyn millstream_storage::CheckpointStorage,
    job: &millstream_model::ids::JobId,
    dropped: &[Retained],
    retained: &[Retained],
    committed: &Manifest,
) -> Result<(), files::Error> {
    if dropped.is_empty() {
        return Ok(());
    }
    let mut kept: BTreeSet<_> = committed.files().into_iter().cloned().collect();
    for checkpoint in retained {
        let manifest = files::read_manifest(storage, &checkpoint.manifest, Some(&checkpoint.manifest_sha256)).await?;
        kept.extend(manifest.files().into_iter().cloned());
    }
    for checkpoint in dropped {
        let manifest = match files::read_manifest(storage, &checkpoint.manifest, Some(&checkpoint.manifest_sha256)).await {
            Ok(manifest) => manifest,
            // It was removed before a crash.
            Err(files::Error::Storage(millstream_storage::Error::NotFound(_))) => continue,
            Err(error) => return Err(error),
        };
        for file in manifest.files().into_iter().filter(|file| !kept.contains(*file)) {
            storage.delete(&format!("{}/{}", files::files_prefix(job), file.sha256)).await?;
        }
        // Last: as long as it is there, a repeated removal finds the files.
        storage.delete(&checkpoint.manifest).await?;
    }
    Ok(())
}

impl Timings {
    fn longest(self, other: Self) -> Self {
        Self { alignment: self.alignment.max(other.alignment), sync: self.sync.max(other.sync), total: self.total.max(other.total) }
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(&format!(": {error}"));
        next = error.source();
    }
    text
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
