//! Writing topics, with and without transactions.

use std::{path::Path, sync::Arc};

use arrow_array::{Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::SchemaRef;
use millstream_engine::{
    clock::SystemClock,
    connector::{SettingsProblem, Sink, SinkContext, SinkWriter, Transaction, TransactionRequest},
    operator::{Fault, OperatorError},
};
use millstream_model::{
    Batch,
    ids::{CheckpointId, JobId, SubtaskIndex},
};
use millstream_storage::{Claim, CommitRecord, Error};
use rdkafka::{Message as _, producer::Producer as _};
use serde_json::{Value, json};

use super::{Cluster, LONG, send};
use crate::{
    kafka::{KafkaSink, Machine, commit_topic::CommitTopic, settings::SinkSettings, transaction},
    testing::{plan_sink, schema},
};

const JOB: &str = "payments";

pub(super) fn columns() -> SchemaRef {
    schema(&[("id", "Int64"), ("name", "Utf8"), ("place", "Int32"), ("topic", "Utf8")])
}

pub(super) fn rows(ids: std::ops::Range<i64>, topic: &str) -> Batch {
    let count = (ids.end - ids.start) as usize;
    let names: Vec<String> = ids.clone().map(|id| format!("n{id}")).collect();
    Batch::new(
        RecordBatch::try_new(
            columns(),
            vec![
                Arc::new(Int64Array::from_iter_values(ids.clone())),
                Arc::new(StringArray::from(names)),
                Arc::new(Int32Array::from_iter_values(ids.map(|id| (id % 2) as i32))),
                Arc::new(StringArray::from(vec![topic; count])),
            ],
        )
        .expect("columns"),
    )
}

impl Cluster {
    pub(super) fn sink(&self, topic: &Value, more: Value) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
        plan_sink(&KafkaSink(Machine::Own), &self.sink_settings(topic, more), Path::new("."), columns(), false)
    }

    pub(super) fn sink_settings(&self, topic: &Value, more: Value) -> Value {
        let mut settings = json!({ "servers": self.address, "topic": topic, "format": "json" });
        let Value::Object(more) = more else { unreachable!("settings are an object") };
        settings.as_object_mut().expect("an object").extend(more);
        settings
    }

    /// The records that a reader with `isolation` sees now, of all partitions.
    fn records(&self, topic: &str, isolation: &str) -> Vec<rdkafka::message::OwnedMessage> {
        self.read_topic(topic, isolation)
    }

    /// The ids that a reader with `read_committed` sees now.
    pub(super) fn ids(&self, topic: &str) -> Vec<i64> {
        let id = |record: &rdkafka::message::OwnedMessage| {
            let value: Value = serde_json::from_slice(record.payload().expect("a value")).expect("JSON");
            value["id"].as_i64().expect("an id")
        };
        let mut ids: Vec<i64> = self.records(topic, "read_committed").iter().map(id).collect();
        ids.sort_unstable();
        ids
    }
}

