use std::{collections::BTreeSet, path::Path, time::Duration};

use arrow_array::Int64Array;
use arrow_schema::{DataType, Field, Schema};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use millstream_model::{
    Batch,
    ids::{OperatorId, SubtaskIndex},
};
use millstream_storage::{
    CheckpointStorage, Claim, CommitLog, Digest, LocalCheckpointStorage, LocalCommitLog, Object,
    faults::{Faults, FaultyCommitLog, FaultyStorage, WriteFault},
};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::*;
use crate::{
    clock::ManualClock,
    graph::{Checkpoints, Durability},
    operator::{OperatorError, OutputPort},
    run::{
        FileWork, StartFrom,
        job::lock,
        snapshot::{LinkSnapshot, Timings},
    },
    testing::{CollectSink, Counting, FedSource, JobBuilder},
};

const C1: CheckpointId = CheckpointId(1);
const C2: CheckpointId = CheckpointId(2);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory in which one attempt after the other takes checkpoints of a job of two subtasks.
struct Place {
    directory: TempDir,
    storage: Arc<dyn CheckpointStorage>,
    log: Arc<dyn CommitLog>,
    clock: Arc<ManualClock>,
    history: History,
}

/// One attempt.
struct Attempt {
    checkpointing: Checkpointing,
    clock: Arc<ManualClock>,
}

fn rows(first: i64) -> Batch {
    let schema = Schema::new(vec![Field::new("number", DataType::Int64, false)]);
    Batch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![first, first + 1]))], 2).expect("the column fits")
}

fn plan(checkpoints: Checkpoints) -> Arc<JobPlan> {
    let mut job = JobBuilder::new();
    job.durability(Durability { checkpoints, ..Durability::default() });
    let source = job.source("numbers", FedSource::new(rows(0).schema()), None, 2);
    job.sink("out", CollectSink::default(), source, OutputPort::Port(0), 2);
    job.build()
}

fn keeps(retained: u32) -> Checkpoints {
    Checkpoints { retained: retained.try_into().expect("one is kept at least"), ..Checkpoints::default() }
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let storage = LocalCheckpointStorage::open(&directory.path().join("checkpoints")).expect("a storage");
        let log = LocalCommitLog::open(&directory.path().join("commit.log")).expect("a log");
        let clock = Arc::new(ManualClock::at(0));
        Self { storage: Arc::new(storage), log: Arc::new(log), clock, history: History::default(), directory }
    }

    async fn attempt(&self, checkpoints: Checkpoints) -> Attempt {
        let plan = plan(checkpoints);
        let record = self.log.claim(&plan.job, Claim::default()).await.expect("the claim");
        let durable = Durable {
            storage: self.storage.clone(),
            log: self.log.clone(),
            work: self.directory.path().join("work"),
            random: Arc::new(Counting::default()),
            start: StartFrom::Latest,
            file_work: FileWork::Inline,
            crash: None,
        };
        let found = Found { plan, durable, clock: self.clock.clone(), record, known: None, history: self.history.clone() };
        let members = (0..2).map(|index| Member { index: SubtaskIndex(index), parallelism: 2 }).collect();
        Attempt { checkpointing: Checkpointing::new(found, members), clock: self.clock.clone() }
    }

    async fn paths(&self, prefix: &str) -> BTreeSet<String> {
        self.storage.list(prefix).await.expect("a list").into_iter().map(|object| object.path).collect()
    }

    async fn record(&self) -> CommitRecord {
        self.log.read(&plan(Checkpoints::default()).job).await.expect("the log answers").unwrap_or_default()
    }
}

/// A subtask that holds rows, which are a file of the checkpoint; none: it holds nothing.
fn snapshot(held: Option<i64>) -> SubtaskSnapshot {
    let link = LinkSnapshot {
        node: 0,
        watermark: None,
        sent: None,
        value: serde_json::Value::Null,
        state: None,
        held: vec![held.map(rows).into_iter().collect()],
        splits: Vec::new(),
    };
    SubtaskSnapshot { links: vec![link], timings: Timings::default() }
}

fn snapshot_failed() -> SnapshotFailed {
    SnapshotFailed { operator: OperatorId::from("numbers"), error: OperatorError::outside("the disk is full") }
}

impl Attempt {
    fn ask(&mut self, stops: bool) -> (Vec<Order>, oneshot::Receiver<Result<CheckpointReport, CheckpointError>>) {
        let (answer, answered) = oneshot::channel();
        (self.checkpointing.request(stops, answer), answered)
    }

