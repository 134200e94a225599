//! What a job directory remembers of decisions that are made elsewhere. The other place is a map in memory under the rules of every commit log.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use millstream_model::ids::CheckpointId;
use millstream_storage::{LogFault, MemoryCheckpointStorage, MemoryCommitLog, commit};

use super::*;
use crate::{
    connector::{Sink, SinkContext, SinkWriter, Transactional},
    operator::OutputPort,
    run::{FileWork, StartFrom},
    testing::{Counting, DiscardSink, FedSource, JobBuilder},
};

const TOPIC: &str = "topic commits";

/// Records by lineage, as a cluster holds them; clones share it.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<BTreeMap<String, CommitRecord>>>);

impl Cluster {
    fn records(&self) -> MutexGuard<'_, BTreeMap<String, CommitRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lineages(&self) -> Vec<String> {
        self.records().keys().cloned().collect()
    }
}

/// The transaction of one process.
struct Joined {
    cluster: Cluster,
    log_name: String,
    claimed: Mutex<String>,
    is_down: bool,
}

#[async_trait]
impl Transaction for Joined {
    fn log_name(&self) -> String {
        self.log_name.clone()
    }

    async fn claim(&self, lineage: &str, before: Option<CommitRecord>, claim: Claim) -> Result<CommitRecord, Error> {
        if self.is_down {
            return Err(unreachable_cluster());
        }
        let mut records = self.cluster.records();
        let found = records.get(lineage).cloned().or(before).unwrap_or_default();
        let record = commit::claimed(&job(), found, claim)?;
        records.insert(lineage.to_owned(), record.clone());
        lineage.clone_into(&mut self.claimed.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(record)
    }

    async fn commit(&self, record: &CommitRecord) -> Result<(), Error> {
        let lineage = self.claimed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut records = self.cluster.records();
        let last = records.get_mut(&lineage).expect("it was claimed");
        commit::check_commit(&job(), last, record)?;
        last.clone_from(record);
        Ok(())
    }

    fn part(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::new(())
    }

    async fn end(&self) {}
}

fn unreachable_cluster() -> Error {
    Error::Unreachable { what: "claiming", path: TOPIC.into(), source: "nobody answers".into() }
}

fn job() -> JobId {
    JobId::from("payments")
}

/// A job directory: what its log holds outlives every process.
#[derive(Clone, Default)]
struct Directory {
    own: MemoryCommitLog,
    random: Arc<Counting>,
}

impl Directory {
    /// A process of the job whose sinks write to this place.
    fn process(&self, cluster: Option<(&Cluster, &str)>) -> Decision {
        let transaction = cluster.map(|(cluster, log_name)| {
            let cluster = cluster.clone();
            let joined = Joined { cluster, log_name: log_name.to_owned(), claimed: Mutex::default(), is_down: false };
            Arc::new(joined) as Arc<dyn Transaction>
        });
        Decision { own: Arc::new(self.own.clone()), transaction, random: self.random.clone(), crash: None }
    }

    fn joined(&self, cluster: &Cluster) -> Decision {
        self.process(Some((cluster, TOPIC)))
    }

