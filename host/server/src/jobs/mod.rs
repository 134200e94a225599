//! Jobs of the service: what is asked of them is decided against the catalogue, written down there, and only then done.
//!
//! [`prepare`] has a version planned, [`runner`] has at most one run of it, [`observed`] says what it does; [`swap`] changes components of a run, [`tag_swap`]
//! those of all jobs that name a tag, [`trials`] tries them beside a run, [`savepoints`] keeps what it holds, [`meter`] measures what its tenant uses,
//! [`confined`] says what strangers may not name. Plans and runs are in the workshop of the tenant ([`workshops`]), never here. A change of a job: take its
//! turn → check the ETag → plan the new version → write it down → act. After a crash
//! [`Jobs::resume`] starts what should run, from its last checkpoint.
//!
//! ```text
//! DIR/jobs/<tenant>/<job>/   a job directory (crate::place)
//! ```

pub mod confined;
mod leaving;
pub mod meter;
pub mod observed;
pub mod prepare;
pub mod runner;
pub mod savepoints;
pub mod secrets;
pub mod swap;
pub mod tag_swap;
pub mod trials;
pub mod workshops;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    future::BoxFuture,
    stream::{self, StreamExt as _},
};
use millstream_engine::{clock::Clock, connector::Connectors};
use millstream_model::{
    ErrorKind,
    ids::{JobId, TenantId},
};
use serde_json::Value;
use tokio::time::timeout;

use self::{
    confined::Strangers,
    observed::Phase,
    prepare::{Asked, Prepared},
    runner::Runner,
    workshops::Workshops,
};
use crate::{
    catalogue::{
        Expected, Found, Kind, Revision, Store,
        objects::{Desired, Job, JobVersion, Origin, Savepoint, Start},
    },
    components::{self, Components},
    events::{Events, What},
    failure::Failure,
    logs::Logs,
    references::{Hidden, References},
    tenants::Tenants,
    workshop::Request,
};

/// How long a job has for its last checkpoint when the service ends.
const LAST_CHECKPOINT_MAX: Duration = Duration::from_secs(300);
/// Jobs that are started at once after the start of the process.
const STARTING_MAX: usize = 16;
/// How long a job waits that has to be started again because its runner ended.
const AGAIN_MS: i64 = 100;
/// Versions of a job that are kept.
const VERSIONS_MAX: usize = 100;

/// The jobs of the service.
pub struct Jobs {
    /// The catalogue.
    pub store: Store,
    /// Who shares the service.
    pub tenants: Arc<Tenants>,
    /// What was pushed.
    pub components: Arc<Components>,
    /// What job files may name.
    pub connectors: Arc<Connectors>,
    /// Whose jobs name nothing of this machine.
    pub strangers: Strangers,
    /// Where they run.
    pub workshops: Workshops,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What they say.
    pub logs: Logs,
    /// What is kept out of everything that is said.
    pub hidden: Hidden,
    /// Who wants to know what happens.
    pub events: Events,
    /// The jobs of this process.
    pub runners: Mutex<BTreeMap<(TenantId, String), Arc<Runner>>>,
    /// What is on trial in them.
    pub tried: trials::Tried,
    /// The service ends: nothing is started any more.
    pub is_closing: AtomicBool,
}

/// Who asks, and what they have read.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose job.
    pub tenant: TenantId,
    /// The id of the token.
    pub by: String,
    /// The job as they have read it; none: whatever it is.
    pub expected: Option<Revision>,
}

/// A new job.
#[derive(Clone, Debug, Default)]
pub struct Submission {
    /// The job file; empty: that of the savepoint.
    pub spec: String,
    /// Values that are replaced in it.
    pub replaced: BTreeMap<String, Value>,
    /// The savepoint that it starts from.
    pub start: Option<Start>,
    /// Do not start it yet.
    pub paused: bool,
}

impl Jobs {
    /// The directory of a job.
    pub fn directory_of(&self, tenant: &TenantId, job: &str) -> PathBuf {
        self.workshops.jobs_of(tenant).join(job)
    }

    /// Plans a version of a job as it runs: its sources and sinks keep what they have accepted in its directory.
    ///
    /// # Errors
    /// All mistakes at once.
    pub(super) async fn plan(self: &Arc<Self>, tenant: &TenantId, job: &str, asked: &Asked) -> Result<Prepared, Failure> {
        self.prepare(tenant, asked, Some(job)).await
    }

    /// What is kept out of everything that is said about a job.
    pub fn hidden_of(&self, tenant: &TenantId, job: &str) -> References {
        self.hidden.of(&prepare::hidden_key(tenant, job))
    }

