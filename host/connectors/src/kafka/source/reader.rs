//! Reading one partition: takes what the consumer has fetched, many records at a time, without a call that waits.
//!
//! The consumer fetches ahead into a queue of the partition, up to `prefetch-bytes`; when it is full it fetches no more, so a stream that stands
//! still stops the fetching. An empty queue wakes the reader when it has something again.
//!
//! Offsets only grow: a record before the next one was read already, and is passed over. A position that the partition does not hold any more is an error that names what is lost, never a jump to where there is something.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_engine::{
    connector::{Read, SplitReader},
    metrics::Gauge,
    operator::OperatorError,
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer as _, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
};
use serde_json::Value;
use tokio::{sync::Notify, task::JoinHandle};

use super::{Consumer, Place, Position, Shared, columns::Decoder, offsets::watermarks};
use crate::kafka::client::{ANSWER, Context, blocking, failed_on_known};

/// Bytes of values that are decoded together, about.
const BATCH_BYTES: usize = 1 << 20;

/// Reads one partition.
pub(super) struct Reader {
    id: Arc<str>,
    place: Place,
    /// Before the consumer, so that it goes first.
    queue: PartitionQueue<Context>,
    consumer: Arc<Consumer>,
    filled: Arc<Notify>,
    decoder: Decoder,
    /// The next record to be taken out of the queue.
    next: i64,
    /// The record behind the last one that was returned: those between wait in the decoder.
    returned: i64,
    commits: bool,
    lag: Arc<Gauge>,
    /// Every transaction before the end has ended: a partition that has no more has been read to its end. Not so before: between the look that found
    /// no more and any question how far the partition goes, a transaction may have ended, and its rows would be passed over.
    settled: bool,
    /// The partition had no more, and was not settled: whether it is now.
    asked: Option<JoinHandle<Result<bool, OperatorError>>>,
    ended: bool,
}

/// What the queue had.
enum Taken {
    /// As much as was asked for, or all there was.
    Records,
    /// All there was, and the partition holds no more for now.
    All,
}

impl Reader {
    /// Opens a partition at `offset`. Blocks.
    pub(super) fn open(shared: &Shared, id: Arc<str>, place: Place, offset: i64, decoder: Decoder) -> Result<Self, OperatorError> {
        let consumer = shared.consumer()?;
        let (first, end) = watermarks(&consumer, &place.topic, place.partition)?;
        check_range(&place, offset, first, end)?;
        let filled = Arc::new(Notify::new());
        // Before it is assigned: otherwise its first records could go to the queue of the whole consumer.
        let mut queue = consumer
            .split_partition_queue(&place.topic, place.partition)
            .ok_or_else(|| OperatorError::internal(format!("topic {}, partition {}: it has no queue", place.topic, place.partition)))?;
        let wakes = filled.clone();
        queue.set_nonempty_callback(move || wakes.notify_one());
        let mut assignment = TopicPartitionList::new();
        let added = assignment.add_partition_offset(&place.topic, place.partition, Offset::Offset(offset));
        added
            .and_then(|()| consumer.incremental_assign(&assignment))
            .map_err(|error| failed_on_known(&what(&place, offset), &error, None))?;
        let ended = place.end.is_some_and(|end| offset >= end);
        let settled = place.end.is_some_and(|wanted| end >= wanted);
        let commits = shared.settings.group.is_some();
        let lag = consumer.context().lags().of(&place.topic, place.partition, offset);
        Ok(Self { id, place, consumer, queue, filled, decoder, next: offset, returned: offset, commits, lag, settled, asked: None, ended })
    }

