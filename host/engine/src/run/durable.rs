//! A durable run: attempts, each going on from the last committed checkpoint, until the job ends or it makes no sense to try again.
//!
//! An attempt: claim the commit log, which fences every earlier attempt (R3) → read the record, its manifest, and the files → match them with the
//! plan → sinks publish what was committed and remove what was not → build → run, taking checkpoints ([`super::checkpointing`]). It fails:
//! everything in memory is forgotten, and after a wait the next one begins. A failure of the job's own logic or data ends the job.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use millstream_model::ErrorKind;
use millstream_storage::{CheckpointStorage, Claim, CommitLog, CommitRecord};
use tokio::sync::watch;

use super::{
    RunSettings,
    build::{Attempt, BuildError, board},
    checkpointing::{Found, History},
    commands::Commands,
    decision::Decision as CommitDecision,
    handle::{CheckpointError, Command, DurableStatus, JobError, JobOutcome, Phase, Recovery},
    job::{self, DurableAttempt, job_error, lock},
    restore::{Mapping, Origin, RestoredJob, check_state, match_nodes},
    status::View,
    versions::{self, Plans, Running, Versions},
    widening::planned_afresh,
};
use crate::{
    checkpoint::{
        files::{self, FileWork},
        manifest::Manifest,
        restart::{self, Decision, Restarts},
    },
    clock::Random,
    graph::{JobPlan, NodeKind},
    operator::{Fault, OperatorError},
};

/// What makes a run durable.
#[derive(Clone)]
pub struct Durable {
    /// Where checkpoints go.
    pub storage: Arc<dyn CheckpointStorage>,
    /// What decides which checkpoint holds.
    pub log: Arc<dyn CommitLog>,
    /// A directory for what belongs to one attempt (state in use, snapshots before they are uploaded); emptied at every attempt.
    pub work: PathBuf,
    /// Makes names of manifests unique, and spreads waits.
    pub random: Arc<dyn Random>,
    /// What the run goes on from.
    pub start: StartFrom,
    /// Where file work runs. Default of a host: [`FileWork::OnThreads`].
    pub file_work: FileWork,
    /// For tests: where to die; none: nowhere.
    pub crash: Option<Arc<dyn CrashPoints>>,
}

/// What a durable run goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// The last committed checkpoint; fresh if the job never committed one.
    #[default]
    Latest,
    /// Nothing: what was committed is forgotten.
    Fresh,
    /// A savepoint, or any directory of a manifest `manifest` with its files below `files`.
    Savepoint {
        /// Its location, as [`millstream_storage::open`] takes it.
        location: String,
        /// What may be forgotten: an operator's id, or `<id>.<state or timer>`.
        allow_dropped: Vec<String>,
        /// Id in the savepoint → id in the job file.
        renames: BTreeMap<String, String>,
    },
}

/// A place of the protocol at which a run can be made to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// Before the barriers of a checkpoint are sent.
    Barrier,
    /// A subtask's snapshot is complete in local files.
    Snapshot,
    /// Everything is uploaded; the manifest is not written.
    Upload,
    /// The manifest is written; nothing is decided.
    Manifest,
    /// The transaction of the sinks is committed; the run's own log has not heard of it. Jobs without one never come here.
    Decided,
    /// The record is committed; nothing is published.
    Record,
    /// Files that are no longer kept are removed, their manifests are not.
    Collect,
    /// Everything is published.
    Publish,
}

impl CrashPoint {
    /// Its name in `MILLSTREAM_CRASH_AT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Barrier => "barrier",
            Self::Snapshot => "snapshot",
            Self::Upload => "upload",
            Self::Manifest => "manifest",
            Self::Decided => "decided",
            Self::Record => "record",
            Self::Collect => "collect",
            Self::Publish => "publish",
        }
    }
}

/// Decides where a run dies.
pub trait CrashPoints: Send + Sync {
    /// The run is at `point`. True: it stops here as if its process had died; or this does not return.
    fn reached(&self, point: CrashPoint) -> bool;
}

impl Durable {
    /// What belongs to one attempt.
    pub(super) fn attempt_directory(&self, incarnation: u64) -> PathBuf {
        self.work.join(incarnation.to_string())
    }
}

