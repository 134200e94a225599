//! Savepoints of jobs: a directory each, complete in itself, and an entry of the catalogue with the version that took it, so that a job can be forked
//! from it when it has changed, or is gone.

use std::sync::Arc;

use millstream_model::{ErrorKind, ids::TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Change, Jobs};
use crate::{
    catalogue::{
        Expected, Found,
        objects::{Job, Savepoint},
    },
    events::What,
    failure::Failure,
    kept::Facts,
    savepoint, text,
    workshop::Request,
};

/// A savepoint, as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SavepointView {
    /// Its name.
    pub name: String,
    /// The version of the job that took it; none: a backup that the job took by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// What it holds.
    #[serde(flatten)]
    pub facts: Facts,
}

/// The name of the entry of a savepoint.
pub fn entry(job: &str, savepoint: &str) -> String {
    format!("{job}/{savepoint}")
}

impl Jobs {
    /// Takes a savepoint of a job: of the running job now, of one that does not run from its last checkpoint.
    ///
    /// # Errors
    /// The name is taken, there is no checkpoint, or the tenant has as much state as it may have.
    pub async fn take_savepoint(self: &Arc<Self>, change: &Change, job: &str, name: Option<String>) -> Result<SavepointView, Failure> {
        let name = name.unwrap_or_else(|| text::time(self.clock.now_ms()).replace(':', "-"));
        savepoint::check_name(&name)?;
        let found = self.job(&change.tenant, job).await?;
        self.tenants.check_state(&change.tenant).await?;
        let request = Request::TakeSavepoint { job: job.to_owned(), name: name.clone() };
        let facts: Facts = match self.runner(&change.tenant, job).running() {
            None => self.workshop(&change.tenant).await?.answer(request).await?,
            Some(running) => {
                running.must_take_checkpoints().await?;
                running.answer(request).await?
            }
        };
        let version = found.object.current();
        let savepoint = Savepoint {
            version: version.number,
            created_ms: facts.created_ms,
            spec: version.spec.clone(),
            replaced: version.replaced.clone(),
            components: version.components.clone(),
        };
        self.store.put(&change.tenant, &entry(job, &name), &savepoint, Expected::Any).await?;
        self.events.emit(&change.tenant, Some(job), What::Savepoint { savepoint: name.clone() });
        Ok(SavepointView { name, version: Some(savepoint.version), facts })
    }

    /// The savepoints of a job, with the backups that it took by itself, sorted by name.
    ///
    /// # Errors
    /// There is no such job, or the disk fails.
    pub async fn savepoints(self: &Arc<Self>, tenant: &TenantId, job: &str) -> Result<Vec<SavepointView>, Failure> {
        self.job(tenant, job).await?;
        let found: Vec<(String, Facts)> = self.workshop(tenant).await?.answer(Request::Savepoints { job: job.to_owned() }).await?;
        let mut views = Vec::new();
        for (name, facts) in found {
            views.push(self.savepoint_view(tenant, job, name, facts).await?);
        }
        Ok(views)
    }

    /// One savepoint of a job.
    ///
    /// # Errors
    /// There is none.
    pub async fn savepoint(self: &Arc<Self>, tenant: &TenantId, job: &str, name: &str) -> Result<SavepointView, Failure> {
        savepoint::check_name(name)?;
        self.job(tenant, job).await?;
        let request = Request::Savepoint { job: job.to_owned(), name: name.to_owned() };
        let facts = self.workshop(tenant).await?.answer(request).await?;
        self.savepoint_view(tenant, job, name.to_owned(), facts).await
    }

    async fn savepoint_view(&self, tenant: &TenantId, job: &str, name: String, facts: Facts) -> Result<SavepointView, Failure> {
        let version = self.store.get::<Savepoint>(tenant, &entry(job, &name)).await?.map(|found| found.object.version);
        Ok(SavepointView { name, version, facts })
    }

    /// Deletes a savepoint.
    ///
    /// # Errors
    /// There is none, or the start of a job depends on it.
    pub async fn delete_savepoint(self: &Arc<Self>, tenant: &TenantId, job: &str, name: &str) -> Result<(), Failure> {
        self.savepoint(tenant, job, name).await?;
        self.check_unneeded(tenant, job, Some(name)).await?;
        self.workshop(tenant).await?.answer::<()>(Request::DeleteSavepoint { job: job.to_owned(), name: name.to_owned() }).await?;
        self.store.remove::<Savepoint>(tenant, &entry(job, name), Expected::Any).await?;
        Ok(())
    }

    /// No job that has not begun starts from this savepoint, or from any of the job's.
    ///
    /// # Errors
    /// One does.
    pub(super) async fn check_unneeded(self: &Arc<Self>, tenant: &TenantId, job: &str, savepoint: Option<&str>) -> Result<(), Failure> {
        for other in self.store.list::<Job>(tenant, None, usize::MAX).await? {
            let Some(start) = other.object.start.filter(|start| start.job.as_str() == job) else { continue };
            if savepoint.is_some_and(|savepoint| start.savepoint != savepoint) {
                continue;
            }
            if !self.workshop(tenant).await?.answer::<bool>(Request::HasBegun { job: other.name.clone() }).await? {
                let message = format!("job `{}` starts from savepoint `{}` and has not begun", other.name, start.savepoint);
                return Err(Failure::new(ErrorKind::Conflict, message).fix(format!("resume job `{}`, or delete it", other.name)));
            }
        }
        Ok(())
    }

    /// The entries of the savepoints of a job.
    pub(super) async fn savepoint_entries(&self, tenant: &TenantId, job: &str) -> Result<Vec<Found<Savepoint>>, Failure> {
        let after = format!("{job}/");
        let behind = self.store.list::<Savepoint>(tenant, Some(&after), usize::MAX).await?;
        Ok(behind.into_iter().take_while(|found| found.name.starts_with(&after)).collect())
    }
}
