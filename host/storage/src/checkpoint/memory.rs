//! Objects in the memory of this process: for simulations. Every call does its work where it is asked for, so nothing of it depends on threads.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::Digest as _;

use super::{CheckpointStorage, Digest, Object, check_path, hexadecimal};
use crate::Error;

/// Objects in memory.
pub struct MemoryCheckpointStorage {
    objects: Mutex<BTreeMap<String, Stored>>,
    now_ms: Box<dyn Fn() -> i64 + Send + Sync>,
}

struct Stored {
    bytes: Bytes,
    modified_ms: i64,
}

impl MemoryCheckpointStorage {
    /// An empty one whose clock is `now_ms`, ms since epoch.
    pub fn new(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self { objects: Mutex::default(), now_ms: Box::new(now_ms) }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self, path: &str) -> Result<Bytes, Error> {
        check_path(path)?;
        let objects = self.objects();
        objects.get(path).map(|stored| stored.bytes.clone()).ok_or_else(|| Error::NotFound(path.to_owned()))
    }
}

#[async_trait]
impl CheckpointStorage for MemoryCheckpointStorage {
    fn location(&self) -> String {
        "memory".into()
    }

    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        check_path(path)?;
        let mut objects = self.objects();
        if objects.contains_key(path) {
            return Err(Error::Exists(path.to_owned()));
        }
        objects.insert(path.to_owned(), Stored { bytes, modified_ms: (self.now_ms)() });
        Ok(())
    }

    async fn create_from_file(&self, path: &str, file: &Path) -> Result<(), Error> {
        let bytes = fs::read(file).map_err(|source| Error::local("reading", file.display().to_string(), source))?;
        self.create(path, bytes.into()).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, Error> {
        self.content(path)
    }

    async fn read_to_file(&self, path: &str, file: &Path) -> Result<(), Error> {
        write_new(file, &self.content(path)?)
    }

    async fn size(&self, path: &str) -> Result<u64, Error> {
        Ok(self.content(path)?.len() as u64)
    }

    async fn digest(&self, path: &str) -> Result<Digest, Error> {
        let content = self.content(path)?;
        Ok(Digest { sha256: hexadecimal(&sha2::Sha256::digest(&content)), bytes: content.len() as u64 })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        let below = |path: &str| prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        let objects = self.objects();
        let found = objects.iter().filter(|(path, _)| below(path));
        Ok(found
            .map(|(path, stored)| Object { path: path.clone(), bytes: stored.bytes.len() as u64, modified_ms: stored.modified_ms })
            .collect())
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        check_path(path)?;
        self.objects().remove(path);
        Ok(())
    }
}

/// Writes `content` into a file that is not there yet; here and now.
pub(crate) fn write_new(file: &Path, content: &[u8]) -> Result<(), Error> {
    use std::io::Write;
    let name = || file.display().to_string();
    match fs::OpenOptions::new().create_new(true).write(true).open(file) {
        Ok(mut file) => file.write_all(content).map_err(|source| Error::local("writing", name(), source)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::Exists(name())),
        Err(source) => Err(Error::local("writing", name(), source)),
    }
}
