//! One job: at most one run, which is started, watched and stopped here. What is wanted of the job is the catalogue's; this is what it does.
//!
//! Whoever changes something holds the runner's turn, so that two changes never overlap; who only looks takes [`Runner::running`].

use std::sync::{Arc, Mutex, PoisonError};

use millstream_engine::{
    graph::JobPlan,
    run::{self, CheckpointError, Durable, FileWork, JobHandle, JobOutcome, RunSettings, StartFrom, StateDirectory, Taps},
};
use millstream_model::{
    ErrorKind,
    ids::{JobId, TenantId},
};
use millstream_storage::{DirectoryLock, LocalCommitLog};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    Jobs,
    observed::{Observed, Phase},
    prepare::{Asked, Prepared},
};
use crate::{
    backups,
    catalogue::objects::{Job, JobVersion, Start},
    events::What,
    failure::Failure,
    kept::{self, Kept},
    place::{Owner, Place},
    references::{Hidden, References},
};

/// One job of the service.
pub struct Runner {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which it is.
    pub job: JobId,
    /// Held by who changes something.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// Where others look at its rows.
    pub taps: Arc<Taps>,
    observed: watch::Sender<Observed>,
    running: Mutex<Option<Running>>,
}

/// A run, as others see it.
#[derive(Clone)]
pub struct Running {
    /// Steers it.
    pub handle: JobHandle,
    /// What runs.
    pub plan: Arc<JobPlan>,
    hidden: Hidden,
    whose: String,
    _lock: Arc<DirectoryLock>,
}

impl Running {
    /// What is kept out of everything that is said of it.
    fn references(&self) -> References {
        self.hidden.of(&self.whose)
    }

    /// Why it cannot do now what needs a running attempt; none: it can, or will in a moment.
    pub async fn recovering(&self) -> Option<String> {
        let status = self.handle.status().await?;
        let has_failed = status.durable.as_ref().is_some_and(|durable| durable.recovering.is_some());
        let has_failed = has_failed && status.phase == run::Phase::Recovering;
        has_failed.then(|| run::why(&status))
    }

    /// It takes checkpoints: who asks for one would else wait for as long as the outside fails.
    ///
    /// # Errors
    /// It has failed and goes back to its last checkpoint.
    pub async fn must_take_checkpoints(&self) -> Result<(), Failure> {
        let Some(why) = self.recovering().await else { return Ok(()) };
        Err(Failure::new(ErrorKind::Unavailable, format!("the job takes no checkpoint now: {}", self.references().redact(&why)))
            .fix("see to the cause; or stop the job, and do it from its last checkpoint"))
    }
}

impl Runner {
    /// A job that does not run.
    pub fn new(tenant: TenantId, job: JobId, now_ms: i64) -> Self {
        let observed = Observed { phase: Phase::Stopped, since_ms: now_ms, problems: Vec::new() };
        Self { tenant, job, turn: Arc::default(), taps: Arc::default(), observed: watch::Sender::new(observed), running: Mutex::default() }
    }

    /// What it does.
    pub fn observed(&self) -> Observed {
        self.observed.borrow().clone()
    }

    /// Tells of every change of what it does.
    pub fn watch(&self) -> watch::Receiver<Observed> {
        self.observed.subscribe()
    }

    /// Its run; none: there is none.
    pub fn running(&self) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its run.
    ///
    /// # Errors
    /// There is none.
    pub fn must_run(&self) -> Result<Running, Failure> {
        self.running().ok_or_else(|| {
            let observed = self.observed();
            let failure = Failure::new(ErrorKind::Conflict, format!("job `{}` does not run: it is {}", self.job, observed.phase.name()));
            failure.fix(format!("millstream resume {}", self.job))
        })
    }

    pub(super) fn set(&self, jobs: &Jobs, phase: Phase, problems: Vec<crate::failure::Problem>) {
        let problem = problems.first().map(|problem| problem.message.clone());
        self.observed.send_replace(Observed { phase, since_ms: jobs.clock.now_ms(), problems });
        jobs.events.emit(&self.tenant, Some(self.job.as_str()), What::Phase { phase: phase.name().to_owned(), problem });
    }

