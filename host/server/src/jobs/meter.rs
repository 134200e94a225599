//! What tenants use: looked at every few seconds while their jobs run, added up by day, and written down now and then.
//!
//! A look: counters of every run → what has grown since the look before → the tenant's sums; bytes of state and of memory → its quotas. A tenant
//! whose state is over its quota has its job with the most state stopped behind a checkpoint, one at each look, with the quota as the reason: what it has
//! computed stays, and the job goes on when there is room again. So has one whose runner has too much memory or has sent too much today, beginning with the
//! job that was started last; all that jobs without a runner of their own send is nobody's. After a crash at most [`WRITE_MS`] of use are not counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use millstream_engine::{
    clock::Clock,
    run::{JobStatus, OperatorKind},
};
use millstream_model::ids::TenantId;

use super::{Jobs, observed::Phase};
use crate::{
    catalogue::{Expected, Found, Kind, Store, objects::Job},
    failure::Failure,
    kept::Kept,
    logs::Logs,
    place::Place,
    savepoint,
    tenants::{
        Exceeded, Quota, Tenants,
        usage::{Amounts, Reading, Usage},
    },
};

/// How long use may not be written down.
const WRITE_MS: i64 = 60_000;
/// How long a job that is over a quota has for its last checkpoint. Other tenants are measured only after that.
const LAST_CHECKPOINT_MAX: Duration = Duration::from_secs(30);
/// The name of the entry of a tenant's use.
const ENTRY: &str = "usage";

/// Measures tenants.
pub struct Meter {
    store: Store,
    tenants: Arc<Tenants>,
    jobs: Arc<Jobs>,
    logs: Logs,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

/// What was seen at the look before.
#[derive(Default)]
struct Seen {
    /// When it was, elapsed ms; none: there was none.
    at_ms: Option<i64>,
    jobs: BTreeMap<(TenantId, String), SeenJob>,
    /// Bytes of savepoints by their directory: they never change.
    savepoints: BTreeMap<PathBuf, u64>,
    /// By tenant, its runner and what that had sent.
    sent: BTreeMap<TenantId, (u32, u64)>,
    /// What is not written down yet.
    pending: BTreeMap<TenantId, Amounts>,
    written_ms: i64,
}

#[derive(Clone, Copy, Default)]
struct SeenJob {
    reading: Reading,
    /// Bytes of its last checkpoint; none: not known.
    state_bytes: Option<u64>,
}

impl Meter {
    /// Measures the tenants of these jobs.
    pub fn new(store: Store, tenants: Arc<Tenants>, jobs: Arc<Jobs>, logs: Logs, clock: Arc<dyn Clock>) -> Self {
        Self { store, tenants, jobs, logs, clock, seen: Mutex::default() }
    }

    /// Looks at everything once.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn look(&self) -> Result<(), Failure> {
        let now_ms = self.clock.monotonic_ms();
        let elapsed_ms = self.seen().at_ms.replace(now_ms).map_or(0, |before| now_ms - before);
        for tenant in self.store.tenants(Kind::Tenant).await? {
            self.look_at(&tenant, u64::try_from(elapsed_ms).unwrap_or_default()).await?;
        }
        if now_ms - self.seen().written_ms >= WRITE_MS {
            self.seen().written_ms = now_ms;
            self.write_down().await?;
        }
        Ok(())
    }

