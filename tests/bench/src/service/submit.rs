//! From the first byte of the request that submits a job until the first row of its operator is heard.

use super::{jobs::Numbered, percentile, process::Service, since_ms};
use crate::{
    figures::{Figure, median, now},
    guests::Guests,
};

const SUBMISSIONS: usize = 200;

/// The figures of this part.
///
/// # Errors
/// The service does not do what it should.
pub fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let service = Service::start(guests)?;
    let (mut accepted, mut heard) = (Vec::new(), Vec::new());
    for number in 0..SUBMISSIONS {
        let name = format!("job{number}");
        let job = Numbered::new(&name, 1_000, 7).file();
        let began = now();
        service.submit(&job)?;
        accepted.push(since_ms(began));
        service.first_row(&name, "tally")?;
        heard.push(since_ms(began));
        service.undeploy(&name)?;
    }
    let how = format!("POST /v1/jobs until the first row of …/tail, precompiled component, {SUBMISSIONS} jobs one after the other");
    let p99 = percentile(&heard, 0.99);
    Ok(vec![
        Figure::for_scale("submit over HTTP until it is acknowledged, p50", median(accepted), "ms", &how),
        Figure::for_scale("submit to first output over HTTP, p50", median(heard), "ms", &how),
        Figure::at_most("submit to first output over HTTP, p99", p99, "ms", 100.0, &how),
    ])
}
