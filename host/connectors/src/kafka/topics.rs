//! Topics themselves: which there are, their partitions, and making them. Every call blocks unless it says otherwise.

use std::{collections::BTreeMap, path::Path, time::Duration};

use globset::{Glob, GlobSet, GlobSetBuilder};
use millstream_engine::{connector::SettingsProblem, operator::OperatorError};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::Client,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    client::{ANSWER, Context, failed, failed_on_known},
    connection::Connection,
};
use crate::settings::problem;

/// The topics of a source: names, and patterns.
pub struct TopicNames {
    names: Vec<String>,
    patterns: Option<GlobSet>,
    shown: String,
}

impl TopicNames {
    /// None: some are neither a name nor a pattern, and are reported.
    pub fn new(texts: &[String], problems: &mut Vec<SettingsProblem>) -> Option<Self> {
        let (patterns, names): (Vec<&String>, Vec<&String>) = texts.iter().partition(|text| text.contains(['*', '?', '[', '{']));
        let before = problems.len();
        for name in names.iter().filter(|name| !is_topic_name(name)) {
            problems.push(problem("topics", format!("`{name}` is no name of a topic: letters, digits, `.`, `_` and `-`, at most 249")));
        }
        let mut set = GlobSetBuilder::new();
        for pattern in &patterns {
            match Glob::new(pattern) {
                Ok(glob) => drop(set.add(glob)),
                Err(error) => problems.push(problem("topics", format!("`{pattern}` is no pattern: {error}"))),
            }
        }
        let set = set.build().ok()?;
        let patterns = (!patterns.is_empty()).then_some(set);
        (problems.len() == before).then(|| Self { names: names.into_iter().cloned().collect(), patterns, shown: texts.join(", ") })
    }

    fn matches(&self, topic: &str) -> bool {
        // Topics of Kafka itself, and those of commits, are read by name only.
        self.patterns
            .as_ref()
            .is_some_and(|patterns| !topic.starts_with("__") && !topic.starts_with(super::COMMIT_TOPICS) && patterns.is_match(topic))
    }
}

/// Whether Kafka takes this as the name of a topic.
pub fn is_topic_name(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(is_legal) && name != "." && name != ".."
}

/// The partitions of all topics that `names` names, in order.
///
/// # Errors
/// A topic that is named does not exist or may not be read, a pattern matches none, or the cluster does not answer.
pub fn partitions(client: &Client<Context>, names: &TopicNames, unknown: Unknown) -> Result<Vec<(String, i32)>, OperatorError> {
    let mut found = Vec::new();
    for name in &names.names {
        found.extend(partitions_of(client, name, unknown)?.into_iter().map(|partition| (name.clone(), partition)));
    }
    if names.patterns.is_some() {
        for (topic, partitions) in all(client)?.into_iter().filter(|(topic, _)| names.matches(topic) && !names.names.contains(topic)) {
            found.extend((0..partitions).map(|partition| (topic.clone(), partition)));
        }
    }
    if found.is_empty() {
        return Err(OperatorError::user(format!("no topic matches {}: create one, or correct `topics`", names.shown)));
    }
    Ok(found)
}

/// What it means that the cluster does not know a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Nobody has made it, or it has another name.
    IsMistake,
    /// It was there when the job was checked: brokers that come back hear of it again.
    ComesBack,
}

/// A broker hears of a topic a moment after it was made: one that is unknown is asked for so often, and so long after each other.
const UNKNOWN_TRIES: u32 = 15;
const UNKNOWN_PAUSE: Duration = Duration::from_millis(200);

/// The partitions of one topic. Blocks.
///
/// # Errors
/// It does not exist or may not be read, or the cluster does not answer.
#[expect(clippy::disallowed_methods, reason = "this thread may block, and what is waited for is the broker's answer, not a time")]
pub fn partitions_of(client: &Client<Context>, topic: &str, unknown: Unknown) -> Result<Vec<i32>, OperatorError> {
    for _unknown in 1..UNKNOWN_TRIES {
        match known_partitions(client, topic)? {
            Some(partitions) => return Ok(partitions),
            None => std::thread::sleep(UNKNOWN_PAUSE),
        }
    }
    let error = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
    known_partitions(client, topic)?.ok_or_else(|| match unknown {
        Unknown::IsMistake => failed(&format!("topic {topic}"), &error, None),
        Unknown::ComesBack => failed_on_known(&format!("topic {topic}"), &error, None),
    })
}

/// The partitions of one topic; none: there is no such topic, as far as the broker knows.
fn known_partitions(client: &Client<Context>, topic: &str) -> Result<Option<Vec<i32>>, OperatorError> {
    let asked = || format!("topic {topic} cannot be asked for");
    let metadata = client.fetch_metadata(Some(topic), ANSWER).map_err(|error| failed(&asked(), &error, client.context().complaint()))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let Some(found) = found else { return Ok(None) };
    if let Some(error) = found.error().map(RDKafkaErrorCode::from) {
        let is_unknown = matches!(error, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic);
        return if is_unknown { Ok(None) } else { Err(failed(&format!("topic {topic}"), &KafkaError::MetadataFetch(error), None)) };
    }
    let mut partitions: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
    partitions.sort_unstable();
    Ok(Some(partitions))
}

/// All topics, with the number of their partitions.
///
/// # Errors
/// The cluster does not answer.
pub fn all(client: &Client<Context>) -> Result<BTreeMap<String, i32>, OperatorError> {
    let metadata = client.fetch_metadata(None, ANSWER);
    let metadata = metadata.map_err(|error| failed("the topics cannot be asked for", &error, client.context().complaint()))?;
    Ok(metadata
        .topics()
        .iter()
        .map(|topic| (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)))
        .collect())
}

