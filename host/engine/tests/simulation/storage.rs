//! Checkpoint storage and commit log of a simulated job: in memory, behind gates, failing as the seed says.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use millstream_model::ids::JobId;
use millstream_storage::{
    CheckpointStorage, Claim, CommitLog, CommitRecord, Digest, Error, LogFault, MemoryCommitLog, Object,
    faults::{Faults, FaultyCommitLog},
};

use crate::world::{World, lock};

/// A storage behind gates: the process may die before a call and after what it did.
pub struct Gated {
    pub world: Arc<World>,
    pub storage: Arc<dyn CheckpointStorage>,
}

impl Gated {
    async fn through<T>(&self, what: &str, path: &str, call: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        self.world.pass(|| format!("{what} {path}")).await;
        let result = call.await;
        self.world.pass(|| format!("{what} {path}: {}", outcome(&result))).await;
        result
    }
}

fn outcome<T>(result: &Result<T, Error>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |_| "done".into())
}

#[async_trait]
impl CheckpointStorage for Gated {
    fn location(&self) -> String {
        self.storage.location()
    }

    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        self.through("create", path, self.storage.create(path, bytes)).await
    }

    async fn create_from_file(&self, path: &str, file: &Path) -> Result<(), Error> {
        self.through("create", path, self.storage.create_from_file(path, file)).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, Error> {
        self.through("read", path, self.storage.read(path)).await
    }

    async fn read_to_file(&self, path: &str, file: &Path) -> Result<(), Error> {
        self.through("read", path, self.storage.read_to_file(path, file)).await
    }

    async fn size(&self, path: &str) -> Result<u64, Error> {
        self.through("size", path, self.storage.size(path)).await
    }

    async fn digest(&self, path: &str) -> Result<Digest, Error> {
        self.through("digest", path, self.storage.digest(path)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        self.through("list", prefix, self.storage.list(prefix)).await
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        self.through("delete", path, self.storage.delete(path)).await
    }
}

/// The commit log behind gates, on a disk that fails. A commit of a process that dies may be on its way still, and arrive after the next claim.
pub struct GatedLog {
    pub world: Arc<World>,
    /// What really is in it.
    pub disk: MemoryCommitLog,
    log: FaultyCommitLog,
    late: Mutex<Option<(JobId, CommitRecord)>>,
}

impl GatedLog {
    pub fn new(world: Arc<World>, faults: Arc<Faults>) -> Self {
        let disk = MemoryCommitLog::default();
        Self { world, log: FaultyCommitLog::new(Arc::new(disk.clone()), faults), disk, late: Mutex::default() }
    }

    fn maybe_fault(&self) {
        if self.world.happens(self.world.troubles().log_failing) {
            let bytes = self.world.below(300) as usize;
            let faults = [LogFault::Refused, LogFault::TornLog(bytes), LogFault::TornCopy(bytes), LogFault::AnswerLost];
            self.disk.fail_next(faults[self.world.below(4) as usize]);
        }
    }
}

#[async_trait]
impl CommitLog for GatedLog {
    async fn claim(&self, job: &JobId, claim: Claim) -> Result<CommitRecord, Error> {
        self.world.pass(|| format!("claim {claim:?}")).await;
        self.maybe_fault();
        let record = self.log.claim(job, claim).await;
        let late = record.as_ref().ok().and_then(|_| lock(&self.late).take());
        if let Some((job, record)) = late {
            let arrived = self.disk.commit(&job, &record).await;
            self.world.note(|| format!("late commit of {:?}: {}", record.checkpoint, outcome(&arrived)));
        }
        self.world.pass(|| format!("claim: {:?}", record.as_ref().map(|record| (record.incarnation, record.checkpoint)))).await;
        record
    }

    async fn commit(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
        let is_slow = self.world.happens(300);
        if is_slow {
            *lock(&self.late) = Some((job.clone(), record.clone()));
        }
        self.world.pass(|| format!("commit {:?}", record.checkpoint)).await;
        lock(&self.late).take();
        self.maybe_fault();
        let committed = self.log.commit(job, record).await;
        self.world.pass(|| format!("commit {:?}: {}", record.checkpoint, outcome(&committed))).await;
        committed
    }

    async fn note(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
        self.log.note(job, record).await
    }

    async fn read(&self, job: &JobId) -> Result<Option<CommitRecord>, Error> {
        self.log.read(job).await
    }
}