    /// Starts the run of a job. The caller has the turn, and there is no run.
    ///
    /// # Errors
    /// It cannot be planned, or its directory is not as it should be: it has failed then.
    pub async fn start(self: &Arc<Self>, jobs: &Arc<Jobs>, job: &Job) -> Result<(), Failure> {
        self.set(jobs, Phase::Starting, Vec::new());
        let asked = Asked::of(job.current());
        let started = match jobs.plan(&self.tenant, self.job.as_str(), &asked).await {
            Ok(prepared) => self.begin(jobs, prepared, job.start.as_ref()).await,
            Err(failure) => Err(failure),
        };
        self.started(jobs, started)
    }

    /// Starts the run of a job whose current version was planned a moment ago. The caller has the turn, and there is no run.
    ///
    /// # Errors
    /// Its directory is not as it should be: it has failed then.
    pub async fn start_planned(self: &Arc<Self>, jobs: &Arc<Jobs>, job: &Job, prepared: Prepared) -> Result<(), Failure> {
        self.set(jobs, Phase::Starting, Vec::new());
        let started = self.begin(jobs, prepared, job.start.as_ref()).await;
        self.started(jobs, started)
    }

    /// Makes the directory of a job that is about to run.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) async fn make_place(&self, jobs: &Jobs, plan: &JobPlan) -> Result<(), Failure> {
        let (directory, owner) = (jobs.directory_of(&self.tenant, self.job.as_str()), Owner::of(plan));
        on_disk(move || Place::made(&directory)?.owned_by(&owner)).await
    }

    fn started(&self, jobs: &Jobs, started: Result<(), Failure>) -> Result<(), Failure> {
        started.inspect_err(|failure| self.set(jobs, Phase::Failed, failure.problems.clone()))
    }

    async fn begin(self: &Arc<Self>, jobs: &Arc<Jobs>, prepared: Prepared, from: Option<&Start>) -> Result<(), Failure> {
        let directory = jobs.directory_of(&self.tenant, self.job.as_str());
        let (place, lock) = on_disk(move || {
            let place = Place::made(&directory)?;
            let lock = DirectoryLock::acquire(place.path())?;
            Ok((place, lock))
        })
        .await?;
        // Before anything of it runs: whatever it says from now on, it does not say a secret.
        jobs.hidden.hide(&hidden_key(&self.tenant, self.job.as_str()), &prepared.references);
        let plan = Arc::new(prepared.plan);
        let owner = Owner::of(&plan);
        let start = self.start_from(jobs, &place, &owner, from).await?;
        self.check_places(&place, &owner, &plan, &start).await?;
        let storage = {
            let (place, owner) = (place.clone(), owner.clone());
            on_disk(move || place.owned_by(&owner).and_then(|()| place.storage(&owner))).await?
        };
        let durable = Durable {
            storage,
            log: Arc::new(LocalCommitLog::open(&place.commit_log())?),
            work: place.work(),
            random: jobs.random.clone(),
            start,
            file_work: FileWork::OnThreads,
            crash: jobs.crash.clone(),
        };
        let settings = RunSettings {
            runtime: jobs.data.clone(),
            state: Some(StateDirectory { path: place.work(), shared: jobs.rocks.clone() }),
            durable: Some(durable),
            taps: self.taps.clone(),
            ..RunSettings::new().with_clock(jobs.clock.clone())
        };
        let handle = run::start(plan.clone(), settings);
        let backing_up = plan.durability.backups.map(|backups| tokio::spawn(backups::keep(place, owner, handle.clone(), backups)));
        let whose = hidden_key(&self.tenant, self.job.as_str());
        let running = Running { handle: handle.clone(), plan, hidden: jobs.hidden.clone(), whose, _lock: Arc::new(lock) };
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        self.set(jobs, Phase::Running, Vec::new());
        tokio::spawn(watched(self.clone(), jobs.clone(), handle, backing_up));
        Ok(())
    }

    /// From its last checkpoint; from the savepoint that it was submitted with as long as there is none.
    async fn start_from(&self, jobs: &Jobs, place: &Place, owner: &Owner, from: Option<&Start>) -> Result<StartFrom, Failure> {
        let Some(from) = from else { return Ok(StartFrom::Latest) };
        if kept::record(place, owner).await?.is_some_and(|record| record.checkpoint.is_some()) {
            return Ok(StartFrom::Latest);
        }
        let location = jobs.directory_of(&self.tenant, from.job.as_str()).join("savepoints").join(&from.savepoint);
        Kept::savepoint(&location).await?;
        Ok(StartFrom::Savepoint {
            location: location.display().to_string(),
            allow_dropped: from.allow_dropped.clone(),
            renames: from.renames.clone(),
        })
    }

    /// Nothing that is kept would be lost in silence.
    async fn check_places(&self, place: &Place, owner: &Owner, plan: &JobPlan, start: &StartFrom) -> Result<(), Failure> {
        let (kept, renames, allow_dropped) = match start {
            StartFrom::Savepoint { location, allow_dropped, renames } => {
                (Some(Kept::savepoint(location.as_ref()).await?), renames.clone(), allow_dropped.clone())
            }
            StartFrom::Latest | StartFrom::Fresh => (Kept::last(place, owner).await?, Default::default(), Vec::new()),
        };
        let Some(kept) = kept else { return Ok(()) };
        run::check_places(plan, &kept.manifest, &renames, &allow_dropped).map_err(|error| {
            Failure::from_error(ErrorKind::Invalid, &error).fix(
                "give it its id back; or take a savepoint and submit the job from it, with `renames` or `allow-dropped` saying what became of it",
            )
        })
    }

    /// Stops the run behind a last checkpoint and waits for its end. The caller has the turn.
    ///
    /// # Errors
    /// There is no last checkpoint: it runs on.
    pub async fn stop(&self, jobs: &Jobs) -> Result<(), Failure> {
        let Some(running) = self.running() else { return Ok(()) };
        self.set(jobs, Phase::Stopping, Vec::new());
        if running.recovering().await.is_some() {
            // Nothing flows, so there is nothing to take a checkpoint of: the last one holds.
            drop(running);
            self.cancel().await;
            return Ok(());
        }
        match running.handle.stop().await {
            Ok(_) | Err(CheckpointError::Ended) => {}
            Err(error) => {
                self.set(jobs, Phase::Running, Vec::new());
                return Err(Failure::from_error(error.kind(), &error).fix("nothing was stopped; try again, or see why checkpoints fail"));
            }
        }
        drop(running);
        self.ended().await;
        Ok(())
    }

    /// Ends the run where it is: the checkpoint before holds. The caller has the turn.
    pub async fn cancel(&self) {
        if let Some(running) = self.running() {
            running.handle.cancel().await;
            drop(running);
            self.ended().await;
        }
    }

    async fn ended(&self) {
        let mut observed = self.observed.subscribe();
        // The runner outlives this call, and it is the sender.
        drop(observed.wait_for(|observed| !observed.phase.is_active()).await);
    }
}

