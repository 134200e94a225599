//! A version that traps on its first row, swapped into a running job: from the request until the version before runs again in every subtask.

use serde_json::json;

use super::{jobs::Numbered, percentile, process::Service, since_ms};
use crate::{
    figures::{Figure, median, now},
    guests::Guests,
};

const SWAPS: usize = 50;
const KEYS: u64 = 997;
const RATE: u64 = 100_000;

/// The figures of this part.
///
/// # Errors
/// The service does not do what it should.
pub fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let service = Service::start(guests)?;
    service.push("tally:broken", &guests.bytes("tally-broken")?)?;
    service.submit(&Numbered::new("job", RATE, KEYS).file())?;
    service.first_row("job", "tally")?;
    let wanted = json!({ "operators": { "tally": { "component": "tally:broken" } } }).to_string();
    let mut milliseconds = Vec::new();
    while milliseconds.len() < SWAPS {
        let began = now();
        match service.json("POST", "/v1/jobs/job/swap", wanted.as_bytes()) {
            Err(error) if format!("{error:#}").contains("is under way") => continue,
            // It trapped before all subtasks had switched: refused, and nothing is left of it.
            Err(error) if format!("{error:#}").contains("the new version of") => {}
            answered => {
                let version = answered?["version"].as_u64();
                // Going back is a version, too.
                while service.json("GET", "/v1/jobs/job", b"")?["version"].as_u64() <= version {}
            }
        }
        milliseconds.push(since_ms(began));
    }
    let before = service.run("job")?.of("tally", "rows-out");
    while service.run("job")?.of("tally", "rows-out") < before + RATE {}
    let wrong = service.run("job")?.of("wrong", "rows-out");
    let how = format!(
        "{SWAPS} swaps over HTTP to a version that traps on its first row, {RATE} rows/s, from the request until it is rolled back"
    );
    Ok(vec![
        Figure::for_scale("bad version rolled back, p50", median(milliseconds.clone()), "ms", &how),
        Figure::at_most("bad version rolled back, longest", percentile(&milliseconds, 1.0), "ms", 1_000.0, &how),
        Figure::at_most("bad version, rows lost, twice or out of order", wrong as f64, "rows", 0.0, &how),
    ])
}