    /// What runs a job; made when it is asked for first.
    pub fn runner(&self, tenant: &TenantId, job: &str) -> Arc<Runner> {
        let mut runners = self.runners.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant.clone(), job.to_owned());
        runners.entry(key).or_insert_with(|| Arc::new(Runner::new(tenant.clone(), JobId::from(job), self.clock.now_ms()))).clone()
    }

    /// One job of the catalogue.
    ///
    /// # Errors
    /// There is none.
    pub async fn job(&self, tenant: &TenantId, name: &str) -> Result<Found<Job>, Failure> {
        let found = self.store.get::<Job>(tenant, name).await?;
        found.ok_or_else(|| Failure::new(ErrorKind::NotFound, format!("there is no job `{name}`")).fix("`millstream jobs` lists them"))
    }

    /// Starts every job that should run, and forgets what deleted jobs left.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn resume(self: &Arc<Self>) -> Result<(), Failure> {
        let mut wanted = Vec::new();
        for tenant in self.store.tenants(Kind::Job).await? {
            for found in self.store.list::<Job>(&tenant, None, usize::MAX).await? {
                // It is known from here on, whether it runs or not.
                wanted.push(self.runner(&tenant, &found.name));
            }
        }
        self.go_on_with(wanted).await
    }

    /// Starts those of the jobs that should run, as after a start of the service.
    ///
    /// # Errors
    /// The catalogue does not answer.
    async fn go_on_with(self: &Arc<Self>, runners: Vec<Arc<Runner>>) -> Result<(), Failure> {
        let mut wanted = Vec::new();
        for runner in runners {
            let Some(found) = self.store.get::<Job>(&runner.tenant, runner.job.as_str()).await? else { continue };
            if found.object.desired == Desired::Running {
                wanted.push(runner);
            }
        }
        // Tasks of their own: planning is work for a core, and there are several.
        let starting = stream::iter(wanted).map(|runner| tokio::spawn(go_on(self.clone(), runner)));
        let mut started = starting.buffer_unordered(STARTING_MAX);
        while let Some(done) = started.next().await {
            if let Err(error) = done {
                tracing::error!(%error, "a job could not be started, by a fault of the service");
            }
        }
        Ok(())
    }

    /// Stops every run behind a last checkpoint; what is wanted of the jobs stays, so that the next process goes on.
    pub async fn suspend(self: &Arc<Self>) {
        self.is_closing.store(true, Ordering::Relaxed);
        let runners: Vec<_> = self.runners.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let stop = async |runner: Arc<Runner>| {
            // Whoever changes something waits for a checkpoint, too.
            let Ok(_turn) = timeout(LAST_CHECKPOINT_MAX, runner.turn.lock()).await else { return runner.cancel().await };
            if let Ok(found) = self.job(&runner.tenant, runner.job.as_str()).await
                && let Err(failure) = self.end_probation(&runner.tenant, found).await
            {
                tracing::warn!(job = %runner.job, "the end of a probation could not be written down: {failure}");
            }
            runner.stop_within(self, LAST_CHECKPOINT_MAX).await;
        };
        stream::iter(runners).for_each_concurrent(STARTING_MAX, stop).await;
    }

    /// Starts a job again whose runner ended while it was being started, as soon as who holds its turn gives it back.
    fn go_on_again(self: &Arc<Self>, tenant: &TenantId, job: &JobId) {
        let (jobs, runner) = (self.clone(), self.runner(tenant, job.as_str()));
        tokio::spawn(async move {
            jobs.clock.sleep(AGAIN_MS).await;
            go_on(jobs, runner).await;
        });
    }

    /// Starts a job if it should run, as the version that is to be trusted. The caller has the turn, and there is no run.
    async fn start_wanted(self: &Arc<Self>, runner: &Runner) -> Result<(), Failure> {
        // Somebody may have changed or deleted it meanwhile.
        let Some(found) = self.store.get::<Job>(&runner.tenant, runner.job.as_str()).await? else { return Ok(()) };
        if found.object.desired != Desired::Running {
            return Ok(());
        }
        let job = self.undo_probation(&runner.tenant, found).await?;
        runner.start(self, &job).await
    }

    /// Submits a job.
    ///
    /// # Errors
    /// The job file has mistakes, there is such a job, or the tenant has as many as it may have.
    pub async fn submit(self: &Arc<Self>, change: &Change, submission: Submission) -> Result<(String, Revision), Failure> {
        let (asked, start) = self.asked(&change.tenant, submission.clone()).await?;
        let name = self.name_in(&asked)?;
        components::check(&name, "job")?;
        self.check_new(&change.tenant, &name).await?;
        let prepared = self.plan(&change.tenant, &name, &asked).await?;
        prepared.check_outside().await?;
        let (runner, _turn) = self.hold(&change.tenant, &name).await;
        self.check_new(&change.tenant, &name).await?;
        let admitted = self.tenants.admit_job(&change.tenant).await?;
        self.clear(&change.tenant, &name)?;
        let version = JobVersion {
            number: 1,
            at_ms: self.clock.now_ms(),
            by: change.by.clone(),
            origin: Origin::Submitted,
            spec: asked.spec,
            replaced: asked.replaced,
            components: prepared.components.clone(),
            on_probation: false,
        };
        let desired = if submission.paused { Desired::Paused } else { Desired::Running };
        let job = Job { desired, created_ms: self.clock.now_ms(), versions: vec![version], start };
        // Both wait for the disk; together they wait once. A directory that cannot be made is met again where the job is started.
        let (_, put) = tokio::join!(
            async { if submission.paused { Ok(()) } else { runner.make_place(&prepared).await } },
            self.store.put(&change.tenant, &name, &job, Expected::Absent)
        );
        let revision = match put {
            Ok(revision) => revision,
            Err(error) => {
                self.clear(&change.tenant, &name)?;
                return Err(error.into());
            }
        };
        drop(admitted);
        if !submission.paused {
            // What fails now is what a run can fail of, and is seen where the job is looked at.
            drop(runner.start_planned(self, &job, prepared).await);
        }
        Ok((name, revision))
    }

    async fn check_new(&self, tenant: &TenantId, name: &str) -> Result<(), Failure> {
        if self.store.get::<Job>(tenant, name).await?.is_none() {
            return Ok(());
        }
        Err(Failure::new(ErrorKind::Conflict, format!("there is a job `{name}` already"))
            .fix(format!("give the job another name (`job:` in the job file), or replace it: PUT /v1/jobs/{name}")))
    }

    /// Waits for the turn of a job. A runner that was forgotten meanwhile, with its job, is nobody's: then that of the new one.
    async fn hold(&self, tenant: &TenantId, name: &str) -> (Arc<Runner>, tokio::sync::OwnedMutexGuard<()>) {
        loop {
            let runner = self.runner(tenant, name);
            let turn = runner.turn.clone().lock_owned().await;
            if Arc::ptr_eq(&runner, &self.runner(tenant, name)) {
                return (runner, turn);
            }
        }
    }

    /// What a submission asks for: with a savepoint and without a job file, the job file of that savepoint.
    ///
    /// # Errors
    /// There is no such savepoint.
    pub async fn asked(&self, tenant: &TenantId, submission: Submission) -> Result<(Asked, Option<Start>), Failure> {
        let Submission { spec, replaced, start, .. } = submission;
        let mut asked = Asked { spec, replaced: BTreeMap::new(), components: BTreeMap::new() };
        if let (Some(start), true) = (&start, asked.spec.trim().is_empty()) {
            let name = savepoints::entry(start.job.as_str(), &start.savepoint);
            let found = self.store.get::<Savepoint>(tenant, &name).await?;
            let found = found.ok_or_else(|| Failure::new(ErrorKind::NotFound, format!("there is no savepoint `{name}`")))?.object;
            asked = Asked { spec: found.spec, replaced: found.replaced, components: found.components };
        }
        asked.replaced.extend(replaced);
        Ok((asked, start))
    }

    /// Puts another job file in the place of the one before: the job stops behind a checkpoint and goes on from there.
    ///
    /// # Errors
    /// The job file has mistakes or is of another job, or the state has no place in it. The job runs on as it was.
    pub async fn replace(self: &Arc<Self>, change: &Change, name: &str, spec: String) -> Result<Revision, Failure> {
        let asked = Asked { spec, ..Asked::default() };
        let named = self.name_in(&asked)?;
        if named != name {
            return Err(Failure::new(ErrorKind::Invalid, format!("the job file is of job `{named}`, not `{name}`"))
                .fix(format!("write `job: {name}` in it, or submit it as a job of its own")));
        }
        self.restart_as(change, name, |_| Ok((asked.clone(), Origin::Replaced))).await
    }

    /// Changes the parallelism of a job: it stops behind a checkpoint and goes on from there.
    ///
    /// # Errors
    /// There is no such job, or it cannot be stopped.
    pub async fn scale(self: &Arc<Self>, change: &Change, name: &str, parallelism: NonZeroU32) -> Result<Revision, Failure> {
        let scaled = |job: &Job| {
            let mut asked = Asked::of(job.current());
            asked.replaced.insert("parallelism".to_owned(), Value::from(parallelism.get()));
            Ok((asked, Origin::Scaled))
        };
        self.restart_as(change, name, scaled).await
    }

    /// Plans another version, stops the job behind a checkpoint, and starts it as that version if it is to run.
    async fn restart_as(
        self: &Arc<Self>,
        change: &Change,
        name: &str,
        asked: impl FnOnce(&Job) -> Result<(Asked, Origin), Failure>,
    ) -> Result<Revision, Failure> {
        let runner = self.runner(&change.tenant, name);
        let _turn = self.turn(&runner)?;
        let found = self.expected(change, name).await?;
        let (asked, origin) = asked(&found.object)?;
        let prepared = self.plan(&change.tenant, name, &asked).await?;
        prepared.check_outside().await?;
        let found = self.end_probation(&change.tenant, found).await?;
        runner.stop(self).await?;
        let job = self.with_version(found.object.clone(), change, Asked { components: prepared.components.clone(), ..asked }, origin);
        let revision = self.store.put(&change.tenant, name, &job, Expected::At(found.revision)).await?;
        if job.desired != Desired::Running {
            return Ok(revision);
        }
        if let Err(failure) = runner.start_planned(self, &job, prepared).await {
            // Nothing of the new version has run: the one before goes on where it stopped.
            self.store.put(&change.tenant, name, &found.object, Expected::At(revision)).await?;
            runner.start(self, &found.object).await?;
            return Err(failure);
        }
        self.events.emit(&change.tenant, Some(name), What::Version { version: job.current().number });
        Ok(revision)
    }

    /// The job with one more version.
    fn with_version(&self, mut job: Job, change: &Change, asked: Asked, origin: Origin) -> Job {
        let Asked { spec, replaced, components } = asked;
        let number = job.current().number + 1;
        let (at_ms, by) = (self.clock.now_ms(), change.by.clone());
        job.versions.push(JobVersion { number, at_ms, by, origin, spec, replaced, components, on_probation: false });
        if job.versions.len() > VERSIONS_MAX {
            job.versions.remove(0);
        }
        job
    }

    /// Ends a job where it is, whatever it waits for and whoever waits for it; it would go on from its last checkpoint.
    ///
    /// # Errors
    /// There is no such job.
    pub async fn halt_at_once(self: &Arc<Self>, change: &Change, name: &str) -> Result<Revision, Failure> {
        self.expected(change, name).await?;
        // Who has the turn may wait for a checkpoint that never comes: that ends with the run.
        self.runner(&change.tenant, name).cancel().await;
        let (runner, _turn) = self.hold(&change.tenant, name).await;
        let found = self.expected(change, name).await?;
        runner.cancel().await;
        let found = self.end_probation(&change.tenant, found).await?;
        let job = Job { desired: Desired::Stopped, ..found.object };
        Ok(self.store.put(&change.tenant, name, &job, Expected::At(found.revision)).await?)
    }

    /// Pauses or stops a job behind a checkpoint.
    ///
    /// # Errors
    /// There is no such job, or no last checkpoint: it runs on.
    pub async fn halt(self: &Arc<Self>, change: &Change, name: &str, desired: Desired) -> Result<Revision, Failure> {
        let (runner, _turn) = self.hold(&change.tenant, name).await;
        let found = self.expected(change, name).await?;
        let found = self.end_probation(&change.tenant, found).await?;
        runner.stop(self).await?;
        let job = Job { desired, ..found.object };
        Ok(self.store.put(&change.tenant, name, &job, Expected::At(found.revision)).await?)
    }

    /// Has a job run again, from its last checkpoint.
    ///
    /// # Errors
    /// There is no such job, or it cannot start.
    pub async fn resume_one(self: &Arc<Self>, change: &Change, name: &str) -> Result<Revision, Failure> {
        let (runner, _turn) = self.hold(&change.tenant, name).await;
        let found = self.expected(change, name).await?;
        self.tenants.check_state(&change.tenant).await?;
        let job = Job { desired: Desired::Running, ..found.object };
        let revision = self.store.put(&change.tenant, name, &job, Expected::At(found.revision)).await?;
        if runner.running().is_none() {
            runner.start(self, &job).await?;
        }
        Ok(revision)
    }

    /// What a finished job has published to a sink: a page of rows, and where the next one begins. `sink` may be left out if only one can be read.
    ///
    /// # Errors
    /// It has not finished, has no such sink, or the sink cannot be read back.
    pub async fn results(
        self: &Arc<Self>,
        tenant: &TenantId,
        name: &str,
        sink: Option<String>,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<(Vec<Value>, Option<String>), Failure> {
        let found = self.job(tenant, name).await?;
        let observed = self.runner(tenant, name).observed();
        if observed.phase != Phase::Finished {
            let message = format!("job `{name}` has not finished: it is {}", observed.phase.name());
            return Err(Failure::new(ErrorKind::Conflict, message)
                .fix(format!("wait for its end; `millstream tail {name} OPERATOR` shows the rows of a running job")));
        }
        // Who looks needs what the version wrote, so it is planned as it was.
        let prepared = self.prepare(tenant, &Asked::of(found.object.current()), None).await?;
        prepared.answer(Request::Results { prepared: prepared.number, sink, cursor, limit }).await
    }

    /// Deletes a job that does not run, with everything that it keeps.
    ///
    /// # Errors
    /// It runs, or it has savepoints and nobody said that they may go, or another job is to start from one.
    pub async fn delete(self: &Arc<Self>, change: &Change, name: &str, with_savepoints: bool) -> Result<(), Failure> {
        let (runner, _turn) = self.hold(&change.tenant, name).await;
        let found = self.expected(change, name).await?;
        if runner.running().is_some() {
            return Err(
                Failure::new(ErrorKind::Conflict, format!("job `{name}` runs")).fix(format!("stop it first: millstream stop {name}"))
            );
        }
        let savepoints = self.savepoint_entries(&change.tenant, name).await?;
        if !savepoints.is_empty() && !with_savepoints {
            return Err(Failure::new(ErrorKind::Conflict, format!("job `{name}` still has savepoints: {}", savepoints.len()))
                .fix("delete them first, or say that they go with it: ?savepoints=delete"));
        }
        self.check_unneeded(&change.tenant, name, None).await?;
        self.store.remove::<Job>(&change.tenant, name, Expected::At(found.revision)).await?;
        for savepoint in savepoints {
            self.store.remove::<Savepoint>(&change.tenant, &savepoint.name, Expected::Any).await?;
        }
        self.forget_runner(&change.tenant, name);
        self.hidden.forget(&prepare::hidden_key(&change.tenant, name));
        // A workshop that is gone has forgotten it.
        if let Ok(workshop) = self.workshop(&change.tenant).await {
            drop(workshop.ask(Request::ForgetJob { job: name.to_owned() }).await);
        }
        self.clear(&change.tenant, name)
    }

    fn forget_runner(&self, tenant: &TenantId, name: &str) {
        self.runners.lock().unwrap_or_else(PoisonError::into_inner).remove(&(tenant.clone(), name.to_owned()));
    }

    /// What a deleted job of this name left: a new one must not go on from there.
    fn clear(&self, tenant: &TenantId, name: &str) -> Result<(), Failure> {
        match std::fs::remove_dir_all(self.directory_of(tenant, name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::new(ErrorKind::Unavailable, format!("the directory of job `{name}` cannot be removed")).because(&error))
            }
            _ => Ok(()),
        }
    }

    /// The job, as who asks has read it.
    pub(crate) async fn expected(&self, change: &Change, name: &str) -> Result<Found<Job>, Failure> {
        let found = self.job(&change.tenant, name).await?;
        match change.expected {
            Some(expected) if expected != found.revision => {
                Err(Failure::new(ErrorKind::Conflict, format!("job `{name}` has changed since it was read"))
                    .fix("read it again, and send its new ETag"))
            }
            _ => Ok(found),
        }
    }

    /// The turn of a job, for changes of which two at once make no sense.
    pub(crate) fn turn<'a>(&self, runner: &'a Runner) -> Result<tokio::sync::MutexGuard<'a, ()>, Failure> {
        runner.turn.try_lock().map_err(|_| {
            Failure::new(ErrorKind::Conflict, format!("another change of job `{}` is under way", runner.job))
                .fix("wait for it: millstream jobs shows what every job does")
        })
    }
}

/// Starts a job that should run, if it does not run yet. (Boxed: a start that fails may lead to another.)
fn go_on(jobs: Arc<Jobs>, runner: Arc<Runner>) -> BoxFuture<'static, ()> {
    Box::pin(started(jobs, runner))
}

async fn started(jobs: Arc<Jobs>, runner: Arc<Runner>) {
    let _turn = runner.turn.lock().await;
    if runner.running().is_some() || jobs.is_closing.load(Ordering::Relaxed) {
        return;
    }
    if let Err(failure) = jobs.start_wanted(&runner).await {
        tracing::error!(tenant = %runner.tenant, job = %runner.job, "the job cannot go on: {failure}");
    }
}
