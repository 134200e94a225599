//! What a checkpoint of a million changed keys does to the rows that come meanwhile: how long each waits from the moment when it was due at the
//! source until the sink has it, at half the load that the job can carry.
//!
//! A row's event time is its due time, in microseconds since the start (the engine takes them for milliseconds, which is all the same to it), so
//! it crosses the component and arrives at the sink. The source never skips a row that is late: a job that stands still is seen in every row that
//! was due meanwhile.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::Context as _;
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
    run::{self, JobHandle},
};
use millstream_model::Batch;
use serde_json::Value;

use crate::{
    checkpoints,
    figures::{Figure, now},
    guests::Guests,
    jobs,
};

const KEYS: u64 = 1_000_000;
/// Rows between two times at which the source looks at the clock, at most.
const BATCH: u64 = 8_192;
const CHECKPOINTS: usize = 5;
const PHASE_MS: i64 = 4_000;
/// Buckets of a latency, in steps of 10 µs: up to ten seconds.
const BUCKETS: usize = 1_000_000;

/// All figures of this group.
///
/// # Errors
/// The job does not run.
pub async fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let shared = Arc::new(Shared::new());
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("tally.wasm"), guests.bytes("tally")?)?;
    let connectors = millstream_connectors::all().with_source(Paced(shared.clone())).with_sink(Timed(shared.clone()));
    let plan = jobs::planned(JOB, directory.path(), &connectors, guests, NonZeroU32::MIN).await?;
    let handle = run::start(plan, checkpoints::settings(&directory.path().join("state"), true)?);
    let found = measure_job(&handle, &shared).await;
    handle.cancel().await;
    handle.wait().await;
    found
}

async fn measure_job(handle: &JobHandle, shared: &Shared) -> anyhow::Result<Vec<Figure>> {
    shared.is_paced.store(0, Ordering::Relaxed);
    // Every key once, then as fast as it goes.
    shared.rows_until(4 * KEYS).await;
    let (before, began) = (shared.rows(), now());
    SystemClock.sleep(PHASE_MS / 2).await;
    let full = (shared.rows() - before) as f64 / began.elapsed().as_secs_f64();
    shared.pace((full / 2.0) as u64);
    SystemClock.sleep(PHASE_MS / 2).await;
    shared.take_latencies();
    SystemClock.sleep(PHASE_MS).await;
    let without = percentile_ms(&shared.take_latencies(), 0.99);
    let (mut with, mut sync_ms, mut reports) = (vec![0; BUCKETS], 0, Vec::new());
    for _ in 0..CHECKPOINTS {
        SystemClock.sleep(1_000).await;
        shared.take_latencies();
        let report = handle.checkpoint().await.context("a checkpoint of the job")?;
        with.iter_mut().zip(shared.take_latencies()).for_each(|(all, some)| *all += some);
        sync_ms = sync_ms.max(report.sync_ms);
        reports.push(report);
    }
    let with = percentile_ms(&with, 0.99);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let last = reports.last().context("checkpoints were taken")?;
    let how = format!(
        "{KEYS} keys on RocksDB, all changed since the checkpoint before ({:.0} MiB new), {:.1} M rows/s, half of what the job carries, parallelism 1, {CHECKPOINTS} checkpoints of {} ms",
        mib(last.bytes_new),
        full / 2e6,
        last.total_ms
    );
    Ok(vec![
        Figure::at_most("checkpoint of 1 M changed keys, synchronous part", sync_ms as f64, "ms", 10.0, &how),
        Figure::for_scale("latency at half load without a checkpoint, p99", without, "ms", &how),
        Figure::for_scale("latency at half load while a checkpoint runs, p99", with, "ms", &how),
        Figure::at_most("latency that a checkpoint adds, p99", with - without, "ms", 20.0, &how),
    ])
}

fn percentile_ms(buckets: &[u64], share: f64) -> f64 {
    let wanted = (buckets.iter().sum::<u64>() as f64 * share) as u64;
    let mut seen = 0;
    let at = buckets.iter().position(|count| {
        seen += count;
        seen > wanted
    });
    at.unwrap_or(BUCKETS) as f64 / 100.0
}

const JOB: &str = "job: pause
state-memory: 2GiB
checkpoints: { interval: 1h }
sources:
  rows:
    paced: {}
    event-time: { column: at, max-out-of-orderness: 0s }
operators:
  tally:
    input: rows
    key-by: [key]
    component: { path: tally.wasm }
    rejected: none
sinks:
  out:
    input: tally
    timed: {}
  none:
    blackhole: {}
";

/// What source, sink and measurement share.
struct Shared {
    began: Instant,
    /// Rows per second; 0: as fast as they are taken.
    is_paced: AtomicU64,
    /// When the pace began, µs since the start, and how many rows had come.
    since: Mutex<(u64, u64)>,
    rows_read: AtomicU64,
    rows_written: AtomicU64,
    latencies: Mutex<Vec<u64>>,
}

impl Shared {
    fn new() -> Self {
        Self {
            began: now(),
            is_paced: AtomicU64::new(0),
            since: Mutex::default(),
            rows_read: AtomicU64::new(0),
            rows_written: AtomicU64::new(0),
            latencies: Mutex::new(vec![0; BUCKETS]),
        }
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn rows(&self) -> u64 {
        self.rows_written.load(Ordering::Relaxed)
    }

    async fn rows_until(&self, rows: u64) {
        while self.rows() < rows {
            SystemClock.sleep(10).await;
        }
    }

    fn pace(&self, rows_per_second: u64) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = (self.now_us(), self.rows_read.load(Ordering::Relaxed));
        self.is_paced.store(rows_per_second, Ordering::Relaxed);
    }

    fn take_latencies(&self) -> Vec<u64> {
        std::mem::replace(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner), vec![0; BUCKETS])
    }
}

// ---- the source ----

struct Paced(Arc<Shared>);

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
        let (read, rate) = (self.0.rows_read.load(Ordering::Relaxed), self.0.is_paced.load(Ordering::Relaxed));
        if rate == 0 {
            return (BATCH, self.0.now_us());
        }
        let (since_us, before) = *self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        let due_by_now = before + (self.0.now_us() - since_us) * rate / 1_000_000;
        let first_us = since_us + read.saturating_sub(before) * 1_000_000 / rate;
        (due_by_now.saturating_sub(read).min(BATCH), first_us)
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
        let first = self.0.rows_read.fetch_add(rows, Ordering::Relaxed);
        // Every key comes once before any comes again, in an order that memory does not like.
        let key = |row: u64| (row.wrapping_mul(382_117) % KEYS).cast_signed();
        let keys = Int64Array::from_iter_values((first..first + rows).map(key));
        let values = keys.clone();
        let times = TimestampMillisecondArray::from_iter_values((0..rows).map(|_| first_us.cast_signed()));
        let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(values), Arc::new(times)];
        let batch = Batch::try_new(SCHEMA.clone(), columns, rows as usize).expect("the columns are made to the schema");
        Ok(Read::Rows { batch, rejected: Vec::new() })
    }

    fn position(&self) -> Value {
        Value::Null
    }
}

// ---- the sink ----

struct Timed(Arc<Shared>);

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
