//! Jobs that come and go: what the process holds after thousands of them, against what it held after the first few hundred.

use super::{jobs::Numbered, process::Service};
use crate::{figures::Figure, guests::Guests};

const CYCLES: usize = 5_000;
/// After so many everything is warm that ever will be.
const WARM: usize = 500;

/// The figures of this part.
///
/// # Errors
/// The service does not do what it should.
pub fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let service = Service::start(guests)?;
    let cycle = |number: usize| {
        let name = format!("job{number}");
        service.submit(&Numbered::new(&name, 1_000, 7).file())?;
        service.first_row(&name, "tally")?;
        service.undeploy(&name)
    };
    (0..WARM).try_for_each(cycle)?;
    let before = service.holds()?;
    (WARM..CYCLES).try_for_each(cycle)?;
    let after = service.holds()?;
    let how = format!("{CYCLES} jobs submitted, heard, stopped and deleted; what the process holds then against what it held after {WARM}");
    let count = |after: usize, before: usize| after as f64 - before as f64;
    Ok(vec![
        Figure::at_most("5,000 deploys, memory added", after.resident_mib - before.resident_mib, "MiB", 16.0, &how),
        Figure::at_most("5,000 deploys, descriptors added", count(after.descriptors, before.descriptors), "descriptors", 4.0, &how),
        Figure::at_most("5,000 deploys, threads added", count(after.threads, before.threads), "threads", 4.0, &how),
        Figure::at_most("5,000 deploys, disk added", after.disk_mib - before.disk_mib, "MiB", 16.0, &how),
    ])
}
