//! The lives of one job: processes that begin, go on from what is durable and die, until one of them may finish in peace.

use std::sync::Arc;

use futures::FutureExt;
use millstream_engine::{
    checkpoint::files,
    run::{CheckpointError, Durable, FileWork, HeldCheckpoint, JobHandle, JobOutcome, RunSettings, StartFrom, start},
};
use millstream_model::ids::JobId;
use millstream_storage::{
    CheckpointStorage, CommitLog, CommitRecord, MemoryCheckpointStorage, MemoryCommitLog, Retained,
    faults::{Chances, Faults, FaultyStorage, Random},
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::oneshot, task::yield_now};

use crate::{
    clock::{TEN_YEARS_MS, WallClock},
    jobs::{Job, Kind, Shape},
    storage::{Gated, GatedLog},
    world::{Row, Troubles, World, lock},
};

/// Lives with trouble, at most; then one without, whose checkpoints may be given up for their time; then one whose are not.
const TROUBLED_LIVES: u32 = 12;
/// A life that takes longer is stuck.
const ROUNDS_MAX: u32 = 400_000;

/// What came of a seed.
pub struct Told {
    pub trace: Vec<String>,
    pub lives: u32,
    pub crashes: u32,
    pub broken: Vec<String>,
}

/// How a process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Died,
    Stopped,
    Finished,
    FinishedBefore,
    Failed(String),
    Stuck(String),
}

pub struct Simulation {
    pub world: Arc<World>,
    job: Job,
    /// What really lies in the storage.
    stored: Arc<MemoryCheckpointStorage>,
    storage: Arc<dyn CheckpointStorage>,
    log: Arc<GatedLog>,
    pub faults: Arc<Faults>,
    /// For files of the running process; nothing in it needs to survive.
    work: TempDir,
    lives: u32,
    crashes: u32,
}

/// Runs the job of a seed to its end.
pub fn simulate(kind: Kind, seed: u64) -> Told {
    let mut random = Random::seeded(seed ^ 0x5eed);
    let world = World::new(seed, troubles(&mut random), wall_clock(&mut random));
    let job = Job::new(kind, &mut random);
    let mut simulation = Simulation::new(world, job, Faults::seeded(seed, chances(&mut random)));
    simulation.run();
    let Simulation { world, lives, crashes, .. } = simulation;
    Told { trace: world.trace(), lives, crashes, broken: world.broken() }
}

fn troubles(random: &mut Random) -> Troubles {
    let among = |random: &mut Random, values: &[u64]| values[random.below(values.len() as u64) as usize];
    Troubles {
        gates_max: among(random, &[40, 200, 600, 2_000]),
        pause_rounds: among(random, &[1, 3, 12]),
        failing: among(random, &[0, 2, 10]),
        log_failing: among(random, &[0, 30, 150]),
        crash_points: among(random, &[0, 10, 40]),
    }
}

fn wall_clock(random: &mut Random) -> WallClock {
    match random.below(8) {
        0 => WallClock::Frozen,
        1 => WallClock::TenTimes,
        2 => WallClock::Jumping,
        3 => WallClock::Wrong(-TEN_YEARS_MS),
        _ => WallClock::Right,
    }
}

fn chances(random: &mut Random) -> Chances {
    let rate = [0, 3, 15, 60][random.below(4) as usize];
    Chances { unavailable: rate, lost_answer: rate, stale_list: 4 * rate, truncated_read: rate, flipped_bit: rate }
}

impl Simulation {
    pub fn new(world: Arc<World>, job: Job, faults: Arc<Faults>) -> Self {
        let clock = world.clock.clone();
        let stored = Arc::new(MemoryCheckpointStorage::new(move || millstream_engine::clock::Clock::now_ms(clock.as_ref())));
        let faulty = Arc::new(FaultyStorage::new(stored.clone(), faults.clone()));
        Self {
            storage: Arc::new(Gated { world: world.clone(), storage: faulty }),
            log: Arc::new(GatedLog::new(world.clone(), faults.clone())),
            work: tempfile::tempdir().expect("a temporary directory"),
            world,
            job,
            stored,
            faults,
            lives: 0,
            crashes: 0,
        }
    }