/// Why a plan cannot go on from a checkpoint or savepoint.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    /// Something has no place, and nobody allowed it to be forgotten.
    #[error("the job has no place for something that is kept")]
    NoPlace(#[source] OperatorError),
    /// An operator has a place, but cannot read the state that is kept for it.
    #[error("a version of an operator cannot read the state that is kept for it")]
    Unreadable(#[source] OperatorError),
}

impl Misfit {
    /// What is wrong, with its causes.
    pub fn error(&self) -> &OperatorError {
        match self {
            Self::NoPlace(error) | Self::Unreadable(error) => error,
        }
    }

    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        self.error().kind()
    }
}

/// Whether `plan` has a place for everything that a checkpoint or savepoint holds, and reads it: what a run that starts from it will find as well,
/// said before it begins. `renames` and `allow_dropped` as in [`StartFrom::Savepoint`]. Only a migration can still fail.
///
/// # Errors
/// It has not, or does not.
pub fn check_places(
    plan: &JobPlan,
    manifest: &Manifest,
    renames: &BTreeMap<String, String>,
    allow_dropped: &[String],
) -> Result<(), Misfit> {
    let allow_dropped = allow_dropped.iter().cloned().collect();
    let mapping = Mapping { renames: renames.clone(), allow_dropped, is_fork: false };
    let matched = match_nodes(plan, manifest, &mapping).map_err(Misfit::NoPlace)?;
    check_state(plan, &matched, &mapping).map_err(Misfit::Unreadable)
}

/// Runs a job to its end, says how it ended, and goes on answering until all handles are gone.
pub(super) async fn supervise(
    plan: Arc<JobPlan>,
    settings: RunSettings,
    durable: Durable,
    mut commands: Commands,
    outcome: watch::Sender<Option<Arc<JobOutcome>>>,
) {
    let decision = match CommitDecision::of(&plan, &settings, &durable) {
        Ok(decision) => Arc::new(decision),
        Err((operator, error)) => {
            outcome.send_replace(Some(Arc::new(JobOutcome::Failed(job_error(Some(operator), None, &error)))));
            return;
        }
    };
    let mut run = Run {
        board: board(&plan),
        plan,
        settings,
        own_log: durable.log.clone(),
        durable: Durable { log: decision.clone(), ..durable },
        decision,
        history: Arc::default(),
        restarts: 0,
        incarnation: 0,
        has_claimed: AtomicBool::new(false),
        running: Running::default(),
        recovering: None,
    };
    let ended = run.attempts(&mut commands).await;
    run.decision.end().await;
    outcome.send_replace(Some(Arc::new(ended)));
    while let Some(command) = commands.next().await {
        // What is left without an answer makes the handle say that the job has ended.
        drop(run.answer(command, Phase::Ended));
    }
}

struct Run {
    plan: Arc<JobPlan>,
    settings: RunSettings,
    durable: Durable,
    /// [`Durable::log`].
    decision: Arc<CommitDecision>,
    /// The log of the job directory, which `decision` writes to.
    own_log: Arc<dyn CommitLog>,
    board: super::build::Board,
    history: History,
    restarts: u32,
    incarnation: u64,
    /// This run has made the commit log its own.
    has_claimed: AtomicBool,
    running: Running,
    /// The failure that the next attempt comes after.
    recovering: Option<Recovery>,
}

/// What an attempt goes on from.
struct Prepared {
    /// The job with the versions that were swapped in.
    plan: Arc<JobPlan>,
    versions: Versions,
    restored: RestoredJob,
    record: CommitRecord,
    /// The manifest that the job's own record names.
    known: Option<Manifest>,
    directory: PathBuf,
}

/// The job as it is planned now that its settings refer to something else.
struct PlannedAfresh {
    plan: Arc<JobPlan>,
    /// With the wider streams that a swap has asked for.
    widened: Option<Arc<JobPlan>>,
}

/// How an attempt that could not begin ends.
enum NotBegun {
    Failed(Option<millstream_model::ids::OperatorId>, OperatorError),
    FinishedBefore(Manifest),
}

impl From<BuildError> for NotBegun {
    fn from((operator, error): BuildError) -> Self {
        Self::Failed(Some(operator), error)
    }
}

impl From<OperatorError> for NotBegun {
    fn from(error: OperatorError) -> Self {
        Self::Failed(None, error)
    }
}

