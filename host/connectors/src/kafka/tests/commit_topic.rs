//! The commit topic by itself: what is taken for the record of a job, and what is not.

use std::{sync::mpsc, time::Duration};

use millstream_engine::clock::SystemClock;
use millstream_model::ids::{CheckpointId, JobId};
use millstream_storage::{CommitRecord, Elsewhere, Error};
use rdkafka::{
    admin::{AdminOptions, ConfigSource, ResourceSpecifier},
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
    topic_partition_list::TopicPartitionList,
};

use super::{Cluster, LONG};
use crate::kafka::commit_topic::CommitTopic;

/// Shorter than any transaction of these tests stays open.
const SHORT: Duration = Duration::from_millis(300);
const LINEAGE: &str = "lineage";

fn record(number: u64) -> CommitRecord {
    CommitRecord {
        incarnation: 1,
        checkpoint: Some(CheckpointId(number)),
        manifest: Some(format!("payments/{number}.manifest")),
        last_number: number,
        ..CommitRecord::default()
    }
}

/// A commit topic, and somebody who writes into it in transactions.
struct Topic {
    cluster: Cluster,
    topic: CommitTopic,
    writer: ThreadedProducer<DefaultProducerContext>,
}

impl Topic {
    async fn new() -> Self {
        let cluster = Cluster::get();
        let topic = CommitTopic::new(cluster.topic("commits"), &JobId::from("payments"), LINEAGE, cluster.config());
        topic.ensure(None, &SystemClock).await.expect("it is made");
        let writer = cluster.producer(Some(&cluster.topic("writer")));
        writer.init_transactions(LONG).expect("initialised");
        Self { cluster, topic, writer }
    }

    /// Writes a value (none: a tombstone) under a key, in a transaction that stays open.
    fn write(&self, key: &str, value: Option<&[u8]>) {
        self.writer.begin_transaction().expect("begun");
        let mut record = BaseRecord::<str, [u8]>::to(&self.topic.name).partition(0).key(key);
        record.payload = value;
        self.writer.send(record).map_err(|(error, _)| error).expect("queued");
        self.writer.flush(LONG).expect("delivered");
    }

    fn write_committed(&self, key: &str, value: Option<&[u8]>) {
        self.write(key, value);
        self.writer.commit_transaction(LONG).expect("committed");
    }

    fn write_record(&self, number: u64) {
        self.write_committed(&self.topic.key, Some(&CommitTopic::encode(&record(number))));
    }

    /// Writes so many records under a key in one transaction, with these numbers.
    fn write_many(&self, key: &str, numbers: std::ops::Range<u64>) {
        self.writer.begin_transaction().expect("begun");
        for value in numbers.map(|number| CommitTopic::encode(&record(number))) {
            let record = BaseRecord::<str, [u8]>::to(&self.topic.name).partition(0).key(key).payload(&value);
            self.writer.send(record).map_err(|(error, _)| error).expect("queued");
        }
        self.writer.commit_transaction(LONG).expect("committed");
    }

    /// Each of the two ways to read it, in threads that may block.
    async fn read(&self) -> [Result<Option<CommitRecord>, Error>; 2] {
        let (visible, settled) = (self.topic.clone(), self.topic.clone());
        let read = tokio::task::spawn_blocking(move || [visible.visible(), settled.settled(LONG)]);
        read.await.expect("it does not panic")
    }

