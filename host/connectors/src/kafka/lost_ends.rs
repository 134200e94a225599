//! Transactions whose end the brokers have lost.
//!
//! A coordinator that ends a transaction writes its end into every partition of it. Kafka 4.3 takes a partition that has no leader for a deleted
//! one (KAFKA-20734), and after a restart all of a broker's have none for a moment: it writes nothing there and holds the transaction for ended.
//! The rows stay open, readers of what is committed stop before them, and the next commit of the same producer shows them although they were
//! given up. So a claim does not believe that what was open has ended: it looks, and where an end is missing it writes one.
//!
//! Flow: [`Places::held_up`] → one transaction of each side there ([`Side::end_at`](super::transaction)), aborted → look again. What is held up
//! by transactions of others stays so, and harms nobody but their readers.

use std::{collections::BTreeMap, sync::Arc};

use millstream_engine::{clock::Clock, operator::OperatorError};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};

use super::{
    client::{ANSWER, Context, blocking, failed, failed_on_known},
    topics::{Unknown, partitions_of},
};

/// How long ends that were written have to be seen.
const SEEN_MS: i64 = 500;
/// The wait between two looks.
const LOOK_MS: i64 = 10;

/// A partition.
pub(super) type Partition = (String, i32);

/// Where the rows of a job go.
#[derive(Clone)]
pub(super) struct Places {
    /// Topics.
    pub names: Vec<String>,
    /// Of readers.
    pub config: ClientConfig,
}

impl Places {
    /// Partitions where a transaction was open before this call, and still is after a while.
    ///
    /// # Errors
    /// A topic does not exist, or the cluster does not answer.
    pub async fn held_up(&self, clock: &dyn Clock) -> Result<Vec<Partition>, OperatorError> {
        let (places, all) = (self.clone(), self.reader("read_uncommitted")?);
        let written = blocking(move || ends(&all, &places.partitions(&all)?)).await?;
        let committed = Arc::new(self.reader("read_committed")?);
        let mut open: Vec<Partition> = written.keys().cloned().collect();
        let until = clock.monotonic_ms() + SEEN_MS;
        loop {
            let (reader, asked) = (committed.clone(), open.clone());
            let seen = blocking(move || ends(&reader, &asked)).await?;
            open.retain(|partition| seen.get(partition) < written.get(partition));
            if open.is_empty() || clock.monotonic_ms() >= until {
                return Ok(open);
            }
            clock.sleep(LOOK_MS).await;
        }
    }

    fn partitions(&self, reader: &BaseConsumer<Context>) -> Result<Vec<Partition>, OperatorError> {
        let mut all = Vec::new();
        for name in &self.names {
            all.extend(partitions_of(reader.client(), name, Unknown::ComesBack)?.into_iter().map(|partition| (name.clone(), partition)));
        }
        Ok(all)
    }

    fn reader(&self, isolation: &str) -> Result<BaseConsumer<Context>, OperatorError> {
        let mut config = self.config.clone();
        config.set("group.id", "millstream").set("enable.auto.commit", "false").set("isolation.level", isolation);
        config.create_with_context(Context::default()).map_err(|error| failed("a reader of offsets cannot be made", &error, None))
    }
}

/// Behind the last record of each partition that `reader` may see. Blocks.
fn ends(reader: &BaseConsumer<Context>, partitions: &[Partition]) -> Result<BTreeMap<Partition, i64>, OperatorError> {
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        asked.add_partition_offset(topic, *partition, Offset::End).expect("a partition has a number from 0 on");
    }
    let answer = reader.offsets_for_times(asked, ANSWER);
    let answer =
        answer.map_err(|error| failed_on_known("the ends of partitions cannot be asked for", &error, reader.context().complaint()))?;
    let mut ends = BTreeMap::new();
    for element in answer.elements() {
        let what = || format!("topic {}, partition {}: its end cannot be asked for", element.topic(), element.partition());
        element.error().map_err(|error| failed_on_known(&what(), &error, None))?;
        if let Offset::Offset(end) = element.offset() {
            ends.insert((element.topic().to_owned(), element.partition()), end);
        }
    }
    Ok(ends)
}
