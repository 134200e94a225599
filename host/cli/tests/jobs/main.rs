//! Whole jobs through the real binary, which is killed and started again: what they write must be what they would have written anyway.
//!
//! The jobs are those of `examples/`, compared with the same references as in `tests/jobs`. Every failure prints the seed; `MILLSTREAM_SEED` gives it
//! again, `MILLSTREAM_SOAK=1` runs long.

#![expect(clippy::unwrap_used, reason = "a failure is the test's; clippy excuses the tests themselves, but not their helpers")]
#![expect(clippy::print_stdout, reason = "seeds and figures are read by people")]

mod accounting;
mod binary;
mod corruption;
mod counting;
mod directories;
mod following;
#[cfg(target_os = "linux")]
mod full_disk;
mod kafka;
mod kafka_flights;
mod kafka_time;
mod kills;
mod object_store;
mod requests;
mod running;
mod savepoints;
mod state;
mod topics;
mod trouble;
