//! Savepoints of jobs: a directory each, complete in itself, and an entry of the catalogue with the version that took it, so that a job can be forked
//! from it when it has changed, or is gone.

use std::sync::Arc;

use millstream_model::{ErrorKind, ids::TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Change, Jobs};
use crate::{
    catalogue::{Expected, Found, objects::Savepoint},
    events::What,
    failure::Failure,
    kept::{Facts, Kept},
    place::Place,
    savepoint, text,
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
    /// The name is taken, or there is no checkpoint.
    pub async fn take_savepoint(self: &Arc<Self>, change: &Change, job: &str, name: Option<String>) -> Result<SavepointView, Failure> {
        let name = name.unwrap_or_else(|| text::time(self.clock.now_ms()).replace(':', "-"));
        savepoint::check_name(&name)?;
        let found = self.job(&change.tenant, job).await?;
        let (place, owner) = Place::existing(&self.directory_of(&change.tenant, job))?;
        if place.savepoints().join(&name).exists() {
            return Err(
                Failure::new(ErrorKind::Conflict, format!("job `{job}` has a savepoint `{name}` already")).fix("choose another name")
            );
        }
        let facts = match self.runner(&change.tenant, job).running() {
            None => savepoint::made(&place, &owner, &name).await?,
            Some(running) => {
                running.must_take_checkpoints().await?;
                savepoint::of_running(&place, &owner, &running.handle, &name).await?
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
    pub async fn savepoints(&self, tenant: &TenantId, job: &str) -> Result<Vec<SavepointView>, Failure> {
        self.job(tenant, job).await?;
        let directory = self.directory_of(tenant, job);
        if !directory.join("job.json").exists() {
            return Ok(Vec::new());
        }
        let (place, _) = Place::existing(&directory)?;
        let mut views = Vec::new();
        for name in savepoint::names(&place)? {
            views.push(self.savepoint_view(tenant, job, &place, name).await?);
        }
        Ok(views)
    }

    /// One savepoint of a job.
    ///
    /// # Errors
    /// There is none.
    pub async fn savepoint(&self, tenant: &TenantId, job: &str, name: &str) -> Result<SavepointView, Failure> {
        savepoint::check_name(name)?;
        self.job(tenant, job).await?;
        let missing = || Failure::new(ErrorKind::NotFound, format!("job `{job}` has no savepoint `{name}`"));
        let directory = self.directory_of(tenant, job);
        if !directory.join("savepoints").join(name).join("manifest").is_file() {
            return Err(missing());
        }
        let (place, _) = Place::existing(&directory)?;
        self.savepoint_view(tenant, job, &place, name.to_owned()).await
    }

    async fn savepoint_view(&self, tenant: &TenantId, job: &str, place: &Place, name: String) -> Result<SavepointView, Failure> {
        let facts = Kept::savepoint(&place.savepoints().join(&name)).await?.facts();
        let version = self.store.get::<Savepoint>(tenant, &entry(job, &name)).await?.map(|found| found.object.version);
        Ok(SavepointView { name, version, facts })
    }

    /// Deletes a savepoint.
    ///
    /// # Errors
    /// There is none, or the start of a job depends on it.
    pub async fn delete_savepoint(&self, tenant: &TenantId, job: &str, name: &str) -> Result<(), Failure> {
        self.savepoint(tenant, job, name).await?;
        for other in self.store.list::<crate::catalogue::objects::Job>(tenant, None, usize::MAX).await? {
            let needs = other.object.start.as_ref().is_some_and(|start| start.job.as_str() == job && start.savepoint == name);
            let has_begun = Place::existing(&self.directory_of(tenant, &other.name)).is_ok_and(|(place, _)| place.commit_log().exists());
            if needs && !has_begun {
                return Err(Failure::new(
                    ErrorKind::Conflict,
                    format!("job `{}` starts from savepoint `{name}` and has not begun", other.name),
                ));
            }
        }
        let (place, _) = Place::existing(&self.directory_of(tenant, job))?;
        savepoint::remove(&place, name)?;
        self.store.remove::<Savepoint>(tenant, &entry(job, name), Expected::Any).await?;
        Ok(())
    }

    /// The entries of the savepoints of a job.
    pub(super) async fn savepoint_entries(&self, tenant: &TenantId, job: &str) -> Result<Vec<Found<Savepoint>>, Failure> {
        let after = format!("{job}/");
        let behind = self.store.list::<Savepoint>(tenant, Some(&after), usize::MAX).await?;
        Ok(behind.into_iter().take_while(|found| found.name.starts_with(&after)).collect())
    }
}
