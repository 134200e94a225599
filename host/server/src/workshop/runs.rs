//! Runs of a workshop: started in a job directory under its lock, stopped behind a checkpoint, and what they keep.

use std::sync::{Arc, PoisonError};

use millstream_engine::run::{
    self, CheckpointError, Durable, FileWork, JobHandle, JobOutcome, JobStatus, RunSettings, StartFrom, StateDirectory,
};
use millstream_model::ErrorKind;
use millstream_storage::{DirectoryLock, LocalCommitLog};
use tokio::task::JoinHandle;

use super::{
    afresh::Told,
    inside::{Floor, Plan},
    message::Ended,
    secrets::Secrets,
};
use crate::{
    backups,
    catalogue::objects::Start,
    failure::Failure,
    jobs::{observed::Phase, prepare},
    kept::{self, Facts, Kept},
    place::{Owner, Place},
    references::References,
    savepoint,
};

/// One run.
#[derive(Clone)]
pub(super) struct Run {
    /// Its number.
    pub(super) number: u64,
    /// Steers it.
    pub(super) handle: JobHandle,
    /// What runs.
    pub(super) plan: Arc<millstream_engine::graph::JobPlan>,
    /// What settings of its components refer to.
    pub(super) secrets: Arc<Secrets>,
    /// Nobody else runs the job as long as this lives.
    _lock: Arc<DirectoryLock>,
}

impl Floor {
    /// The run of a job; none: there is none.
    pub(super) fn run(&self, job: &str) -> Option<Run> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).get(job).cloned()
    }

    /// The run of a job.
    pub(super) fn must_run(&self, job: &str) -> Result<Run, Failure> {
        self.run(job)
            .ok_or_else(|| Failure::new(ErrorKind::Conflict, format!("job `{job}` does not run")).fix(format!("millstream resume {job}")))
    }

    pub(super) async fn make_place(&self, job: &str, prepared: u64) -> Result<(), Failure> {
        let (directory, owner) = (self.directory.join(job), Owner::of(&self.prepared(prepared)?.plan));
        on_disk(move || Place::made(&directory)?.owned_by(&owner)).await
    }

    pub(super) async fn start(self: &Arc<Self>, job: String, number: u64, prepared: u64, from: Option<&Start>) -> Result<(), Failure> {
        let directory = self.directory.join(&job);
        let (place, lock) = on_disk(move || {
            let place = Place::made(&directory)?;
            let lock = DirectoryLock::acquire(place.path())?;
            Ok((place, lock))
        })
        .await?;
        let planned = self.prepared(prepared)?;
        self.forget(prepared);
        // Before anything of it runs: whatever it says from now on, it does not say a secret.
        self.means.hidden.hide(&prepare::hidden_key(&self.tenant, &job), &planned.references);
        let Plan { plan, secrets, .. } = &*planned;
        let afresh = Told::new(self, &job, &planned);
        let (plan, secrets, owner) = (plan.clone(), secrets.clone(), Owner::of(plan));
        let start = self.start_from(&place, &owner, from).await?;
        check_places(&place, &owner, &plan, &start).await?;
        let storage = {
            let (place, owner) = (place.clone(), owner.clone());
            on_disk(move || place.owned_by(&owner).and_then(|()| place.storage(&owner))).await?
        };
        let durable = Durable {
            storage,
            log: Arc::new(LocalCommitLog::open(&place.commit_log())?),
            work: place.work(),
            random: self.means.random.clone(),
            start,
            file_work: FileWork::OnThreads,
            crash: self.means.crash.clone(),
        };
        let settings = RunSettings {
            runtime: self.means.data.clone(),
            state: Some(StateDirectory { path: place.work(), shared: self.means.rocks.clone() }),
            durable: Some(durable),
            taps: self.tails.taps(&job),
            afresh: Some(Arc::new(afresh)),
            ..RunSettings::new().with_clock(self.means.clock.clone())
        };
        let handle = run::start(plan.clone(), settings);
        let backing_up = plan.durability.backups.map(|backups| tokio::spawn(backups::keep(place, owner, handle.clone(), backups)));
        let run = Run { number, handle, plan, secrets, _lock: Arc::new(lock) };
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).insert(job.clone(), run.clone());
        self.tell_changed(&run);
        tokio::spawn(self.clone().watched(job, run, backing_up));
        Ok(())
    }

    /// From its last checkpoint; from the savepoint that it was submitted with as long as there is none.
    async fn start_from(&self, place: &Place, owner: &Owner, from: Option<&Start>) -> Result<StartFrom, Failure> {
        let Some(from) = from else { return Ok(StartFrom::Latest) };
        if kept::record(place, owner).await?.is_some_and(|record| record.checkpoint.is_some()) {
            return Ok(StartFrom::Latest);
        }
        let location = self.directory.join(from.job.as_str()).join("savepoints").join(&from.savepoint);
        Kept::savepoint(&location).await?;
        Ok(StartFrom::Savepoint {
            location: location.display().to_string(),
            allow_dropped: from.allow_dropped.clone(),
            renames: from.renames.clone(),
        })
    }

    /// Waits for the end of a run and says what became of it.
    async fn watched(self: Arc<Self>, job: String, run: Run, backing_up: Option<JoinHandle<()>>) {
        let Run { number, handle, .. } = run.clone();
        // The lock goes with the run that is listed.
        drop(run);
        let outcome = handle.wait().await;
        if let Some(backing_up) = backing_up {
            backing_up.abort();
        }
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
        let references = self.means.hidden.of(&prepare::hidden_key(&self.tenant, &job));
        let (phase, problems) = ended(&job, &outcome, &references);
        self.has_ended(Ended { job, run: number, phase, problems });
    }

    pub(super) async fn stop(&self, job: &str) -> Result<(), Failure> {
        let Some(run) = self.run(job) else { return Ok(()) };
        if recovers(&run.handle).await {
            // Nothing flows, so there is nothing to take a checkpoint of: the last one holds.
            run.handle.cancel().await;
            return Ok(());
        }
        match run.handle.stop().await {
            Ok(_) | Err(CheckpointError::Ended) => Ok(()),
            Err(error) => Err(Failure::from_error(error.kind(), &error).fix("nothing was stopped; try again, or see why checkpoints fail")),
        }
    }

    pub(super) async fn cancel(&self, job: &str) {
        if let Some(run) = self.run(job) {
            run.handle.cancel().await;
        }
    }

    pub(super) async fn status(&self, job: &str) -> Option<JobStatus> {
        self.run(job)?.handle.status().await
    }

    pub(super) async fn checkpoint(&self, job: &str) -> Result<(), Failure> {
        let taken = self.must_run(job)?.handle.checkpoint().await;
        taken.map(drop).map_err(|error| Failure::from_error(error.kind(), &error))
    }

    pub(super) async fn take_savepoint(&self, job: &str, name: &str) -> Result<Facts, Failure> {
        let (place, owner) = Place::existing(&self.directory.join(job))?;
        if place.savepoints().join(name).exists() {
            return Err(
                Failure::new(ErrorKind::Conflict, format!("job `{job}` has a savepoint `{name}` already")).fix("choose another name")
            );
        }
        match self.run(job) {
            None => savepoint::made(&place, &owner, name).await,
            Some(run) => savepoint::of_running(&place, &owner, &run.handle, name).await,
        }
    }

    pub(super) async fn savepoints(&self, job: &str) -> Result<Vec<(String, Facts)>, Failure> {
        let directory = self.directory.join(job);
        if !directory.join("job.json").exists() {
            return Ok(Vec::new());
        }
        let (place, _) = Place::existing(&directory)?;
        let mut found = Vec::new();
        for name in savepoint::names(&place)? {
            let facts = Kept::savepoint(&place.savepoints().join(&name)).await?.facts();
            found.push((name, facts));
        }
        Ok(found)
    }

    pub(super) async fn savepoint(&self, job: &str, name: &str) -> Result<Facts, Failure> {
        let directory = self.directory.join(job);
        if !directory.join("savepoints").join(name).join("manifest").is_file() {
            return Err(Failure::new(ErrorKind::NotFound, format!("job `{job}` has no savepoint `{name}`")));
        }
        let (place, _) = Place::existing(&directory)?;
        Ok(Kept::savepoint(&place.savepoints().join(name)).await?.facts())
    }

    pub(super) fn delete_savepoint(&self, job: &str, name: &str) -> Result<(), Failure> {
        let (place, _) = Place::existing(&self.directory.join(job))?;
        savepoint::remove(&place, name)
    }

    pub(super) fn has_begun(&self, job: &str) -> bool {
        Place::existing(&self.directory.join(job)).is_ok_and(|(place, _)| place.commit_log().exists())
    }
}

