//! Removes what is no longer kept (R6); [`retention`] decides. It runs while nothing is uploaded, and when it returns nothing of it is under way: a
//! removal that arrives late would take what was stored again meanwhile.
//!
//! Manifests go after their files, so that a removal that was cut short finds them when it is repeated. A kept manifest that cannot be read stops
//! everything: nobody knows what it names.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, stream};
use millstream_model::ids::JobId;
use millstream_storage::{CheckpointStorage, Retained};
use tokio_util::sync::CancellationToken;

use super::{
    files::{self, Error, files_prefix},
    manifest::{FileReference, Manifest},
    retention::{self, Sweep},
};

/// Removals under way at once.
const CONCURRENCY: usize = 16;

/// The files of a checkpoint.
pub type Files = BTreeSet<FileReference>;

/// A committed checkpoint.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its manifest.
    pub at: Retained,
    /// What it names; none: that has to be read.
    pub files: Option<Arc<Files>>,
}

impl Committed {
    /// One whose manifest is at hand.
    pub fn new(at: Retained, manifest: &Manifest) -> Self {
        Self { at, files: Some(Arc::new(manifest.files().into_iter().cloned().collect())) }
    }

    async fn files(&self, storage: &dyn CheckpointStorage) -> Result<Arc<Files>, Error> {
        if let Some(files) = &self.files {
            return Ok(files.clone());
        }
        let manifest = files::read_manifest(storage, &self.at.manifest, Some(&self.at.manifest_sha256)).await?;
        Ok(Arc::new(manifest.files().into_iter().cloned().collect()))
    }
}

/// What is to be removed, and what not.
pub struct Collection {
    /// Where.
    pub storage: Arc<dyn CheckpointStorage>,
    /// Whose.
    pub job: JobId,
    /// The incarnation that removes.
    pub incarnation: u64,
    /// Checkpoints that are no longer kept.
    pub garbage: Vec<Committed>,
    /// Checkpoints of which nothing may be removed.
    pub kept: Vec<Committed>,
    /// Paths that this incarnation created; what no kept checkpoint names goes too: a checkpoint that was given up left it.
    pub created: BTreeSet<String>,
    /// Whether orphans are looked for; the time, ms since epoch.
    pub sweeps_at_ms: Option<i64>,
}

/// How a removal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Nothing of it is left.
    All,
    /// It was stopped.
    NotAll,
    /// It is to look as if the process had died between the files and the manifests.
    Died,
}

impl Collection {
    /// Removes it, unless it is `stopped` meanwhile. `dies` is asked when files of garbage are gone and their manifests are not.
    ///
    /// # Errors
    /// Something cannot be read or removed; what was not removed may be tried again.
    pub async fn remove(&self, stopped: &CancellationToken, dies: impl Fn() -> bool) -> Result<Removed, Error> {
        if self.garbage.is_empty() && self.created.is_empty() && self.sweeps_at_ms.is_none() {
            return Ok(Removed::All);
        }
        let mut kept = BTreeSet::new();
        for checkpoint in &self.kept {
            let files = checkpoint.files(self.storage.as_ref()).await?;
            kept.extend(files.iter().map(|file| self.path_of(file)));
            kept.insert(checkpoint.at.manifest.clone());
        }
        let mut candidates = self.created.clone();
        for checkpoint in &self.garbage {
            match checkpoint.files(self.storage.as_ref()).await {
                Ok(files) => candidates.extend(files.iter().map(|file| self.path_of(file))),
                // It was removed before a crash.
                Err(Error::Storage(millstream_storage::Error::NotFound(_))) => {}
                Err(error) => return Err(error),
            }
        }
        self.delete(retention::removable(&candidates, &kept), stopped).await?;
        if !self.garbage.is_empty() && dies() {
            return Ok(Removed::Died);
        }
        self.delete(self.garbage.iter().map(|checkpoint| &checkpoint.at.manifest), stopped).await?;
        if let Some(now_ms) = self.sweeps_at_ms {
            self.sweep(Sweep { job: &self.job, incarnation: self.incarnation, now_ms }, kept, stopped).await?;
        }
        Ok(if stopped.is_cancelled() { Removed::NotAll } else { Removed::All })
    }

    /// Removes orphans; `kept`: paths.
    async fn sweep(&self, sweep: Sweep<'_>, kept: BTreeSet<String>, stopped: &CancellationToken) -> Result<(), Error> {
        let objects = self.storage.list(self.job.as_str()).await?;
        let manifests: BTreeSet<&str> = retention::orphan_manifests(sweep, &objects, &kept).into_iter().collect();
        let mut named = kept.clone();
        let left = objects.iter().map(|object| object.path.as_str()).filter(|path| {
            retention::manifest_incarnation(&self.job, path).is_some() && !manifests.contains(path) && !kept.contains(*path)
        });
        for path in left {
            let manifest = files::read_manifest(self.storage.as_ref(), path, None).await?;
            named.extend(manifest.files().into_iter().map(|file| self.path_of(file)));
        }
        self.delete(retention::orphan_files(sweep, &objects, &named), stopped).await?;
        self.delete(manifests, stopped).await
    }

    /// Deletes, and waits for every deletion that was begun, whatever becomes of the others.
    async fn delete(&self, paths: impl IntoIterator<Item = impl AsRef<str>>, stopped: &CancellationToken) -> Result<(), Error> {
        let paths: Vec<String> = paths.into_iter().map(|path| path.as_ref().to_owned()).collect();
        let begun = paths.into_iter().take_while(|_| !stopped.is_cancelled());
        let deletions = begun.map(|path| async move { self.storage.delete(&path).await });
        let results: Vec<_> = stream::iter(deletions).buffer_unordered(CONCURRENCY).collect().await;
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }

    fn path_of(&self, file: &FileReference) -> String {
        format!("{}/{}", files_prefix(&self.job), file.sha256)
    }
}
