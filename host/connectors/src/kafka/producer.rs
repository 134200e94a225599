//! A producer and what becomes of its records. Nothing here waits for the library: acknowledgements are counted as they come.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use millstream_engine::operator::OperatorError;
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{DeliveryResult, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::Notify;

use super::client::{Complaint, Context, failed, failed_on_known};

/// How soon a commit looks again whether the library still holds records, and how often at most.
const LOOK_AGAIN: Duration = Duration::from_micros(100);
const LOOKS_MAX: u32 = 1_000;

/// The records of one writer that are not acknowledged yet, and whether one never will be.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// Whether rows say to which partition they go, so that one may name a partition that its topic never had. Otherwise a partition that is not
    /// known was there before, and its broker is coming back.
    names_partitions: bool,
    pending: AtomicU64,
    failure: Mutex<Option<Failure>>,
    changed: Notify,
}

#[derive(Clone, Debug)]
struct Failure {
    what: String,
    error: KafkaError,
    /// Why a record was dropped that had nothing wrong itself.
    complaint: Option<Complaint>,
}

impl Deliveries {
    /// Of rows that say to which partition they go.
    pub fn of_named_partitions(names_partitions: bool) -> Self {
        Self { names_partitions, ..Self::default() }
    }

    fn failed(&self, what: &str, error: &KafkaError, complaint: Option<Complaint>) -> OperatorError {
        let may_be_a_rows = self.names_partitions && error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition);
        if may_be_a_rows { failed(what, error, complaint) } else { failed_on_known(what, error, complaint) }
    }

    /// Waits until every record is acknowledged.
    ///
    /// # Errors
    /// One of them was not; names topic and partition.
    pub async fn all(&self) -> Result<(), OperatorError> {
        loop {
            self.check()?;
            if self.pending.load(Ordering::Acquire) == 0 {
                // The last one may be the one that failed.
                return self.check();
            }
            self.changed.notified().await;
        }
    }

    /// # Errors
    /// A record was not acknowledged; names topic and partition.
    pub fn check(&self) -> Result<(), OperatorError> {
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(Failure { what, error, complaint }) => Err(self.failed(what, error, complaint.clone())),
            None => Ok(()),
        }
    }

    fn sent(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    fn ended(&self, failure: Option<Failure>) {
        let failed = failure.is_some();
        if let Some(failure) = failure {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 || failed {
            self.changed.notify_one();
        }
    }
}

/// Hands every acknowledgement to the writer that waits for it.
#[derive(Clone, Default)]
pub struct Acknowledging(Context);

impl ClientContext for Acknowledging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Acknowledging {
    type DeliveryOpaque = Arc<Deliveries>;

    fn delivery(&self, result: &DeliveryResult<'_>, deliveries: Arc<Deliveries>) {
        let failure = result.as_ref().err().map(|(error, record)| Failure {
            what: format!("topic {}, partition {}: a record was not delivered", record.topic(), record.partition()),
            error: error.clone(),
            complaint: self.0.complaint(),
        });
        deliveries.ended(failure);
    }
}

/// A record to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition; none: by the partitioner.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none: a tombstone.
    pub value: Option<&'a [u8]>,
    /// In ms since the epoch; none: the time of sending.
    pub timestamp_ms: Option<i64>,
}

/// Why a record was not taken.
#[derive(Debug)]
pub enum Refused {
    /// There is no room: again in a moment.
    Full,
    /// It never will be.
    Failed(OperatorError),
}

type Inner = ThreadedProducer<Acknowledging>;

/// A producer. When it goes, what it has not sent yet is dropped.
pub struct Producer {
    inner: Option<Inner>,
}

impl Producer {
    /// # Errors
    /// The settings fit no producer.
    pub fn new(config: &ClientConfig) -> Result<Self, OperatorError> {
        let inner: Result<Inner, KafkaError> = config.create_with_context(Acknowledging::default());
        inner.map(|inner| Self { inner: Some(inner) }).map_err(|error| failed("the producer cannot be made", &error, None))
    }

    fn inner(&self) -> &Inner {
        self.inner.as_ref().expect("it is taken when the producer goes only")
    }

    /// What the client complained about last.
    pub fn complaint(&self) -> Option<Complaint> {
        self.inner().client().context().0.complaint()
    }

    /// Puts a record into the queue of those to be sent; never waits.
    ///
    /// # Errors
    /// There is no room, or it cannot be sent.
    pub fn send(&self, record: &Outgoing<'_>, headers: Option<OwnedHeaders>, deliveries: &Arc<Deliveries>) -> Result<(), Refused> {
        let mut sent: BaseRecord<'_, [u8], [u8], Arc<Deliveries>> = BaseRecord::with_opaque_to(record.topic, deliveries.clone());
        sent.key = record.key;
        sent.payload = record.value;
        sent.partition = record.partition;
        sent.timestamp = record.timestamp_ms;
        sent.headers = headers;
        deliveries.sent();
        let Err((error, _)) = self.inner().send(sent) else { return Ok(()) };
        deliveries.ended(None);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Err(Refused::Full),
            _ => Err(Refused::Failed(deliveries.failed(
                &format!("topic {}: a record cannot be sent", record.topic),
                &error,
                self.complaint(),
            ))),
        }
    }

    /// Commits the transaction, of which every record is acknowledged.
    ///
    /// # Errors
    /// The library's.
    pub(super) fn commit(&self, timeout: Duration) -> KafkaResult<()> {
        // Acknowledged records are the library's until the event that said so was handled to its end, on another thread. The binding looks whether there
        // are any, and if so, again after 100 ms.
        let is_empty = || self.inner().flush(Duration::ZERO).is_ok();
        (0..LOOKS_MAX).any(|_| {
            is_empty() || {
                std::thread::park_timeout(LOOK_AGAIN);
                false
            }
        });
        self.inner().commit_transaction(timeout)
    }

    /// The producer of the library, for its transactions.
    pub(super) fn transactions(&self) -> &impl rdkafka::producer::Producer<Acknowledging> {
        self.inner()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let inner = self.inner.take();
        // The library waits for its threads, which may take half a second; whoever drops a producer must not.
        std::thread::spawn(move || drop(inner));
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::operator::Fault;

    use super::*;

    #[test]
    fn a_partition_that_is_not_known_is_a_mistake_only_where_rows_name_partitions() {
        let fault = |names_partitions: bool, code: RDKafkaErrorCode| {
            let deliveries = Deliveries::of_named_partitions(names_partitions);
            deliveries.sent();
            deliveries.ended(Some(Failure { what: "a record".into(), error: KafkaError::MessageProduction(code), complaint: None }));
            deliveries.check().expect_err("it was not delivered").fault
        };
        assert_eq!(fault(false, RDKafkaErrorCode::UnknownPartition), Fault::Outside);
        assert_eq!(fault(true, RDKafkaErrorCode::UnknownPartition), Fault::User);
        assert_eq!(fault(true, RDKafkaErrorCode::UnknownTopic), Fault::Outside);
    }
}
