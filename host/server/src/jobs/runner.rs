//! One job: at most one run, which is started, watched and stopped here; it runs in the workshop of its tenant. What is wanted of the job is the
//! catalogue's; this is what it does.
//!
//! Whoever changes something holds the runner's turn, so that two changes never overlap; who only looks takes [`Runner::running`].

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use millstream_engine::run::{self, JobStatus, SwapError, SwapId, SwapStatus, SwitchReport};
use millstream_model::{
    ErrorKind,
    ids::{JobId, TenantId},
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::timeout};

use super::{
    Jobs,
    observed::{Observed, Phase},
    prepare::{self, Asked, Prepared},
};
use crate::{
    catalogue::objects::{Job, JobVersion, Start},
    events::What,
    failure::{Failure, Problem},
    references::{Hidden, References},
    workshop::{self, Ended, Request, Workshop},
};

/// One job of the service.
pub struct Runner {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which it is.
    pub job: JobId,
    /// Held by who changes something.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    observed: watch::Sender<Observed>,
    run: watch::Sender<Option<Running>>,
    last: Mutex<u64>,
}

/// A run, as others see it.
#[derive(Clone)]
pub struct Running {
    /// Where it runs.
    pub workshop: Arc<dyn Workshop>,
    hidden: Hidden,
    whose: String,
    job: String,
    number: u64,
}

impl Running {
    /// What is kept out of everything that is said of it.
    fn references(&self) -> References {
        self.hidden.of(&self.whose)
    }

    /// What it does; none: it has ended, or its workshop does not say.
    pub async fn status(&self) -> Option<JobStatus> {
        self.workshop.answer(Request::Status { job: self.job.clone() }).await.ok().flatten()
    }

    /// Why it cannot do now what needs a running attempt; none: it can, or will in a moment.
    pub async fn recovering(&self) -> Option<String> {
        let status = self.status().await?;
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

    /// Switches to what was prepared.
    ///
    /// # Errors
    /// It failed: the old versions run.
    pub async fn switch(&self, swap: SwapId) -> Result<Result<SwitchReport, SwapError>, Failure> {
        self.answer(Request::Switch { job: self.job.clone(), swap }).await
    }

    /// Gives up what was prepared.
    ///
    /// # Errors
    /// There is no such thing.
    pub async fn abandon_swap(&self, swap: SwapId) -> Result<Result<SwapStatus, SwapError>, Failure> {
        self.answer(Request::AbandonSwap { job: self.job.clone(), swap }).await
    }

    /// Ends a probation before its time.
    ///
    /// # Errors
    /// There is none.
    pub async fn settle_swap(&self, swap: SwapId) -> Result<Result<SwapStatus, SwapError>, Failure> {
        self.answer(Request::SettleSwap { job: self.job.clone(), swap }).await
    }

    /// Puts back what the last swap has replaced.
    ///
    /// # Errors
    /// There is nothing to undo.
    pub async fn roll_back(&self) -> Result<Result<SwitchReport, SwapError>, Failure> {
        self.answer(Request::RollBack { job: self.job.clone() }).await
    }

    /// Asks the workshop. What the job file refers to is taken out of what goes wrong, whoever forgot to.
    ///
    /// # Errors
    /// It is not done, or the workshop is gone.
    pub async fn answer<T: DeserializeOwned>(&self, request: Request) -> Result<T, Failure> {
        self.workshop.answer(request).await.map_err(|failure| self.references().redacted(failure))
    }
}

impl Runner {
    /// A job that does not run.
    pub fn new(tenant: TenantId, job: JobId, now_ms: i64) -> Self {
        let observed = Observed { phase: Phase::Stopped, since_ms: now_ms, problems: Vec::new() };
        let (observed, run) = (watch::Sender::new(observed), watch::Sender::new(None));
        Self { tenant, job, turn: Arc::default(), observed, run, last: Mutex::default() }
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
        self.run.borrow().clone()
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

    pub(super) fn set(&self, jobs: &Jobs, phase: Phase, problems: Vec<Problem>) {
        let problem = problems.first().map(|problem| problem.message.clone());
        self.observed.send_replace(Observed { phase, since_ms: jobs.clock.now_ms(), problems });
        jobs.events.emit(&self.tenant, Some(self.job.as_str()), What::Phase { phase: phase.name().to_owned(), problem });
    }

    /// Starts the run of a job. The caller has the turn, and there is no run.
    ///
    /// # Errors
    /// It cannot be planned, or its directory is not as it should be: it has failed then.
    pub async fn start(&self, jobs: &Arc<Jobs>, job: &Job) -> Result<(), Failure> {
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
    pub async fn start_planned(&self, jobs: &Arc<Jobs>, job: &Job, prepared: Prepared) -> Result<(), Failure> {
        self.set(jobs, Phase::Starting, Vec::new());
        let started = self.begin(jobs, prepared, job.start.as_ref()).await;
        self.started(jobs, started)
    }

    /// Makes the directory of a job that is about to run.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) async fn make_place(&self, prepared: &Prepared) -> Result<(), Failure> {
        prepared.answer(Request::MakePlace { job: self.job.to_string(), prepared: prepared.number }).await
    }

    fn started(&self, jobs: &Arc<Jobs>, started: Result<(), Failure>) -> Result<(), Failure> {
        match started {
            // Not its own fault, or nobody can tell: it is tried again.
            Err(failure) if failure == workshop::lost(&self.tenant) => {
                self.set(jobs, Phase::Starting, failure.problems);
                jobs.go_on_again(&self.tenant, &self.job);
                Ok(())
            }
            started => started.inspect_err(|failure| self.set(jobs, Phase::Failed, failure.problems.clone())),
        }
    }

    async fn begin(&self, jobs: &Jobs, prepared: Prepared, from: Option<&Start>) -> Result<(), Failure> {
        // Before anything of it runs: whatever is said of it from now on, no secret is said.
        let whose = prepare::hidden_key(&self.tenant, self.job.as_str());
        jobs.hidden.hide(&whose, &prepared.references);
        let number = self.next();
        let job = self.job.to_string();
        let (workshop, hidden) = (prepared.workshop.clone(), jobs.hidden.clone());
        // Known before it begins: news of its end may come before the answer.
        self.run.send_replace(Some(Running { workshop, hidden, whose, job: job.clone(), number }));
        let request = Request::Start { job, run: number, prepared: prepared.number, from: from.cloned() };
        if let Err(failure) = prepared.answer::<()>(request).await {
            self.run.send_if_modified(|run| run.take_if(|run| run.number == number).is_some());
            return Err(failure);
        }
        if self.running().is_some_and(|running| running.number == number) && self.observed().phase == Phase::Starting {
            self.set(jobs, Phase::Running, Vec::new());
        }
        Ok(())
    }

    fn next(&self) -> u64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        *last
    }