    /// Takes records out of the queue until there are enough or none.
    fn take(&mut self, rows_max: usize) -> Result<Taken, OperatorError> {
        let mut bytes = 0;
        let records_max = rows_max.div_ceil(self.decoder.rows_per_record());
        while self.decoder.records() < records_max && bytes < BATCH_BYTES && !self.ended {
            let Some(polled) = self.queue.poll(std::time::Duration::ZERO) else { return Ok(Taken::Records) };
            match polled {
                // Whatever the library fetches again when a broker comes back, it is not read again.
                Ok(record) if record.offset() < self.next => {
                    tracing::debug!(split = %self.id, offset = record.offset(), next = self.next, "a record came once more");
                }
                Ok(record) => {
                    if self.place.end.is_some_and(|end| record.offset() >= end) {
                        self.ended = true;
                        break;
                    }
                    bytes += record.payload_len() + record.key_len();
                    self.next = record.offset() + 1;
                    self.decoder.push(&record);
                    self.ended = self.place.end.is_some_and(|end| self.next >= end);
                }
                Err(KafkaError::PartitionEOF(_)) => return Ok(Taken::All),
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(Taken::Records)
    }

    /// Why the partition cannot be read further.
    fn failed(&self, error: &KafkaError) -> OperatorError {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
            let (first, end) =
                self.consumer.client().fetch_watermarks(&self.place.topic, self.place.partition, super::EVENTS).unwrap_or((-1, -1));
            if let Err(lost) = check_range(&self.place, self.next, first, end) {
                return lost;
            }
        }
        failed_on_known(&what(&self.place, self.next), error, self.consumer.context().complaint())
    }

    /// Asks for what the values need besides their bytes.
    async fn prepare(&mut self) -> Result<(), OperatorError> {
        let prepared = self.decoder.prepare().await;
        let Place { topic, partition, .. } = &self.place;
        prepared
            .map_err(|(offset, reason)| OperatorError::outside(format!("topic {topic}, partition {partition}, offset {offset}: {reason}")))
    }

    /// The partition had no more: this is the end if nothing before it is open, whatever the last offsets are (markers of transactions have some too).
    /// Otherwise it is asked for, and once it is so, the partition is fetched again from where the reader stands.
    fn on_no_more(&mut self) {
        let Some(end) = self.place.end else { return };
        if self.settled {
            self.ended = true;
        } else if self.asked.is_none() {
            let (consumer, place, next) = (self.consumer.clone(), self.place.clone(), self.next);
            self.asked = Some(tokio::task::spawn_blocking(move || {
                let (_, readable) = watermarks(&consumer, &place.topic, place.partition)?;
                if readable >= end {
                    let sought = consumer.seek(&place.topic, place.partition, Offset::Offset(next), ANSWER);
                    sought.map_err(|error| failed_on_known(&what(&place, next), &error, consumer.context().complaint()))?;
                }
                Ok(readable >= end)
            }));
        }
    }

    /// Waits for what was asked for.
    async fn answered(&mut self) -> Result<(), OperatorError> {
        let Some(asked) = &mut self.asked else { return Ok(()) };
        let answer = asked.await.expect("asking does not panic and is not cancelled");
        self.asked = None;
        self.settled = answer?;
        Ok(())
    }
}

#[async_trait]
impl SplitReader for Reader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        loop {
            self.answered().await?;
            if self.ended && self.decoder.records() == 0 {
                return Ok(Read::End);
            }
            let taken = self.take(rows_max)?;
            if matches!(taken, Taken::All) {
                self.on_no_more();
            }
            if self.decoder.records() > 0 {
                self.prepare().await?;
                let (batch, rejected) = self.decoder.finish(&self.id);
                self.returned = self.next;
                return Ok(Read::Rows { batch, rejected });
            }
            if matches!(taken, Taken::Records) && !self.ended {
                self.filled.notified().await;
            }
        }
    }

    fn position(&self) -> Value {
        serde_json::to_value(Position { offset: self.returned }).expect("numbers are JSON")
    }

    /// Tells the group, for tools that show lag. Nothing is read from there, so a failure harms nobody.
    async fn on_committed(&mut self, position: &Value) -> Result<(), OperatorError> {
        let (true, Some(offset)) = (self.commits, position["offset"].as_i64()) else { return Ok(()) };
        let mut offsets = TopicPartitionList::new();
        let (consumer, place) = (self.consumer.clone(), self.place.clone());
        blocking(move || {
            let added = offsets.add_partition_offset(&place.topic, place.partition, Offset::Offset(offset));
            if let Err(error) = added.and_then(|()| consumer.commit(&offsets, CommitMode::Async)) {
                tracing::debug!(%error, topic = place.topic, partition = place.partition, "the offset of the group could not be committed");
            }
        })
        .await;
        Ok(())
    }

    fn lag(&self) -> Option<Arc<Gauge>> {
        Some(self.lag.clone())
    }

    fn progress(&self) -> u64 {
        u64::try_from(self.returned - self.place.start).unwrap_or(0)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition(&self.place.topic, self.place.partition);
        self.consumer.context().lags().forget(&self.place.topic, self.place.partition);
        // It is not assigned any more where the whole consumer is going.
        let _ = self.consumer.incremental_unassign(&assignment);
    }
}

fn what(place: &Place, offset: i64) -> String {
    format!("topic {}, partition {}: it cannot be read at offset {offset}", place.topic, place.partition)
}

/// `offset` lies within what the partition holds, or at its end.
fn check_range(place: &Place, offset: i64, first: i64, end: i64) -> Result<(), OperatorError> {
    let Place { topic, partition, .. } = place;
    let fix = "give the topic a longer retention; to go on without them, start fresh (`--fresh`) with `start:` where there are records";
    if offset < first {
        return Err(OperatorError::user(format!(
            "topic {topic}, partition {partition}: records {offset} to {} are lost, it begins at offset {first} now; {fix}",
            first - 1
        )));
    }
    if offset > end && end >= 0 {
        return Err(OperatorError::user(format!(
            "topic {topic}, partition {partition}: it ends at offset {end}, and the job has read up to {offset}: records {end} to {} are lost, the topic \
             was made anew or cut; {fix}",
            offset - 1
        )));
    }
    Ok(())
}
