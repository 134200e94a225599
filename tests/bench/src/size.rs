//! What a checkpoint of a large state uploads when little of it has changed: many keys on RocksDB, a small part of them counted again between two
//! checkpoints.
//!
//! `MILLSTREAM_BENCH_STATE_KEYS` changes the number of keys (default: 10 million, which take some 90 MiB of disk).

use std::{num::NonZeroU32, sync::Arc};

use anyhow::Context as _;
use millstream_engine::{
    clock::{Clock as _, SystemClock},
    run::{self, CheckpointReport, JobHandle},
};

use crate::{
    checkpoints,
    figures::Figure,
    guests::Guests,
    jobs,
    paced::{Paced, Shared, Timed},
    pause::JOB,
};

const KEYS: u64 = 10_000_000;
const CHECKPOINTS: usize = 24;
/// One key of so many changes between two checkpoints.
const CHANGED: u64 = 200;

/// All figures of this group.
///
/// # Errors
/// The job does not run.
pub async fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let keys = match std::env::var("MILLSTREAM_BENCH_STATE_KEYS") {
        Ok(text) => text.parse().context("MILLSTREAM_BENCH_STATE_KEYS is a number of keys")?,
        Err(_) => KEYS,
    };
    let shared = Arc::new(Shared::new(keys));
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("tally.wasm"), guests.bytes("tally")?)?;
    let connectors = millstream_connectors::all().with_source(Paced(shared.clone())).with_sink(Timed(shared.clone()));
    let job = JOB.replace("state-memory: 2GiB", "state-memory: 512MiB");
    let plan = jobs::planned(&job, directory.path(), &connectors, guests, NonZeroU32::MIN).await?;
    let handle = run::start(plan, checkpoints::settings(&directory.path().join("state"), true)?);
    let found = measure_job(&handle, &shared, keys).await;
    handle.cancel().await;
    handle.wait().await;
    found
}

async fn measure_job(handle: &JobHandle, shared: &Shared, keys: u64) -> anyhow::Result<Vec<Figure>> {
    let mut whole = checkpoint_after(handle, shared, keys).await?;
    let mut uploaded = Vec::new();
    for number in 1..=CHECKPOINTS as u64 {
        let report = checkpoint_after(handle, shared, keys + number * (keys / CHANGED)).await?;
        uploaded.push(report.bytes_new as f64 / report.bytes_total as f64 * 100.0);
        whole = report;
    }
    let part = uploaded.iter().sum::<f64>() / CHECKPOINTS as f64;
    let how = format!(
        "{keys} keys on RocksDB ({:.0} MiB), state-memory 512 MiB, one key of {CHANGED} counted again between two checkpoints, mean of {CHECKPOINTS}: {} %",
        whole.bytes_total as f64 / f64::from(1 << 20),
        uploaded.iter().map(|part| format!("{part:.1}")).collect::<Vec<_>>().join(", ")
    );
    Ok(vec![
        Figure::at_most("checkpoint of a large state, part of it that is uploaded", part, "%", 10.0, &how),
        Figure::for_scale("checkpoint of a large state, whole", whole.total_ms as f64, "ms", &how),
    ])
}

/// Takes a checkpoint when so many rows came through and nothing flows.
async fn checkpoint_after(handle: &JobHandle, shared: &Shared, rows: u64) -> anyhow::Result<CheckpointReport> {
    shared.stop_at(rows);
    shared.rows_until(rows).await;
    SystemClock.sleep(500).await;
    handle.checkpoint().await.context("a checkpoint of the job")
}
