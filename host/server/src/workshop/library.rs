//! Components of a workshop: by digest, out of a directory; the names that job files give them are looked up by the service.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use millstream_engine::operators::{ComponentLoader, component::SettingsSource};
use millstream_model::ErrorKind;
use millstream_wasm::{Component, Error, Runtime};

use crate::failure::Failure;

/// Loaded components that are kept for the next job that names them.
const LOADED_MAX: usize = 64;

/// Components by digest.
pub struct Library {
    runtime: Runtime,
    directory: PathBuf,
    loaded: Mutex<VecDeque<(String, Component)>>,
}

impl Library {
    /// Those of a directory: `<digest>.wasm`.
    pub fn new(runtime: Runtime, directory: PathBuf) -> Self {
        Self { runtime, directory, loaded: Mutex::default() }
    }

    /// A component, ready to make instances of.
    ///
    /// # Errors
    /// It is not there, or is not what its name says.
    pub async fn load(&self, digest: &str, name: &str) -> Result<Component, Failure> {
        if let Some(component) = self.loaded(digest) {
            return Ok(component);
        }
        let file = self.file(digest);
        let bytes = tokio::fs::read(&file).await;
        let bytes =
            bytes.map_err(|error| Failure::new(ErrorKind::Unavailable, format!("component `{name}` cannot be read")).because(&error))?;
        let component = self.runtime.load(bytes.into(), name).await.map_err(|error| Failure::from_error(error.kind(), &error))?;
        if component.digest().to_string() != digest {
            return Err(Failure::new(ErrorKind::Corrupt, format!("`{}` is not what was pushed", file.display())).fix("push it again"));
        }
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.push_back((digest.to_owned(), component.clone()));
        if loaded.len() > LOADED_MAX {
            loaded.pop_front();
        }
        Ok(component)
    }

    /// The bytes of a component.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn bytes(&self, digest: &str) -> Result<Bytes, Failure> {
        let read = tokio::fs::read(self.file(digest)).await;
        let failed = |error| Failure::new(ErrorKind::Unavailable, format!("component `sha256:{digest}` cannot be read")).because(&error);
        read.map(Bytes::from).map_err(failed)
    }

    fn file(&self, digest: &str) -> PathBuf {
        self.directory.join(format!("{digest}.wasm"))
    }

    fn loaded(&self, digest: &str) -> Option<Component> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let at = loaded.iter().position(|(known, _)| known == digest)?;
        let found = loaded.remove(at)?;
        let component = found.1.clone();
        loaded.push_back(found);
        Some(component)
    }
}

/// Loads the components of one version of a job.
pub(super) struct Loader<'a> {
    library: &'a Library,
    known: &'a BTreeMap<String, Result<String, Failure>>,
    /// What every name meant that was asked for.
    asked: Mutex<BTreeMap<String, String>>,
    lacking: Mutex<BTreeSet<String>>,
    settings: Arc<dyn SettingsSource>,
}

impl<'a> Loader<'a> {
    /// `known`: what names mean. `settings`: what those of components refer to.
    pub(super) fn new(
        library: &'a Library,
        known: &'a BTreeMap<String, Result<String, Failure>>,
        settings: Arc<dyn SettingsSource>,
    ) -> Self {
        Self { library, known, asked: Mutex::default(), lacking: Mutex::default(), settings }
    }

    /// The names that were asked for and are not known.
    pub(super) fn lacking(&self) -> BTreeSet<String> {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What every name meant that was asked for.
    pub(super) fn into_digests(self) -> BTreeMap<String, String> {
        self.asked.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find(&self, name: &str) -> Result<Component, Failure> {
        let digest = match self.known.get(name) {
            Some(known) => known.clone()?,
            None => {
                self.lacking.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
                return Err(Failure::new(ErrorKind::NotFound, format!("what `{name}` means is not known yet")));
            }
        };
        let component = self.library.load(&digest, name).await?;
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), digest);
        Ok(component)
    }
}

#[async_trait]
impl ComponentLoader for Loader<'_> {
    async fn load(&self, path: &Path) -> Result<Component, Error> {
        let reason = "the service reads no files of its machine as components: push it, and say `name` in place of `path`";
        let component = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Err(Error::Unreadable { component: component.into(), source: io::Error::other(reason) })
    }

    async fn load_named(&self, name: &str) -> Result<Component, Error> {
        self.find(name).await.map_err(|failure| {
            let fix = failure.problems.first().and_then(|problem| problem.fix.as_ref()).map(|fix| format!("; {fix}")).unwrap_or_default();
            Error::Unreadable { component: name.into(), source: io::Error::other(format!("{failure}{fix}")) }
        })
    }

    fn settings(&self) -> Arc<dyn SettingsSource> {
        self.settings.clone()
    }
}
