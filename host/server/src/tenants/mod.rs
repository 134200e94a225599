//! Tenants: who shares the service, and how much of it each may have. A tenant is known by the token that asks ([`crate::token`]) and by nothing else.
//!
//! The flow of a request: the token says whose it is → [`Tenants::admit_request`] (requests per second) → what it adds is admitted against the tenant's
//! [`Quotas`] while nobody else of the tenant is admitted ([`Tenants::admit_job`], [`Tenants::admit_component`]) → it is written down. What only shows
//! while jobs run (memory, state, CPU time, rows) is measured by [`crate::jobs::meter`] and kept as [`usage::Usage`].
//!
//! The tenant `local` is that of whoever runs the service: it is always there and has no limits unless it is given some. Its tokens alone may have the
//! scope `host`, which makes, limits and deletes tenants.
//!
//! Words: a *quota* is what a tenant may have; [`Exceeded`] is the answer when it is used up. Nothing here knows what a job is.

mod bucket;
mod quotas;
pub mod usage;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use millstream_engine::clock::Clock;
use millstream_model::{ErrorKind, ids::TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

pub use self::{
    bucket::Bucket,
    quotas::{Exceeded, Quota, Quotas},
};
use crate::{
    catalogue::{
        Change, Expected, Found, Key, Kind, Store,
        objects::{Component, Job, Tenant, TenantSettings, Token},
        store_put,
    },
    components,
    failure::Failure,
};

/// The name of the entry of a tenant: whose it is says its key.
const ENTRY: &str = "tenant";
/// Uploads of components of one tenant at once.
const UPLOADS_MAX: usize = 16;
/// Streams of events that one tenant listens to at once.
const STREAMS_MAX: usize = 256;
/// A burst of requests is as many as come within so many seconds at the full rate.
const BURST_S: u64 = 2;
/// How often a change of a tenant is tried again that somebody else was faster with.
const TRIES: usize = 16;

/// The tenants of the service.
pub struct Tenants {
    store: Store,
    clock: Arc<dyn Clock>,
    gates: Mutex<BTreeMap<TenantId, Arc<Gate>>>,
}

/// What this process counts of a tenant.
struct Gate {
    requests: Mutex<Bucket>,
    uploads: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Held from the question whether something fits until it is written down.
    admitting: Arc<tokio::sync::Mutex<()>>,
    /// Bytes of state when it was measured last.
    state_bytes: AtomicU64,
    /// Bytes of memory when it was measured last.
    memory_bytes: AtomicU64,
}

impl Gate {
    fn new(now_ms: i64) -> Self {
        Self {
            requests: Mutex::new(Bucket::full(now_ms)),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            admitting: Arc::default(),
            state_bytes: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
        }
    }
}

/// What a tenant has just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct InUse {
    /// Jobs, whether they run or not.
    pub jobs: u64,
    /// Bytes of components.
    pub component_bytes: u64,
    /// Bytes of checkpoints and savepoints, when they were measured last.
    pub state_bytes: u64,
    /// Bytes of memory, when it was measured last.
    pub memory_bytes: u64,
}

