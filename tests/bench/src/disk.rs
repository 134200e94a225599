//! State that does not fit into memory: a keyed count over 10 million keys, uniform, with a Wasm operator on RocksDB, inside 1 GiB.
//!
//! It runs in a child of this program, whose memory is then that of the job: the growth is the most that was ever resident less what was
//! before the job. Every key has state before the first row that is measured.

use std::{num::NonZeroU32, path::Path, sync::Arc};

use millstream_engine::run::{RunSettings, StateDirectory};
use millstream_state::{RocksShared, RocksSharedSettings};
use millstream_wasm::{Runtime, RuntimeSettings};
use serde::{Deserialize, Serialize};

use crate::{
    child,
    figures::Figure,
    guests::Guests,
    jobs,
    keyed::job,
    process::memory_mib,
    uniform::{BATCH, Probe, Uniform},
};

const KEYS: u64 = 10_000_000;
const ROWS: usize = 4_096 * BATCH;
/// For the key table and what it keeps of values; 128 MiB more are the block cache of RocksDB with its write buffers.
const STATE_MEMORY: &str = "640MiB";

/// What the child found.
#[derive(Serialize, Deserialize)]
pub struct Found {
    millions_per_second: f64,
    growth_mib: f64,
    disk_mib: f64,
}

/// All figures of this group.
///
/// # Errors
/// The job does not run.
pub fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("count.wasm"), guests.bytes("count")?)?;
    let found: Found = child::ask("ten-million-keys", directory.path())?;
    let how = format!(
        "{KEYS} keys, then {ROWS} rows, uniform, parallelism 1; state-memory {STATE_MEMORY}, block cache and write buffers 128 MiB; CPU time of the whole process"
    );
    let name = |what: &str| format!("10 M keys on RocksDB{what}");
    Ok(vec![
        Figure::at_least(name(""), found.millions_per_second, "M events/CPU-s", 0.3, &how),
        Figure::at_most(
            name(", growth of memory"),
            found.growth_mib,
            "MiB",
            1_024.0,
            format!("{how}; the most that was resident less what was before the job"),
        ),
        Figure::for_scale(name(", on disk at the end"), found.disk_mib, "MiB", &how),
    ])
}

/// Runs the job; the component lies in `directory`, and the state goes there.
///
/// # Errors
/// It does not run.
pub async fn ten_million_keys(directory: &Path) -> anyhow::Result<Found> {
    let components = Runtime::new(RuntimeSettings::default())?;
    let probe = Probe::default();
    let connectors = millstream_connectors::all().with_source(Uniform(probe.clone()));
    let plan = jobs::planned(&job(KEYS, ROWS, None, STATE_MEMORY), directory, &connectors, &components, NonZeroU32::MIN).await?;
    let state = directory.join("state");
    let shared = Arc::new(RocksShared::new(RocksSharedSettings::default()));
    let before = memory_mib("self", "VmRSS")?;
    let settings = RunSettings { state: Some(StateDirectory { path: state.clone(), shared }), ..RunSettings::new() };
    jobs::finished(&plan, settings).await?;
    Ok(Found {
        millions_per_second: ROWS as f64 / probe.seconds() / 1e6,
        growth_mib: memory_mib("self", "VmHWM")? - before,
        disk_mib: bytes_below(&state)? as f64 / f64::from(1 << 20),
    })
}

fn bytes_below(directory: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { bytes_below(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
