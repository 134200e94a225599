//! Bytes on their way to become a component: a file that is hashed while it is written, and counts under its digest only.

use std::path::{Path, PathBuf};

use millstream_model::ErrorKind;
use millstream_storage::durable;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;

use crate::{failure::Failure, text};

/// An upload under way. Dropped before its end it leaves nothing.
pub struct Upload {
    directory: PathBuf,
    temporary: NamedTempFile,
    file: tokio::fs::File,
    hash: Sha256,
    bytes: u64,
    bytes_max: u64,
}

impl Upload {
    pub(super) async fn begin(directory: &Path, bytes_max: u64) -> Result<Self, Failure> {
        durable::create_directory(directory).map_err(|error| cannot_store(&error))?;
        let temporary = tempfile::Builder::new().prefix(".upload-").tempfile_in(directory).map_err(|error| cannot_store(&error))?;
        let file = temporary.reopen().map_err(|error| cannot_store(&error))?;
        Ok(Self {
            directory: directory.to_owned(),
            temporary,
            file: tokio::fs::File::from_std(file),
            hash: Sha256::new(),
            bytes: 0,
            bytes_max,
        })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// There are too many, or the disk does not take them.
    pub async fn add(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(Failure::new(ErrorKind::Invalid, format!("the component is larger than {}", text::size(self.bytes_max)))
                .fix("strip debug information, or have the operator of the service allow larger ones"));
        }
        self.hash.update(bytes);
        self.file.write_all(bytes).await.map_err(|error| cannot_store(&error))
    }

    /// The same, with all bytes on the disk.
    pub(super) async fn synced(mut self) -> Result<Self, Failure> {
        self.file.flush().await.map_err(|error| cannot_store(&error))?;
        self.file.sync_all().await.map_err(|error| cannot_store(&error))?;
        Ok(self)
    }

    /// Puts the file, which is synced, in its place, durably; its digest and size.
    pub(super) async fn finish(self) -> Result<(String, u64), Failure> {
        let digest = text::hexadecimal(&self.hash.finalize());
        let path = self.directory.join(format!("{digest}.wasm"));
        match durable::create_from_file(&path, self.temporary.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(cannot_store(&error)),
            _ => Ok((digest, self.bytes)),
        }
    }
}

fn cannot_store(error: &std::io::Error) -> Failure {
    Failure::new(ErrorKind::Unavailable, "the component cannot be stored").because(error)
}
