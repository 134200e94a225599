//! The checkpoints of one attempt of a durable run: carries out what the protocol ([`Coordinator`]) decides.
//!
//! Facts come in as `on_…`: from the supervisor, and from the work that is spawned here (uploads, manifest, commit, removal). What concerns
//! subtasks goes out as [`Order`]s. Here is what the protocol does not know: snapshots, manifests, records, who waits for an answer, the history.
//!
//! Work of a checkpoint that was given up is aborted; what it did all the same is remembered ([`Remembered`]) and removed with the next commit.
//! [`Checkpointing::end`] returns when no removal is under way any more, so the next attempt cannot lose to it what it stores.

mod current;

use std::{collections::BTreeMap, sync::Arc};

use millstream_model::ids::CheckpointId;
use millstream_storage::{CommitRecord, Retained};
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

pub(in crate::run) use current::History;
use current::{Current, remember};

pub(super) use super::upload::Member;
use super::{
    durable::{CrashPoint, Durable},
    handle::{CheckpointError, CheckpointOutcome, CheckpointReport, HeldCheckpoint},
    snapshot::{SnapshotFailed, SubtaskSnapshot},
    subtask::SubtaskNumber,
    upload::{Remembered, Upload, Uploaded},
};
use crate::{
    checkpoint::{
        collect::{Collection, Committed, Removed},
        coordinator::{Action, Coordinator, Fact, SavepointNumber, Settings, Start},
        files::{self, KnownFiles},
        manifest::Manifest,
    },
    clock::Clock,
    graph::{JobPlan, NodeIndex},
    operator::OperatorPlan,
};

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
    Uploaded {
        subtask: SubtaskNumber,
        result: Result<Uploaded, files::Error>,
    },
    Written {
        result: Result<Written, files::Error>,
    },
    Committed {
        result: Result<(), millstream_storage::Error>,
    },
    Collected {
        removed_all: bool,
    },
    /// A crash point asks to die in the middle of a removal.
    Died,
    /// Whoever held the checkpoint for a savepoint has released it.
    Released {
        savepoint: SavepointNumber,
        is_whole: bool,
    },
}

/// A manifest that is in the storage.
pub(super) struct Written {
    manifest: Manifest,
    at: Retained,
}

type Answer = oneshot::Sender<Result<CheckpointReport, CheckpointError>>;
type HeldAnswer = oneshot::Sender<Result<HeldCheckpoint, CheckpointError>>;

/// The plans that run in the place of those that the job began with.
type Swapped = BTreeMap<NodeIndex, Arc<dyn OperatorPlan>>;

/// What an attempt finds.
pub(super) struct Found {
    pub(super) plan: Arc<JobPlan>,
    pub(super) durable: Durable,
    pub(super) clock: Arc<dyn Clock>,
    /// The record of its claim.
    pub(super) record: CommitRecord,
    /// The manifest that the record names.
    pub(super) known: Option<Manifest>,
    pub(super) history: History,
}

/// The checkpoints of one attempt.
pub(super) struct Checkpointing {
    coordinator: Coordinator,
    plan: Arc<JobPlan>,
    durable: Durable,
    clock: Arc<dyn Clock>,
    incarnation: u64,
    members: Vec<Member>,
    /// Committed checkpoints, until they are removed.
    committed: BTreeMap<CheckpointId, Committed>,
    known: Arc<KnownFiles>,
    current: Option<Current>,
    /// Snapshots whose upload has not begun.
    snapshots: BTreeMap<SubtaskNumber, SubtaskSnapshot>,
    /// Who waits for the next checkpoint to begin.
    asked: Vec<Answer>,
    /// Who waits for it to make a savepoint of it.
    asked_held: BTreeMap<SavepointNumber, HeldAnswer>,
    /// Savepoints that were asked for so far.
    savepoints: u64,
    /// Of the last checkpoint that was completed.
    last: Option<CheckpointReport>,
    history: History,
    storage: Arc<Remembered>,
    /// All work in the background.
    work: JoinSet<()>,
    /// That of it which may be cut short at any point: everything but removals.
    abortable: Vec<AbortHandle>,
    /// Removals stop as soon as they can.
    ending: CancellationToken,
    done: mpsc::Sender<(CheckpointId, Done)>,
    results: mpsc::Receiver<(CheckpointId, Done)>,
}

