//! From a version of a job to a plan: its file with everything that was replaced in it is read here, its secrets and the names of its components are
//! looked up here; planning, which calls components, is the tenant's workshop's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millstream_engine::{connector::Connectors, spec::JobSpec};
use millstream_model::{ErrorKind, ids::TenantId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Jobs, confined, secrets};
use crate::{
    catalogue::objects::Job,
    components::Reference,
    failure::Failure,
    references::References,
    workshop::{Prepared as Planned, Recipe, Request, Workshop, message},
};

/// How often a version is planned again because it names components that were not looked up: each time names more.
const TRIES: usize = 8;
/// Versions of a job whose secrets its workshop is told.
const VERSIONS_TOLD: usize = 4;

/// What a version is made of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Asked {
    /// The job file.
    pub spec: String,
    /// Values that are replaced in it.
    pub replaced: BTreeMap<String, Value>,
    /// What names of components meant when the version was made.
    pub components: BTreeMap<String, String>,
}

/// A version that can run: planned in a workshop, which forgets it when this is dropped.
pub struct Prepared {
    /// What names of components mean.
    pub components: BTreeMap<String, String>,
    /// What it refers to.
    pub references: References,
    /// Where it is planned.
    pub(super) workshop: Arc<dyn Workshop>,
    /// Its number there.
    pub(super) number: u64,
}

impl Prepared {
    /// Asks the outside whether it has what the job needs.
    ///
    /// # Errors
    /// It has not: everything that is missing.
    pub async fn check_outside(&self) -> Result<(), Failure> {
        self.answer(Request::CheckOutside { prepared: self.number }).await
    }

    /// How it is planned, for people.
    ///
    /// # Errors
    /// The workshop is gone.
    pub async fn explain(&self) -> Result<String, Failure> {
        let explained: String = self.answer(Request::Explain { prepared: self.number }).await?;
        Ok(self.references.redact(&explained))
    }

    /// Asks the workshop about it. What it refers to is taken out of what goes wrong, whoever forgot to.
    pub(super) async fn answer<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<T, Failure> {
        self.workshop.answer(request).await.map_err(|failure| self.references.redacted(failure))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let (workshop, prepared) = (self.workshop.clone(), self.number);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // A workshop that is gone has forgotten it.
            runtime.spawn(async move { drop(workshop.ask(Request::Forget { prepared }).await) });
        }
    }
}

/// The job file as JSON, with everything that was replaced in it but without secrets.
///
/// # Errors
/// It cannot be read.
pub(crate) fn document(connectors: &Connectors, asked: &Asked) -> Result<Value, Failure> {
    Ok(read(connectors, asked, &[])?.value().clone())
}

/// The job file, with everything that was replaced in it, and `filled` in the place of references.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read(connectors: &Connectors, asked: &Asked, filled: &[(String, Value)]) -> Result<JobSpec, Failure> {
    let replaced: Vec<(String, Value)> =
        asked.replaced.iter().map(|(path, value)| (path.clone(), value.clone())).chain(filled.iter().cloned()).collect();
    let spec = JobSpec::parse_with("the job file", &asked.spec, &replaced, connectors);
    spec.map_err(|problems| Failure::of_spec(&problems, None, &asked.spec))
}

/// Under which the references of a job are hidden.
pub(crate) fn hidden_key(tenant: &TenantId, job: &str) -> String {
    format!("{tenant}/{job}")
}

