//! What a user may write under `kafka:`. Typed, with ranges: nothing is passed through to librdkafka as it is written.

use std::{collections::BTreeMap, num::NonZeroU32};

use chrono::DateTime;
use rdkafka::ClientConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{connection::Connection, producer::QUEUE_KIB, registry::Registry};
use crate::{
    formats::ndjson::Nulls,
    settings::{AsciiCharacter, OneOrMany, Period, problem},
};
use millstream_engine::connector::SettingsProblem;

/// What stands in the value of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ValueFormat {
    /// One JSON object.
    Json,
    /// One record of comma-separated values, without header.
    Csv,
    /// Text in UTF-8, in one column (`value`, unless the schema names it).
    String,
    /// Bytes as they are, in one column.
    Raw,
    /// Apache Avro: the schema stands in `value-schema`, or in the registry.
    Avro,
    /// A message of Protocol Buffers, described in the same places.
    Protobuf,
}

impl ValueFormat {
    /// Whether values need a schema besides the columns.
    pub fn has_schema(self) -> bool {
        matches!(self, Self::Avro | Self::Protobuf)
    }
}

/// Bytes of a key or header as a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyFormat {
    /// Text in UTF-8: a column of type `Utf8`.
    #[default]
    String,
    /// Bytes: a column of type `Binary`.
    Raw,
}

/// An instant as a user writes it, in ms since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Instant(pub i64);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let instant = DateTime::parse_from_rfc3339(&text);
        instant
            .map(|instant| Self(instant.timestamp_millis()))
            .map_err(|_| D::Error::custom(format!("`{text}` is no instant such as 2026-01-05T00:00:00Z")))
    }
}

/// The number of a partition, which is text where it is a key of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct PartitionNumber(pub i32);

impl TryFrom<String> for PartitionNumber {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number| *number >= 0);
        number.map(Self).ok_or_else(|| format!("`{text}` is no number of a partition"))
    }
}

/// Where reading begins in partitions that the job has not read yet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At the first record that is still there.
    Earliest,
    /// Behind the last record that is there when the job starts. Partitions that are made later are read from their first record.
    Latest,
    /// Where the group has committed; at the first record where it has not.
    Committed,
    /// At the first record with this timestamp or a later one.
    #[serde(untagged)]
    At {
        /// In RFC 3339, such as `2026-01-05T00:00:00Z`.
        timestamp: Instant,
    },
    /// At these offsets, by topic and partition; partitions that are not named are read from their first record.
    #[serde(untagged)]
    Offsets {
        /// Topic → partition → offset of the first record.
        offsets: BTreeMap<String, BTreeMap<PartitionNumber, u64>>,
    },
}

/// Where reading ends; without, it never does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Behind the last record that is there when the job starts.
    Now,
    /// Before the first record with this timestamp or a later one; where there is none, behind the last record at the start.
    #[serde(untagged)]
    At {
        /// In RFC 3339.
        timestamp: Instant,
    },
    /// Before these offsets, by topic and partition; partitions that are not named are not read.
    #[serde(untagged)]
    Offsets {
        /// Topic → partition → offset of the first record that is not read.
        offsets: BTreeMap<String, BTreeMap<PartitionNumber, u64>>,
    },
}

/// Which records of transactions are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Those of committed ones. A transaction that is open holds up what comes after it.
    #[default]
    ReadCommitted,
    /// All, also those of transactions that are never committed.
    ReadUncommitted,
}

impl Isolation {
    /// As the client is told.
    pub(super) fn level(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// What becomes of records without a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tombstones {
    /// They are rejected.
    #[default]
    Reject,
    /// They are left out.
    Skip,
}

/// What records say about rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Changes {
    /// Each is a row of its own.
    #[default]
    Append,
    /// Each is the present content of the row with its key; one without value says that the row is gone.
    Upsert,
    /// Sources: each is an envelope of Debezium, with the rows before and after a change.
    Debezium,
}

/// Columns beside those of the value, by what they hold: the names that they get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Metadata {
    /// The key.
    pub key: Option<String>,
    /// The headers, in order: a list of name and value.
    pub headers: Option<String>,
    /// The timestamp of the record, in ms, UTC.
    pub timestamp: Option<String>,
    /// The topic.
    pub topic: Option<String>,
    /// The partition.
    pub partition: Option<String>,
    /// The offset.
    pub offset: Option<String>,
}