/// File work, off the threads that answer.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.expect("file work does not panic")
}

impl Asked {
    /// What a version is made of.
    pub fn of(version: &JobVersion) -> Self {
        Self { spec: version.spec.clone(), replaced: version.replaced.clone(), components: version.components.clone() }
    }
}

/// Under which the references of a job are hidden.
pub(crate) fn hidden_key(tenant: &TenantId, job: &str) -> String {
    format!("{tenant}/{job}")
}

/// Waits for the end of a run and says what became of it.
async fn watched(runner: Arc<Runner>, jobs: Arc<Jobs>, handle: JobHandle, backing_up: Option<JoinHandle<()>>) {
    let outcome = handle.wait().await;
    if let Some(backing_up) = backing_up {
        backing_up.abort();
    }
    *runner.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    match &*outcome {
        JobOutcome::Finished(_) | JobOutcome::FinishedBefore { .. } => runner.set(&jobs, Phase::Finished, Vec::new()),
        JobOutcome::Stopped(_) | JobOutcome::Cancelled => runner.set(&jobs, Phase::Stopped, Vec::new()),
        JobOutcome::Failed(error) => {
            let place = error.operator.as_ref().map(|operator| format!(" in `{operator}`")).unwrap_or_default();
            let mut failure = Failure::new(error.kind(), format!("job `{}` failed{place}", runner.job));
            failure.problems[0].causes = error.causes.clone();
            failure.problems[0].path = error.operator.as_ref().map(ToString::to_string);
            let failure = jobs.hidden_of(&runner.tenant, runner.job.as_str()).redacted(failure);
            tracing::warn!(tenant = %runner.tenant, job = %runner.job, "{failure}");
            runner.set(&jobs, Phase::Failed, failure.problems);
        }
    }
}
