//! The transaction of a job: the rows of all its sinks and the commit record, committed as one.
//!
//! Two transactional ids, the *sides*, take turns, so that the stream does not wait for the commit: what comes behind barrier N is written on the
//! other side while N is stored and committed. Flow of a checkpoint: every writer waits until its rows are acknowledged, then *seals* its side
//! ([`Seat::seal`]) and goes on with the other; the commit adds the record to the sealed side and commits it. So rows of N + 1 are only sent when
//! those of N of the same writer are acknowledged, and stand behind them.
//!
//! # Rules (design, "Checkpoints and the commit")
//! - R3: a claim makes new producers and initialises both ids, which fences and aborts whatever older producers had open; then it reads the
//!   record; then it commits its own. Brokers may lose the end of what was open: [`lost_ends`](super::lost_ends).
//! - R4: the library sends a request again without telling, and the second one may hit the *next* transaction of the same producer. So a commit
//!   counts as clean only if it was answered before a second request can have been sent: `retry.backoff.ms` is 500 and jitters by a fifth, so
//!   no second one goes before 400 ms, and clean is an answer within 350. After any other commit the producer is dropped, a new one is
//!   initialised, which ends what the old one may have left, and the record in the topic says what was decided.
//! - R5: what remains in doubt is an error, and the attempt ends. A checkpoint that was given up after a writer had sent rows behind its
//!   barrier is an error at the next one: both sides would have to be committed as one, and cannot be.

