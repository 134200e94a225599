//! Storage that fails as storage does, from a seed: for simulations and tests. The same seed and the same calls in the same order fail in the same
//! way; files are written where the call is made, so that no thread decides an order.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use millstream_model::ids::JobId;

use crate::{CheckpointStorage, Claim, CommitLog, CommitRecord, Digest, Error, Object};

/// How often what fails: each number is a chance in 1,000 calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chances {
    /// Nothing happens, and the answer is an error (5xx, connection refused).
    pub unavailable: u16,
    /// It happens, and the answer is an error all the same (the answer is lost). Writes only.
    pub lost_answer: u16,
    /// A list leaves out what was created last, or still has what was deleted.
    pub stale_list: u16,
    /// A read brings only the beginning, and no error.
    pub truncated_read: u16,
    /// A read brings one bit that is not what was written, and no error.
    pub flipped_bit: u16,
}

/// What a write fails with that is bound to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// `ENOSPC`: no space left on device.
    NoSpace,
    /// `EIO`: the device failed.
    Device,
}

impl WriteFault {
    fn error(self) -> std::io::Error {
        match self {
            Self::NoSpace => std::io::ErrorKind::StorageFull.into(),
            Self::Device => std::io::Error::from_raw_os_error(5),
        }
    }
}

/// Decides about every call. Shared by all storages of one simulation.
#[derive(Debug)]
pub struct Faults {
    chances: Chances,
    inner: Mutex<Deciding>,
}

#[derive(Debug)]
struct Deciding {
    random: Random,
    writes: u64,
    fails_at: Option<(u64, WriteFault)>,
    is_repaired: bool,
}

/// What becomes of one write.
enum WriteOutcome {
    Done,
    Refused(Error),
    AnswerLost(Error),
}

impl Faults {
    /// Faults drawn from `seed`.
    pub fn seeded(seed: u64, chances: Chances) -> Arc<Self> {
        Self::new(seed, chances, None)
    }

    /// Every write from the `k`-th on fails (counted from 1) until [`Self::repair`]; nothing else does.
    pub fn from_write(k: u64, fault: WriteFault) -> Arc<Self> {
        Self::new(0, Chances::default(), Some((k, fault)))
    }

    fn new(seed: u64, chances: Chances, fails_at: Option<(u64, WriteFault)>) -> Arc<Self> {
        let inner = Deciding { random: Random::seeded(seed), writes: 0, fails_at, is_repaired: false };
        Arc::new(Self { chances, inner: Mutex::new(inner) })
    }

    /// From now on nothing fails.
    pub fn repair(&self) {
        self.deciding(|inner| inner.is_repaired = true);
    }

    /// Writes so far: creations, deletions, claims and commits.
    pub fn writes(&self) -> u64 {
        self.deciding(|inner| inner.writes)
    }

    fn deciding<T>(&self, decide: impl FnOnce(&mut Deciding) -> T) -> T {
        decide(&mut self.inner.lock().expect("no holder of this lock panics"))
    }

    fn happens(&self, chance: u16) -> bool {
        self.deciding(|inner| !inner.is_repaired && inner.random.below(1_000) < u64::from(chance))
    }

    fn write(&self, what: &'static str, path: &str) -> WriteOutcome {
        let bound_to_fail = self.deciding(|inner| {
            inner.writes += 1;
            inner.fails_at.filter(|(k, _)| inner.writes >= *k && !inner.is_repaired)
        });
        if let Some((_, fault)) = bound_to_fail {
            return WriteOutcome::Refused(Error::Io { what, path: path.to_owned(), source: fault.error().into() });
        }
        if self.happens(self.chances.unavailable) {
            return WriteOutcome::Refused(unavailable(what, path));
        }
        if self.happens(self.chances.lost_answer) { WriteOutcome::AnswerLost(unavailable(what, path)) } else { WriteOutcome::Done }
    }

