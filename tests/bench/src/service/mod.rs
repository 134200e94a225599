//! The service over HTTP: the real binary, one process, spoken to by bytes on loopback. One module per part, each with what it measures and how;
//! [`process`] is the service as a process, [`jobs`] the job files.

mod broken;
mod cycles;
mod idle;
mod jobs;
mod kill;
pub mod neighbour;
mod process;
mod submit;
mod swap;
pub mod tenants;
pub mod wall;

use std::time::Instant;

use crate::{figures::Figure, guests::Guests};

/// The parts, in the order in which they are measured.
pub const PARTS: [&str; 6] = ["service-submit", "service-swap", "service-broken", "service-idle", "service-kill", "service-cycles"];

/// The figures of one part.
///
/// # Errors
/// The binary is not there, or does not do what it should; there is no such part.
pub fn measure(part: &str, guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    match part {
        "service-submit" => submit::measure(guests),
        "service-swap" => swap::measure(guests),
        "service-broken" => broken::measure(guests),
        "service-idle" => idle::measure(guests),
        "service-kill" => kill::measure(guests),
        "service-cycles" => cycles::measure(guests),
        _ => anyhow::bail!("the service has no part {part}"),
    }
}

fn since_ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
