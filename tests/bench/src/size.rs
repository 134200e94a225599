//! What a checkpoint of a state that is larger than memory uploads when little of it has changed: many keys of two kilobytes each on RocksDB, a small
//! part of them changed between two checkpoints. Memory of the process is watched meanwhile.
//!
//! `MILLSTREAM_BENCH_STATE_KEYS` changes the number of keys (default: a million, which take 2 GiB of disk; ten million take 20), and
//! `MILLSTREAM_BENCH_STATE_MEMORY` what the job file says of memory.

use std::{num::NonZeroU32, path::Path, sync::Arc};

use anyhow::Context as _;
use millstream_engine::{
    clock::{Clock as _, SystemClock},
    run::{self, CheckpointReport, JobHandle},
};
use millstream_wasm::{Runtime, RuntimeSettings};
use serde::{Deserialize, Serialize};

use crate::{
    checkpoints, child,
    figures::Figure,
    guests::Guests,
    jobs,
    paced::{Paced, Shared, Timed},
    pause,
    process::memory_mib,
};

const KEYS: u64 = 1_000_000;
const CHECKPOINTS: usize = 24;
/// With it a process of one job stays within 1 GiB: `docs/job-file.md` says what there is beside it.
const STATE_MEMORY: &str = "384MiB";
/// One key of so many changes between two checkpoints.
const CHANGED: u64 = 200;

/// What the child found.
#[derive(Serialize, Deserialize)]
pub struct Found {
    keys: u64,
    /// What the job file said of memory.
    state_memory: String,
    /// The whole checkpoint at the end.
    mib: f64,
    whole_ms: u64,
    /// Percent of the checkpoint that each one uploaded.
    uploaded: Vec<f64>,
    /// The most that was ever resident.
    memory_mib: f64,
}

/// All figures of this group.
///
/// # Errors
/// The job does not run.
pub fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("hoard.wasm"), guests.bytes("hoard")?)?;
    let Found { keys, state_memory, mib, whole_ms, uploaded, memory_mib } = child::ask("large-state", directory.path())?;
    let part = uploaded.iter().sum::<f64>() / CHECKPOINTS as f64;
    let parts = uploaded.iter().map(|part| format!("{part:.1}")).collect::<Vec<_>>().join(", ");
    let how = format!(
        "{keys} keys of 2 KiB on RocksDB ({mib:.0} MiB), state-memory {state_memory}, one key of {CHANGED} changed between two checkpoints, mean of {CHECKPOINTS}: {parts} %"
    );
    Ok(vec![
        Figure::at_most("checkpoint of a large state, part of it that is uploaded", part, "%", 10.0, &how),
        Figure::at_most("checkpoint of a large state, most memory of the process", memory_mib, "MiB", 1_024.0, &how),
        Figure::for_scale("checkpoint of a large state, whole", whole_ms as f64, "ms", &how),
    ])
}

/// Runs the job; the component lies in `directory`, and the state goes there.
///
/// # Errors
/// It does not run.
pub async fn large_state(directory: &Path) -> anyhow::Result<Found> {
    let keys = match std::env::var("MILLSTREAM_BENCH_STATE_KEYS") {
        Ok(text) => text.parse().context("MILLSTREAM_BENCH_STATE_KEYS is a number of keys")?,
        Err(_) => KEYS,
    };
    let state_memory = std::env::var("MILLSTREAM_BENCH_STATE_MEMORY").unwrap_or_else(|_| STATE_MEMORY.to_owned());
    let shared = Arc::new(Shared::new(keys));
    let connectors = millstream_connectors::all().with_source(Paced(shared.clone())).with_sink(Timed(shared.clone()));
    let components = Runtime::new(RuntimeSettings::default())?;
    let plan = jobs::planned(&pause::job("hoard", &state_memory), directory, &connectors, &components, NonZeroU32::MIN).await?;
    let handle = run::start(plan, checkpoints::settings(&directory.join("state"), true)?);
    let found = measure_job(&handle, &shared, keys).await;
    handle.cancel().await;
    handle.wait().await;
    Ok(Found { state_memory, ..found? })
}

async fn measure_job(handle: &JobHandle, shared: &Shared, keys: u64) -> anyhow::Result<Found> {
    let mut whole = checkpoint_after(handle, shared, keys).await?;
    let mut uploaded = Vec::new();
    for number in 1..=CHECKPOINTS as u64 {
        let report = checkpoint_after(handle, shared, keys + number * (keys / CHANGED)).await?;
        uploaded.push(report.bytes_new as f64 / report.bytes_total as f64 * 100.0);
        whole = report;
    }
    let mib = whole.bytes_total as f64 / f64::from(1 << 20);
    Ok(Found { keys, state_memory: String::new(), mib, whole_ms: whole.total_ms, uploaded, memory_mib: memory_mib("self", "VmHWM")? })
}

/// Takes a checkpoint when so many rows came through and nothing flows.
async fn checkpoint_after(handle: &JobHandle, shared: &Shared, rows: u64) -> anyhow::Result<CheckpointReport> {
    shared.stop_at(rows);
    shared.rows_until(rows).await;
    SystemClock.sleep(500).await;
    handle.checkpoint().await.context("a checkpoint of the job")
}
