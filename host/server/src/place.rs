//! A job directory: what a durable run keeps between its processes, and what lies where in it.
//!
//! ```text
//! DIR/job.json        whose directory this is (below)
//! DIR/lock            held by the process that runs the job; holds its pid
//! DIR/commit.log      the decisions: which checkpoint holds
//! DIR/control.sock    the control socket of the running process
//! DIR/checkpoints/    checkpoints, unless the job file names another storage
//! DIR/savepoints/     one directory per savepoint, each complete in itself
//! DIR/sources/        what sources have accepted and not yet handed on
//! DIR/work/           state of the running attempt that does not fit into memory; worth nothing afterwards
//! ```
//! `job.json`: `{"format": 1, "job": <name>, "job-file": <path>, "storage": <location or null>, "sha256": <of the rest>}`. It lets tools find the
//! checkpoints of a job that does not run, and keeps a second job out. With a `sha256` it is exactly what was written, to its last byte; one without
//! is of an earlier version, or written by hand.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_engine::graph::JobPlan;
use millstream_model::{ErrorKind, ids::JobId};
use millstream_storage::{CheckpointStorage, durable};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{failure::Failure, text};

/// The version of `job.json` and of the layout.
const FORMAT: u32 = 1;

/// A job directory.
#[derive(Clone, Debug)]
pub struct Place {
    directory: PathBuf,
}

/// `job.json`: whose directory it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Owner {
    format: u32,
    /// The job.
    pub job: JobId,
    /// Its file when it ran last.
    pub job_file: PathBuf,
    /// Where its checkpoints are; none: in the directory.
    pub storage: Option<String>,
    /// Of what is written without it, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// What is read of a `job.json` before anything else is.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Owner {
    /// A job, its file, and where its checkpoints are.
    pub fn new(job: JobId, job_file: PathBuf, storage: Option<String>) -> Self {
        let owner = Self { format: FORMAT, job, job_file, storage, sha256: None };
        Self { sha256: Some(owner.digest()), ..owner }
    }

    /// A job of the service, whose file lies in the catalogue.
    pub fn of(plan: &JobPlan) -> Self {
        Self::new(plan.job.clone(), "job.yaml".into(), plan.durability.checkpoints.storage.clone())
    }

    fn digest(&self) -> String {
        text::hexadecimal(&Sha256::digest(Self { sha256: None, ..self.clone() }.text()))
    }

    fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("an owner has string keys only");
        text.push(b'\n');
        text
    }
}

impl Place {
    /// The directory of a job that is about to run; made if it is not there, for its owner's eyes only.
    ///
    /// # Errors
    /// The directory cannot be read or written, is damaged, or is of another version.
    pub fn made(directory: &Path) -> Result<Self, Failure> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).and_then(|()| directory.canonicalize());
        let directory = made.map_err(|error| {
            Failure::new(ErrorKind::Unavailable, format!("the job directory `{}` cannot be made", directory.display()))
                .because(&error)
                .fix("name a directory that can be written with `--state`")
        })?;
        Ok(Self { directory })
    }

    /// The directory of a job that has run.
    ///
    /// # Errors
    /// The directory cannot be read or written, is damaged, or is of another version.
    pub fn existing(directory: &Path) -> Result<(Self, Owner), Failure> {
        let found = directory.canonicalize().map_err(|error| {
            Failure::new(ErrorKind::NotFound, format!("there is no job directory `{}`", directory.display())).because(&error).fix(NAME_ONE)
        })?;
        let place = Self { directory: found };
        let owner = place.owner()?.ok_or_else(|| {
            Failure::new(ErrorKind::NotFound, format!("`{}` is not a job directory: it has no job.json", directory.display())).fix(NAME_ONE)
        })?;
        Ok((place, owner))
    }

    /// Whose directory it is; none: nobody's yet.
    ///
    /// # Errors
    /// The directory cannot be read or written, is damaged, or is of another version.
    pub fn owner(&self) -> Result<Option<Owner>, Failure> {
        let file = self.directory.join("job.json");
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(ErrorKind::Unavailable, format!("`{}` cannot be read", file.display())).because(&error)),
        };
        let damaged = |error: serde_json::Error| {
            Failure::new(ErrorKind::Corrupt, format!("`{}` is damaged", file.display()))
                .because(&error)
                .fix("it holds one JSON object: {\"format\":1,\"job\":…,\"job-file\":…,\"storage\":null}; write it again so, or run with --fresh in another directory")
        };
        match serde_json::from_slice::<Version>(&text).map_err(damaged)?.format {
            FORMAT => {
                let owner: Owner = serde_json::from_slice(&text).map_err(damaged)?;
                let is_as_written = owner.sha256.as_ref().is_none_or(|sum| *sum == owner.digest() && owner.text() == text);
                if is_as_written { Ok(Some(owner)) } else { Err(damaged(serde::de::Error::custom("it is not what was written"))) }
            }
            other => Err(Failure::new(
                ErrorKind::Invalid,
                format!("`{}` has layout {other}; this version of millstream knows layout {FORMAT}", self.directory.display()),
            )
            .fix("use the version of millstream that made it, or a newer one")),
        }
    }

    /// Writes whose directory it is, durably.
    ///
    /// # Errors
    /// The directory cannot be read or written, is damaged, or is of another version.
    pub fn set_owner(&self, owner: &Owner) -> Result<(), Failure> {
        durable::write_file(&self.directory.join("job.json"), &owner.text()).map_err(|error| {
            Failure::new(ErrorKind::Unavailable, format!("`{}` cannot be written", self.directory.display())).because(&error)
        })
    }

    /// Makes it the directory of `owner`, durably, with room for its checkpoints. What says so already is not written again: a hundred jobs that
    /// go on at once have nothing to wait for here.
    ///
    /// # Errors
    /// The directory cannot be read or written, is damaged, or is of another version.
    pub fn owned_by(&self, owner: &Owner) -> Result<(), Failure> {
        if self.owner()?.as_ref() == Some(owner) {
            return Ok(());
        }
        if owner.storage.is_none() {
            // Not synced by itself: it is an entry of the directory that is synced next.
            let checkpoints = self.checkpoints();
            let made = fs::DirBuilder::new().recursive(true).create(&checkpoints);
            made.map_err(|error| {
                Failure::new(ErrorKind::Unavailable, format!("`{}` cannot be made", checkpoints.display())).because(&error)
            })?;
        }
        self.set_owner(owner)
    }

    /// The storage of the checkpoints of the job that owns it.
    ///
    /// # Errors
    /// The directory cannot be read or written, is damaged, or is of another version.
    pub fn storage(&self, owner: &Owner) -> Result<Arc<dyn CheckpointStorage>, Failure> {
        let location = owner.storage.clone().unwrap_or_else(|| self.checkpoints().display().to_string());
        millstream_storage::open(&location).map_err(|error| Failure::from_error(error.kind(), &error))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Held by the process that runs the job.
    pub fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    /// The decisions.
    pub fn commit_log(&self) -> PathBuf {
        self.directory.join("commit.log")
    }

    /// The control socket of the running process.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Checkpoints, unless the job file names another storage.
    pub fn checkpoints(&self) -> PathBuf {
        self.directory.join("checkpoints")
    }

    /// One directory per savepoint.
    pub fn savepoints(&self) -> PathBuf {
        self.directory.join("savepoints")
    }

    /// State of the running attempt.
    pub fn work(&self) -> PathBuf {
        self.directory.join("work")
    }
}

