//! A thousand swaps of an operator with a million keys, at half of the load that the job can carry: the pauses that the engine reports, the whole
//! request, and whether any row was lost, came twice or out of order.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{
    jobs::Numbered,
    percentile,
    process::{Run, Service},
    since_ms,
};
use crate::{
    figures::{Figure, median, now},
    guests::{Guests, another_version},
};

const SWAPS: usize = 1_000;
const KEYS: u64 = 1_000_000;
const FULL_LOAD_S: f64 = 3.0;
/// How often the job is looked at until it is seen at rest.
const LOOKS: usize = 10_000;

/// The figures of this part.
///
/// # Errors
/// The service does not do what it should.
pub fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let service = Service::start(guests)?;
    service.push("tally:v2", &another_version(&guests.bytes("tally")?, "v2"))?;
    let rate = full_load(&service)? / 2;
    service.submit(&Numbered::new("swapped", rate, KEYS).file())?;
    warm(&service, "swapped")?;
    let (mut pauses, mut requests) = (Vec::new(), Vec::new());
    for number in 0..SWAPS {
        let (of_swap, took_ms) = swap(&service, if number % 2 == 0 { "v2" } else { "v1" })?;
        pauses.extend(of_swap);
        requests.push(took_ms);
    }
    let rest = at_rest(&service)?;
    // What is counted begins again with each attempt.
    ensure!(rest.restarts() == 0, "the job was restarted while it was swapped");
    let (rows, wrong) = (rest.of("tally", "rows-out"), rest.of("wrong", "rows-out"));
    let how = format!(
        "{SWAPS} swaps over HTTP, {KEYS} keys of state, {rate} rows/s, half of what the job carries; {rows} rows, of which every one is checked"
    );
    let (pause_p99, request_p99) = (percentile(&pauses, 0.99), percentile(&requests, 0.99));
    Ok(vec![
        Figure::at_most("swap over HTTP, pause p50", median(pauses), "ms", 2.0, &how),
        Figure::at_most("swap over HTTP, pause p99", pause_p99, "ms", 10.0, &how),
        Figure::at_most("swap over HTTP, rows lost, twice or out of order", wrong as f64, "rows", 0.0, &how),
        Figure::for_scale("swap over HTTP, whole request p50", median(requests), "ms", &how),
        Figure::for_scale("swap over HTTP, whole request p99", request_p99, "ms", &how),
    ])
}

/// Rows per second that the job carries with all its keys.
fn full_load(service: &Service) -> anyhow::Result<u64> {
    service.submit(&Numbered { rate: None, ..Numbered::new("full", 1, KEYS) }.file())?;
    warm(service, "full")?;
    let (began, before) = (now(), service.run("full")?.of("tally", "rows-in"));
    while began.elapsed().as_secs_f64() < FULL_LOAD_S {
        service.run("full")?;
    }
    let rows = service.run("full")?.of("tally", "rows-in") - before;
    let per_second = rows as f64 / began.elapsed().as_secs_f64();
    service.undeploy("full")?;
    Ok(per_second as u64)
}

/// Returns when every key has been seen twice.
fn warm(service: &Service, job: &str) -> anyhow::Result<()> {
    while service.run(job)?.of("tally", "rows-in") < 2 * KEYS {}
    Ok(())
}

/// The pauses of one swap, and how long the whole request took.
fn swap(service: &Service, tag: &str) -> anyhow::Result<(Vec<f64>, f64)> {
    let wanted = json!({ "operators": { "tally": { "component": format!("tally:{tag}") } }, "probation-s": 0 }).to_string();
    loop {
        let began = now();
        match service.json("POST", "/v1/jobs/swapped/swap", wanted.as_bytes()) {
            // The swap before is not settled yet.
            Err(error) if format!("{error:#}").contains("is under way") => {}
            answered => {
                let took_ms = since_ms(began);
                let report = answered?;
                let pauses = report["pauses-us"].as_array().context("pauses")?;
                return Ok((pauses.iter().filter_map(Value::as_f64).map(|us| us / 1e3).collect(), took_ms));
            }
        }
    }
}

/// The job in a moment in which no row is under way: every operator has emitted what it was given, so no row has been lost between them.
fn at_rest(service: &Service) -> anyhow::Result<Run> {
    let mut run = service.run("swapped")?;
    for _ in 0..LOOKS {
        let counts = [("numbers", "rows-out"), ("keys", "rows-out"), ("tally", "rows-in"), ("tally", "rows-out"), ("results", "rows-in")];
        let mut counts = counts.map(|(operator, number)| run.of(operator, number)).into_iter();
        let first = counts.next().unwrap_or_default();
        if first > 2 * KEYS && counts.all(|count| count == first) && run.of("wrong", "rows-in") == first {
            return Ok(run);
        }
        run = service.run("swapped")?;
    }
    ensure!(false, "rows were lost or doubled between operators");
    Ok(run)
}
