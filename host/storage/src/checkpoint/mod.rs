//! Where snapshots live: immutable objects under paths, created once.

mod local;
pub(crate) mod memory;
mod object;
#[cfg(test)]
mod tests;

pub use local::LocalCheckpointStorage;
pub use memory::MemoryCheckpointStorage;
pub use object::ObjectCheckpointStorage;

use std::{
    env,
    path::{Component, Path},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::Error;

/// Immutable objects under paths such as `<job>/<incarnation>/<n>-<uuid>` (design §7, R1). An operation that fails may have happened all the same
/// (an answer can be lost); one that succeeds has.
#[async_trait]
pub trait CheckpointStorage: Send + Sync {
    /// Where this is, for people.
    fn location(&self) -> String;

    /// Creates an object; durable when this returns.
    ///
    /// # Errors
    /// [`Error::Exists`] if the path is taken: nothing is ever overwritten.
    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error>;

    /// Creates an object with the content of a local file that nobody changes any more; durable when this returns. A local storage may keep a
    /// second link to the file instead of a copy.
    ///
    /// # Errors
    /// [`Error::Exists`] if the path is taken.
    async fn create_from_file(&self, path: &str, file: &Path) -> Result<(), Error>;

    /// The content of an object.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn read(&self, path: &str) -> Result<Bytes, Error>;

    /// Copies an object into a new local file. After an error the file is not there.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Exists`] if there is a file.
    async fn read_to_file(&self, path: &str, file: &Path) -> Result<(), Error>;

    /// The size of an object in bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn size(&self, path: &str) -> Result<u64, Error>;

    /// Reads an object and says what it consists of; needs no memory for it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn digest(&self, path: &str) -> Result<Digest, Error>;

    /// All objects below `prefix`, which ends where a part of a path ends (`job`, not `jo`); sorted by path. Empty: all there are. Files of a
    /// local storage that are not whole yet are listed too; their names end in [`crate::durable::TEMPORARY`].
    ///
    /// # Errors
    /// The storage does not answer.
    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error>;

    /// Deletes an object; one that does not exist is no error, so a deletion can be repeated.
    ///
    /// # Errors
    /// The storage does not answer.
    async fn delete(&self, path: &str) -> Result<(), Error>;
}

/// One object of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its path.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was created, ms since epoch, by the clock of the storage.
    pub modified_ms: i64,
}

/// What an object consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The storage at a location: a directory, which is created, or `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`. Credentials of
/// an object store are those of its usual environment variables (`AWS_…`, `GOOGLE_…`, `AZURE_…`), which are read here, or of the machine. Nothing
/// is asked of an object store yet.
///
/// # Errors
/// [`Error::Location`], or the directory cannot be made.
pub fn open(location: &str) -> Result<Arc<dyn CheckpointStorage>, Error> {
    if location.is_empty() {
        return Err(Error::Location {
            location: String::new(),
            problem: "give a directory, or s3://, gs:// or az:// with bucket and path".into(),
        });
    }
    if location.contains("://") {
        let variables = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        return Ok(Arc::new(ObjectCheckpointStorage::open(location, &variables.collect::<Vec<_>>())?));
    }
    Ok(Arc::new(LocalCheckpointStorage::open(Path::new(location))?))
}

/// Paths are relative, stay below the storage and mean the same everywhere.
fn check_path(path: &str) -> Result<(), Error> {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let stays_below = !path.is_empty() && Path::new(path).components().all(is_plain) && path.split('/').all(|part| !part.is_empty());
    if stays_below { Ok(()) } else { Err(Error::Path(path.to_owned())) }
}

/// `bytes` in hexadecimal, lower case.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string never fails");
        text
    })
}