impl Checkpointing {
    /// Nothing is under way; `members`: the subtasks of the attempt, by number.
    pub(super) fn new(found: Found, members: Vec<Member>) -> Self {
        let Found { plan, durable, clock, record, known, history } = found;
        let (done, results) = mpsc::channel(64);
        let mut committed: BTreeMap<_, _> =
            record.retained.iter().map(|at| (at.checkpoint, Committed { at: at.clone(), files: None })).collect();
        if let Some(at) = record.committed() {
            let newest = known.as_ref().map_or(Committed { at: at.clone(), files: None }, |manifest| Committed::new(at.clone(), manifest));
            committed.insert(at.checkpoint, newest);
        }
        let start = Start { subtasks: members.len(), last_number: record.last_number, kept: committed.keys().copied().collect() };
        Self {
            coordinator: Coordinator::new(Settings::from(&plan.durability.checkpoints), start, clock.monotonic_ms()),
            storage: Arc::new(Remembered::new(durable.storage.clone())),
            plan,
            durable,
            clock,
            incarnation: record.incarnation,
            members,
            committed,
            known: Arc::new(known.as_ref().map(KnownFiles::of).unwrap_or_default()),
            current: None,
            snapshots: BTreeMap::new(),
            asked: Vec::new(),
            asked_held: BTreeMap::new(),
            savepoints: 0,
            last: None,
            history,
            work: JoinSet::new(),
            abortable: Vec::new(),
            ending: CancellationToken::new(),
            done,
            results,
        }
    }

    /// The incarnation of the attempt.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// When [`Self::on_time`] wants to be called, in elapsed time.
    pub(super) fn wake_ms(&self) -> i64 {
        self.coordinator.wake_ms().unwrap_or(i64::MAX)
    }

    /// The next result of work in the background. Cancel-safe.
    pub(super) async fn next_done(&mut self) -> (CheckpointId, Done) {
        self.results.recv().await.expect("a sending end is held here")
    }

    pub(super) fn on_time(&mut self) -> Vec<Order> {
        self.step(Fact::Time, &Swapped::new())
    }

    /// Somebody wants a checkpoint now. `stops`: and that the job stops behind it.
    pub(super) fn request(&mut self, stops: bool, answer: Answer) -> Vec<Order> {
        self.asked.push(answer);
        self.step(Fact::CheckpointRequested { stops }, &Swapped::new())
    }

    /// Somebody wants a checkpoint now that stays until it is released. `stops`: and that the job stops then.
    pub(super) fn request_held(&mut self, stops: bool, answer: HeldAnswer) -> Vec<Order> {
        self.savepoints += 1;
        let savepoint = SavepointNumber(self.savepoints);
        self.asked_held.insert(savepoint, answer);
        self.step(Fact::SavepointRequested { savepoint, stops }, &Swapped::new())
    }

    /// All input of a subtask is processed.
    pub(super) fn on_input_ended(&mut self, subtask: SubtaskNumber) -> Vec<Order> {
        self.step(Fact::InputEnded { subtask }, &Swapped::new())
    }

    pub(super) fn on_snapshotted(
        &mut self,
        subtask: SubtaskNumber,
        checkpoint: CheckpointId,
        snapshot: Result<SubtaskSnapshot, SnapshotFailed>,
    ) -> Vec<Order> {
        let fact = match snapshot {
            Ok(snapshot) => {
                if self.current_at(checkpoint).is_none() {
                    return Vec::new();
                }
                self.snapshots.insert(subtask, snapshot);
                Fact::Snapshotted { checkpoint, subtask }
            }
            Err(SnapshotFailed { operator, error }) => {
                let reason = format!("`{operator}` could not be snapshotted: {}", super::job::causes(&error).join(": "));
                Fact::Failed { checkpoint, reason }
            }
        };
        self.step(fact, &Swapped::new())
    }

    /// A subtask has published what is committed.
    pub(super) fn on_published(&mut self, subtask: SubtaskNumber, checkpoint: CheckpointId) -> Vec<Order> {
        self.step(Fact::Published { checkpoint, subtask }, &Swapped::new())
    }

