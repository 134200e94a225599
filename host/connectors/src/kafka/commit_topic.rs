//! The compacted topic that holds the commit record of a job: made, checked, and read here. Its key is the job and the lineage of its directory.
//!
//! A record is JSON: `{"format":1,"record":{…}}`. The newest one of its key that is committed counts.
//!
//! # Size
//! Brokers compact only what lies before the segment that they write, which is a week or a gigabyte by default: at ten commits a second, millions of
//! records. So the topic that is made has small segments. Whatever its size: the end is looked at first, where a job that was running a moment ago has
//! its newest record; only a job that is not found there reads all of it.

use std::time::Duration;

use millstream_engine::clock::Clock;
use millstream_model::{ErrorKind, ids::JobId};
use millstream_storage::{CommitRecord, Error};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};
use serde::{Deserialize, Serialize};

use super::{
    client::{ANSWER, Context, failed_on_known},
    topics::{Admin, NewTopicSettings},
};

const FORMAT: u64 = 1;
/// The partition that is used, whatever others there are.
pub const PARTITION: i32 = 0;
/// How long one look at the topic lasts.
const LOOK: Duration = Duration::from_millis(100);
/// Looks in a row that find no record before the topic is given up.
const LOOKS_MAX: u32 = 3_000;
/// Offsets before the end that are looked at first.
const TAIL: i64 = 10_000;

