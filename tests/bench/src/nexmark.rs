//! Nexmark, replayed from memory, against native Rust on Arrow.
//!
//! Events per CPU-second = events ÷ user and system time of the whole process, all threads, from the start of the job to its end; events are
//! those of the generator, of all three kinds. A sample replays the same events until it has lasted a second. Samples of the engine and of
//! native Rust take turns; medians count. The jobs are those of `examples/nexmark`, but for source and sink.

use std::{fs, num::NonZeroU32, sync::Arc};

use anyhow::Context as _;
use millstream_connectors::nexmark::Nexmark;
use millstream_engine::{graph::JobPlan, run::RunSettings};
use millstream_model::Batch;

use crate::{
    figures::{Figure, median, now, process_cpu_seconds},
    guests::Guests,
    jobs, native,
    replay::{Recorder, ReplayConnector},
    repository,
};

/// Query, and the events per CPU-second it shall reach, in millions.
pub const QUERIES: [(&str, f64); 9] =
    [("q0", 200.0), ("q1", 60.0), ("q2", 100.0), ("q5", 8.0), ("q7", 40.0), ("q8", 20.0), ("q11", 6.0), ("q12", 12.0), ("q14", 15.0)];

const SAMPLES: usize = 5;
const ROWS_PER_BATCH: usize = 8_192;
/// A sample lasts at least so long, in seconds of CPU.
const SAMPLE_SECONDS: f64 = 1.0;

/// The figures of one query.
///
/// # Errors
/// It does not run.
pub async fn measure(guests: &Guests, query: &str, bound: f64, events: u64) -> anyhow::Result<Vec<Figure>> {
    let Replayed { plan, batches } = replayed(guests, query, events, NonZeroU32::MIN).await?;
    let mut batches: Vec<(usize, &Batch)> =
        batches.iter().enumerate().flat_map(|(input, batches)| batches.iter().map(move |batch| (input, batch))).collect();
    batches.sort_by_key(|(_, batch)| batch.event_time(0));
    let (mut engine, mut native) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        engine.push(events_per_second(events, async || jobs::finished(&plan, RunSettings::new()).await).await?);
        native.push(events_per_second(events, async || run_native(query, &batches)).await?);
    }
    let (engine, native) = (median(engine), median(native));
    let how = format!(
        "{events} distinct events replayed from memory until a sample lasts {SAMPLE_SECONDS} s, parallelism 1, CPU time of the whole process, median of {SAMPLES}"
    );
    let unit = "M events/CPU-s";
    Ok(vec![
        Figure::at_least(format!("nexmark {query}"), engine / 1e6, unit, bound, &how),
        Figure::for_scale(format!("nexmark {query}, native Rust on Arrow"), native / 1e6, unit, &how),
        Figure::for_scale(format!("nexmark {query}, native is faster by"), native / engine, "times", &how),
    ])
}

/// A planned query, and the events that it will replay, per source.
pub struct Replayed {
    /// The job.
    pub plan: Arc<JobPlan>,
    /// Batches of each source, in the order of the sources.
    pub batches: Vec<Vec<Batch>>,
}

impl Replayed {
    /// Seconds by the clock on the wall for one run.
    ///
    /// # Errors
    /// It does not get to its end.
    pub async fn time(&self, settings: RunSettings) -> anyhow::Result<Took> {
        let (began, cpu) = (now(), process_cpu_seconds());
        jobs::finished(&self.plan, settings).await?;
        Ok(Took { seconds: began.elapsed().as_secs_f64(), cpu_seconds: process_cpu_seconds() - cpu })
    }
}

/// What a run took.
#[derive(Clone, Copy)]
pub struct Took {
    /// By the clock on the wall.
    pub seconds: f64,
    /// Of all threads: it tells waiting from work where the ratio of two runs is not what it should be.
    pub cpu_seconds: f64,
}

impl Took {
    /// Longer than any run.
    pub const LONGEST: Self = Self { seconds: f64::INFINITY, cpu_seconds: f64::INFINITY };

    /// The shorter of two runs.
    pub fn min(self, other: Self) -> Self {
        if self.seconds < other.seconds { self } else { other }
    }
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} s ({:.1} of CPU)", self.seconds, self.cpu_seconds)
    }
}

/// The job of the example with more events, from memory, into a sink that counts.
///
/// # Errors
/// The example is not as expected.
pub async fn replayed(guests: &Guests, query: &str, events: u64, parallelism: NonZeroU32) -> anyhow::Result<Replayed> {
    let directory = repository().join("examples/nexmark");
    let file = directory.join(format!("{query}.yaml"));
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let text = text.replace("events: 6000, event-rate: 50", &format!("events: {events}"));
    let (before, sink) = text.split_once("    files:").context("the job ends with its sink")?;
    let path = sink.split_once('\n').map_or("", |(_, rest)| rest);
    // Only a durable run looks at the last line.
    let text = format!("{before}    blackhole: {{}}\n{path}\ncheckpoints: {{ interval: 1s }}\n");
    let recorder = Recorder::default();
    let connectors = millstream_connectors::all().with_source(ReplayConnector::new(Box::new(Nexmark), recorder.clone(), ROWS_PER_BATCH));
    let plan = jobs::planned(&text, &directory, &connectors, guests, parallelism).await?;
    let batches = recorder.record(parallelism.get()).await.context("generating the events")?;
    Ok(Replayed { plan, batches })
}

/// Runs the same again until it has taken a second of CPU.
async fn events_per_second(events: u64, mut run: impl AsyncFnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = process_cpu_seconds();
    let mut done = 0;
    loop {
        run().await?;
        done += events;
        let seconds = process_cpu_seconds() - began;
        if seconds >= SAMPLE_SECONDS {
            return Ok(done as f64 / seconds);
        }
    }
}

fn run_native(query: &str, batches: &[(usize, &Batch)]) -> anyhow::Result<()> {
    let mut query = native::query(query).context("every query has a native form")?;
    let emitted: usize = batches.iter().map(|&(input, batch)| query.on_batch(input, batch)).sum();
    std::hint::black_box(emitted + query.finish());
    Ok(())
}
