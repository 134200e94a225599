//! What a checkpoint consists of, in the checkpoint storage: uploading it, reading it again, and checking it.
//!
//! Files are named by content, so a file that the last *committed* manifest names already is not uploaded again (R1: nothing else is reused). Every
//! file is read back by size after its upload and by hash when it is fetched; a manifest is read back whole.

use std::{
    collections::BTreeMap,
    io::{ErrorKind as IoErrorKind, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use millstream_model::{ErrorKind, ids::JobId};
use millstream_state::{Snapshot, SnapshotPart, spawn_background};
use millstream_storage::CheckpointStorage;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::manifest::{FileReference, Manifest, StateManifest};

/// Where work on files runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileWork {
    /// On threads that may block.
    #[default]
    OnThreads,
    /// Where it comes up: for simulations on one thread.
    Inline,
}

impl FileWork {
    /// Does `work` there.
    pub(crate) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::OnThreads => tokio::task::spawn_blocking(work).await.expect("file work does not panic"),
            Self::Inline => work(),
        }
    }

    /// Does `work` where it takes no time from the threads of streams that want it.
    ///
    /// # Errors
    /// There can be no further thread.
    async fn run_behind<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
        match self {
            Self::OnThreads => {
                let (done, result) = oneshot::channel();
                // Whoever waited may have given up.
                spawn_background("checkpoint", move || drop(done.send(work())))?;
                Ok(result.await.expect("file work does not panic"))
            }
            Self::Inline => Ok(work()),
        }
    }
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] millstream_storage::Error),
    /// A local file cannot be read.
    #[error("cannot read {path}")]
    Local {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What lies in the storage is not what was written.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest was written by a newer version of Millstream.
    #[error(
        "{path} has format {format}, but this version of Millstream reads formats up to {newest}: use the version that wrote it, or a later one"
    )]
    NewerFormat {
        /// The manifest.
        path: String,
        /// Its format.
        format: u64,
        /// The newest that can be read.
        newest: u64,
    },
}

impl Error {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Storage(error) => error.kind(),
            Self::Local { .. } => ErrorKind::Unavailable,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::NewerFormat { .. } => ErrorKind::Conflict,
        }
    }
}

/// The files that the last committed manifest names: only these may be used again without an upload.
#[derive(Clone, Debug, Default)]
pub struct KnownFiles {
    by_hash: BTreeMap<String, u64>,
    /// Tables of the state backend, whose names never mean another content.
    tables: BTreeMap<String, FileReference>,
}

impl KnownFiles {
    /// Those of a committed manifest.
    pub fn of(manifest: &Manifest) -> Self {
        let mut known = Self::default();
        for file in manifest.files() {
            known.by_hash.insert(file.sha256.clone(), file.bytes);
        }
        for (name, file) in manifest.states().flat_map(|state| &state.files).filter(|(name, _)| name.ends_with(".sst")) {
            known.tables.insert(name.clone(), file.clone());
        }
        known
    }

    fn holds(&self, file: &FileReference) -> bool {
        self.by_hash.get(&file.sha256) == Some(&file.bytes)
    }
}

/// What was stored, and how much of it had to be uploaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<T> {
    /// What the manifest says of it.
    pub manifest: T,
    /// Bytes that were uploaded.
    pub bytes_new: u64,
}

/// The path of a file of `job`.
pub fn files_prefix(job: &JobId) -> String {
    format!("{job}/files")
}

/// Uploads what is new of a snapshot.
///
/// # Errors
/// A file cannot be read or stored; nothing refers to those that were.
pub async fn store_state(
    file_work: FileWork,
    storage: &dyn CheckpointStorage,
    job: &JobId,
    known: &KnownFiles,
    key_groups: Range<u16>,
    snapshot: Snapshot,
) -> Result<Stored<StateManifest>, Error> {
    let mut files = BTreeMap::new();
    let mut bytes_new = 0;
    for file in &snapshot.files {
        let unchanged = known.tables.get(&file.name).filter(|known| !file.is_new && known.bytes == file.bytes);
        let reference = match unchanged {
            Some(reference) => reference.clone(),
            None => {
                let path = snapshot.directory.join(&file.name);
                let local = |source| Error::Local { path: path.display().to_string(), source };
                let reference = file_work.run_behind(hash_file(path.clone())).await.map_err(local)??;
                if !known.holds(&reference) {
                    let stored = storage.create_from_file(&format!("{}/{}", files_prefix(job), reference.sha256), &path).await;
                    settle(storage, job, &reference, stored).await?;
                    bytes_new += reference.bytes;
                }
                reference
            }
        };
        files.insert(file.name.clone(), reference);
    }
    Ok(Stored { manifest: StateManifest { key_groups, description: snapshot.description, files }, bytes_new })
}

/// Uploads bytes.
///
/// # Errors
/// They cannot be stored.
pub async fn store_bytes(storage: &dyn CheckpointStorage, job: &JobId, bytes: Bytes) -> Result<FileReference, Error> {
    let reference = FileReference { sha256: hexadecimal(&Sha256::digest(&bytes)), bytes: bytes.len() as u64 };
    let stored = storage.create(&format!("{}/{}", files_prefix(job), reference.sha256), bytes).await;
    settle(storage, job, &reference, stored).await?;
    Ok(reference)
}

