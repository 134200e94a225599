//! What it costs that the jobs of a tenant run in a process of their own: throughput beside that of the same jobs in the service itself, and the memory of
//! a runner that has nothing to do.
//!
//! Throughput is a ratio in one run: both ways by turns, so that a clock that changes changes both. Memory is the proportional share (PSS): what runners
//! share of the program counts once.

use std::time::Duration;

use anyhow::ensure;

use super::{
    jobs::Numbered,
    process::{Service, pss_mib},
};
use crate::{
    figures::{Figure, median, now},
    guests::Guests,
};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
/// Rows that go through before it is measured: caches are warm then.
const WARM_ROWS: u64 = 200_000;

/// All figures of this group.
///
/// # Errors
/// The service does not do what it should.
pub fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let (mut within, mut apart, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        within.push(rows_per_second(&Service::start_isolated(guests, "none")?)?);
        let service = Service::start_isolated(guests, "process")?;
        // Whatever is asked of a tenant's jobs starts its runner.
        service.json("POST", "/v1/validate", Numbered::new("idle", 1, 7).file().as_bytes())?;
        idle.push(runner_mib(&service)?);
        apart.push(rows_per_second(&service)?);
    }
    let share = median(apart) / median(within) * 100.0;
    let how = format!("a keyed component at parallelism 1, as fast as it goes; median of {ROUNDS} rounds each, by turns");
    Ok(vec![
        Figure::at_least("throughput in a runner, of that in the service itself", share, "%", 95.0, how),
        Figure::for_scale(
            "memory of the only runner, without jobs",
            median(idle),
            "MiB",
            "proportional set size, after a job file was planned in it; it shares the program with nobody but the service",
        ),
    ])
}

fn rows_per_second(service: &Service) -> anyhow::Result<f64> {
    service.submit(&Numbered { rate: None, ..Numbered::new("fast", 1, 1_000) }.file())?;
    while service.run("fast")?.of("tally", "rows-in") < WARM_ROWS {
        std::thread::yield_now();
    }
    let (began, before) = (now(), service.run("fast")?.of("tally", "rows-in"));
    while began.elapsed() < ROUND {
        std::thread::park_timeout(ROUND.saturating_sub(began.elapsed()));
    }
    let rows = service.run("fast")?.of("tally", "rows-in") - before;
    ensure!(rows > 0, "no row came through");
    Ok(rows as f64 / began.elapsed().as_secs_f64())
}

fn runner_mib(service: &Service) -> anyhow::Result<f64> {
    let runners = service.runners()?;
    let [runner] = runners.as_slice() else { anyhow::bail!("one tenant has one runner: {runners:?}") };
    pss_mib(runner)
}