    async fn known(&self) -> CommitRecord {
        self.own.read(&job()).await.expect("readable").expect("it knows the job")
    }
}

async fn claim(decision: &Decision) -> Result<CommitRecord, Error> {
    decision.claim(&job(), Claim::default()).await
}

async fn claim_fresh(decision: &Decision) -> Result<CommitRecord, Error> {
    decision.claim(&job(), Claim { is_fresh: true, ..Claim::default() }).await
}

fn checkpoint(number: u64, held: &CommitRecord) -> CommitRecord {
    CommitRecord {
        checkpoint: Some(CheckpointId(number)),
        manifest: Some(format!("{number}.manifest")),
        manifest_sha256: Some("ab".repeat(32)),
        last_number: number,
        elsewhere: None,
        ..held.clone()
    }
}

async fn commit(decision: &Decision, number: u64, held: &CommitRecord) -> CommitRecord {
    let record = checkpoint(number, held);
    decision.commit(&job(), &record).await.expect("committed");
    record
}

#[tokio::test]
async fn what_is_decided_elsewhere_is_repeated_in_the_directory_with_where_and_by_what_name() {
    let (directory, cluster) = (Directory::default(), Cluster::default());
    let process = directory.joined(&cluster);
    let held = claim(&process).await.expect("claimable");
    let committed = commit(&process, 1, &held).await;
    let elsewhere = Elsewhere { log: TOPIC.into(), lineage: "0000000000000001".into(), since: 0 };
    assert_eq!(directory.known().await, CommitRecord { elsewhere: Some(elsewhere), ..committed.clone() });
    assert_eq!(cluster.records()["0000000000000001"], committed);
}

/// A process may die between the two: a record under a name that nobody knows would be lost.
#[tokio::test]
async fn the_name_of_a_directory_is_written_down_before_anything_stands_under_it_and_stays() {
    let (directory, cluster) = (Directory::default(), Cluster::default());
    let down = Joined { cluster: cluster.clone(), log_name: TOPIC.into(), claimed: Mutex::default(), is_down: true };
    let dies = Decision { transaction: Some(Arc::new(down)), ..directory.joined(&cluster) };
    claim(&dies).await.expect_err("nobody answers");
    let written = directory.known().await.elsewhere.expect("written down").lineage;
    claim(&directory.joined(&cluster)).await.expect("claimable");
    claim(&directory.joined(&cluster)).await.expect("claimable again");
    assert_eq!(cluster.lineages(), [written]);
}

/// R7.
#[tokio::test]
async fn a_record_that_is_gone_elsewhere_is_an_error_and_no_fresh_start() {
    let (directory, cluster) = (Directory::default(), Cluster::default());
    let process = directory.joined(&cluster);
    let held = claim(&process).await.expect("claimable");
    commit(&process, 1, &held).await;
    cluster.records().clear();
    let lost = claim(&directory.joined(&cluster)).await.expect_err("the record is gone");
    assert!(matches!(lost, Error::RecordMissing { incarnation: 1, .. }), "{lost:?}");
    // Not even before the first commit.
    let (directory, cluster) = (Directory::default(), Cluster::default());
    claim(&directory.joined(&cluster)).await.expect("claimable");
    cluster.records().clear();
    claim(&directory.joined(&cluster)).await.expect_err("the record is gone");
    let fresh = claim_fresh(&directory.joined(&cluster)).await.expect("somebody has said that it is no matter");
    assert_eq!((fresh.incarnation, fresh.checkpoint), (2, None));
}

/// The process died, or its disk was full, after the transaction was committed.
#[tokio::test]
async fn a_decision_that_the_directory_has_not_heard_of_holds() {
    let (directory, cluster) = (Directory::default(), Cluster::default());
    let process = directory.joined(&cluster);
    let held = claim(&process).await.expect("claimable");
    directory.own.fail_next(LogFault::Refused);
    commit(&process, 1, &held).await;
    assert_eq!(directory.known().await.checkpoint, None);
    let found = claim(&directory.joined(&cluster)).await.expect("claimable");
    assert_eq!((found.incarnation, found.checkpoint), (2, Some(CheckpointId(1))));
    assert_eq!(directory.known().await.checkpoint, Some(CheckpointId(1)));
}

#[tokio::test]
async fn what_was_not_committed_elsewhere_is_not_noted() {
    let (directory, cluster) = (Directory::default(), Cluster::default());
    let zombie = directory.joined(&cluster);
    let held = claim(&zombie).await.expect("claimable");
    let heir = claim(&directory.joined(&cluster)).await.expect("claimable");
    let fenced = zombie.commit(&job(), &checkpoint(1, &held)).await.expect_err("another has taken over");
    assert!(matches!(fenced, Error::Fenced { incarnation: 1, holder: 2, .. }), "{fenced:?}");
    let known = directory.known().await;
    assert_eq!((known.incarnation, known.checkpoint), (heir.incarnation, None));
}

/// A claim that cannot be noted is none: a commit after it would be lost with the record, and nobody would know.
#[tokio::test]
async fn a_claim_that_the_directory_cannot_note_fails_and_the_next_one_goes_on_from_it() {
    let (directory, cluster) = (Directory::default(), Cluster::default());
    claim(&directory.joined(&cluster)).await.expect("claimable");
    directory.own.fail_next(LogFault::Refused);
    claim(&directory.joined(&cluster)).await.expect_err("the disk is full");
    let held = claim(&directory.joined(&cluster)).await.expect("there is room again");
    assert_eq!(held.incarnation, 3);
}

/// The job had sinks of files, and gets one that takes part in a transaction.
#[tokio::test]
async fn what_the_directory_decided_itself_counts_until_something_is_decided_elsewhere() {
    let (directory, cluster) = (Directory::default(), Cluster::default());
    let own = directory.process(None);
    let held = claim(&own).await.expect("claimable");
    commit(&own, 5, &held).await;
    let process = directory.joined(&cluster);
    let held = claim(&process).await.expect("claimable");
    assert_eq!((held.incarnation, held.checkpoint), (2, Some(CheckpointId(5))));
    commit(&process, 6, &held).await;
    // From here on it only repeats.
    cluster.records().clear();
    claim(&directory.joined(&cluster)).await.expect_err("the record is gone");
}

#[tokio::test]
async fn a_job_that_decides_in_another_place_than_before_is_refused_unless_it_starts_fresh() {
    let (directory, cluster) = (Directory::default(), Cluster::default());
    let process = directory.joined(&cluster);
    let held = claim(&process).await.expect("claimable");
    commit(&process, 1, &held).await;
    let moved = directory.process(Some((&cluster, "topic others")));
    let refused = claim(&moved).await.expect_err("checkpoint 1 is decided in the other topic").to_string();
    assert!(refused.contains("topic others") && refused.contains("decided in topic commits") && refused.contains("--fresh"), "{refused}");
    let fresh = claim_fresh(&moved).await.expect("nothing is gone on from");
    assert_eq!((fresh.incarnation, fresh.checkpoint, fresh.last_number), (2, None, 1));
    assert_eq!(cluster.lineages().len(), 2, "under a name of its own");
    assert_eq!(directory.known().await.elsewhere.map(|elsewhere| elsewhere.log), Some("topic others".into()));
    claim(&directory.process(Some((&cluster, "topic others")))).await.expect("from now on there");
}

#[tokio::test]
async fn a_job_whose_transactional_sinks_are_gone_is_refused_unless_it_starts_fresh() {
    let (directory, cluster) = (Directory::default(), Cluster::default());
    let process = directory.joined(&cluster);
    let held = claim(&process).await.expect("claimable");
    commit(&process, 1, &held).await;
    let refused = claim(&directory.process(None)).await.expect_err("checkpoint 1 is decided in the topic").to_string();
    assert!(refused.contains(TOPIC) && refused.contains("--fresh"), "{refused}");
    let own = directory.process(None);
    let fresh = claim_fresh(&own).await.expect("nothing is gone on from");
    assert_eq!((fresh.incarnation, fresh.checkpoint, fresh.elsewhere.clone()), (2, None, None));
    commit(&own, 2, &fresh).await;
    let again = claim(&directory.process(None)).await.expect("it decides itself again");
    assert_eq!((again.incarnation, again.checkpoint), (3, Some(CheckpointId(2))));
}

/// A sink that takes part, or cannot.
struct TakingPart(Result<(), &'static str>);

#[async_trait]
impl Sink for TakingPart {
    fn transactional(&self) -> Option<&dyn Transactional> {
        Some(self)
    }

    async fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        DiscardSink.writer(context).await
    }
}

impl Transactional for TakingPart {
    fn span(&self) -> String {
        "here".into()
    }