impl Jobs {
    /// The name that a job file gives its job.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn name_in(&self, asked: &Asked) -> Result<String, Failure> {
        Ok(read(&self.connectors, asked, &[])?.job.as_str().to_owned())
    }

    /// The job file as JSON, with everything that was replaced in it but without secrets.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn document(&self, asked: &Asked) -> Result<Value, Failure> {
        document(&self.connectors, asked)
    }

    /// Plans a version. `keeps_in`: the job in whose directory its sources and sinks keep what they have accepted; none: it is only looked at.
    ///
    /// # Errors
    /// All mistakes at once.
    pub async fn prepare(self: &Arc<Self>, tenant: &TenantId, asked: &Asked, keeps_in: Option<&str>) -> Result<Prepared, Failure> {
        let document = self.document(asked)?;
        self.strangers.check(tenant, &document)?;
        if self.workshops.have_walls() {
            confined::opens_no_port(&document)?;
        }
        let mut recipe = self.recipe(tenant, asked).await?;
        if let Some(job) = keeps_in {
            recipe.secrets.extend(self.secrets_of_before(tenant, job).await?);
        }
        let references = secrets::of(&document, &recipe.secrets);
        let workshop = self.workshop(tenant).await?;
        for _ in 0..TRIES {
            let request = Request::Prepare { recipe: Box::new(recipe.clone()), keeps_in: keeps_in.map(str::to_owned) };
            let planned = workshop.answer(request).await.map_err(|failure| references.redacted(failure))?;
            match planned {
                message::Planned::Ready { prepared: Planned { number, components } } => {
                    check_digests(&recipe, &components)?;
                    return Ok(Prepared { components, references, workshop, number });
                }
                message::Planned::Lacks { names } => self.look_up(tenant, &mut recipe, names).await,
            }
        }
        Err(Failure::new(ErrorKind::Internal, "the version asks for ever more components"))
    }

    /// A version with its secrets, and what its components mean as far as that was settled when it was made.
    pub(super) async fn recipe(&self, tenant: &TenantId, asked: &Asked) -> Result<Recipe, Failure> {
        let secrets = secrets::values(&self.document(asked)?, &self.store, tenant).await?;
        let mut recipe = Recipe { asked: asked.clone(), secrets, components: BTreeMap::new() };
        for (name, digest) in &asked.components {
            let offered = self.offered(tenant, name, digest.clone()).await;
            recipe.components.insert(name.clone(), offered);
        }
        Ok(recipe)
    }

    /// The secrets that the last versions of a job name: a run that goes on with the version that a swap had put back, or was about to, has them.
    async fn secrets_of_before(&self, tenant: &TenantId, job: &str) -> Result<BTreeMap<String, String>, Failure> {
        let versions = self.store.get::<Job>(tenant, job).await?.map(|found| found.object.versions).unwrap_or_default();
        let mut secrets = BTreeMap::new();
        for version in versions.iter().rev().take(VERSIONS_TOLD) {
            // What cannot be read any more runs no more.
            if let Ok(document) = self.document(&Asked::of(version)) {
                secrets.extend(secrets::values(&document, &self.store, tenant).await?);
            }
        }
        Ok(secrets)
    }

    /// Looks up what names mean now.
    async fn look_up(&self, tenant: &TenantId, recipe: &mut Recipe, names: BTreeSet<String>) {
        for name in names {
            let digest = match Reference::parse(&name) {
                Ok(reference) => self.components.resolve(tenant, &reference).await,
                Err(failure) => Err(failure),
            };
            let offered = match digest {
                Ok(digest) => self.offered(tenant, &name, digest).await,
                Err(failure) => Err(failure),
            };
            recipe.components.insert(name, offered);
        }
    }

    /// Puts a component where the workshop of its tenant finds it; its digest.
    async fn offered(&self, tenant: &TenantId, name: &str, digest: String) -> Result<String, Failure> {
        self.components.check_ready(tenant, &digest, name).await?;
        self.workshops.offer(tenant, &digest).await?;
        Ok(digest)
    }
}

/// A workshop says what names meant when it planned: what we have told it, and nothing else, because it is written down.
fn check_digests(recipe: &Recipe, said: &BTreeMap<String, String>) -> Result<(), Failure> {
    let is_ours = |(name, digest): (&String, &String)| recipe.components.get(name).is_some_and(|known| known.as_ref() == Ok(digest));
    if said.iter().all(is_ours) {
        return Ok(());
    }
    Err(Failure::new(ErrorKind::Internal, "the runner says that components mean something else than it was told"))
}
