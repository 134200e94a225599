//! Where partitions begin and end, decided when they are found. Every call here blocks.
//!
//! A source begins where it may read, and ends behind all that was written: a transaction whose commit was acknowledged has its rows before that end,
//! though brokers show them only when its markers stand in every partition, a moment later. Its reader waits for them.

use std::{collections::BTreeMap, sync::Arc};

use millstream_engine::operator::OperatorError;
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer as _, error::KafkaResult};

use super::{Consumer, Place};
use crate::kafka::{
    client::{ANSWER, failed_on_known},
    settings::{End, PartitionNumber, SourceSettings, Start},
};

/// Where partitions begin that were not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Where the settings say: the job begins.
    AsAsked,
    /// At their first record: they were made while the job ran, or between two runs of it, and every record of theirs is one that came later.
    FirstRecord,
}

type Partition = (String, i32);

/// Begin and end of each partition that is to be read. `written` sees the records of open transactions too.
pub(super) fn decide(
    consumer: &Consumer,
    written: &dyn Fn() -> Result<Arc<Consumer>, OperatorError>,
    settings: &SourceSettings,
    partitions: Vec<Partition>,
    begin: Begin,
) -> Result<Vec<Place>, OperatorError> {
    let starts = starts(consumer, settings, &partitions, begin)?;
    let ends = ends(written, settings, &partitions)?;
    let place = |partition: Partition| {
        let start = starts.get(&partition).copied().unwrap_or(0);
        let end = ends.as_ref().map(|ends| ends.get(&partition).copied());
        let (topic, partition) = partition;
        match end {
            None => Some(Place { topic, partition, start, end: None }),
            Some(Some(end)) => Some(Place { topic, partition, start, end: Some(end) }),
            Some(None) => None,
        }
    };
    Ok(partitions.into_iter().filter_map(place).collect())
}

fn starts(
    consumer: &Consumer,
    settings: &SourceSettings,
    partitions: &[Partition],
    begin: Begin,
) -> Result<BTreeMap<Partition, i64>, OperatorError> {
    let start = if begin == Begin::AsAsked { &settings.start } else { &Start::Earliest };
    let asked = match start {
        Start::Latest => return limits(consumer, partitions, Limit::End),
        Start::Earliest => BTreeMap::new(),
        Start::Committed => committed(consumer, partitions)?,
        Start::At { timestamp } => at(consumer, partitions, timestamp.0)?,
        Start::Offsets { offsets } => given(offsets),
    };
    let mut starts = limits(consumer, partitions, Limit::First)?;
    starts.extend(asked.into_iter().filter(|(partition, _)| partitions.contains(partition)));
    Ok(starts)
}

/// None: there is no end. A partition that is not in there is not read.
fn ends(
    written: &dyn Fn() -> Result<Arc<Consumer>, OperatorError>,
    settings: &SourceSettings,
    partitions: &[Partition],
) -> Result<Option<BTreeMap<Partition, i64>>, OperatorError> {
    Ok(match &settings.end {
        None => None,
        Some(End::Now) => Some(limits(&*written()?, partitions, Limit::End)?),
        Some(End::At { timestamp }) => Some(at(&*written()?, partitions, timestamp.0)?),
        Some(End::Offsets { offsets }) => Some(given(offsets)),
    })
}

/// One end of what a partition holds.
#[derive(Clone, Copy)]
enum Limit {
    First,
    End,
}

fn limits(consumer: &Consumer, partitions: &[Partition], limit: Limit) -> Result<BTreeMap<Partition, i64>, OperatorError> {
    let of = |(topic, partition): &Partition| {
        let (first, end) = watermarks(consumer, topic, *partition)?;
        Ok(((topic.clone(), *partition), if matches!(limit, Limit::First) { first } else { end }))
    };
    partitions.iter().map(of).collect()
}

/// The offsets of the first record of a partition, and behind the last one that `consumer` may read.
pub(super) fn watermarks(consumer: &Consumer, topic: &str, partition: i32) -> Result<(i64, i64), OperatorError> {
    let answer = consumer.fetch_watermarks(topic, partition, ANSWER);
    answer.map_err(|error| asked_for(consumer, &format!("topic {topic}, partition {partition}: its offsets"), &error))
}

fn asked_for(consumer: &Consumer, what: &str, error: &rdkafka::error::KafkaError) -> OperatorError {
    failed_on_known(&format!("{what} cannot be asked for"), error, consumer.context().complaint())
}

/// Behind the last record where there is none at `timestamp_ms` or later.
fn at(consumer: &Consumer, partitions: &[Partition], timestamp_ms: i64) -> Result<BTreeMap<Partition, i64>, OperatorError> {
    let mut asked = list(partitions, Offset::Offset(timestamp_ms));
    asked = answer(consumer, consumer.offsets_for_times(asked, ANSWER), "offsets by timestamp")?;
    let mut found = limits(consumer, partitions, Limit::End)?;
    found.extend(known(&asked));
    Ok(found)
}

fn committed(consumer: &Consumer, partitions: &[Partition]) -> Result<BTreeMap<Partition, i64>, OperatorError> {
    let asked = list(partitions, Offset::Invalid);
    let answered = answer(consumer, consumer.committed_offsets(asked, ANSWER), "the offsets of the group")?;
    Ok(known(&answered).collect())
}

fn answer(consumer: &Consumer, answer: KafkaResult<TopicPartitionList>, what: &str) -> Result<TopicPartitionList, OperatorError> {
    answer.map_err(|error| asked_for(consumer, what, &error))
}

fn known(list: &TopicPartitionList) -> impl Iterator<Item = (Partition, i64)> {
    list.elements()
        .into_iter()
        .filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some(((element.topic().to_owned(), element.partition()), offset)),
            _ => None,
        })
        .collect::<Vec<_>>()
        .into_iter()
}

fn list(partitions: &[Partition], offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, offset).expect("a partition has a number from 0 on");
    }
    list
}

fn given(offsets: &BTreeMap<String, BTreeMap<PartitionNumber, u64>>) -> BTreeMap<Partition, i64> {
    let mut given = BTreeMap::new();
    for (topic, offsets) in offsets {
        for (partition, &offset) in offsets {
            given.insert((topic.clone(), partition.0), i64::try_from(offset).unwrap_or(i64::MAX));
        }
    }
    given
}
