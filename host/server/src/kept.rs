//! What a job keeps: its committed checkpoints in a job directory, and savepoints. For tools, which read and never decide.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_engine::checkpoint::{files::read_manifest, manifest::Manifest};
use millstream_model::ErrorKind;
use millstream_storage::{CheckpointStorage, CommitLog, CommitRecord, LocalCheckpointStorage, LocalCommitLog, Retained};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    failure::Failure,
    place::{Owner, Place},
    text,
};

/// A committed checkpoint or a savepoint, with its manifest read.
pub struct Kept {
    /// What it says.
    pub manifest: Manifest,
    /// Where it lies.
    pub storage: Arc<dyn CheckpointStorage>,
    /// What the names of its files begin with in the storage.
    pub files_prefix: String,
}

/// What is shown of one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// Whose it is.
    pub job: String,
    /// Its number.
    pub number: u64,
    /// The run that took it.
    pub incarnation: u64,
    /// When it was taken.
    pub created: String,
    /// When it was taken, ms since epoch.
    pub created_ms: i64,
    /// Size of all its files.
    pub bytes: u64,
    /// Number of its files.
    pub files: usize,
    /// The job had read all its input.
    pub finished: bool,
    /// What the job promises.
    pub guarantee: millstream_engine::connector::Guarantee,
    /// Its name, if it is a savepoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<String>,
}

impl Kept {
    /// The checkpoint that a job goes on from; none: nothing is committed yet.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is damaged.
    pub async fn last(place: &Place, owner: &Owner) -> Result<Option<Self>, Failure> {
        let Some(record) = record(place, owner).await? else { return Ok(None) };
        match record.committed() {
            Some(committed) => Self::committed(place, owner, &committed).await.map(Some),
            None => Ok(None),
        }
    }

    /// One committed checkpoint of a job.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is damaged.
    pub async fn committed(place: &Place, owner: &Owner, committed: &Retained) -> Result<Self, Failure> {
        Self::with_manifest(place, owner, &committed.manifest, Some(&committed.manifest_sha256)).await
    }

    /// The checkpoint whose manifest lies there; `sha256`: what the commit log says of it.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is damaged.
    pub async fn with_manifest(place: &Place, owner: &Owner, manifest: &str, sha256: Option<&str>) -> Result<Self, Failure> {
        let storage = place.storage(owner)?;
        let manifest = read_manifest(&*storage, manifest, sha256).await;
        let manifest = manifest.map_err(|error| {
            Failure::from_error(error.kind(), &error)
                .fix("`millstream checkpoint list DIR` shows older checkpoints that are kept; make one a savepoint (`millstream savepoint create NAME --checkpoint NUMBER --state DIR`), or take one from `millstream savepoint list --state DIR`, and start from it with --fresh --restore NAME")
        })?;
        Ok(Self { manifest, storage, files_prefix: format!("{}/files", owner.job) })
    }

    /// A savepoint in its own directory.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is damaged.
    pub async fn savepoint(directory: &Path) -> Result<Self, Failure> {
        if !directory.join("manifest").is_file() {
            return Err(Failure::new(ErrorKind::NotFound, format!("`{}` is no savepoint: it has no manifest", directory.display()))
                .fix("name the directory of a savepoint; `millstream savepoint list --state DIR` shows those of a job"));
        }
        let storage = LocalCheckpointStorage::open(directory).map_err(|error| Failure::from_error(error.kind(), &error))?;
        let manifest = read_manifest(&storage, "manifest", None)
            .await
            .map_err(|error| Failure::from_error(error.kind(), &error).in_file(directory))?;
        Ok(Self { manifest, storage: Arc::new(storage), files_prefix: "files".to_owned() })
    }

    /// What is kept at a path: of a job directory the checkpoint that the job goes on from, else a savepoint.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is damaged.
    pub async fn at(path: &Path) -> Result<Self, Failure> {
        if path.join("manifest").is_file() {
            return Self::savepoint(path).await;
        }
        let (place, owner) = Place::existing(path)?;
        Self::last(&place, &owner).await?.ok_or_else(|| {
            Failure::new(ErrorKind::Conflict, format!("job `{}` has committed no checkpoint yet", owner.job))
                .fix("while it runs: `millstream checkpoint create DIR`")
        })
    }

    /// What is shown of it.
    pub fn facts(&self) -> Facts {
        let files = self.manifest.files();
        Facts {
            job: self.manifest.job.to_string(),
            number: self.manifest.checkpoint.0,
            incarnation: self.manifest.incarnation,
            created: text::time(self.manifest.created_ms),
            created_ms: self.manifest.created_ms,
            bytes: files.iter().map(|file| file.bytes).sum(),
            files: files.len(),
            finished: self.manifest.is_finished,
            guarantee: self.manifest.guarantee,
            savepoint: self.manifest.savepoint.clone(),
        }
    }
}

impl Facts {
    /// `checkpoint 18 (2 min 3 s old, 1.2 MiB)`.
    pub fn shown(&self, now_ms: i64) -> String {
        let age_ms = u64::try_from(now_ms.saturating_sub(self.created_ms)).unwrap_or_default();
        let age = text::duration(std::time::Duration::from_millis(age_ms));
        format!("checkpoint {} ({age} old, {})", self.number, text::size(self.bytes))
    }
}

/// What the commit log of a directory says; none: the job has never run.
///
/// # Errors
/// It is not there, cannot be read, or is damaged.
pub async fn record(place: &Place, owner: &Owner) -> Result<Option<CommitRecord>, Failure> {
    let failed = |error: millstream_storage::Error| Failure::from_error(error.kind(), &error);
    if !place.commit_log().exists() {
        return Ok(None);
    }
    LocalCommitLog::open(&place.commit_log()).map_err(failed)?.read(&owner.job).await.map_err(failed)
}

/// The file of a directory's commit log whose end is missing or damaged, as after a process that died while it wrote: nothing is lost, the next start
/// makes it good from the other one. None: there is none.
///
/// # Errors
/// As [`record`].
pub async fn cut_short(place: &Place) -> Result<Option<String>, Failure> {
    let failed = |error: millstream_storage::Error| Failure::from_error(error.kind(), &error);
    if !place.commit_log().exists() {
        return Ok(None);
    }
    LocalCommitLog::open(&place.commit_log()).map_err(failed)?.cut_short().await.map_err(failed)
}

/// All committed checkpoints that are still kept, oldest first; the last one is what the job goes on from.
pub fn all(record: &CommitRecord) -> Vec<Retained> {
    record.retained.iter().cloned().chain(record.committed()).collect()
}

/// `exactly once`.
pub fn guarantee_text(guarantee: millstream_engine::connector::Guarantee) -> &'static str {
    use millstream_engine::connector::Guarantee;
    match guarantee {
        Guarantee::AtMostOnce => "at most once",
        Guarantee::AtLeastOnce => "at least once",
        Guarantee::ExactlyOnce => "exactly once",
    }
}

/// The directory of a savepoint: a path, or the name of one of a job.
///
/// # Errors
/// It is not there, cannot be read, or is damaged.
pub fn savepoint_directory(named: &Path, place: Option<&Place>) -> Result<PathBuf, Failure> {
    if named.join("manifest").is_file() {
        return Ok(named.to_owned());
    }
    let of_job = place.map(|place| place.savepoints().join(named)).filter(|directory| directory.join("manifest").is_file());
    of_job.ok_or_else(|| {
        Failure::new(ErrorKind::NotFound, format!("there is no savepoint `{}`", named.display()))
            .fix("name its directory, or with --state DIR its name; `millstream savepoint list --state DIR` shows them")
    })
}