/// A source that reads topics.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SourceSettings {
    /// Addresses of some brokers, `host:port`.
    pub servers: OneOrMany,
    /// Encrypts the connection. Default: it is not encrypted.
    pub tls: Option<super::connection::Tls>,
    /// Says who we are. Default: nobody.
    pub sasl: Option<super::connection::Sasl>,
    /// The topics: names, or patterns such as `flights-*`.
    pub topics: OneOrMany,
    /// Required.
    pub format: ValueFormat,
    /// Avro: the schema of the values as JSON. Protobuf: the text of a `.proto` file. Or the path of a file that holds it, relative to the job file.
    /// With a registry: what gives the columns, and in Avro the defaults of fields that a value does not have. Default: the latest one of the registry.
    pub value_schema: Option<String>,
    /// Protobuf: the name of the message. Default: the first of the file, or with a registry the one that each value names.
    pub message: Option<String>,
    /// The registry that knows the schemas of the values, which begin with the id of theirs. Default: they have none.
    pub schema_registry: Option<Registry>,
    /// The group whose offsets follow the checkpoints, for tools that show lag. Nothing is read from there unless `start: committed`. Default: none.
    pub group: Option<String>,
    /// Where reading begins in partitions that no checkpoint knows. Default: earliest.
    #[serde(default = "default_start")]
    pub start: Start,
    /// Where reading ends. Default: never.
    pub end: Option<End>,
    /// Which records of transactions are read. Default: read-committed.
    #[serde(default)]
    pub isolation: Isolation,
    /// Columns beside those of the value, by what they hold. Default: none.
    #[serde(default)]
    pub metadata: Metadata,
    /// What the key is. Default: string.
    #[serde(default)]
    pub key_format: KeyFormat,
    /// What records say about rows. Default: append.
    #[serde(default)]
    pub changes: Changes,
    /// What becomes of records without a value. Default: reject; with `changes: debezium` skip, for each deletion is followed by one. With
    /// `changes: upsert` they are the deletions.
    pub tombstones: Option<Tombstones>,
    /// Time between two looks for new partitions and topics. Default: 30s.
    #[serde(default = "default_discovery_interval")]
    pub discovery_interval: Period,
    /// JSON and CSV: how timestamps are written, by column (as for `files`). Default: RFC 3339, or an integer in the column's unit.
    #[serde(default)]
    pub timestamp_formats: BTreeMap<String, String>,
    /// CSV: the character between fields. Default: `,`.
    pub delimiter: Option<AsciiCharacter>,
    /// CSV: the character around fields that hold delimiters or line ends. Default: `"`.
    pub quote: Option<AsciiCharacter>,
    /// CSV: unquoted texts that mean null, besides the empty one. Default: none.
    #[serde(default)]
    pub null_values: Vec<String>,
    /// Bytes that are fetched ahead per partition, 64 KiB to 1 GiB. Default: 16 MiB.
    #[serde(default = "default_prefetch_bytes")]
    pub prefetch_bytes: u64,
    /// Bytes of one partition in one answer, 1 KiB to 1 GiB. Default: 1 MiB.
    #[serde(default = "default_fetch_bytes")]
    pub fetch_bytes: u64,
    /// How long the broker may wait for more, up to 10s. Shorter: less delay where there is little. Default: 100ms.
    #[serde(default = "default_fetch_wait")]
    pub fetch_wait: Period,
}

fn default_start() -> Start {
    Start::Earliest
}

fn default_discovery_interval() -> Period {
    Period::ms(30_000)
}

fn default_prefetch_bytes() -> u64 {
    16 << 20
}

fn default_fetch_bytes() -> u64 {
    1 << 20
}

fn default_fetch_wait() -> Period {
    Period::ms(100)
}

impl SourceSettings {
    /// How the cluster is reached.
    pub fn connection(&self) -> Connection {
        Connection { servers: self.servers.clone(), tls: self.tls.clone(), sasl: self.sasl.clone() }
    }

