//! A topic that is full is copied to another: by a bare loop of consumer and producer, and by a job with a component between them. The clients have the
//! same settings; both go on until every record is acknowledged. They take turns, and medians count.

use millstream_engine::run::RunSettings;

use super::{Job, clients::Cluster};
use crate::{
    figures::{Figure, median, now, process_cpu_seconds},
    guests::Guests,
    jobs,
};

const RECORDS: u64 = 2_000_000;
const RECORD_BYTES: usize = 100;
const SAMPLES: usize = 3;

/// What one copy took.
#[derive(Clone, Copy)]
struct Took {
    /// By the clock on the wall.
    seconds: f64,
    /// User and system time of this process, all threads, those of the client library as well.
    cpu_seconds: f64,
}

/// All figures of this part.
///
/// # Errors
/// Something does not run.
pub async fn measure(guests: &Guests, cluster: &Cluster) -> anyhow::Result<Vec<Figure>> {
    let mut figures = raw(guests, cluster).await?;
    figures.extend(json(guests, cluster).await?);
    Ok(figures)
}

async fn raw(guests: &Guests, cluster: &Cluster) -> anyhow::Result<Vec<Figure>> {
    let from = cluster.topic("raw");
    // Text that compresses about as events do.
    cluster.fill(&from, RECORDS, |number, bytes| {
        bytes.extend_from_slice(format!("{number:020} {:020} {:x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15), number % 977).as_bytes());
        bytes.resize(RECORD_BYTES, b'.');
    })?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let to = cluster.topic("bare");
        bare.push(timed(async || cluster.copy(&from, &to).map(drop)).await?);
        let to = cluster.topic("ours");
        let job = job("raw", "", "component: { path: kept.wasm }", &from, &to);
        ours.push(run(&job, cluster, guests).await?);
    }
    let how = format!(
        "{RECORDS} records of {RECORD_BYTES} bytes, two partitions, lz4, idempotent producer, broker on the same machine, wall clock until all are acknowledged, median of {SAMPLES} in turn"
    );
    let rate = |took: &[Took]| RECORDS as f64 / median(took.iter().map(|took| took.seconds).collect());
    let per_cpu = |took: &[Took]| RECORDS as f64 / median(took.iter().map(|took| took.cpu_seconds).collect()) / 1e6;
    Ok(vec![
        Figure::at_least("kafka, raw bytes through a Wasm filter against a bare copy loop", rate(&ours) / rate(&bare), "times", 0.7, &how),
        Figure::for_scale("kafka, raw bytes through a Wasm filter", rate(&ours) / 1e6, "M records/s", &how),
        Figure::for_scale("kafka, bare copy loop", rate(&bare) / 1e6, "M records/s", &how),
        Figure::for_scale("kafka, raw bytes through a Wasm filter, of CPU", per_cpu(&ours), "M/CPU-s", &how),
        Figure::for_scale("kafka, bare copy loop, of CPU", per_cpu(&bare), "M/CPU-s", &how),
    ])
}

async fn json(guests: &Guests, cluster: &Cluster) -> anyhow::Result<Vec<Figure>> {
    let from = cluster.topic("json");
    cluster.fill(&from, RECORDS, |number, bytes| {
        let (key, value) = (number.wrapping_mul(382_117) % 10_000, number % 100_000);
        bytes.extend_from_slice(
            format!("{{\"key\":{key},\"value\":{value},\"at\":{number},\"name\":\"customer {key}\",\"open\":true}}").as_bytes(),
        );
    })?;
    let schema = "    schema: { key: Int64, value: Int64, at: Int64, name: Utf8, open: Boolean }\n";
    let mut took = Vec::new();
    for _ in 0..SAMPLES {
        let to = cluster.topic("json-out");
        let job = job("json", schema, "component: { path: converted.wasm }", &from, &to);
        took.push(run(&job, cluster, guests).await?);
    }
    let how = format!(
        "{RECORDS} events of five fields, decoded, filtered and mapped by a component, nine of ten encoded again; CPU time of the whole process, client library included, median of {SAMPLES}"
    );
    let cpu = median(took.iter().map(|took| took.cpu_seconds).collect());
    let seconds = median(took.iter().map(|took| took.seconds).collect());
    Ok(vec![
        Figure::at_least("kafka, JSON through a Wasm filter and map", RECORDS as f64 / cpu / 1e3, "K events/CPU-s", 400.0, &how),
        Figure::for_scale("kafka, JSON through a Wasm filter and map, by the clock", RECORDS as f64 / seconds / 1e3, "K events/s", &how),
    ])
}

fn job<'a>(format: &'a str, schema: &'a str, operator: &'a str, from: &'a str, to: &'a str) -> Job<'a> {
    Job { format, schema, operator, from, to, end: ", end: now", sink: ", delivery: at-least-once", more: "" }
}

async fn run(job: &Job<'_>, cluster: &Cluster, guests: &Guests) -> anyhow::Result<Took> {
    let (plan, _directory) = job.plan(cluster, guests, 2).await?;
    timed(async || jobs::finished(&plan, RunSettings::new()).await).await
}

async fn timed(work: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<Took> {
    let (began, cpu) = (now(), process_cpu_seconds());
    work().await?;
    Ok(Took { seconds: began.elapsed().as_secs_f64(), cpu_seconds: process_cpu_seconds() - cpu })
}
