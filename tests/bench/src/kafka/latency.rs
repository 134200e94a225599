//! How long a record is on its way: from the moment when it was due at its producer, through a topic, the job, and another topic, until a consumer of
//! that one has it. Everything (broker, producer, job, consumer) shares this machine.
//!
//! What the job carries is measured first, with the same clients: as fast as it goes, but never more than [`AHEAD_MAX`] records on their way. Half of
//! that is the load. A record that is late at its producer counts from when it was due.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use millstream_engine::{
    clock::{Clock as _, SystemClock},
    run::{self, RunSettings},
};
use rdkafka::{Message as _, consumer::BaseConsumer};

use super::{
    Job,
    clients::{Cluster, PARTITIONS, send},
};
use crate::{
    checkpoints,
    figures::{Figure, now},
    guests::Guests,
    paced::BUCKETS,
    pause::percentile_ms,
    say,
};

const KEYS: u64 = 10_000;
/// Records on their way at full load.
const AHEAD_MAX: u64 = 50_000;
const WARM_MS: i64 = 5_000;
const FULL_MS: i64 = 3_000;
const HALF_MS: i64 = 15_000;
/// What the broker is given before: a virtual machine that has just started interprets and compiles.
const WARM_RUNS: usize = 4;
/// For scale: a load that leaves the cores time.
const LITTLE: u64 = 20_000;

/// What is measured: its words, the operator, whether exactly once, the bound of the 99th percentile in ms.
const CASES: [(&str, &str, bool, f64); 4] = [
    ("filter and map, at least once", "component: { path: converted.wasm }", false, 25.0),
    ("keyed count of 10 k keys, at least once", "key-by: [key], component: { path: stamped.wasm }", false, 25.0),
    ("filter and map, exactly once", "component: { path: converted.wasm }", true, 250.0),
    ("keyed count of 10 k keys, exactly once", "key-by: [key], component: { path: stamped.wasm }", true, 250.0),
];

/// All figures of this part.
///
/// # Errors
/// A job does not run.
pub async fn measure(guests: &Guests, cluster: &Cluster) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    say("the broker warms up");
    let (_, operator, is_exact, _) = CASES[2];
    for _ in 0..WARM_RUNS {
        observed(guests, cluster, operator, is_exact, None).await?;
    }
    for (words, operator, is_exact, bound) in CASES {
        say(&format!("{words}: full load"));
        let full = observed(guests, cluster, operator, is_exact, None).await?;
        say(&format!("{words}: half of {:.0} rows/s", full.rows_per_second));
        let half = observed(guests, cluster, operator, is_exact, Some((full.rows_per_second / 2.0) as u64)).await?;
        let commits = if is_exact { ", a commit every 100 ms" } else { "" };
        let how = format!(
            "JSON, {:.0} K records/s, half of what broker, producer, job and consumer carry together on this machine ({:.0} K/s){commits}; from due at the producer to received by a consumer with read_committed; parallelism 2, two partitions",
            half.rows_per_second / 1e3,
            full.rows_per_second / 1e3
        );
        let name = |percentile: &str| format!("kafka to kafka, {words}, {percentile}");
        let of = |share| percentile_ms(&half.latencies, share);
        let little = observed(guests, cluster, operator, is_exact, Some(LITTLE)).await?;
        let at_little = format!("at {} K records/s, p99", LITTLE / 1_000);
        figures.push(Figure::for_scale(name(&at_little), percentile_ms(&little.latencies, 0.99), "ms", &how));
        if !is_exact {
            let bare = bare(cluster, (full.rows_per_second / 2.0) as u64).await?;
            figures.push(Figure::for_scale(name("a bare copy loop in its place, p99"), percentile_ms(&bare, 0.99), "ms", &how));
        }
        figures.push(Figure::for_scale(name("p50"), of(0.5), "ms", &how));
        figures.push(Figure::for_scale(name("p90"), of(0.9), "ms", &how));
        figures.push(Figure::at_most(name("p99"), of(0.99), "ms", bound, &how));
        figures.push(Figure::for_scale(name("p99.9"), of(0.999), "ms", &how));
    }
    Ok(figures)
}

