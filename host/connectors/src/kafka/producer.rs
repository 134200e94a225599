//! A producer and what becomes of its records. Nothing here waits for the library: acknowledgements are counted as they come.
//!
//! Rows wait here and not in the library ([`Producer::hand_over`]): an idempotent producer has one request for a partition under way (of librdkafka
//! 2.12, which counts records where it means requests: `rktp_msgs_inflight` in `rd_kafka_toppar_producer_serve`), and while more records than that are
//! ready, its thread asks again and again whether they may go, without a pause. So a broker that is slow for a moment costs a core for each producer,
//! at the moment when the broker needs it. What waits is handed over as one when everything before it is acknowledged.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use millstream_engine::{clock::Clock, operator::OperatorError};
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{DeliveryResult, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
};

use super::client::{Complaint, Context, failed, failed_on_known};

/// How soon a commit looks again whether the library still holds records, and how often at most.
const LOOK_AGAIN: Duration = Duration::from_micros(100);
const LOOKS_MAX: u32 = 1_000;
/// How much the library's queue takes, in KiB: as much may wait to be handed over.
pub(super) const QUEUE_KIB: &str = "queue.buffering.max.kbytes";
const QUEUE_KIB_DEFAULT: u32 = 64 * 1024;
/// How many batches may wait to be handed over.
const WAITING_MAX: usize = 1_024;
/// How long to wait before a record is tried again that found the library's queue full, in ms.
pub(super) const FULL_WAIT_MS: i64 = 2;

/// The records of one writer that are not acknowledged yet, and whether one never will be.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// Whether rows say to which partition they go, so that one may name a partition that its topic never had. Otherwise a partition that is not
    /// known was there before, and its broker is coming back.
    names_partitions: bool,
    /// Those that the library has.
    pending: AtomicU64,
    /// Those that wait to be handed over.
    waiting: AtomicU64,
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
            // In this order: a record is pending before it waits no more.
            if self.waiting.load(Ordering::Acquire) == 0 && self.pending.load(Ordering::Acquire) == 0 {
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

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn wait(&self, records: usize) {
        self.waiting.fetch_add(records as u64, Ordering::AcqRel);
    }

    fn waited(&self, records: usize) {
        if self.waiting.fetch_sub(records as u64, Ordering::AcqRel) == records as u64 {
            self.changed.notify_one();
        }
    }

    fn sent(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    fn ended(&self, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.fail(failure);
        }
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_one();
        }
    }

    /// The first failure is the one that counts.
    fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.changed.notify_one();
    }
}

/// The records that the library has, of all writers.
#[derive(Debug, Default)]
struct UnderWay {
    records: AtomicU64,
    none: Notify,
}

impl UnderWay {
    fn begins(&self) {
        self.records.fetch_add(1, Ordering::AcqRel);
    }

    fn ends(&self) {
        if self.records.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.none.notify_one();
        }
    }

    /// Waits until there are none; for one at a time.
    async fn none(&self) {
        while self.records.load(Ordering::Acquire) > 0 {
            self.none.notified().await;
        }
    }
}

/// Hands every acknowledgement to the writer that waits for it.
#[derive(Clone, Default)]
pub struct Acknowledging {
    context: Context,
    under_way: Arc<UnderWay>,
}

impl ClientContext for Acknowledging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Acknowledging {
    type DeliveryOpaque = Arc<Deliveries>;