/// What the topic is made with: a megabyte is the least that brokers take for a segment; markers of transactions outlive what they end by an hour.
const SETTINGS: [(&str, &str); 5] = [
    ("cleanup.policy", "compact"),
    ("delete.retention.ms", "3600000"),
    ("max.message.bytes", "1048588"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("segment.bytes", "1048576"),
];

/// Looks at the settings of the topic before they are given up, and the wait between two.
const POLICY_LOOKS_MAX: u32 = 100;
const POLICY_WAIT_MS: i64 = 50;

#[derive(Serialize, Deserialize)]
struct Envelope {
    format: u64,
    record: CommitRecord,
}

/// The commit topic of a job.
#[derive(Clone, Debug)]
pub struct CommitTopic {
    /// Its name.
    pub name: String,
    /// The key of the records.
    pub key: String,
    config: ClientConfig,
}

impl CommitTopic {
    /// The topic `name` of the cluster that `config` reaches.
    pub fn new(name: String, job: &JobId, lineage: &str, config: ClientConfig) -> Self {
        Self { name, key: format!("{job}/{lineage}"), config }
    }

    /// Makes the topic if there is none, and checks that it keeps the newest record of every key for ever.
    ///
    /// # Errors
    /// It cannot be made or has other settings, or the cluster does not answer.
    pub async fn ensure(&self, replication: Option<i32>, clock: &dyn Clock) -> Result<(), Error> {
        let admin = Admin::of(&self.config).map_err(|error| self.failed("preparing the commit topic", &error))?;
        let topic = NewTopicSettings { name: &self.name, partitions: 1, replication, config: &SETTINGS };
        admin.create(&topic).await.map_err(|error| self.failed("making the commit topic", &error))?;
        let policy = self.policy(&admin, clock).await?;
        if policy == "compact" {
            return Ok(());
        }
        Err(Error::Refused {
            what: "using the commit topic",
            path: self.place(),
            problem: format!(
                "it has cleanup.policy={policy}, so the commit record would be deleted one day: set cleanup.policy=compact, or name another \
                 topic with `commit-topic`"
            ),
        })
    }

    /// What the topic does with old records. A topic that was just made is not known to every broker at once, and then has no settings.
    async fn policy(&self, admin: &Admin, clock: &dyn Clock) -> Result<String, Error> {
        for _ in 0..POLICY_LOOKS_MAX {
            let found = admin.config(&self.name).await.map_err(|error| self.failed("checking the commit topic", &error))?;
            if let Some(policy) = found.and_then(|mut settings| settings.remove("cleanup.policy")) {
                return Ok(policy);
            }
            clock.sleep(POLICY_WAIT_MS).await;
        }
        let source = "the brokers do not say its settings: allow this user DescribeConfigs on it".into();
        Err(Error::Unreachable { what: "checking the commit topic", path: self.place(), source })
    }

    /// A record as it stands in the topic.
    pub fn encode(record: &CommitRecord) -> Vec<u8> {
        serde_json::to_vec(&Envelope { format: FORMAT, record: CommitRecord { elsewhere: None, ..record.clone() } })
            .expect("records are plain data")
    }

    /// The newest record that is committed now. Transactions that are open are not waited for. Blocks.
    ///
    /// # Errors
    /// The topic cannot be read, or holds what is no record.
    pub fn visible(&self) -> Result<Option<CommitRecord>, Error> {
        self.read(0, LOOK)
    }

    /// The newest record, when every transaction that has written before this call has ended. Blocks until then. Those of this job are ended when
    /// they have been fenced.
    ///
    /// # Errors
    /// As [`Self::visible`]; a transaction has not ended for so long.
    pub fn settled(&self, patience: Duration) -> Result<Option<CommitRecord>, Error> {
        let all = self.consumer("read_uncommitted")?;
        let (_, written) = self.asked(all.fetch_watermarks(&self.name, PARTITION, ANSWER))?;
        self.read(written, patience)
    }

    /// Reads up to what is committed, at least to `until`.
    fn read(&self, until: i64, patience: Duration) -> Result<Option<CommitRecord>, Error> {
        let consumer = self.consumer("read_committed")?;
        let (mut first, mut end) = (0, 0);
        for _ in 0..patience.as_millis().div_ceil(LOOK.as_millis()) {
            (first, end) = self.asked(consumer.fetch_watermarks(&self.name, PARTITION, ANSWER))?;
            if end >= until {
                break;
            }
            // Waits for what is not there: nothing is assigned yet.
            drop(consumer.poll(LOOK));
        }
        if end < until {
            let source = format!("a transaction holds it up at offset {end}").into();
            return Err(Error::Unreachable { what: "reading the commit record", path: self.place(), source });
        }
        let tail = end.saturating_sub(TAIL);
        let found = if tail > first { self.newest(&consumer, Offset::Offset(tail))? } else { None };
        if found.is_some() { Ok(found) } else { self.newest(&consumer, Offset::Beginning) }
    }

    /// The last record of the key from an offset on, up to the end of what is committed.
    fn newest(&self, consumer: &BaseConsumer<Context>, from: Offset) -> Result<Option<CommitRecord>, Error> {
        let mut assignment = TopicPartitionList::new();
        let added = assignment.add_partition_offset(&self.name, PARTITION, from);
        self.asked(added.and_then(|()| consumer.assign(&assignment)))?;
        let (mut newest, mut looks) = (None, 0);
        while looks < LOOKS_MAX {
            looks += 1;
            match consumer.poll(LOOK) {
                Some(Ok(record)) => {
                    looks = 0;
                    if record.key() == Some(self.key.as_bytes()) {
                        newest = record.payload().map(|value| self.decode(value, record.offset())).transpose()?;
                    }
                }
                None => {}
                // The library asks for the group of every consumer; ours takes part in none, and needs no right to it.
                Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {}
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(newest),
                Some(Err(error)) => self.asked(Err(error))?,
            }
        }
        let source = "its end was not reached".into();
        Err(Error::Unreachable { what: "reading the commit record", path: self.place(), source })
    }

    fn decode(&self, value: &[u8], offset: i64) -> Result<CommitRecord, Error> {
        let at = || format!("{}, offset {offset}", self.place());
        let format = serde_json::from_slice::<serde_json::Value>(value).ok().and_then(|value| value["format"].as_u64());
        match format {
            Some(format) if format > FORMAT => Err(Error::NewerFormat { path: at(), format, known: FORMAT }),
            _ => serde_json::from_slice::<Envelope>(value)
                .map(|envelope| envelope.record)
                .map_err(|error| Error::Damaged { path: at(), problem: format!("it holds no commit record ({error})") }),
        }
    }

    fn consumer(&self, isolation: &str) -> Result<BaseConsumer<Context>, Error> {
        let mut config = self.config.clone();
        config
            .set("group.id", "millstream")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "10")
            .set("isolation.level", isolation);
        self.asked(config.create_with_context(Context::default()))
    }

    fn asked<T>(&self, answer: Result<T, KafkaError>) -> Result<T, Error> {
        answer.map_err(|error| self.failed("reading the commit record", &failed_on_known("the commit topic cannot be read", &error, None)))
    }

    /// For messages.
    pub fn place(&self) -> String {
        format!("topic {}, partition {PARTITION}, key {}", self.name, self.key)
    }

    /// An error of the cluster, as one of a log.
    pub fn failed(&self, what: &'static str, error: &millstream_engine::operator::OperatorError) -> Error {
        if error.kind() == ErrorKind::Unavailable {
            return Error::Unreachable { what, path: self.place(), source: error.to_string().into() };
        }
        Error::Refused { what, path: self.place(), problem: error.to_string() }
    }
}

/// The name of the commit topic of a job that names none.
pub fn default_name(job: &JobId) -> String {
    format!("{}{job}", super::COMMIT_TOPICS)
}