    fn snapshotted(&mut self, checkpoint: CheckpointId, subtask: SubtaskNumber, held: Option<i64>) {
        let orders = self.checkpointing.on_snapshotted(subtask, checkpoint, Ok(snapshot(held)));
        assert!(orders.is_empty(), "{orders:?}");
    }

    /// Hears what work has done until there is something to do.
    async fn work(&mut self) -> Vec<Order> {
        loop {
            let (checkpoint, done) = self.checkpointing.next_done().await;
            let orders = self.checkpointing.on_done(checkpoint, done, &Swapped::new());
            if !orders.is_empty() {
                return orders;
            }
        }
    }

    /// Takes the checkpoint under way up to its commit.
    async fn commit(&mut self, checkpoint: CheckpointId, held: Option<i64>) {
        self.snapshotted(checkpoint, 0, held);
        self.snapshotted(checkpoint, 1, None);
        let orders = self.work().await;
        assert!(matches!(orders.as_slice(), [Order::Committed(committed)] if *committed == checkpoint), "{orders:?}");
    }

    /// Takes a checkpoint from its beginning to its end.
    async fn take(&mut self, checkpoint: CheckpointId, held: Option<i64>) -> CheckpointReport {
        let (orders, answered) = self.ask(false);
        assert!(matches!(orders.as_slice(), [Order::Barrier(begun)] if *begun == checkpoint), "{orders:?}");
        self.commit(checkpoint, held).await;
        self.publish(checkpoint);
        self.collected(checkpoint).await;
        answered.await.expect("an answer").expect("a report")
    }

    fn publish(&mut self, checkpoint: CheckpointId) {
        for subtask in [0, 1] {
            self.checkpointing.on_published(subtask, checkpoint);
        }
    }

    /// Hears that the removal has ended.
    async fn collected(&mut self, checkpoint: CheckpointId) -> Vec<Order> {
        let (of, done) = self.checkpointing.next_done().await;
        assert!(of == checkpoint && matches!(done, Done::Collected { .. }));
        self.checkpointing.on_done(of, done, &Swapped::new())
    }

    async fn end(mut self) {
        self.checkpointing.end(CheckpointError::Ended).await;
    }
}

#[tokio::test]
async fn a_checkpoint_counts_with_its_record_and_whoever_asked_is_told() {
    let place = Place::new();
    let mut attempt = place.attempt(keeps(3)).await;
    let report = attempt.take(C1, Some(5)).await;
    let record = place.record().await;
    assert_eq!((record.checkpoint, record.last_number, record.manifest), (Some(C1), 1, report.manifest.clone()));
    assert_eq!(report.outcome, CheckpointOutcome::Committed);
    assert_eq!(place.paths("test/files").await.len(), 1, "the held rows are a file");
    assert_eq!(lock(&place.history).back(), Some(&report));
}

#[tokio::test]
async fn a_snapshot_that_fails_gives_the_checkpoint_up_and_the_next_one_counts() {
    let place = Place::new();
    let mut attempt = place.attempt(keeps(3)).await;
    let (_, answered) = attempt.ask(false);
    let orders = attempt.checkpointing.on_snapshotted(1, C1, Err(snapshot_failed()));
    assert!(matches!(orders.as_slice(), [Order::GiveUp(C1)]), "{orders:?}");
    let reason = "`numbers` could not be snapshotted: the disk is full".to_owned();
    assert_eq!(answered.await.expect("an answer"), Err(CheckpointError::GivenUp { reason }));
    attempt.take(C2, None).await;
    assert_eq!(place.record().await.checkpoint, Some(C2));
}

#[tokio::test]
async fn a_checkpoint_that_takes_too_long_is_given_up_and_its_late_snapshot_is_ignored() {
    let place = Place::new();
    let mut attempt = place.attempt(Checkpoints { timeout: Duration::from_secs(60), ..keeps(3) }).await;
    attempt.ask(false).0.clear();
    attempt.snapshotted(C1, 0, None);
    attempt.clock.advance(Duration::from_secs(60));
    let orders = attempt.checkpointing.on_time();
    assert!(matches!(orders.as_slice(), [Order::GiveUp(C1)]), "{orders:?}");
    attempt.snapshotted(C1, 1, None);
    attempt.take(C2, None).await;
    let outcomes: Vec<CheckpointOutcome> = lock(&place.history).iter().map(|report| report.outcome.clone()).collect();
    assert_eq!(outcomes, [CheckpointOutcome::GivenUp { reason: "it took longer than 1m".into() }, CheckpointOutcome::Committed]);
}