/// What a consumer saw while the job ran.
struct Observed {
    rows_per_second: f64,
    /// Records by how long they took, in steps of 10 µs.
    latencies: Vec<u64>,
}

/// Runs the job at a pace; none: as fast as it goes.
async fn observed(guests: &Guests, cluster: &Cluster, operator: &str, is_exact: bool, pace: Option<u64>) -> anyhow::Result<Observed> {
    let (from, to) = (cluster.topic("in"), cluster.topic("out"));
    let sink = if is_exact { ", commit-topic: millstream.commits.bench" } else { ", delivery: at-least-once" };
    let job = Job {
        format: "json",
        schema: "    schema: { key: Int64, value: Int64, at: Int64 }\n",
        operator,
        from: &from,
        to: &to,
        end: "",
        sink,
        more: "checkpoints: { interval: 100ms }\n",
    };
    let (plan, directory) = job.plan(cluster, guests, 2).await?;
    let settings = if is_exact { checkpoints::settings(directory.path(), true)? } else { RunSettings::new() };
    let handle = run::start(plan, settings);
    let clients = Clients::start(cluster, &from, &to, pace)?;
    clients.shared.is_warm().await;
    let (sent, received, began) = clients.shared.mark();
    SystemClock.sleep(if pace.is_some() { HALF_MS } else { FULL_MS }).await;
    let seconds = began.elapsed().as_secs_f64();
    let rows_per_second = (if pace.is_some() { clients.shared.sent() - sent } else { clients.shared.due_of(received) }) as f64 / seconds;
    handle.cancel().await;
    handle.wait().await;
    let latencies = clients.finish()?;
    Ok(Observed { rows_per_second, latencies })
}

/// The latencies at a pace where a loop of consumer and producer stands in the place of the job.
async fn bare(cluster: &Cluster, pace: u64) -> anyhow::Result<Vec<u64>> {
    let (from, to) = (cluster.topic("in"), cluster.topic("out"));
    let (consumer, producer) = (cluster.consumer(&from)?, cluster.producer()?);
    let clients = Clients::start(cluster, &from, &to, Some(pace))?;
    let shared = clients.shared.clone();
    let copying = thread::spawn(move || -> anyhow::Result<()> {
        while !shared.is_over.load(Ordering::Relaxed) {
            let Some(Ok(record)) = consumer.poll(Duration::from_millis(20)) else { continue };
            send(&producer, &to, None, None, record.payload().unwrap_or_default())?;
        }
        Ok(())
    });
    clients.shared.is_warm().await;
    clients.shared.mark();
    SystemClock.sleep(HALF_MS).await;
    let latencies = clients.finish()?;
    copying.join().map_err(|_| anyhow!("the loop panicked"))??;
    Ok(latencies)
}

/// What producer and consumer share.
struct Shared {
    began: Instant,
    sent: AtomicU64,
    /// The number of the newest record that came out, which says how many went in before it.
    newest: AtomicU64,
    has_begun: AtomicBool,
    is_measured: AtomicBool,
    is_over: AtomicBool,
}

impl Shared {
    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Measures from now on: how many were sent, the newest that has come, and now.
    fn mark(&self) -> (u64, u64, Instant) {
        self.is_measured.store(true, Ordering::Relaxed);
        (self.sent(), self.newest.load(Ordering::Relaxed), now())
    }

    /// How many went in that have come out since the newest was `before`.
    fn due_of(&self, before: u64) -> u64 {
        self.newest.load(Ordering::Relaxed).saturating_sub(before)
    }

