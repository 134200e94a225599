//! `make bench`: the figures of the engine on Nexmark, replayed from memory, against native Rust on Arrow in the same run.
//!
//! Events per CPU-second = events ÷ user and system time of the whole process from the start of the job to its end; events are those of the
//! generator, of all three kinds. Samples of the engine and of native Rust take turns; medians are printed. `QUERY …` as arguments measures
//! only these; `MILLSTREAM_BENCH_EVENTS` changes the number of distinct events (default: 50 million).

mod figures;
mod native;
mod replay;

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use figures::{Figure, median, process_cpu_seconds};
use millstream_connectors::nexmark::Nexmark;
use millstream_engine::{
    clock::SystemClock,
    graph::JobPlan,
    operators::Environment,
    plan::{self, PlanOptions},
    run::{self, JobOutcome, RunSettings},
    spec::JobSpec,
};
use millstream_model::{Batch, ids::TenantId};
use millstream_wasm::{Runtime, RuntimeSettings};
use replay::{Recorder, ReplayConnector};
use serde_json::json;

const SAMPLES: usize = 5;
const ROWS_PER_BATCH: usize = 8_192;
/// Query, and the events per CPU-second it shall reach, in millions.
const QUERIES: [(&str, f64); 9] =
    [("q0", 200.0), ("q1", 60.0), ("q2", 100.0), ("q5", 8.0), ("q7", 40.0), ("q8", 20.0), ("q11", 6.0), ("q12", 12.0), ("q14", 15.0)];

fn main() -> anyhow::Result<()> {
    let events = match std::env::var("MILLSTREAM_BENCH_EVENTS") {
        Ok(text) => text.parse().context("MILLSTREAM_BENCH_EVENTS is a number of events")?,
        Err(_) => 50_000_000,
    };
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut figures = Vec::new();
    for (query, bound) in QUERIES {
        if wanted.is_empty() || wanted.iter().any(|name| name == query) {
            figures.extend(runtime.block_on(measure(query, bound, events))?);
        }
    }
    figures::save(&repository().join("docs/bench/latest.json"), &figures)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// One query: the engine, and native Rust in turn with it.
async fn measure(query: &str, bound: f64, events: u64) -> anyhow::Result<Vec<Figure>> {
    let recorder = Recorder::default();
    let plan = planned(query, events, &recorder).await?;
    let recorded = recorder.record().await.context("generating the events")?;
    let millions = events as f64 / 1e6;
    let (mut engine, mut native) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        engine.push(millions / engine_seconds(&plan).await?);
        native.push(millions / native_seconds(query, &recorded)?);
    }
    let (engine, native) = (median(engine), median(native));
    let how = format!("{events} distinct events replayed from memory, parallelism 1, median of {SAMPLES}, whole process, `make bench`");
    let figures = vec![
        Figure::at_least(format!("nexmark {query}"), engine, "M events/CPU-s", bound, &how),
        Figure::for_scale(format!("nexmark {query}, native Rust on Arrow"), native, "M events/CPU-s", &how),
        Figure::for_scale(format!("nexmark {query}, native is faster by"), native / engine, "times", &how),
    ];
    figures.iter().for_each(Figure::print);
    Ok(figures)
}

/// The job of the example with more events, from memory, into a sink that counts.
async fn planned(query: &str, events: u64, recorder: &Recorder) -> anyhow::Result<Arc<JobPlan>> {
    let directory = repository().join("examples/nexmark");
    let file = directory.join(format!("{query}.yaml"));
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let text = text.replace("events: 6000, event-rate: 50", &format!("events: {events}"));
    let (before, sink) = text.split_once("    files:").context("the job ends with its sink")?;
    let path = sink.split_once('\n').map_or("", |(_, rest)| rest);
    let text = format!("{before}    blackhole: {{}}\n{path}");
    let connectors = millstream_connectors::all().with_source(ReplayConnector::new(Box::new(Nexmark), recorder.clone(), ROWS_PER_BATCH));
    let changes = [("parallelism".to_owned(), json!(1))];
    let spec = JobSpec::parse_with(query, &text, &changes, &connectors).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let components = Runtime::new(RuntimeSettings::default())?;
    let environment = Environment { base_directory: &directory, components: &components, clock: Arc::new(SystemClock) };
    let options = PlanOptions { tenant: TenantId::local(), parallelism: NonZeroU32::MIN };
    let plan = plan::plan(&spec, &connectors, &environment, &options).await.map_err(|problems| anyhow::anyhow!("{problems}"))?;
    Ok(Arc::new(plan))
}

async fn engine_seconds(plan: &Arc<JobPlan>) -> anyhow::Result<f64> {
    let began = process_cpu_seconds();
    match &*run::start(plan.clone(), RunSettings::new()).wait().await {
        JobOutcome::Finished(_) => Ok(process_cpu_seconds() - began),
        other => bail!("the job did not finish: {other:?}"),
    }
}

fn native_seconds(query: &str, recorded: &[Vec<Batch>]) -> anyhow::Result<f64> {
    let mut query = native::query(query).context("every query has a native form")?;
    let mut batches: Vec<(usize, &Batch)> =
        recorded.iter().enumerate().flat_map(|(input, batches)| batches.iter().map(move |batch| (input, batch))).collect();
    batches.sort_by_key(|(_, batch)| batch.event_time(0));
    let began = process_cpu_seconds();
    let emitted: usize = batches.into_iter().map(|(input, batch)| query.on_batch(input, batch)).sum();
    std::hint::black_box(emitted + query.finish());
    Ok(process_cpu_seconds() - began)
}