    fn run(&mut self) {
        for life in 0..=TROUBLED_LIVES + 1 {
            let (is_calm, is_patient) = (life >= TROUBLED_LIVES, life > TROUBLED_LIVES);
            if is_calm {
                self.faults.repair();
            }
            self.world.begin(is_calm);
            let ended = self.live(is_patient);
            self.lives += 1;
            self.crashes += u32::from(ended == Ended::Died);
            self.world.note(|| format!("life {life} ended: {ended:?}"));
            self.check_durable();
            match ended {
                Ended::Finished | Ended::FinishedBefore => break,
                Ended::Stuck(_) => self.world.must(false, || format!("a process comes to an end: {ended:?}")),
                // All rows that an operator gives at once may take longer than a checkpoint may. That it ends, and says so, is what must be.
                Ended::Failed(ref reason) if is_calm && !is_patient && reason.contains("checkpoints in a row were given up") => {}
                Ended::Died | Ended::Stopped | Ended::Failed(_) => {
                    self.world.must(!is_calm, || format!("a process without trouble finishes the job: {ended:?}"));
                }
            }
            if !self.world.broken().is_empty() {
                return;
            }
        }
        self.check_results();
        self.check_that_it_is_over();
    }

    /// One process, from its beginning to its end or death. `is_patient`: no checkpoint of it is given up for its time.
    pub fn live(&self, is_patient: bool) -> Ended {
        let runtime = runtime();
        runtime.block_on(async {
            let shape = Shape::random(&self.world, is_patient);
            let plan = self.job.plan(&self.world, shape).await;
            self.world.note(|| format!("{shape:?}"));
            let settings = RunSettings { clock: self.world.clock.clone(), durable: Some(self.durable()), ..RunSettings::new() };
            let handle = start(plan, settings);
            self.watch(&handle).await
        })
        // What was running is dropped with the runtime, at whatever point it was.
    }

    fn durable(&self) -> Durable {
        Durable {
            storage: self.storage.clone(),
            log: self.log.clone(),
            work: self.work.path().join("work"),
            random: self.world.clone(),
            start: StartFrom::Latest,
            file_work: FileWork::Inline,
            crash: Some(self.world.clone()),
        }
    }

    /// Lets time pass and asks for things until the process ends.
    async fn watch(&self, handle: &JobHandle) -> Ended {
        let mut held = None;
        let mut ended = Box::pin(handle.wait());
        for _ in 0..ROUNDS_MAX {
            if self.world.is_dead() {
                return Ended::Died;
            }
            if let Some(outcome) = ended.as_mut().now_or_never() {
                return match outcome.as_ref() {
                    JobOutcome::Finished(_) => Ended::Finished,
                    JobOutcome::FinishedBefore { .. } => Ended::FinishedBefore,
                    JobOutcome::Stopped(_) => Ended::Stopped,
                    JobOutcome::Failed(error) => Ended::Failed(error.to_string()),
                    // Only a crash point cancels.
                    JobOutcome::Cancelled => Ended::Died,
                };
            }
            self.ask(handle, &mut held).await;
            yield_now().await;
            self.world.clock.advance(self.world.below(3) as i64);
        }
        Ended::Stuck(format!("{:?}", handle.status().await.map(|status| (status.phase, status.durable))))
    }