    /// Its run has ended, as its workshop says.
    pub(super) fn has_ended(&self, jobs: &Jobs, ended: Ended) {
        let Ended { job, run, phase, problems } = ended;
        let Some(running) = self.running().filter(|running| running.number == run) else { return };
        let phase = if phase.is_active() { Phase::Failed } else { phase };
        let references = running.references();
        let problems = problems.into_iter().map(|problem| references.redacted_problem(problem)).collect::<Vec<_>>();
        if phase == Phase::Failed {
            let failure = Failure { kind: ErrorKind::Internal, problems: problems.clone() };
            tracing::warn!(tenant = %self.tenant, job = %job, "{failure}");
        }
        self.set(jobs, phase, problems);
        self.run.send_replace(None);
    }

    /// Its workshop is gone, and its run with it.
    pub(super) fn is_lost(&self, jobs: &Jobs, workshop: &Arc<dyn Workshop>, problem: &Failure) -> bool {
        let was_there = self.running().is_some_and(|running| Arc::ptr_eq(&running.workshop, workshop));
        if was_there {
            self.set(jobs, Phase::Starting, problem.problems.clone());
            self.run.send_replace(None);
        }
        was_there
    }

    /// Stops the run behind a last checkpoint and waits for its end. The caller has the turn.
    ///
    /// # Errors
    /// There is no last checkpoint: it runs on.
    pub async fn stop(&self, jobs: &Jobs) -> Result<(), Failure> {
        let Some(running) = self.running() else { return Ok(()) };
        self.set(jobs, Phase::Stopping, Vec::new());
        match running.answer::<()>(Request::Stop { job: running.job.clone() }).await {
            Ok(()) => {}
            // It is known to be gone, or will be in a moment: who sees to that says what the job does.
            Err(failure) if running.workshop.is_gone() => return Err(failure),
            Err(failure) => {
                self.set(jobs, Phase::Running, Vec::new());
                return Err(failure);
            }
        }
        self.ended().await;
        Ok(())
    }

    /// Stops the run behind a last checkpoint if that is there in time, and where it is if not: a guest decides for how long it keeps a barrier waiting, and
    /// a job file for how long a checkpoint may take. The caller has the turn.
    pub async fn stop_within(&self, jobs: &Jobs, most: Duration) {
        let failure = match timeout(most, self.stop(jobs)).await {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure,
            Err(_late) => Failure::new(ErrorKind::Unavailable, format!("there was none after {} s", most.as_secs())),
        };
        tracing::warn!(tenant = %self.tenant, job = %self.job, "the job ends without a last checkpoint, the one before holds: {failure}");
        self.cancel().await;
    }

    /// Ends the run where it is: the checkpoint before holds. The caller has the turn.
    pub async fn cancel(&self) {
        if let Some(running) = self.running() {
            // A workshop that is gone has ended it.
            drop(running.answer::<()>(Request::Cancel { job: running.job.clone() }).await);
            self.ended().await;
        }
    }

    async fn ended(&self) {
        let mut run = self.run.subscribe();
        // The runner outlives this call, and it is the sender.
        drop(run.wait_for(Option::is_none).await);
    }
}

impl Asked {
    /// What a version is made of.
    pub fn of(version: &JobVersion) -> Self {
        Self { spec: version.spec.clone(), replaced: version.replaced.clone(), components: version.components.clone() }
    }
}