    async fn check(&self, expected: Option<u64>) {
        for read in self.read().await {
            assert_eq!(read.expect("it can be read"), expected.map(record));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_record_of_the_own_key_counts() {
    let topic = Topic::new().await;
    topic.check(None).await;
    topic.write_record(1);
    topic.write_record(2);
    topic.write_committed("payments/another", Some(&CommitTopic::encode(&record(7))));
    topic.write_committed("payments", Some(&CommitTopic::encode(&record(8))));
    topic.check(Some(2)).await;
}

/// Brokers compact what they no longer write to: a job that commits ten times a second has thousands of records before they begin, and so have the
/// others that share the topic.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_records_there_are_the_newest_is_found() {
    let topic = Topic::new().await;
    topic.write_many(&topic.topic.key, 1..5_000);
    topic.check(Some(4_999)).await;
    topic.write_many("payments/another", 1..12_000);
    topic.check(Some(4_999)).await;
    topic.write_many(&topic.topic.key, 5_000..5_001);
    topic.check(Some(5_000)).await;
}

/// Whoever deletes the record must be noticed by the job, which knows that there was one.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_deleted_by_its_key_does_not_come_back() {
    let topic = Topic::new().await;
    topic.write_record(1);
    topic.write_committed(&topic.topic.key, None);
    topic.check(None).await;
    topic.write_record(2);
    topic.check(Some(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_given_up_is_none() {
    let topic = Topic::new().await;
    topic.write_record(1);
    topic.write(&topic.topic.key, Some(&CommitTopic::encode(&record(2))));
    topic.writer.abort_transaction(LONG).expect("given up");
    topic.check(Some(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_waited_for_by_who_wants_to_know_for_good_and_by_nobody_else() {
    let topic = Topic::new().await;
    topic.write_record(1);
    topic.write(&topic.topic.key, Some(&CommitTopic::encode(&record(2))));
    let read = topic.topic.clone();
    let (visible, held_up) = tokio::task::spawn_blocking(move || (read.visible(), read.settled(SHORT))).await.expect("it does not panic");
    assert_eq!(visible.expect("it waits for nothing"), Some(record(1)));
    let held_up = held_up.expect_err("the transaction is open");
    assert!(matches!(held_up, Error::Unreachable { .. }), "{held_up:?}");
    let cause = std::error::Error::source(&held_up).expect("a cause").to_string();
    assert_eq!(cause, "a transaction holds it up at offset 2", "behind the record and the end of its transaction");
    // Once it ends, whoever waits goes on.
    let (tell, told) = mpsc::sync_channel(1);
    let read = topic.topic.clone();
    let waiting = tokio::task::spawn_blocking(move || {
        tell.send(()).expect("the test waits for it");
        read.settled(LONG)
    });
    told.recv().expect("it begins");
    topic.writer.commit_transaction(LONG).expect("committed");
    assert_eq!(waiting.await.expect("it does not panic").expect("it can be read"), Some(record(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_record_is_an_error_that_says_where_and_never_none() {
    for (value, expected) in [
        (&b"nonsense"[..], "is damaged: it holds no commit record (expected ident at line 1 column 2)"),
        (br#"{"format":1,"record":{}}"#, "is damaged: it holds no commit record (missing field `incarnation` at line 1 column 23)"),
        (br#"{"record":{"incarnation":1}}"#, "is damaged: it holds no commit record (missing field `format` at line 1 column 28)"),
        (br#"{"format":2,"record":{}}"#, "has format 2, and this version reads up to 1: use the version that wrote it, or a later one"),
    ] {
        let topic = Topic::new().await;
        topic.write_record(1);
        topic.write_committed(&topic.topic.key, Some(value));
        for read in topic.read().await {
            let error = read.expect_err("it is no record").to_string();
            assert_eq!(error, format!("{}, offset 2 {expected}", topic.topic.place()));
        }
    }
}

/// A topic that forgets one day is as bad as one that does at once.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_topic_that_keeps_the_newest_record_for_ever_is_used() {
    let cluster = Cluster::get();
    for (number, policy) in ["delete", "compact,delete"].into_iter().enumerate() {
        let name = cluster.create(&format!("forgetful-{number}"), 1, &[("cleanup.policy", policy)]).await;
        let topic = CommitTopic::new(name, &JobId::from("payments"), LINEAGE, cluster.config());
        let refused = topic.ensure(None, &SystemClock).await.expect_err("it forgets");
        assert!(matches!(refused, Error::Refused { .. }) && refused.to_string().contains(&format!("cleanup.policy={policy}")), "{refused}");
    }
    let name = cluster.create("kept", 3, &[("cleanup.policy", "compact")]).await;
    CommitTopic::new(name, &JobId::from("payments"), LINEAGE, cluster.config()).ensure(None, &SystemClock).await.expect("it is one");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_that_is_made_has_settings_of_its_own_and_as_many_copies_as_were_asked_for() {
    let topic = Topic::new().await;
    let admin = topic.cluster.admin();
    let described = {
        let client: rdkafka::admin::AdminClient<_> = topic.cluster.config().create().expect("a client");
        client.describe_configs([&ResourceSpecifier::Topic(&topic.topic.name)], &AdminOptions::new()).await.expect("an answer")
    };
    let settings = described.into_iter().next().expect("one topic").expect("it is there").entries;
    let mut own: Vec<(String, Option<String>)> = settings
        .into_iter()
        .filter(|setting| setting.source == ConfigSource::DynamicTopic)
        .map(|setting| (setting.name, setting.value))
        .collect();
    own.sort();
    let expected = [
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", "3600000"),
        ("max.message.bytes", "1048588"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("segment.bytes", "1048576"),
    ];
    assert_eq!(own, expected.map(|(name, value)| (name.to_owned(), Some(value.to_owned()))));
    assert_eq!(
        super::super::topics::partitions_of(admin.client(), &topic.topic.name, super::super::topics::Unknown::IsMistake)
            .expect("it is there"),
        [0]
    );
    // One broker has no two copies.
    let copied = CommitTopic::new(topic.cluster.topic("copied"), &JobId::from("payments"), LINEAGE, topic.cluster.config());
    let refused = copied.ensure(Some(2), &SystemClock).await.expect_err("there is one broker");
    let cause = std::error::Error::source(&refused).expect("what the broker said").to_string();
    assert!(cause.contains(&copied.name) && cause.to_lowercase().contains("replication"), "{cause}");
}

/// It takes part in no group: whoever may read the topic need not be allowed a group, and leaves nothing in one.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_in_a_group() {
    let topic = Topic::new().await;
    topic.write_record(1);
    topic.check(Some(1)).await;
    let mut config = topic.cluster.config();
    let consumer: BaseConsumer = config.set("group.id", "millstream").create().expect("a consumer");
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&topic.topic.name, 0);
    let found = consumer.committed_offsets(asked, LONG).expect("an answer");
    assert_eq!(found.elements()[0].offset(), rdkafka::Offset::Invalid);
}

/// What the job directory knows besides is no part of the record: only there another log decides.
#[test]
fn the_record_says_nothing_of_the_log_that_repeats_it() {
    let elsewhere = Some(Elsewhere { log: "topic commits".into(), lineage: LINEAGE.into(), since: 1 });
    assert_eq!(CommitTopic::encode(&CommitRecord { elsewhere, ..record(3) }), CommitTopic::encode(&record(3)));
}