/// A topic to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewTopicSettings<'a> {
    /// Its name.
    pub name: &'a str,
    /// How many partitions it gets.
    pub partitions: i32,
    /// Copies of each; none: what the brokers say.
    pub replication: Option<i32>,
    /// Settings of the topic that are not those of the brokers.
    pub config: &'a [(&'a str, &'a str)],
}

/// Makes and describes topics.
pub struct Admin {
    client: AdminClient<Context>,
    options: AdminOptions,
}

impl Admin {
    /// Of a cluster; files of the connection are relative to `base`.
    ///
    /// # Errors
    /// A secret is missing, or the settings fit no client.
    pub fn new(connection: &Connection, base: &Path) -> Result<Self, OperatorError> {
        let config = connection.client(base).map_err(OperatorError::user)?;
        Self::of(&config)
    }

    /// With what a client of the cluster is told.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(config: &ClientConfig) -> Result<Self, OperatorError> {
        let client = config.create_with_context(Context::default()).map_err(|error| failed("the cluster cannot be asked", &error, None))?;
        let options = AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER));
        Ok(Self { client, options })
    }

    /// The client that asks.
    pub fn client(&self) -> &Client<Context> {
        self.client.inner()
    }

    /// Makes a topic; one that is there stays as it is. Does not block.
    ///
    /// # Errors
    /// It cannot be made, or the cluster does not answer.
    pub async fn create(&self, topic: &NewTopicSettings<'_>) -> Result<(), OperatorError> {
        let replication = topic.replication.map_or(TopicReplication::Fixed(-1), TopicReplication::Fixed);
        let new = NewTopic::new(topic.name, topic.partitions, replication);
        let new = topic.config.iter().fold(new, |new, (name, value)| new.set(name, value));
        let what = format!("topic {} cannot be made", topic.name);
        let answer = self.client.create_topics([&new], &self.options).await;
        let answer = answer.map_err(|error| failed(&what, &error, self.client().context().complaint()))?;
        match answer.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists)) | Ok(_)) | None => Ok(()),
            Some(Err((_, code))) => Err(failed(&what, &KafkaError::AdminOp(code), None)),
        }
    }

    /// Deletes a topic. Does not block.
    ///
    /// # Errors
    /// It does not exist or may not be deleted, or the cluster does not answer.
    pub async fn delete(&self, topic: &str) -> Result<(), OperatorError> {
        let what = format!("topic {topic} cannot be deleted");
        let answer = self.client.delete_topics(&[topic], &self.options).await;
        let answer = answer.map_err(|error| failed(&what, &error, self.client().context().complaint()))?;
        match answer.into_iter().next() {
            Some(Err((_, code))) => Err(failed(&what, &KafkaError::AdminOp(code), None)),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Deletes the records of a partition that stand before an offset. Does not block.
    ///
    /// # Errors
    /// They may not be deleted, or the cluster does not answer.
    pub async fn delete_before(&self, topic: &str, partition: i32, offset: i64) -> Result<(), OperatorError> {
        let what = format!("records of topic {topic}, partition {partition} cannot be deleted");
        let mut before = TopicPartitionList::new();
        let added = before.add_partition_offset(topic, partition, Offset::Offset(offset));
        added.map_err(|error| failed(&what, &error, None))?;
        let answer = self.client.delete_records(&before, &self.options).await;
        answer.map(drop).map_err(|error| failed(&what, &error, self.client().context().complaint()))
    }

    /// The numbers of the brokers.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn brokers(&self) -> Result<Vec<i32>, OperatorError> {
        let metadata = self.client().fetch_metadata(None, ANSWER);
        let metadata = metadata.map_err(|error| failed("the brokers cannot be asked for", &error, self.client().context().complaint()))?;
        Ok(metadata.brokers().iter().map(|broker| broker.id()).collect())
    }

    /// The least value of a numeric setting of these brokers; none: nobody says it, or may say it to us. Does not block.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn least_setting(&self, brokers: &[i32], name: &str) -> Result<Option<u64>, OperatorError> {
        let brokers: Vec<_> = brokers.iter().map(|&broker| ResourceSpecifier::Broker(broker)).collect();
        let answer = self.client.describe_configs(&brokers, &self.options).await;
        let what = "the settings of the brokers cannot be asked for";
        let answer = answer.map_err(|error| failed(what, &error, self.client().context().complaint()))?;
        let entries = answer.into_iter().flatten().flat_map(|described| described.entries);
        Ok(entries.filter(|entry| entry.name == name).filter_map(|entry| entry.value?.parse().ok()).min())
    }

    /// Settings of a topic, as the brokers say them; none: they do not know it. Does not block.
    ///
    /// # Errors
    /// It may not be described, or the cluster does not answer.
    pub async fn config(&self, topic: &str) -> Result<Option<BTreeMap<String, String>>, OperatorError> {
        let what = format!("the settings of topic {topic} cannot be asked for");
        let answer = self.client.describe_configs([&ResourceSpecifier::Topic(topic)], &self.options).await;
        let answer = answer.map_err(|error| failed(&what, &error, self.client().context().complaint()))?;
        match answer.into_iter().next() {
            Some(Ok(described)) => Ok(Some(described.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())),
            Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => Ok(None),
            Some(Err(code)) => Err(failed(&what, &KafkaError::AdminOp(code), None)),
            None => Err(OperatorError::outside(format!("{what}: there was no answer"))),
        }
    }
}