impl Run {
    async fn attempts(&mut self, commands: &mut Commands) -> JobOutcome {
        let mut restarts = Restarts::new(self.plan.durability.restart);
        loop {
            let began_ms = self.settings.clock.monotonic_ms();
            let committed = last_committed(&self.history);
            let outcome = self.attempt(commands).await;
            let JobOutcome::Failed(error) = outcome else { return outcome };
            if error.fault == Fault::User {
                return JobOutcome::Failed(error);
            }
            let ran_ms = self.settings.clock.monotonic_ms().saturating_sub(began_ms);
            let ran = Duration::from_millis(u64::try_from(ran_ms).unwrap_or(0));
            let has_committed = last_committed(&self.history) != committed;
            let (failures, wait) = match restarts.on_failure(restart::Attempt { ran, has_committed }, self.durable.random.next_u64()) {
                Decision::GiveUp { reason } => return JobOutcome::Failed(given_up(error, reason)),
                Decision::Again { failures, wait } => {
                    tracing::warn!(%error, attempt = failures, wait_ms = ms(wait), "the job goes back to its last checkpoint");
                    (failures, wait)
                }
            };
            self.restarts += 1;
            let next_ms = self.settings.clock.now_ms().saturating_add(ms(wait));
            let JobError { operator, causes, .. } = error;
            self.recovering = Some(Recovery { operator, causes, failures, next_ms });
            let clock = self.settings.clock.clone();
            if self.answering(clock.sleep(ms(wait)), commands).await.is_none() {
                return JobOutcome::Cancelled;
            }
        }
    }

