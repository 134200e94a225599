//! The engine that runs components, shared by the whole process: settings, the clock that interrupts guests, the compile cache.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::{
    cache::Cache,
    component::{Component, Digest},
    error::{Error, Failure},
    guest::InstanceContext,
    inspect::{check_imports, check_world, inspect},
    limits::{Call, Limit, LimitExceeded, Limits, Site},
    log::printable,
    meter::Ticker,
};

/// How the process runs guests.
#[derive(Clone, Debug)]
pub struct RuntimeSettings {
    /// What each guest may use.
    pub limits: Limits,
    /// Where compiled components are kept; none: they are compiled at every start. What lies there is executed, so each file is signed with a key
    /// that lies beside the directory (`<cache_dir>.key`, for the user alone), and counts only if its signature holds.
    pub cache_dir: Option<PathBuf>,
    /// Most instances at once; addresses for them are reserved (not memory) at the start. Default: 1,000.
    pub pooled_instances: u32,
    /// Where the randomness of guests begins: the same seed gives each instance the same numbers again. Default: 0.
    pub random_seed: u64,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self { limits: Limits::default(), cache_dir: None, pooled_instances: 1_000, random_seed: 0 }
    }
}

/// Compiles and runs components. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

/// What all clones of a runtime share.
pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
    pub(crate) limits: Arc<Limits>,
    pub(crate) pooled_instances: u32,
    random_seed: u64,
    cache: Option<Cache>,
}

impl Runtime {
    /// A runtime with these settings.
    ///
    /// # Errors
    /// Addresses for the instances cannot be reserved, or a thread cannot be started.
    pub fn new(settings: RuntimeSettings) -> Result<Self, Error> {
        let engine = Engine::new(&config(&settings)).map_err(|error| Error::Engine(error.into()))?;
        let ticker = Ticker::start(&engine, settings.limits.yield_interval).map_err(|error| Error::Engine(error.into()))?;
        let cache = settings.cache_dir.and_then(|directory| Cache::open(directory, &engine));
        let RuntimeSettings { limits, pooled_instances, random_seed, .. } = settings;
        Ok(Self { inner: Arc::new(Inner { engine, ticker, limits: Arc::new(limits), pooled_instances, random_seed, cache }) })
    }

    /// The runtime that has made something.
    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// The limits of every guest.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Loads a component from its bytes: inspects it, refuses what it may not import, compiles it or takes it from the cache.
    /// `name` is how the user names it.
    ///
    /// # Errors
    /// It is no component, imports what it is not granted, or does not compile.
    pub async fn load(&self, bytes: Arc<[u8]>, name: &str) -> Result<Component, Error> {
        let (inner, name): (_, Arc<str>) = (self.inner.clone(), name.into());
        // Compiling takes long, and linking compares types: not on a thread that carries streams.
        let loading = tokio::task::spawn_blocking(move || inner.load(&bytes, name));
        loading.await.unwrap_or_else(|stopped| Err(Error::Engine(stopped.into())))
    }

    /// [`Self::load`] from a file, which also names the component.
    ///
    /// # Errors
    /// As [`Self::load`], or the file cannot be read.
    pub async fn load_file(&self, path: &Path) -> Result<Component, Error> {
        let name = path.display().to_string();
        let unreadable = |source| Error::Unreadable { component: name.as_str().into(), source };
        let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
        self.inner.check_size(size, &name)?;
        let bytes = tokio::fs::read(path).await.map_err(unreadable)?;
        self.load(bytes.into(), &name).await
    }
}

impl Inner {
    fn load(self: Arc<Self>, bytes: &[u8], name: Arc<str>) -> Result<Component, Error> {
        self.check_size(bytes.len() as u64, &name)?;
        let inspection = inspect(bytes, &name)?;
        check_imports(&inspection, &name)?;
        check_world(&inspection, &name)?;
        let digest = Digest(Sha256::digest(bytes).into());
        let compile = || wasmtime::component::Component::new(&self.engine, bytes);
        let compiled = match &self.cache {
            Some(cache) => cache.get_or_compile(&self.engine, digest, compile),
            None => compile(),
        };
        let compiled =
            compiled.map_err(|error| Error::Compile { component: name.clone(), source: printable(&format!("{error:#}")).into() })?;
        Component::link(self.clone(), name, digest, inspection, &compiled)
    }

    fn check_size(&self, bytes: u64, name: &str) -> Result<(), Error> {
        let max = self.limits.component_bytes;
        if bytes <= max {
            return Ok(());
        }
        let site = Site { component: name.into(), operator: None, call: Call::Load };
        Err(Failure::Limit(LimitExceeded { site, limit: Limit::ComponentBytes, max }).into())
    }

    /// Where the randomness of an instance begins: its own, but the same again for the same job.
    pub(crate) fn seed(&self, context: &InstanceContext) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.random_seed.to_le_bytes());
        for part in [context.tenant.as_str(), context.job.as_str(), context.operator.as_ref().map_or("", |operator| operator.as_str())] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(context.subtask.0.to_le_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        u64::from_le_bytes(hash[..8].try_into().expect("8 of 32 bytes"))
    }
}

/// The engine for hostile guests: only what compilers of the contract's languages need, everything deterministic.
fn config(settings: &RuntimeSettings) -> Config {
    let limits = &settings.limits;
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Calls run on fibers and host imports may wait; the component model's own concurrency makes every call slower.
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        // The glue between the modules of one component (JavaScript's has several) moves between their memories; the limit counts all of them.
        .wasm_multi_memory(true)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_tail_call(false)
        .wasm_extended_const(true)
        .max_wasm_stack(limits.stack_bytes as usize)
        // Host functions run on the guest's fiber, above the guest's own stack.
        .async_stack_size(limits.stack_bytes as usize + (1 << 20))
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable);
    if settings.pooled_instances > 0 {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(settings)));
    }
    config
}

fn pool(settings: &RuntimeSettings) -> PoolingAllocationConfig {
    let limits = &settings.limits;
    let instances = settings.pooled_instances;
    let mut pool = PoolingAllocationConfig::new();
    // A component is often several core modules: the program, adapters, shims.
    let modules = instances.saturating_mul(4);
    pool.total_component_instances(instances)
        .total_core_instances(modules)
        .total_memories(instances)
        .total_tables(modules)
        .total_stacks(instances)
        .max_core_instances_per_component(64)
        .max_memories_per_component(4)
        .max_tables_per_component(32)
        .max_tables_per_module(8)
        .table_elements(limits.table_entries as usize)
        .max_memory_size(usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX).next_multiple_of(64 << 10));
    pool
}
