//! What this machine gives to commands: the runtimes, and where things are kept between runs.

use std::{env, path::PathBuf};

use millstream_wasm::{Runtime, RuntimeSettings};

use crate::report::{Exit, Failure};

/// Instances that planning a job needs at once, or inspecting a component. Interpreters are several modules, each of which counts.
pub const INSTANCES_TO_PLAN: u32 = 32;
/// Instances that one job may have at once: every parallel subtask of every component, and those of a swap beside them.
pub const INSTANCES_TO_RUN: u32 = 1_000;

/// Where compiled components are kept; none: this user has no home, so nothing is kept.
pub fn component_cache() -> Option<PathBuf> {
    let from = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("millstream").join("components"))
}

/// The engine of guests, with room for this many instances at once. Address space is reserved for them, not memory.
pub fn component_runtime(pooled_instances: u32) -> Result<Runtime, Failure> {
    let settings = RuntimeSettings { cache_dir: component_cache(), pooled_instances, ..RuntimeSettings::default() };
    Runtime::new(settings).map_err(|error| Failure::from_error(Exit::of(error.kind()), &error))
}

/// Runs one future to its end, for commands that do one thing at a time.
pub fn block_on<T, E: Into<Failure>>(future: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, "this process cannot start its tasks").because(&error))?;
    let done = runtime.block_on(future).map_err(Into::into);
    // Calls that nobody waits for any more, such as one to a broker that does not answer, keep nobody waiting.
    runtime.shutdown_background();
    done
}