pub(super) fn context(subtask: u32, part: Option<Arc<dyn std::any::Any + Send + Sync>>) -> SinkContext {
    let is_durable = part.is_some();
    SinkContext {
        job: JobId::from(JOB),
        subtask: SubtaskIndex(subtask),
        parallelism: 2,
        is_durable,
        restored: Arc::default(),
        transaction: part,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_arrive_with_key_headers_and_timestamp_in_the_partition_and_topic_they_name() {
    let cluster = Cluster::get();
    let (out, other) = (cluster.create("out", 2, &[]).await, cluster.create("other", 2, &[]).await);
    let settings = json!({
        "delivery": "at-least-once", "key": "name", "partition": "place", "topic-column": "topic", "headers": { "from": "name" }
    });
    let sink = cluster.sink(&json!([out, other]), settings).expect("settings");
    let mut writer = sink.writer(context(0, None)).await.expect("a writer");
    let times = vec![1_700_000_000_000, 1_700_000_000_001].into();
    writer.write(&rows(0..2, &out).with_event_times(Some(times))).await.expect("written");
    writer.write(&rows(2..3, &other)).await.expect("written");
    writer.on_barrier(CheckpointId(1)).await.expect("acknowledged");
    let mut records = cluster.records(&out, "read_uncommitted");
    records.sort_by_key(|record| record.partition());
    let shown: Vec<_> =
        records.iter().map(|record| (record.partition(), record.key(), record.payload(), record.timestamp().to_millis())).collect();
    assert_eq!(
        shown,
        [
            (0, Some(&b"n0"[..]), Some(&br#"{"id":0}"#[..]), Some(1_700_000_000_000)),
            (1, Some(&b"n1"[..]), Some(&br#"{"id":1}"#[..]), Some(1_700_000_000_001)),
        ]
    );
    use rdkafka::message::Headers as _;
    let header = records[0].headers().expect("headers").get(0);
    assert_eq!((header.key, header.value), ("from", Some(&b"n0"[..])));
    assert_eq!(cluster.ids(&other), [2]);
    let refused = writer.write(&rows(3..4, "elsewhere")).await.expect_err("not in the list");
    assert!(refused.to_string().contains("names the topic elsewhere"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_named_before_the_first_row() {
    let cluster = Cluster::get();
    let problems = cluster
        .sink(&json!("out"), json!({ "key": "id", "partition": "name", "headers": { "h": "none" }, "linger": "1h", "delimiter": ";" }))
        .err()
        .expect("mistakes");
    let places: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    for place in ["key", "partition", "headers.h", "linger", "delimiter"] {
        assert!(places.contains(&place), "{place} in {problems:?}");
    }
    let missing = cluster.topic("missing");
    let sink = cluster.sink(&json!(missing), json!({ "delivery": "at-least-once" })).expect("settings");
    let error = sink.writer(context(0, None)).await.err().expect("there is no such topic");
    assert!(error.to_string().contains(&missing), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_large_is_an_error_that_says_what_to_raise() {
    let cluster = Cluster::get();
    let topic = cluster.create("out", 1, &[("max.message.bytes", "2000")]).await;
    let sink = cluster.sink(&json!(topic), json!({ "delivery": "at-least-once", "compression": "none" })).expect("settings");
    let mut writer = sink.writer(context(0, None)).await.expect("a writer");
    writer.write(&rows(0..1, &"x".repeat(5_000))).await.expect("queued");
    let refused = writer.on_barrier(CheckpointId(1)).await.expect_err("the topic takes less");
    assert!(refused.to_string().contains(&topic) && refused.to_string().contains("message-bytes-max"), "{refused}");
}

/// A job with one sink that writes exactly once, as the engine drives it.
pub(super) struct Job<'a> {
    cluster: &'a Cluster,
    topic: String,
    lineage: String,
    pub(super) transaction: Arc<dyn Transaction>,
    pub(super) held: CommitRecord,
    /// What the job directory knows.
    known: CommitRecord,
}

impl<'a> Job<'a> {
    async fn new(cluster: &'a Cluster, topic: &str) -> Self {
        let mut job = Self::unclaimed(cluster, topic, &cluster.unique, json!({}));
        job.claim().await.expect("claimable");
        job
    }

    pub(super) fn unclaimed(cluster: &'a Cluster, topic: &str, lineage: &str, more: Value) -> Self {
        let mut settings = cluster.sink_settings(&json!(topic), more);
        settings.as_object_mut().expect("an object").entry("commit-topic").or_insert(json!(cluster.topic("commits")));
        let settings: SinkSettings = serde_json::from_value(settings).expect("settings");
        let request = TransactionRequest { writes: vec![topic.to_owned()], ..request() };
        let transaction = transaction::Transaction::new(&settings, Path::new("."), request).expect("no secrets");
        Self {
            cluster,
            topic: topic.to_owned(),
            lineage: lineage.to_owned(),
            transaction: Arc::new(transaction),
            held: CommitRecord::default(),
            known: CommitRecord::default(),
        }
    }

    /// Another process with the same job directory.
    pub(super) fn another(&self) -> Self {
        Self { known: self.held.clone(), ..Self::unclaimed(self.cluster, &self.topic, &self.lineage, json!({})) }
    }

    pub(super) async fn claim(&mut self) -> Result<(), Error> {
        let claim = Claim { seen_incarnation: self.known.incarnation, is_fresh: false };
        self.held = self.transaction.claim(&self.lineage, None, claim).await?;
        self.known = self.held.clone();
        Ok(())
    }

    pub(super) async fn writer(&self, subtask: u32) -> Box<dyn SinkWriter> {
        let sink = self.cluster.sink(&json!(self.topic), json!({})).expect("settings");
        sink.writer(context(subtask, Some(self.transaction.part()))).await.expect("a writer")
    }

    pub(super) async fn commit(&mut self, checkpoint: u64) -> Result<(), Error> {
        let record = CommitRecord {
            checkpoint: Some(CheckpointId(checkpoint)),
            manifest: Some(format!("{JOB}/{checkpoint}.manifest")),
            manifest_sha256: Some("ab".repeat(32)),
            last_number: checkpoint,
            ..self.held.clone()
        };
        self.transaction.commit(&record).await?;
        self.held = record;
        Ok(())
    }
}

pub(super) fn request() -> TransactionRequest {
    let checkpoint_interval = std::time::Duration::from_secs(1);
    TransactionRequest { job: JobId::from(JOB), checkpoint_interval, clock: Arc::new(SystemClock), writes: Vec::new() }
}

pub(super) async fn checkpoint(writer: &mut dyn SinkWriter, checkpoint: u64) -> Result<(), OperatorError> {
    writer.on_barrier(CheckpointId(checkpoint)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_seen_with_the_checkpoint_that_counts_them_and_not_before() {
    let cluster = Cluster::get();
    let topic = cluster.create("out", 2, &[]).await;
    let mut job = Job::new(&cluster, &topic).await;
    let mut writers = [job.writer(0).await, job.writer(1).await];
    for round in 0..4 {
        let first = round * 20;
        for (number, writer) in writers.iter_mut().enumerate() {
            let start = first + number as i64 * 10;
            writer.write(&rows(start..start + 10, &topic)).await.expect("written");
            checkpoint(&mut **writer, round as u64 + 1).await.expect("sealed");
        }
        assert_eq!(cluster.ids(&topic), (0..first).collect::<Vec<_>>(), "before the commit of {round}");
        job.commit(round as u64 + 1).await.expect("committed");
        assert_eq!(cluster.ids(&topic), (0..first + 20).collect::<Vec<_>>(), "after it");
    }
}

/// The stream does not wait for the commit, and what it sends meanwhile belongs to the next one.
#[tokio::test(flavor = "multi_thread")]
async fn rows_behind_a_barrier_are_not_committed_with_those_before_it() {
    let cluster = Cluster::get();
    let topic = cluster.create("out", 1, &[]).await;
    let mut job = Job::new(&cluster, &topic).await;
    let mut writer = job.writer(0).await;
    writer.write(&rows(0..10, &topic)).await.expect("written");
    checkpoint(&mut *writer, 1).await.expect("sealed");
    writer.write(&rows(10..20, &topic)).await.expect("written");
    job.commit(1).await.expect("committed");
    assert_eq!(cluster.ids(&topic), (0..10).collect::<Vec<_>>());
    checkpoint(&mut *writer, 2).await.expect("sealed");
    job.commit(2).await.expect("committed");
    assert_eq!(cluster.ids(&topic), (0..20).collect::<Vec<_>>());
}

/// R3: whoever claims ends what an older process had open, and finds what it had committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_fences_a_zombie_and_finds_what_it_committed() {
    let cluster = Cluster::get();
    let topic = cluster.create("out", 1, &[]).await;
    let mut zombie = Job::new(&cluster, &topic).await;
    let mut writer = zombie.writer(0).await;
    writer.write(&rows(0..10, &topic)).await.expect("written");
    checkpoint(&mut *writer, 1).await.expect("sealed");
    zombie.commit(1).await.expect("committed");
    writer.write(&rows(10..20, &topic)).await.expect("written");
    checkpoint(&mut *writer, 2).await.expect("sealed");
    let mut heir = zombie.another();
    heir.claim().await.expect("claimable");
    assert_eq!((heir.held.incarnation, heir.held.checkpoint), (2, Some(CheckpointId(1))));
    let refused = zombie.commit(2).await.expect_err("it is fenced");
    assert!(matches!(refused, Error::Fenced { incarnation: 1, holder: 2, .. }), "{refused:?}");
    assert_eq!(cluster.ids(&topic), (0..10).collect::<Vec<_>>(), "nothing of the zombie's second checkpoint is seen");
    // The zombie's end has not harmed the heir.
    let mut writer = heir.writer(0).await;
    writer.write(&rows(10..20, &topic)).await.expect("written");
    checkpoint(&mut *writer, 2).await.expect("sealed");
    heir.commit(2).await.expect("committed");
    assert_eq!(cluster.ids(&topic), (0..20).collect::<Vec<_>>());
}

/// A claim writes the ends that brokers have lost, and cannot tell them from transactions of others: those stay as they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_somebody_else_in_the_same_topic_is_left_alone_by_a_claim() {
    let cluster = Cluster::get();
    let topic = cluster.create("out", 2, &[]).await;
    let other = cluster.producer(Some(&cluster.topic("other")));
    other.init_transactions(LONG).expect("initialised");
    other.begin_transaction().expect("begun");
    send(&other, &topic, 0, r#"{"id":100}"#);
    other.flush(LONG).expect("delivered");
    let mut job = Job::new(&cluster, &topic).await;
    let mut writer = job.writer(0).await;
    writer.write(&rows(0..10, &topic)).await.expect("written");
    checkpoint(&mut *writer, 1).await.expect("sealed");
    job.commit(1).await.expect("committed");
    other.commit_transaction(LONG).expect("committed");
    assert_eq!(cluster.ids(&topic), (0..10).chain([100]).collect::<Vec<_>>());
}

/// R5: two checkpoints on two sides can be committed by no single transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_was_given_up_joins_the_next_only_if_nothing_was_sent_behind_it() {
    let cluster = Cluster::get();
    let topic = cluster.create("out", 1, &[]).await;
    let mut job = Job::new(&cluster, &topic).await;
    let mut writer = job.writer(0).await;
    writer.write(&rows(0..10, &topic)).await.expect("written");
    checkpoint(&mut *writer, 1).await.expect("sealed");
    // 1 is given up; nothing was sent since.
    checkpoint(&mut *writer, 2).await.expect("sealed again");
    job.commit(2).await.expect("committed");
    assert_eq!(cluster.ids(&topic), (0..10).collect::<Vec<_>>());
    writer.write(&rows(10..20, &topic)).await.expect("written");
    checkpoint(&mut *writer, 3).await.expect("sealed");
    writer.write(&rows(20..30, &topic)).await.expect("written");
    // 3 is given up; rows were sent since.
    let refused = checkpoint(&mut *writer, 4).await.expect_err("both sides hold rows");
    assert!(refused.to_string().contains("checkpoint 3 was given up"), "{refused}");
    assert_eq!(cluster.ids(&topic), (0..10).collect::<Vec<_>>());
}

/// R7: a record that must be there and is not is never a fresh start.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_record_that_was_deleted_is_an_error() {
    let cluster = Cluster::get();
    let topic = cluster.create("out", 1, &[]).await;
    let mut job = Job::new(&cluster, &topic).await;
    job.commit(1).await.expect("committed");
    cluster.admin().delete(&cluster.topic("commits")).await.expect("deleted");
    let mut heir = job.another();
    let mut refused = heir.claim().await.expect_err("the record is gone");
    // A topic takes a moment to go, and cannot be made meanwhile.
    while matches!(refused, Error::Unreachable { .. }) {
        refused = heir.claim().await.expect_err("the record is gone");
    }
    assert!(matches!(refused, Error::RecordMissing { incarnation: 1, .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_topic_that_would_forget_and_a_timeout_that_brokers_refuse_are_named() {
    let cluster = Cluster::get();
    let topic = cluster.create("out", 1, &[]).await;
    let forgetful = cluster.create("forgetful", 1, &[("cleanup.policy", "delete")]).await;
    let refused = Job::unclaimed(&cluster, &topic, "a", json!({ "commit-topic": forgetful })).claim().await.expect_err("it forgets");
    assert!(refused.to_string().contains("set cleanup.policy=compact"), "{refused}");
    // The brokers of tests allow 15 minutes.
    let mut settings = cluster.sink_settings(&json!(topic), json!({ "commit-topic": cluster.topic("commits") }));
    settings.as_object_mut().expect("an object").insert("delivery".into(), json!("exactly-once"));
    let settings: SinkSettings = serde_json::from_value(settings).expect("settings");
    let request = TransactionRequest { checkpoint_interval: std::time::Duration::from_secs(600), ..request() };
    let transaction = transaction::Transaction::new(&settings, Path::new("."), request).expect("no secrets");
    let refused = transaction.claim("b", None, Claim::default()).await.expect_err("half an hour is too long");
    assert!(refused.to_string().contains("transaction.max.timeout.ms"), "{refused}");
}

/// A fork has the same job name, and must meet nothing of the original.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_neither_fences_its_original_nor_finds_its_record() {
    let cluster = Cluster::get();
    let topic = cluster.create("out", 1, &[]).await;
    let mut original = Job::new(&cluster, &topic).await;
    original.commit(1).await.expect("committed");
    let mut fork = Job::unclaimed(&cluster, &topic, "fork", json!({}));
    fork.claim().await.expect("claimable");
    assert_eq!((fork.held.incarnation, fork.held.checkpoint), (1, None));
    original.commit(2).await.expect("not fenced");
}

#[test]
fn a_record_in_the_topic_reads_as_it_was_written() {
    let record = CommitRecord {
        incarnation: 3,
        checkpoint: Some(CheckpointId(7)),
        manifest: Some("m".into()),
        last_number: 7,
        ..CommitRecord::default()
    };
    assert_eq!(
        String::from_utf8(CommitTopic::encode(&record)).expect("text"),
        r#"{"format":1,"record":{"incarnation":3,"checkpoint":7,"manifest":"m","manifest_sha256":null,"last_number":7}}"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_does_not_have_is_found_before_the_job_runs() {
    let cluster = Cluster::get();
    let topic = cluster.create("out", 1, &[]).await;
    let checked = async |topic: &str, more: Value, interval_s: Option<u64>| {
        let sink = cluster.sink(&json!(topic), more).expect("settings");
        sink.check_outside(interval_s.map(std::time::Duration::from_secs)).await
    };
    checked(&topic, json!({}), Some(1)).await.expect("all is there");
    let missing = checked("missing", json!({}), Some(1)).await.expect_err("there is no such topic");
    assert!(missing.fault == Fault::User && missing.to_string().contains("topic missing"), "{missing}");
    // Brokers allow 15 minutes unless they are told otherwise.
    let long = checked(&topic, json!({}), Some(301)).await.expect_err("three intervals are too long");
    assert_eq!(long.fault, Fault::User);
    for part in ["903s", "900s", "raise transaction.max.timeout.ms", "shorten `transaction-timeout` or the checkpoint interval"] {
        assert!(long.to_string().contains(part), "`{part}` is not in {long}");
    }
    checked(&topic, json!({ "transaction-timeout": "15m" }), Some(301)).await.expect("it is said otherwise");
    checked(&topic, json!({}), None).await.expect("there is no transaction without checkpoints");
    checked(&topic, json!({ "delivery": "at-least-once" }), Some(301)).await.expect("nor without exactly-once");
}
