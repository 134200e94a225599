//! What a checkpoint of a million changed keys does to the rows that come meanwhile: how long each waits from the moment when it was due at the
//! source until the sink has it, at half the load that the job can carry. A job that stands still is seen in every row that was due meanwhile. And
//! what it takes from a job that runs as fast as it goes.

use std::{num::NonZeroU32, sync::Arc, time::Instant};

use anyhow::Context as _;
use millstream_engine::{
    clock::{Clock as _, SystemClock},
    run::{self, JobHandle},
};

use crate::{
    checkpoints,
    figures::{Figure, median, now},
    guests::Guests,
    jobs,
    paced::{BUCKETS, Paced, Shared, Timed},
};

const KEYS: u64 = 1_000_000;
const CHECKPOINTS: usize = 9;
const PHASE_MS: i64 = 4_000;
/// The default interval of checkpoints: a time with one, and a time without, by turns.
const INTERVAL_MS: i64 = 10_000;
const TURNS: usize = 3;

/// All figures of this group.
///
/// # Errors
/// The job does not run.
pub async fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let shared = Arc::new(Shared::new(KEYS));
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("ledger.wasm"), guests.bytes("ledger")?)?;
    let connectors = millstream_connectors::all().with_source(Paced(shared.clone())).with_sink(Timed(shared.clone()));
    let plan = jobs::planned(&job("ledger", "2GiB"), directory.path(), &connectors, guests, NonZeroU32::MIN).await?;
    let handle = run::start(plan, checkpoints::settings(&directory.path().join("state"), true)?);
    let found = measure_job(&handle, &shared).await;
    handle.cancel().await;
    handle.wait().await;
    found
}

async fn measure_job(handle: &JobHandle, shared: &Shared) -> anyhow::Result<Vec<Figure>> {
    // Every key once, then as fast as it goes.
    shared.rows_until(4 * KEYS).await;
    let Throughput { without: full, with, during } = Throughput::of(handle, shared).await?;
    shared.pace((full / 2.0) as u64);
    SystemClock.sleep(PHASE_MS / 2).await;
    shared.take_latencies();
    SystemClock.sleep(PHASE_MS).await;
    let without = percentile_ms(&shared.take_latencies(), 0.99);
    let (mut late, mut worst, mut sync_ms, mut reports) = (vec![0; BUCKETS], 0.0_f64, 0, Vec::new());
    for _ in 0..CHECKPOINTS {
        SystemClock.sleep(1_000).await;
        shared.take_latencies();
        let report = handle.checkpoint().await.context("a checkpoint of the job")?;
        let meanwhile = shared.take_latencies();
        worst = worst.max(percentile_ms(&meanwhile, 0.99));
        late.iter_mut().zip(&meanwhile).for_each(|(all, count)| *all += count);
        sync_ms = sync_ms.max(report.sync_ms);
        reports.push(report);
    }
    let late = percentile_ms(&late, 0.99);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let last = reports.last().context("checkpoints were taken")?;
    let how = format!(
        "{KEYS} keys on RocksDB, all changed since the checkpoint before ({:.0} MiB new), {:.1} M rows/s, half of what the job carries, parallelism 1, {CHECKPOINTS} checkpoints of {} ms",
        mib(last.bytes_new),
        full / 2e6,
        last.total_ms
    );
    let at_full = format!(
        "{KEYS} keys on RocksDB, all changed since the checkpoint before, {:.1} M rows/s without one, parallelism 1, medians of {TURNS} by turns",
        full / 1e6
    );
    Ok(vec![
        Figure::at_most("checkpoint of 1 M changed keys, synchronous part", sync_ms as f64, "ms", 10.0, &how),
        Figure::for_scale("latency at half load without a checkpoint, p99", without, "ms", &how),
        Figure::for_scale("latency at half load while a checkpoint runs, p99", late, "ms", &how),
        Figure::for_scale("latency at half load while a checkpoint runs, p99, worst checkpoint", worst, "ms", &how),
        Figure::at_most("latency that a checkpoint adds, p99", late - without, "ms", 20.0, &how),
        Figure::at_least("throughput with a checkpoint of 1 M changed keys every 10 s against none", with / full, "times", 0.9, &at_full),
        Figure::for_scale("throughput while such a checkpoint is taken against none", during / full, "times", &at_full),
    ])
}

/// Rows per second as fast as they go.
struct Throughput {
    /// Without a checkpoint.
    without: f64,
    /// With one in [`INTERVAL_MS`].
    with: f64,
    /// While one is taken.
    during: f64,
}

impl Throughput {
    /// Each the median of [`TURNS`].
    async fn of(handle: &JobHandle, shared: &Shared) -> anyhow::Result<Self> {
        let (mut without, mut with, mut during) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let alone = Rate::begin(shared);
            SystemClock.sleep(INTERVAL_MS).await;
            without.push(alone.per_second(shared));
            let (both, ends_ms) = (Rate::begin(shared), SystemClock.monotonic_ms() + INTERVAL_MS);
            handle.checkpoint().await.context("a checkpoint of the job")?;
            during.push(both.per_second(shared));
            SystemClock.sleep(ends_ms - SystemClock.monotonic_ms()).await;
            with.push(both.per_second(shared));
        }
        Ok(Self { without: median(without), with: median(with), during: median(during) })
    }
}

/// Rows that come through from a moment on.
struct Rate {
    rows: u64,
    began: Instant,
}

impl Rate {
    fn begin(shared: &Shared) -> Self {
        Self { rows: shared.rows(), began: now() }
    }

    fn per_second(&self, shared: &Shared) -> f64 {
        (shared.rows() - self.rows) as f64 / self.began.elapsed().as_secs_f64()
    }
}

/// A share of the rows took at most so long.
pub fn percentile_ms(buckets: &[u64], share: f64) -> f64 {
    let wanted = (buckets.iter().sum::<u64>() as f64 * share) as u64;
    let mut seen = 0;
    let at = buckets.iter().position(|count| {
        seen += count;
        seen > wanted
    });
    at.unwrap_or(BUCKETS) as f64 / 100.0
}

/// A count per key by a component whose checkpoints are asked for.
pub fn job(component: &str, state_memory: &str) -> String {
    format!(
        "job: paced
state-memory: {state_memory}
checkpoints: {{ interval: 1h }}
sources:
  rows:
    paced: {{}}
    event-time: {{ column: at, max-out-of-orderness: 0s }}
operators:
  {component}:
    input: rows
    key-by: [key]
    component: {{ path: {component}.wasm }}
    rejected: none
sinks:
  out:
    input: {component}
    timed: {{}}
  none:
    blackhole: {{}}
"
    )
}
