//! The engine that runs components, shared by the whole process: settings, the clock that interrupts guests, the compile cache.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{component::Component, error::Error, limits::Limits};

/// How the process runs guests.
#[derive(Clone, Debug)]
pub struct RuntimeSettings {
    /// What each guest may use.
    pub limits: Limits,
    /// Where compiled components are kept; none: they are compiled at every start.
    pub cache_dir: Option<PathBuf>,
    /// Most instances at once; memory for them is reserved (not used) at the start. Default: 1,000.
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
pub struct Runtime {}

impl Runtime {
    /// A runtime with these settings.
    ///
    /// # Errors
    /// The memory for the instances cannot be reserved.
    pub fn new(_settings: RuntimeSettings) -> Result<Self, Error> {
        todo!()
    }

    /// Loads a component from its bytes: inspects it, refuses what it may not import, compiles it or takes it from the cache.
    /// `name` is how the user names it.
    ///
    /// # Errors
    /// It is no component, imports what it is not granted, or does not compile.
    pub async fn load(&self, _bytes: Arc<[u8]>, _name: &str) -> Result<Component, Error> {
        todo!()
    }

    /// [`Self::load`] from a file, which also names the component.
    ///
    /// # Errors
    /// As [`Self::load`], or the file cannot be read.
    pub async fn load_file(&self, _path: &Path) -> Result<Component, Error> {
        todo!()
    }
}