    fn writes(&self) -> Vec<String> {
        vec!["here".into()]
    }

    fn open(&self, request: TransactionRequest) -> Result<Arc<dyn Transaction>, OperatorError> {
        self.0.map_err(OperatorError::user)?;
        let log_name = format!("topic of {}", request.job);
        Ok(Arc::new(Joined { cluster: Cluster::default(), log_name, claimed: Mutex::default(), is_down: false }))
    }
}

/// The decision of a job with these sinks.
fn decision_of(sinks: Vec<TakingPart>) -> Result<Decision, (OperatorId, OperatorError)> {
    let mut job = JobBuilder::new();
    let source = job.source("numbers", FedSource::new(Arc::new(arrow_schema::Schema::empty())), None, 1);
    for (number, sink) in sinks.into_iter().enumerate() {
        job.sink(&format!("out-{number}"), sink, source, OutputPort::Port(0), 1);
    }
    let durable = Durable {
        storage: Arc::new(MemoryCheckpointStorage::new(|| 0)),
        log: Arc::new(MemoryCommitLog::default()),
        work: std::path::PathBuf::new(),
        random: Arc::new(Counting::default()),
        start: StartFrom::Latest,
        file_work: FileWork::Inline,
        crash: None,
    };
    Decision::of(&job.build(), &RunSettings::new(), &durable)
}

#[tokio::test]
async fn sinks_that_take_part_share_one_transaction_and_one_that_cannot_is_named() {
    let shared = decision_of(vec![TakingPart(Ok(())), TakingPart(Err("it is asked once"))]).expect("the first one opens it for all");
    assert_eq!(shared.transaction.as_ref().map(|transaction| transaction.log_name()), Some("topic of test".into()));
    assert!(shared.part().is_some());
    assert!(decision_of(Vec::new()).expect("nothing to open").part().is_none());
    let (id, error) = decision_of(vec![TakingPart(Err("the password is missing"))]).err().expect("it cannot be opened");
    assert_eq!((id.as_str(), error.to_string().contains("the password is missing")), ("out-0", true), "{error}");
}
