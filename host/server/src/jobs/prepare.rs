//! From a version of a job to a plan: its file with everything that was replaced in it, secrets in place, components by digest.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use millstream_engine::{
    clock::Clock,
    connector::Connectors,
    graph::JobPlan,
    operators::Environment,
    plan::{self, AlsoRead, PlanOptions},
    spec::JobSpec,
};
use millstream_model::ids::TenantId;
use serde_json::Value;

use super::{
    runner::hidden_key,
    secrets::{self, Secrets},
};
use crate::{
    catalogue::Store,
    components::{Components, Loader},
    failure::Failure,
    references::{Hidden, References},
};

/// What a version is made of.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The job file.
    pub spec: String,
    /// Values that are replaced in it.
    pub replaced: BTreeMap<String, Value>,
    /// What names of components meant when the version was made.
    pub components: BTreeMap<String, String>,
}

/// A version that can run.
pub struct Prepared {
    /// Checked, typed and placed.
    pub plan: JobPlan,
    /// What names of components mean.
    pub components: BTreeMap<String, String>,
    /// What it refers to.
    pub references: References,
}

impl Prepared {
    /// Asks the outside whether it has what the job needs.
    ///
    /// # Errors
    /// It has not: everything that is missing.
    pub async fn check_outside(&self) -> Result<(), Failure> {
        let refused = Failure::of_outside(&plan::check_outside(&self.plan, true).await);
        refused.map_or(Ok(()), |failure| Err(self.references.redacted(failure)))
    }
}

/// What preparing needs of the service.
pub struct Preparing {
    /// The catalogue.
    pub store: Store,
    /// The components.
    pub components: Arc<Components>,
    /// What job files may name.
    pub connectors: Arc<Connectors>,
    /// What is kept out of everything that is said.
    pub hidden: Hidden,
    /// Where relative paths of files start.
    pub files: PathBuf,
    /// The clock of jobs.
    pub clock: Arc<dyn Clock>,
    /// Parallelism of jobs that do not say theirs.
    pub parallelism: std::num::NonZeroU32,
}

impl Preparing {
    /// The name that a job file gives its job.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn name(&self, asked: &Asked) -> Result<String, Failure> {
        Ok(self.read(asked, &[])?.job.as_str().to_owned())
    }

    /// The job file as JSON, with everything that was replaced in it but without secrets.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn document(&self, asked: &Asked) -> Result<Value, Failure> {
        Ok(self.read(asked, &[])?.value().clone())
    }

    /// Plans a version. `state_directory`: where its sources and sinks keep what they have accepted.
    ///
    /// # Errors
    /// All mistakes at once.
    pub async fn prepare(&self, tenant: &TenantId, asked: &Asked, state_directory: Option<PathBuf>) -> Result<Prepared, Failure> {
        self.prepare_with(tenant, asked, state_directory, &AlsoRead::new()).await
    }

    /// The same, for streams that carry more columns than its operators read.
    ///
    /// # Errors
    /// All mistakes at once.
    pub async fn prepare_with(
        &self,
        tenant: &TenantId,
        asked: &Asked,
        state_directory: Option<PathBuf>,
        also_read: &AlsoRead,
    ) -> Result<Prepared, Failure> {
        let document = self.document(asked)?;
        let references = secrets::of(&document, &self.store, tenant).await?;
        let mut filled = references.replacements(&document);
        filled.retain(|(path, _)| !secrets::stays(path));
        let mut spec = self.read(asked, &filled).map_err(|failure| references.redacted(failure))?;
        references.tell(&mut spec);
        let settings = Secrets {
            store: self.store.clone(),
            tenant: tenant.clone(),
            hidden: self.hidden.clone(),
            whose: hidden_key(tenant, spec.job.as_str()),
            of_file: references.clone(),
        };
        let loader = Loader::new(self.components.clone(), tenant.clone(), asked.components.clone(), Arc::new(settings));
        let environment = Environment { base_directory: &self.files, components: &loader, clock: self.clock.clone() };
        let options = PlanOptions { tenant: tenant.clone(), parallelism: self.parallelism, state_directory };
        let planned = plan::plan_with(&spec, &self.connectors, &environment, &options, also_read).await;
        let plan = planned.map_err(|problems| references.redacted(Failure::of_spec(&problems, None, &asked.spec)))?;
        Ok(Prepared { plan, components: loader.into_digests(), references })
    }

    fn read(&self, asked: &Asked, filled: &[(String, Value)]) -> Result<JobSpec, Failure> {
        let replaced: Vec<(String, Value)> =
            asked.replaced.iter().map(|(path, value)| (path.clone(), value.clone())).chain(filled.iter().cloned()).collect();
        let spec = JobSpec::parse_with("the job file", &asked.spec, &replaced, &self.connectors);
        spec.map_err(|problems| Failure::of_spec(&problems, None, &asked.spec))
    }
}