#[tokio::test]
async fn more_checkpoints_given_up_in_a_row_than_are_tolerated_mean_recovery() {
    let place = Place::new();
    let mut attempt = place.attempt(Checkpoints { tolerated_failures: 1, ..keeps(3) }).await;
    attempt.ask(false).0.clear();
    attempt.checkpointing.on_snapshotted(0, C1, Err(snapshot_failed()));
    attempt.ask(false).0.clear();
    let orders = attempt.checkpointing.on_snapshotted(0, C2, Err(snapshot_failed()));
    assert!(matches!(orders.as_slice(), [Order::GiveUp(C2), Order::Recover { .. }]), "{orders:?}");
}

#[tokio::test]
async fn an_upload_that_fails_gives_the_checkpoint_up_with_its_cause() {
    let place = Place::new();
    let faults = Faults::from_write(1, WriteFault::NoSpace);
    let storage = Arc::new(FaultyStorage::new(place.storage.clone(), faults.clone()));
    let place = Place { storage, ..place };
    let mut attempt = place.attempt(keeps(3)).await;
    let (_, answered) = attempt.ask(false);
    attempt.snapshotted(C1, 0, Some(5));
    let orders = attempt.work().await;
    assert!(matches!(orders.as_slice(), [Order::GiveUp(C1)]), "{orders:?}");
    let error = answered.await.expect("an answer").expect_err("it was given up").to_string();
    assert!(error.contains("no") && error.contains("space"), "{error}");
    faults.repair();
    attempt.take(C2, Some(5)).await;
}

#[tokio::test]
async fn a_commit_that_fails_means_recovery() {
    let place = Place::new();
    let log = Arc::new(FaultyCommitLog::new(place.log.clone(), Faults::from_write(2, WriteFault::Device)));
    let place = Place { log, ..place };
    let mut attempt = place.attempt(keeps(3)).await;
    attempt.ask(false).0.clear();
    attempt.snapshotted(C1, 0, None);
    attempt.snapshotted(C1, 1, None);
    let orders = attempt.work().await;
    assert!(matches!(orders.as_slice(), [Order::Recover { reason }] if reason.starts_with("the commit is in doubt")), "{orders:?}");
    assert_eq!(place.record().await.checkpoint, None);
}

#[tokio::test]
async fn an_attempt_that_was_fenced_commits_nothing_and_recovers() {
    let place = Place::new();
    let mut old = place.attempt(keeps(3)).await;
    let mut new = place.attempt(keeps(3)).await;
    new.take(C1, None).await;
    old.ask(false).0.clear();
    old.snapshotted(C1, 0, Some(5));
    old.snapshotted(C1, 1, None);
    let orders = old.work().await;
    assert!(matches!(orders.as_slice(), [Order::Recover { .. }]), "{orders:?}");
    assert_eq!(place.record().await.incarnation, 2);
}

#[tokio::test]
async fn a_stop_that_is_asked_for_during_a_checkpoint_comes_behind_the_next_one() {
    let place = Place::new();
    let mut attempt = place.attempt(keeps(3)).await;
    attempt.ask(false).0.clear();
    let (orders, stopped) = attempt.ask(true);
    assert!(orders.is_empty(), "{orders:?}");
    attempt.commit(C1, None).await;
    attempt.publish(C1);
    let orders = attempt.collected(C1).await;
    assert!(matches!(orders.as_slice(), [Order::Barrier(C2)]), "{orders:?}");
    attempt.commit(C2, None).await;
    attempt.publish(C2);
    let orders = attempt.collected(C2).await;
    assert!(matches!(orders.as_slice(), [Order::Stop(report)] if report.checkpoint == C2), "{orders:?}");
    assert_eq!(stopped.await.expect("an answer").expect("a report").checkpoint, C2);
}

#[tokio::test]
async fn a_subtask_that_ends_during_a_checkpoint_gets_the_barrier_itself() {
    let place = Place::new();
    let mut attempt = place.attempt(keeps(3)).await;
    attempt.ask(false).0.clear();
    let orders = attempt.checkpointing.on_input_ended(1);
    assert!(matches!(orders.as_slice(), [Order::BarrierTo(1, C1)]), "{orders:?}");
}

