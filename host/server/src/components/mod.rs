//! Components that were pushed: bytes by digest, names with tags that point to digests, and what each is.
//!
//! The flow of a push: bytes stream into a file while they are hashed → the file gets its digest as name → the catalogue knows it as being compiled →
//! a child process with limits compiles and describes it ([`compile`]) → it is ready or refused. A running job names components by digest, so that
//! moving a tag touches nothing that runs.
//!
//! ```text
//! DIR/components/<sha-256>.wasm   the bytes
//! DIR/compiled/                   native code (millstream_wasm's cache)
//! ```

pub mod compile;
mod name;
pub mod pull;
mod turns;
mod upload;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use millstream_engine::clock::Clock;
use millstream_model::{ErrorKind, ids::TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use name::{Reference, Which, check, check_name, check_tag};
use pull::{Image, Puller};
use turns::Turns;
pub use upload::Upload;

use crate::{
    catalogue::{
        Expected, Found, Kind, Store,
        objects::{Component, ComponentPhase, Job, Savepoint, Tags},
        store_put,
    },
    failure::Failure,
    tenants::Tenants,
};

/// Children that compile at once.
const COMPILING_MAX: usize = 1;
/// How often a change of the catalogue is tried again that somebody else was faster with.
const TRIES: usize = 16;

/// How far the compiler is with one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Progress {
    /// Whether it is its turn.
    pub stage: Stage,
    /// For how long the compiler has been at it.
    pub seconds: u64,
    /// CPU time that it may take; a component that needs more is refused.
    pub cpu_seconds_max: u64,
    /// Memory that compiling it may take; a component that needs more is refused.
    pub memory_bytes_max: u64,
}

/// Whether it is the turn of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The compiler is at another one.
    Waiting,
    /// The compiler is at it.
    Compiling,
}

/// The components of the service.
pub struct Components {
    store: Store,
    /// A component may be so large, in bytes.
    bytes_max: u64,
    directory: PathBuf,
    compiler: compile::Settings,
    puller: Puller,
    tenants: Arc<Tenants>,
    clock: Arc<dyn Clock>,
    compiling: Turns,
    /// What the compiler is at, by digest, and since when (elapsed time).
    compiled_now: Mutex<Option<(String, i64)>>,
    /// Says that some component has become ready, or was refused.
    changed: watch::Sender<u64>,
    /// Held while a file gets its entry, and while one goes with its last: tenants share the bytes of equal components.
    files: tokio::sync::Mutex<()>,
}