    /// Reports values that are out of range, or do not go together.
    pub fn check(&self, problems: &mut Vec<SettingsProblem>) {
        range("prefetch-bytes", self.prefetch_bytes, 64 << 10, 1 << 30, problems);
        range("fetch-bytes", self.fetch_bytes, 1 << 10, 1 << 30, problems);
        range("fetch-wait", self.fetch_wait.as_ms().unsigned_abs(), 0, 10_000, problems);
        range("discovery-interval", self.discovery_interval.as_ms().unsigned_abs(), 1, i64::MAX as u64, problems);
        if self.start == Start::Committed && self.group.is_none() {
            problems.push(problem("start", "`committed` needs `group`: it says whose offsets"));
        }
        if self.topics.as_slice().is_empty() {
            problems.push(problem("topics", "name at least one topic"));
        }
        check_schema(self.format, [self.value_schema.is_some(), self.schema_registry.is_some(), self.message.is_some()], problems);
        self.check_changes(problems);
        if self.schema_registry.as_ref().is_some_and(|registry| registry.register.is_some()) {
            problems.push(problem("schema-registry.register", "is a setting of sinks only"));
        }
        let is_csv = self.format == ValueFormat::Csv;
        let only_csv =
            [("delimiter", self.delimiter.is_some()), ("quote", self.quote.is_some()), ("null-values", !self.null_values.is_empty())];
        problems.extend(only_csv.iter().filter(|(_, given)| *given && !is_csv).map(|(name, _)| problem(name, "is a setting of csv only")));
    }

    fn check_changes(&self, problems: &mut Vec<SettingsProblem>) {
        match self.changes {
            Changes::Append => {}
            Changes::Upsert => {
                if self.metadata.key.is_none() {
                    problems.push(problem("changes", "`upsert` needs `metadata.key`: the column that says which row a record is about"));
                }
                if self.tombstones.is_some() {
                    problems.push(problem("tombstones", "with `changes: upsert` they are the deletions"));
                }
            }
            Changes::Debezium if matches!(self.format, ValueFormat::Json | ValueFormat::Avro | ValueFormat::Protobuf) => {
                if !self.timestamp_formats.is_empty() {
                    problems.push(problem("timestamp-formats", "Debezium writes timestamps as integers: declare columns in their unit"));
                }
            }
            Changes::Debezium => problems.push(problem("changes", "envelopes of Debezium are json, avro or protobuf")),
        }
    }

    /// What becomes of records without a value, where they are no deletions.
    pub fn tombstones(&self) -> Tombstones {
        self.tombstones.unwrap_or(if self.changes == Changes::Debezium { Tombstones::Skip } else { Tombstones::Reject })
    }

    /// What the client is told besides the connection.
    pub fn tune(&self, config: &mut ClientConfig) {
        config
            .set("group.id", self.group.as_deref().unwrap_or("millstream"))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", if self.end.is_some() { "true" } else { "false" })
            .set("queued.max.messages.kbytes", (self.prefetch_bytes >> 10).to_string())
            // Only the bytes count: the library would stop at 100,000 records, and then look again after a whole second.
            .set("queued.min.messages", "10000000")
            .set("fetch.queue.backoff.ms", "10")
            .set("max.partition.fetch.bytes", self.fetch_bytes.to_string())
            .set("fetch.wait.max.ms", self.fetch_wait.as_ms().to_string())
            .set("fetch.error.backoff.ms", "100")
            // For the lag.
            .set("statistics.interval.ms", "1000");
    }
}

/// How records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// Not.
    None,
    /// Little, quickly.
    #[default]
    Lz4,
    /// Little, quickly; older.
    Snappy,
    /// Well, slowly.
    Gzip,
    /// Well, quickly; needs brokers and readers of Kafka 2.1.
    Zstd,
}

/// Which partition a row goes to, unless a column says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioner {
    /// As Kafka's Java clients: murmur2 of the key; rows without key anywhere.
    #[default]
    Murmur2,
    /// As librdkafka's clients by default: CRC32 of the key; rows without key anywhere.
    Crc32,
    /// Anywhere.
    Random,
}

/// What becomes of rows when a run dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Each row counts once for readers with `read_committed`: rows become visible with the checkpoint that counts them.
    #[default]
    ExactlyOnce,
    /// Rows are visible at once, and may come twice after a failure.
    AtLeastOnce,
}

