//! What a swap does to the rows that come meanwhile: as [`crate::pause`], at half of the load that the job carries, with a million keys. The pauses are
//! those that the engine reports; latencies are those of all rows that were due from the request to prepare a swap until 20 ms after its end.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use anyhow::Context as _;
use millstream_engine::{
    clock::{Clock as _, SystemClock},
    run::{self, JobHandle, NewComponent, NewVersion, SwapRequest, SwitchAt},
};
use millstream_wasm::Component;

use crate::{
    checkpoints,
    figures::{Figure, now},
    guests::{Guests, another_version},
    jobs,
    paced::{BUCKETS, Paced, Shared, Timed},
    pause::{job, percentile_ms},
};

const KEYS: u64 = 1_000_000;
const SWAPS: usize = 1_000;
const PHASE_MS: i64 = 4_000;
const AFTER_MS: i64 = 20;

/// All figures of this group.
///
/// # Errors
/// The job does not run.
pub async fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let shared = Arc::new(Shared::new(KEYS));
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("tally.wasm"), guests.bytes("tally")?)?;
    let connectors = millstream_connectors::all().with_source(Paced(shared.clone())).with_sink(Timed(shared.clone()));
    let plan = jobs::planned(&job("tally", "2GiB"), directory.path(), &connectors, guests, NonZeroU32::MIN).await?;
    let versions = [version(guests, "v2").await?, version(guests, "v1").await?];
    let handle = run::start(plan, checkpoints::settings(&directory.path().join("state"), true)?);
    let found = measure_job(&handle, &shared, &versions).await;
    handle.cancel().await;
    handle.wait().await;
    found
}

async fn version(guests: &Guests, name: &str) -> anyhow::Result<(Component, Arc<[u8]>)> {
    let bytes: Arc<[u8]> = another_version(&guests.bytes("tally")?, name).into();
    Ok((guests.load(bytes.clone(), name).await?, bytes))
}

async fn measure_job(handle: &JobHandle, shared: &Shared, versions: &[(Component, Arc<[u8]>)]) -> anyhow::Result<Vec<Figure>> {
    shared.rows_until(4 * KEYS).await;
    let (before, began) = (shared.rows(), now());
    SystemClock.sleep(PHASE_MS / 2).await;
    let full = (shared.rows() - before) as f64 / began.elapsed().as_secs_f64();
    shared.pace((full / 2.0) as u64);
    SystemClock.sleep(PHASE_MS / 2).await;
    shared.take_latencies();
    SystemClock.sleep(PHASE_MS).await;
    let without = shared.take_latencies();
    let (mut with, mut pauses) = (vec![0; BUCKETS], vec![0; BUCKETS]);
    for (component, bytes) in versions.iter().cycle().take(SWAPS) {
        shared.take_latencies();
        for pause in swapped(handle, component, bytes).await? {
            pauses[(pause.as_micros() as usize / 10).min(BUCKETS - 1)] += 1;
        }
        SystemClock.sleep(AFTER_MS).await;
        with.iter_mut().zip(shared.take_latencies()).for_each(|(all, some)| *all += some);
    }
    let how = format!(
        "{SWAPS} swaps of an operator with {KEYS} keys, {:.1} M rows/s, half of what the job carries, parallelism 1; rows due from the request until {AFTER_MS} ms after its end",
        full / 2e6
    );
    let added = |share| percentile_ms(&with, share) - percentile_ms(&without, share);
    Ok(vec![
        Figure::at_most("swap, pause of the operator, p50", percentile_ms(&pauses, 0.5), "ms", 2.0, &how),
        Figure::at_most("swap, pause of the operator, p99", percentile_ms(&pauses, 0.99), "ms", 10.0, &how),
        Figure::for_scale("latency that a swap adds, p50", added(0.5), "ms", &how),
        Figure::for_scale("latency that a swap adds, p99", added(0.99), "ms", &how),
        Figure::for_scale("latency around a swap, longest of 1,000 rows", percentile_ms(&with, 0.999), "ms", &how),
    ])
}

/// Swaps and settles; how long each subtask stood still.
async fn swapped(handle: &JobHandle, component: &Component, bytes: &Arc<[u8]>) -> anyhow::Result<Vec<Duration>> {
    let component = NewComponent { component: component.clone(), bytes: bytes.to_vec().into() };
    let version = NewVersion { operator: "tally".into(), component: Some(component), settings: None };
    let request = SwapRequest { switch_at: SwitchAt::Batch, probation: Duration::ZERO, ..SwapRequest::of(version) };
    let prepared = handle.prepare_swap(request).await.context("preparing a swap")?;
    let switched = handle.switch(prepared.swap).await.context("switching")?;
    while handle.status().await.and_then(|status| status.swap).is_some_and(|swap| !swap.phase.is_over()) {
        SystemClock.sleep(1).await;
    }
    Ok(switched.pauses)
}