/// Makes sure that the object is there and has its size; one that was there before must have its content.
async fn settle(
    storage: &dyn CheckpointStorage,
    job: &JobId,
    reference: &FileReference,
    stored: Result<(), millstream_storage::Error>,
) -> Result<(), Error> {
    let path = format!("{}/{}", files_prefix(job), reference.sha256);
    let found = match stored {
        Ok(()) => storage.size(&path).await? == reference.bytes,
        Err(millstream_storage::Error::Exists(_)) => storage.digest(&path).await?.sha256 == reference.sha256,
        Err(error) => return Err(error.into()),
    };
    if found { Ok(()) } else { Err(Error::Damaged { path, reason: "it is not what was stored there".into() }) }
}

fn hash_file(path: PathBuf) -> impl FnOnce() -> Result<FileReference, Error> + Send {
    move || {
        let failed = |source| Error::Local { path: path.display().to_string(), source };
        let mut file = std::fs::File::open(&path).map_err(failed)?;
        let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(FileReference { sha256: hexadecimal(&hash.finalize()), bytes }),
                Ok(count) => {
                    hash.update(&buffer[..count]);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

/// Fetches the files of a state into the new directory `into`, and checks every hash.
///
/// # Errors
/// A file is missing or damaged.
pub async fn fetch_state(
    file_work: FileWork,
    storage: &dyn CheckpointStorage,
    files_prefix: &str,
    state: &StateManifest,
    into: &Path,
) -> Result<SnapshotPart, Error> {
    std::fs::create_dir_all(into).map_err(|source| Error::Local { path: into.display().to_string(), source })?;
    for (name, reference) in &state.files {
        let path = format!("{files_prefix}/{}", reference.sha256);
        let is_name = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
        if !is_name {
            return Err(Error::Damaged { path, reason: format!("{name:?} is not the name of a file") });
        }
        let file = into.join(name);
        storage.read_to_file(&path, &file).await?;
        if file_work.run(hash_file(file)).await? != *reference {
            return Err(Error::Damaged { path, reason: "its content is not what was stored".into() });
        }
    }
    Ok(SnapshotPart { directory: into.to_owned(), key_groups: state.key_groups.clone(), description: state.description.clone() })
}

/// Fetches bytes, and checks their hash.
///
/// # Errors
/// They are missing or damaged.
pub async fn fetch_bytes(storage: &dyn CheckpointStorage, files_prefix: &str, file: &FileReference) -> Result<Bytes, Error> {
    let path = format!("{files_prefix}/{}", file.sha256);
    let bytes = storage.read(&path).await?;
    if hexadecimal(&Sha256::digest(&bytes)) != file.sha256 {
        return Err(Error::Damaged { path, reason: "its content is not what was stored".into() });
    }
    Ok(bytes)
}

/// Writes a manifest under a path of its own (R1) and reads it back; returns the SHA-256 of its bytes.
///
/// # Errors
/// It cannot be stored, or is not what was stored.
pub async fn write_manifest(storage: &dyn CheckpointStorage, path: &str, manifest: &Manifest) -> Result<String, Error> {
    let bytes = manifest.encode();
    storage.create(path, bytes.clone()).await?;
    if storage.read(path).await? != bytes {
        return Err(Error::Damaged { path: path.into(), reason: "it is not what was stored there".into() });
    }
    Ok(hexadecimal(&Sha256::digest(&bytes)))
}

/// Reads a manifest; `sha256`: what the commit record says of it.
///
/// # Errors
/// It is missing, damaged, another one, or of a newer format.
pub async fn read_manifest(storage: &dyn CheckpointStorage, path: &str, sha256: Option<&str>) -> Result<Manifest, Error> {
    let bytes = storage.read(path).await?;
    if sha256.is_some_and(|sha256| hexadecimal(&Sha256::digest(&bytes)) != sha256) {
        return Err(Error::Damaged { path: path.into(), reason: "it is not the manifest that was committed".into() });
    }
    Manifest::decode(&bytes).map_err(|error| error.at(path))
}

/// Something wrong with a checkpoint.
#[derive(Debug)]
pub struct Finding {
    /// The object.
    pub path: String,
    /// What is wrong with it.
    pub error: Error,
}

/// Reads every file that a manifest names; what is missing or damaged.
pub async fn verify(storage: &dyn CheckpointStorage, files_prefix: &str, manifest: &Manifest) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in manifest.files() {
        let path = format!("{files_prefix}/{}", file.sha256);
        match storage.digest(&path).await {
            Ok(digest) if digest.sha256 == file.sha256 && digest.bytes == file.bytes => {}
            Ok(_) => {
                let error = Error::Damaged { path: path.clone(), reason: "its content is not what was stored".into() };
                findings.push(Finding { path, error });
            }
            Err(error) => findings.push(Finding { path, error: error.into() }),
        }
    }
    findings
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string never fails");
        text
    })
}

#[cfg(test)]
mod tests;