/// A sink that writes topics.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SinkSettings {
    /// Addresses of some brokers, `host:port`.
    pub servers: OneOrMany,
    /// Encrypts the connection. Default: it is not encrypted.
    pub tls: Option<super::connection::Tls>,
    /// Says who we are. Default: nobody.
    pub sasl: Option<super::connection::Sasl>,
    /// The topic; with `topic-column` all topics that may be written.
    pub topic: OneOrMany,
    /// The column that names the topic of each row; it is not part of the value. Default: none.
    pub topic_column: Option<String>,
    /// Required.
    pub format: ValueFormat,
    /// Avro: the schema that is written, as JSON; default: it is made of the columns. Protobuf: the text of a `.proto` file; required. Or the path of a
    /// file that holds it, relative to the job file.
    pub value_schema: Option<String>,
    /// Protobuf: the name of the message. Default: the first of the file.
    pub message: Option<String>,
    /// The registry that gets to know the schema; values begin with its id. Default: none.
    pub schema_registry: Option<Registry>,
    /// The column that is the key: text or bytes. A list of columns: the key is a JSON object of them, in this order. They stay part of the value.
    /// Default: no key.
    pub key: Option<OneOrMany>,
    /// What records say about rows. `upsert` and `debezium` take streams with updates and deletions; `upsert` needs `key`. Default: append.
    #[serde(default)]
    pub changes: Changes,
    /// The column that is the timestamp of the record. It stays part of the value. Default: the event time of the row, else the time of sending.
    pub timestamp: Option<String>,
    /// The column that says the partition; it is not part of the value. Default: none.
    pub partition: Option<String>,
    /// Headers by name: the columns that they are taken from, text or bytes; these are not part of the value. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Which partition a row goes to, unless `partition` says it. Default: murmur2.
    #[serde(default)]
    pub partitioner: Partitioner,
    /// What becomes of rows when a run dies. Default: exactly-once.
    #[serde(default)]
    pub delivery: Delivery,
    /// How records are compressed. Default: lz4.
    #[serde(default)]
    pub compression: Codec,
    /// How long records wait for others to be sent with, up to 10s; besides, they wait for those before to be acknowledged. Default: 1ms.
    #[serde(default = "default_linger")]
    pub linger: Period,
    /// Bytes that are sent together, 1 KiB to 100 MiB. Default: 1 MiB.
    #[serde(default = "default_batch_bytes")]
    pub batch_bytes: u64,
    /// Bytes that may wait to be sent, 1 MiB to 1 GiB; the stream waits when there are more. As many may be on their way. Default: 64 MiB.
    #[serde(default = "default_queue_bytes")]
    pub queue_bytes: u64,
    /// The largest record, 1 KiB to 100 MiB. Default: 1 MiB.
    #[serde(default = "default_message_bytes_max")]
    pub message_bytes_max: u64,
    /// How long a record may take to be acknowledged, 1s to 1h. Default: 2m.
    #[serde(default = "default_delivery_timeout")]
    pub delivery_timeout: Period,
    /// How long a transaction may stay open when its process is gone, 1s to 15m: so long readers may have to wait. Default: three checkpoint
    /// intervals, at least 15s.
    pub transaction_timeout: Option<Period>,
    /// The compacted topic that holds the commit record of the job. Default: `millstream.commits.<job>`.
    pub commit_topic: Option<String>,
    /// Copies of the commit topic, where it is made. Default: what the brokers say.
    pub commit_replication: Option<NonZeroU32>,
    /// CSV: the character between fields. Default: `,`.
    pub delimiter: Option<AsciiCharacter>,
    /// JSON: whether nulls are written (`write`) or left out (`omit`). Default: write.
    pub nulls: Option<Nulls>,
}

fn default_linger() -> Period {
    Period::ms(1)
}

fn default_batch_bytes() -> u64 {
    1 << 20
}

fn default_queue_bytes() -> u64 {
    64 << 20
}

fn default_message_bytes_max() -> u64 {
    1 << 20
}

fn default_delivery_timeout() -> Period {
    Period::ms(120_000)
}

impl SinkSettings {
    /// How the cluster is reached.
    pub fn connection(&self) -> Connection {
        Connection { servers: self.servers.clone(), tls: self.tls.clone(), sasl: self.sasl.clone() }
    }