    async fn look_at(&self, tenant: &TenantId, elapsed_ms: u64) -> Result<(), Failure> {
        let quotas = self.tenants.quotas(tenant).await?;
        self.logs.limit(tenant.as_str(), quotas.log_bytes_per_s);
        let (mut used, mut state) = (Amounts::default(), BTreeMap::new());
        let jobs = self.store.list::<Job>(tenant, None, usize::MAX).await?;
        for job in &jobs {
            let (grown, bytes) = self.look_at_job(tenant, &job.name).await;
            used.add(grown);
            state.insert(job.name.clone(), bytes);
        }
        let savepoints = self.savepoint_bytes(tenant, state.keys()).await;
        let state_bytes = state.values().sum::<u64>() + savepoints;
        used.state_byte_s = state_bytes.saturating_mul(elapsed_ms) / 1_000;
        let memory_bytes = self.jobs.workshops.memory_of(tenant).unwrap_or_default();
        used.memory_byte_s = memory_bytes.saturating_mul(elapsed_ms) / 1_000;
        used.egress_bytes = self.sent_since(tenant).await;
        self.tenants.measured(tenant, state_bytes, memory_bytes);
        {
            let mut seen = self.seen();
            seen.jobs.retain(|(of, name), _| of != tenant || state.contains_key(name));
            seen.pending.entry(tenant.clone()).or_default().add(used);
        }
        if let Some(limit) = quotas.state_bytes.filter(|&limit| state_bytes > limit) {
            self.stop_largest(tenant, &state, Exceeded { quota: Quota::StateBytes, limit, used: state_bytes }).await;
        }
        match quotas.memory_bytes.filter(|&limit| memory_bytes > limit) {
            Some(limit) => self.stop_last(tenant, &jobs, Exceeded { quota: Quota::MemoryBytes, limit, used: memory_bytes }).await,
            // Not before: the kernel would end at once what has more than a group may have from now on.
            None => self.jobs.workshops.follow(tenant, &quotas),
        }
        if let Some(limit) = quotas.egress_bytes_per_day {
            let today = self.usage(tenant).await?.today(self.clock.now_ms()).egress_bytes;
            if today > limit {
                self.stop_last(tenant, &jobs, Exceeded { quota: Quota::EgressBytesPerDay, limit, used: today }).await;
            }
        }
        Ok(())
    }

    /// What the runner of a tenant has sent since the look before; another runner begins at zero again. What one sends between the last look and its end
    /// is not counted.
    async fn sent_since(&self, tenant: &TenantId) -> u64 {
        let Some((process, sent)) = self.jobs.workshops.sent_by(tenant).await else { return 0 };
        let before = self.seen().sent.insert(tenant.clone(), (process, sent));
        sent.saturating_sub(before.filter(|(of, _)| *of == process).map_or(0, |(_, sent)| sent))
    }

    /// What a job has used since the look before, and the bytes of its state.
    async fn look_at_job(&self, tenant: &TenantId, name: &str) -> (Amounts, u64) {
        let status = match self.jobs.runner(tenant, name).running() {
            Some(running) => running.status().await,
            None => None,
        };
        let key = (tenant.clone(), name.to_owned());
        let before = self.seen().jobs.get(&key).copied().unwrap_or_default();
        let reading = status.as_ref().map_or(before.reading, reading);
        let state_bytes = match status.as_ref().and_then(checkpoint_bytes).or(before.state_bytes) {
            Some(bytes) => bytes,
            None => checkpoint_bytes_on_disk(&self.jobs.directory_of(tenant, name)).await,
        };
        self.seen().jobs.insert(key, SeenJob { reading, state_bytes: Some(state_bytes) });
        (reading.since(before.reading), state_bytes)
    }

    /// Bytes of the savepoints of these jobs, those included that jobs take by themselves.
    async fn savepoint_bytes(&self, tenant: &TenantId, jobs: impl Iterator<Item = &String>) -> u64 {
        let (mut total, mut there) = (0, BTreeSet::new());
        for job in jobs {
            let Ok((place, _)) = Place::existing(&self.jobs.directory_of(tenant, job)) else { continue };
            for name in savepoint::names(&place).unwrap_or_default() {
                let directory = place.savepoints().join(name);
                let known = self.seen().savepoints.get(&directory).copied();
                let bytes = match known {
                    Some(bytes) => bytes,
                    // One that cannot be read is named where it is used.
                    None => Kept::savepoint(&directory).await.map_or(0, |kept| kept.facts().bytes),
                };
                total += bytes;
                there.insert(directory.clone());
                self.seen().savepoints.insert(directory, bytes);
            }
        }
        let of_tenant = self.jobs.workshops.jobs_of(tenant);
        self.seen().savepoints.retain(|directory, _| !directory.starts_with(&of_tenant) || there.contains(directory));
        total
    }

    /// Stops the job with the most state, of those that run.
    async fn stop_largest(&self, tenant: &TenantId, state: &BTreeMap<String, u64>, exceeded: Exceeded) {
        let running = state.iter().filter(|(name, _)| self.jobs.runner(tenant, name).running().is_some());
        if let Some((name, _)) = running.max_by_key(|(_, bytes)| **bytes) {
            self.stop(tenant, name, exceeded).await;
        }
    }

