//! Objects as files below a directory, every one synced.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::Digest as _;

use super::{CheckpointStorage, Digest, Object, check_path, hexadecimal};
use crate::{Error, durable};

/// Objects as files below a directory, every one synced.
#[derive(Clone, Debug)]
pub struct LocalCheckpointStorage {
    directory: PathBuf,
}

impl LocalCheckpointStorage {
    /// Objects below `directory`, which is created.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        durable::create_directory(directory).map_err(|source| Error::local("opening", directory.display().to_string(), source))?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Does file work where it may block; errors name the object.
    async fn with_file<T: Send + 'static>(
        &self,
        what: &'static str,
        path: &str,
        work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        check_path(path)?;
        let (file, path) = (self.directory.join(path), path.to_owned());
        blocking(move || work(&file).map_err(|source| Error::local(what, path, source))).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("file work does not panic")
}

#[async_trait]
impl CheckpointStorage for LocalCheckpointStorage {
    fn location(&self) -> String {
        self.directory.display().to_string()
    }

    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        self.with_file("creating", path, move |file| durable::create_file(file, &bytes)).await
    }

    async fn create_from_file(&self, path: &str, from: &Path) -> Result<(), Error> {
        let from = from.to_owned();
        let there = from.clone();
        if !blocking(move || there.is_file()).await {
            return Err(Error::NotFound(from.display().to_string()));
        }
        self.with_file("creating", path, move |file| durable::create_from_file(file, &from)).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, Error> {
        self.with_file("reading", path, |file| fs::read(file).map(Bytes::from)).await
    }

    async fn read_to_file(&self, path: &str, to: &Path) -> Result<(), Error> {
        let to = to.to_owned();
        self.with_file("reading", path, move |file| {
            let mut from = File::open(file)?;
            let mut target = File::create_new(&to)?;
            std::io::copy(&mut from, &mut target).map(|_| ()).inspect_err(|_| drop(fs::remove_file(&to)))
        })
        .await
    }

    async fn size(&self, path: &str) -> Result<u64, Error> {
        self.with_file("reading", path, |file| fs::metadata(file).map(|data| data.len())).await
    }

    async fn digest(&self, path: &str) -> Result<Digest, Error> {
        self.with_file("reading", path, digest_of).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        if !prefix.is_empty() {
            check_path(prefix)?;
        }
        let (below, root, prefix) = (self.directory.join(prefix), self.directory.clone(), prefix.to_owned());
        blocking(move || {
            let mut objects = Vec::new();
            match files_below(&below, &root, &mut objects) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::local("listing", prefix, error)),
                _ => objects.sort_by(|a, b| a.path.cmp(&b.path)),
            }
            Ok(objects)
        })
        .await
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        let root = self.directory.clone();
        self.with_file("deleting", path, move |file| match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => {
                remove_empty_directories(file, &root);
                Ok(())
            }
        })
        .await
    }
}

/// Removes the directories above `file` that have become empty. Whoever creates an object in one at this moment makes it again.
fn remove_empty_directories(file: &Path, root: &Path) {
    for directory in file.ancestors().skip(1).take_while(|directory| *directory != root && directory.starts_with(root)) {
        // One that is not empty cannot be removed, and that is the end.
        if fs::remove_dir(directory).is_err() {
            return;
        }
    }
}

/// Reads a file piece by piece.
fn digest_of(file: &Path) -> std::io::Result<Digest> {
    let mut file = File::open(file)?;
    let (mut hash, mut bytes, mut piece) = (sha2::Sha256::new(), 0, vec![0; 256 * 1024]);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(Digest { sha256: hexadecimal(&hash.finalize()), bytes });
        }
        hash.update(&piece[..read]);
        bytes += read as u64;
    }
}

/// Adds all files below `directory`, with paths relative to `root`. Files that go away meanwhile are left out.
fn files_below(directory: &Path, root: &Path, objects: &mut Vec<Object>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let added =
            if entry.file_type()?.is_dir() { files_below(&entry.path(), root, objects) } else { add_file(&entry.path(), root, objects) };
        match added {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            added => added?,
        }
    }
    Ok(())
}

fn add_file(file: &Path, root: &Path, objects: &mut Vec<Object>) -> std::io::Result<()> {
    let data = fs::metadata(file)?;
    let since_epoch = data.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Some(path) = file.strip_prefix(root).ok().and_then(Path::to_str) {
        let modified_ms = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        objects.push(Object { path: path.to_owned(), bytes: data.len(), modified_ms });
    }
    Ok(())
}
