//! Looking at a cluster from outside any job: which topics there are, and the records of one. For people; every call blocks.
//!
//! A look leaves no trace: no group is joined, and no offset is committed. What it waits for can be the brokers only, so it may run on any thread that
//! has nothing else to do.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, time::Duration};

use millstream_engine::operator::OperatorError;
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _},
};

use super::{
    client::{ANSWER, Context, failed},
    connection::Connection,
    settings::Isolation,
    topics::{self, Unknown},
};

/// How long one look into the queue of what was fetched lasts.
const LOOK: Duration = Duration::from_millis(200);
/// Events of a client that are looked at for why a call has failed.
const EVENTS_MAX: u32 = 1_000;
/// How often transactions are looked at that were open when a look began, [`LOOK`] apart, until it does without their records. Brokers acknowledge a
/// commit before its records may be read: that of a job that has just ended must not be passed over.
const OPEN_LOOKS: u32 = 25;

type Consumer = BaseConsumer<Context>;

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions, in order.
    pub partitions: Vec<Partition>,
}

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub id: i32,
    /// The broker that answers for it; negative: none.
    pub leader: i32,
    /// How many copies there should be.
    pub replicas: usize,
    /// How many of these hold everything.
    pub in_sync: usize,
}

impl Topic {
    /// Whether it belongs to Kafka or holds commit records: nothing that a user would look for.
    pub fn is_internal(&self) -> bool {
        self.name.starts_with("__") || self.name.starts_with(super::COMMIT_TOPICS)
    }
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The offset of its first record.
    pub first: i64,
    /// The offset behind the last one that may be read.
    pub end: i64,
}

impl Extent {
    /// How many offsets there are between both: at least as many as records, for those that were compacted away and the markers of transactions
    /// have one too.
    pub fn offsets(self) -> u64 {
        u64::try_from(self.end - self.first).unwrap_or(0)
    }
}

/// Where a look at a topic begins, in each of its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first record.
    Earliest,
    /// Behind the last one.
    Latest,
    /// So many offsets before the end.
    Last(u64),
    /// At this offset.
    Offset(i64),
    /// At the first record with this timestamp, in ms since the epoch, or a later one.
    At(i64),
}

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The topic.
    pub topic: String,
    /// Only these partitions; none named: all.
    pub partitions: Vec<i32>,
    /// Where it begins.
    pub from: From,
    /// Go on with records to come; otherwise up to the end of now.
    pub follow: bool,
}

/// A transaction that was open at the end of a look: neither its records nor what comes behind them in its partition were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldUp {
    /// The partition.
    pub partition: i32,
    /// The offset of its first record.
    pub offset: i64,
}

/// A record, as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in ms since the epoch.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none: a tombstone.
    pub value: Option<&'a [u8]>,
    message: &'a BorrowedMessage<'a>,
}

impl<'a> Record<'a> {
    fn of(message: &'a BorrowedMessage<'a>) -> Self {
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            message,
        }
    }

    /// Its headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let headers = self.message.headers();
        headers.into_iter().flat_map(|headers| headers.iter()).map(|header| (header.key, header.value))
    }
}

/// Looks at a cluster.
pub struct Viewer {
    consumer: Consumer,
    /// Sees what was written by open transactions, too; none: `consumer` does.
    all: Option<Consumer>,
}

