//! A workshop in this process: what is asked is carried out here, whether the service asks directly or a runner's socket brings the question.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use millstream_engine::{
    clock::{Clock, Random},
    connector::Connectors,
    graph::JobPlan,
    operators::Environment,
    plan::{self, AlsoRead, PlanOptions},
    run::{CrashPoints, SwapError},
};
use millstream_model::{
    ErrorKind,
    ids::{JobId, TenantId},
};
use millstream_state::RocksShared;
use millstream_wasm::Runtime;
use serde::Serialize;
use serde_json::Value;
use tokio::{runtime::Handle, sync::watch};

use super::{
    Workshop,
    library::{Library, Loader},
    look::Tails,
    message::{Ended, News, Planned, Prepared, Recipe, Request},
    runs::Run,
    secrets::Secrets,
};
use crate::{
    failure::Failure,
    jobs::{prepare, secrets},
    logs::Logs,
    references::{Hidden, References},
};

/// Prepared versions that wait to be used; beyond that the oldest is forgotten.
const PREPARED_MAX: usize = 256;
/// Ends of runs that nobody has asked for yet.
const ENDED_MAX: usize = 10_000;
/// Log lines in one answer.
const LINES_MAX: usize = 1_000;

/// What workshops of one process share.
pub struct Means {
    /// The engine of guests.
    pub runtime: Runtime,
    /// What job files may name.
    pub connectors: Arc<Connectors>,
    /// Where relative paths of files start.
    pub files: PathBuf,
    /// The clock of jobs.
    pub clock: Arc<dyn Clock>,
    /// Randomness that nobody needs to guess.
    pub random: Arc<dyn Random>,
    /// The data runtime.
    pub data: Handle,
    /// Shared by all state on disk.
    pub rocks: Arc<RocksShared>,
    /// For tests: where to die.
    pub crash: Option<Arc<dyn CrashPoints>>,
    /// Parallelism of jobs that do not say theirs.
    pub parallelism: NonZeroU32,
    /// What is kept out of everything that is said.
    pub hidden: Hidden,
}

/// A workshop in this process. Cheap to clone.
#[derive(Clone)]
pub struct Inside(Arc<Floor>);

/// What a workshop holds.
pub(super) struct Floor {
    pub(super) means: Arc<Means>,
    pub(super) tenant: TenantId,
    /// The directories of its jobs.
    pub(super) directory: PathBuf,
    pub(super) library: Library,
    /// The lines that are told with the news; none: they are kept where they are said.
    logs: Option<Logs>,
    prepared: Mutex<Shelf>,
    pub(super) runs: Mutex<BTreeMap<String, Run>>,
    pub(super) tails: Tails,
    /// Values of secrets that have changed since it was made.
    pub(super) changed: Mutex<BTreeMap<String, String>>,
    ends: watch::Sender<Ends>,
}

/// A version that can run.
pub(super) struct Plan {
    pub(super) plan: Arc<JobPlan>,
    pub(super) references: References,
    /// What it was made of.
    pub(super) recipe: Recipe,
    /// What settings of its components refer to.
    pub(super) secrets: Arc<Secrets>,
    /// What names of components mean to it.
    pub(super) components: BTreeMap<String, String>,
}

/// A version as it is read.
pub(super) struct Draft {
    /// The job file, with references.
    document: Value,
    /// The job.
    job: JobId,
    /// What they stand for.
    pub(super) references: References,
}

#[derive(Default)]
struct Shelf {
    last: u64,
    plans: VecDeque<(u64, Arc<Plan>)>,
}

#[derive(Default)]
struct Ends {
    count: u64,
    kept: VecDeque<Ended>,
}

impl Inside {
    /// The workshop of a tenant whose jobs have their directories below `directory`, and whose components are files of `components`. `logs`: told with
    /// the news, because nobody else hears them.
    pub fn new(means: Arc<Means>, tenant: TenantId, directory: PathBuf, components: PathBuf, logs: Option<Logs>) -> Self {
        let library = Library::new(means.runtime.clone(), components);
        Self(Arc::new(Floor {
            means,
            tenant,
            directory,
            library,
            logs,
            prepared: Mutex::default(),
            runs: Mutex::default(),
            tails: Tails::default(),
            changed: Mutex::default(),
            ends: watch::Sender::new(Ends::default()),
        }))
    }
}