    pub(super) fn on_done(&mut self, checkpoint: CheckpointId, done: Done, swapped: &Swapped) -> Vec<Order> {
        if matches!(done, Done::Died) {
            return vec![Order::Crash];
        }
        if let Done::Released { savepoint, is_whole } = done {
            let fact = if is_whole { Fact::SavepointCopied { savepoint } } else { Fact::SavepointFailed { savepoint } };
            return self.step(fact, swapped);
        }
        // Nobody waits for what a checkpoint did that was given up.
        let members = &self.members;
        let Some(current) = self.current.as_mut().filter(|current| current.checkpoint == checkpoint) else { return Vec::new() };
        let fact = match done {
            Done::Uploaded { subtask, result: Ok(uploaded) } => {
                current.add(members[subtask].index, uploaded);
                Fact::Uploaded { checkpoint, subtask }
            }
            Done::Written { result: Ok(written) } => {
                current.manifest = Some(written);
                Fact::ManifestWritten { checkpoint }
            }
            Done::Uploaded { result: Err(error), .. } | Done::Written { result: Err(error) } => {
                Fact::Failed { checkpoint, reason: causes(&error) }
            }
            Done::Committed { result: Ok(()) } => Fact::Committed { checkpoint },
            Done::Committed { result: Err(error) } => Fact::CommitInDoubt { checkpoint, reason: causes(&error) },
            Done::Collected { removed_all } => Fact::Collected { checkpoint, removed_all },
            Done::Released { .. } | Done::Died => return Vec::new(),
        };
        self.step(fact, swapped)
    }

    /// The attempt ends: whoever waits is told `error`; returns when no work of it is under way that could harm the next one.
    pub(super) async fn end(&mut self, error: CheckpointError) {
        let (waiting, held) = self.current.take().map(|current| (current.answers, current.held_answers)).unwrap_or_default();
        refuse_held(held.into_iter().chain(std::mem::take(&mut self.asked_held)), &error);
        answer_all(waiting.into_iter().chain(self.asked.drain(..)), &Err(error));
        // Nobody receives results any more; who wants to send one must not wait for that.
        self.results.close();
        self.abort();
        self.ending.cancel();
        while self.work.join_next().await.is_some() {}
    }

    fn crashes(&self, point: CrashPoint) -> bool {
        self.durable.crash.as_ref().is_some_and(|crash| crash.reached(point))
    }

    fn current_at(&mut self, checkpoint: CheckpointId) -> Option<&mut Current> {
        self.current.as_mut().filter(|current| current.checkpoint == checkpoint)
    }

    fn step(&mut self, fact: Fact, swapped: &Swapped) -> Vec<Order> {
        let actions = self.coordinator.step(self.clock.monotonic_ms(), fact);
        let mut orders = Vec::new();
        for action in actions {
            if crash_point(&action).is_some_and(|point| self.crashes(point)) {
                return vec![Order::Crash];
            }
            orders.extend(self.carry_out(action, swapped));
        }
        orders
    }

    fn carry_out(&mut self, action: Action, swapped: &Swapped) -> Option<Order> {
        match action {
            Action::InjectBarrier { checkpoint } => return Some(self.begin(checkpoint)),
            Action::InjectBarrierInto { subtask, checkpoint } => return Some(Order::BarrierTo(subtask, checkpoint)),
            Action::Upload { checkpoint, subtask } => self.upload(checkpoint, subtask),
            Action::WriteManifest { checkpoint, is_final } => self.write_manifest(checkpoint, is_final, swapped),
            Action::Commit { checkpoint, retained } => self.commit(checkpoint, &retained),
            Action::Publish { checkpoint } => return Some(self.publish(checkpoint)),
            Action::Collect { checkpoint, garbage, kept, sweeps } => self.collect(checkpoint, &garbage, &kept, sweeps),
            Action::Complete { checkpoint } => self.complete(checkpoint),
            Action::GiveUp { checkpoint, reason } => return Some(self.give_up(checkpoint, reason)),
            Action::Recover { reason } => return Some(Order::Recover { reason }),
            Action::Stop { .. } => return self.last.clone().map(Order::Stop),
            Action::Finish { .. } => return Some(Order::Finish),
            Action::CopySavepoint { savepoint, checkpoint } => self.hold(savepoint, checkpoint),
        }
        None
    }

    fn begin(&mut self, checkpoint: CheckpointId) -> Order {
        let answers = std::mem::take(&mut self.asked);
        let held_answers = std::mem::take(&mut self.asked_held);
        self.current = Some(Current { answers, held_answers, ..Current::begun(checkpoint, self.clock.as_ref()) });
        self.snapshots.clear();
        Order::Barrier(checkpoint)
    }

