//! The service over real HTTP: one process per test, spoken to by bytes.

mod authorisation;
mod client;
mod deploys;
mod encryption;
mod harness;
mod hostile;
mod life;
mod recovery;
mod swaps;
