//! A savepoint is made by copying: every file that a manifest names, verified, then the manifest, in a directory that appears whole or not at all.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use millstream_engine::checkpoint::files::{verify, write_manifest};
use millstream_model::ErrorKind;
use millstream_storage::{CheckpointStorage, LocalCheckpointStorage};

use crate::{failure::Failure, kept::Kept};

/// Nothing is overwritten.
///
/// # Errors
/// `to` exists.
pub fn check_free(to: &Path) -> Result<(), Failure> {
    if !to.exists() {
        return Ok(());
    }
    Err(Failure::new(ErrorKind::Conflict, format!("`{}` exists already", to.display()))
        .fix("choose another name, or delete that one first"))
}

/// Copies a checkpoint or savepoint into the new directory `to`, as a savepoint with this name.
///
/// # Errors
/// `to` exists, there is no room, or the original is damaged; nothing is left behind.
pub async fn copy(from: &Kept, to: &Path, name: &str) -> Result<Kept, Failure> {
    check_free(to)?;
    let beside = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: io::Error| {
        Failure::new(ErrorKind::Unavailable, format!("the savepoint `{}` cannot be written", to.display()))
            .because(&error)
            .fix("nothing was left behind; make room, or choose another place")
    };
    fs::create_dir_all(beside).map_err(failed)?;
    let making = tempfile::Builder::new().prefix(".savepoint-").tempdir_in(beside).map_err(failed)?;
    fill(from, making.path(), name).await?;
    fs::rename(making.path(), to).and_then(|()| File::open(beside)?.sync_all()).map_err(failed)?;
    Kept::savepoint(to).await
}

/// Copies everything and reads it again.
async fn fill(from: &Kept, directory: &Path, name: &str) -> Result<(), Failure> {
    let stored = |error: millstream_storage::Error| Failure::from_error(error.kind(), &error);
    let fetched = directory.join("fetched");
    fs::create_dir(&fetched).map_err(|error| Failure::new(ErrorKind::Unavailable, "the savepoint cannot be written").because(&error))?;
    let target = LocalCheckpointStorage::open(directory).map_err(stored)?;
    for file in from.manifest.files() {
        let local = fetched.join(&file.sha256);
        from.storage.read_to_file(&format!("{}/{}", from.files_prefix, file.sha256), &local).await.map_err(stored)?;
        target.create_from_file(&format!("files/{}", file.sha256), &local).await.map_err(stored)?;
        fs::remove_file(&local).map_err(|error| Failure::new(ErrorKind::Unavailable, "the savepoint cannot be written").because(&error))?;
    }
    fs::remove_dir(&fetched).map_err(|error| Failure::new(ErrorKind::Unavailable, "the savepoint cannot be written").because(&error))?;
    if let Some(finding) = verify(&target, "files", &from.manifest).await.into_iter().next() {
        return Err(Failure::from_error(finding.error.kind(), &finding.error)
            .fix("the original is damaged, or the disk is; `millstream checkpoint verify DIR` tells which"));
    }
    let manifest = millstream_engine::checkpoint::manifest::Manifest { savepoint: Some(name.to_owned()), ..from.manifest.clone() };
    let written = write_manifest(&target, "manifest", &manifest).await;
    written.map(drop).map_err(|error| Failure::from_error(error.kind(), &error))
}