    fn upload(&mut self, checkpoint: CheckpointId, subtask: SubtaskNumber) {
        let Some(snapshot) = self.snapshots.remove(&subtask) else { return };
        if let Some(current) = self.current_at(checkpoint) {
            current.timings = current.timings.longest(snapshot.timings);
        }
        let upload = Upload {
            storage: self.storage.clone(),
            job: self.plan.job.clone(),
            file_work: self.durable.file_work,
            known: self.known.clone(),
            member: self.members[subtask],
        };
        self.spawn(checkpoint, async move { Done::Uploaded { subtask, result: upload.store(snapshot).await } });
    }

    fn write_manifest(&mut self, checkpoint: CheckpointId, is_final: bool, swapped: &Swapped) {
        let current = self.current.as_mut().expect("a checkpoint is under way");
        let manifest = current.take_manifest(&self.plan, self.incarnation, is_final, swapped);
        let unique = (self.durable.random.next_u64(), self.durable.random.next_u64());
        let path = format!("{}/{}/{}-{:016x}{:016x}.manifest", self.plan.job, self.incarnation, checkpoint.0, unique.0, unique.1);
        let storage = self.storage.clone();
        self.spawn(checkpoint, async move {
            let written = files::write_manifest(storage.as_ref(), &path, &manifest).await;
            let written = written.map(|sha256| Written { at: Retained { checkpoint, manifest: path, manifest_sha256: sha256 }, manifest });
            Done::Written { result: written }
        });
    }

    fn commit(&mut self, checkpoint: CheckpointId, retained: &[CheckpointId]) {
        let written =
            self.current.as_ref().and_then(|current| current.manifest.as_ref()).expect("the manifest is written before the commit");
        let record = CommitRecord {
            incarnation: self.incarnation,
            checkpoint: Some(checkpoint),
            manifest: Some(written.at.manifest.clone()),
            manifest_sha256: Some(written.at.manifest_sha256.clone()),
            retained: self.committed(retained).map(|committed| committed.at.clone()).collect(),
            last_number: checkpoint.0,
            elsewhere: None,
        };
        let (log, job) = (self.durable.log.clone(), self.plan.job.clone());
        self.spawn(checkpoint, async move { Done::Committed { result: log.commit(&job, &record).await } });
    }

    fn publish(&mut self, checkpoint: CheckpointId) -> Order {
        let Written { manifest, at } =
            self.current.as_mut().and_then(|current| current.manifest.take()).expect("the manifest is written before the commit");
        self.known = Arc::new(KnownFiles::of(&manifest));
        self.committed.insert(checkpoint, Committed::new(at, &manifest));
        self.remove_local(checkpoint);
        Order::Committed(checkpoint)
    }

    fn collect(&mut self, checkpoint: CheckpointId, garbage: &[CheckpointId], kept: &[CheckpointId], sweeps: bool) {
        let collection = Collection {
            storage: self.durable.storage.clone(),
            job: self.plan.job.clone(),
            incarnation: self.incarnation,
            garbage: self.committed(garbage).cloned().collect(),
            kept: self.committed(kept).cloned().collect(),
            created: self.storage.take_created(),
            sweeps_at_ms: sweeps.then(|| self.clock.now_ms()),
        };
        let crash = self.durable.crash.clone();
        let dies = move || crash.as_ref().is_some_and(|crash| crash.reached(CrashPoint::Collect));
        // What is neither, was removed with an earlier commit.
        self.committed.retain(|checkpoint, _| garbage.contains(checkpoint) || kept.contains(checkpoint));
        let (storage, stopped) = (self.storage.clone(), self.ending.clone());
        let work = async move {
            let removed = collection.remove(&stopped, dies).await.unwrap_or_else(|error| {
                tracing::warn!(
                    error = causes(&error),
                    "what is no longer kept could not be removed; it is tried again with the next checkpoint"
                );
                Removed::NotAll
            });
            if removed == Removed::Died {
                return Done::Died;
            }
            let removed_all = removed == Removed::All;
            if !removed_all {
                storage.put_back(collection.created);
            }
            Done::Collected { removed_all }
        };
        // Never aborted: what was begun must have ended before anything is stored again.
        self.work.spawn(sent(self.done.clone(), checkpoint, work));
    }