    fn delivery(&self, result: &DeliveryResult<'_>, deliveries: Arc<Deliveries>) {
        let failure = result.as_ref().err().map(|(error, record)| Failure {
            what: format!("topic {}, partition {}: a record was not delivered", record.topic(), record.partition()),
            error: error.clone(),
            complaint: self.context.complaint(),
        });
        deliveries.ended(failure);
        self.under_way.ends();
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

/// Records that are handed over as one.
pub trait OutgoingRecords: Send {
    /// How many.
    fn len(&self) -> usize;

    /// How much memory they take, in bytes, more or less.
    fn bytes(&self) -> usize;

    /// One of them.
    fn record(&self, row: usize) -> Outgoing<'_>;

    /// Its headers; none: it has none.
    fn headers(&self, row: usize) -> Option<OwnedHeaders>;
}

/// Why a record was not taken.
#[derive(Debug)]
pub enum Refused {
    /// There is no room: again in a moment.
    Full,
    /// It never will be; [`Deliveries::check`] says why.
    Failed,
}

/// A producer. When it goes, what it has not sent yet is dropped.
pub struct Producer {
    library: Arc<Library>,
    waiting: mpsc::Sender<Waiting>,
    /// Of what may wait, in KiB.
    room: Arc<Semaphore>,
    room_kib: u32,
    handing_over: AbortHandle,
}

/// What waits until everything before it is acknowledged.
struct Waiting {
    records: Box<dyn OutgoingRecords>,
    /// How many of them the library has by now.
    sent: usize,
    deliveries: Arc<Deliveries>,
    _room: OwnedSemaphorePermit,
}

impl Producer {
    /// Within a runtime.
    ///
    /// # Errors
    /// The settings fit no producer.
    pub fn new(config: &ClientConfig, clock: Arc<dyn Clock>) -> Result<Self, OperatorError> {
        let inner = config.create_with_context(Acknowledging::default());
        let inner = inner.map_err(|error: KafkaError| failed("the producer cannot be made", &error, None))?;
        let library = Arc::new(Library { inner: Some(inner) });
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        let handing_over = tokio::spawn(hand_over(library.clone(), queue, clock)).abort_handle();
        let room_kib = config.get(QUEUE_KIB).and_then(|kib| kib.parse().ok()).unwrap_or(QUEUE_KIB_DEFAULT);
        Ok(Self { library, waiting, room: Arc::new(Semaphore::new(room_kib as usize)), room_kib, handing_over })
    }

    /// What the client complained about last.
    pub fn complaint(&self) -> Option<Complaint> {
        self.library.complaint()
    }

    /// Has these records sent, behind all that was handed over before; waits while too many do.
    pub async fn hand_over(&self, records: Box<dyn OutgoingRecords>, deliveries: &Arc<Deliveries>) {
        let kib = u32::try_from(records.bytes() / 1024).unwrap_or(u32::MAX).clamp(1, self.room_kib);
        let room = self.room.clone().acquire_many_owned(kib).await.expect("it is never closed");
        deliveries.wait(records.len());
        let waiting = Waiting { records, sent: 0, deliveries: deliveries.clone(), _room: room };
        // If nobody takes them any more, since the runtime ends, they fail as they are dropped.
        self.waiting.send(waiting).await.ok();
    }

    /// Puts a record into the library's queue of those to be sent, beside those that wait to be handed over; never waits.
    ///
    /// # Errors
    /// There is no room, or it cannot be sent.
    pub fn send(&self, record: &Outgoing<'_>, headers: Option<OwnedHeaders>, deliveries: &Arc<Deliveries>) -> Result<(), Refused> {
        self.library.send(record, headers, deliveries)
    }

    /// Commits the transaction, of which every record is acknowledged.
    ///
    /// # Errors
    /// The library's.
    pub(super) fn commit(&self, timeout: Duration) -> KafkaResult<()> {
        // Acknowledged records are the library's until the event that said so was handled to its end, on another thread. The binding looks whether there
        // are any, and if so, again after 100 ms.
        let producer = self.library.inner();
        let is_empty = || producer.flush(Duration::ZERO).is_ok();
        (0..LOOKS_MAX).any(|_| {
            is_empty() || {
                std::thread::park_timeout(LOOK_AGAIN);
                false
            }
        });
        producer.commit_transaction(timeout)
    }

    /// The producer of the library, for its transactions.
    pub(super) fn transactions(&self) -> &impl rdkafka::producer::Producer<Acknowledging> {
        self.library.inner()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.handing_over.abort();
    }
}

/// Hands over what waits, each time all of it, when the library has nothing any more.
async fn hand_over(library: Arc<Library>, mut queue: mpsc::Receiver<Waiting>, clock: Arc<dyn Clock>) {
    while let Some(first) = queue.recv().await {
        library.context().under_way.none().await;
        let mut all = vec![first];
        while let Ok(next) = queue.try_recv() {
            all.push(next);
        }
        for waiting in all {
            waiting.send(&library, clock.as_ref()).await;
        }
    }
}

impl Waiting {
    /// What fails is noted with the deliveries of its writer, whose other records are not sent then.
    async fn send(mut self, library: &Library, clock: &dyn Clock) {
        while self.sent < self.records.len() && !self.deliveries.has_failed() {
            match self.send_more(library) {
                Ok(()) => {}
                Err(Refused::Full) => clock.sleep(FULL_WAIT_MS).await,
                Err(Refused::Failed) => return,
            }
        }
    }

    /// As many as there is room for.
    fn send_more(&mut self, library: &Library) -> Result<(), Refused> {
        for row in self.sent..self.records.len() {
            library.send(&self.records.record(row), self.records.headers(row), &self.deliveries)?;
            self.sent += 1;
        }
        Ok(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.sent < self.records.len() {
            self.deliveries.fail(Failure {
                what: "records were not sent any more".to_owned(),
                error: KafkaError::Canceled,
                complaint: None,
            });
        }
        self.deliveries.waited(self.records.len());
    }
}

type Inner = ThreadedProducer<Acknowledging>;

/// The library's producer.
struct Library {
    /// None once it goes.
    inner: Option<Inner>,
}

impl Library {
    fn inner(&self) -> &Inner {
        self.inner.as_ref().expect("it is taken when the producer goes only")
    }

    fn context(&self) -> &Acknowledging {
        self.inner().client().context()
    }

    fn complaint(&self) -> Option<Complaint> {
        self.context().context.complaint()
    }

    fn send(&self, record: &Outgoing<'_>, headers: Option<OwnedHeaders>, deliveries: &Arc<Deliveries>) -> Result<(), Refused> {
        let mut sent: BaseRecord<'_, [u8], [u8], Arc<Deliveries>> = BaseRecord::with_opaque_to(record.topic, deliveries.clone());
        sent.key = record.key;
        sent.payload = record.value;
        sent.partition = record.partition;
        sent.timestamp = record.timestamp_ms;
        sent.headers = headers;
        let under_way = &self.context().under_way;
        under_way.begins();
        deliveries.sent();
        let Err((error, _)) = self.inner().send(sent) else { return Ok(()) };
        under_way.ends();
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
            deliveries.ended(None);
            return Err(Refused::Full);
        }
        let what = format!("topic {}: a record cannot be sent", record.topic);
        deliveries.ended(Some(Failure { what, error, complaint: self.complaint() }));
        Err(Refused::Failed)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let inner = self.inner.take();
        // The library waits for its threads, which may take half a second; whoever drops a producer must not.
        std::thread::spawn(move || drop(inner));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use millstream_engine::{clock::SystemClock, operator::Fault};

    use super::*;

    /// Some records of the same value.
    struct Values(usize, Vec<u8>);

    impl OutgoingRecords for Values {
        fn len(&self) -> usize {
            self.0
        }

        fn bytes(&self) -> usize {
            self.0 * self.1.len()
        }

        fn record(&self, _row: usize) -> Outgoing<'_> {
            Outgoing { topic: "somewhere", partition: Some(0), key: None, value: Some(&self.1), timestamp_ms: None }
        }

        fn headers(&self, _row: usize) -> Option<OwnedHeaders> {
            None
        }
    }

    /// One of a cluster that is not there: what it has is never acknowledged.
    fn producer() -> Producer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1").set("message.timeout.ms", "300000").set(QUEUE_KIB, "16384");
        Producer::new(&config, Arc::new(SystemClock)).expect("a producer")
    }

    #[tokio::test]
    async fn records_that_wait_when_their_producer_goes_are_a_failure_of_their_writer() {
        let (producer, first, second) = (producer(), Arc::new(Deliveries::default()), Arc::new(Deliveries::default()));
        producer.send(&Values(1, b"value".to_vec()).record(0), None, &first).expect("there is room");
        producer.hand_over(Box::new(Values(3, b"value".to_vec())), &second).await;
        drop(producer);
        let failed = second.all().await.expect_err("nobody sends them any more");
        assert!(failed.to_string().contains("records were not sent any more"), "{failed}");
    }

    #[tokio::test]
    async fn writers_wait_while_there_is_no_room_for_what_they_hand_over() {
        let (producer, deliveries) = (producer(), Arc::new(Deliveries::default()));
        producer.send(&Values(1, b"value".to_vec()).record(0), None, &deliveries).expect("there is room");
        let half = || Box::new(Values(8, vec![0; 1024 * 1024]));
        producer.hand_over(half(), &deliveries).await;
        producer.hand_over(half(), &deliveries).await;
        assert!(producer.hand_over(half(), &deliveries).now_or_never().is_none(), "16 MiB wait already");
    }

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