    /// Waits for `work` and answers meanwhile; none: the job is to stop.
    async fn answering<T>(&self, work: impl Future<Output = T>, commands: &mut Commands) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut handles_gone = false;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                command = commands.next_new(), if !handles_gone => match command {
                    Some(Command::Cancel | Command::Drain) => return None,
                    // Nothing has happened since the last checkpoint, so there is none to take before the end.
                    Some(Command::Checkpoint { stops: true, answer }) => {
                        drop(answer.send(Err(CheckpointError::Ended)));
                        return None;
                    }
                    Some(command) => {
                        if let Some(command) = self.answer(command, Phase::Recovering) {
                            commands.defer(command);
                        }
                    }
                    None => handles_gone = true,
                },
            }
        }
    }

    /// Answers what can be answered while no attempt runs; what cannot.
    fn answer(&self, command: Command, phase: Phase) -> Option<Command> {
        match command {
            Command::Status(answer) => drop(answer.send(self.view().status(phase, Some(self.status())))),
            Command::Checkpoints(answer) => drop(answer.send(lock(&self.history).iter().cloned().collect())),
            other => return Some(other),
        }
        None
    }

    fn view(&self) -> View<'_> {
        View { plan: &self.plan, board: &self.board, running: &self.running, clock: self.settings.clock.as_ref() }
    }

    fn status(&self) -> DurableStatus {
        let status = status(&self.plan, self.incarnation, self.restarts, &self.history);
        DurableStatus { recovering: self.recovering.clone(), ..status }
    }

    async fn attempt(&mut self, commands: &mut Commands) -> JobOutcome {
        if self.restarts > 0 {
            let taken = match self.answering(self.planned_afresh(), commands).await {
                None => return JobOutcome::Cancelled,
                Some(None) => Ok(()),
                Some(Some(planned)) => self.go_on_as(planned).await,
            };
            if let Err((operator, error)) = taken {
                return JobOutcome::Failed(job_error(Some(operator), None, &error));
            }
        }
        self.board = board(&self.plan);
        let prepared = match self.answering(self.prepare(), commands).await {
            None => return JobOutcome::Cancelled,
            Some(Err(NotBegun::Failed(operator, error))) => return JobOutcome::Failed(job_error(operator, None, &error)),
            Some(Err(NotBegun::FinishedBefore(manifest))) => {
                return JobOutcome::FinishedBefore { checkpoint: manifest.checkpoint, at_ms: manifest.created_ms };
            }
            Some(Ok(prepared)) => prepared,
        };
        self.incarnation = prepared.record.incarnation;
        let checkpoints = Found {
            plan: prepared.plan.clone(),
            durable: self.durable.clone(),
            clock: self.settings.clock.clone(),
            record: prepared.record,
            known: prepared.known,
            history: self.history.clone(),
        };
        let part = self.decision.part();
        let attempt = Attempt {
            plan: &prepared.plan,
            settings: &self.settings,
            board: &self.board,
            restored: &prepared.restored,
            directory: Some(&prepared.directory),
            running: &self.running,
            transaction: part.as_ref(),
        };
        let (versions, history) = (prepared.versions, self.history.clone());
        let durable = DurableAttempt { checkpoints, versions, restarts: self.restarts, history };
        job::run(attempt, Some(durable), commands).await
    }

    /// The job as it is to go on; none: as it was. What cannot be planned goes on as it was, too: what has failed may have had another cause.
    async fn planned_afresh(&self) -> Option<PlannedAfresh> {
        let planner = self.settings.afresh.as_ref()?.changed().await?;
        let planned = async {
            let plan = Arc::new(planned_afresh(planner.as_ref(), &self.plan).await?);
            let widened = match self.running.widened() {
                Some(widened) => Some(Arc::new(planned_afresh(planner.as_ref(), &widened).await?)),
                None => None,
            };
            Ok(PlannedAfresh { plan, widened })
        };
        let warn = |reason: &String| tracing::warn!(reason, "the job goes on with what its settings referred to before");
        planned.await.inspect_err(warn).ok()
    }

    /// What was opened with the settings of before is given up.
    async fn go_on_as(&mut self, planned: PlannedAfresh) -> Result<(), BuildError> {
        let own = Durable { log: self.own_log.clone(), ..self.durable.clone() };
        let decision = Arc::new(CommitDecision::of(&planned.plan, &self.settings, &own)?);
        let before = std::mem::replace(&mut self.decision, decision.clone());
        before.end().await;
        self.durable.log = decision;
        self.plan = planned.plan;
        self.running.planned_afresh(planned.widened);
        tracing::info!("the settings of the job refer to something else by now: it goes on with that");
        Ok(())
    }

    async fn prepare(&self) -> Result<Prepared, NotBegun> {
        let (storage, job, file_work) = (self.durable.storage.as_ref(), &self.plan.job, self.durable.file_work);
        let seen_incarnation = incarnation_seen(storage, job.as_str()).await?;
        // What another start was asked for holds until this run has claimed the log; from then on what it commits itself counts.
        let is_fresh = !self.has_claimed.load(Ordering::Relaxed) && self.durable.start != StartFrom::Latest;
        let record = self.durable.log.claim(job, Claim { seen_incarnation, is_fresh }).await;
        let record = record.map_err(|error| storage_failed("claiming the commit log", error))?;
        self.has_claimed.store(true, Ordering::Relaxed);
        let directory = self.durable.attempt_directory(record.incarnation);
        empty(&self.durable.work, &directory)?;
        let known = match record.committed() {
            Some(committed) => Some(
                files::read_manifest(storage, &committed.manifest, Some(&committed.manifest_sha256))
                    .await
                    .map_err(|error| files_failed("reading the last checkpoint", error))?,
            ),
            None => None,
        };
        let (plan, versions) = self.versions(&record, is_fresh, known.as_ref()).await?;
        let into = directory.join("restore");
        let restored = match (&known, &self.durable.start) {
            (Some(manifest), _) => {
                let files_prefix = files::files_prefix(job);
                let from = Origin { storage, files_prefix: &files_prefix, file_work };
                restore(&plan, manifest, &Mapping::default(), from, &into).await?
            }
            (None, StartFrom::Savepoint { location, allow_dropped, renames }) => {
                let from = millstream_storage::open(location).map_err(|error| storage_failed("opening the savepoint", error))?;
                let manifest = files::read_manifest(from.as_ref(), "manifest", None).await;
                let manifest = manifest.map_err(|error| files_failed("reading the savepoint", error))?;
                let mapping = Mapping {
                    renames: renames.clone(),
                    allow_dropped: allow_dropped.iter().cloned().collect::<BTreeSet<_>>(),
                    is_fork: manifest.job != *job,
                };
                let from = Origin { storage: from.as_ref(), files_prefix: "files", file_work };
                restore(&plan, &manifest, &mapping, from, &into).await?
            }
            (None, StartFrom::Latest | StartFrom::Fresh) => RestoredJob::default(),
        };
        self.recover_sinks(&restored).await?;
        if let Some(manifest) = known.as_ref().filter(|manifest| manifest.is_finished) {
            return Err(NotBegun::FinishedBefore(manifest.clone()));
        }
        Ok(Prepared { plan, versions, restored, record, known, directory })
    }

    /// The job with the versions that were swapped in, and where the next ones are written down.
    async fn versions(
        &self,
        record: &CommitRecord,
        is_fresh: bool,
        known: Option<&Manifest>,
    ) -> Result<(Arc<JobPlan>, Versions), OperatorError> {
        let storage = &self.durable.storage;
        let written = if is_fresh { None } else { versions::read(storage.as_ref(), &self.plan.job).await? };
        let base = self.running.widened().unwrap_or_else(|| self.plan.clone());
        let swapped = match &written {
            Some(written) => versions::choose(&self.plan, &base, &self.running, storage.as_ref(), written, known).await?,
            None => Plans::new(),
        };
        let versions = Versions::new(storage.clone(), self.plan.clone(), record.incarnation, written);
        let recorded = versions.begin(&swapped).await;
        recorded.map_err(|reason| OperatorError::outside("writing down which versions run failed").because(reason))?;
        self.running.start(&base, swapped.clone(), self.settings.clock.now_ms());
        let plan = base.with_versions(&swapped);
        self.running.resume(&plan);
        Ok((Arc::new(plan), versions))
    }

    async fn recover_sinks(&self, restored: &RestoredJob) -> Result<(), NotBegun> {
        for (index, node) in self.plan.nodes.iter().enumerate() {
            if let NodeKind::Sink(sink) = &node.kind {
                sink.recover(&restored.staged(index)).await.map_err(|error| (node.id.clone(), error))?;
            }
        }
        Ok(())
    }
}