#[async_trait]
impl Workshop for Inside {
    async fn ask(&self, request: Request) -> Result<Value, Failure> {
        // A task of its own: what is begun is finished, even if who asks has gone.
        let floor = self.0.clone();
        let done = tokio::spawn(async move { floor.respond(request).await }).await;
        done.unwrap_or_else(|error| Err(Failure::new(ErrorKind::Internal, "the request failed by a fault of the service").because(&error)))
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn process(&self) -> Option<u32> {
        None
    }

    fn end(&self) {}
}

impl Floor {
    /// Carries out one request: a table of contents.
    async fn respond(self: Arc<Self>, request: Request) -> Result<Value, Failure> {
        match request {
            Request::Prepare { recipe, keeps_in } => data(&self.prepare(&recipe, keeps_in).await?),
            Request::Forget { prepared } => nothing(&self.forget(prepared)),
            Request::CheckOutside { prepared } => nothing(&self.check_outside(prepared).await?),
            Request::Explain { prepared } => data(&self.explain(prepared)?),
            Request::MakePlace { job, prepared } => nothing(&self.make_place(&job, prepared).await?),
            Request::Start { job, run, prepared, from } => nothing(&self.start(job, run, prepared, from.as_ref()).await?),
            Request::Stop { job } => nothing(&self.stop(&job).await?),
            Request::Cancel { job } => nothing(&self.cancel(&job).await),
            Request::Status { job } => data(&self.status(&job).await),
            Request::Checkpoint { job } => nothing(&self.checkpoint(&job).await?),
            Request::TakeSavepoint { job, name } => data(&self.take_savepoint(&job, &name).await?),
            Request::Savepoints { job } => data(&self.savepoints(&job).await?),
            Request::Savepoint { job, name } => data(&self.savepoint(&job, &name).await?),
            Request::DeleteSavepoint { job, name } => nothing(&self.delete_savepoint(&job, &name)?),
            Request::HasBegun { job } => data(&self.has_begun(&job)),
            Request::PrepareSwap { swap } => data(&self.prepare_swap(*swap).await?),
            Request::Switch { job, swap } => data(&self.of_run(&job, async |handle| handle.switch(swap).await).await),
            Request::AbandonSwap { job, swap } => data(&self.of_run(&job, async |handle| handle.abandon_swap(swap).await).await),
            Request::SettleSwap { job, swap } => data(&self.of_run(&job, async |handle| handle.settle_swap(swap).await).await),
            Request::RollBack { job } => data(&self.of_run(&job, async |handle| handle.roll_back().await).await),
            Request::Try { trial } => data(&self.try_version(*trial).await?),
            Request::TrialReport { job } => data(&self.trial_report(&job).await),
            Request::EndTrial { job, trial } => data(&self.end_trial(&job, trial).await),
            Request::Secret { name, value } => nothing(&self.secret_changed(&name, &value)),
            Request::States { job } => data(&self.states(&job).await?),
            Request::Entries { job, operator, state, key, limit, fresh } => {
                if fresh {
                    self.checkpoint(&job).await?;
                }
                data(&self.entries(&job, &operator, state.as_deref(), key.as_deref(), limit).await?)
            }
            Request::Results { prepared, sink, cursor, limit } => {
                data(&self.results(prepared, sink.as_deref(), cursor.as_deref(), limit).await?)
            }
            Request::Tail { job, operator, rows } => data(&self.tail(&job, &operator, rows)?),
            Request::TailNext { tail } => data(&self.tails.next(tail).await),
            Request::TailEnd { tail } => nothing(&self.tails.end(tail)),
            Request::News { ends, lines } => data(&self.news(ends, lines).await),
            Request::Sent => data(&millstream_egress::sent::bytes()),
            Request::ForgetJob { job } => nothing(&self.forget_job(&job)),
        }
    }

    async fn of_run<T>(
        &self,
        job: &str,
        what: impl AsyncFnOnce(millstream_engine::run::JobHandle) -> Result<T, SwapError>,
    ) -> Result<T, SwapError> {
        match self.run(job) {
            Some(run) => what(run.handle).await,
            None => Err(SwapError::Ended),
        }
    }

    async fn prepare(&self, recipe: &Recipe, keeps_in: Option<String>) -> Result<Planned, Failure> {
        let state_directory = keeps_in.map(|job| self.directory.join(job).join("sources"));
        let draft = self.draft(recipe)?;
        let whose = prepare::hidden_key(&self.tenant, draft.job.as_str());
        let secrets = Secrets::new(recipe.secrets.clone(), self.means.hidden.clone(), whose, draft.references.clone());
        let secrets = Arc::new(secrets);
        let loader = Loader::new(&self.library, &recipe.components, secrets.clone());
        let planned = self.plan(recipe, &draft, &loader, state_directory, &AlsoRead::new()).await;
        let names = loader.lacking();
        if !names.is_empty() {
            return Ok(Planned::Lacks { names });
        }
        let plan = Arc::new(planned?);
        let components = loader.into_digests();
        let plan = Arc::new(Plan { plan, references: draft.references, recipe: recipe.clone(), secrets, components: components.clone() });
        let mut shelf = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.last += 1;
        let number = shelf.last;
        shelf.plans.push_back((number, plan));
        if shelf.plans.len() > PREPARED_MAX {
            shelf.plans.pop_front();
        }
        Ok(Planned::Ready { prepared: Prepared { number, components } })
    }