#[tokio::test]
async fn a_checkpoint_that_is_no_longer_kept_goes_with_its_files() {
    let place = Place::new();
    let mut attempt = place.attempt(keeps(1)).await;
    let first = attempt.take(C1, Some(5)).await.manifest.expect("a path");
    let files = place.paths("test/files").await;
    attempt.take(C2, Some(9)).await;
    let left = place.paths("test").await;
    assert!(!left.contains(&first) && left.is_disjoint(&files), "{left:?}");
    assert_eq!(left.len(), 2, "a manifest and a file: {left:?}");
}

#[tokio::test]
async fn a_file_that_a_kept_checkpoint_shares_stays() {
    let place = Place::new();
    let mut attempt = place.attempt(keeps(1)).await;
    attempt.take(C1, Some(5)).await;
    let files = place.paths("test/files").await;
    attempt.take(C2, Some(5)).await;
    assert_eq!(place.paths("test/files").await, files);
}

#[tokio::test]
async fn what_a_checkpoint_had_uploaded_that_was_given_up_goes_with_the_next_commit() {
    let place = Place::new();
    let mut attempt = place.attempt(keeps(3)).await;
    attempt.ask(false).0.clear();
    attempt.snapshotted(C1, 0, Some(5));
    let (_, done) = attempt.checkpointing.next_done().await;
    assert!(matches!(done, Done::Uploaded { result: Ok(_), .. }));
    attempt.checkpointing.on_snapshotted(1, C1, Err(snapshot_failed()));
    assert_eq!(place.paths("test/files").await.len(), 1);
    attempt.take(C2, None).await;
    assert!(place.paths("test/files").await.is_empty());
}

#[tokio::test]
async fn what_a_checkpoint_had_uploaded_that_was_given_up_stays_if_the_next_one_holds_it_too() {
    let place = Place::new();
    let mut attempt = place.attempt(keeps(3)).await;
    attempt.ask(false).0.clear();
    attempt.snapshotted(C1, 0, Some(5));
    attempt.checkpointing.next_done().await;
    attempt.checkpointing.on_snapshotted(1, C1, Err(snapshot_failed()));
    let files = place.paths("test/files").await;
    attempt.take(C2, Some(5)).await;
    assert_eq!(place.paths("test/files").await, files);
}

#[tokio::test]
async fn what_a_crash_left_is_removed_a_day_later_and_nothing_that_is_kept() {
    let place = Place::new();
    let mut crashed = place.attempt(keeps(3)).await;
    let kept = crashed.take(C1, Some(5)).await.manifest.expect("a path");
    crashed.ask(false).0.clear();
    crashed.snapshotted(C2, 0, Some(9));
    crashed.checkpointing.next_done().await;
    crashed.end().await;
    let before = place.paths("test/files").await;
    assert_eq!(before.len(), 2);
    // The files are of now; the clock of the run stood at 1970 so far.
    let now_ms = place.storage.list("test").await.expect("a list").iter().map(|object| object.modified_ms).max().expect("an object");
    place.clock.advance(Duration::from_millis(u64::try_from(now_ms).expect("after 1970")));
    let mut young = place.attempt(keeps(3)).await;
    young.take(C2, None).await;
    young.end().await;
    assert_eq!(place.paths("test/files").await, before, "an orphan that is young stays");
    place.clock.advance(DAY);
    let mut old = place.attempt(keeps(3)).await;
    old.take(CheckpointId(3), None).await;
    let left = place.paths("test").await;
    assert!(left.contains(&kept));
    assert_eq!(place.paths("test/files").await.len(), 1, "{left:?}");
}

/// A storage whose deletions wait for a permit.
struct SlowDeletion {
    storage: Arc<dyn CheckpointStorage>,
    permits: Semaphore,
    begun: Semaphore,
}

