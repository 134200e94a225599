//! From the text of a job file to its end.

use std::{num::NonZeroU32, path::Path, sync::Arc};

use anyhow::bail;
use millstream_engine::{
    clock::SystemClock,
    connector::Connectors,
    graph::JobPlan,
    operators::{ComponentLoader, Environment},
    plan::{self, PlanOptions},
    run::{self, JobOutcome, RunSettings},
    spec::JobSpec,
};
use millstream_model::ids::TenantId;

/// Plans a job. Paths start from `directory`.
///
/// # Errors
/// The job has mistakes.
pub async fn planned(
    text: &str,
    directory: &Path,
    connectors: &Connectors,
    components: &dyn ComponentLoader,
    parallelism: NonZeroU32,
) -> anyhow::Result<Arc<JobPlan>> {
    let changes = [("parallelism".to_owned(), parallelism.get().into())];
    let spec = JobSpec::parse_with("job", text, &changes, connectors).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let environment = Environment { base_directory: directory, components, clock: Arc::new(SystemClock) };
    let options = PlanOptions { tenant: TenantId::local(), parallelism, state_directory: None };
    let plan = plan::plan(&spec, connectors, &environment, &options).await.map_err(|problems| anyhow::anyhow!("{problems}"))?;
    Ok(Arc::new(plan))
}

/// Runs a job to the end of its input.
///
/// # Errors
/// It does not get there.
pub async fn finished(plan: &Arc<JobPlan>, settings: RunSettings) -> anyhow::Result<()> {
    match &*run::start(plan.clone(), settings).wait().await {
        JobOutcome::Finished(_) => Ok(()),
        other => bail!("the job did not finish: {other:?}"),
    }
}
