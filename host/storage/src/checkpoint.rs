//! Where snapshots live: immutable objects under paths, created once.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, local::LocalFileSystem, path::Path as ObjectPath};

use crate::Error;

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

/// Objects in an object store.
pub struct ObjectCheckpointStorage {
    store: Arc<dyn ObjectStore>,
}

impl ObjectCheckpointStorage {
    /// Objects as files below `directory`, which is created; every write is synced.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn in_directory(directory: &Path) -> Result<Self, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Io { what: "opening", path: directory.display().to_string(), source };
        std::fs::create_dir_all(directory).map_err(|error| failed(error.into()))?;
        let store = LocalFileSystem::new_with_prefix(directory).map_err(|error| failed(error.into()))?.with_fsync(true);
        Ok(Self { store: Arc::new(store) })
    }
}

fn object_path(path: &str) -> Result<ObjectPath, Error> {
    ObjectPath::parse(path).map_err(|_| Error::Path(path.to_owned()))
}

fn failed(what: &'static str, path: &str, error: object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { .. } => Error::NotFound(path.to_owned()),
        object_store::Error::AlreadyExists { .. } => Error::Exists(path.to_owned()),
        other => Error::Io { what, path: path.to_owned(), source: other.into() },
    }
}

#[async_trait]
impl CheckpointStorage for ObjectCheckpointStorage {
    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let created = self.store.put_opts(&object_path(path)?, bytes.into(), PutMode::Create.into()).await;
        created.map(drop).map_err(|error| failed("creating", path, error))
    }

    async fn read(&self, path: &str) -> Result<Bytes, Error> {
        let found = self.store.get(&object_path(path)?).await.map_err(|error| failed("reading", path, error))?;
        found.bytes().await.map_err(|error| failed("reading", path, error))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let prefix_path = object_path(prefix)?;
        let listed = self.store.list(Some(&prefix_path)).map_ok(|object| object.location.to_string());
        let mut paths: Vec<String> = listed.try_collect().await.map_err(|error| failed("listing", prefix, error))?;
        paths.sort();
        Ok(paths)
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        match self.store.delete(&object_path(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("deleting", path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> (tempfile::TempDir, ObjectCheckpointStorage) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let storage = ObjectCheckpointStorage::in_directory(directory.path()).expect("writable");
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