async fn restore(
    plan: &JobPlan,
    manifest: &Manifest,
    mapping: &Mapping,
    from: Origin<'_>,
    into: &std::path::Path,
) -> Result<RestoredJob, OperatorError> {
    let matched = match_nodes(plan, manifest, mapping)?;
    check_state(plan, &matched, mapping)?;
    let fetched = RestoredJob::fetch(matched, mapping, from, into).await;
    fetched.map_err(|error| files_failed("fetching what the checkpoint holds", error))
}

/// How a durable run stands.
pub(super) fn status(plan: &JobPlan, incarnation: u64, restarts: u32, history: &Mutex<VecDeque<super::CheckpointReport>>) -> DurableStatus {
    DurableStatus {
        guarantee: plan.durability.guarantee,
        attempt: incarnation,
        restarts,
        recovering: None,
        last_checkpoint: last_committed(history),
    }
}

fn last_committed(history: &Mutex<VecDeque<super::CheckpointReport>>) -> Option<super::CheckpointReport> {
    lock(history).iter().rev().find(|report| report.manifest.is_some()).cloned()
}

/// The highest incarnation that left a manifest: a commit log that knows of no such one has lost its record (R7).
async fn incarnation_seen(storage: &dyn CheckpointStorage, job: &str) -> Result<u64, OperatorError> {
    let objects = storage.list(job).await.map_err(|error| storage_failed("listing the checkpoints", error))?;
    let incarnation = |path: &str| path.strip_prefix(job)?.strip_prefix('/')?.split('/').next()?.parse().ok();
    Ok(objects.iter().filter_map(|object| incarnation(&object.path)).max().unwrap_or(0))
}

/// Removes what earlier attempts left, and makes the directory of this one.
fn empty(work: &std::path::Path, attempt: &std::path::Path) -> Result<(), OperatorError> {
    let failed = |error: std::io::Error| OperatorError::outside(format!("cannot use the directory {}", work.display())).because(error);
    if let Err(error) = std::fs::remove_dir_all(work)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        // Work of the attempt before that nobody waits for may still write there; every attempt has a directory of its own.
        tracing::debug!(%error, directory = %work.display(), "not all of the last attempt could be removed");
    }
    for directory in ["snapshots", "restore", "state"] {
        std::fs::create_dir_all(attempt.join(directory)).map_err(failed)?;
    }
    Ok(())
}

fn storage_failed(what: &str, error: millstream_storage::Error) -> OperatorError {
    by_kind(error.kind(), what).because(error)
}

fn files_failed(what: &str, error: files::Error) -> OperatorError {
    by_kind(error.kind(), what).because(error)
}

/// Only what may be over soon is tried again.
fn by_kind(kind: ErrorKind, what: &str) -> OperatorError {
    let message = format!("{what} failed");
    match kind {
        ErrorKind::Unavailable => OperatorError::outside(message),
        ErrorKind::Internal => OperatorError::internal(message),
        _ => OperatorError::user(message),
    }
}

fn given_up(error: JobError, reason: String) -> JobError {
    let mut causes = vec![reason];
    causes.extend(error.causes);
    JobError { causes, ..error }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