impl Components {
    /// The components below `directory`.
    pub fn new(
        store: Store,
        bytes_max: u64,
        directory: &Path,
        compiler: compile::Settings,
        puller: Puller,
        tenants: Arc<Tenants>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            store,
            bytes_max,
            directory: directory.join("components"),
            compiler,
            puller,
            tenants,
            clock,
            compiling: Turns::new(COMPILING_MAX),
            compiled_now: Mutex::default(),
            changed: watch::Sender::new(0),
            files: tokio::sync::Mutex::default(),
        }
    }

    /// What a component may be at most, in bytes.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Takes bytes; nothing counts before [`Self::push`].
    ///
    /// # Errors
    /// The disk does not take them.
    pub async fn upload(&self) -> Result<Upload, Failure> {
        Upload::begin(&self.directory, self.bytes_max()).await
    }

    /// Takes the bytes of an image of a registry; nothing counts before [`Self::push`]. `credentials`: `USER:PASSWORD`.
    ///
    /// # Errors
    /// The registry may not be asked, does not answer, or has no such component.
    pub async fn pull(&self, image: &Image, credentials: Option<&str>) -> Result<Upload, Failure> {
        self.puller.pull(image, credentials, self.upload().await?, self.bytes_max()).await
    }

    /// Makes what was uploaded a component under `name`, and perhaps a tag; its digest. It may have been there already.
    ///
    /// # Errors
    /// It cannot be stored, or is more than the tenant may have.
    pub async fn push(self: &Arc<Self>, tenant: &TenantId, name: &str, tag: Option<&str>, upload: Upload) -> Result<String, Failure> {
        let upload = upload.synced().await?;
        let alone = self.files.lock().await;
        let (digest, bytes) = upload.finish().await?;
        let found = self.store.get::<Component>(tenant, &digest).await?;
        let is_new = found.as_ref().is_none_or(|found| matches!(found.object.phase, ComponentPhase::Refused { .. }));
        if is_new {
            let more = if found.is_some() { 0 } else { bytes };
            let admitted = self.tenants.admit_component(tenant, more).await;
            if let Err(failure) = admitted {
                drop(alone);
                self.remove_file(&digest).await?;
                return Err(failure);
            }
            let now_ms = self.clock.now_ms();
            let component = Component { bytes, pushed_ms: now_ms, phase: ComponentPhase::Compiling { since_ms: now_ms } };
            self.store.put(tenant, &digest, &component, Expected::Any).await?;
        }
        drop(alone);
        self.change_tags(tenant, name, |tags| {
            tags.digests.insert(digest.clone());
            if let Some(tag) = tag {
                tags.tags.insert(tag.to_owned(), digest.clone());
            }
            Ok(())
        })
        .await?;
        if is_new {
            self.begin_compiling(tenant.clone(), digest.clone());
        }
        Ok(digest)
    }

    /// Compiles again what a process that ended was compiling.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn resume(self: &Arc<Self>) -> Result<(), Failure> {
        for tenant in self.store.tenants(Kind::Component).await? {
            for found in self.store.list::<Component>(&tenant, None, usize::MAX).await? {
                if matches!(found.object.phase, ComponentPhase::Compiling { .. }) {
                    self.begin_compiling(tenant.clone(), found.name);
                }
            }
        }
        Ok(())
    }

    fn begin_compiling(self: &Arc<Self>, tenant: TenantId, digest: String) {
        let components = self.clone();
        tokio::spawn(async move {
            let _turn = components.compiling.take(&tenant).await;
            let began_ms = components.clock.monotonic_ms();
            *components.compiled_now.lock().unwrap_or_else(PoisonError::into_inner) = Some((digest.clone(), began_ms));
            let phase = match compile::in_child(&components.compiler, &components.file(&digest), &digest).await {
                Ok(report) => {
                    let compile_ms = u64::try_from(components.clock.monotonic_ms() - began_ms).unwrap_or_default();
                    ComponentPhase::Ready { report: serde_json::to_value(report).expect("a report has string keys only"), compile_ms }
                }
                Err(failure) => ComponentPhase::Refused { problems: failure.problems },
            };
            if let Err(error) = components.set_phase(&tenant, &digest, phase).await {
                tracing::warn!(%error, %digest, "what became of a component could not be written down; it is compiled again at the next start");
            }
            components.compiled_now.lock().unwrap_or_else(PoisonError::into_inner).take();
            components.changed.send_modify(|changes| *changes += 1);
        });
    }

    /// How far the compiler is with a component that is being compiled.
    pub fn progress(&self, digest: &str) -> Progress {
        let now = self.compiled_now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let began_ms = now.filter(|(compiled, _)| compiled == digest).map(|(_, began_ms)| began_ms);
        let elapsed_ms = began_ms.map_or(0, |began_ms| self.clock.monotonic_ms() - began_ms);
        Progress {
            stage: if began_ms.is_some() { Stage::Compiling } else { Stage::Waiting },
            seconds: u64::try_from(elapsed_ms / 1_000).unwrap_or_default(),
            cpu_seconds_max: self.compiler.cpu.as_secs(),
            memory_bytes_max: self.compiler.memory_bytes,
        }
    }

    async fn set_phase(&self, tenant: &TenantId, digest: &str, phase: ComponentPhase) -> Result<(), Failure> {
        // Deleted meanwhile: then nobody wants to know.
        let Some(found) = self.store.get::<Component>(tenant, digest).await? else { return Ok(()) };
        let component = Component { phase, ..found.object };
        self.store.put(tenant, digest, &component, Expected::At(found.revision)).await?;
        Ok(())
    }

    /// Waits until a component is ready or refused, but no longer than `wait_ms`, and says what it is then.
    ///
    /// # Errors
    /// There is none.
    pub async fn settled(&self, tenant: &TenantId, digest: &str, wait_ms: i64) -> Result<Component, Failure> {
        let mut changed = self.changed.subscribe();
        let until_ms = self.clock.monotonic_ms().saturating_add(wait_ms);
        loop {
            let component = self.component(tenant, digest).await?;
            let is_late = self.clock.monotonic_ms() >= until_ms;
            if is_late || !matches!(component.phase, ComponentPhase::Compiling { .. }) {
                return Ok(component);
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = self.clock.sleep_until_monotonic(until_ms) => {}
            }
        }
    }

    /// One component by digest.
    ///
    /// # Errors
    /// There is none.
    pub async fn component(&self, tenant: &TenantId, digest: &str) -> Result<Component, Failure> {
        let found = self.store.get::<Component>(tenant, digest).await?;
        found.map(|found| found.object).ok_or_else(|| Failure::new(ErrorKind::NotFound, format!("there is no component `sha256:{digest}`")))
    }

    /// The tags of a name.
    ///
    /// # Errors
    /// Nothing was pushed under it.
    pub async fn tags(&self, tenant: &TenantId, name: &str) -> Result<Found<Tags>, Failure> {
        let found = self.store.get::<Tags>(tenant, name).await?;
        found.ok_or_else(|| {
            Failure::new(ErrorKind::NotFound, format!("there is no component `{name}`"))
                .fix(format!("push it: millstream push {name}:TAG FILE.wasm"))
        })
    }

    /// All names.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn names(&self, tenant: &TenantId, after: Option<&str>, limit: usize) -> Result<Vec<Found<Tags>>, Failure> {
        Ok(self.store.list::<Tags>(tenant, after, limit).await?)
    }

    /// The digest that a reference means now.
    ///
    /// # Errors
    /// There is no such name, tag or digest.
    pub async fn resolve(&self, tenant: &TenantId, reference: &Reference) -> Result<String, Failure> {
        let tags = self.tags(tenant, &reference.name).await?.object;
        match &reference.which {
            Which::Digest(digest) if tags.digests.contains(digest) => Ok(digest.clone()),
            Which::Digest(digest) => {
                Err(Failure::new(ErrorKind::NotFound, format!("`sha256:{digest}` was not pushed as `{}`", reference.name)))
            }
            Which::Tag(tag) => tags.tags.get(tag).cloned().ok_or_else(|| {
                let known: Vec<String> = tags.tags.keys().map(|tag| format!("`{tag}`")).collect();
                let known = if known.is_empty() { "it has no tags".to_owned() } else { format!("it has {}", known.join(", ")) };
                Failure::new(ErrorKind::NotFound, format!("component `{}` has no tag `{tag}`", reference.name)).fix(known)
            }),
        }
    }

    /// Points a tag to a digest that was pushed under the name.
    ///
    /// # Errors
    /// There is no such name or digest.
    pub async fn tag(&self, tenant: &TenantId, name: &str, tag: &str, digest: &str) -> Result<(), Failure> {
        self.tags(tenant, name).await?;
        self.change_tags(tenant, name, |tags| {
            if !tags.digests.contains(digest) {
                return Err(Failure::new(ErrorKind::NotFound, format!("`sha256:{digest}` was not pushed as `{name}`")));
            }
            tags.tags.insert(tag.to_owned(), digest.to_owned());
            Ok(())
        })
        .await
    }

    /// Removes a tag.
    ///
    /// # Errors
    /// There is none.
    pub async fn untag(&self, tenant: &TenantId, name: &str, tag: &str) -> Result<(), Failure> {
        self.tags(tenant, name).await?;
        self.change_tags(tenant, name, |tags| match tags.tags.remove(tag) {
            Some(_) => Ok(()),
            None => Err(Failure::new(ErrorKind::NotFound, format!("component `{name}` has no tag `{tag}`"))),
        })
        .await
    }

    /// Deletes a name, and the components that no other name and no job has.
    ///
    /// # Errors
    /// A job uses one of them.
    pub async fn delete(&self, tenant: &TenantId, name: &str) -> Result<(), Failure> {
        let tags = self.tags(tenant, name).await?;
        let used = self.used(tenant).await?;
        if let Some((digest, by)) = tags.object.digests.iter().find_map(|digest| Some((digest, used.get(digest)?))) {
            let message = format!("component `{name}` is in use: `sha256:{}…` by {by}", &digest[..12.min(digest.len())]);
            return Err(Failure::new(ErrorKind::Conflict, message).fix("delete what uses it first, or swap it for another component"));
        }
        self.store.remove::<Tags>(tenant, name, Expected::At(tags.revision)).await?;
        let others = self.names(tenant, None, usize::MAX).await?;
        for digest in tags.object.digests.iter().filter(|digest| !others.iter().any(|other| other.object.digests.contains(*digest))) {
            self.store.remove::<Component>(tenant, digest, Expected::Any).await?;
            self.remove_file(digest).await?;
        }
        Ok(())
    }

    /// Deletes everything that a tenant has pushed, whatever uses it.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn delete_all(&self, tenant: &TenantId) -> Result<(), Failure> {
        for found in self.store.list::<Component>(tenant, None, usize::MAX).await? {
            self.store.remove::<Component>(tenant, &found.name, Expected::Any).await?;
            self.remove_file(&found.name).await?;
        }
        Ok(())
    }

    /// Removes the bytes of a component that one tenant has no more, unless another one has them, too.
    async fn remove_file(&self, digest: &str) -> Result<(), Failure> {
        let _alone = self.files.lock().await;
        if self.store.owners(Kind::Component, digest).await?.is_empty() {
            // Without its entry nobody finds it; a file that stays is in nobody's way.
            drop(tokio::fs::remove_file(self.file(digest)).await);
        }
        Ok(())
    }

    /// Digest → what uses it: jobs with all their versions, and savepoints.
    async fn used(&self, tenant: &TenantId) -> Result<BTreeMap<String, String>, Failure> {
        let mut used = BTreeMap::new();
        for savepoint in self.store.list::<Savepoint>(tenant, None, usize::MAX).await? {
            let by = format!("savepoint `{}`", savepoint.name);
            used.extend(savepoint.object.components.into_values().map(|digest| (digest, by.clone())));
        }
        for job in self.store.list::<Job>(tenant, None, usize::MAX).await? {
            for version in job.object.versions {
                let by = format!("job `{}`, version {}", job.name, version.number);
                used.extend(version.components.into_values().map(|digest| (digest, by.clone())));
            }
        }
        Ok(used)
    }

    /// A component of the tenant can be used.
    ///
    /// # Errors
    /// It is not there, not ready, or was refused.
    pub async fn check_ready(&self, tenant: &TenantId, digest: &str, name: &str) -> Result<(), Failure> {
        match self.component(tenant, digest).await?.phase {
            ComponentPhase::Ready { .. } => Ok(()),
            ComponentPhase::Compiling { .. } => {
                Err(Failure::new(ErrorKind::Unavailable, format!("component `{name}` is still being compiled"))
                    .fix("try again in a moment"))
            }
            ComponentPhase::Refused { problems } => {
                let cause = problems.first().map_or("", |problem| problem.message.as_str());
                Err(Failure::new(ErrorKind::Invalid, format!("component `{name}` was refused: {cause}")))
            }
        }
    }

    fn file(&self, digest: &str) -> PathBuf {
        self.directory.join(format!("{digest}.wasm"))
    }

    /// Changes the tags of a name, made if it is not there, again and again until nobody was faster.
    async fn change_tags(&self, tenant: &TenantId, name: &str, change: impl Fn(&mut Tags) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            let found = self.store.get::<Tags>(tenant, name).await?;
            let expected = found.as_ref().map_or(Expected::Absent, |found| Expected::At(found.revision));
            let mut tags = found.map(|found| found.object).unwrap_or_default();
            change(&mut tags)?;
            match self.store.change(vec![store_put(tenant, name, &tags, expected)]).await {
                Err(error) if error.kind() == ErrorKind::Conflict && tries < TRIES => tries += 1,
                done => return Ok(done.map(drop)?),
            }
        }
    }
}
