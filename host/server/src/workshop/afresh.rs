//! What the secrets of a running job stand for now: the service tells when one has changed, and it is looked at before an attempt goes on from a checkpoint, so
//! that a password which was changed is the one that the next attempt has. The job is planned again only if something has changed: as it was when its run
//! began, the components that were swapped in are the engine's to remember.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use millstream_engine::{
    graph::JobPlan,
    plan::AlsoRead,
    run::{Afresh, Replan},
};

use super::{
    inside::{Floor, Plan},
    library::Loader,
    message::{Confided, Recipe},
    runs::Run,
    secrets::Secrets,
};
use crate::jobs::prepare;

/// The secrets of one run, and what they were when it was planned last.
#[derive(Clone)]
pub(super) struct Told {
    floor: Arc<Floor>,
    job: String,
    recipe: Recipe,
    secrets: Arc<Secrets>,
    seen: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Told {
    pub(super) fn new(floor: &Arc<Floor>, job: &str, planned: &Plan) -> Self {
        let (recipe, secrets) = (planned.recipe.clone(), planned.secrets.clone());
        let seen = Arc::new(Mutex::new(recipe.secrets.clone()));
        Self { floor: floor.clone(), job: job.to_owned(), recipe, secrets, seen }
    }
}

#[async_trait]
impl Afresh for Told {
    async fn changed(&self) -> Option<Arc<dyn Replan>> {
        let now = self.secrets.values();
        if *self.seen.lock().unwrap_or_else(PoisonError::into_inner) == now {
            return None;
        }
        Some(Arc::new(Planner { of: self.clone(), now }))
    }
}

/// Plans the job with what its secrets are now.
struct Planner {
    of: Told,
    now: BTreeMap<String, String>,
}

#[async_trait]
impl Replan for Planner {
    async fn replan(&self, also_read: &AlsoRead) -> Result<JobPlan, String> {
        let Told { floor, job, recipe, secrets, seen } = &self.of;
        let recipe = Recipe { secrets: self.now.clone(), ..recipe.clone() };
        let draft = floor.draft(&recipe).map_err(|failure| failure.to_string())?;
        // Before anything is said with it.
        floor.means.hidden.hide_also(&prepare::hidden_key(&floor.tenant, job), &draft.references);
        let loader = Loader::new(&floor.library, &recipe.components, secrets.clone());
        let sources = floor.directory.join(job).join("sources");
        let plan = floor.plan(&recipe, &draft, &loader, Some(sources), also_read).await.map_err(|failure| failure.to_string())?;
        self.now.clone_into(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(plan)
    }
}

impl Floor {
    /// A secret has another value by now.
    pub(super) fn secret_changed(&self, name: &str, value: &Confided) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.0.clone());
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(|run| run.secrets.change(name, &value.0));
    }

    /// What has changed while the run was planned and started. An older value than its own is told once more, with the newest, in a moment.
    pub(super) fn tell_changed(&self, run: &Run) {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.iter().for_each(|(name, value)| run.secrets.change(name, value));
    }
}
