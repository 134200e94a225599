//! The broker, and bare clients of it.

use std::{
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use millstream_broker::{Broker, create_topic};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use tempfile::TempDir;

/// Partitions of every topic: as many as this machine has cores, or two.
pub const PARTITIONS: u32 = 2;
const LONG: Duration = Duration::from_secs(60);

/// A broker with the memory and the compilers that users give it, and names that were not used before.
pub struct Cluster {
    broker: Broker,
    topics: AtomicU64,
    // After the broker, which writes there until it ends.
    _directory: TempDir,
}

impl Cluster {
    /// Starts it.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let broker = Broker::start(&directory.path().join("broker"), &["millstream.jvm=server"]);
        Ok(Self { broker, topics: AtomicU64::new(0), _directory: directory })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.broker.address()
    }

    /// A topic that was just made.
    pub fn topic(&self, name: &str) -> String {
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        let topic = format!("bench-{}-{number}-{name}", process::id());
        create_topic(self.address(), &topic, PARTITIONS);
        topic
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config
    }

    /// A producer with the settings that a sink has.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn producer(&self) -> anyhow::Result<ThreadedProducer<DefaultProducerContext>> {
        let mut config = self.producing();
        config.set("enable.idempotence", "true").set("partitioner", "murmur2_random").set("linger.ms", "5");
        config.create().context("a producer")
    }

    /// The producer of the load, which stands for many elsewhere. Not idempotent: one that is polls without a pause while the broker is slow, and takes
    /// a core of this machine from it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn load(&self) -> anyhow::Result<ThreadedProducer<DefaultProducerContext>> {
        self.producing().set("linger.ms", "1").create().context("a producer")
    }

    fn producing(&self) -> ClientConfig {
        let mut config = self.config();
        config
            .set("compression.type", "lz4")
            .set("batch.size", "1048576")
            .set("queue.buffering.max.kbytes", "65536")
            .set("queue.buffering.max.messages", "1000000");
        config
    }

    /// A consumer of a topic from its first record on, with the settings that a source has.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn consumer(&self, topic: &str) -> anyhow::Result<BaseConsumer> {
        let mut config = self.config();
        config
            .set("group.id", "bench")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", "16384")
            .set("queued.min.messages", "10000000")
            .set("fetch.queue.backoff.ms", "10")
            .set("max.partition.fetch.bytes", "1048576");
        let consumer: BaseConsumer = config.create().context("a consumer")?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            assignment.add_partition_offset(topic, partition.cast_signed(), Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        Ok(consumer)
    }

    /// Writes so many records, one after the other over the partitions.
    ///
    /// # Errors
    /// They are not taken.
    pub fn fill(&self, topic: &str, records: u64, mut value: impl FnMut(u64, &mut Vec<u8>)) -> anyhow::Result<()> {
        let (producer, mut bytes) = (self.producer()?, Vec::new());
        for number in 0..records {
            bytes.clear();
            value(number, &mut bytes);
            send(&producer, topic, Some((number % u64::from(PARTITIONS)) as i32), None, &bytes)?;
        }
        producer.flush(LONG).context("the topic is filled")
    }

    /// Every record of a topic into another: nothing but the client library.
    ///
    /// # Errors
    /// It does not get to its end.
    pub fn copy(&self, from: &str, to: &str) -> anyhow::Result<u64> {
        let (consumer, producer) = (self.consumer(from)?, self.producer()?);
        let (mut ended, mut records) = (0, 0);
        while ended < PARTITIONS {
            match consumer.poll(LONG).context("there are more records")? {
                Ok(record) => {
                    send(&producer, to, None, record.key(), record.payload().unwrap_or_default())?;
                    records += 1;
                }
                Err(KafkaError::PartitionEOF(_)) => ended += 1,
                Err(error) => bail!(error),
            }
        }
        producer.flush(LONG).context("everything is acknowledged")?;
        Ok(records)
    }
}

/// Hands a record over; waits while there is no room.
///
/// # Errors
/// It is not taken.
pub fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    partition: Option<i32>,
    key: Option<&[u8]>,
    value: &[u8],
) -> anyhow::Result<()> {
    loop {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).payload(value);
        record.partition = partition;
        record.key = key;
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => std::thread::yield_now(),
            Err((error, _)) => bail!(error),
        }
    }
}