const NAME_ONE: &str = "name the directory that was given to `millstream run --state`";

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Place) {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::made(&directory.path().join("deep/state")).unwrap();
        (directory, place)
    }

    #[test]
    fn a_directory_remembers_its_job() {
        let (_directory, place) = place();
        assert_eq!(place.owner().unwrap(), None);
        let owner = Owner::new("flights".into(), "job.yaml".into(), Some("s3://bucket/prefix".into()));
        place.set_owner(&owner).unwrap();
        assert_eq!(Place::existing(place.path()).unwrap().1, owner);
    }

    #[test]
    fn only_its_owner_may_look_into_it() {
        use std::os::unix::fs::PermissionsExt;
        let (_directory, place) = place();
        assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_newer_layout_and_a_damaged_file_are_told_apart() {
        let (_directory, place) = place();
        fs::write(place.path().join("job.json"), "{\"format\":2,\"new\":1}").unwrap();
        assert!(place.owner().unwrap_err().problems[0].message.contains("layout 2"));
        fs::write(place.path().join("job.json"), "{\"format\":1").unwrap();
        assert!(place.owner().unwrap_err().problems[0].message.ends_with("is damaged"));
    }

    #[test]
    fn whose_directory_it_is_can_lose_and_change_no_byte_unseen() {
        let (_directory, place) = place();
        place.set_owner(&Owner::new("flights".into(), "job.yaml".into(), None)).unwrap();
        let file = place.path().join("job.json");
        let whole = fs::read(&file).unwrap();
        for bit in 0..8 * whole.len() {
            let mut text = whole.clone();
            text[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &text).unwrap();
            assert!(place.owner().is_err(), "bit {bit}: {}", String::from_utf8_lossy(&text));
        }
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            assert!(place.owner().is_err(), "cut to {length} bytes");
        }
        fs::write(&file, &whole).unwrap();
        assert_eq!(place.owner().unwrap().unwrap().job, "flights".into());
    }

    #[test]
    fn one_of_an_earlier_version_or_written_by_hand_has_no_sum_and_gets_one() {
        let (_directory, place) = place();
        fs::write(place.path().join("job.json"), r#"{"format":1,"job":"flights","job-file":"job.yaml","storage":null}"#).unwrap();
        let owner = Owner::new("flights".into(), "job.yaml".into(), None);
        assert_eq!(place.owner().unwrap().unwrap().job, owner.job);
        place.owned_by(&owner).unwrap();
        assert_eq!(place.owner().unwrap(), Some(owner));
    }

    #[test]
    fn what_is_no_job_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Place::existing(directory.path()).unwrap_err().problems[0].message.contains("is not a job directory"));
        assert!(Place::existing(&directory.path().join("none")).unwrap_err().problems[0].message.contains("there is no job directory"));
    }
}