    /// Reports values that are out of range, or do not go together.
    pub fn check(&self, problems: &mut Vec<SettingsProblem>) {
        range("linger", self.linger.as_ms().unsigned_abs(), 0, 10_000, problems);
        range("batch-bytes", self.batch_bytes, 1 << 10, 100 << 20, problems);
        range("queue-bytes", self.queue_bytes, 1 << 20, 1 << 30, problems);
        range("message-bytes-max", self.message_bytes_max, 1 << 10, 100 << 20, problems);
        range("delivery-timeout", self.delivery_timeout.as_ms().unsigned_abs(), 1_000, 3_600_000, problems);
        if let Some(timeout) = self.transaction_timeout {
            range("transaction-timeout", timeout.as_ms().unsigned_abs(), 1_000, 900_000, problems);
        }
        match (self.topic.as_slice(), &self.topic_column) {
            ([], _) => problems.push(problem("topic", "name the topic")),
            ([_, _, ..], None) => problems.push(problem("topic", "with several topics, `topic-column` says which row goes where")),
            _ => {}
        }
        if self.delivery == Delivery::AtLeastOnce {
            let only = [
                ("transaction-timeout", self.transaction_timeout.is_some()),
                ("commit-topic", self.commit_topic.is_some()),
                ("commit-replication", self.commit_replication.is_some()),
            ];
            problems.extend(
                only.iter().filter(|(_, given)| *given).map(|(name, _)| problem(name, "is a setting of `delivery: exactly-once` only")),
            );
        }
        check_schema(self.format, [self.value_schema.is_some(), self.schema_registry.is_some(), self.message.is_some()], problems);
        match self.changes {
            Changes::Append => {}
            Changes::Upsert if self.key.is_some() => {}
            Changes::Upsert => problems.push(problem("changes", "`upsert` needs `key`: the column that says which row a record is about")),
            Changes::Debezium if matches!(self.format, ValueFormat::Json | ValueFormat::Avro | ValueFormat::Protobuf) => {}
            Changes::Debezium => problems.push(problem("changes", "`debezium` writes envelopes in json, avro or protobuf")),
        }
        if self.key.as_ref().is_some_and(|key| key.as_slice().is_empty()) {
            problems.push(problem("key", "the list names no column"));
        }
        if self.delimiter.is_some() && self.format != ValueFormat::Csv {
            problems.push(problem("delimiter", "is a setting of csv only"));
        }
        if self.nulls.is_some() && self.format != ValueFormat::Json {
            problems.push(problem("nulls", "is a setting of json only"));
        }
    }

    /// What the client is told besides the connection: every record is acknowledged by all replicas, and none is sent twice or out of order.
    pub fn tune(&self, config: &mut ClientConfig) {
        let codec = match self.compression {
            Codec::None => "none",
            Codec::Lz4 => "lz4",
            Codec::Snappy => "snappy",
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
        };
        let partitioner = match self.partitioner {
            Partitioner::Murmur2 => "murmur2_random",
            Partitioner::Crc32 => "consistent_random",
            Partitioner::Random => "random",
        };
        config
            .set("enable.idempotence", "true")
            .set("compression.type", codec)
            .set("partitioner", partitioner)
            .set("linger.ms", self.linger.as_ms().to_string())
            .set("batch.size", self.batch_bytes.to_string())
            .set(QUEUE_KIB, (self.queue_bytes >> 10).to_string())
            .set("queue.buffering.max.messages", "1000000")
            .set("message.max.bytes", self.message_bytes_max.to_string())
            .set("message.timeout.ms", self.delivery_timeout.as_ms().to_string());
    }
}

/// `given`: whether there are `value-schema`, `schema-registry` and `message`.
fn check_schema(format: ValueFormat, given: [bool; 3], problems: &mut Vec<SettingsProblem>) {
    let [schema, registry, message] = given;
    if !format.has_schema() {
        let given = [("value-schema", schema), ("schema-registry", registry)];
        problems.extend(given.iter().filter(|(_, given)| *given).map(|(name, _)| problem(name, "is a setting of avro and protobuf only")));
    }
    if message && format != ValueFormat::Protobuf {
        problems.push(problem("message", "is a setting of protobuf only"));
    }
}

fn range(name: &str, value: u64, least: u64, most: u64, problems: &mut Vec<SettingsProblem>) {
    if !(least..=most).contains(&value) {
        problems.push(problem(name, format!("is {least} to {most}, and {value} is not")));
    }
}
