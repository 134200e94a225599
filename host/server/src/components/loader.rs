//! Where the components of one job come from: names that are resolved once, and remembered with the version of the job.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use millstream_engine::operators::{ComponentLoader, component::SettingsSource};
use millstream_model::ids::TenantId;
use millstream_wasm::{Component, Error};

use super::{Components, Reference};
use crate::failure::Failure;

/// Loads the components of one version of a job.
pub struct Loader {
    components: Arc<Components>,
    tenant: TenantId,
    /// Name in the job file → digest, from when the version was made.
    pinned: BTreeMap<String, String>,
    /// The same, of every name that was asked for.
    asked: Mutex<BTreeMap<String, String>>,
    settings: Arc<dyn SettingsSource>,
}

impl Loader {
    /// `pinned`: what names meant when the version was made; others mean what they mean now. `settings`: what those of components refer to.
    pub fn new(components: Arc<Components>, tenant: TenantId, pinned: BTreeMap<String, String>, settings: Arc<dyn SettingsSource>) -> Self {
        Self { components, tenant, pinned, asked: Mutex::default(), settings }
    }

    /// What every name meant that was asked for.
    pub fn into_digests(self) -> BTreeMap<String, String> {
        self.asked.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find(&self, name: &str) -> Result<Component, Failure> {
        let digest = match self.pinned.get(name) {
            Some(digest) => digest.clone(),
            None => self.components.resolve(&self.tenant, &Reference::parse(name)?).await?,
        };
        let component = self.components.load(&self.tenant, &digest, name).await?;
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), digest);
        Ok(component)
    }
}

#[async_trait]
impl ComponentLoader for Loader {
    async fn load(&self, path: &Path) -> Result<Component, Error> {
        let reason = "the service reads no files of its machine as components: push it, and say `name` in place of `path`";
        let component = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Err(Error::Unreadable { component: component.into(), source: io::Error::other(reason) })
    }

    async fn load_named(&self, name: &str) -> Result<Component, Error> {
        self.find(name).await.map_err(|failure| {
            let fix = failure.problems.first().and_then(|problem| problem.fix.as_ref()).map(|fix| format!("; {fix}")).unwrap_or_default();
            Error::Unreadable { component: name.into(), source: io::Error::other(format!("{failure}{fix}")) }
        })
    }

    fn settings(&self) -> Arc<dyn SettingsSource> {
        self.settings.clone()
    }
}
