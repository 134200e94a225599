//! What happens in the service, for whoever listens: a bounded ring per tenant. Who comes late or does not keep up misses the oldest, and is told.
//! Numbers are those of the tenant: they tell nobody what others do, and one that makes many events has none of another forgotten.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use millstream_engine::clock::Clock;
use millstream_model::ids::TenantId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Events that are kept of each tenant.
const KEPT: usize = 4_096;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Event {
    /// Its number; grows.
    pub number: u64,
    /// When, ms since epoch.
    pub at_ms: i64,
    /// The job that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// A job is in another phase.
    Phase {
        /// Which.
        phase: String,
        /// Why, if it is a bad one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// A job has a new version.
    Version {
        /// Its number.
        version: u64,
    },
    /// A trial is in another phase.
    Trial {
        /// Its number.
        trial: u64,
        /// Which.
        phase: String,
        /// Why, if it is over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A savepoint was taken.
    Savepoint {
        /// Its name.
        savepoint: String,
    },
    /// The listener did not keep up.
    Missed {
        /// So many events.
        count: u64,
    },
}

/// The events of the service. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    clock: Arc<dyn Clock>,
    rings: Arc<Mutex<BTreeMap<TenantId, Ring>>>,
    /// Events of all tenants so far: whoever waits looks again.
    all: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    newest: u64,
    events: VecDeque<Event>,
}

impl Events {
    /// None yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, rings: Arc::default(), all: watch::Sender::new(0) }
    }

    /// Something has happened.
    pub fn emit(&self, tenant: &TenantId, job: Option<&str>, what: What) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = rings.entry(tenant.clone()).or_default();
        ring.newest += 1;
        let event = Event { number: ring.newest, at_ms: self.clock.now_ms(), job: job.map(str::to_owned), what };
        ring.events.push_back(event);
        if ring.events.len() > KEPT {
            ring.events.pop_front();
        }
        drop(rings);
        self.all.send_modify(|all| *all += 1);
    }

    /// The number of the last event of a tenant.
    pub fn newest(&self, tenant: &TenantId) -> u64 {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).map_or(0, |ring| ring.newest)
    }

    /// Forgets the events of a tenant.
    pub fn forget(&self, tenant: &TenantId) {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant);
    }

    /// The events of a tenant, or of one of its jobs, behind number `after`; waits until there is one. Cancel-safe.
    pub async fn after(&self, tenant: &TenantId, job: Option<&str>, after: &mut u64) -> Vec<Event> {
        let mut all = self.all.subscribe();
        loop {
            let found = self.behind(tenant, job, after);
            if !found.is_empty() {
                return found;
            }
            if all.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn behind(&self, tenant: &TenantId, job: Option<&str>, after: &mut u64) -> Vec<Event> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        let Some(ring) = rings.get(tenant) else { return found };
        let missed = ring.events.front().map_or(0, |oldest| oldest.number.saturating_sub(*after + 1));
        if missed > 0 {
            found.push(Event { number: *after + missed, at_ms: self.clock.now_ms(), job: None, what: What::Missed { count: missed } });
        }
        let own = ring.events.iter().filter(|event| event.number > *after && job.is_none_or(|job| event.job.as_deref() == Some(job)));
        found.extend(own.cloned());
        *after = ring.newest;
        found
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::clock::ManualClock;

    use super::*;

    fn phase(phase: &str) -> What {
        What::Phase { phase: phase.into(), problem: None }
    }

    #[tokio::test]
    async fn a_tenant_hears_of_its_own_jobs_only_and_of_everything_that_it_missed() {
        let events = Events::new(Arc::new(ManualClock::at(7)));
        let (ours, theirs) = (TenantId::from("a"), TenantId::from("b"));
        events.emit(&theirs, Some("x"), phase("running"));
        events.emit(&ours, Some("x"), phase("running"));
        let mut after = 0;
        let heard = events.after(&ours, Some("x"), &mut after).await;
        assert_eq!(heard.iter().map(|event| event.number).collect::<Vec<_>>(), [1]);
        (0..=KEPT).for_each(|_| events.emit(&theirs, Some("x"), phase("stopped")));
        assert_eq!(events.behind(&ours, None, &mut 0).len(), 1, "what another tenant does makes nobody miss anything");
        for _ in 0..=KEPT {
            events.emit(&ours, Some("x"), phase("stopped"));
        }
        let heard = events.after(&ours, Some("x"), &mut after).await;
        assert_eq!(heard[0].what, What::Missed { count: 1 });
        assert_eq!(heard.len(), KEPT + 1);
    }
}
