//! The service over real HTTP: one process per test, spoken to by bytes.

mod authorisation;
mod client;
mod deploys;
mod egress;
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
mod requests;
mod runners;
mod secrets;
mod swaps;
mod tenants;
mod trials;
mod walls;
mod why;
mod wide;