impl Viewer {
    /// Of a cluster; files of the connection are relative to `base`.
    ///
    /// # Errors
    /// A secret is missing, or the settings fit no client.
    pub fn new(connection: &Connection, base: &Path, isolation: Isolation) -> Result<Self, OperatorError> {
        let mut config = connection.client(base).map_err(OperatorError::user)?;
        config
            // The library wants a name; no group is joined.
            .set("group.id", "millstream")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true");
        let mut reading = |isolation: Isolation| {
            let consumer = config.set("isolation.level", isolation.level()).create_with_context(Context::default());
            consumer.map_err(|error| failed("the cluster cannot be asked", &error, None))
        };
        let all = (isolation == Isolation::ReadCommitted).then(|| reading(Isolation::ReadUncommitted)).transpose()?;
        Ok(Self { consumer: reading(isolation)?, all })
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn topics(&self) -> Result<Vec<Topic>, OperatorError> {
        let metadata = self.consumer.fetch_metadata(None, ANSWER);
        let metadata = metadata.map_err(|error| self.failed("the topics cannot be asked for", &error))?;
        let mut topics: Vec<Topic> = metadata
            .topics()
            .iter()
            .map(|topic| {
                let partition = |found: &rdkafka::metadata::MetadataPartition| Partition {
                    id: found.id(),
                    leader: found.leader(),
                    replicas: found.replicas().len(),
                    in_sync: found.isr().len(),
                };
                let mut partitions: Vec<Partition> = topic.partitions().iter().map(partition).collect();
                partitions.sort_unstable_by_key(|partition| partition.id);
                Topic { name: topic.name().to_owned(), partitions }
            })
            .collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// What a partition holds.
    ///
    /// # Errors
    /// It does not exist or may not be read, or the cluster does not answer.
    pub fn extent(&self, topic: &str, partition: i32) -> Result<Extent, OperatorError> {
        self.extent_for(&self.consumer, topic, partition)
    }

    fn extent_for(&self, consumer: &Consumer, topic: &str, partition: i32) -> Result<Extent, OperatorError> {
        let answer = consumer.fetch_watermarks(topic, partition, ANSWER);
        let asked = || format!("topic {topic}, partition {partition}: its offsets cannot be asked for");
        answer.map(|(first, end)| Extent { first, end }).map_err(|error| self.failed(&asked(), &error))
    }

    /// Hands over one record after the other, each partition in order, until there are no more or `on_record` has seen enough. While nothing comes
    /// `on_pause` is asked whether to go on, several times a second. Returns which transactions were open, where the look has ended by itself.
    ///
    /// # Errors
    /// The topic or a partition does not exist or may not be read, the offset is not there, or the cluster does not answer.
    pub fn look(
        &self,
        look: &Look,
        mut on_record: impl FnMut(&Record<'_>) -> ControlFlow<()>,
        mut on_pause: impl FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<HeldUp>, OperatorError> {
        let partitions = self.chosen(look)?;
        let held_up = match self.held_up(look, &partitions, &mut on_pause)? {
            ControlFlow::Continue(held_up) => held_up,
            ControlFlow::Break(()) => return Ok(Vec::new()),
        };
        let mut open = self.assign(look, partitions)?;
        while look.follow || !open.is_empty() {
            match self.consumer.poll(LOOK) {
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let is_wanted = look.follow || open.get(&partition).is_some_and(|end| offset < *end);
                    if is_wanted && on_record(&Record::of(&message)).is_break() {
                        return Ok(Vec::new());
                    }
                    if open.get(&partition).is_some_and(|end| offset + 1 >= *end) {
                        open.remove(&partition);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) if look.follow && is_passing(&error) => tracing::debug!(%error, "kafka: the look goes on"),
                Some(Err(error)) => return Err(self.failed(&format!("topic {} cannot be read further", look.topic), &error)),
                None if on_pause().is_break() => return Ok(Vec::new()),
                None => {}
            }
        }
        Ok(held_up)
    }

    /// Waits a while for transactions that are open now; those that still are. Whoever follows sees their records when they come.
    fn held_up(
        &self,
        look: &Look,
        partitions: &[i32],
        on_pause: &mut impl FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), Vec<HeldUp>>, OperatorError> {
        let (Some(all), false) = (&self.all, look.follow) else { return Ok(ControlFlow::Continue(Vec::new())) };
        let written = |&partition: &i32| Ok((partition, self.extent_for(all, &look.topic, partition)?.end));
        let mut open: Vec<(i32, i64)> = partitions.iter().map(written).collect::<Result<_, OperatorError>>()?;
        let mut looks = 0;
        loop {
            let mut held_up = Vec::new();
            for &(partition, written) in &open {
                let offset = self.extent(&look.topic, partition)?.end;
                if offset < written {
                    held_up.push(HeldUp { partition, offset });
                }
            }
            looks += 1;
            if held_up.is_empty() || looks == OPEN_LOOKS {
                return Ok(ControlFlow::Continue(held_up));
            }
            if on_pause().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            open.retain(|(partition, _)| held_up.iter().any(|held_up| held_up.partition == *partition));
            // Waits for what is not there: nothing is assigned yet.
            drop(self.consumer.poll(LOOK));
        }
    }

    /// Begins to fetch; the end of each partition that holds something to be seen.
    fn assign(&self, look: &Look, partitions: Vec<i32>) -> Result<BTreeMap<i32, i64>, OperatorError> {
        let (mut assignment, mut ends) = (TopicPartitionList::new(), BTreeMap::new());
        for partition in partitions {
            let extent = self.extent(&look.topic, partition)?;
            let start = self.start(look, partition, extent)?;
            let added = assignment.add_partition_offset(&look.topic, partition, Offset::Offset(start));
            added.map_err(|error| self.failed(&format!("topic {}, partition {partition}", look.topic), &error))?;
            if start < extent.end {
                ends.insert(partition, extent.end);
            }
        }
        let assigned = self.consumer.assign(&assignment);
        assigned.map_err(|error| self.failed(&format!("topic {} cannot be read", look.topic), &error))?;
        Ok(ends)
    }

    fn chosen(&self, look: &Look) -> Result<Vec<i32>, OperatorError> {
        let all = topics::partitions_of(self.consumer.client(), &look.topic, Unknown::IsMistake)?;
        if look.partitions.is_empty() {
            return Ok(all);
        }
        match look.partitions.iter().find(|partition| !all.contains(partition)) {
            Some(missing) => {
                let last = all.last().copied().unwrap_or_default();
                Err(OperatorError::user(format!("topic {} has no partition {missing}: they are 0 to {last}", look.topic)))
            }
            None => Ok(look.partitions.clone()),
        }
    }

    fn start(&self, look: &Look, partition: i32, extent: Extent) -> Result<i64, OperatorError> {
        Ok(match look.from {
            From::Earliest => extent.first,
            From::Latest => extent.end,
            From::Last(count) => extent.end.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX)).max(extent.first),
            From::Offset(offset) if (extent.first..=extent.end).contains(&offset) => offset,
            From::Offset(offset) => {
                let Extent { first, end } = extent;
                return Err(OperatorError::user(format!(
                    "topic {}, partition {partition}: there is no offset {offset}, it holds {first} up to {end}",
                    look.topic
                )));
            }
            From::At(timestamp_ms) => self.at(&look.topic, partition, timestamp_ms)?.unwrap_or(extent.end),
        })
    }

    fn at(&self, topic: &str, partition: i32, timestamp_ms: i64) -> Result<Option<i64>, OperatorError> {
        let asked = || format!("topic {topic}, partition {partition}: its timestamps cannot be asked for");
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(topic, partition, Offset::Offset(timestamp_ms));
        let answer = added.and_then(|()| self.consumer.offsets_for_times(list, ANSWER)).map_err(|error| self.failed(&asked(), &error))?;
        Ok(answer.find_partition(topic, partition).and_then(|found| match found.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    fn failed(&self, what: &str, error: &KafkaError) -> OperatorError {
        // Why it failed waits to be asked for.
        for _ in 0..EVENTS_MAX {
            if self.consumer.poll(Duration::ZERO).is_none() {
                break;
            }
        }
        failed(what, error, self.consumer.context().complaint())
    }
}

/// The library tries again by itself.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
        )
    )
}
