//! What one subtask holds goes from its local files to the checkpoint storage.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use millstream_model::{
    ids::{JobId, SubtaskIndex},
    key::KeyGroup,
};
use millstream_storage::{CheckpointStorage, Digest, Error, Object};

use super::{
    held,
    job::lock,
    snapshot::{LinkSnapshot, SubtaskSnapshot},
};
use crate::{
    checkpoint::{
        files::{self, FileWork, KnownFiles},
        manifest::SubtaskManifest,
    },
    graph::NodeIndex,
};

/// What the protocol must know of a subtask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) index: SubtaskIndex,
    pub(super) parallelism: u32,
}

/// What one subtask holds, in the checkpoint storage.
pub(super) struct Uploaded {
    pub(super) nodes: Vec<(NodeIndex, SubtaskManifest)>,
    pub(super) bytes_new: u64,
}

/// Uploads the snapshot of one subtask.
pub(super) struct Upload {
    pub(super) storage: Arc<Remembered>,
    pub(super) job: JobId,
    pub(super) file_work: FileWork,
    pub(super) known: Arc<KnownFiles>,
    pub(super) member: Member,
}

impl Upload {
    pub(super) async fn store(self, snapshot: SubtaskSnapshot) -> Result<Uploaded, files::Error> {
        let mut uploaded = Uploaded { nodes: Vec::with_capacity(snapshot.links.len()), bytes_new: 0 };
        for link in snapshot.links {
            let (node, part, bytes_new) = self.store_link(link).await?;
            uploaded.nodes.push((node, part));
            uploaded.bytes_new += bytes_new;
        }
        Ok(uploaded)
    }

    async fn store_link(&self, link: LinkSnapshot) -> Result<(NodeIndex, SubtaskManifest, u64), files::Error> {
        let storage = self.storage.as_ref();
        let mut bytes_new = 0;
        let state = match link.state {
            Some(snapshot) => {
                let groups = KeyGroup::owned_by(self.member.index, self.member.parallelism);
                let stored = files::store_state(self.file_work, storage, &self.job, &self.known, groups, snapshot).await?;
                bytes_new += stored.bytes_new;
                Some(stored.manifest)
            }
            None => None,
        };
        let mut held_rows = Vec::new();
        for (port, runs) in link.held.into_iter().enumerate().filter(|(_, runs)| !runs.is_empty()) {
            let encoded = self.file_work.run(move || held::encode(&runs)).await;
            let bytes = encoded.map_err(|error| files::Error::Damaged { path: "held rows".into(), reason: error.to_string() })?;
            bytes_new += bytes.len() as u64;
            held_rows.push((port, files::store_bytes(storage, &self.job, bytes).await?));
        }
        let part = SubtaskManifest {
            watermark: link.watermark.map(|watermark| watermark.0),
            sent_watermark: link.sent.map(|watermark| watermark.0),
            state,
            held_rows,
            value: link.value,
            splits: link.splits,
        };
        Ok((link.node, part, bytes_new))
    }
}

/// A checkpoint storage that remembers what was created through it, so that what a checkpoint leaves that is given up can be found again.
pub(super) struct Remembered {
    storage: Arc<dyn CheckpointStorage>,
    created: Mutex<BTreeSet<String>>,
}

impl Remembered {
    pub(super) fn new(storage: Arc<dyn CheckpointStorage>) -> Self {
        Self { storage, created: Mutex::default() }
    }

    /// What was created since the last call, or may have been.
    pub(super) fn take_created(&self) -> BTreeSet<String> {
        std::mem::take(&mut lock(&self.created))
    }

    /// Takes back what [`Self::take_created`] had given away.
    pub(super) fn put_back(&self, created: BTreeSet<String>) {
        lock(&self.created).extend(created);
    }

    /// `creation` of `path`. It is remembered before, because it may happen although nobody waits for its end any more.
    async fn remember(&self, path: &str, creation: impl Future<Output = Result<(), Error>> + Send) -> Result<(), Error> {
        let is_new = lock(&self.created).insert(path.to_owned());
        let result = creation.await;
        if is_new && matches!(result, Err(Error::Exists(_))) {
            lock(&self.created).remove(path);
        }
        result
    }
}

#[async_trait]
impl CheckpointStorage for Remembered {
    fn location(&self) -> String {
        self.storage.location()
    }

    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        self.remember(path, self.storage.create(path, bytes)).await
    }

    async fn create_from_file(&self, path: &str, file: &Path) -> Result<(), Error> {
        self.remember(path, self.storage.create_from_file(path, file)).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, Error> {
        self.storage.read(path).await
    }

    async fn read_to_file(&self, path: &str, file: &Path) -> Result<(), Error> {
        self.storage.read_to_file(path, file).await
    }

    async fn size(&self, path: &str) -> Result<u64, Error> {
        self.storage.size(path).await
    }

    async fn digest(&self, path: &str) -> Result<Digest, Error> {
        self.storage.digest(path).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        self.storage.list(prefix).await
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        self.storage.delete(path).await
    }
}