    /// Sometimes somebody wants a checkpoint, holds one for a savepoint, or stops the job.
    async fn ask(&self, handle: &JobHandle, held: &mut Option<Held>) {
        if self.world.happens(2) {
            let handle = handle.clone();
            tokio::spawn(async move { handle.checkpoint().await });
        }
        if held.is_none() && self.world.happens(3) {
            let (handle, stops) = (handle.clone(), self.world.happens(100));
            let (send, answer) = oneshot::channel();
            let asking = async move {
                let held = if stops { handle.hold_checkpoint_and_stop().await } else { handle.hold_checkpoint().await };
                // The simulation may have ended.
                let _ = send.send(held);
            };
            tokio::spawn(asking);
            *held = Some(Held::Asked(answer));
        }
        *held = match held.take() {
            Some(Held::Asked(mut answer)) => match answer.try_recv() {
                Ok(Ok(checkpoint)) => Some(Held::Copying(checkpoint)),
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => None,
                Err(oneshot::error::TryRecvError::Empty) => Some(Held::Asked(answer)),
            },
            Some(Held::Copying(checkpoint)) if self.world.below(20) == 0 => {
                self.check_held(&checkpoint).await;
                checkpoint.release();
                None
            }
            other => other,
        };
    }

    /// Nothing of a held checkpoint is removed as long as its attempt goes on.
    async fn check_held(&self, held: &HeldCheckpoint) {
        let path = held.report().manifest.clone().expect("a held checkpoint is committed");
        let findings = self.findings(&path, None).await;
        self.world.must(findings.is_empty() || !held.is_held(), || format!("a held checkpoint stays whole: {findings:?}"));
    }

    /// Whatever happened: the checkpoint that was decided is whole, and so are the others that are kept.
    pub fn check_durable(&self) {
        let record = runtime().block_on(self.record());
        let Some(record) = record else { return };
        let mut kept = record.retained.clone();
        kept.extend(record.committed());
        for Retained { manifest, manifest_sha256, .. } in kept {
            let findings = runtime().block_on(self.findings(&manifest, Some(&manifest_sha256)));
            self.world.must(findings.is_empty(), || format!("what is kept is whole: {manifest}: {findings:?}"));
        }
    }

    async fn findings(&self, manifest: &str, sha256: Option<&str>) -> Vec<String> {
        let storage = self.stored.as_ref();
        match files::read_manifest(storage, manifest, sha256).await {
            Ok(manifest) => {
                let findings = files::verify(storage, &files::files_prefix(&job()), &manifest).await;
                findings.into_iter().map(|finding| finding.error.to_string()).collect()
            }
            Err(error) => vec![error.to_string()],
        }
    }

    async fn record(&self) -> Option<CommitRecord> {
        let log: &MemoryCommitLog = &self.log.disk;
        log.read(&job()).await.expect("the commit log is readable whatever happened")
    }

    fn published(&self, sink: &str) -> Vec<Row> {
        let shelves = lock(&self.world.shelves);
        shelves.get(sink).map(|shelf| shelf.published.values().flatten().cloned().collect()).unwrap_or_default()
    }

    pub fn check_results(&self) {
        for sink in self.job.sinks() {
            let checked = self.job.check(&sink, &self.published(&sink));
            self.world.must(checked.is_ok(), || checked.expect_err("it failed"));
            let staged = lock(&self.world.shelves).get(&sink).map_or(0, |shelf| shelf.staged.len());
            self.world.must(staged == 0, || format!("nothing is left of {sink} that is staged"));
        }
    }

    /// A job that has finished says so, and changes nothing.
    fn check_that_it_is_over(&self) {
        self.faults.repair();
        self.world.begin(true);
        let ended = self.live(true);
        self.world.must(ended == Ended::FinishedBefore, || format!("a finished job is over: {ended:?}"));
        self.check_results();
    }
}

/// Where somebody is who wants to make a savepoint.
enum Held {
    Asked(oneshot::Receiver<Result<HeldCheckpoint, CheckpointError>>),
    Copying(HeldCheckpoint),
}

fn job() -> JobId {
    JobId::from("test")
}

/// One thread, and neither its clock nor its sockets: nothing but the simulation wakes a task.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}
