//! Sources and sinks against a real broker, which all tests share: each has topics of its own.

mod changes;
mod codecs;
mod commit_topic;
mod faults;
mod inspect;
mod security;
mod sink;
mod source;

use std::{path::Path, sync::Arc, time::Duration};

use millstream_broker::SharedBroker;
use millstream_engine::connector::{SettingsProblem, Source};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{OwnedHeaders, OwnedMessage},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use serde_json::{Value, json};

use super::{
    Machine,
    connection::Connection,
    source::KafkaSource,
    topics::{self, Admin, NewTopicSettings},
};
use crate::testing::{clock, plan_source, schema};

/// Longer than any answer takes.
const LONG: Duration = Duration::from_secs(60);

/// The shared broker, and names that no other test uses.
pub(super) struct Cluster {
    pub(super) address: String,
    unique: String,
    /// Held as long as it is used; none: a broker of the test's own.
    shared: Option<SharedBroker>,
}

impl Cluster {
    pub(super) fn get() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let unique = directory.path().file_name().expect("a name").to_string_lossy().trim_start_matches('.').to_owned();
        let shared = SharedBroker::get();
        Self { address: shared.address().to_owned(), unique, shared: Some(shared) }
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.unique)
    }

    fn connection(&self) -> Connection {
        serde_json::from_value(json!({ "servers": self.address })).expect("a connection")
    }

    fn admin(&self) -> Admin {
        Admin::new(&self.connection(), Path::new(".")).expect("a client")
    }

    /// Makes a topic of that many partitions; returns its full name.
    pub(super) async fn create(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> String {
        let name = self.topic(name);
        self.admin().create(&NewTopicSettings { name: &name, partitions, replication: None, config }).await.expect("a topic can be made");
        name
    }

    fn config(&self) -> ClientConfig {
        self.connection().client(Path::new(".")).expect("no secrets")
    }

    pub(super) fn producer(&self, transactional: Option<&str>) -> ThreadedProducer<DefaultProducerContext> {
        let mut config = self.config();
        config.set("linger.ms", "0");
        if let Some(id) = transactional {
            config.set("transactional.id", id);
        }
        config.create().expect("a producer")
    }

    /// Writes values to one partition and waits until they are there.
    fn produce(&self, topic: &str, partition: i32, values: &[&str]) {
        let producer = self.producer(None);
        for value in values {
            send(&producer, topic, partition, value);
        }
        producer.flush(LONG).expect("delivered");
    }

    /// The records that a reader with `isolation` sees now, of all partitions.
    pub(super) fn read_topic(&self, topic: &str, isolation: &str) -> Vec<OwnedMessage> {
        let mut config = self.config();
        config
            .set("group.id", "tests")
            .set("enable.partition.eof", "true")
            .set("isolation.level", isolation)
            .set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut left = topics::partitions_of(self.admin().client(), topic, topics::Unknown::IsMistake).expect("the topic is there");
        let mut assignment = TopicPartitionList::new();
        left.iter().for_each(|&partition| assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition"));
        consumer.assign(&assignment).expect("assigned");
        let mut records = Vec::new();
        while !left.is_empty() {
            match consumer.poll(LONG).expect("an answer") {
                Ok(record) => records.push(record.detach()),
                Err(KafkaError::PartitionEOF(partition)) => left.retain(|left| *left != partition),
                Err(error) => panic!("{error}"),
            }
        }
        records
    }

    fn source(&self, topics: &Value, more: Value) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        let mut settings = json!({ "servers": self.address, "topics": topics, "format": "json" });
        let Value::Object(more) = more else { unreachable!("settings are an object") };
        settings.as_object_mut().expect("an object").extend(more);
        let text = matches!(settings["format"].as_str(), Some("string" | "raw"));
        let declared = (!text).then(|| schema(&[("id", "Int64"), ("name", "Utf8?")]));
        plan_source(&KafkaSource(Machine::Own), &settings, Path::new("."), declared, clock())
    }
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, partition: i32, value: &str) {
    producer.send(BaseRecord::<(), str>::to(topic).partition(partition).payload(value)).map_err(|(error, _)| error).expect("queued");
}

fn header(name: &str, value: &str) -> OwnedHeaders {
    OwnedHeaders::new().insert(rdkafka::message::Header { key: name, value: Some(value) })
}
