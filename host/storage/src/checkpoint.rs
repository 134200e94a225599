//! Where snapshots live: immutable objects under paths, created once.

use std::{
    fs,
    io::ErrorKind,
    path::{Component, Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Error, durable};

/// Immutable objects under paths such as `<job>/<incarnation>/<n>-<uuid>` (design §7, R1).
#[async_trait]
pub trait CheckpointStorage: Send + Sync {
    /// Creates an object; durable when this returns.
    ///
    /// # Errors
    /// [`Error::Exists`] if the path is taken: nothing is ever overwritten.
    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error>;

    /// The content of an object.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn read(&self, path: &str) -> Result<Bytes, Error>;

    /// The paths of all objects below `prefix`, sorted.
    ///
    /// # Errors
    /// The storage does not answer.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error>;

    /// Deletes an object; one that does not exist is no error, so a deletion can be repeated.
    ///
    /// # Errors
    /// The storage does not answer.
    async fn delete(&self, path: &str) -> Result<(), Error>;
}

/// Objects as files below a directory, every one synced.
pub struct LocalCheckpointStorage {
    directory: PathBuf,
}

impl LocalCheckpointStorage {
    /// Objects below `directory`, which is created.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(|source| failed("opening", &directory.display().to_string(), source))?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The file of an object; paths are relative and stay below the directory.
    fn file(&self, path: &str) -> Result<PathBuf, Error> {
        let stays_below = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if stays_below { Ok(self.directory.join(path)) } else { Err(Error::Path(path.to_owned())) }
    }
}

fn failed(what: &'static str, path: &str, error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::NotFound(path.to_owned()),
        ErrorKind::AlreadyExists => Error::Exists(path.to_owned()),
        _ => Error::Io { what, path: path.to_owned(), source: error.into() },
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.expect("file work does not panic")
}

/// Adds the paths of all files below `directory`, relative to `root`.
fn files_below(directory: &Path, root: &Path, paths: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files_below(&entry.path(), root, paths)?;
        } else if let Some(path) = entry.path().strip_prefix(root).ok().and_then(Path::to_str) {
            paths.push(path.to_owned());
        }
    }
    Ok(())
}

#[async_trait]
impl CheckpointStorage for LocalCheckpointStorage {
    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let (file, path) = (self.file(path)?, path.to_owned());
        blocking(move || durable::create_file(&file, &bytes).map_err(|error| failed("creating", &path, error))).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, Error> {
        let (file, path) = (self.file(path)?, path.to_owned());
        blocking(move || fs::read(&file).map(Bytes::from).map_err(|error| failed("reading", &path, error))).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let (below, root, prefix) = (self.file(prefix)?, self.directory.clone(), prefix.to_owned());
        blocking(move || {
            let mut paths = Vec::new();
            match files_below(&below, &root, &mut paths) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("listing", &prefix, error)),
                _ => paths.sort(),
            }
            Ok(paths)
        })
        .await
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        let (file, path) = (self.file(path)?, path.to_owned());
        blocking(move || match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("deleting", &path, error)),
            _ => Ok(()),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> (tempfile::TempDir, LocalCheckpointStorage) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let storage = LocalCheckpointStorage::open(directory.path()).expect("writable");
        (directory, storage)
    }

    #[tokio::test]
    async fn an_object_is_created_once_and_never_overwritten() {
        let (_directory, storage) = storage();
        storage.create("job/1/a", Bytes::from_static(b"first")).await.expect("new");
        let again = storage.create("job/1/a", Bytes::from_static(b"second")).await;
        assert!(matches!(again, Err(Error::Exists(path)) if path == "job/1/a"));
        assert_eq!(storage.read("job/1/a").await.expect("there"), Bytes::from_static(b"first"));
    }

    #[tokio::test]
    async fn a_deletion_can_be_repeated() {
        let (_directory, storage) = storage();
        storage.create("job/1/a", Bytes::new()).await.expect("new");
        storage.create("job/2/b", Bytes::new()).await.expect("new");
        storage.delete("job/1/a").await.expect("there");
        storage.delete("job/1/a").await.expect("gone is fine");
        assert_eq!(storage.list("job").await.expect("listable"), ["job/2/b"]);
        assert!(matches!(storage.read("job/1/a").await, Err(Error::NotFound(_))));
    }

    #[tokio::test]
    async fn a_path_cannot_leave_the_directory() {
        let (_directory, storage) = storage();
        assert!(matches!(storage.create("../outside", Bytes::new()).await, Err(Error::Path(_))));
    }
}
