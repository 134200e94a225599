//! Whose turn it is to have something compiled.
//!
//! Each tenant waits for itself first, and only one of its components waits among those of others. So tenants take turns, and who has pushed two hundred
//! components that take a minute each keeps another one waiting for one of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use millstream_model::ids::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns of tenants, in the order in which they come.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    own: Mutex<BTreeMap<TenantId, Weak<Semaphore>>>,
}

/// A turn, until it is dropped.
pub(super) struct Turn {
    /// Given back first: then the next tenant has its turn, and only then another component of this one waits for one.
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Turns {
    /// So many at once.
    pub(super) fn new(at_once: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(at_once)), own: Mutex::default() }
    }

    /// Waits until it is the turn of this tenant.
    pub(super) async fn take(&self, tenant: &TenantId) -> Turn {
        let own = self.own(tenant).acquire_owned().await.expect("nobody closes it");
        let all = self.all.clone().acquire_owned().await.expect("nobody closes it");
        Turn { _all: all, _own: own }
    }

    fn own(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut known = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(tenant).and_then(Weak::upgrade) {
            return own;
        }
        // Of tenants that wait for nothing, nothing is kept.
        known.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(1));
        known.insert(tenant.clone(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::BoxFuture};

    use super::*;

    #[tokio::test]
    async fn a_tenant_waits_for_one_component_of_another_however_many_that_has_pushed() {
        let turns = Turns::new(1);
        let tenants = ["stranger", "stranger", "stranger", "quiet"].map(TenantId::from);
        let mut waiting: Vec<BoxFuture<'_, Turn>> = tenants.iter().map(|tenant| turns.take(tenant).boxed()).collect();
        let mut order = Vec::new();
        let mut now: Option<Turn> = None;
        while order.len() < tenants.len() {
            // All of them ask, in this order, before the turn that is taken ends.
            for (number, waits) in waiting.iter_mut().enumerate() {
                if !order.contains(&number)
                    && let Some(turn) = waits.now_or_never()
                {
                    assert!(now.is_none(), "one at a time");
                    order.push(number);
                    now = Some(turn);
                }
            }
            now = None;
        }
        assert_eq!(order, [0, 3, 1, 2]);
        drop(waiting);
        turns.own(&tenants[0]);
        assert_eq!(turns.own.lock().expect("not held").len(), 1, "nobody waits any more");
    }
}