#[async_trait]
impl CheckpointStorage for SlowDeletion {
    fn location(&self) -> String {
        self.storage.location()
    }

    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), millstream_storage::Error> {
        self.storage.create(path, bytes).await
    }

    async fn create_from_file(&self, path: &str, file: &Path) -> Result<(), millstream_storage::Error> {
        self.storage.create_from_file(path, file).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, millstream_storage::Error> {
        self.storage.read(path).await
    }

    async fn read_to_file(&self, path: &str, file: &Path) -> Result<(), millstream_storage::Error> {
        self.storage.read_to_file(path, file).await
    }

    async fn size(&self, path: &str) -> Result<u64, millstream_storage::Error> {
        self.storage.size(path).await
    }

    async fn digest(&self, path: &str) -> Result<Digest, millstream_storage::Error> {
        self.storage.digest(path).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, millstream_storage::Error> {
        self.storage.list(prefix).await
    }

    async fn delete(&self, path: &str) -> Result<(), millstream_storage::Error> {
        self.begun.add_permits(1);
        self.permits.acquire().await.expect("it is never closed").forget();
        self.storage.delete(path).await
    }
}

/// A removal that arrives when the next attempt has begun would take what that one has stored.
#[tokio::test]
async fn an_attempt_ends_only_when_the_removal_that_it_began_has_ended() {
    let mut place = Place::new();
    let slow = Arc::new(SlowDeletion { storage: place.storage.clone(), permits: Semaphore::new(0), begun: Semaphore::new(0) });
    place.storage = slow.clone();
    let mut attempt = place.attempt(keeps(1)).await;
    attempt.take(C1, Some(5)).await;
    attempt.ask(false).0.clear();
    attempt.commit(C2, None).await;
    slow.begun.acquire().await.expect("it is never closed").forget();
    let mut end = std::pin::pin!(attempt.end());
    assert!(end.as_mut().now_or_never().is_none(), "the file is still being removed");
    slow.permits.add_permits(1);
    end.await;
    assert!(place.paths("test/files").await.is_empty());
    assert_eq!(place.paths("test").await.len(), 2, "the second deletion, of the manifest, was not begun any more");
}

#[tokio::test]
async fn the_next_barrier_waits_for_a_removal_that_is_slow() {
    let mut place = Place::new();
    let slow = Arc::new(SlowDeletion { storage: place.storage.clone(), permits: Semaphore::new(0), begun: Semaphore::new(0) });
    place.storage = slow.clone();
    let mut attempt = place.attempt(keeps(1)).await;
    attempt.take(C1, Some(5)).await;
    attempt.ask(false).0.clear();
    attempt.commit(C2, None).await;
    attempt.publish(C2);
    let (orders, _answered) = attempt.ask(false);
    assert!(orders.is_empty(), "{orders:?}");
    slow.permits.add_permits(2);
    let orders = attempt.collected(C2).await;
    assert!(matches!(orders.as_slice(), [Order::Barrier(CheckpointId(3))]), "{orders:?}");
}

#[tokio::test]
async fn whoever_waits_when_the_attempt_ends_is_told() {
    let place = Place::new();
    let mut attempt = place.attempt(keeps(3)).await;
    let (_, under_way) = attempt.ask(false);
    let (_, waiting) = attempt.ask(false);
    attempt.checkpointing.end(CheckpointError::Recovering { reason: "it failed".into() }).await;
    for answered in [under_way, waiting] {
        assert_eq!(answered.await.expect("an answer"), Err(CheckpointError::Recovering { reason: "it failed".into() }));
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_held_for_a_savepoint_stays_until_it_is_released() {
    let place = Place::new();
    let mut attempt = place.attempt(keeps(1)).await;
    let (answer, held) = oneshot::channel();
    attempt.checkpointing.request_held(false, answer);
    attempt.commit(C1, Some(5)).await;
    attempt.publish(C1);
    attempt.collected(C1).await;
    let held = held.await.expect("an answer").expect("a checkpoint");
    let manifest = held.report().manifest.clone().expect("a path");
    let files = place.paths("test/files").await;
    attempt.take(C2, None).await;
    assert!(place.paths("test").await.contains(&manifest) && place.paths("test/files").await == files);
    held.release();
    let (checkpoint, done) = attempt.checkpointing.next_done().await;
    assert!(matches!(done, Done::Released { is_whole: true, .. }));
    attempt.checkpointing.on_done(checkpoint, done, &Swapped::new());
    attempt.take(CheckpointId(3), None).await;
    assert!(!place.paths("test").await.contains(&manifest) && place.paths("test/files").await.is_empty());
}

#[tokio::test]
async fn the_job_goes_on_if_whoever_made_the_savepoint_before_the_stop_is_gone() {
    let place = Place::new();
    let mut attempt = place.attempt(keeps(1)).await;
    let (answer, held) = oneshot::channel();
    attempt.checkpointing.request_held(true, answer);
    attempt.commit(C1, None).await;
    attempt.publish(C1);
    attempt.collected(C1).await;
    drop(held);
    let (checkpoint, done) = attempt.checkpointing.next_done().await;
    assert!(matches!(done, Done::Released { is_whole: false, .. }));
    let orders = attempt.checkpointing.on_done(checkpoint, done, &Swapped::new());
    assert!(orders.is_empty(), "{orders:?}");
    attempt.take(C2, None).await;
}
