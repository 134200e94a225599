//! What all handlers share.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use millstream_engine::clock::Clock;

use crate::{
    catalogue::Store,
    components::Components,
    events::Events,
    jobs::{Jobs, meter::Meter},
    logs::Logs,
    tenants::Tenants,
};

/// The service.
pub struct Service {
    /// The catalogue.
    pub store: Store,
    /// Who shares it.
    pub tenants: Arc<Tenants>,
    /// What they use.
    pub meter: Meter,
    /// What was pushed.
    pub components: Arc<Components>,
    /// What runs.
    pub jobs: Arc<Jobs>,
    /// What happens.
    pub events: Events,
    /// What was said.
    pub logs: Logs,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Every job that should run was started.
    pub is_ready: AtomicBool,
    /// Idempotency keys of requests that are being carried out.
    pub answering: Mutex<HashSet<String>>,
}