use std::{
    any::Any,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use millstream_engine::{
    clock::Clock,
    connector::{Transaction as EngineTransaction, TransactionRequest},
    operator::OperatorError,
};
use millstream_model::ids::{CheckpointId, JobId};
use millstream_storage::{Claim, CommitRecord, Error, commit};
use rdkafka::{
    ClientConfig,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    producer::Producer as _,
};

use super::{
    client::{blocking, failed},
    commit_topic::{CommitTopic, PARTITION, default_name},
    lost_ends::{Partition, Places},
    producer::{Deliveries, Outgoing, Producer, QUEUE_KIB, Refused},
    settings::SinkSettings,
};

/// R4: the library waits at least four fifths of this before it sends a request again.
const RETRY_BACKOFF: Duration = Duration::from_millis(500);
/// R4: a commit that took longer may have been sent twice.
const CLEAN_MS: i64 = 350;
/// The least time a transaction may stay open.
const TIMEOUT_MIN: Duration = Duration::from_secs(15);
/// How long initialising waits for the coordinator, and for what was open to end.
const INITIALISING: Duration = Duration::from_secs(60);
/// How long a claim waits for transactions of others in the commit topic, which may hold it up as long as their timeout.
const SETTLING: Duration = Duration::from_secs(300);
/// How long the end of a run waits until what was not committed is given up.
const ABORTING: Duration = Duration::from_secs(5);
/// How often a claim writes ends that are missing before it takes what is open for transactions of others: brokers may go again meanwhile.
const ENDINGS_MAX: u32 = 3;
/// The key of the records that carry a missing end. They are never committed; compacted topics take none without a key.
const ENDING: &[u8] = b"millstream";

/// The transaction of a job's sinks.
pub struct Transaction {
    job: JobId,
    config: ClientConfig,
    /// The topics of all sinks.
    writes: Vec<String>,
    topic: String,
    replication: Option<i32>,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    clean_ms: i64,
    current: Mutex<Option<Arc<Attempt>>>,
    /// The incarnation that this process claimed last, or tried to; 0: none.
    claimed: AtomicU64,
}

impl Transaction {
    /// Nothing is asked of the cluster before the claim.
    ///
    /// # Errors
    /// A secret is missing.
    pub(super) fn new(settings: &SinkSettings, base: &Path, request: TransactionRequest) -> Result<Self, OperatorError> {
        let TransactionRequest { job, checkpoint_interval, clock, writes } = request;
        let mut config = settings.connection().client(base).map_err(OperatorError::user)?;
        let timeout = timeout(settings, checkpoint_interval);
        settings.tune(&mut config);
        let delivery = settings.delivery_timeout.0.min(timeout);
        config
            .set("message.timeout.ms", delivery.as_millis().to_string())
            .set("transaction.timeout.ms", timeout.as_millis().to_string())
            .set("retry.backoff.ms", RETRY_BACKOFF.as_millis().to_string())
            .set("retry.backoff.max.ms", (2 * RETRY_BACKOFF).as_millis().to_string());
        let topic = settings.commit_topic.clone().unwrap_or_else(|| default_name(&job));
        let replication = settings.commit_replication.map(|replication| i32::try_from(replication.get()).unwrap_or(i32::MAX));
        Ok(Self {
            job,
            config,
            writes,
            topic,
            replication,
            timeout,
            clock,
            clean_ms: CLEAN_MS,
            current: Mutex::default(),
            claimed: AtomicU64::new(0),
        })
    }

    /// Believes every answer, however late: without R4, to show what it is there for.
    #[cfg(test)]
    pub(super) fn believing(mut self) -> Self {
        self.clean_ms = i64::MAX;
        self
    }

    fn commit_topic(&self, lineage: &str) -> CommitTopic {
        CommitTopic::new(self.topic.clone(), &self.job, lineage, self.reading())
    }

    /// The settings, for consumers.
    fn reading(&self) -> ClientConfig {
        let mut config = self.config.clone();
        // What a producer alone is told; a consumer would refuse it or complain.
        let of_producers = [
            "enable.idempotence",
            "compression.type",
            "partitioner",
            "linger.ms",
            "batch.size",
            QUEUE_KIB,
            "queue.buffering.max.messages",
            "message.timeout.ms",
            "transaction.timeout.ms",
        ];
        for name in of_producers {
            config.remove(name);
        }
        config
    }

    /// Everything that the sides had open has ended, also where the brokers have lost the end.
    async fn write_lost_ends(&self, sides: &[Arc<Side>; 2], topic: &CommitTopic) -> Result<(), Error> {
        let names = self.writes.iter().chain([&self.topic]).cloned().collect();
        let places = Places { names, config: self.reading() };
        let failed = |error| topic.failed("claiming", &error);
        for _ in 0..ENDINGS_MAX {
            let open = places.held_up(self.clock.as_ref()).await.map_err(failed)?;
            if open.is_empty() {
                return Ok(());
            }
            tracing::warn!(partitions = ?open, "transactions are open where none of this job should be: what it may have left there is ended");
            for side in sides {
                side.end_at(&open, self.clock.as_ref()).await.map_err(failed)?;
                // R4: a second request to abort would hit the next transaction.
                side.initialise(topic).await?;
            }
        }
        Ok(())
    }

    /// A process that was replaced does not take the job back, which would then go back and forth for ever.
    async fn check_alone(&self, topic: &CommitTopic) -> Result<(), Error> {
        let incarnation = self.claimed.load(Ordering::Acquire);
        if incarnation == 0 {
            return Ok(());
        }
        let look = topic.clone();
        let holder = blocking(move || look.visible()).await?.map_or(0, |record| record.incarnation);
        if holder > incarnation { Err(Error::Fenced { job: self.job.clone(), incarnation, holder }) } else { Ok(()) }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Attempt>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self) -> Result<Arc<Attempt>, Error> {
        let not_claimed = || Error::Refused { what: "committing", path: self.topic.clone(), problem: "it was not claimed".into() };
        self.current().clone().ok_or_else(not_claimed)
    }
}

/// How long a transaction may stay open.
pub(super) fn timeout(settings: &SinkSettings, checkpoint_interval: Duration) -> Duration {
    settings.transaction_timeout.map_or_else(|| TIMEOUT_MIN.max(checkpoint_interval.saturating_mul(3)), |timeout| timeout.0)
}

#[async_trait]
impl EngineTransaction for Transaction {
    fn log_name(&self) -> String {
        format!("topic {}", self.topic)
    }

    async fn claim(&self, lineage: &str, before: Option<CommitRecord>, claim: Claim) -> Result<CommitRecord, Error> {
        // The producers of the attempt before are not used any more, whoever still holds them.
        self.current().take();
        let topic = self.commit_topic(lineage);
        topic.ensure(self.replication, self.clock.as_ref()).await?;
        self.check_alone(&topic).await?;
        let ids = ["a", "b"].map(|side| format!("millstream.{}.{lineage}.{side}", self.job));
        let sides = ids.map(|id| Arc::new(Side::new(id, &self.config, self.timeout, self.clock.clone())));
        for side in &sides {
            side.initialise(&topic).await?;
        }
        self.write_lost_ends(&sides, &topic).await?;
        let read = topic.clone();
        let found = blocking(move || read.settled(SETTLING)).await?;
        let record = commit::claimed(&self.job, found.or(before).unwrap_or_default(), claim)?;
        let attempt =
            Attempt { job: self.job.clone(), topic, sides, clock: self.clock.clone(), clean_ms: self.clean_ms, state: Mutex::default() };
        attempt.state().record = record.clone();
        // A claim in doubt may be found in the topic later, and is this process's own. If it is another's of the same number, the one that claims next wins,
        // and the other one finds that out.
        self.claimed.store(record.incarnation, Ordering::Release);
        attempt.decide(0, &record).await?;
        *self.current() = Some(Arc::new(attempt));
        Ok(record)
    }

    async fn commit(&self, record: &CommitRecord) -> Result<(), Error> {
        self.attempt()?.commit(record).await
    }

    fn part(&self) -> Arc<dyn Any + Send + Sync> {
        match self.current().clone() {
            Some(attempt) => attempt,
            None => Arc::new(()),
        }
    }

    async fn end(&self) {
        let Some(attempt) = self.current().take() else { return };
        for side in &attempt.sides {
            side.abort().await;
        }
    }
}

/// One attempt of the job: both sides, from its claim on.
pub struct Attempt {
    job: JobId,
    topic: CommitTopic,
    sides: [Arc<Side>; 2],
    clock: Arc<dyn Clock>,
    clean_ms: i64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last record that was committed.
    record: CommitRecord,
    /// The side that is to be committed next, and the newest checkpoint that it was sealed for.
    sealed: Option<(usize, CheckpointId)>,
    /// Where writers that come new begin.
    open: usize,
}

impl Attempt {
    /// A place for a writer.
    pub(super) fn seat(self: &Arc<Self>) -> Seat {
        let side = self.state().open;
        Seat { attempt: self.clone(), side, has_sent: false }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn commit(&self, record: &CommitRecord) -> Result<(), Error> {
        let side = {
            let state = self.state();
            commit::check_commit(&self.job, &state.record, record)?;
            if state.record == *record {
                return Ok(());
            }
            match state.sealed {
                Some((side, checkpoint)) if Some(checkpoint) == record.checkpoint => side,
                // No sink has seen a row or a barrier since the last commit.
                None => state.open,
                Some((_, checkpoint)) => {
                    let problem = format!("its rows are sealed for checkpoint {}", checkpoint.0);
                    return Err(Error::Refused { what: "committing", path: self.topic.place(), problem });
                }
            }
        };
        self.decide(side, record).await?;
        let mut state = self.state();
        state.record = record.clone();
        state.sealed = None;
        state.open = 1 - side;
        Ok(())
    }

    /// Commits what `side` holds together with the record.
    async fn decide(&self, side: usize, record: &CommitRecord) -> Result<(), Error> {
        let side = &self.sides[side];
        let producer = match self.send(side, record).await {
            Ok(producer) => producer,
            Err(error) => {
                self.check_not_replaced(record).await?;
                return Err(self.topic.failed("committing", &error));
            }
        };
        let (clock, timeout) = (self.clock.clone(), side.timeout);
        let (committed, took_ms) = blocking(move || {
            let began_ms = clock.monotonic_ms();
            let committed = producer.commit(timeout);
            (committed, clock.monotonic_ms() - began_ms)
        })
        .await;
        side.ended();
        if committed.is_ok() && took_ms <= self.clean_ms {
            return Ok(());
        }
        self.settle(side, record, committed, took_ms).await
    }

    /// Adds the record to what `side` holds.
    async fn send(&self, side: &Side, record: &CommitRecord) -> Result<Arc<Producer>, OperatorError> {
        let producer = side.open()?;
        let value = CommitTopic::encode(record);
        let (key, topic, partition) = (Some(self.topic.key.as_bytes()), self.topic.name.as_str(), Some(PARTITION));
        let outgoing = Outgoing { topic, partition, key, value: Some(&value), timestamp_ms: None };
        // R4: only the end of the transaction is on its way then.
        deliver(&producer, &[outgoing], self.clock.as_ref()).await?;
        Ok(producer)
    }

    /// Whoever has taken over must not be fenced by what is done to find out.
    async fn check_not_replaced(&self, record: &CommitRecord) -> Result<(), Error> {
        let look = self.topic.clone();
        let visible = blocking(move || look.visible()).await?.unwrap_or_default();
        if visible.incarnation > record.incarnation {
            return Err(Error::Fenced { job: self.job.clone(), incarnation: record.incarnation, holder: visible.incarnation });
        }
        Ok(())
    }

    /// R4: finds out what became of a commit that was not clean.
    async fn settle(&self, side: &Arc<Side>, record: &CommitRecord, committed: KafkaResult<()>, took_ms: i64) -> Result<(), Error> {
        tracing::info!(
            took_ms,
            error = committed.as_ref().err().map(ToString::to_string),
            "a commit was not clean: the record is read again"
        );
        self.check_not_replaced(record).await?;
        if let Err(error) = &committed
            && is_fenced(error)
        {
            return Err(self.topic.failed("committing", &failed("another process has fenced this one", error, None)));
        }
        side.initialise(&self.topic).await?;
        // What is not settled then may be an end that brokers have lost, which a claim writes.
        let (read, timeout) = (self.topic.clone(), side.timeout);
        let settled = blocking(move || read.settled(timeout)).await?.unwrap_or_default();
        if settled == *record {
            return Ok(());
        }
        if settled.incarnation > record.incarnation {
            return Err(Error::Fenced { job: self.job.clone(), incarnation: record.incarnation, holder: settled.incarnation });
        }
        let source =
            committed.err().map_or_else(|| "the answer was late, and the record is not there".to_owned(), |error| error.to_string());
        Err(Error::Io { what: "committing", path: self.topic.place(), source: source.into() })
    }
}

/// Sends these records, and waits until they are acknowledged.
async fn deliver(producer: &Producer, records: &[Outgoing<'_>], clock: &dyn Clock) -> Result<(), OperatorError> {
    let deliveries = Arc::new(Deliveries::default());
    for record in records {
        while let Err(refused) = producer.send(record, None, &deliveries) {
            match refused {
                Refused::Full => clock.sleep(1).await,
                Refused::Failed => return deliveries.check(),
            }
        }
    }
    deliveries.all().await
}

fn is_fenced(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::Fenced | RDKafkaErrorCode::InvalidProducerEpoch)
    )
}

/// One writer's place in an attempt.
pub(super) struct Seat {
    attempt: Arc<Attempt>,
    side: usize,
    /// Rows since the last barrier.
    has_sent: bool,
}

impl Seat {
    /// Where the next rows go.
    ///
    /// # Errors
    /// The transaction cannot begin.
    pub(super) fn producer(&mut self) -> Result<Arc<Producer>, OperatorError> {
        let producer = self.attempt.sides[self.side].open()?;
        self.has_sent = true;
        Ok(producer)
    }

    /// A barrier passes, and all rows before it are acknowledged: they count for `checkpoint`, what follows goes to the other side.
    ///
    /// # Errors
    /// The other side still holds an earlier checkpoint, which was given up, and this writer has sent rows since (R5).
    pub(super) fn seal(&mut self, checkpoint: CheckpointId) -> Result<(), OperatorError> {
        let mut state = self.attempt.state();
        let side = match state.sealed {
            Some((sealed, earlier)) if sealed != self.side && self.has_sent => {
                return Err(OperatorError::outside(format!(
                    "checkpoint {} was given up, and rows behind its barrier were sent already: they cannot be committed as one with those before",
                    earlier.0
                )));
            }
            Some((sealed, _)) => sealed,
            None => self.side,
        };
        state.sealed = Some((side, checkpoint));
        self.side = 1 - side;
        self.has_sent = false;
        Ok(())
    }
}

/// One transactional id.
struct Side {
    id: String,
    config: ClientConfig,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    producer: Option<Arc<Producer>>,
    /// A transaction is open.
    has_begun: bool,
}

impl Side {
    fn new(id: String, config: &ClientConfig, timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        let mut config = config.clone();
        config.set("transactional.id", &id);
        Self { id, config, timeout, clock, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new producer in the place of the one before: whatever that one had open, here or in another process, is ended, and it can write no more.
    async fn initialise(self: &Arc<Self>, topic: &CommitTopic) -> Result<(), Error> {
        self.held().producer = None;
        let side = self.clone();
        let made = blocking(move || {
            let producer = Producer::new(&side.config, side.clock.clone())?;
            let what = || format!("transactional id {} cannot be initialised", side.id);
            match producer.transactions().init_transactions(INITIALISING) {
                Ok(()) => Ok(producer),
                Err(error) => Err(failed(&what(), &error, producer.complaint())),
            }
        });
        let producer = made.await.map_err(|error| topic.failed("claiming", &error))?;
        *self.held() = Held { producer: Some(Arc::new(producer)), has_begun: false };
        Ok(())
    }

    /// The producer, with a transaction that is open.
    fn open(&self) -> Result<Arc<Producer>, OperatorError> {
        let mut held = self.held();
        let Some(producer) = held.producer.clone() else {
            return Err(OperatorError::outside(format!("transactional id {} is being initialised", self.id)));
        };
        if !held.has_begun {
            let begun = producer.transactions().begin_transaction();
            begun.map_err(|error| failed(&format!("transactional id {}: no transaction can begin", self.id), &error, None))?;
            held.has_begun = true;
        }
        Ok(producer)
    }

    /// Writes the end of whatever this id left open in these partitions: an end covers all that stands before it.
    async fn end_at<'a>(self: &Arc<Self>, partitions: &'a [Partition], clock: &dyn Clock) -> Result<(), OperatorError> {
        let producer = self.open()?;
        let ending = |(topic, partition): &'a Partition| Outgoing {
            topic,
            partition: Some(*partition),
            key: Some(ENDING),
            value: None,
            timestamp_ms: None,
        };
        let records: Vec<Outgoing<'a>> = partitions.iter().map(ending).collect();
        deliver(&producer, &records, clock).await?;
        let timeout = self.timeout;
        let aborted = blocking(move || producer.transactions().abort_transaction(timeout)).await;
        self.ended();
        aborted.map_err(|error| failed(&format!("transactional id {} cannot end what is open", self.id), &error, None))
    }

    /// Ends what is open, if the cluster answers soon. No producer of this process writes any more.
    async fn abort(self: &Arc<Self>) {
        let Held { producer: Some(producer), has_begun: true } = std::mem::take(&mut *self.held()) else { return };
        let aborted = blocking(move || producer.transactions().abort_transaction(ABORTING)).await;
        if let Err(error) = aborted {
            tracing::debug!(%error, id = self.id, "what was not committed stays open until its time is over");
        }
    }

    /// The transaction has ended, one way or the other.
    fn ended(&self) {
        self.held().has_begun = false;
    }
}