    fn read(&self, what: &'static str, path: &str) -> Result<(), Error> {
        if self.happens(self.chances.unavailable) { Err(unavailable(what, path)) } else { Ok(()) }
    }

    /// What a reader gets of `content`.
    fn spoil(&self, content: Bytes) -> Bytes {
        if content.is_empty() {
            return content;
        }
        let mut content = Vec::from(content);
        if self.happens(self.chances.truncated_read) {
            let length = self.deciding(|inner| inner.random.below(content.len() as u64));
            content.truncate(usize::try_from(length).expect("it is shorter than the content"));
        }
        if !content.is_empty() && self.happens(self.chances.flipped_bit) {
            let bit = self.deciding(|inner| inner.random.below(content.len() as u64 * 8));
            content[usize::try_from(bit / 8).expect("it lies in the content")] ^= 1 << (bit % 8);
        }
        content.into()
    }
}

fn unavailable(what: &'static str, path: &str) -> Error {
    Error::Unreachable { what, path: path.to_owned(), source: "injected: 503 Service Unavailable".into() }
}

/// Numbers that follow from a seed: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }
}

/// A checkpoint storage with faults.
pub struct FaultyStorage {
    storage: Arc<dyn CheckpointStorage>,
    faults: Arc<Faults>,
    /// What a stale list still shows, or does not show yet.
    seen: Mutex<Changes>,
}

#[derive(Default)]
struct Changes {
    created: BTreeSet<String>,
    deleted: Vec<Object>,
}

impl FaultyStorage {
    /// `storage`, failing as `faults` says.
    pub fn new(storage: Arc<dyn CheckpointStorage>, faults: Arc<Faults>) -> Self {
        Self { storage, faults, seen: Mutex::default() }
    }

    async fn writing(&self, what: &'static str, path: &str, write: impl Future<Output = Result<(), Error>> + Send) -> Result<(), Error> {
        match self.faults.write(what, path) {
            WriteOutcome::Refused(error) => Err(error),
            WriteOutcome::Done => write.await,
            WriteOutcome::AnswerLost(error) => write.await.and(Err(error)),
        }
    }

    fn changes<T>(&self, change: impl FnOnce(&mut Changes) -> T) -> T {
        change(&mut self.seen.lock().expect("no holder of this lock panics"))
    }
}

#[async_trait]
impl CheckpointStorage for FaultyStorage {
    fn location(&self) -> String {
        self.storage.location()
    }

    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        self.changes(|changes| changes.created.insert(path.to_owned()));
        self.writing("creating", path, self.storage.create(path, bytes)).await
    }

    async fn create_from_file(&self, path: &str, file: &Path) -> Result<(), Error> {
        self.changes(|changes| changes.created.insert(path.to_owned()));
        self.writing("creating", path, self.storage.create_from_file(path, file)).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, Error> {
        self.faults.read("reading", path)?;
        Ok(self.faults.spoil(self.storage.read(path).await?))
    }

    async fn read_to_file(&self, path: &str, file: &Path) -> Result<(), Error> {
        self.faults.read("reading", path)?;
        let content = self.faults.spoil(self.storage.read(path).await?);
        crate::checkpoint::memory::write_new(file, &content)
    }

    async fn size(&self, path: &str) -> Result<u64, Error> {
        self.faults.read("reading", path)?;
        self.storage.size(path).await
    }

    async fn digest(&self, path: &str) -> Result<Digest, Error> {
        use sha2::Digest as _;
        let content = self.read(path).await?;
        Ok(Digest { sha256: crate::checkpoint::hexadecimal(&sha2::Sha256::digest(&content)), bytes: content.len() as u64 })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        self.faults.read("listing", prefix)?;
        let mut objects = self.storage.list(prefix).await?;
        if self.faults.happens(self.faults.chances.stale_list) {
            let below = |path: &str| prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
            self.changes(|changes| {
                objects.retain(|object| !changes.created.contains(&object.path));
                objects.extend(changes.deleted.iter().filter(|object| below(&object.path)).cloned());
            });
            objects.sort_by(|a, b| a.path.cmp(&b.path));
            objects.dedup_by(|a, b| a.path == b.path);
        } else {
            self.changes(|changes| *changes = Changes::default());
        }
        Ok(objects)
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        if let Ok(bytes) = self.storage.size(path).await {
            self.changes(|changes| changes.deleted.push(Object { path: path.to_owned(), bytes, modified_ms: 0 }));
        }
        self.writing("deleting", path, self.storage.delete(path)).await
    }
}