    /// Returns when the first record has come through, which takes a claim of the job, and some time after that.
    async fn is_warm(&self) {
        while !self.has_begun.load(Ordering::Relaxed) {
            SystemClock.sleep(10).await;
        }
        SystemClock.sleep(WARM_MS).await;
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

struct Clients {
    shared: Arc<Shared>,
    producer: JoinHandle<anyhow::Result<()>>,
    consumer: JoinHandle<anyhow::Result<Vec<u64>>>,
}

impl Clients {
    fn start(cluster: &Cluster, from: &str, to: &str, pace: Option<u64>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            began: now(),
            sent: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            has_begun: AtomicBool::new(false),
            is_measured: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let (producer, topic, of_producer) = (cluster.load()?, from.to_owned(), shared.clone());
        let (consumer, of_consumer) = (cluster.consumer(to)?, shared.clone());
        let producer = thread::spawn(move || produce(&producer, &topic, &of_producer, pace));
        let consumer = thread::spawn(move || consume(&consumer, &of_consumer));
        Ok(Self { shared, producer, consumer })
    }

    /// The latencies since they are measured.
    fn finish(self) -> anyhow::Result<Vec<u64>> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.producer.join().map_err(|_| anyhow!("the producer panicked"))??;
        self.consumer.join().map_err(|_| anyhow!("the consumer panicked"))?
    }
}

/// Sends what is due, every half millisecond. `value` counts the records, `at` is when each was due.
fn produce(
    producer: &rdkafka::producer::ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    topic: &str,
    shared: &Shared,
    pace: Option<u64>,
) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    // The job reads when its first row has come: until then nothing piles up.
    send(producer, topic, Some(0), None, b"{\"key\":0,\"value\":0,\"at\":0}")?;
    while shared.newest.load(Ordering::Relaxed) == 0 && !shared.is_over.load(Ordering::Relaxed) {
        thread::park_timeout(Duration::from_millis(1));
    }
    let (mut sent, began_us) = (1u64, shared.now_us());
    shared.has_begun.store(true, Ordering::Relaxed);
    while !shared.is_over.load(Ordering::Relaxed) {
        let now_us = shared.now_us();
        let due = match pace {
            Some(pace) => (now_us - began_us) * pace / 1_000_000,
            None => (shared.newest.load(Ordering::Relaxed) + AHEAD_MAX).min(sent + 1_000),
        };
        for number in sent..due.max(sent) {
            let at = pace.map_or(now_us, |pace| began_us + number * 1_000_000 / pace);
            bytes.clear();
            let key = number.wrapping_mul(382_117) % KEYS;
            // Ends in 3 for one in ten, which the filter leaves out.
            bytes.extend_from_slice(format!("{{\"key\":{key},\"value\":{number},\"at\":{at}}}").as_bytes());
            send(producer, topic, Some((number % u64::from(PARTITIONS)) as i32), None, &bytes)?;
        }
        sent = due.max(sent);
        shared.sent.store(sent, Ordering::Relaxed);
        thread::park_timeout(Duration::from_micros(500));
    }
    Ok(())
}

fn consume(consumer: &BaseConsumer, shared: &Shared) -> anyhow::Result<Vec<u64>> {
    let mut latencies = vec![0; BUCKETS];
    let mut came = 0u64;
    while !shared.is_over.load(Ordering::Relaxed) {
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(20)) else { continue };
        let value = record.payload().context("rows have values")?;
        let at = number(value, b"\"at\":").context("rows say when they were made")?;
        came += 1;
        // Of ten records nine come out of the filter, all of the count.
        let newest = number(value, b"\"number\":").map_or(came * 10 / 9, |_| came);
        shared.newest.store(newest, Ordering::Relaxed);
        if shared.is_measured.load(Ordering::Relaxed) {
            latencies[(shared.now_us().saturating_sub(at) as usize / 10).min(BUCKETS - 1)] += 1;
        }
    }
    Ok(latencies)
}

/// The number behind a field's name.
fn number(value: &[u8], field: &[u8]) -> Option<u64> {
    let at = value.windows(field.len()).position(|part| part == field)? + field.len();
    let digits = value[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