    /// Reads a version.
    pub(super) fn draft(&self, recipe: &Recipe) -> Result<Draft, Failure> {
        let spec = prepare::read(&self.means.connectors, &recipe.asked, &[])?;
        let document = spec.value().clone();
        Ok(Draft { references: secrets::of(&document, &recipe.secrets), job: spec.job.clone(), document })
    }

    /// Plans a version, for streams that may carry more columns than its operators read.
    pub(super) async fn plan(
        &self,
        recipe: &Recipe,
        draft: &Draft,
        loader: &Loader<'_>,
        state_directory: Option<PathBuf>,
        also_read: &AlsoRead,
    ) -> Result<JobPlan, Failure> {
        let Means { connectors, files, clock, parallelism, .. } = &*self.means;
        let Draft { document, references, .. } = draft;
        let mut filled = references.replacements(document);
        filled.retain(|(path, _)| !secrets::stays(path));
        let mut spec = prepare::read(connectors, &recipe.asked, &filled).map_err(|failure| references.redacted(failure))?;
        references.tell(&mut spec);
        let environment = Environment { base_directory: files, components: loader, clock: clock.clone() };
        let options = PlanOptions { tenant: self.tenant.clone(), parallelism: *parallelism, state_directory };
        let planned = plan::plan_with(&spec, connectors, &environment, &options, also_read).await;
        planned.map_err(|problems| references.redacted(Failure::of_spec(&problems, None, &recipe.asked.spec)))
    }

    /// A prepared version.
    pub(super) fn prepared(&self, number: u64) -> Result<Arc<Plan>, Failure> {
        let shelf = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let found = shelf.plans.iter().find(|(known, _)| *known == number).map(|(_, plan)| plan.clone());
        found.ok_or_else(|| Failure::new(ErrorKind::Unavailable, "the plan was forgotten: too many were made since").fix("try again"))
    }

    pub(super) fn forget(&self, number: u64) {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).plans.retain(|(known, _)| *known != number);
    }

    async fn check_outside(&self, prepared: u64) -> Result<(), Failure> {
        let prepared = self.prepared(prepared)?;
        let refused = Failure::of_outside(&plan::check_outside(&prepared.plan, true).await);
        refused.map_or(Ok(()), |failure| Err(prepared.references.redacted(failure)))
    }

    fn explain(&self, prepared: u64) -> Result<String, Failure> {
        let prepared = self.prepared(prepared)?;
        Ok(prepared.references.redact(&plan::explain(&prepared.plan)))
    }

    /// A run has ended.
    pub(super) fn has_ended(&self, ended: Ended) {
        self.ends.send_modify(|ends| {
            ends.count += 1;
            ends.kept.push_back(ended);
            if ends.kept.len() > ENDED_MAX {
                ends.kept.pop_front();
            }
        });
    }

    async fn news(&self, ends: u64, lines: u64) -> News {
        let mut watched = self.ends.subscribe();
        loop {
            let (lines, lines_until) = match &self.logs {
                Some(logs) => logs.behind(self.tenant.as_str(), lines, LINES_MAX),
                None => (Vec::new(), lines),
            };
            let (ended, count) = ended_behind(&watched.borrow_and_update(), ends);
            if !ended.is_empty() || !lines.is_empty() {
                return News { ended, ends: count, lines, lines_until };
            }
            let said = async {
                match &self.logs {
                    Some(logs) => logs.said(self.tenant.as_str(), lines_until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender is ours.
                _ = watched.changed() => {}
                () = said => {}
            }
        }
    }

    fn forget_job(&self, job: &str) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(job);
        self.means.hidden.forget(&prepare::hidden_key(&self.tenant, job));
        self.tails.forget(job);
        if let Some(logs) = &self.logs {
            logs.forget(self.tenant.as_str(), job);
        }
    }
}

fn ended_behind(ends: &Ends, behind: u64) -> (Vec<Ended>, u64) {
    let new = usize::try_from(ends.count.saturating_sub(behind)).unwrap_or(usize::MAX);
    let skipped = ends.kept.len().saturating_sub(new);
    (ends.kept.iter().skip(skipped).cloned().collect(), ends.count)
}

fn data(answer: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|error| Failure::new(ErrorKind::Internal, "the answer cannot be said").because(&error))
}

/// The answer to what has none.
fn nothing((): &()) -> Result<Value, Failure> {
    Ok(Value::Null)
}