/// A commit log with faults.
pub struct FaultyCommitLog {
    log: Arc<dyn CommitLog>,
    faults: Arc<Faults>,
}

impl FaultyCommitLog {
    /// `log`, failing as `faults` says.
    pub fn new(log: Arc<dyn CommitLog>, faults: Arc<Faults>) -> Self {
        Self { log, faults }
    }
}

#[async_trait]
impl CommitLog for FaultyCommitLog {
    async fn claim(&self, job: &JobId, claim: Claim) -> Result<CommitRecord, Error> {
        match self.faults.write("claiming", job.as_str()) {
            WriteOutcome::Refused(error) => Err(error),
            WriteOutcome::Done => self.log.claim(job, claim).await,
            WriteOutcome::AnswerLost(error) => self.log.claim(job, claim).await.and(Err(error)),
        }
    }

    async fn commit(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
        match self.faults.write("committing", job.as_str()) {
            WriteOutcome::Refused(error) => Err(error),
            WriteOutcome::Done => self.log.commit(job, record).await,
            WriteOutcome::AnswerLost(error) => self.log.commit(job, record).await.and(Err(error)),
        }
    }

    async fn note(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
        match self.faults.write("noting", job.as_str()) {
            WriteOutcome::Refused(error) => Err(error),
            WriteOutcome::Done => self.log.note(job, record).await,
            WriteOutcome::AnswerLost(error) => self.log.note(job, record).await.and(Err(error)),
        }
    }

    async fn read(&self, job: &JobId) -> Result<Option<CommitRecord>, Error> {
        self.faults.read("reading", job.as_str())?;
        self.log.read(job).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectCheckpointStorage;

    const OFTEN: Chances = Chances { unavailable: 200, lost_answer: 200, stale_list: 300, truncated_read: 200, flipped_bit: 200 };

    /// What a seed lets happen to some writes and reads.
    async fn trace(seed: u64) -> Vec<String> {
        let storage = FaultyStorage::new(Arc::new(ObjectCheckpointStorage::in_memory()), Faults::seeded(seed, OFTEN));
        let mut trace = Vec::new();
        for number in 0..30 {
            let path = format!("job/{number}");
            trace.push(format!("{:?}", storage.create(&path, Bytes::from_static(b"content")).await.is_ok()));
            trace.push(format!("{:?}", storage.read(&path).await.ok()));
            trace.push(format!("{:?}", storage.list("job").await.map(|objects| objects.len()).ok()));
        }
        trace
    }

    #[tokio::test]
    async fn a_seed_always_fails_in_the_same_way() {
        assert_eq!(trace(7).await, trace(7).await);
        assert_ne!(trace(7).await, trace(8).await);
    }

    #[tokio::test]
    async fn from_the_kth_write_on_all_fail_until_the_repair() {
        let faults = Faults::from_write(2, WriteFault::NoSpace);
        let storage = FaultyStorage::new(Arc::new(ObjectCheckpointStorage::in_memory()), faults.clone());
        storage.create("a", Bytes::new()).await.expect("the first");
        for path in ["b", "c"] {
            assert!(matches!(storage.create(path, Bytes::new()).await, Err(Error::Io { .. })));
        }
        faults.repair();
        storage.create("b", Bytes::new()).await.expect("repaired");
    }
}
