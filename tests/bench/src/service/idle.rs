//! A thousand jobs that hardly do anything: resident memory of the process with and without them, and the time of a request beside them.

use super::{jobs::Numbered, percentile, process::Service, since_ms};
use crate::{
    figures::{Figure, now},
    guests::Guests,
};

const JOBS: usize = 1_000;
const REQUESTS: usize = 2_000;

/// The figures of this part.
///
/// # Errors
/// The service does not do what it should.
pub fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let service = Service::start(guests)?;
    let before = service.holds()?;
    let name = |number: usize| format!("idle{number}");
    for number in 0..JOBS {
        service.submit(&Numbered::new(&name(number), 1, 7).file())?;
    }
    // The last of them has checkpoints behind it, too.
    while service.run(&name(JOBS - 1))?.last_checkpoint() < 2 {
        std::thread::yield_now();
    }
    let after = service.holds()?;
    let mut milliseconds = Vec::new();
    for number in 0..REQUESTS {
        let began = now();
        service.json("GET", &format!("/v1/jobs/{}", name(number % JOBS)), b"")?;
        milliseconds.push(since_ms(began));
    }
    let each = |of: fn(&super::process::Holds) -> f64| (of(&after) - of(&before)) / JOBS as f64;
    let how = format!(
        "{JOBS} jobs of one row a second with a keyed component and a checkpoint every 10 s, each with checkpoints behind it; resident memory of the process"
    );
    Ok(vec![
        Figure::at_most("memory of one of 1,000 idle jobs", each(|holds| holds.resident_mib), "MiB", 1.0, &how),
        Figure::for_scale("descriptors of one of 1,000 idle jobs", each(|holds| holds.descriptors as f64), "descriptors", &how),
        Figure::at_most("API beside 1,000 idle jobs, p99", percentile(&milliseconds, 0.99), "ms", 50.0, &how),
    ])
}