    fn complete(&mut self, checkpoint: CheckpointId) {
        let Some(current) = self.current.take() else { return };
        let manifest = self.committed.get(&checkpoint).map(|committed| committed.at.manifest.clone());
        let report = current.report(manifest, CheckpointOutcome::Committed, self.clock.as_ref());
        remember(&self.history, report.clone());
        self.abortable.clear();
        self.last = Some(report.clone());
        answer_all(current.answers, &Ok(report));
        // Who holds it is told next.
        self.asked_held.extend(current.held_answers);
    }

    /// Hands the checkpoint that was just completed to whoever makes a savepoint of it.
    fn hold(&mut self, savepoint: SavepointNumber, checkpoint: CheckpointId) {
        let (whole, released) = oneshot::channel();
        let ending = self.ending.clone();
        let work = async move {
            let is_whole = tokio::select! {
                biased;
                released = released => released.is_ok(),
                // The next attempt holds nothing for it: a copy that is not whole by then may lack files, and says so.
                () = ending.cancelled() => false,
            };
            Done::Released { savepoint, is_whole }
        };
        self.work.spawn(sent(self.done.clone(), checkpoint, work));
        if let (Some(answer), Some(report)) = (self.asked_held.remove(&savepoint), self.last.clone()) {
            // Whoever asked may have gone; then it is released at once.
            let _ = answer.send(Ok(HeldCheckpoint { report, whole }));
        }
    }

    fn give_up(&mut self, checkpoint: CheckpointId, reason: String) -> Order {
        tracing::warn!(checkpoint = checkpoint.0, %reason, "a checkpoint was given up");
        self.abort();
        self.snapshots.clear();
        self.remove_local(checkpoint);
        if let Some(current) = self.current.take() {
            let outcome = CheckpointOutcome::GivenUp { reason: reason.clone() };
            remember(&self.history, current.report(None, outcome, self.clock.as_ref()));
            let error = CheckpointError::GivenUp { reason };
            refuse_held(current.held_answers, &error);
            answer_all(current.answers, &Err(error));
        }
        Order::GiveUp(checkpoint)
    }

    fn committed<'a>(&'a self, checkpoints: &'a [CheckpointId]) -> impl Iterator<Item = &'a Committed> {
        checkpoints.iter().filter_map(|checkpoint| self.committed.get(checkpoint))
    }

    /// Local files are only links and copies of what was uploaded, or will not be.
    fn remove_local(&mut self, checkpoint: CheckpointId) {
        let directory = self.durable.attempt_directory(self.incarnation).join("snapshots").join(checkpoint.0.to_string());
        let file_work = self.durable.file_work;
        self.work.spawn(async move {
            // What is left goes with the directory of the attempt.
            let _ = file_work.run(move || std::fs::remove_dir_all(directory)).await;
        });
    }

    /// Work that may be cut short at any point.
    fn spawn(&mut self, checkpoint: CheckpointId, work: impl Future<Output = Done> + Send + 'static) {
        // Results of earlier work are taken here, so that they do not pile up.
        while self.work.try_join_next().is_some() {}
        self.abortable.push(self.work.spawn(sent(self.done.clone(), checkpoint, work)));
    }

    fn abort(&mut self) {
        self.abortable.drain(..).for_each(|work| work.abort());
    }
}

async fn sent(done: mpsc::Sender<(CheckpointId, Done)>, checkpoint: CheckpointId, work: impl Future<Output = Done>) {
    // Without a supervisor nobody needs to know.
    let _ = done.send((checkpoint, work.await)).await;
}

fn answer_all(waiting: impl IntoIterator<Item = Answer>, result: &Result<CheckpointReport, CheckpointError>) {
    for answer in waiting {
        // Whoever asked may have gone.
        let _ = answer.send(result.clone());
    }
}

fn refuse_held(waiting: impl IntoIterator<Item = (SavepointNumber, HeldAnswer)>, error: &CheckpointError) {
    for (_, answer) in waiting {
        // Whoever asked may have gone.
        let _ = answer.send(Err(error.clone()));
    }
}

/// Where a run can be made to die: before this is done.
fn crash_point(action: &Action) -> Option<CrashPoint> {
    match action {
        Action::InjectBarrier { .. } => Some(CrashPoint::Barrier),
        Action::Upload { .. } => Some(CrashPoint::Snapshot),
        Action::WriteManifest { .. } => Some(CrashPoint::Upload),
        Action::Commit { .. } => Some(CrashPoint::Manifest),
        Action::Publish { .. } => Some(CrashPoint::Record),
        Action::Complete { .. } => Some(CrashPoint::Publish),
        _ => None,
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

#[cfg(test)]
mod tests;