    /// Stops the job that was started last, of those that run: with those before it there was room. When none is left, the runner ends, since an allocator
    /// keeps what it has.
    async fn stop_last(&self, tenant: &TenantId, jobs: &[Found<Job>], exceeded: Exceeded) {
        let running = || jobs.iter().filter(|job| self.jobs.runner(tenant, &job.name).running().is_some());
        if let Some(job) = running().max_by_key(|job| self.jobs.runner(tenant, &job.name).observed().since_ms) {
            self.stop(tenant, &job.name, exceeded).await;
        }
        if running().next().is_none() {
            self.jobs.workshops.end_idle(tenant).await;
        }
    }

    /// Stops a job, behind a checkpoint if there will be one.
    async fn stop(&self, tenant: &TenantId, name: &str, exceeded: Exceeded) {
        let runner = self.jobs.runner(tenant, name);
        // Whoever changes it now goes first; there is another look.
        let Ok(_turn) = runner.turn.try_lock() else { return };
        runner.stop_within(&self.jobs, LAST_CHECKPOINT_MAX).await;
        let failure = exceeded.failure();
        tracing::warn!(%tenant, job = name, "the job is stopped: {failure}");
        runner.set(&self.jobs, Phase::Failed, failure.problems);
    }

    /// Looks once more before everything stops, and writes down what was used.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn last_look(&self) -> Result<(), Failure> {
        self.look().await?;
        self.write_down().await
    }

    /// Writes down what was used.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn write_down(&self) -> Result<(), Failure> {
        let pending: Vec<(TenantId, Amounts)> = self.seen().pending.iter().map(|(tenant, amounts)| (tenant.clone(), *amounts)).collect();
        for (tenant, amounts) in pending.into_iter().filter(|(_, amounts)| *amounts != Amounts::default()) {
            let found = self.store.get::<Usage>(&tenant, ENTRY).await?;
            let mut usage = found.map(|found| found.object).unwrap_or_default();
            usage.add(self.clock.now_ms(), amounts);
            // One who looks while it is written must not count it twice.
            let mut taken = self.seen().pending.remove(&tenant).unwrap_or_default();
            if let Err(error) = self.store.put(&tenant, ENTRY, &usage, Expected::Any).await {
                taken.add(self.seen().pending.remove(&tenant).unwrap_or_default());
                self.seen().pending.insert(tenant, taken);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// What a tenant has used until now.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn usage(&self, tenant: &TenantId) -> Result<Usage, Failure> {
        let mut usage = self.store.get::<Usage>(tenant, ENTRY).await?.map(|found| found.object).unwrap_or_default();
        let pending = self.seen().pending.get(tenant).copied().unwrap_or_default();
        usage.add(self.clock.now_ms(), pending);
        Ok(usage)
    }

    /// Forgets a tenant.
    pub fn forget(&self, tenant: &TenantId) {
        let mut seen = self.seen();
        seen.pending.remove(tenant);
        seen.sent.remove(tenant);
        seen.jobs.retain(|(of, _), _| of != tenant);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counters of a run.
fn reading(status: &JobStatus) -> Reading {
    let of = |kind: OperatorKind| status.operators.iter().filter(move |operator| operator.kind == kind);
    Reading {
        cpu: status.operators.iter().map(|operator| operator.guest_time).sum(),
        rows_in: of(OperatorKind::Source).map(|operator| operator.rows_out).sum(),
        rows_out: of(OperatorKind::Sink).map(|operator| operator.rows_in).sum(),
    }
}

fn checkpoint_bytes(status: &JobStatus) -> Option<u64> {
    Some(status.durable.as_ref()?.last_checkpoint.as_ref()?.bytes_total)
}

/// The bytes of the last checkpoint of a job that has not run in this process; one that cannot be read is named where it is used.
async fn checkpoint_bytes_on_disk(directory: &Path) -> u64 {
    let Ok((place, owner)) = Place::existing(directory) else { return 0 };
    Kept::last(&place, &owner).await.ok().flatten().map_or(0, |kept| kept.facts().bytes)
}
