//! A source of rows at a pace, every key once before any comes again, and a sink that notes how long each row took.
//!
//! A row's event time is the time when it was due, in microseconds since the start (the engine takes them for milliseconds, which is all the same
//! to it), so it crosses a component and arrives at the sink. The source never skips a row that is late.

use std::{
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arrow_array::{ArrayRef, Int64Array, TimestampMillisecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use millstream_engine::{
    clock::{Clock as _, SystemClock},
    connector::{
        ConnectorRequest, Guarantee, Read, SettingsProblem, Sink, SinkConnector, SinkContext, SinkWriter, Source, SourceConnector, Split,
        SplitReader,
    },
    operator::OperatorError,
};
use millstream_model::Batch;
use serde_json::Value;

use crate::figures::now;

/// Rows between two times at which the source looks at the clock, at most.
const BATCH: u64 = 8_192;
/// Buckets of a latency, in steps of 10 µs: up to ten seconds.
pub const BUCKETS: usize = 1_000_000;

/// What source, sink and measurement share.
pub struct Shared {
    began: Instant,
    keys: u64,
    /// How many rows there are to be.
    until: AtomicU64,
    /// Rows per second; 0: as fast as they are taken.
    rate: AtomicU64,
    /// When the pace began, µs since the start, and how many rows had come.
    since: Mutex<(u64, u64)>,
    rows_read: AtomicU64,
    rows_written: AtomicU64,
    latencies: Mutex<Vec<u64>>,
}

impl Shared {
    /// Rows of so many keys, as fast as they are taken.
    pub fn new(keys: u64) -> Self {
        Self {
            began: now(),
            keys,
            until: AtomicU64::new(u64::MAX),
            rate: AtomicU64::new(0),
            since: Mutex::default(),
            rows_read: AtomicU64::new(0),
            rows_written: AtomicU64::new(0),
            latencies: Mutex::new(vec![0; BUCKETS]),
        }
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Rows that came through.
    pub fn rows(&self) -> u64 {
        self.rows_written.load(Ordering::Relaxed)
    }

    /// Returns when so many rows came through.
    pub async fn rows_until(&self, rows: u64) {
        while self.rows() < rows {
            SystemClock.sleep(10).await;
        }
    }

    /// There are only so many rows for now.
    pub fn stop_at(&self, rows: u64) {
        self.until.store(rows, Ordering::Relaxed);
    }

    /// So many rows per second from now on.
    pub fn pace(&self, rows_per_second: u64) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = (self.now_us(), self.rows_read.load(Ordering::Relaxed));
        self.rate.store(rows_per_second, Ordering::Relaxed);
    }

    /// Rows by how long they took, in steps of 10 µs, since this was asked last.
    pub fn take_latencies(&self) -> Vec<u64> {
        std::mem::replace(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner), vec![0; BUCKETS])
    }
}

// ---- the source ----

/// The source connector.
pub struct Paced(pub Arc<Shared>);

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let column = |name: &str, data_type| Field::new(name, data_type, false);
    let at = DataType::Timestamp(TimeUnit::Millisecond, None);
    Arc::new(Schema::new(vec![column("key", DataType::Int64), column("value", DataType::Int64), column("at", at)]))
});

impl SourceConnector for Paced {
    fn name(&self) -> &'static str {
        "paced"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::json_schema!({ "type": "object" })
    }

    fn plan(&self, _request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        Ok(Arc::new(PacedSource(self.0.clone())))
    }
}

struct PacedSource(Arc<Shared>);

#[async_trait]
impl Source for PacedSource {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn is_bounded(&self) -> bool {
        false
    }

    /// The job reads all columns.
    fn project(&self, _columns: &[usize]) -> Arc<dyn Source> {
        Arc::new(Self(self.0.clone()))
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        Ok(vec![Split { id: "paced".into(), detail: Value::Null }])
    }

    async fn open(&self, _split: &Split, _position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        Ok(Box::new(Reader(self.0.clone())))
    }
}

struct Reader(Arc<Shared>);

impl Reader {
    /// How many rows are due, and since when the first of them.
    fn due(&self) -> (u64, u64) {
        let (read, rate) = (self.0.rows_read.load(Ordering::Relaxed), self.0.rate.load(Ordering::Relaxed));
        let left = self.0.until.load(Ordering::Relaxed).saturating_sub(read);
        if rate == 0 {
            return (BATCH.min(left), self.0.now_us());
        }
        let (since_us, before) = *self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        let due_by_now = before + (self.0.now_us() - since_us) * rate / 1_000_000;
        let first_us = since_us + read.saturating_sub(before) * 1_000_000 / rate;
        (due_by_now.saturating_sub(read).min(BATCH).min(left), first_us)
    }
}

#[async_trait]
impl SplitReader for Reader {
    async fn read(&mut self, _rows_max: usize) -> Result<Read, OperatorError> {
        let (rows, first_us) = loop {
            let (rows, first_us) = self.due();
            if rows > 0 {
                break (rows, first_us);
            }
            SystemClock.sleep(1).await;
        };
        let keys = self.0.keys;
        let first = self.0.rows_read.fetch_add(rows, Ordering::Relaxed);
        // Every key comes once before any comes again, in an order that memory does not like.
        let key = |row: u64| (row.wrapping_mul(382_117) % keys).cast_signed();
        let column = Int64Array::from_iter_values((first..first + rows).map(key));
        let values = column.clone();
        let times = TimestampMillisecondArray::from_iter_values((0..rows).map(|_| first_us.cast_signed()));
        let columns: Vec<ArrayRef> = vec![Arc::new(column), Arc::new(values), Arc::new(times)];
        let batch = Batch::try_new(SCHEMA.clone(), columns, rows as usize).expect("the columns are made to the schema");
        Ok(Read::Rows { batch, rejected: Vec::new() })
    }

    fn position(&self) -> Value {
        Value::Null
    }
}

// ---- the sink ----

/// The sink connector.
pub struct Timed(pub Arc<Shared>);

impl SinkConnector for Timed {
    fn name(&self) -> &'static str {
        "timed"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::json_schema!({ "type": "object" })
    }

    fn plan(&self, _request: ConnectorRequest<'_>) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
        Ok(Arc::new(TimedSink(self.0.clone())))
    }
}

struct TimedSink(Arc<Shared>);

#[async_trait]
impl Sink for TimedSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn writer(&self, _context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        Ok(Box::new(Writer(self.0.clone())))
    }
}

struct Writer(Arc<Shared>);

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        self.0.rows_written.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        let now_us = self.0.now_us();
        let mut latencies = self.0.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        for &due_us in batch.event_times().into_iter().flatten() {
            let bucket = now_us.saturating_sub(due_us.cast_unsigned()) as usize / 10;
            latencies[bucket.min(BUCKETS - 1)] += 1;
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), OperatorError> {
        Ok(())
    }
}
