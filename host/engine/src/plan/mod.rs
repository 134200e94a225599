//! From a job file that could be read to a job that can run: named, ordered, typed, pruned, placed.
//!
//! Flow: [`draft`] (names become edges, operators get an order, cycles are found) → [`typed`] (every node is planned in that order with the
//! types of its inputs) → [`needs`] (which columns are read at all, from the sinks back) → [`typed`] again with only those → [`placed`]
//! (parallelism and exchanges). Every mistake found on the way is reported; what follows from another mistake is not.
//!
//! It runs no rows and keeps nothing open. [`explain`] prints the result; [`check_outside`] asks the outside whether it has what the job needs.

mod draft;
mod durable;
mod explain;
mod needs;
mod outside;
mod placed;
mod sources;
mod typed;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use millstream_model::ids::{OperatorId, TenantId};
use millstream_wasm::Component;

pub use explain::explain;
pub use outside::check_outside;

use crate::{
    connector::Connectors,
    graph::JobPlan,
    operators::{ComponentLoader, Environment, component::SettingsSource},
    spec::{JobSpec, Problems, Report},
};

/// What the host decides about a job.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// The owner.
    pub tenant: TenantId,
    /// Parallelism of jobs that do not say theirs: the number of cores.
    pub parallelism: NonZeroU32,
    /// For a durable run: below it every source and sink has a directory named by its id, which survives the run. None: the run is ephemeral.
    pub state_directory: Option<PathBuf>,
}

/// Columns by name that reach an operator although its version does not read them: another one will, which is to take its place while the job runs.
/// By operator, per input port.
pub type AlsoRead = BTreeMap<OperatorId, Vec<BTreeSet<String>>>;

/// Plans a job.
///
/// # Errors
/// All mistakes at once.
pub async fn plan(
    spec: &JobSpec,
    connectors: &Connectors,
    environment: &Environment<'_>,
    options: &PlanOptions,
) -> Result<JobPlan, Problems> {
    plan_with(spec, connectors, environment, options, &AlsoRead::new()).await
}

/// Plans a job whose streams carry more columns than its operators read; those that no stream has are left out.
///
/// # Errors
/// All mistakes at once.
pub async fn plan_with(
    spec: &JobSpec,
    connectors: &Connectors,
    environment: &Environment<'_>,
    options: &PlanOptions,
    also_read: &AlsoRead,
) -> Result<JobPlan, Problems> {
    let loader = LoadedOnce { loader: environment.components, loaded: Mutex::default() };
    let environment = Environment { components: &loader, ..environment.clone() };
    let mut report = Report { document: &spec.document, problems: spec.problems.clone() };
    let state_directory = options.state_directory.as_deref();
    let mut planner = typed::Planner { connectors, environment: &environment, state_directory, report: &mut report };

    let mut draft = draft::draft(&mut planner, spec).await;
    let whole = planner.plan_all(&mut draft, None).await;
    planner.check_use(&draft, &whole);
    let parallelism = spec.settings.parallelism.unwrap_or(options.parallelism);
    placed::check(&mut planner, &draft, &whole, parallelism);
    durable::check(&mut planner, &draft, &whole, &spec.settings);
    report.problems.clone().into_result()?;

    let mut planner = typed::Planner { connectors, environment: &environment, state_directory, report: &mut report };
    match pruned(&mut planner, &mut draft, &whole, also_read).await {
        Some(nodes) => Ok(placed::place(spec, &draft, nodes, parallelism, options.tenant.clone())),
        None => {
            report.value("", "an operator that could be planned once could not be planned again", None);
            report.problems.into_result().and(Err(Problems::default()))
        }
    }
}

/// The nodes planned again with only the columns that are read. A component that turns out to need more than it said gets everything.
async fn pruned(
    planner: &mut typed::Planner<'_, '_>,
    draft: &mut draft::Draft<'_>,
    whole: &[Option<typed::Typed>],
    also_read: &AlsoRead,
) -> Option<Vec<typed::Typed>> {
    let mut wants_everything = vec![false; draft.nodes.len()];
    let also: Vec<_> = draft.nodes.iter().map(|node| also_read.get(&OperatorId::from(node.id)).map(Vec::as_slice)).collect();
    loop {
        let needs = needs::needs(whole, &wants_everything, &also);
        let pruned = planner.plan_all(draft, Some(typed::FirstPass { needs: &needs, nodes: whole })).await;
        let Some(failed) = pruned.iter().position(|node| node.is_none()) else { return pruned.into_iter().collect() };
        planner.report.problems.problems.clear();
        let culprit = if wants_everything[failed] { wants_everything.iter().position(|wants| !wants) } else { Some(failed) };
        match culprit {
            Some(culprit) => wants_everything[culprit] = true,
            None => return planner.plan_all(draft, None).await.into_iter().collect(),
        }
    }
}

/// Loads each component once per planning.
struct LoadedOnce<'a> {
    loader: &'a dyn ComponentLoader,
    /// By path, or by name in place of a path.
    loaded: Mutex<HashMap<Named, Component>>,
}

/// How the job file names a component.
#[derive(PartialEq, Eq, Hash)]
enum Named {
    Path(PathBuf),
    Name(String),
}

impl LoadedOnce<'_> {
    async fn once(
        &self,
        named: Named,
        load: impl Future<Output = Result<Component, millstream_wasm::Error>>,
    ) -> Result<Component, millstream_wasm::Error> {
        let known = self.loaded.lock().expect("no holder of this lock panics").get(&named).cloned();
        if let Some(component) = known {
            return Ok(component);
        }
        let component = load.await?;
        self.loaded.lock().expect("no holder of this lock panics").insert(named, component.clone());
        Ok(component)
    }
}

#[async_trait]
impl ComponentLoader for LoadedOnce<'_> {
    async fn load(&self, path: &Path) -> Result<Component, millstream_wasm::Error> {
        self.once(Named::Path(path.to_owned()), self.loader.load(path)).await
    }

    async fn load_named(&self, name: &str) -> Result<Component, millstream_wasm::Error> {
        self.once(Named::Name(name.to_owned()), self.loader.load_named(name)).await
    }

    fn settings(&self) -> Arc<dyn SettingsSource> {
        self.loader.settings()
    }
}