impl Tenants {
    /// The tenants of this catalogue.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, gates: Mutex::default() }
    }

    /// Sees to it that the tenant of whoever runs the service is there.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn make_local(&self) -> Result<(), Failure> {
        let local = TenantId::local();
        if self.store.get::<Tenant>(&local, ENTRY).await?.is_none() {
            let settings = TenantSettings { quotas: Quotas::unlimited(), ..TenantSettings::default() };
            self.store
                .put(&local, ENTRY, &Tenant { created_ms: self.clock.now_ms(), settings, is_leaving: false }, Expected::Absent)
                .await?;
        }
        Ok(())
    }

    /// Makes a tenant.
    ///
    /// # Errors
    /// The name is none, or taken.
    pub async fn create(&self, name: &str, settings: TenantSettings) -> Result<Found<Tenant>, Failure> {
        components::check(name, "tenant")?;
        settings.check()?;
        let tenant = TenantId::from(name);
        if self.store.get::<Tenant>(&tenant, ENTRY).await?.is_some() {
            return Err(Failure::new(ErrorKind::Conflict, format!("there is a tenant `{name}` already")).fix("choose another name"));
        }
        // A request that was under way when an earlier one of this name was deleted may have left something.
        self.store.clear(&tenant).await?;
        let object = Tenant { created_ms: self.clock.now_ms(), settings, is_leaving: false };
        let revision = self.store.put(&tenant, ENTRY, &object, Expected::Absent).await?;
        Ok(Found { name: name.to_owned(), revision, object })
    }

    /// One tenant.
    ///
    /// # Errors
    /// There is none.
    pub async fn get(&self, tenant: &TenantId) -> Result<Found<Tenant>, Failure> {
        let found = self.store.get::<Tenant>(tenant, ENTRY).await?.filter(|found| !found.object.is_leaving);
        found.map(|found| Found { name: tenant.to_string(), ..found }).ok_or_else(|| {
            Failure::new(ErrorKind::NotFound, format!("there is no tenant `{tenant}`")).fix("`millstream tenant list` lists them")
        })
    }

    /// At most `limit` tenants in the order of their names, those behind `after`.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Found<Tenant>>, Failure> {
        let all = self.store.tenants(Kind::Tenant).await?;
        let mut found = Vec::new();
        for tenant in all.iter().filter(|tenant| after.is_none_or(|after| tenant.as_str() > after)) {
            if found.len() == limit {
                break;
            }
            // One that is being deleted is none any more.
            found.extend(self.get(tenant).await.ok());
        }
        Ok(found)
    }

    /// Gives a tenant other limits. They hold from the next request on.
    ///
    /// # Errors
    /// There is none, or a limit makes no sense.
    pub async fn change(&self, tenant: &TenantId, settings: TenantSettings) -> Result<Found<Tenant>, Failure> {
        settings.check()?;
        let mut tries = 0;
        loop {
            let found = self.get(tenant).await?;
            let object = Tenant { settings: settings.clone(), ..found.object };
            match self.store.put(tenant, ENTRY, &object, Expected::At(found.revision)).await {
                Err(error) if error.kind() == ErrorKind::Conflict && tries < TRIES => tries += 1,
                done => return Ok(Found { revision: done?, object, name: found.name }),
            }
        }
    }

    /// From now on a tenant is being deleted: none of its tokens is worth anything, and nothing of it is found any more. What it has is still there.
    ///
    /// # Errors
    /// There is none, or it is that of whoever runs the service.
    pub async fn leave(&self, tenant: &TenantId) -> Result<(), Failure> {
        if *tenant == TenantId::local() {
            return Err(Failure::new(ErrorKind::Conflict, "the tenant `local` is that of whoever runs the service, and cannot be deleted")
                .fix("delete what it has: jobs, components, secrets, tokens"));
        }
        let found = self.get(tenant).await?;
        let leaving = Tenant { is_leaving: true, ..found.object };
        let mut changes = vec![store_put(tenant, ENTRY, &leaving, Expected::At(found.revision))];
        for token in self.store.list::<Token>(tenant, None, usize::MAX).await? {
            let key = Key { tenant: tenant.clone(), kind: Kind::Token, name: token.name };
            changes.push(Change { key, expected: Expected::Any, value: None });
        }
        self.store.change(changes).await?;
        Ok(())
    }

    /// Tenants whose deletion was begun and not finished.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn leaving(&self) -> Result<Vec<TenantId>, Failure> {
        let mut leaving = Vec::new();
        for tenant in self.store.tenants(Kind::Tenant).await? {
            if self.store.get::<Tenant>(&tenant, ENTRY).await?.is_some_and(|found| found.object.is_leaving) {
                leaving.push(tenant);
            }
        }
        Ok(leaving)
    }

    /// Forgets a tenant that has left, with everything the catalogue still has of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn forget(&self, tenant: &TenantId) -> Result<(), Failure> {
        self.store.clear(tenant).await?;
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant);
        Ok(())
    }

    /// What a tenant may have. Of one that is not there: nothing is refused for it, since nothing of it is found.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn quotas(&self, tenant: &TenantId) -> Result<Quotas, Failure> {
        Ok(self.settings(tenant).await?.quotas)
    }

    /// The same, with all else that it may.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn settings(&self, tenant: &TenantId) -> Result<TenantSettings, Failure> {
        let found = self.store.get::<Tenant>(tenant, ENTRY).await?;
        Ok(found.map_or_else(|| TenantSettings { quotas: Quotas::unlimited(), ..TenantSettings::default() }, |found| found.object.settings))
    }

    /// What a tenant has.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn in_use(&self, tenant: &TenantId) -> Result<InUse, Failure> {
        let gate = self.gate(tenant);
        Ok(InUse {
            jobs: self.store.list::<Job>(tenant, None, usize::MAX).await?.len() as u64,
            component_bytes: self.component_bytes(tenant).await?,
            state_bytes: gate.state_bytes.load(Ordering::Relaxed),
            memory_bytes: gate.memory_bytes.load(Ordering::Relaxed),
        })
    }

    /// What was measured of a tenant.
    pub(crate) fn measured(&self, tenant: &TenantId, state_bytes: u64, memory_bytes: u64) {
        let gate = self.gate(tenant);
        gate.state_bytes.store(state_bytes, Ordering::Relaxed);
        gate.memory_bytes.store(memory_bytes, Ordering::Relaxed);
    }

    /// Lets a request in. An error says after how many ms the next one would be.
    ///
    /// # Errors
    /// The tenant asks too often.
    pub async fn admit_request(&self, tenant: &TenantId) -> Result<(), Refused> {
        let Some(per_s) = self.quotas(tenant).await.map_err(Refused::now)?.requests_per_s else { return Ok(()) };
        let gate = self.gate(tenant);
        let now_ms = self.clock.monotonic_ms();
        let taken = gate.requests.lock().unwrap_or_else(PoisonError::into_inner).take(now_ms, per_s, per_s * BURST_S, 1);
        taken.map_err(|wait_ms| {
            let exceeded = Exceeded { quota: Quota::RequestsPerS, limit: per_s, used: per_s };
            Refused { failure: exceeded.failure(), wait_ms: Some(wait_ms) }
        })
    }

    /// Lets a tenant upload; it is one of few uploads until the permit is dropped.
    ///
    /// # Errors
    /// It uploads too much at once.
    pub fn admit_upload(&self, tenant: &TenantId) -> Result<OwnedSemaphorePermit, Refused> {
        permit(&self.gate(tenant).uploads, Quota::Uploads, UPLOADS_MAX)
    }

    /// Lets a tenant listen to a stream until the permit is dropped.
    ///
    /// # Errors
    /// It listens to too many.
    pub fn admit_stream(&self, tenant: &TenantId) -> Result<OwnedSemaphorePermit, Refused> {
        permit(&self.gate(tenant).streams, Quota::Streams, STREAMS_MAX)
    }

    /// Lets a tenant have one more job. It must be written down before what is returned is dropped.
    ///
    /// # Errors
    /// It has as many as it may have, or more state.
    pub async fn admit_job(&self, tenant: &TenantId) -> Result<Admitted, Failure> {
        let admitted = self.admitting(tenant).await?;
        self.check_state(tenant).await?;
        if let Some(limit) = self.quotas(tenant).await?.jobs {
            let used = self.store.list::<Job>(tenant, None, usize::MAX).await?.len() as u64;
            Exceeded::check(Quota::Jobs, limit, used, 1)?;
        }
        Ok(admitted)
    }

    /// Lets a tenant have a component of so many bytes more. It must be written down before what is returned is dropped.
    ///
    /// # Errors
    /// That would be more than it may have.
    pub async fn admit_component(&self, tenant: &TenantId, bytes: u64) -> Result<Admitted, Failure> {
        let admitted = self.admitting(tenant).await?;
        self.check_component(tenant, bytes).await?;
        Ok(admitted)
    }

    /// Whether components of so many bytes fit, as far as it is known before they are there.
    ///
    /// # Errors
    /// They do not.
    pub async fn check_component(&self, tenant: &TenantId, bytes: u64) -> Result<(), Failure> {
        let Some(limit) = self.quotas(tenant).await?.component_bytes else { return Ok(()) };
        Exceeded::check(Quota::ComponentBytes, limit, self.component_bytes(tenant).await?, bytes)
    }

    /// Whether a tenant may have more state than it has.
    ///
    /// # Errors
    /// It has as much as it may have.
    pub async fn check_state(&self, tenant: &TenantId) -> Result<(), Failure> {
        let Some(limit) = self.quotas(tenant).await?.state_bytes else { return Ok(()) };
        Exceeded::check(Quota::StateBytes, limit, self.gate(tenant).state_bytes.load(Ordering::Relaxed), 1)
    }

    async fn admitting(&self, tenant: &TenantId) -> Result<Admitted, Failure> {
        let guard = self.gate(tenant).admitting.clone().lock_owned().await;
        // A request of a tenant that is being deleted adds nothing to it.
        self.get(tenant).await?;
        Ok(Admitted { _guard: guard })
    }

    async fn component_bytes(&self, tenant: &TenantId) -> Result<u64, Failure> {
        Ok(self.store.list::<Component>(tenant, None, usize::MAX).await?.iter().map(|found| found.object.bytes).sum())
    }

    fn gate(&self, tenant: &TenantId) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.entry(tenant.clone()).or_insert_with(|| Arc::new(Gate::new(self.clock.monotonic_ms()))).clone()
    }
}

/// Something was admitted: until this is dropped nobody else of the tenant is.
#[must_use = "it must live until what was admitted is written down"]
pub struct Admitted {
    _guard: OwnedMutexGuard<()>,
}

/// Not now.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub failure: Failure,
    /// When it is worth another try, if time alone helps.
    pub wait_ms: Option<i64>,
}

impl Refused {
    fn now(failure: Failure) -> Self {
        Self { failure, wait_ms: None }
    }
}

fn permit(semaphore: &Arc<Semaphore>, quota: Quota, limit: usize) -> Result<OwnedSemaphorePermit, Refused> {
    semaphore.clone().try_acquire_owned().map_err(|_| {
        let exceeded = Exceeded { quota, limit: limit as u64, used: limit as u64 };
        Refused { failure: exceeded.failure(), wait_ms: Some(1_000) }
    })
}

#[cfg(test)]
mod tests;
