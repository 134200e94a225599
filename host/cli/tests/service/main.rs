//! The service over real HTTP: one process per test, spoken to by bytes.

mod authorisation;
mod client;
mod deploys;
mod encryption;
mod full_disk;
mod harness;
mod hostile;
mod kafka;
mod life;
mod openapi;
mod pull;
mod recovery;
mod refused;
mod secrets;
mod swaps;
mod why;