async fn recovers(handle: &JobHandle) -> bool {
    let Some(status) = handle.status().await else { return false };
    status.phase == run::Phase::Recovering && status.durable.is_some_and(|durable| durable.recovering.is_some())
}

/// Nothing that is kept would be lost in silence.
async fn check_places(place: &Place, owner: &Owner, plan: &millstream_engine::graph::JobPlan, start: &StartFrom) -> Result<(), Failure> {
    let (kept, renames, allow_dropped) = match start {
        StartFrom::Savepoint { location, allow_dropped, renames } => {
            (Some(Kept::savepoint(location.as_ref()).await?), renames.clone(), allow_dropped.clone())
        }
        StartFrom::Latest | StartFrom::Fresh => (Kept::last(place, owner).await?, Default::default(), Vec::new()),
    };
    let Some(kept) = kept else { return Ok(()) };
    run::check_places(plan, &kept.manifest, &renames, &allow_dropped).map_err(|error| {
        Failure::from_error(ErrorKind::Invalid, &error)
            .fix("give it its id back; or take a savepoint and submit the job from it, with `renames` or `allow-dropped` saying what became of it")
    })
}

/// What a job is after a run, and why.
fn ended(job: &str, outcome: &JobOutcome, references: &References) -> (Phase, Vec<crate::failure::Problem>) {
    match outcome {
        JobOutcome::Finished(_) | JobOutcome::FinishedBefore { .. } => (Phase::Finished, Vec::new()),
        JobOutcome::Stopped(_) | JobOutcome::Cancelled => (Phase::Stopped, Vec::new()),
        JobOutcome::Failed(error) => {
            let place = error.operator.as_ref().map(|operator| format!(" in `{operator}`")).unwrap_or_default();
            let mut failure = Failure::new(error.kind(), format!("job `{job}` failed{place}"));
            failure.problems[0].causes = error.causes.clone();
            failure.problems[0].path = error.operator.as_ref().map(ToString::to_string);
            (Phase::Failed, references.redacted(failure).problems)
        }
    }
}

/// File work, off the threads that answer.
pub(super) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.expect("file work does not panic")
}
